package attacks

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/cmd"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/vault"
)

// witness is somebody who cosigns.
func newWitness(t *testing.T, name string) *torchwood.CosignatureSigner {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := torchwood.NewCosignatureSigner(name, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// policyOf asks for the cosignature of one witness.
func policyOf(vkey string, w *torchwood.CosignatureSigner) string {
	return fmt.Sprintf("log %s\nwitness w %s\nquorum w\n", vkey, w.Verifier())
}

// cosigned has a witness sign a checkpoint; it signs anything.
func cosigned(t *testing.T, log note.Verifier, checkpoint []byte, by *torchwood.CosignatureSigner) []byte {
	t.Helper()
	n, err := note.Open(checkpoint, note.VerifierList(log))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(n, by)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// cosigning is a server whose checkpoints are signed by a witness, and which shows these policies.
type cosigning struct {
	world.Calls
	head func([]byte) []byte
	rows []api.Handoff
}

func (c cosigning) PublicEntries(ctx context.Context, from uint64) (api.PublicEntries, error) {
	p, err := c.Calls.PublicEntries(ctx, from)
	p.Head = c.head(p.Head)
	return p, err
}

func (c cosigning) Completeness(ctx context.Context, r api.Completeness) (api.CompletenessProof, error) {
	p, err := c.Calls.Completeness(ctx, r)
	p.Head = c.head(p.Head)
	return p, err
}

func (c cosigning) AccountByID(ctx context.Context, id chat.AccountID) (api.Account, error) {
	a, err := c.Calls.AccountByID(ctx, id)
	a.Keys.Head = c.head(a.Keys.Head)
	return a, err
}

func (c cosigning) Policies(context.Context) ([]api.Handoff, error) { return c.rows, nil }

// watched is a world with a log that a test's witness signs, and a person who pinned the witness' policy.
type watched struct {
	t     *testing.T
	w     *world.World
	keys  *ledger.Keys
	log   note.Verifier
	by    *torchwood.CosignatureSigner // who signs now; nil: nobody
	rows  []api.Handoff
	alice *world.Person
}

func watch(t *testing.T, first *torchwood.CosignatureSigner) *watched {
	t.Helper()
	w := world.New(t)
	a := &watched{t: t, w: w, keys: serverKeys(t, w), by: first}
	a.log = verifier(t, a.keys.LedgerVKey())
	home := filepath.Join(w.Dir, "alice")
	v, err := vault.Open(home, vault.Options{})
	w.Must(err)
	t.Cleanup(func() { v.Close() })
	a.alice = &world.Person{T: t, Home: home}
	lies(a.alice, func(s world.Calls) device.Server { return cosigning{s, a.head, a.rows} })
	a.alice.Client, _, err = device.SignUp(w.Ctx(), device.Config{State: cmd.DeviceState(v), Dial: a.alice.Dial, Policy: []byte(policyOf(a.keys.LedgerVKey(), first)),
		Now: func() time.Time { return time.Now().Add(a.alice.Later) }}, w.URL, "alice", "test")
	w.Must(err)
	return a
}

func (a *watched) head(data []byte) []byte {
	h, err := proof.ParseHead(data)
	if err != nil || a.by == nil {
		return data
	}
	h.Checkpoint = cosigned(a.t, a.log, h.Checkpoint, a.by)
	return h.Bytes()
}

// logs puts a policy into the ledger, in a tree that somebody cosigned (nil: nobody).
func (a *watched) logs(policy string, by *torchwood.CosignatureSigner) {
	a.t.Helper()
	app := &app{t: a.t, w: a.w}
	leaf := &proof.Policy{Text: policy}
	app.inLedger(func(tx *store.Tx, l *ledger.Ledger) error { _, err := l.Public(tx, leaf); return err })
	p, err := steal(a.t, a.alice).calls.InclusionProof(a.w.Ctx(), proof.LeafHash(leaf.Bytes()), 10)
	a.w.Must(err)
	if by != nil {
		place, checkpoint, _ := bytes.Cut(p, []byte("\n\n"))
		p = append(append(bytes.Clone(place), "\n\n"...), cosigned(a.t, a.log, checkpoint, by)...)
	}
	a.rows = append(a.rows, api.Handoff{Leaf: leaf.Bytes(), Proof: p})
}

// TestCheckpointWithoutQuorum: the server goes on alone.
func TestCheckpointWithoutQuorum(t *testing.T) {
	a := watch(t, newWitness(t, "w0.example/witness"))
	if r := checks(t, a.w, a.alice); !strings.Contains(r.Lines[0].Sentence, "cosigned by w0.example/witness") {
		t.Fatalf("the honest report: %+v", r)
	}
	for what, by := range map[string]*torchwood.CosignatureSigner{"nobody signs": nil, "somebody else signs": newWitness(t, "w0.example/witness")} {
		a.by = by
		_, err := a.alice.Check(a.w.Ctx())
		if !chat.Is(err, chat.Unproven) || !strings.Contains(err.Error(), "has not the cosignatures that the policy asks for") {
			t.Errorf("%s: answered with %v", what, err)
		}
	}
}

// TestWitnessesAreLongGone: the server's own times are new; what the witness signed is two hours old.
func TestWitnessesAreLongGone(t *testing.T) {
	a := watch(t, newWitness(t, "w0.example/witness"))
	a.w.Stop()
	a.w.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	a.w.Start()
	a.alice.Later = 2 * time.Hour
	app := &app{t: t, w: a.w}
	app.inLedger(func(tx *store.Tx, l *ledger.Ledger) error { // the ledger grows, by its own clock
		_, err := l.Public(tx, &proof.Release{Name: "letterlock", Version: "v1", SHA256: [32]byte{1}})
		return err
	})
	for range 100 { // until it is published
		p, err := steal(t, a.alice).calls.PublicEntries(a.w.Ctx(), 0)
		a.w.Must(err)
		if len(p.Entries) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	_, err := a.alice.Check(a.w.Ctx())
	answered(t, err, chat.Unproven, "2h0m0s ago by this device's clock")
}

// TestPolicyIsHandedOn: the next policy counts where the quorum of the one before signed it off, and not otherwise.
func TestPolicyIsHandedOn(t *testing.T) {
	first, second := newWitness(t, "w0.example/witness"), newWitness(t, "w1.example/witness")
	a := watch(t, first)
	vkey := a.keys.LedgerVKey()
	a.logs(policyOf(vkey, first), nil)
	a.logs(policyOf(vkey, second), first)
	honest := slices.Clone(a.rows)
	a.by = second

	a.rows = a.rows[:1]
	a.logs(fmt.Sprintf("log %s\nwitness other %s\nquorum other\n", vkey, second.Verifier()), second) // signed off by itself
	_, err := a.alice.Check(a.w.Ctx())
	answered(t, err, chat.Tampered, "the server shows a witness policy that the one before did not sign off")
	answered(t, err, chat.Tampered, "witness policy 1 was not signed off by the quorum of the one before")
	if a.alice.WitnessPolicy() != policyOf(vkey, first) {
		t.Fatalf("pinned: %s", a.alice.WitnessPolicy())
	}

	a.rows = honest
	checks(t, a.w, a.alice)
	if a.alice.WitnessPolicy() != policyOf(vkey, second) {
		t.Fatalf("pinned: %s", a.alice.WitnessPolicy())
	}
}
