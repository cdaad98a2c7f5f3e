package labelmap

import "encoding/binary"

// topBits is how many bits of a label lead to its bucket. The nodes above the buckets are kept in memory, some 30 MB when all are there; what
// is in a bucket, four labels of a million, is read and hashed when it is needed.
const topBits = 18

// Bucket is the part of the map that shares the first 18 bits of its labels.
type Bucket uint32

// BucketOf is the bucket of a label.
func BucketOf(label Hash) Bucket { return Bucket(binary.BigEndian.Uint32(label[:]) >> (32 - topBits)) }

// Bounds are the smallest label of a bucket and the largest.
func (b Bucket) Bounds() (first, last Hash) {
	for i := range last {
		last[i] = 0xff
	}
	binary.BigEndian.PutUint32(first[:], uint32(b)<<(32-topBits))
	binary.BigEndian.PutUint32(last[:], uint32(b+1)<<(32-topBits)-1) // of the last bucket this wraps to all ones
	return first, last
}

// Tree is the top of a map. It never changes: With makes another one, and shares with it what is the same. The zero value is the empty map.
type Tree struct{ root *node }

// node is the subtree of a prefix of at most topBits bits; nil: nothing is in it.
type node struct {
	hash  Hash
	child [2]*node // both nil: a bucket
}

// Root is the map's root.
func (t Tree) Root() Hash {
	if t.root == nil {
		return Hash{}
	}
	return t.root.hash
}

// With is the tree in which these buckets hold these entries, each list sorted by label.
func (t Tree) With(buckets map[Bucket][]Entry) Tree {
	for b, entries := range buckets {
		var bucket *node
		if len(entries) > 0 {
			bucket = &node{hash: Root(entries)}
		}
		t.root = t.root.with(0, b, bucket)
	}
	return t
}

// with is the node, of a prefix of depth bits, with another bucket.
func (n *node) with(depth uint8, b Bucket, bucket *node) *node {
	if depth == topBits {
		return bucket
	}
	var child [2]*node
	if n != nil {
		child = n.child
	}
	side := b >> (topBits - 1 - depth) & 1
	child[side] = child[side].with(depth+1, b, bucket)
	switch {
	case child[0] == nil && child[1] == nil:
		return nil
	case child[0] == nil:
		return &node{child[1].hash, child}
	case child[1] == nil:
		return &node{child[0].hash, child}
	}
	return &node{inner(depth, child[0].hash, child[1].hash), child}
}

// Prove proves what the map holds under a label. read gives the entries of a bucket, sorted by label: those that the tree was made of.
func (t Tree) Prove(label Hash, read func(Bucket) ([]Entry, error)) (*Proof, error) {
	var p Proof
	if t.root == nil {
		return &p, nil
	}
	n, end := t.root, Bucket(0)
	for depth := range uint8(topBits) {
		side := bit(&label, depth)
		switch {
		case n.child[1-side] == nil:
		case n.child[side] == nil:
			side = 1 - side
		default:
			p.step(depth, n.child[1-side].hash)
		}
		n, end = n.child[side], end<<1|Bucket(side)
	}
	entries, err := read(end)
	if err != nil {
		return nil, err
	}
	p.prove(entries, label)
	return &p, nil
}
