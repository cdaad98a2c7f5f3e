// Package ledger is the server's half of the proof: it records what was done in the transaction that does it, appends the leaves
// to the one public log, and serves tiles, checkpoints and proofs. What leaves, records and proofs are, and how everybody checks
// them, is package proof and spec/ledger.md; the rows are package store's.
//
// The life of a record: a deed and its record are written in one transaction, with a row in the outbox (Access, Control, Public).
// After the commit the caller calls Notify. The Writer drains the outbox in batches, each one transaction: leaves, tiles, the new
// checkpoint by compare-and-swap, and the end of the outbox rows. A crash therefore leaves either all of a step or nothing of it,
// and the next start goes on where the last checkpoint stands. Wait returns when a leaf is included.
//
// It refuses a control record out of turn, a second leaf under a known label, a log whose tiles do not give the root that it
// signed, and keys that the log does not know. It decides nothing about permission and knows no net/http but in http.go.
package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// Ledger is the ledger of one server. Its methods may be called by several goroutines, and by several processes on one store.
type Ledger struct {
	store    *store.Store
	keys     *Keys
	verifier note.Verifier
	vrfKey   proof.VRFKey
	now      func() time.Time
	rand     io.Reader

	wake chan struct{} // of capacity 1: the outbox may hold something

	published *published // nil: this process remembers nothing
	behind    behind     // what waits for witnesses
	maps      maps
	waiters   waiters

	mu    sync.Mutex
	grown chan struct{} // closed and replaced at every new checkpoint
}

// Open takes up the log of the keys' host, or begins it with the leaf that announces them. A log whose stored hashes do not give
// the root that it signed, or that announced other keys, is chat.Tampered and is not opened. Salts are drawn from rand.
func Open(ctx context.Context, s *store.Store, keys *Keys, now func() time.Time, rand io.Reader) (*Ledger, error) {
	l, err := newLedger(s, keys, now, rand)
	if err != nil {
		return nil, err
	}
	return l, s.Update(ctx, l.adopt)
}

func newLedger(s *store.Store, keys *Keys, now func() time.Time, rand io.Reader) (*Ledger, error) {
	l := &Ledger{store: s, keys: keys, now: now, rand: rand, wake: make(chan struct{}, 1), grown: make(chan struct{})}
	var err error
	if l.verifier, err = note.NewVerifier(keys.vkey); err != nil {
		return nil, err
	}
	if l.vrfKey, err = proof.NewVRFKey(keys.VRFKey()); err != nil {
		return nil, err
	}
	return l, nil
}

func (l *Ledger) origin() string { return l.keys.Ledger.Name() }

func (l *Ledger) ms() int64 { return l.now().UnixMilli() }

// adopt takes up the stored log, or begins it.
func (l *Ledger) adopt(tx *store.Tx) error {
	_, err := tx.LedgerState(l.origin())
	if errors.Is(err, store.ErrNotFound) {
		return l.begin(tx)
	}
	if err != nil {
		return err
	}
	state, t, err := l.standing(tx)
	if err != nil {
		return err
	}
	if err := l.checkKeys(tx); err != nil {
		return err
	}
	root, err := lastRoot(tx, state.Size)
	if err != nil {
		return err
	}
	if root == nil {
		return l.beginMap(tx, state, t)
	}
	_, err = l.mapOf(tx, state.Size, root)
	return err
}

// begin makes entry 0, so that a log is never empty.
func (l *Ledger) begin(tx *store.Tx) error {
	if leaves, err := tx.LedgerLeaves(0, 1); err != nil || len(leaves) > 0 {
		return errors.Join(err, chat.Errorf(chat.Tampered, "the ledger has entries and no checkpoint of %s", l.origin()))
	}
	leaf := l.keys.leaf(l.ms())
	if err := proof.CheckLeaf(leaf); err != nil {
		return err
	}
	hash := proof.LeafHash(leaf.Bytes())
	_, err := l.extend(tx, store.LedgerState{}, openTree(tx, 0), []store.LedgerQueued{{Deed: hash[:], Leaf: leaf.Bytes()}})
	return err
}

