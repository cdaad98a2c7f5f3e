package ledger

import (
	"crypto/rand"
	"runtime"
	"testing"

	"letterlock/labelmap"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/storetest"
)

// BenchmarkMap is a map of a million labels on SQLite: building it, the memory that it takes, an epoch of 5,000 inserts with its root, a
// proof and its size.
func BenchmarkMap(b *testing.B) {
	const labels, epoch = 1_000_000, 5000
	w := benchOn(b, storetest.File(b, b.TempDir()+"/map.db"), "", newKeys(b))
	w.skipCheck = true
	size := int64(1000)
	add := func(tx *store.Tx) (proof.Hash, error) {
		leaf := proof.Personal{}
		rand.Read(leaf.Label[:])
		data := leaf.Bytes()
		size++
		return leaf.Label, tx.AppendLedgerLeaf(store.LedgerLeaf{Index: size, Leaf: data, LeafHash: proof.LeafHash(data), Deed: leaf.Label[:]})
	}
	for range labels / epoch {
		w.update(func(tx *store.Tx) (err error) {
			for i := 0; i < epoch && err == nil; i++ {
				_, err = add(tx)
			}
			return err
		})
	}
	var t labelmap.Tree
	view := func(fn func(tx *store.Tx) error) {
		if err := w.store.View(ctx, fn); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			view(func(tx *store.Tx) (err error) { t, err = buildMap(tx, size+1); return err })
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		runtime.KeepAlive(t)
		t = labelmap.Tree{}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(before.HeapAlloc-after.HeapAlloc)/1e6, "MB")
		view(func(tx *store.Tx) (err error) { t, err = buildMap(tx, size+1); return err })
	})
	b.Run("epoch", func(b *testing.B) {
		for b.Loop() {
			w.update(func(tx *store.Tx) error {
				changed := map[labelmap.Bucket][]labelmap.Entry{}
				for range epoch {
					label, err := add(tx)
					if err != nil {
						return err
					}
					changed[labelmap.BucketOf(label)] = nil
				}
				for at := range changed {
					var err error
					if changed[at], err = bucket(tx, at, size+1); err != nil {
						return err
					}
				}
				t = t.With(changed)
				return nil
			})
		}
	})
	b.Run("proof", func(b *testing.B) {
		bytes := 0
		for b.Loop() {
			var label proof.Hash
			rand.Read(label[:])
			view(func(tx *store.Tx) error {
				p, err := t.Prove(label, func(at labelmap.Bucket) ([]labelmap.Entry, error) { return bucket(tx, at, size+1) })
				bytes += len(p.Bytes())
				return err
			})
		}
		b.ReportMetric(float64(bytes)/float64(b.N), "bytes")
	})
}
