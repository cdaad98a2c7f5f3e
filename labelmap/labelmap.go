// Package labelmap is the authenticated map of spec/map.md: insert-only, from label to value, as a compressed binary trie. A Proof says
// that a root has a label, with this value, or that it has not.
//
// The server makes roots and proofs with Tree (package ledger); devices, agents and strangers check proofs and need nothing else of
// this package. It knows no log and no labels' meaning, does no I/O and holds no secret. It refuses a proof of another form than the one
// that Bytes gives, bits that do not rise, and an absence that ends at a leaf to which the label's walk does not lead.
package labelmap

import (
	"encoding/binary"

	"letterlock/canon"
)

const domain = "letterlock/map/v1"

// Hash is a label, a value, a node or a root.
type Hash = [32]byte

// Entry is a label with its value.
type Entry struct{ Label, Value Hash }

// Value is what the map holds for a label: the leaf hash of the log's entry and its index.
func Value(leaf Hash, index int64) Hash {
	b := append(make([]byte, 0, 41), 2)
	b = append(b, leaf[:]...)
	return canon.Hash(domain, binary.BigEndian.AppendUint64(b, uint64(index)))
}

func (e Entry) hash() Hash {
	b := append(make([]byte, 0, 65), 0)
	b = append(b, e.Label[:]...)
	return canon.Hash(domain, append(b, e.Value[:]...))
}

// inner is the node under which labels differ in a bit for the first time, 0 on the left.
func inner(bit uint8, left, right Hash) Hash {
	b := append(make([]byte, 0, 66), 1, bit)
	b = append(b, left[:]...)
	return canon.Hash(domain, append(b, right[:]...))
}

// bit is a bit of a label, the first one of the first byte first.
func bit(label *Hash, i uint8) uint8 { return label[i/8] >> (7 - i%8) & 1 }

// Root is the root of entries sorted by label, no label twice: zero bytes if there are none.
func Root(sorted []Entry) Hash {
	switch len(sorted) {
	case 0:
		return Hash{}
	case 1:
		return sorted[0].hash()
	}
	b, mid := split(sorted)
	return inner(b, Root(sorted[:mid]), Root(sorted[mid:]))
}

// split finds the first bit in which sorted entries differ, and the first entry that has it set.
func split(sorted []Entry) (b uint8, mid int) {
	first, last := &sorted[0].Label, &sorted[len(sorted)-1].Label
	i := 0
	for first[i] == last[i] {
		i++
	}
	b = uint8(8 * i)
	for bit(first, b) == bit(last, b) {
		b++
	}
	lo, hi := 1, len(sorted)-1
	for lo < hi {
		m := (lo + hi) / 2
		if bit(&sorted[m].Label, b) == 1 {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return b, lo
}
