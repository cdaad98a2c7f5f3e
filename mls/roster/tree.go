package roster

import (
	"slices"
)

// Tree is the public ratchet tree (RFC 9420, section 7). A Tree that others can see is not changed: changes are made to a
// clone, which shares the nodes, since these are never written to either.
type Tree struct {
	suite  *Suite
	nodes  []node   // by NodeIndex; 2*leaves - 1
	hashes [][]byte // tree hashes by NodeIndex; nil: to be computed
}

// node is a leaf, a parent, or blank.
type node struct {
	leaf   *LeafNode
	parent *ParentNode
}

func (n node) blank() bool { return n.leaf == nil && n.parent == nil }

// ParentNode is an inner node with keys (RFC 9420, section 7.1).
type ParentNode struct {
	EncryptionKey  []byte
	ParentHash     []byte
	UnmergedLeaves []uint32 // rising
}

func (p *ParentNode) Encode(w *Writer) { p.encodeWith(w, p.UnmergedLeaves) }

func (p *ParentNode) encodeWith(w *Writer, unmerged []uint32) {
	w.Opaque(p.EncryptionKey)
	w.Opaque(p.ParentHash)
	w.b = appendLength(w.b, 4*len(unmerged))
	for _, leaf := range unmerged {
		w.Uint32(leaf)
	}
}

func decodeParentNode(r *Reader) *ParentNode {
	p := &ParentNode{EncryptionKey: r.Opaque(), ParentHash: r.Opaque()}
	r.Vector(func(r *Reader) { p.UnmergedLeaves = append(p.UnmergedLeaves, r.Uint32()) })
	return p
}

// NewTree is a tree of one leaf.
func NewTree(s *Suite, leaf *LeafNode) *Tree {
	return &Tree{s, []node{{leaf: leaf}}, make([][]byte, 1)}
}

func newBlankTree(s *Suite, leaves uint32) *Tree {
	width := 2*leaves - 1
	return &Tree{s, make([]node, width), make([][]byte, width)}
}

// DecodeTree reads the content of a ratchet_tree extension (RFC 9420, section 12.4.3.3): the nodes up to the last one that
// is not blank. The width is bounded before the tree is laid out.
func DecodeTree(s *Suite, r *Reader) *Tree {
	var nodes []node
	r.Vector(func(r *Reader) {
		if len(nodes) >= 2*MaxLeaves-1 {
			r.Fail(malformed("tree of more than %d leaves", MaxLeaves))
			return
		}
		nodes = append(nodes, decodeNode(r, NodeIndex(len(nodes))))
	})
	if r.Err() == nil && (len(nodes) == 0 || nodes[len(nodes)-1].blank()) {
		r.Fail(malformed("tree that ends in a blank node"))
	}
	if r.Err() != nil {
		return nil
	}
	leaves := uint32(1)
	for int(2*leaves-1) < len(nodes) {
		leaves *= 2
	}
	t := newBlankTree(s, leaves)
	copy(t.nodes, nodes)
	return t
}

func decodeNode(r *Reader, x NodeIndex) (n node) {
	if !r.Optional() {
		return n
	}
	switch typ := r.Uint8(); {
	case typ == 1 && x.IsLeaf():
		n.leaf = DecodeLeafNode(r)
	case typ == 2 && !x.IsLeaf():
		n.parent = decodeParentNode(r)
	default:
		r.Fail(malformed("node of type %d at place %d", typ, x))
	}
	return n
}

// Encode writes the content of a ratchet_tree extension.
func (t *Tree) Encode(w *Writer) {
	last := len(t.nodes) - 1
	for last > 0 && t.nodes[last].blank() {
		last--
	}
	w.Vector(func(w *Writer) {
		for _, n := range t.nodes[:last+1] {
			w.Optional(!n.blank())
			switch {
			case n.leaf != nil:
				w.Uint8(1)
				n.leaf.Encode(w)
			case n.parent != nil:
				w.Uint8(2)
				n.parent.Encode(w)
			}
		}
	})
}

// Extension wraps the tree for a GroupInfo.
func (t *Tree) Extension() Extension { return Extension{ExtRatchetTree, Marshal(t)} }

func (t *Tree) clone() *Tree {
	return &Tree{t.suite, slices.Clone(t.nodes), slices.Clone(t.hashes)}
}

// Width is the number of leaves, blank ones included: a power of two.
func (t *Tree) Width() uint32 { return uint32(len(t.nodes)+1) / 2 }

// Root is the root node.
func (t *Tree) Root() NodeIndex { return Root(t.Width()) }

// Leaf is the leaf of that number, nil if it is blank or outside the tree.
func (t *Tree) Leaf(leaf uint32) *LeafNode {
	if leaf >= t.Width() {
		return nil
	}
	return t.nodes[NodeOf(leaf)].leaf
}

// EncryptionKey is a node's public key, nil if it is blank.
func (t *Tree) EncryptionKey(x NodeIndex) []byte {
	switch n := t.nodes[x]; {
	case n.leaf != nil:
		return n.leaf.EncryptionKey
	case n.parent != nil:
		return n.parent.EncryptionKey
	}
	return nil
}

// Resolution is the list of nodes that together cover the leaves below x (RFC 9420, section 4.1.1).
func (t *Tree) Resolution(x NodeIndex) []NodeIndex { return t.appendResolution(nil, x) }

