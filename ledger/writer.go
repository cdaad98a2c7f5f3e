package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"letterlock/chat"
	"letterlock/labelmap"
	"letterlock/proof"
	"letterlock/store"
)

const (
	batchSize = 1000             // leaves appended in one transaction
	leaseTime = 10 * time.Second // a writer that is silent for so long is replaced
	pollTime  = time.Second      // how soon leaves are found that another process wrote, or whose Notify was lost
	rootTime  = 30 * time.Minute // a map root is appended after so long without another entry, so that the log's age shows
)

// Writer drains the outbox into the log. Every process may run one: a lease lets one of them write at a time, and each batch is one
// transaction that holds the lease, appends, publishes by compare-and-swap and clears the outbox, so that a writer that lost its
// lease writes nothing.
type Writer struct {
	ledger *Ledger
	owner  []byte
	log    *slog.Logger
	token  int64 // of the lease in the last step
}

// NewWriter makes a writer with a name of its own.
func NewWriter(l *Ledger, log *slog.Logger) *Writer {
	owner := make([]byte, 16)
	rand.Read(owner)
	return &Writer{ledger: l, owner: owner, log: log}
}

// Notify tells this process's writer that a committed transaction left something in the outbox. It never blocks.
func (l *Ledger) Notify() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run writes until the context ends, and then returns nil and leaves the lease to others. It returns early only with a chat.Tampered error: the log must not grow
// until somebody has looked.
func (w *Writer) Run(ctx context.Context) error {
	timer := time.NewTicker(pollTime)
	defer timer.Stop()
	defer w.release(context.WithoutCancel(ctx))
	for {
		n, err := w.Step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case chat.Is(err, chat.Tampered):
			w.log.Error("the ledger stops", "error", err)
			return err
		case store.DiskError(err) != nil: // the store's watcher says so, once
		case err != nil:
			w.log.Warn("the ledger could not append; it tries again", "error", err)
		case n > 0:
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.ledger.wake:
		case <-timer.C:
		}
	}
}

// release ends the lease if it is this writer's. One that is not released runs out.
func (w *Writer) release(ctx context.Context) {
	l := w.ledger
	if err := l.store.Update(ctx, func(tx *store.Tx) error { return tx.ReleaseLedgerLease(l.origin(), w.owner) }); err != nil {
		w.log.Warn("the ledger's lease was not released", "error", err)
	}
}

// errHeld means that another writer holds the lease.
var errHeld = errors.New("ledger: another writer holds the lease")

// Step appends and publishes at most one batch and returns how many leaves it took out of the outbox: 0 if there are none, or
// another writer holds the lease.
func (w *Writer) Step(ctx context.Context) (n int, err error) {
	waiting := false
	err = w.ledger.store.View(ctx, func(tx *store.Tx) error {
		waiting, err = w.ledger.waiting(tx)
		return err
	})
	if err != nil || !waiting {
		return 0, err
	}
	var grown mapAt
	var queued []store.LedgerQueued
	err = w.ledger.store.Update(ctx, func(tx *store.Tx) error {
		queued, grown, err = w.batch(tx)
		return err
	})
	if errors.Is(err, errHeld) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	w.ledger.maps.put(grown.size, grown.tree) // not before the transaction has committed
	leaves := make([]proof.Hash, len(queued))
	for i, q := range queued {
		leaves[i] = proof.LeafHash(q.Leaf)
	}
	w.ledger.waiters.integrated(leaves)
	w.ledger.announce()
	return len(queued), nil
}

// waiting reports whether there is something to append: leaves in the outbox, or the map root of a quiet log.
func (l *Ledger) waiting(tx *store.Tx) (bool, error) {
	queued, err := tx.LedgerOutbox(1)
	if err != nil || len(queued) > 0 {
		return len(queued) > 0, err
	}
	s, err := tx.LedgerState(l.origin())
	if err != nil {
		return false, err
	}
	root, err := lastRoot(tx, s.Size)
	return err == nil && (root == nil || l.ms()-root.At >= rootTime.Milliseconds()), err
}

// batch is the transaction of a step.
func (w *Writer) batch(tx *store.Tx) ([]store.LedgerQueued, mapAt, error) {
	l := w.ledger
	now := l.ms()
	lease, err := tx.TakeLedgerLease(l.origin(), w.owner, now, now+leaseTime.Milliseconds())
	if errors.Is(err, store.ErrExists) {
		return nil, mapAt{}, errHeld
	}
	if err != nil {
		return nil, mapAt{}, err
	}
	w.token = lease.Token
	old, tree, err := l.standing(tx)
	if err != nil {
		return nil, mapAt{}, err
	}
	queued, err := tx.LedgerOutbox(batchSize)
	if err != nil {
		return nil, mapAt{}, err
	}
	grown, err := l.extend(tx, old, tree, queued)
	if err != nil {
		return nil, mapAt{}, err
	}
	for _, q := range queued {
		if err := tx.DropLedgerOutbox(q); err != nil {
			return nil, mapAt{}, err
		}
	}
	return queued, grown, nil
}

