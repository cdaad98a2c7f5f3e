package roster

import "slices"

// Hash is the tree hash of the root (RFC 9420, section 7.8).
func (t *Tree) Hash() []byte { return t.hash(t.Root()) }

// NodeHash is the tree hash of one node.
func (t *Tree) NodeHash(x NodeIndex) []byte { return t.hash(x) }

func (t *Tree) hash(x NodeIndex) []byte {
	if t.hashes[x] == nil {
		if x.IsLeaf() {
			t.hashes[x] = t.hashLeaf(x, t.nodes[x].leaf)
		} else {
			t.hashes[x] = t.hashParent(t.nodes[x].parent, nil, t.hash(x.Left()), t.hash(x.Right()))
		}
	}
	return t.hashes[x]
}

func (t *Tree) hashLeaf(x NodeIndex, leaf *LeafNode) []byte {
	w := Writer{make([]byte, 0, 256)}
	w.Uint8(1)
	w.Uint32(x.Leaf())
	w.Optional(leaf != nil)
	if leaf != nil {
		leaf.Encode(&w)
	}
	return t.suite.Hash(w.b)
}

// hashParent hashes a parent as if the leaves in without were not unmerged there.
func (t *Tree) hashParent(p *ParentNode, without []uint32, left, right []byte) []byte {
	w := Writer{make([]byte, 0, 192)}
	w.Uint8(2)
	w.Optional(p != nil)
	if p != nil {
		p.encodeWith(&w, minus(p.UnmergedLeaves, without))
	}
	w.Opaque(left)
	w.Opaque(right)
	return t.suite.Hash(w.b)
}

// minus is list without the members of drop; both rise.
func minus(list, drop []uint32) []uint32 {
	if len(drop) == 0 {
		return list
	}
	return slices.DeleteFunc(slices.Clone(list), func(leaf uint32) bool {
		_, found := slices.BinarySearch(drop, leaf)
		return found
	})
}

// hashWithout is the tree hash of x as if the leaves in without (rising) were blank and nowhere unmerged: the "original"
// tree hash of RFC 9420, section 7.9. It only descends to where these leaves are.
func (t *Tree) hashWithout(x NodeIndex, without []uint32) []byte {
	without = below(x, without)
	if len(without) == 0 {
		return t.hash(x)
	}
	if x.IsLeaf() {
		return t.hashLeaf(x, nil)
	}
	return t.hashParent(t.nodes[x].parent, without, t.hashWithout(x.Left(), without), t.hashWithout(x.Right(), without))
}

// below is the leaves of a rising list that are under x.
func below(x NodeIndex, leaves []uint32) []uint32 {
	half := NodeIndex(1)<<x.level() - 1
	lo, _ := slices.BinarySearch(leaves, (x - half).Leaf())
	hi, found := slices.BinarySearch(leaves, (x + half).Leaf())
	if found {
		hi++
	}
	return leaves[lo:hi]
}

// parentHash is the hash by which the node below p points at p; sibling is p's child on the other side
// (RFC 9420, section 7.9).
func (t *Tree) parentHash(p *ParentNode, sibling NodeIndex) []byte {
	w := Writer{make([]byte, 0, 128)}
	w.Opaque(p.EncryptionKey)
	w.Opaque(p.ParentHash)
	w.Opaque(t.hashWithout(sibling, p.UnmergedLeaves))
	return t.suite.Hash(w.b)
}

// setPath puts fresh keys on a leaf's filtered direct path, blanks the rest of it, and returns the parent hash that the new
// leaf must carry.
func (t *Tree) setPath(leaf uint32, filtered []PathStep, keys [][]byte) []byte {
	for _, step := range t.DirectPath(leaf) {
		t.nodes[step.Node] = node{}
	}
	t.stale(NodeOf(leaf))
	var hash []byte // of the node above; empty above the topmost
	for i := len(filtered) - 1; i >= 0; i-- {
		p := &ParentNode{EncryptionKey: keys[i], ParentHash: hash}
		t.nodes[filtered[i].Node].parent = p
		hash = t.parentHash(p, filtered[i].Copath)
	}
	return hash
}

// checkParentHashes verifies that every parent with keys was put there by a leaf below it, through an unbroken chain of
// parent hashes (RFC 9420, section 7.9.2).
func (t *Tree) checkParentHashes() error {
	for x := NodeIndex(1); int(x) < len(t.nodes); x += 2 {
		p := t.nodes[x].parent
		if p != nil && !t.linked(p, x.Left(), x.Right()) && !t.linked(p, x.Right(), x.Left()) {
			return invalid("parent hash of node %d", x)
		}
	}
	return nil
}

// linked tells whether some node under child carries the parent hash of p, nothing but blanks between, and p's unmerged
// leaves there are exactly the rest of child's resolution.
func (t *Tree) linked(p *ParentNode, child, sibling NodeIndex) bool {
	resolution := t.Resolution(child)
	unmerged := below(child, p.UnmergedLeaves)
	if len(resolution) != len(unmerged)+1 {
		return false
	}
	want := t.parentHash(p, sibling)
	for _, d := range resolution {
		if equal(t.nodes[d].parentHashField(), want) {
			return t.restIsUnmerged(resolution, d, unmerged)
		}
	}
	return false
}

// restIsUnmerged compares resolution without d to the unmerged leaves. Both may come in another order.
func (t *Tree) restIsUnmerged(resolution []NodeIndex, d NodeIndex, unmerged []uint32) bool {
	for _, x := range resolution {
		if x == d {
			continue
		}
		if !x.IsLeaf() {
			return false
		}
		if _, found := slices.BinarySearch(unmerged, x.Leaf()); !found {
			return false
		}
	}
	return true
}

func (n node) parentHashField() []byte {
	switch {
	case n.parent != nil:
		return n.parent.ParentHash
	case n.leaf != nil:
		return n.leaf.ParentHash
	}
	return nil
}