func (t *Tree) appendResolution(list []NodeIndex, x NodeIndex) []NodeIndex {
	n := t.nodes[x]
	if !n.blank() {
		list = append(list, x)
		if n.parent != nil {
			for _, leaf := range n.parent.UnmergedLeaves {
				list = append(list, NodeOf(leaf))
			}
		}
		return list
	}
	if x.IsLeaf() {
		return list
	}
	return t.appendResolution(t.appendResolution(list, x.Left()), x.Right())
}

// unpopulated tells whether the resolution of x is empty.
func (t *Tree) unpopulated(x NodeIndex) bool {
	if !t.nodes[x].blank() {
		return false
	}
	return x.IsLeaf() || t.unpopulated(x.Left()) && t.unpopulated(x.Right())
}

// PathStep is one node above a leaf, with the child that does not lead to the leaf.
type PathStep struct{ Node, Copath NodeIndex }

// DirectPath is the nodes above a leaf, up to the root.
func (t *Tree) DirectPath(leaf uint32) []PathStep {
	var path []PathStep
	for x, root := NodeOf(leaf), t.Root(); x != root; x = x.Parent() {
		path = append(path, PathStep{x.Parent(), x.Sibling()})
	}
	return path
}

// FilteredDirectPath leaves out the nodes whose copath child has nobody below it (RFC 9420, section 4.1.2).
func (t *Tree) FilteredDirectPath(leaf uint32) []PathStep {
	return slices.DeleteFunc(t.DirectPath(leaf), func(s PathStep) bool { return t.unpopulated(s.Copath) })
}

// set puts a node in its place; the hashes above it are computed again when asked for.
func (t *Tree) set(x NodeIndex, n node) {
	t.nodes[x] = n
	t.stale(x)
}

func (t *Tree) stale(x NodeIndex) {
	for root := t.Root(); ; x = x.Parent() {
		t.hashes[x] = nil
		if x == root {
			return
		}
	}
}

// add puts a leaf at the leftmost blank place, not looking left of from, and extends the tree if there is none
// (RFC 9420, section 7.7). It returns the place.
func (t *Tree) add(leaf *LeafNode, from uint32) (uint32, error) {
	at := from
	for at < t.Width() && t.nodes[NodeOf(at)].leaf != nil {
		at++
	}
	if at == t.Width() {
		if at >= MaxLeaves {
			return 0, invalid("group of more than %d leaves", MaxLeaves)
		}
		t.extend()
	}
	t.set(NodeOf(at), node{leaf: leaf})
	for _, step := range t.DirectPath(at) {
		t.addUnmerged(step.Node, at)
	}
	return at, nil
}

// addUnmerged notes at a parent that a leaf below does not know its secret.
func (t *Tree) addUnmerged(x NodeIndex, leaf uint32) {
	p := t.nodes[x].parent
	if p == nil {
		return
	}
	i, _ := slices.BinarySearch(p.UnmergedLeaves, leaf)
	with := slices.Insert(slices.Clone(p.UnmergedLeaves), i, leaf)
	t.nodes[x].parent = &ParentNode{p.EncryptionKey, p.ParentHash, with}
}

// extend doubles the width. Places of nodes stay.
func (t *Tree) extend() {
	wide := newBlankTree(t.suite, 2*t.Width())
	copy(wide.nodes, t.nodes)
	copy(wide.hashes, t.hashes)
	*t = *wide
}

// update replaces a leaf and blanks the path above it.
func (t *Tree) update(leaf uint32, l *LeafNode) {
	t.set(NodeOf(leaf), node{leaf: l})
	for _, step := range t.DirectPath(leaf) {
		t.nodes[step.Node] = node{}
	}
}

// remove blanks a leaf and the path above it, then halves the tree while its right half is empty (RFC 9420, section 7.8).
func (t *Tree) remove(leaf uint32) {
	t.update(leaf, nil)
	for t.Width() > 1 && t.noLeaves(t.Root().Right()) {
		half := t.Width() - 1
		t.nodes, t.hashes = slices.Clip(t.nodes[:half]), slices.Clip(t.hashes[:half])
	}
}

func (t *Tree) noLeaves(x NodeIndex) bool {
	half := NodeIndex(1)<<x.level() - 1
	for leaf := x - half; leaf <= x+half; leaf += 2 {
		if t.nodes[leaf].leaf != nil {
			return false
		}
	}
	return true
}

// freshUnmerged is the leaves of added that stand in a list of nodes; TreeKEM does not encrypt to them
// (RFC 9420, section 7.5).
func withoutLeaves(nodes []NodeIndex, added []uint32) []NodeIndex {
	if len(added) == 0 {
		return nodes
	}
	return slices.DeleteFunc(nodes, func(x NodeIndex) bool {
		if !x.IsLeaf() {
			return false
		}
		_, found := slices.BinarySearch(added, x.Leaf())
		return found
	})
}

// Recipients is whom a path secret of the node above copath is encrypted to: the resolution, without the leaves that the
// same commit adds (rising), since the Welcome tells them (RFC 9420, section 7.5).
func (t *Tree) Recipients(copath NodeIndex, added []uint32) []NodeIndex {
	return withoutLeaves(t.Resolution(copath), added)
}