// checkKeys compares the keys with those that entry 0 announces.
func (l *Ledger) checkKeys(tx *store.Tx) error {
	leaves, err := tx.LedgerLeaves(0, 1)
	if err != nil {
		return err
	}
	if len(leaves) == 1 && leaves[0].Index == 0 {
		if leaf, err := proof.ParseLeaf(leaves[0].Leaf); err == nil {
			if keys, ok := leaf.(*proof.ServerKeys); ok && l.keys.announcedIn(keys) {
				return nil
			}
		}
	}
	return chat.Errorf(chat.Tampered, "the ledger announces other keys than this server has: restore the files of its keys folder")
}

// standing reads the published state and checks that its checkpoint is ours and that the stored hashes give its root.
func (l *Ledger) standing(tx *store.Tx) (store.LedgerState, *tree, error) {
	s, err := tx.LedgerState(l.origin())
	if err != nil {
		return s, nil, err
	}
	c, err := proof.OpenCheckpoint(s.Checkpoint, l.verifier)
	if err != nil {
		return s, nil, chat.Wrap(chat.Tampered, err, "the stored checkpoint is not this ledger's")
	}
	t := openTree(tx, s.Size)
	root, err := t.root()
	if err != nil {
		return s, nil, err
	}
	if c.Size != s.Size || c.Root != s.Root || root != s.Root {
		return s, nil, chat.Errorf(chat.Tampered, "the ledger's stored hashes do not give the root that it signed")
	}
	return s, t, nil
}

// Access records what was done with an account's conversation under a partner's grant: the next record of its access chain. It
// writes within the caller's transaction, beside the deed. Call Notify after the commit.
func (l *Ledger) Access(tx *store.Tx, account chat.AccountID, partner string, p proof.Payload) (*proof.Record, error) {
	head, err := l.head(tx, account, partner, proof.Access)
	if err != nil {
		return nil, err
	}
	return l.record(tx, head, p)
}

// Control records what a device of the account signed. n is the control counter that the device signed: a number that is not
// the next is chat.StaleEpoch, unless the very same record stands there already, which is then returned. Call Notify after the commit.
func (l *Ledger) Control(tx *store.Tx, account chat.AccountID, partner string, n uint64, p proof.Payload) (*proof.Record, error) {
	head, err := l.head(tx, account, partner, proof.Control)
	if err != nil {
		return nil, err
	}
	if n == head.place.N {
		return l.record(tx, head, p)
	}
	if n < head.place.N {
		if r, err := l.repeated(tx, head.place, n, p); r != nil || err != nil {
			return r, err
		}
	}
	return nil, chat.Errorf(chat.StaleEpoch, "the next control entry for %s is number %d, not %d: fetch what is new and sign again", partner, head.place.N, n)
}

// next is where the next record of a chain goes.
type next struct {
	place  proof.Place
	before *proof.Hash // leaf hash of the record before
	at     int64       // orders the outbox: see head
}

// head finds where the next record goes. Its time is not before that of the last record of its chain and after that of the other
// chain, so that an account's records with a partner stand in the log in the order in which they were made.
func (l *Ledger) head(tx *store.Tx, account chat.AccountID, partner string, chain proof.Chain) (next, error) {
	to := next{place: proof.Place{Account: account, Partner: partner, Chain: chain}, at: l.ms()}
	own, err := tx.LedgerHead(storeChain(to.place))
	switch {
	case err == nil:
		to.place.N, to.before, to.at = own.N+1, (*proof.Hash)(&own.LeafHash), max(to.at, own.At)
	case !errors.Is(err, store.ErrNotFound):
		return to, err
	}
	other := proof.Place{Account: account, Partner: partner, Chain: proof.Control + proof.Access - chain}
	h, err := tx.LedgerHead(storeChain(other))
	switch {
	case err == nil:
		to.at = max(to.at, h.At+1)
	case !errors.Is(err, store.ErrNotFound):
		return to, err
	}
	return to, nil
}

