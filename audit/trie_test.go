package audit

import (
	"bytes"
	"crypto/rand"
	"slices"
	"testing"

	"letterlock/labelmap"
	"letterlock/proof"
)

// TestTrieIsTheMap: the plain map and package labelmap, which have no line in common, give one root for any set of labels in any order,
// those that agree in many bits among them.
func TestTrieIsTheMap(t *testing.T) {
	for range 200 {
		var plain trie
		var entries []labelmap.Entry
		for i := range int64(40) {
			var label hash
			rand.Read(label[:])
			if len(entries) > 0 && i%3 == 0 { // a neighbour of one that is there
				label = entries[i/2].Label
				label[i%32] ^= 1 << (i % 8)
			}
			leaf := hash{byte(i)}
			at, found := slices.BinarySearchFunc(entries, label, func(e labelmap.Entry, l hash) int { return bytes.Compare(e.Label[:], l[:]) })
			if _, ok := plain.insert(label, leaf, i); ok == found {
				t.Fatalf("label %x is there: %v, the trie says %v", label, found, !ok)
			}
			if !found {
				entries = slices.Insert(entries, at, labelmap.Entry{Label: label, Value: labelmap.Value(leaf, i)})
			}
			if i%4 == 0 && plain.rootHash() != labelmap.Root(entries) {
				t.Fatalf("%d entries: another root", len(entries))
			}
		}
	}
	if new(trie).rootHash() != labelmap.Root(nil) {
		t.Error("the empty map has another root")
	}
	for _, k := range []uint64{0, 1, 1 << 40} {
		if publicLabel(k) != proof.PublicLabel(k) {
			t.Errorf("public entry %d has another label", k)
		}
	}
}
