package ledger

import (
	"context"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// releaseWait is how long AddRelease waits for the log to hold the hash.
const releaseWait = 5 * time.Second

// AddRelease puts the hash of a released file on record, in public, for good. The same once more changes nothing; another hash under a
// name and version that stand is chat.Exists.
func (l *Ledger) AddRelease(ctx context.Context, r api.NewRelease) (out api.Release, err error) {
	if len(r.SHA256) != len(proof.Hash{}) {
		return out, chat.Errorf(chat.Invalid, "a SHA-256 has 32 bytes")
	}
	leaf := &proof.Release{Name: r.Name, Version: r.Version, SHA256: [32]byte(r.SHA256)}
	var hash proof.Hash
	err = l.store.Update(ctx, func(tx *store.Tx) error {
		s, err := l.snapshot(tx)
		if err != nil {
			return err
		}
		list, err := releases(tx, s)
		if err != nil {
			return err
		}
		for _, known := range list {
			if known.Name != leaf.Name || known.Version != leaf.Version {
				continue
			}
			if known.SHA256 != leaf.SHA256 {
				return chat.Errorf(chat.Exists, "the ledger has another hash for %s %s: what was released is not replaced, it gets a new version", r.Name, r.Version)
			}
			hash = proof.LeafHash(leaf.Bytes())
			return nil
		}
		hash, err = l.Public(tx, leaf)
		return err
	})
	if err != nil {
		return out, err
	}
	l.Notify()
	out = api.Release{Leaf: leaf.Bytes(), Index: -1}
	ctx, cancel := context.WithTimeout(ctx, releaseWait)
	defer cancel()
	index, _, err := l.Wait(ctx, hash)
	if chat.Is(err, chat.NotFound) {
		return out, nil // durable; it will be there
	}
	out.Index = index
	return out, err
}

// ListReleases lists what was released: the leaves with their places, in the order of the log; those that wait for it (index -1) come last.
func (l *Ledger) ListReleases(ctx context.Context) (out api.ReleaseList, err error) {
	out.Releases = []api.Release{}
	return out, l.read(ctx, func(tx *store.Tx, s snapshot) error {
		list, err := releases(tx, s)
		for _, r := range list {
			out.Releases = append(out.Releases, api.Release{Leaf: r.Bytes(), Index: r.index})
		}
		return err
	})
}

// release is a release leaf and where it stands.
type release struct {
	*proof.Release
	index int64 // -1: it waits
}

// releases reads every release of the log, by the numbers of its public entries, and of the outbox.
func releases(tx *store.Tx, s snapshot) (list []release, err error) {
	root, err := s.root()
	if err != nil {
		return nil, err
	}
	var rows []store.LedgerLeaf
	for k := range root.Public {
		label := proof.PublicLabel(k)
		row, err := tx.LedgerLeafByDeed(label[:])
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	waiting, err := tx.LedgerOutboxSize()
	if err != nil {
		return nil, err
	}
	queued, err := tx.LedgerOutbox(int(waiting))
	if err != nil {
		return nil, err
	}
	for _, q := range queued {
		rows = append(rows, store.LedgerLeaf{Index: -1, Leaf: q.Leaf})
	}
	for _, row := range rows {
		if proof.TypeOf(row.Leaf) != proof.TypeRelease {
			continue
		}
		leaf, err := proof.ParseLeaf(row.Leaf)
		if err != nil {
			return nil, err
		}
		list = append(list, release{leaf.(*proof.Release), row.Index})
	}
	return list, nil
}
