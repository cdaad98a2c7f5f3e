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
		list, err := releases(tx)
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
		list, err := releases(tx)
		for _, r := range list {
			if r.index >= s.Size {
				r.index = -1
			}
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

// releases reads every release of log and outbox.
func releases(tx *store.Tx) (list []release, err error) {
	rows, err := tx.LedgerLeavesLike((&proof.Release{}).Bytes()[:3])
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		leaf, err := proof.ParseLeaf(row.Leaf)
		if err != nil {
			return nil, err
		}
		if r, ok := leaf.(*proof.Release); ok {
			list = append(list, release{r, row.Index})
		}
	}
	return list, nil
}
