package ledger

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/storetest"
)

var ctx = context.Background()

// bench is a ledger on a real store, with a clock that stands still.
type bench struct {
	*Ledger
	t     testing.TB
	db    storetest.Open
	path  string // of a file bench
	store *store.Store
	keys  *Keys
	clock time.Time
	w     *Writer

	skipCheck bool // the test damages the store
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newBench(t testing.TB) *bench { return benchOn(t, storetest.NewDatabase(t), "", newKeys(t)) }

func newKeys(t testing.TB) *Keys {
	t.Helper()
	keys, err := NewKeys("chat.example:8080")
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// newFileBench is on a file of SQLite, which sql can damage and copy.
func newFileBench(t testing.TB) *bench {
	path := filepath.Join(t.TempDir(), "l.db")
	return benchOn(t, storetest.File(t, path), path, newKeys(t))
}

func benchOn(t testing.TB, db storetest.Open, path string, keys *Keys) *bench {
	t.Helper()
	b := &bench{t: t, db: db, path: path, keys: keys, clock: time.UnixMilli(1_800_000_000_000)}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	b.store = b.db(b.t)
	if b.Ledger, err = Open(ctx, b.store, b.keys, func() time.Time { return b.clock }, rand.Reader); err != nil {
		b.t.Fatal(err)
	}
	b.w = NewWriter(b.Ledger, silent())
}

// copy opens a copy of the store.
func (b *bench) copy(t *testing.T) *bench {
	t.Helper()
	c := &bench{t: t, keys: b.keys, clock: b.clock, path: filepath.Join(t.TempDir(), "copy.db")}
	c.db = storetest.File(t, c.path)
	b.sql(`VACUUM INTO $1`, c.path)
	c.open()
	t.Cleanup(c.close)
	return c
}

// close checks everything that is stored.
func (b *bench) close() {
	if !b.t.Failed() && !b.skipCheck {
		if _, err := Check(ctx, b.store, b.keys); err != nil {
			b.t.Error(err)
		}
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) update(fn func(tx *store.Tx) error) {
	b.t.Helper()
	if err := b.store.Update(ctx, fn); err != nil {
		b.t.Fatal(err)
	}
}

// posts records n posts of one account with Flimmer.
func (b *bench) posts(account chat.AccountID, n int) (records []*proof.Record) {
	b.t.Helper()
	b.update(func(tx *store.Tx) error {
		records = nil
		for range n {
			r, err := b.Access(tx, account, "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}, At: b.ms()})
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return nil
	})
	return records
}

// reports puts n public leaves into the outbox, each another one.
func (b *bench) reports(n int) (hashes []proof.Hash) {
	b.t.Helper()
	b.update(func(tx *store.Tx) error {
		hashes = nil
		for range n {
			b.clock = b.clock.Add(time.Millisecond)
			h, err := b.Public(tx, &proof.Report{Partner: "flimmer", Start: b.ms()})
			if err != nil {
				return err
			}
			hashes = append(hashes, h)
		}
		return nil
	})
	return hashes
}

func (b *bench) drain() {
	b.t.Helper()
	for range 100 {
		n, err := b.w.Step(ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
	b.t.Fatal("the outbox does not run empty")
}

// source lets proof.Log read the ledger as clients do.
type source struct{ *Ledger }

func (s source) InclusionProof(ctx context.Context, leaf [32]byte, _ int) ([]byte, error) {
	_, p, err := s.Wait(ctx, leaf)
	return p, err
}

func (s source) ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error) {
	return s.Consistency(ctx, from, to)
}

func (b *bench) log() *proof.Log {
	b.t.Helper()
	log, err := proof.NewLog(b.keys.LedgerVKey())
	if err != nil {
		b.t.Fatal(err)
	}
	return log
}

// sql runs statements behind the ledger's back.
func (b *bench) sql(query string, args ...any) {
	b.t.Helper()
	db, err := sql.Open("sqlite", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(query, args...); err != nil {
		b.t.Fatal(err)
	}
}

func TestRecordAppendProve(t *testing.T) {
	b := newBench(t)
	alice, bob := chat.NewAccountID(), chat.NewAccountID()
	log := b.log()
	if err := log.Follow(ctx, source{b.Ledger}); err != nil || log.Checkpoint().Size != 2 {
		t.Fatalf("a new ledger holds its keys: %+v, %v", log.Checkpoint(), err)
	}
	var before *proof.Record
	for _, r := range append(b.posts(alice, 3), b.posts(bob, 2)...) {
		if _, _, err := b.Inclusion(ctx, r.LeafHash()); !chat.Is(err, chat.NotFound) {
			t.Errorf("before the writer: %v", err)
		}
		if before != nil && before.Account != r.Account {
			before = nil
		}
		if err := r.Check(b.vrfKey, before); err != nil {
			t.Error(err)
		}
		before = r
	}
	b.drain()
	page, err := b.Records(ctx, proof.Place{Account: alice, Partner: "flimmer", Chain: proof.Access, N: 1}, 10)
	if err != nil || len(page) != 2 || page[0].Record.N != 1 {
		t.Fatalf("%+v, %v", page, err)
	}
	for _, p := range page {
		index, _, err := log.Prove(ctx, source{b.Ledger}, p.Record.LeafHash(), 0)
		if err != nil || index != p.Record.Index {
			t.Errorf("index %d, record says %d: %v", index, p.Record.Index, err)
		}
		if got, err := log.Included(p.Record.LeafHash(), p.Proof); err != nil || got != index {
			t.Errorf("the page's proof: %d, %v", got, err)
		}
	}
	heads, err := b.Heads(ctx, alice)
	if err != nil || len(heads) != 1 || heads[0].Next != 3 || heads[0].Last != page[1].Record.LeafHash() {
		t.Errorf("%+v, %v", heads, err)
	}
}

func TestControlIsNumberedByTheDevice(t *testing.T) {
	b := newBench(t)
	alice := chat.NewAccountID()
	put := func(n uint64, text string) (r *proof.Record, err error) {
		err = b.store.Update(ctx, func(tx *store.Tx) error {
			r, err = b.Control(tx, alice, "flimmer", n, &proof.Grant{Signed: []byte(text)})
			return err
		})
		return r, err
	}
	if _, err := put(1, "a"); !chat.Is(err, chat.StaleEpoch) {
		t.Errorf("number 1 first: %v", err)
	}
	first, err := put(0, "a")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := put(0, "a"); err != nil || !bytes.Equal(again.Bytes(), first.Bytes()) {
		t.Errorf("the same once more: %v", err)
	}
	if _, err := put(0, "b"); !chat.Is(err, chat.StaleEpoch) {
		t.Errorf("another entry under a number that is taken: %v", err)
	}
	if _, err := put(2, "b"); !chat.Is(err, chat.StaleEpoch) {
		t.Errorf("a number left out: %v", err)
	}
	if _, err := put(1, "b"); err != nil {
		t.Error(err)
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		_, err := b.Control(tx, alice, "flimmer", 2, &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{1}})
		return err
	})
	if !chat.Is(err, chat.Invalid) {
		t.Errorf("an access in the control chain: %v", err)
	}
	b.drain()
}

// TestOrderOfBothChains: an account's records stand in the log in the order in which they were made, whichever chain they are of,
// even when the clock stands still or goes back.
func TestOrderOfBothChains(t *testing.T) {
	b := newBench(t)
	alice := chat.AccountID{7}
	var made []proof.Hash
	for i := range uint64(20) {
		b.clock = b.clock.Add(-time.Millisecond)
		before := made
		b.update(func(tx *store.Tx) error {
			made = before
			r, err := b.Control(tx, alice, "flimmer", i, &proof.Grant{Signed: []byte{1}})
			if err != nil {
				return err
			}
			made = append(made, r.LeafHash())
			if i%3 == 0 {
				return nil
			}
			r, err = b.Access(tx, alice, "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}})
			made = append(made, r.LeafHash())
			return err
		})
	}
	b.drain()
	for i, h := range made {
		if index, _, err := b.Inclusion(ctx, h); err != nil || index != int64(i)+2 { // after the keys and the first map root
			t.Errorf("record %d stands at %d: %v", i, index, err)
		}
	}
}

func TestRepeatsAreHarmless(t *testing.T) {
	b := newBench(t)
	agreement := &proof.Agreement{Countersigned: []byte("agreement")}
	var hash proof.Hash
	for range 3 {
		b.update(func(tx *store.Tx) (err error) { hash, err = b.Public(tx, agreement); return err })
		b.update(func(tx *store.Tx) (err error) { hash, err = b.Public(tx, agreement); return err })
		b.drain()
	}
	record := b.posts(chat.AccountID{1}, 1)[0]
	b.drain()
	leaf, err := proof.ParseLeaf(record.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	label := leaf.(*proof.Personal).Label
	queue := store.LedgerQueued{Shard: record.Account[:], Deed: label[:], Leaf: record.Leaf}
	b.update(func(tx *store.Tx) error { return tx.QueueLedgerLeaf(queue) })
	b.drain()
	report, err := Check(ctx, b.store, b.keys)
	if err != nil || report.Entries-report.Roots != 3 || report.Waiting != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if index, _, err := b.Inclusion(ctx, hash); err != nil || index != 2 {
		t.Errorf("the agreement stands at %d: %v", index, err)
	}
	b.update(func(tx *store.Tx) error {
		if _, err := b.Public(tx, leaf); !chat.Is(err, chat.Invalid) {
			t.Errorf("a personal leaf in public: %v", err)
		}
		return nil
	})
}

// TestTwoLeavesUnderOneLabel stops the ledger.
func TestTwoLeavesUnderOneLabel(t *testing.T) {
	b := newBench(t)
	record := b.posts(chat.AccountID{1}, 1)[0]
	b.drain()
	leaf, _ := proof.ParseLeaf(record.Leaf)
	other := *leaf.(*proof.Personal)
	other.Commit[0] ^= 1
	queue := store.LedgerQueued{Shard: record.Account[:], Deed: other.Label[:], Leaf: other.Bytes()}
	b.update(func(tx *store.Tx) error { return tx.QueueLedgerLeaf(queue) })
	if _, err := b.w.Step(ctx); !chat.Is(err, chat.Tampered) {
		b.skipCheck = true
		t.Fatalf("step: %v", err)
	}
	if err := b.w.Run(ctx); !chat.Is(err, chat.Tampered) {
		t.Errorf("run: %v", err)
	}
	if _, err := Check(ctx, b.store, b.keys); err == nil {
		t.Error("check is content")
	}
	b.update(func(tx *store.Tx) error { return tx.DropLedgerOutbox(queue) })
}

// TestTwoWriters: the lease lets one of two processes write; it goes over when it has run out, with a greater token.
func TestTwoWriters(t *testing.T) {
	b := newBench(t)
	other := NewWriter(b.Ledger, silent())
	b.posts(chat.AccountID{1}, 1)
	if n, err := b.w.Step(ctx); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	b.posts(chat.AccountID{1}, 1)
	if n, err := other.Step(ctx); n != 0 || err != nil {
		t.Fatalf("wrote under another's lease: %d, %v", n, err)
	}
	b.clock = b.clock.Add(leaseTime + time.Millisecond)
	if n, err := other.Step(ctx); n != 1 || err != nil || other.token != b.w.token+1 {
		t.Fatalf("the lease did not go over: %d, token %d after %d, %v", n, other.token, b.w.token, err)
	}
	b.posts(chat.AccountID{1}, 1)
	if n, err := b.w.Step(ctx); n != 0 || err != nil {
		t.Fatalf("wrote after the lease was lost: %d, %v", n, err)
	}
	if n, err := other.Step(ctx); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

// TestPublishIsCompareAndSwap: whoever read an older state cannot publish on it.
func TestPublishIsCompareAndSwap(t *testing.T) {
	b := newBench(t)
	var old store.LedgerState
	b.update(func(tx *store.Tx) (err error) { old, err = tx.LedgerState(b.origin()); return err })
	b.posts(chat.AccountID{1}, 1)
	b.drain()
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		_, err := b.extend(tx, old, openTree(tx, old.Size), []store.LedgerQueued{{Deed: []byte("x"), Leaf: (&proof.Agreement{Countersigned: []byte("x")}).Bytes()}})
		return err
	})
	if err == nil {
		t.Error("a checkpoint was published on an older one")
	}
	next := old
	next.Size = 2
	err = b.store.Update(ctx, func(tx *store.Tx) error { return tx.SwapLedgerState(b.origin(), old, next) })
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("swap: %v", err)
	}
	err = b.store.Update(ctx, func(tx *store.Tx) error { return tx.SwapLedgerState(b.origin(), store.LedgerState{}, next) })
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("begun twice: %v", err)
	}
}

// TestTwoProcesses runs two ledgers on one file, both recording, both writing.
func TestTwoProcesses(t *testing.T) {
	b := newBench(t)
	l, err := Open(ctx, b.db(t), b.keys, func() time.Time { return b.clock }, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	var writers, callers sync.WaitGroup
	for _, ledger := range []*Ledger{b.Ledger, l} {
		writers.Go(func() {
			if err := NewWriter(ledger, silent()).Run(run); err != nil {
				t.Error(err)
			}
		})
		for range 2 {
			callers.Go(func() { recordAndWait(t, ledger, 25) })
		}
	}
	callers.Wait()
	stop()
	writers.Wait()
	report, err := Check(ctx, b.store, b.keys)
	if err != nil || report.Records != 100 || report.Entries-report.Roots != 101 || report.Waiting != 0 {
		t.Errorf("%+v, %v", report, err)
	}
}

// recordAndWait records posts on two chains, each in a transaction of its own, and waits for the last to be included.
func recordAndWait(t *testing.T, l *Ledger, n int) {
	var r *proof.Record
	for i := range n {
		err := l.store.Update(ctx, func(tx *store.Tx) (err error) {
			r, err = l.Access(tx, chat.AccountID{byte(i%2 + 1)}, "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}})
			return err
		})
		if err != nil {
			t.Error(err)
			return
		}
		l.Notify()
	}
	if _, _, err := l.Wait(ctx, r.LeafHash()); err != nil {
		t.Error(err)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	b := newBench(t)
	short, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := b.Wait(short, proof.Hash{1}); err == nil {
		t.Error("found what is not there")
	}
}

func TestRestartGoesOn(t *testing.T) {
	b := newBench(t)
	b.reports(300)
	b.drain()
	b.posts(chat.AccountID{1}, 5) // waits in the outbox
	log := b.log()
	if err := log.Follow(ctx, source{b.Ledger}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.Close(); err != nil {
		t.Fatal(err)
	}
	b.open()
	b.clock = b.clock.Add(time.Hour)
	b.drain()
	if err := log.Follow(ctx, source{b.Ledger}); err != nil || log.Checkpoint().Size != 309 {
		t.Errorf("%+v, %v", log.Checkpoint(), err)
	}
}

// TestOpenRefuses a stored log that is not what it signed.
func TestOpenRefuses(t *testing.T) {
	for name, damage := range map[string]func(b *bench){
		"a changed tile":            func(b *bench) { b.sql(`UPDATE ledger_tiles SET data = zeroblob(length(data)) WHERE level = 0`) },
		"a shorter tile":            func(b *bench) { b.sql(`UPDATE ledger_tiles SET data = substr(data, 1, 32)`) },
		"a smaller size":            func(b *bench) { b.sql(`UPDATE ledger_state SET size = size - 1`) },
		"another root":              func(b *bench) { b.sql(`UPDATE ledger_state SET root = zeroblob(32)`) },
		"an unsigned checkpoint":    func(b *bench) { b.sql(`UPDATE ledger_state SET checkpoint = CAST('x' AS BLOB)`) },
		"a lost state":              func(b *bench) { b.sql(`DELETE FROM ledger_state`) },
		"lost leaves":               func(b *bench) { b.sql(`DELETE FROM ledger_leaves`) },
		"the keys of another vault": func(b *bench) { b.keys = otherKeys(b) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newFileBench(t)
			b.posts(chat.AccountID{1}, 3)
			b.drain()
			b.skipCheck = true
			damage(b)
			if _, err := Open(ctx, b.store, b.keys, time.Now, rand.Reader); !chat.Is(err, chat.Tampered) {
				t.Errorf("open: %v", err)
			}
			if _, err := Check(ctx, b.store, b.keys); err == nil {
				t.Error("check is content")
			}
		})
	}
}

// otherKeys are the same log key with another VRF key.
func otherKeys(b *bench) *Keys {
	other, err := NewKeys(b.keys.Host())
	if err != nil {
		b.t.Fatal(err)
	}
	keys := *b.keys
	keys.VRF = other.VRF
	return &keys
}

// TestCheckFindsDamage changes one thing behind the ledger's back at a time.
func TestCheckFindsDamage(t *testing.T) {
	base := newFileBench(t)
	base.reports(260) // more than a tile
	for range 5 {     // posts that differ
		base.clock = base.clock.Add(time.Second)
		base.posts(chat.AccountID{1}, 1)
	}
	base.drain()
	base.posts(chat.AccountID{1}, 1) // waits
	if report, err := Check(ctx, base.store, base.keys); err != nil || report.Waiting != 1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if _, err := Check(ctx, base.copy(t).store, base.keys); err != nil {
		t.Fatalf("an undamaged copy: %v", err)
	}
	for name, query := range map[string]string{
		"a changed entry":            `UPDATE ledger_leaves SET leaf = (SELECT leaf FROM ledger_leaves WHERE idx = 2) WHERE idx = 3`,
		"a changed entry hash":       `UPDATE ledger_leaves SET leaf_hash = zeroblob(32) WHERE idx = 3`,
		"a missing entry":            `DELETE FROM ledger_leaves WHERE idx = 3`,
		"a missing last entry":       `DELETE FROM ledger_leaves WHERE idx = (SELECT MAX(idx) FROM ledger_leaves)`,
		"an entry under no deed":     `UPDATE ledger_leaves SET deed = zeroblob(32) WHERE idx = 3`,
		"a full tile changed":        `UPDATE ledger_tiles SET data = zeroblob(length(data)) WHERE level = 0 AND n = 0`,
		"an upper tile changed":      `UPDATE ledger_tiles SET data = zeroblob(length(data)) WHERE level = 1`,
		"a tile too many":            `INSERT INTO ledger_tiles VALUES (5, 5, zeroblob(32))`,
		"a changed payload":          `UPDATE ledger_records SET payload = (SELECT payload FROM ledger_records WHERE n = 4) WHERE n = 3`,
		"a changed salt":             `UPDATE ledger_records SET salt = zeroblob(32) WHERE n = 3`,
		"a half erased record":       `UPDATE ledger_records SET salt = zeroblob(0) WHERE n = 3`,
		"a changed proof":            `UPDATE ledger_records SET vrf_proof = zeroblob(80) WHERE n = 3`,
		"a short proof":              `UPDATE ledger_records SET vrf_proof = zeroblob(8) WHERE n = 3`,
		"a missing record":           `DELETE FROM ledger_records WHERE n = 3`,
		"a missing last record":      `DELETE FROM ledger_records WHERE n = (SELECT MAX(n) FROM ledger_records)`,
		"another head":               `UPDATE ledger_heads SET n = n - 1`,
		"a missing head":             `DELETE FROM ledger_heads`,
		"an outbox row that is lost": `DELETE FROM ledger_outbox`,
		"an outbox row too many":     `INSERT INTO ledger_outbox SELECT deed, deed, 0, leaf, 0 FROM ledger_leaves WHERE idx = 3`,
		"another outbox leaf":        `UPDATE ledger_outbox SET leaf = (SELECT leaf FROM ledger_leaves WHERE idx = 2)`,
		"a smaller checkpoint":       `UPDATE ledger_state SET size = size - 1`,
	} {
		t.Run(name, func(t *testing.T) {
			b := base.copy(t)
			b.skipCheck = true
			b.sql(query)
			if _, err := Check(ctx, b.store, b.keys); err == nil {
				t.Error("check is content")
			}
		})
	}
}

func TestErase(t *testing.T) {
	b := newBench(t)
	r := b.posts(chat.AccountID{1}, 3)[1]
	b.drain()
	b.update(func(tx *store.Tx) error { return b.Erase(tx, r.Place) })
	page, err := b.Records(ctx, proof.Place{Account: r.Account, Partner: r.Partner, Chain: r.Chain}, 10)
	if err != nil || len(page) != 3 || !page[1].Record.Erased() || len(page[1].Proof) == 0 {
		t.Fatalf("%+v, %v", page, err)
	}
	var before *proof.Record
	for _, p := range page {
		if err := p.Record.Check(b.vrfKey, before); err != nil {
			t.Error(err)
		}
		before = p.Record
	}
	if report, err := Check(ctx, b.store, b.keys); err != nil || report.Erased != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	place := r.Place
	place.N = 99
	err = b.store.Update(ctx, func(tx *store.Tx) error { return b.Erase(tx, place) })
	if !chat.Is(err, chat.NotFound) {
		t.Errorf("nothing to erase: %v", err)
	}
}

// tiles lets torchwood's client read our tiles: the outside judge.
type tiles struct{ *Ledger }

func (s tiles) ReadTiles(ctx context.Context, list []tlog.Tile) (data [][]byte, err error) {
	for _, tile := range list {
		d, err := s.Tile(ctx, torchwood.TilePath(tile))
		if err != nil {
			return nil, err
		}
		data = append(data, d)
	}
	return data, nil
}

func (s tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (s tiles) ReadEndpoint(ctx context.Context, path string) ([]byte, error) {
	return s.Checkpoint(ctx)
}

// TestTenThousandLeaves appends them in uneven batches; torchwood's client reads every entry out of the tiles, and its VerifyProof
// accepts the proofs.
func TestTenThousandLeaves(t *testing.T) {
	b := newBench(t)
	var want []proof.Hash
	sizes := []int64{2}
	for n := 1; len(want) < 10_000; n = n*3%1777 + 1 {
		want = append(want, b.reports(n)...)
		b.drain()
		signed, err := b.Checkpoint(ctx)
		if err != nil {
			t.Fatal(err)
		}
		published, err := proof.OpenCheckpoint(signed, b.verifier)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, published.Size)
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(b.origin()), torchwood.SingleVerifierPolicy(b.verifier))
	signed, err := b.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, _, err := torchwood.VerifyCheckpoint(signed, policy)
	if err != nil || c.N != sizes[len(sizes)-1] {
		t.Fatal(c.N, err)
	}
	client, err := torchwood.NewClient(tiles{b.Ledger})
	if err != nil {
		t.Fatal(err)
	}
	read := int64(0)
	place := map[proof.Hash]int64{}
	for i, entry := range client.AllEntries(ctx, c.Tree, 0) {
		if proof.TypeOf(entry) == proof.TypeReport {
			if hash := proof.LeafHash(entry); hash != want[len(place)] {
				t.Fatalf("entry %d is another one", i)
			}
			place[proof.LeafHash(entry)] = i
		}
		read++
	}
	if client.Err() != nil || read != c.N {
		t.Fatalf("%d of %d entries: %v", read, c.N, client.Err())
	}
	for _, i := range []int{0, 1, 254, 255, 256, 511, 4095, 4096, 9_999, len(want) - 1} {
		index, text, err := b.Inclusion(ctx, want[i])
		if err != nil || index != place[want[i]] {
			t.Fatal(index, err)
		}
		if err := torchwood.VerifyProof(policy, want[i], text); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
		if err := torchwood.VerifyProof(policy, want[(i+1)%len(want)], text); err == nil {
			t.Errorf("entry %d: the proof holds for another leaf", index)
		}
	}
	consistent(t, b, sizes)
}

// consistent proves every published size to be part of the newest tree, by way of the tiles as they were published.
func consistent(t *testing.T, b *bench, sizes []int64) {
	for _, size := range sizes {
		list, err := b.Consistency(ctx, size, sizes[len(sizes)-1])
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 && size != sizes[len(sizes)-1] {
			t.Errorf("an empty consistency proof from %d", size)
		}
	}
	for _, bad := range [][2]int64{{0, 1}, {2, 1}, {1, sizes[len(sizes)-1] + 1}, {-1, 1}} {
		if _, err := b.Consistency(ctx, bad[0], bad[1]); !chat.Is(err, chat.Invalid) {
			t.Errorf("consistency from %d to %d: %v", bad[0], bad[1], err)
		}
	}
}

func TestTilesRefused(t *testing.T) {
	b := newBench(t)
	b.reports(300)
	b.drain()
	for path, kind := range map[string]chat.Kind{
		"tile/0/001.p/48":                chat.NotFound,
		"tile/0/001":                     chat.NotFound,
		"tile/1/000":                     chat.NotFound,
		"tile/9/000.p/1":                 chat.NotFound,
		"tile/63/000.p/1":                chat.NotFound,
		"tile/entries/001":               chat.NotFound,
		"tile/0/x999/x999/x999/x999/999": chat.NotFound,
		"tile/0/1":                       chat.Invalid,
		"tile/8/0/000":                   chat.Invalid,
		"checkpoint":                     chat.Invalid,
		"":                               chat.Invalid,
	} {
		if _, err := b.Tile(ctx, path); !chat.Is(err, kind) {
			t.Errorf("%q: %v", path, err)
		}
	}
	for path, size := range map[string]int{"tile/0/001.p/47": 47 * 32, "tile/0/001.p/1": 32, "tile/0/000": 256 * 32, "tile/1/000.p/1": 32} {
		if data, err := b.Tile(ctx, path); err != nil || len(data) != size {
			t.Errorf("%q: %d bytes, %v", path, len(data), err)
		}
	}
}

// TestRewriteIsCaught: a server that begins its log anew under the same key contradicts what its readers remember.
func TestRewriteIsCaught(t *testing.T) {
	b := newBench(t)
	rewritten := benchOn(t, storetest.NewDatabase(t), "", b.keys)
	log := b.log()
	b.posts(chat.AccountID{1}, 20)
	b.drain()
	if err := log.Follow(ctx, source{b.Ledger}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []proof.Contradiction{proof.Smaller, proof.OtherRoot, proof.Inconsistent} {
		rewritten.posts(chat.AccountID{1}, []int{5, 14, 7}[i])
		rewritten.drain()
		var e *proof.Evidence
		if err := log.Follow(ctx, source{rewritten.Ledger}); !chat.Is(err, chat.Tampered) || !errors.As(err, &e) || e.What != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestPromise(t *testing.T) {
	b := newBench(t)
	r := b.posts(chat.AccountID{1}, 1)[0]
	data, err := b.Promise(r.LeafHash())
	if err != nil {
		t.Fatal(err)
	}
	p, err := proof.OpenPromise(data, ed25519.PublicKey(b.keys.ServerKey()), b.keys.Host())
	if err != nil || p.Leaf != r.LeafHash() || p.At != b.ms() {
		t.Errorf("%+v, %v", p, err)
	}
}

// TestBundleOfTheStore makes a bundle of what the store holds and verifies it; what waits for the log is left out.
func TestBundleOfTheStore(t *testing.T) {
	b := newBench(t)
	person := newPerson(t, b)
	subject := Subject{Account: person.account, Handle: "alice", Partner: "flimmer", KeyChain: person.chain, Agreements: [][]byte{person.agreement, []byte("not logged")}}
	b.drain()
	if _, err := b.Bundle(ctx, subject); !chat.Is(err, chat.Unavailable) {
		t.Errorf("keys that wait: %v", err)
	}
	b.update(func(tx *store.Tx) error { return b.KeyEntry(tx, person.account, "alice", 0, person.chain[0]) })
	b.drain()
	if v := b.verdict(subject); v.Kind != proof.NeverAnything {
		t.Errorf("before anything was granted: %+v", v)
	}
	b.update(func(tx *store.Tx) error {
		_, err := b.Public(tx, &proof.Agreement{Countersigned: person.agreement})
		return err
	})
	b.update(func(tx *store.Tx) error {
		_, err := b.Control(tx, person.account, "flimmer", 0, &proof.Grant{Signed: person.grant})
		return err
	})
	b.posts(person.account, maxPage+5)
	b.drain()
	b.posts(person.account, 1)
	if v := b.verdict(subject); v.Kind != proof.NeverRead || v.Posts != maxPage+5 || len(v.Grants) != 1 || len(v.Findings) != 0 || v.PartnerName != "Flimmer" {
		t.Errorf("verdict: %+v", v)
	}
	subject.Partner = ""
	if v := b.verdict(subject); v.Kind != proof.KeysAlone || len(v.Devices) != 1 {
		t.Errorf("keys alone: %+v", v)
	}
}

// verdict makes a bundle and verifies it.
func (b *bench) verdict(s Subject) *proof.Verdict {
	b.t.Helper()
	bundle, err := b.Bundle(ctx, s)
	if err != nil {
		b.t.Fatal(err)
	}
	data, err := bundle.Bytes()
	if err != nil {
		b.t.Fatal(err)
	}
	v, err := proof.Verify(data, proof.Pins{LedgerVKey: b.keys.LedgerVKey(), VRFKey: b.keys.VRFKey()})
	if err != nil {
		b.t.Fatal(err)
	}
	return v
}

// TestCosignaturesMayFollow: a checkpoint that others signed too is still the log's.
func TestCosignaturesMayFollow(t *testing.T) {
	b := newBench(t)
	signed, err := b.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	skey, _, err := note.GenerateKey(rand.Reader, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	witness, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	n, err := note.Open(signed, note.VerifierList(b.verifier))
	if err != nil {
		t.Fatal(err)
	}
	both, err := note.Sign(n, witness)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.log().Advance(both, nil); err != nil {
		t.Error(err)
	}
}
