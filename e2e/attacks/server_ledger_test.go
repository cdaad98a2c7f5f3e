package attacks

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// book is a ledger that the test writes in, with the server's own keys.
type book struct {
	t      *testing.T
	keys   *ledger.Keys
	store  *store.Store
	ledger *ledger.Ledger
	writer *ledger.Writer
}

func openBook(t *testing.T, w *world.World, file string) *book {
	t.Helper()
	s, err := sqlite.Open(w.Ctx(), file)
	w.Must(err)
	keys := serverKeys(t, w)
	l, err := ledger.Open(w.Ctx(), s, keys, time.Now, rand.Reader)
	w.Must(err)
	return &book{t, keys, s, l, ledger.NewWriter(l, slog.New(slog.NewTextHandler(io.Discard, nil)))}
}

// records writes n access records of a person with Flimmer.
func (b *book) records(p *world.Person, n int) {
	b.t.Helper()
	err := b.store.Update(context.Background(), func(tx *store.Tx) error {
		for i := range n {
			_, err := b.ledger.Access(tx, p.Self().Account, "flimmer", &proof.Post{Conversation: chat.NewConversationID(), Grant: chat.NewGrantID(), Epoch: 1,
				Seq: uint64(i + 1), Message: chat.MessageID{1, byte(i)}, At: time.Now().UnixMilli()})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.write()
}

// grow adds n public leaves.
func (b *book) grow(n int) {
	b.t.Helper()
	err := b.store.Update(context.Background(), func(tx *store.Tx) error {
		for i := range n {
			if _, err := b.ledger.Public(tx, &proof.PartnerEnd{Partner: "flimmer", Cause: proof.CauseEnded, At: time.Now().UnixMilli() + int64(i)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.write()
}

func (b *book) write() {
	b.t.Helper()
	for {
		n, err := b.writer.Step(context.Background())
		if err != nil {
			b.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

func (b *book) size() int64 {
	b.t.Helper()
	signed, err := b.ledger.Checkpoint(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return b.open(signed).Size
}

func (b *book) open(signed []byte) proof.Checkpoint {
	b.t.Helper()
	c, err := proof.OpenCheckpoint(signed, verifier(b.t, b.keys.LedgerVKey()))
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func verifier(t *testing.T, vkey string) note.Verifier {
	t.Helper()
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// history is Alice with five records of Flimmer's in the real ledger, all of which she has seen.
func history(t *testing.T) (*world.World, *world.Person) {
	t.Helper()
	w := world.New(t)
	alice := w.SignUp("alice")
	w.Stop()
	b := openBook(t, w, filepath.Join(w.Dir, "server", "letterlock.db"))
	b.records(alice, 5)
	w.Must(b.store.Close())
	w.Start()
	list, err := alice.History(w.Ctx(), "flimmer")
	w.Must(err)
	if len(list) != 5 || slices.ContainsFunc(list, func(e device.HistoryEntry) bool { return !e.Proven }) {
		t.Fatalf("the honest history: %+v", list)
	}
	return w, alice
}

// recordLiar shows other records than there are.
type recordLiar struct {
	world.Calls
	change func([]api.Record) []api.Record
}

func (l recordLiar) Records(ctx context.Context, q api.RecordQuery) (api.RecordList, error) {
	r, err := l.Calls.Records(ctx, q)
	if q.Chain == proof.Access.String() {
		r.Records = l.change(r.Records)
	}
	return r, err
}

func showsRecords(p *world.Person, change func([]api.Record) []api.Record) {
	lies(p, func(s world.Calls) device.Server { return recordLiar{s, change} })
}

// TestServerAltersARecord: the record says something else than its leaf commits to.
func TestServerAltersARecord(t *testing.T) {
	w, alice := history(t)
	showsRecords(alice, func(list []api.Record) []api.Record {
		r, err := proof.ParseRecord(list[2].Record)
		w.Must(err)
		said, err := r.Says()
		w.Must(err)
		post := *said.(*proof.Post)
		post.At -= 86_400_000
		r.Payload, err = proof.MarshalPayload(&post)
		w.Must(err)
		list[2].Record = r.Bytes()
		return list
	})
	_, err := alice.History(w.Ctx(), "flimmer")
	const sentence = "record 2 of your history with flimmer was altered"
	answered(t, err, chat.Tampered, sentence)
	if e := kept(t, alice, sentence); len(e.Data) == 0 {
		t.Fatal("the altered record was not kept")
	}
}

// TestServerLeavesOutARecordInTheMiddle: also where it numbers the others anew.
func TestServerLeavesOutARecordInTheMiddle(t *testing.T) {
	w, alice := history(t)
	showsRecords(alice, func(list []api.Record) []api.Record { return slices.Delete(list, 2, 3) })
	_, err := alice.History(w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "the server left out record 2 of your history with flimmer")
	kept(t, alice, "left out record 2")

	showsRecords(alice, func(list []api.Record) []api.Record {
		list = slices.Delete(list, 2, 3)
		for i := range list {
			r, err := proof.ParseRecord(list[i].Record)
			w.Must(err)
			r.N = uint64(i)
			list[i].Record = r.Bytes()
		}
		return list
	})
	_, err = alice.History(w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "record 2 of your history with flimmer was altered")
}

// TestServerHidesTheLastRecord: one that the device has seen.
func TestServerHidesTheLastRecord(t *testing.T) {
	w, alice := history(t)
	showsRecords(alice, func(list []api.Record) []api.Record { return list[:len(list)-1] })
	_, err := alice.History(w.Ctx(), "flimmer")
	const sentence = "the server hides or has changed records of your history with flimmer that this device has seen"
	answered(t, err, chat.Tampered, sentence)
	kept(t, alice, sentence)
}

// ledgerLiar answers about the public log from another one.
type ledgerLiar struct {
	world.Calls
	other *book
	from  func() []byte // the checkpoint to show; nil: the other's newest
}

func (l ledgerLiar) Checkpoint(ctx context.Context) ([]byte, error) {
	if l.from != nil {
		return l.from(), nil
	}
	return l.other.ledger.Checkpoint(ctx)
}

func (l ledgerLiar) ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error) {
	if l.other == nil {
		return nil, nil
	}
	return l.other.ledger.Consistency(ctx, from, to)
}

// contradiction asserts that the device was told, keeps both checkpoints, and that both are signed by the ledger.
func contradiction(t *testing.T, w *world.World, p *world.Person, what proof.Contradiction) {
	t.Helper()
	err := p.CheckLedger(w.Ctx())
	const sentence = "the ledger contradicts what this device remembers of it"
	answered(t, err, chat.Tampered, sentence)
	answered(t, err, chat.Tampered, string(what))
	var both [][]byte
	w.Must(canon.Unmarshal(kept(t, p, sentence).Data, &both))
	if len(both) != 2 {
		t.Fatalf("%d checkpoints were kept", len(both))
	}
	for _, signed := range both {
		if _, err := proof.OpenCheckpoint(signed, verifier(t, serverKeys(t, w).LedgerVKey())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLedgerGoesBack: a smaller checkpoint, which the ledger once signed.
func TestLedgerGoesBack(t *testing.T) {
	w := world.New(t)
	alice := w.SignUp("alice")
	w.Must(alice.CheckLedger(w.Ctx()))
	earlier, err := steal(t, alice).calls.Checkpoint(w.Ctx())
	w.Must(err)
	w.Stop()
	b := openBook(t, w, filepath.Join(w.Dir, "server", "letterlock.db"))
	b.grow(3)
	w.Must(b.store.Close())
	w.Start()
	w.Must(alice.CheckLedger(w.Ctx()))
	lies(alice, func(s world.Calls) device.Server { return ledgerLiar{s, nil, func() []byte { return earlier }} })
	contradiction(t, w, alice, proof.Smaller)
}

// secondBook is another ledger under the same keys, of the same size as the device's, or larger.
func secondBook(t *testing.T, w *world.World, p *world.Person, more int) *book {
	t.Helper()
	signed, err := steal(t, p).calls.Checkpoint(w.Ctx())
	w.Must(err)
	b := openBook(t, w, filepath.Join(t.TempDir(), "other.db"))
	t.Cleanup(func() { b.store.Close() })
	b.write()
	b.grow(int(b.open(signed).Size-b.size()) - 1 + more) // and a map root
	return b
}

// TestLedgerOfTwoRoots: a second ledger of the same size, signed with the same key.
func TestLedgerOfTwoRoots(t *testing.T) {
	w, alice := history(t)
	other := secondBook(t, w, alice, 0)
	lies(alice, func(s world.Calls) device.Server { return ledgerLiar{Calls: s, other: other} })
	contradiction(t, w, alice, proof.OtherRoot)
}

// TestLedgerForks: a second, larger ledger that does not contain the first, with its own consistency proofs.
func TestLedgerForks(t *testing.T) {
	w, alice := history(t)
	other := secondBook(t, w, alice, 4)
	lies(alice, func(s world.Calls) device.Server { return ledgerLiar{Calls: s, other: other} })
	contradiction(t, w, alice, proof.Inconsistent)
	// After a restart the device still remembers the first.
	alice.Restart()
	contradiction(t, w, alice, proof.Inconsistent)
}

// TestLedgerUnderAnotherKey: a checkpoint that the pinned key did not sign.
func TestLedgerUnderAnotherKey(t *testing.T) {
	w, alice := history(t)
	keys, err := ledger.NewKeys(alice.Self().Host)
	w.Must(err)
	signed, err := proof.SignCheckpoint(keys.Ledger, 1000, proof.Hash{1})
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server { return ledgerLiar{s, nil, func() []byte { return signed }} })
	answered(t, alice.CheckLedger(w.Ctx()), chat.Unproven, "the checkpoint is not signed by the ledger")
}

// inclusionLiar proves every leaf with the proof of another.
type inclusionLiar struct {
	world.Calls
	change func(ctx context.Context, leaf [32]byte) ([]byte, error)
}

func (l inclusionLiar) InclusionProof(ctx context.Context, leaf [32]byte, _ int) ([]byte, error) {
	return l.change(ctx, leaf)
}

// TestInclusionProofIsForged: another leaf's proof, and a proof in a ledger of the server's own making.
func TestInclusionProofIsForged(t *testing.T) {
	w, alice := history(t)
	list, err := steal(t, alice).calls.Records(w.Ctx(), api.RecordQuery{Partner: "flimmer", Chain: proof.Access.String(), Limit: 1})
	w.Must(err)
	r, err := proof.ParseRecord(list.Records[0].Record)
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server {
		return inclusionLiar{s, func(ctx context.Context, _ [32]byte) ([]byte, error) { return s.InclusionProof(ctx, r.LeafHash(), 0) }}
	})
	entries, err := alice.History(w.Ctx(), "flimmer")
	w.Must(err)
	for i, e := range entries {
		if e.Proven != (i == 0) {
			t.Errorf("record %d: proven %v by the proof of record 0", i, e.Proven)
		}
	}

	keys := serverKeys(t, w)
	lies(alice, func(s world.Calls) device.Server {
		return inclusionLiar{s, func(_ context.Context, leaf [32]byte) ([]byte, error) { // a ledger that holds this one leaf
			signed, err := proof.SignCheckpoint(keys.Ledger, 1, leaf)
			if err != nil {
				return nil, err
			}
			return proof.InclusionText(0, nil, signed)
		}}
	})
	_, err = alice.History(w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "the ledger contradicts what this device remembers of it")
	kept(t, alice, "the ledger contradicts what this device remembers of it")
}
