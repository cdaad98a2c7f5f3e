package ledger

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/witness"
)

// published is the newest checkpoint that this server has shown to anybody, in a file beside its database (spec/ledger.md section 9).
// An older database cannot take it back: the log would have to sign a smaller tree than the world has seen.
type published struct {
	path string

	mu   sync.Mutex // held while the file is written: whoever wants to show the same checkpoint waits for it
	last proof.Checkpoint
}

// OpenPublished is Open for a server that remembers in the file at path what it has published. A stored log that is smaller than that,
// or that does not lead to it, is chat.Tampered and is not opened; nor is a log begun where one was published.
func OpenPublished(ctx context.Context, s *store.Store, keys *Keys, path string, now func() time.Time, rand io.Reader) (*Ledger, error) {
	l, err := newLedger(s, keys, now, rand)
	if err != nil {
		return nil, err
	}
	l.published = &published{path: path}
	signed, err := os.ReadFile(path)
	if err == nil {
		l.published.last, err = openWitnessed(signed, l.verifier)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, chat.Wrap(chat.Tampered, err, "the file of the newest published checkpoint (%s) cannot be read", path)
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		if err := l.covers(tx, l.published.last); chat.Is(err, chat.Tampered) {
			return chat.Wrap(chat.Tampered, err, "this server does not start: whoever saw its newest checkpoint (%s) would rightly take it for a liar. Bring the newest "+
				"database back or restore a newer backup; if there is none, the log of %s cannot go on: doc/operate-backup.md, \"When the newest database is lost\"", path, l.origin())
		} else if err != nil {
			return err
		}
		return l.adopt(tx)
	})
	if err != nil {
		return nil, err
	}
	_, err = l.Checkpoint(ctx) // so that the file is there from the start
	return l, err
}

func openWitnessed(signed []byte, log note.Verifier) (proof.Checkpoint, error) {
	c, err := proof.OpenCheckpoint(signed, log)
	if err != nil {
		return c, chat.Wrap(chat.Unproven, err, "the checkpoint is not one that this server's ledger has signed")
	}
	return c, nil
}

// Covers checks that a stored ledger contains the tree of a checkpoint that was seen, by a client, a witness or the server that
// published it. One that is smaller, or of which that tree is no part, is chat.Tampered; a checkpoint that the keys did not sign is
// chat.Unproven.
func Covers(ctx context.Context, s *store.Store, keys *Keys, witnessed []byte) error {
	l, err := newLedger(s, keys, nil, nil)
	if err != nil {
		return err
	}
	c, err := openWitnessed(witnessed, l.verifier)
	if err != nil {
		return err
	}
	return s.View(ctx, func(tx *store.Tx) error { return l.covers(tx, c) })
}

// covers compares the stored log with a checkpoint that was seen; of size 0: nothing was.
func (l *Ledger) covers(tx *store.Tx, seen proof.Checkpoint) error {
	if seen.Size == 0 {
		return nil
	}
	state, err := tx.LedgerState(l.origin())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if state.Size < seen.Size {
		return chat.Errorf(chat.Tampered, "the ledger in the database has %d entries, and a checkpoint of %d was published: the database is older", state.Size, seen.Size)
	}
	root, err := tlog.TreeHash(seen.Size, openTree(tx, state.Size))
	if err == nil && root != seen.Root {
		err = chat.Errorf(chat.Tampered, "the ledger in the database is another than that of which a checkpoint of %d entries was published: it was set back and written anew", seen.Size)
	}
	return err
}

// show makes a state durable as the newest that was published, before it leaves the server.
func (l *Ledger) show(s store.LedgerState) error {
	p := l.published
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Size <= p.last.Size {
		return nil
	}
	if err := writeFile(p.path, s.Checkpoint); err != nil {
		return chat.Wrap(chat.Unavailable, err, "the server could not note its newest checkpoint, and does not show it before")
	}
	p.last = proof.Checkpoint{Size: s.Size, Root: s.Root, Signed: s.Checkpoint}
	return nil
}

// read runs fn on the log at its newest checkpoint. What fn found may be answered when read returns nil: then the checkpoint is on
// record as published.
func (l *Ledger) read(ctx context.Context, fn func(tx *store.Tx, s snapshot) error) error {
	var s snapshot
	err := l.store.View(ctx, func(tx *store.Tx) (err error) {
		if s, err = l.snapshot(tx); err != nil {
			return err
		}
		return fn(tx, s)
	})
	if err != nil {
		return err
	}
	return l.show(s.LedgerState)
}

// WritePublished notes a checkpoint as published by the server whose file is at path: a restored server begins with it.
func WritePublished(path string, signed []byte) error { return writeFile(path, signed) }

// writeFile writes a file that is there whole, or as it was, through a crash.
func writeFile(path string, data []byte) error { return witness.WriteFile(path, data) }
