package ledger

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/witness"
)

// signer is a witness of a bench's log that listens, and can be away.
type signer struct {
	*witness.Witness
	url  string
	away atomic.Bool
	slow atomic.Pointer[chan struct{}] // if set, it answers when that is closed
}

func newSigner(t *testing.T, b *bench, name string) *signer {
	t.Helper()
	w, err := witness.Open(witness.Config{Home: t.TempDir(), Name: name, Logs: []string{b.keys.LedgerVKey()}, Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	s := &signer{Witness: w}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if wait := s.slow.Load(); wait != nil {
			<-*wait
		}
		if s.away.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Handler().ServeHTTP(rw, r)
	}))
	s.url = server.URL
	t.Cleanup(func() { server.Close(); w.Close() })
	return s
}

// policy names witnesses w0, w1, ... and then says more.
func (b *bench) policy(more string, of ...*signer) *proof.WitnessPolicy {
	b.t.Helper()
	text := "log " + b.keys.LedgerVKey() + "\n"
	for i, s := range of {
		text += fmt.Sprintf("witness w%d %s %s\n", i, s.VKey(), s.url)
	}
	p, err := proof.ParsePolicy([]byte(text + more))
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) publisher(wanted *proof.WitnessPolicy) *Publisher {
	b.t.Helper()
	p, err := NewPublisher(b.Ledger, wanted, silent())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(p.late.Wait)
	return p
}

// witnessed runs writer and publisher until neither has anything to do, or the witnesses do not sign.
func (b *bench) witnessed(p *Publisher) error {
	b.t.Helper()
	for range 4 {
		b.clock = b.clock.Add(wantedTime)
		b.drain()
		if err := p.Step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) shown() proof.Checkpoint {
	b.t.Helper()
	signed, err := b.Checkpoint(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	c, err := proof.OpenCheckpoint(signed, b.verifier)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) integrated() (s store.LedgerState) {
	b.t.Helper()
	b.update(func(tx *store.Tx) (err error) { s, err = tx.LedgerState(b.origin()); return err })
	return s
}

// TestPublishedUnderAQuorum: with a policy, readers get what the quorum has signed and nothing newer, and torchwood agrees.
func TestPublishedUnderAQuorum(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "one.example"), newSigner(t, b, "two.example")
	policy := b.policy("group both all w0 w1\nquorum both\n", one, two)
	p := b.publisher(policy)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	judge, err := torchwood.ParsePolicy([]byte(policy.String()))
	if err != nil {
		t.Fatal(err)
	}
	before := b.shown()
	if _, _, err := torchwood.VerifyCheckpoint(before.Signed, judge); err != nil {
		t.Fatal(err)
	}
	two.away.Store(true)
	hash := b.reports(1)[0]
	if err := b.witnessed(p); !chat.Is(err, chat.NoQuorum) {
		t.Fatal(err)
	}
	if b.integrated().Size <= before.Size || b.Waiting() == 0 {
		t.Fatal("the entry was not integrated")
	}
	if now := b.shown(); string(now.Signed) != string(before.Signed) {
		t.Fatalf("shown without the quorum: %s", now.Signed)
	}
	if _, _, err := b.Inclusion(ctx, hash); !chat.Is(err, chat.NotFound) {
		t.Fatal(err)
	}
	if _, err := b.Tile(ctx, fmt.Sprintf("tile/0/000.p/%d", b.integrated().Size)); err != nil {
		t.Fatalf("an auditor cannot read what it is to sign: %v", err)
	}
	two.away.Store(false)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	_, text, err := b.Inclusion(ctx, hash)
	if err != nil {
		t.Fatal(err)
	}
	if err := torchwood.VerifyProof(judge, hash, text); err != nil {
		t.Fatal(err)
	}
	if b.Waiting() != 0 {
		t.Fatal(b.Waiting(), "wait")
	}
}

// TestNothingIsPublishedWithoutQuorum: whoever calls publish, the transaction asks for the quorum; and for a tree of this log, not before the last.
func TestNothingIsPublishedWithoutQuorum(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "one.example"), newSigner(t, b, "two.example")
	policy := b.policy("group both all w0 w1\nquorum both\n", one, two)
	p := b.publisher(policy)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	before := b.shown()
	b.grow(1)
	s := b.integrated()
	line := p.ask(ctx, policy, policy.Witnesses()[0], s)
	signed, err := policy.Cosigned(s.Checkpoint, line)
	if err != nil || line == "" {
		t.Fatal(err)
	}
	old := strings.SplitAfterN(string(before.Signed), "\n\n", 2)[1] // both witnesses' lines, of the tree before
	for what, signed := range map[string][]byte{
		"one of two":                      signed,
		"the log alone":                   s.Checkpoint,
		"cosignatures of the tree before": append([]byte(strings.SplitAfterN(string(s.Checkpoint), "\n\n", 2)[0]), old...),
		"both, and replayed":              append(append([]byte{}, signed...), strings.SplitAfter(old, "\n")[2]...),
	} {
		err := b.store.Update(ctx, func(tx *store.Tx) error { return b.publishCosigned(tx, signed) })
		if !chat.Is(err, chat.Unproven) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if now := b.shown(); now.Size != before.Size {
		t.Fatal("it was published")
	}
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error { return b.publishCosigned(tx, before.Signed) })
	if !chat.Is(err, chat.Unavailable) || b.shown().Size != s.Size {
		t.Fatalf("published a smaller tree: %v", err)
	}
}

