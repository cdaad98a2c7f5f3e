package ledger

import (
	"errors"
	"slices"
	"sync"

	"letterlock/chat"
	"letterlock/labelmap"
	"letterlock/proof"
	"letterlock/store"
)

// This file is the map of spec/map.md. Its entries are the log's own rows, which stand under their labels; what is kept in memory is the
// top of the trie, for the sizes of the log that were asked for last.

// heldMaps is how many sizes of the log have their map in memory: that which is published, that which is written, and those in between
// that readers still look at. They share what is the same.
const heldMaps = 4

// maps are the tops of maps by size of the log, those used last at the end.
type maps struct {
	mu   sync.Mutex
	held []mapAt
}

type mapAt struct {
	size int64 // of the tree whose last entry is the map's root
	tree labelmap.Tree
}

func (m *maps) get(size int64) (labelmap.Tree, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.held, func(a mapAt) bool { return a.size == size })
	if i < 0 {
		return labelmap.Tree{}, false
	}
	found := m.held[i]
	m.held = append(slices.Delete(m.held, i, i+1), found)
	return found.tree, true
}

func (m *maps) put(size int64, t labelmap.Tree) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = slices.DeleteFunc(m.held, func(a mapAt) bool { return a.size == size })
	m.held = append(m.held, mapAt{size, t})
	if len(m.held) > heldMaps {
		m.held = slices.Delete(m.held, 0, 1)
	}
}

// lastRoot is the map root at the end of a tree; nil for a log that was begun before there were any.
func lastRoot(tx *store.Tx, size int64) (*proof.MapRoot, error) {
	if size == 0 {
		return nil, nil
	}
	leaves, err := tx.LedgerLeaves(size-1, 1)
	if err != nil || len(leaves) == 0 {
		return nil, err
	}
	leaf, err := proof.ParseLeaf(leaves[0].Leaf)
	if err != nil {
		return nil, chat.Wrap(chat.Tampered, err, "the ledger's last entry is damaged")
	}
	root, ok := leaf.(*proof.MapRoot)
	if !ok {
		return nil, nil
	}
	return root, nil
}

// mapOf is the map of the tree of a size, which ends with root.
func (l *Ledger) mapOf(tx *store.Tx, size int64, root *proof.MapRoot) (labelmap.Tree, error) {
	if t, ok := l.maps.get(size); ok {
		return t, nil
	}
	t, err := buildMap(tx, root.Covers)
	if err != nil {
		return t, err
	}
	if t.Root() != root.Root {
		return t, chat.Errorf(chat.Tampered, "the map that the ledger's entries give is not the one whose root it has logged")
	}
	l.maps.put(size, t)
	return t, nil
}

// buildMap makes the map of the entries before an index. It goes through them by label, so that it holds one bucket at a time.
func buildMap(tx *store.Tx, covers int64) (t labelmap.Tree, err error) {
	buckets := map[labelmap.Bucket][]labelmap.Entry{}
	var after []byte
	for {
		rows, err := tx.LedgerDeedsAfter(after, mapPage)
		if err != nil {
			return t, err
		}
		for _, row := range rows {
			after = row.Deed
			if e, ok := mapEntry(row, covers); ok {
				b := labelmap.BucketOf(e.Label)
				buckets[b] = append(buckets[b], e)
			}
		}
		last := len(rows) < mapPage
		if len(buckets) > mapPage || last {
			t = t.With(finished(buckets, last))
		}
		if last {
			return t, nil
		}
	}
}

const mapPage = 1000

// finished takes the buckets out that are read whole: all but the last one, and at the end that too.
func finished(buckets map[labelmap.Bucket][]labelmap.Entry, all bool) map[labelmap.Bucket][]labelmap.Entry {
	var open labelmap.Bucket
	for b := range buckets {
		open = max(open, b)
	}
	done := map[labelmap.Bucket][]labelmap.Entry{}
	for b, entries := range buckets {
		if all || b != open {
			done[b] = entries
			delete(buckets, b)
		}
	}
	return done
}