// record writes the record, moves the head and queues the leaf.
func (l *Ledger) record(tx *store.Tx, to next, p proof.Payload) (*proof.Record, error) {
	payload, err := proof.MarshalPayload(p)
	if err != nil {
		return nil, err
	}
	label := proof.ProveLabel(l.keys.VRF, to.place)
	r, err := proof.NewRecord(to.place, label, payload, to.before, l.rand)
	if err != nil {
		return nil, err
	}
	err = tx.AddLedgerRecord(storeRecord(r), to.at)
	if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) {
		return nil, chat.Wrap(chat.StaleEpoch, err, "another record was written at the same time: try again")
	}
	if err != nil {
		return nil, err
	}
	return r, tx.QueueLedgerLeaf(store.LedgerQueued{Shard: r.Account[:], Deed: label.Label[:], N: r.N, Leaf: r.Leaf, At: to.at})
}

// repeated finds the record that stands at n, if it says the same.
func (l *Ledger) repeated(tx *store.Tx, place proof.Place, n uint64, p proof.Payload) (*proof.Record, error) {
	payload, err := proof.MarshalPayload(p)
	if err != nil {
		return nil, err
	}
	rows, err := tx.LedgerRecords(storeChain(place), n, 1)
	if err != nil || len(rows) == 0 || rows[0].N != n || string(rows[0].Payload) != string(payload) {
		return nil, err
	}
	return l.stored(tx, rows[0])
}

// Public queues a public leaf within the caller's transaction. The same leaf again changes nothing. It returns the leaf hash. Call
// Notify after the commit.
func (l *Ledger) Public(tx *store.Tx, leaf proof.Leaf) (proof.Hash, error) {
	if _, ok := leaf.(*proof.Personal); ok {
		return proof.Hash{}, chat.Errorf(chat.Invalid, "a personal leaf needs its record")
	}
	if err := proof.CheckLeaf(leaf); err != nil {
		return proof.Hash{}, err
	}
	data := leaf.Bytes()
	hash := proof.LeafHash(data)
	return hash, tx.QueueLedgerLeaf(store.LedgerQueued{Shard: hash[:], Deed: hash[:], Leaf: data, At: l.ms()})
}

// KeyEntry queues the leaf of a key-chain entry within the transaction that stores the entry. Call Notify after the commit.
func (l *Ledger) KeyEntry(tx *store.Tx, account chat.AccountID, handle string, n uint64, entry []byte) error {
	label := proof.ProveLabel(l.keys.VRF, proof.KeyPlace{Handle: handle, N: n})
	leaf := proof.KeyEntry{Label: label.Label, Entry: sha256.Sum256(entry)}
	return tx.QueueLedgerLeaf(store.LedgerQueued{Shard: account[:], Deed: label.Label[:], N: n, Leaf: leaf.Bytes(), At: l.ms()})
}

// Promise signs that a leaf will be in the log within the window of spec/ledger.md section 5. The leaf must be durable in the
// outbox before the promise leaves the server.
func (l *Ledger) Promise(leaf proof.Hash) ([]byte, error) {
	return proof.MakePromise(l.keys.Server, l.keys.host, leaf, l.ms())
}

// Erase deletes payload and salt of a record. What it said cannot be recovered from the log; the chain still checks.
func (l *Ledger) Erase(tx *store.Tx, place proof.Place) error {
	err := tx.EraseLedgerRecord(storeChain(place), place.N)
	if errors.Is(err, store.ErrNotFound) {
		return chat.Wrap(chat.NotFound, err, "no such record")
	}
	return err
}

func storeChain(p proof.Place) store.LedgerChain {
	return store.LedgerChain{Account: p.Account, Partner: p.Partner, Chain: uint8(p.Chain)}
}

func storeRecord(r *proof.Record) store.LedgerRecord {
	return store.LedgerRecord{LedgerChain: storeChain(r.Place), N: r.N, Payload: r.Payload, Salt: r.Salt,
		Leaf: r.Leaf, LeafHash: r.LeafHash(), VRFProof: r.VRFProof[:]}
}