// TestPolicyChangeNeedsTheOldQuorum: while the witnesses of the old policy are away the new one is not in force, whatever its own say; the
// row of handoffs proves the change to everybody who pinned the old one, and a handoff that the old quorum did not sign does not.
func TestPolicyChangeNeedsTheOldQuorum(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "one.example"), newSigner(t, b, "two.example")
	first, second := b.policy("quorum w0\n", one), b.policy("quorum w0\n", two)
	if err := b.witnessed(b.publisher(first)); err != nil {
		t.Fatal(err)
	}
	one.away.Store(true)
	p := b.publisher(second)
	b.witnessed(p)
	b.grow(2)
	if err := b.witnessed(p); !chat.Is(err, chat.NoQuorum) {
		t.Fatalf("without the old quorum: %v", err)
	}
	if rows, err := b.Policies(ctx); err != nil || len(rows) != 1 {
		t.Fatal(rows, err)
	}
	if _, _, err := first.Check(b.shown().Signed); err != nil {
		t.Fatal(err)
	}
	one.away.Store(false)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	rows, err := b.Policies(ctx)
	if err != nil || len(rows) != 2 {
		t.Fatal(rows, err)
	}
	list, err := proof.OpenHandoffs(b.verifier, rows)
	if err != nil || !list[0].Same(first) || !list[1].Same(second) {
		t.Fatal(list, err)
	}
	if now, err := proof.InForce(first, list); err != nil || !now.Same(second) {
		t.Fatal(now, err)
	}
	if _, err := proof.InForce(b.policy("quorum none\n"), list); !chat.Is(err, chat.Unproven) {
		t.Fatalf("a pinned policy that the ledger never had: %v", err)
	}
	b.grow(1)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	_, forged, err := b.Inclusion(ctx, proof.LeafHash(rows[1].Leaf)) // in a tree that the new quorum alone has signed
	if err != nil {
		t.Fatal(err)
	}
	_, err = proof.OpenHandoffs(b.verifier, []proof.Handoff{rows[0], {Leaf: rows[1].Leaf, Proof: forged}})
	if !chat.Is(err, chat.Unproven) || !strings.Contains(err.Error(), "was not signed off by the quorum of the one before") {
		t.Fatalf("a change that the old quorum did not sign: %v", err)
	}
	back := b.publisher(first) // a policy may come back
	if err := b.witnessed(back); err != nil {
		t.Fatal(err)
	}
	if rows, err = b.Policies(ctx); err != nil || len(rows) != 3 {
		t.Fatal(rows, err)
	}
	if list, err = proof.OpenHandoffs(b.verifier, rows); err != nil || !list[2].Same(first) {
		t.Fatal(list, err)
	}
}

