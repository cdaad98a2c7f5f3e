package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// hash is a leaf hash, a node of the log's tree, a label or a node of the map.
type hash = [32]byte

// trie is the map of spec/map.md, written a second time and in another way than package labelmap, of which it uses nothing: the whole trie stands
// in memory, about 120 bytes for each label, and the root is hashed where entries came in since it was last asked for.
type trie struct {
	root   ref
	leaves []leafNode
	inner  []innerNode
}

// ref points to a node: i to inner[i], -1-i to leaves[i].
type ref int32

type leafNode struct {
	label hash
	hash  hash
	index int64 // of the entry in the log
}

type innerNode struct {
	hash  hash
	fresh bool   // hash is that of what is below
	bit   uint8  // the first in which the labels below differ
	child [2]ref // of labels that have the bit clear, and set
}

// insert puts an entry of the log under a label. If the label is there already, nothing changes and twice is the index of the entry that has it.
func (t *trie) insert(label, leaf hash, index int64) (twice int64, ok bool) {
	entry := leafNode{label, leafHash(label, valueHash(leaf, index)), index}
	if len(t.leaves) == 0 {
		t.root, t.leaves = -1, append(t.leaves, entry)
		return 0, true
	}
	near := t.nearest(&label)
	if near.label == label {
		return near.index, false
	}
	n := innerNode{bit: firstDifference(&near.label, &label)}
	at := &t.root
	for *at >= 0 && t.inner[*at].bit < n.bit {
		above := &t.inner[*at]
		above.fresh = false
		at = &above.child[bitOf(&label, above.bit)]
	}
	side := bitOf(&label, n.bit)
	n.child[side], n.child[1-side] = ref(-1-len(t.leaves)), *at
	*at = ref(len(t.inner))
	t.leaves, t.inner = append(t.leaves, entry), append(t.inner, n)
	return 0, true
}

// nearest is where the walk of a label ends, in a map that is not empty: at its leaf, if it has one.
func (t *trie) nearest(label *hash) *leafNode {
	r := t.root
	for r >= 0 {
		r = t.inner[r].child[bitOf(label, t.inner[r].bit)]
	}
	return &t.leaves[-1-r]
}

// rootHash is the map's root: zero bytes if nothing is in it.
func (t *trie) rootHash() hash {
	if len(t.leaves) == 0 {
		return hash{}
	}
	return t.hashOf(t.root)
}

func (t *trie) hashOf(r ref) hash {
	if r < 0 {
		return t.leaves[-1-r].hash
	}
	n := &t.inner[r]
	if !n.fresh {
		n.hash, n.fresh = innerHash(n.bit, t.hashOf(n.child[0]), t.hashOf(n.child[1])), true
	}
	return n.hash
}

func bitOf(label *hash, i uint8) uint8 { return label[i>>3] >> (7 - i&7) & 1 }

// firstDifference is the first bit in which two labels differ; they do.
func firstDifference(a, b *hash) uint8 {
	i := 0
	for a[i] == b[i] {
		i++
	}
	return uint8(8*i + bits.LeadingZeros8(a[i]^b[i]))
}

// The hashes of spec/map.md section 2, as they stand there.

const mapDomain = "letterlock/map/v1\x00"

func valueHash(leaf hash, index int64) hash {
	b := append(append(make([]byte, 0, 64), mapDomain...), 2)
	b = append(b, leaf[:]...)
	return sha256.Sum256(binary.BigEndian.AppendUint64(b, uint64(index)))
}

func leafHash(label, value hash) hash {
	b := append(append(make([]byte, 0, 96), mapDomain...), 0)
	b = append(b, label[:]...)
	return sha256.Sum256(append(b, value[:]...))
}

func innerHash(bit uint8, left, right hash) hash {
	b := append(append(make([]byte, 0, 96), mapDomain...), 1, bit)
	b = append(b, left[:]...)
	return sha256.Sum256(append(b, right[:]...))
}

// publicLabel is the label of the k-th public entry.
func publicLabel(k uint64) hash {
	return sha256.Sum256(binary.BigEndian.AppendUint64([]byte("letterlock/public/v1\x00"), k))
}