// mapEntry is what a row of the log is in the map of the entries before an index.
func mapEntry(row store.LedgerLeaf, covers int64) (e labelmap.Entry, ok bool) {
	t := proof.TypeOf(row.Leaf)
	if row.Index >= covers || len(row.Deed) != len(e.Label) || !t.Labelled() && !t.Public() {
		return e, false
	}
	return labelmap.Entry{Label: proof.Hash(row.Deed), Value: labelmap.Value(row.LeafHash, row.Index)}, true
}

// bucket reads a bucket of the map of the entries before an index.
func bucket(tx *store.Tx, b labelmap.Bucket, covers int64) ([]labelmap.Entry, error) {
	first, last := b.Bounds()
	rows, err := tx.LedgerDeeds(first[:], last[:])
	var list []labelmap.Entry
	for _, row := range rows {
		if e, ok := mapEntry(row, covers); ok {
			list = append(list, e)
		}
	}
	return list, err
}

// appendRoot ends a batch with the root of the map of everything before it: labels are those that the batch added.
func (l *Ledger) appendRoot(tx *store.Tx, t *tree, before labelmap.Tree, last *proof.MapRoot, public uint64, labels []proof.Hash) (labelmap.Tree, error) {
	changed := map[labelmap.Bucket][]labelmap.Entry{}
	for _, label := range labels {
		b := labelmap.BucketOf(label)
		if _, done := changed[b]; done {
			continue
		}
		entries, err := bucket(tx, b, t.size)
		if err != nil {
			return before, err
		}
		changed[b] = entries
	}
	after := before.With(changed)
	root := proof.MapRoot{Covers: t.size, At: l.ms(), Public: public, Root: after.Root()}
	if last != nil {
		root.At = max(root.At, last.At)
	}
	leaf := root.Bytes()
	hash := proof.LeafHash(leaf)
	if err := tx.AppendLedgerLeaf(store.LedgerLeaf{Index: t.size, Leaf: leaf, LeafHash: hash, Deed: hash[:]}); err != nil {
		if errors.Is(err, store.ErrExists) {
			err = chat.Errorf(chat.Tampered, "the ledger has an entry beyond its checkpoint")
		}
		return before, err
	}
	return after, t.append(hash)
}

// beginMap gives a log that was begun before map roots were its first one: its public entries get their numbers, the key chains of its
// people are queued.
func (l *Ledger) beginMap(tx *store.Tx, state store.LedgerState, t *tree) error {
	public := uint64(0)
	for from := int64(0); from < state.Size; from += mapPage {
		leaves, err := tx.LedgerLeaves(from, mapPage)
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if !proof.TypeOf(leaf.Leaf).Public() {
				continue
			}
			label := proof.PublicLabel(public)
			if err := tx.RenameLedgerDeed(leaf.Index, label[:]); err != nil {
				return err
			}
			public++
		}
	}
	if err := l.queueKeyChains(tx); err != nil {
		return err
	}
	before, err := buildMap(tx, state.Size)
	if err != nil {
		return err
	}
	if _, err := l.appendRoot(tx, t, before, nil, public, nil); err != nil {
		return err
	}
	return l.integrate(tx, state, t)
}

// queueKeyChains queues every entry of every key chain.
func (l *Ledger) queueKeyChains(tx *store.Tx) error {
	var after chat.AccountID
	for {
		accounts, err := tx.AccountsAfter(after, mapPage)
		if err != nil {
			return err
		}
		for _, a := range accounts {
			after = a.ID
			entries, err := tx.ChainEntries(a.ID, 0)
			if err != nil {
				return err
			}
			for n, entry := range entries {
				if err := l.KeyEntry(tx, a.ID, a.Handle, uint64(n), entry); err != nil {
					return err
				}
			}
		}
		if len(accounts) < mapPage {
			return nil
		}
	}
}