// extend appends the leaves that the log does not hold yet, with the map's new root, and publishes the new checkpoint, all or nothing with
// its transaction. It returns the map to keep when that has committed.
func (l *Ledger) extend(tx *store.Tx, old store.LedgerState, t *tree, queued []store.LedgerQueued) (mapAt, error) {
	last, err := lastRoot(tx, old.Size)
	if err != nil {
		return mapAt{}, err
	}
	var now labelmap.Tree
	public := uint64(0)
	switch {
	case last == nil && old.Size > 0:
		return mapAt{}, chat.Errorf(chat.Tampered, "the ledger does not end with the root of its map")
	case last != nil:
		public = last.Public
		if now, err = l.mapOf(tx, old.Size, last); err != nil {
			return mapAt{}, err
		}
	}
	var labels []proof.Hash
	for _, q := range queued {
		label, err := l.append(tx, t, q, public)
		if err != nil {
			return mapAt{}, err
		}
		if label == nil {
			continue
		}
		labels = append(labels, *label)
		if proof.TypeOf(q.Leaf).Public() {
			public++
		}
	}
	if t.size == old.Size && last != nil && l.ms()-last.At < rootTime.Milliseconds() {
		return mapAt{old.Size, now}, nil // repeats only
	}
	if now, err = l.appendRoot(tx, t, now, last, public, labels); err != nil {
		return mapAt{}, err
	}
	return mapAt{t.size, now}, l.integrate(tx, old, t)
}

// integrate stores the tiles and the checkpoint of a tree that has grown.
func (l *Ledger) integrate(tx *store.Tx, old store.LedgerState, t *tree) error {
	if err := t.save(); err != nil {
		return err
	}
	root, err := t.root()
	if err != nil {
		return err
	}
	signed, err := proof.SignCheckpoint(l.keys.Ledger, t.size, root)
	if err != nil {
		return err
	}
	err = tx.SwapLedgerState(l.origin(), old, store.LedgerState{Size: t.size, Root: root, Checkpoint: signed})
	if errors.Is(err, store.ErrExists) {
		return chat.Wrap(chat.Unavailable, err, "another writer published first")
	}
	return err
}

// append adds one leaf and returns its label, nil for one that the map does not hold or that stands in the log already. Another leaf
// under its label stops the ledger.
func (l *Ledger) append(tx *store.Tx, t *tree, q store.LedgerQueued, public uint64) (*proof.Hash, error) {
	hash := proof.LeafHash(q.Leaf)
	row := store.LedgerLeaf{Index: t.size, Leaf: q.Leaf, LeafHash: hash, Deed: q.Deed}
	kind := proof.TypeOf(q.Leaf)
	if kind.Public() {
		label := proof.PublicLabel(public)
		row.Deed = label[:]
	}
	err := tx.AppendLedgerLeaf(row)
	if errors.Is(err, store.ErrExists) {
		return nil, l.repeat(tx, t, q, hash)
	}
	if err != nil {
		return nil, err
	}
	if err := t.append(hash); err != nil || !kind.Public() && !kind.Labelled() {
		return nil, err
	}
	return (*proof.Hash)(row.Deed), nil
}

// repeat accepts a leaf that stands in the log already, under its label if it has one.
func (l *Ledger) repeat(tx *store.Tx, t *tree, q store.LedgerQueued, hash proof.Hash) error {
	known, err := tx.LedgerLeafByHash(hash)
	if proof.TypeOf(q.Leaf).Labelled() {
		known, err = tx.LedgerLeafByDeed(q.Deed)
	}
	switch {
	case errors.Is(err, store.ErrNotFound), err == nil && known.Index >= t.size:
		return chat.Errorf(chat.Tampered, "the ledger has an entry beyond its checkpoint, or a leaf under two labels")
	case err != nil:
		return err
	case known.LeafHash != hash:
		return chat.Errorf(chat.Tampered, "two different leaves stand under the label of entry %d", known.Index)
	}
	return nil
}

// announce wakes those who wait for a checkpoint.
func (l *Ledger) announce() {
	l.waiters.published()
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.grown)
	l.grown = make(chan struct{})
}

// news is closed at the next checkpoint that this process publishes.
func (l *Ledger) news() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.grown
}
