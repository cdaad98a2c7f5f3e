package proof

import (
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/labelmap"
)

// BenchmarkVerifyNever checks a bundle of the kind "never" with three cosignatures, out of a log of so many entries, all of them records of
// other people. It reports the size of the file.
func BenchmarkVerifyNever(b *testing.B) {
	for _, n := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newWorld(b)
			w.begin()
			w.bundle.Agreements = nil
			w.witnessed(2, "w1.example", "w2.example", "w3.example")
			w.fill(n)
			data := w.finish()
			pins := Pins{LedgerVKey: w.vkey, Policy: []byte(w.policy.String())}
			b.ResetTimer()
			for b.Loop() {
				if v, err := Verify(data, pins); err != nil || v.Kind != NeverAnything || len(v.Witnesses) != 3 {
					b.Fatal(v, err)
				}
			}
			b.ReportMetric(float64(len(data)), "bytes")
		})
	}
}

// fill appends leaves of other people until the log has n entries, with random labels; their map is made once, at the end.
func (w *world) fill(n int) {
	for len(w.leaves) < n {
		var leaf Personal
		leaf.Label = randomLabel(len(w.leaves))
		data := leaf.Bytes()
		index := int64(len(w.leaves))
		hashes, err := tlog.StoredHashes(index, data, w)
		w.must(err)
		w.hashes, w.leaves = append(w.hashes, hashes...), append(w.leaves, data)
		w.labels = append(w.labels, labelmap.Entry{Label: leaf.Label, Value: labelmap.Value(LeafHash(data), index)})
	}
}

func randomLabel(n int) Hash { return tlog.RecordHash(fmt.Append(nil, n)) }
