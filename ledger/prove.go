package ledger

import (
	"context"
	"errors"
	"time"

	"letterlock/chat"
	"letterlock/labelmap"
	"letterlock/proof"
	"letterlock/store"
)

// This file proves what the map holds and what it does not, against the newest checkpoint (spec/map.md section 6).

// root is the map root at the end of the snapshot's tree.
func (s snapshot) root() (*proof.MapRoot, error) {
	root, err := lastRoot(s.tree.tx, s.Size)
	if err == nil && root == nil {
		err = chat.Errorf(chat.Tampered, "the ledger does not end with the root of its map")
	}
	return root, err
}

// head is the snapshot's checkpoint with its map root.
func (s snapshot) head() (*proof.Head, error) {
	root, err := s.root()
	if err != nil {
		return nil, err
	}
	p, err := s.inclusion(s.Size - 1)
	return &proof.Head{Checkpoint: s.Checkpoint, Leaf: root.Bytes(), Proof: p}, err
}

// mapProof proves what the snapshot's map holds under a label.
func (s snapshot) mapProof(label proof.Hash) ([]byte, error) {
	root, err := s.root()
	if err != nil {
		return nil, err
	}
	t, err := s.ledger.mapOf(s.tree.tx, s.Size, root)
	if err != nil {
		return nil, err
	}
	p, err := t.Prove(label, func(b labelmap.Bucket) ([]labelmap.Entry, error) { return bucket(s.tree.tx, b, root.Covers) })
	if err != nil {
		return nil, err
	}
	return p.Bytes(), nil
}

// MapProof proves what the map holds under a label.
func (l *Ledger) MapProof(ctx context.Context, label proof.Hash) (head *proof.Head, mapProof []byte, err error) {
	err = l.read(ctx, func(_ *store.Tx, s snapshot) error {
		if head, err = s.head(); err == nil {
			mapProof, err = s.mapProof(label)
		}
		return err
	})
	return head, mapProof, err
}

// Labelled is what the map holds under a label, with the proof of the label.
type Labelled struct {
	VRFProof []byte
	Proof    []byte
}

// labelled proves what the snapshot's map holds at a place.
func (s snapshot) labelled(p proof.Labelled) (Labelled, error) {
	label := proof.ProveLabel(s.ledger.keys.VRF, p)
	m, err := s.mapProof(label.Label)
	return Labelled{label.Proof[:], m}, err
}

// Complete proves for each place that the map has no record there: it is the one after the last. The head goes with all of them. A place that
// is taken is proven as well, as taken: then there is a record that the caller does not know.
func (l *Ledger) Complete(ctx context.Context, places []proof.Place) (head *proof.Head, list []Labelled, err error) {
	err = l.read(ctx, func(_ *store.Tx, s snapshot) error {
		if head, err = s.head(); err != nil {
			return err
		}
		list = make([]Labelled, len(places))
		for i, p := range places {
			if list[i], err = s.labelled(p); err != nil {
				return err
			}
		}
		return nil
	})
	return head, list, err
}

// Newest proves which version of a key chain is the newest in the log.
type Newest struct {
	Head         *proof.Head
	Version      uint64
	Index        int64 // of the entry of that version; -1: the log has none of them yet, and This is empty
	This, Beyond Labelled
}

// keysWait is how long Newest waits for an entry that was just made.
const keysWait = 5 * time.Second

// Newest proves that version, the newest entry of a handle's key chain, is the newest in the log. It waits a few seconds for it, and then
// proves what the log has.
func (l *Ledger) Newest(ctx context.Context, handle string, version uint64) (n Newest, err error) {
	waiting, cancel := context.WithTimeout(ctx, keysWait)
	defer cancel()
	for {
		news := l.news()
		n, err = l.newest(ctx, handle, version)
		if err != nil || n.Index >= 0 && n.Version == version {
			return n, err
		}
		select {
		case <-waiting.Done():
			return n, nil
		case <-news:
		}
	}
}

func (l *Ledger) newest(ctx context.Context, handle string, version uint64) (n Newest, err error) {
	err = l.read(ctx, func(tx *store.Tx, s snapshot) error {
		if n.Head, err = s.head(); err != nil {
			return err
		}
		n.Version, n.Index = version, -1
		for {
			label := proof.ProveLabel(l.keys.VRF, proof.KeyPlace{Handle: handle, N: n.Version})
			row, err := tx.LedgerLeafByDeed(label.Label[:])
			switch {
			case err == nil && row.Index < s.Size:
				n.Index = row.Index
				if n.This, err = s.labelled(proof.KeyPlace{Handle: handle, N: n.Version}); err != nil {
					return err
				}
				n.Beyond, err = s.labelled(proof.KeyPlace{Handle: handle, N: n.Version + 1})
				return err
			case err != nil && !errors.Is(err, store.ErrNotFound):
				return err
			case n.Version == 0:
				n.Beyond, err = s.labelled(proof.KeyPlace{Handle: handle})
				return err
			}
			n.Version--
		}
	})
	return n, err
}

// PublicEntry is a public entry of the log with the proof that the map has it under its number.
type PublicEntry struct {
	Index int64
	Leaf  []byte
	Proof []byte
}

// maxPublic is the most public entries in one answer.
const maxPublic = 200

// PublicEntries reads public entries from a number on, at most so many (and never more than 200); the head says how many there are.
func (l *Ledger) PublicEntries(ctx context.Context, from uint64, limit int) (head *proof.Head, list []PublicEntry, err error) {
	err = l.read(ctx, func(tx *store.Tx, s snapshot) error {
		if head, err = s.head(); err != nil {
			return err
		}
		root, err := s.root()
		if err != nil {
			return err
		}
		list = []PublicEntry{}
		for k := from; k < root.Public && len(list) < min(limit, maxPublic); k++ {
			label := proof.PublicLabel(k)
			row, err := tx.LedgerLeafByDeed(label[:])
			if err != nil {
				return err
			}
			p, err := s.mapProof(label)
			if err != nil {
				return err
			}
			list = append(list, PublicEntry{row.Index, row.Leaf, p})
		}
		return nil
	})
	return head, list, err
}
