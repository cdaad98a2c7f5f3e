package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

const (
	batchSize = 1000             // leaves appended in one transaction
	leaseTime = 10 * time.Second // a writer that is silent for so long is replaced
	pollTime  = time.Second      // how soon leaves are found that another process wrote, or whose Notify was lost
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

// Run writes until the context ends, and then returns nil. It returns early only with a chat.Tampered error: the log must not grow
// until somebody has looked.
func (w *Writer) Run(ctx context.Context) error {
	timer := time.NewTicker(pollTime)
	defer timer.Stop()
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

// errHeld means that another writer holds the lease.
var errHeld = errors.New("ledger: another writer holds the lease")

// Step appends and publishes at most one batch and returns how many leaves it took out of the outbox: 0 if there are none, or
// another writer holds the lease.
func (w *Writer) Step(ctx context.Context) (n int, err error) {
	waiting := false
	err = w.ledger.store.View(ctx, func(tx *store.Tx) error {
		queued, err := tx.LedgerOutbox(1)
		waiting = len(queued) > 0
		return err
	})
	if err != nil || !waiting {
		return 0, err
	}
	err = w.ledger.store.Update(ctx, func(tx *store.Tx) error {
		n, err = w.batch(tx)
		return err
	})
	if errors.Is(err, errHeld) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	w.ledger.announce()
	return n, nil
}

// batch is the transaction of a step.
func (w *Writer) batch(tx *store.Tx) (int, error) {
	l := w.ledger
	now := l.ms()
	lease, err := tx.TakeLedgerLease(l.origin(), w.owner, now, now+leaseTime.Milliseconds())
	if errors.Is(err, store.ErrExists) {
		return 0, errHeld
	}
	if err != nil {
		return 0, err
	}
	w.token = lease.Token
	old, tree, err := l.standing(tx)
	if err != nil {
		return 0, err
	}
	queued, err := tx.LedgerOutbox(batchSize)
	if err != nil {
		return 0, err
	}
	if _, err := l.extend(tx, old, tree, queued); err != nil {
		return 0, err
	}
	for _, q := range queued {
		if err := tx.DropLedgerOutbox(q); err != nil {
			return 0, err
		}
	}
	return len(queued), nil
}

// extend appends the leaves that the log does not hold yet and publishes the new checkpoint, all or nothing with its transaction.
func (l *Ledger) extend(tx *store.Tx, old store.LedgerState, t *tree, queued []store.LedgerQueued) (store.LedgerState, error) {
	for _, q := range queued {
		if err := l.append(tx, t, q); err != nil {
			return old, err
		}
	}
	if t.size == old.Size {
		return old, nil // repeats only
	}
	if err := t.save(); err != nil {
		return old, err
	}
	root, err := t.root()
	if err != nil {
		return old, err
	}
	signed, err := proof.SignCheckpoint(l.keys.Ledger, t.size, root)
	if err != nil {
		return old, err
	}
	state := store.LedgerState{Size: t.size, Root: root, Checkpoint: signed}
	err = tx.SwapLedgerState(l.origin(), old, state)
	if errors.Is(err, store.ErrExists) {
		return old, chat.Wrap(chat.Unavailable, err, "another writer published first")
	}
	return state, err
}

// append adds one leaf. One that stands in the log is skipped; another leaf under its deed stops the ledger.
func (l *Ledger) append(tx *store.Tx, t *tree, q store.LedgerQueued) error {
	hash := proof.LeafHash(q.Leaf)
	err := tx.AppendLedgerLeaf(store.LedgerLeaf{Index: t.size, Leaf: q.Leaf, LeafHash: hash, Deed: q.Deed})
	if errors.Is(err, store.ErrExists) {
		return l.repeat(tx, t, q, hash)
	}
	if err != nil {
		return err
	}
	return t.append(hash)
}

// repeat accepts a leaf that stands in the log under the same deed.
func (l *Ledger) repeat(tx *store.Tx, t *tree, q store.LedgerQueued, hash proof.Hash) error {
	known, err := tx.LedgerLeafByDeed(q.Deed)
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
