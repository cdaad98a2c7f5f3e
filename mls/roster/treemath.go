package roster

import "math/bits"

// NodeIndex numbers the nodes of a ratchet tree from left to right, leaves at even places (RFC 9420, appendix C). Trees are
// full: the number of leaves is a power of two, blank ones included.
type NodeIndex uint32

// NodeOf is a leaf's node.
func NodeOf(leaf uint32) NodeIndex { return NodeIndex(2 * leaf) }

// IsLeaf tells leaves from parents.
func (x NodeIndex) IsLeaf() bool { return x&1 == 0 }

// Leaf is the leaf at x, which must be one.
func (x NodeIndex) Leaf() uint32 { return uint32(x / 2) }

// level is the height above the leaves.
func (x NodeIndex) level() int { return bits.TrailingZeros32(^uint32(x)) }

// Left is the left child; x must be a parent.
func (x NodeIndex) Left() NodeIndex { return x ^ 1<<(x.level()-1) }

// Right is the right child; x must be a parent.
func (x NodeIndex) Right() NodeIndex { return x ^ 3<<(x.level()-1) }

// Parent is the node above; x must not be the root.
func (x NodeIndex) Parent() NodeIndex {
	k := x.level()
	return (x | 1<<k) &^ (1 << (k + 1))
}

// Sibling is the parent's other child; x must not be the root.
func (x NodeIndex) Sibling() NodeIndex {
	p := x.Parent()
	if x < p {
		return p.Right()
	}
	return p.Left()
}

// Contains tells whether y is x or below it.
func (x NodeIndex) Contains(y NodeIndex) bool {
	half := NodeIndex(1)<<x.level() - 1
	return x-half <= y && y <= x+half
}

// Root is the root of a tree with so many leaves.
func Root(leaves uint32) NodeIndex { return NodeIndex(leaves - 1) }

// CommonAncestor is the lowest node above both.
func CommonAncestor(x, y NodeIndex) NodeIndex {
	for !x.Contains(y) {
		x = x.Parent()
	}
	return x
}