// TestPolicyNeedsItsOwnQuorum: a policy whose witnesses do not answer is not logged, so that a slip in a file stops nothing for good.
func TestPolicyNeedsItsOwnQuorum(t *testing.T) {
	b := newBench(t)
	one := newSigner(t, b, "one.example")
	one.away.Store(true)
	p := b.publisher(b.policy("quorum w0\n", one))
	if err := b.witnessed(p); !chat.Is(err, chat.NoQuorum) {
		t.Fatal(err)
	}
	b.grow(1)
	if b.shown().Size != b.integrated().Size {
		t.Fatal("without a policy in the log, what is integrated is published")
	}
	b.clock = b.clock.Add(QuorumWait)
	if err := p.Step(ctx); !chat.Is(err, chat.NoQuorum) || !chat.Is(b.Quorum(), chat.NoQuorum) {
		t.Fatalf("a server that was given a policy does as if it had a quorum: %v", b.Quorum())
	}
	none := b.publisher(nil)
	if err := b.witnessed(none); err != nil || b.Quorum() != nil {
		t.Fatal(err)
	}
	other := newKeys(t)
	wrong, err := proof.ParsePolicy([]byte("log " + other.LedgerVKey() + "\nquorum none\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewPublisher(b.Ledger, wrong, silent()); !chat.Is(err, chat.Invalid) {
		t.Fatalf("a policy for another log: %v", err)
	}
}

// TestQuorumStops: after 30 seconds, not before, and until the quorum is back.
func TestQuorumStops(t *testing.T) {
	b := newBench(t)
	one := newSigner(t, b, "one.example")
	p := b.publisher(b.policy("quorum w0\n", one))
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	one.away.Store(true)
	hash := b.reports(1)[0]
	b.drain()
	p.Step(ctx)
	b.clock = b.clock.Add(QuorumWait - time.Second)
	p.Step(ctx)
	if err := b.Quorum(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Inclusion(ctx, hash); !chat.Is(err, chat.NotFound) {
		t.Fatal(err)
	}
	b.clock = b.clock.Add(time.Second)
	if err := b.Quorum(); !chat.Is(err, chat.NoQuorum) {
		t.Fatal(err)
	}
	if _, _, err := b.Wait(ctx, hash); !chat.Is(err, chat.NoQuorum) {
		t.Fatalf("an entry that waits for witnesses: %v", err)
	}
	if _, _, err := b.Inclusion(ctx, proof.Hash{1}); !chat.Is(err, chat.NotFound) {
		t.Fatalf("an entry that nobody made: %v", err)
	}
	if err := b.store.Close(); err != nil { // a restart does not begin the wait anew
		t.Fatal(err)
	}
	b.open()
	p = b.publisher(nil)
	p.Step(ctx)
	if err := b.Quorum(); !chat.Is(err, chat.NoQuorum) {
		t.Fatalf("after a restart: %v", err)
	}
	one.away.Store(false)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.Inclusion(ctx, hash); err != nil || b.Quorum() != nil {
		t.Fatal(err)
	}
}

// TestLateCosignatures: the quorum does not wait for a slow witness, and what that one signs is added.
func TestLateCosignatures(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "one.example"), newSigner(t, b, "two.example")
	policy := b.policy("group any any w0 w1\nquorum any\n", one, two)
	p := b.publisher(policy)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	p.late.Wait()
	wait := make(chan struct{})
	two.slow.Store(&wait)
	b.grow(1)
	if err := p.Step(ctx); err != nil {
		t.Fatal(err)
	}
	if _, list, err := policy.Check(b.shown().Signed); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	close(wait)
	p.late.Wait()
	c, list, err := policy.Check(b.shown().Signed)
	if err != nil || len(list) != 2 || c.Size != b.integrated().Size {
		t.Fatal(list, err)
	}
}

// TestSignedAnew: when nothing grows, the tree is signed again after ten minutes.
func TestSignedAnew(t *testing.T) {
	b := newBench(t)
	one := newSigner(t, b, "one.example")
	p := b.publisher(b.policy("quorum w0\n", one))
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	when := p.signed
	b.clock = when.Add(freshTime - time.Second)
	if err := p.Step(ctx); err != nil || !p.signed.Equal(when) {
		t.Fatal("signed before it had to be: ", err)
	}
	b.clock = when.Add(freshTime)
	if err := p.Step(ctx); err != nil || !p.signed.Equal(b.clock) {
		t.Fatal(err)
	}
}

// TestRestartUnderAPolicy: without the setting the policy in the log stays in force, and the publisher goes on from the database.
func TestRestartUnderAPolicy(t *testing.T) {
	b := newBench(t)
	one := newSigner(t, b, "one.example")
	if err := b.witnessed(b.publisher(b.policy("quorum w0\n", one))); err != nil {
		t.Fatal(err)
	}
	one.away.Store(true)
	b.grow(3)
	size := b.shown().Size
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	p := b.publisher(nil)
	if err := b.witnessed(p); !chat.Is(err, chat.NoQuorum) || b.shown().Size != size {
		t.Fatal(b.shown().Size, err)
	}
	one.away.Store(false)
	if err := b.witnessed(p); err != nil || b.shown().Size != b.integrated().Size {
		t.Fatal(err)
	}
}

// TestWitnessesAreAheadOfTheDatabase: a database that was set back publishes nothing that the witnesses' tree is not part of, however it goes on.
func TestWitnessesAreAheadOfTheDatabase(t *testing.T) {
	b := newFileBench(t)
	one := newSigner(t, b, "one.example")
	p := b.publisher(b.policy("quorum w0\n", one))
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	old := b.copy(t)
	b.grow(3)
	if err := b.witnessed(p); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	logs := slog.New(slog.NewTextHandler(&said, nil))
	size := old.shown().Size
	p2, err := NewPublisher(old.Ledger, nil, logs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 { // smaller than the witness' tree, of its size, larger
		old.grow(1)
		if err := old.witnessed(p2); !chat.Is(err, chat.NoQuorum) {
			t.Fatalf("after %d entries: %v", i+1, err)
		}
	}
	p2.late.Wait()
	if old.shown().Size != size {
		t.Fatal("a fork was published")
	}
	if !strings.Contains(said.String(), "ALARM: a witness refuses this log") || !strings.Contains(said.String(), "its database is older than what was published") {
		t.Fatal(said.String())
	}
}

// TestSignersLines: the published checkpoint has the log's line first, then the witnesses', sorted.
func TestSignersLines(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "b.example"), newSigner(t, b, "a.example")
	if err := b.witnessed(b.publisher(b.policy("group both all w0 w1\nquorum both\n", one, two))); err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(b.shown().Signed, note.VerifierList(b.verifier))
	if err != nil || len(n.UnverifiedSigs) != 2 || n.UnverifiedSigs[0].Name != "a.example" {
		t.Fatal(n, err)
	}
}
