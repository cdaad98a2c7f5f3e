package roster

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// check judges a tree that somebody else made (RFC 9420, section 12.4.3.1). now may be zero: then no lifetimes.
func (t *Tree) check(groupID []byte, extensions Extensions, now time.Time) error {
	if err := t.checkUnmerged(); err != nil {
		return err
	}
	if err := t.checkParentHashes(); err != nil {
		return err
	}
	if err := t.checkMembers(extensions); err != nil {
		return err
	}
	return t.checkLeaves(groupID, now)
}

// checkUnmerged: unmerged leaves rise, exist, lie below their node, and stand at every node with keys in between.
func (t *Tree) checkUnmerged() error {
	for x := NodeIndex(1); int(x) < len(t.nodes); x += 2 {
		p := t.nodes[x].parent
		if p == nil {
			continue
		}
		if err := checkPublicKey(t.suite, p.EncryptionKey); err != nil {
			return err
		}
		for i, leaf := range p.UnmergedLeaves {
			if i > 0 && p.UnmergedLeaves[i-1] >= leaf {
				return invalid("unmerged leaves of node %d out of order", x)
			}
			if t.Leaf(leaf) == nil || !x.Contains(NodeOf(leaf)) {
				return invalid("unmerged leaf %d of node %d is not below it", leaf, x)
			}
			for y := NodeOf(leaf).Parent(); y != x; y = y.Parent() {
				if q := t.nodes[y].parent; q != nil && len(below(NodeOf(leaf), q.UnmergedLeaves)) == 0 {
					return invalid("leaf %d is unmerged at node %d but not at node %d", leaf, x, y)
				}
			}
		}
	}
	return nil
}

// checkMembers judges the members together: no identity, signature key or encryption key twice, and everybody supports
// what the group uses and requires (RFC 9420, sections 7.3 and 11.1). It runs on every tree that becomes an epoch's.
func (t *Tree) checkMembers(extensions Extensions) error {
	var required RequiredCapabilities
	if data, ok := extensions.Lookup(ExtRequiredCapabilities); ok {
		var err error
		if required, err = decodeRequiredCapabilities(data); err != nil {
			return err
		}
	}
	identities := make(map[string]bool, t.Width())
	signatureKeys := make(map[string]bool, t.Width())
	encryptionKeys := make(map[string]bool, 2*t.Width())
	for x, n := range t.nodes {
		if n.blank() {
			continue
		}
		if !insert(encryptionKeys, t.EncryptionKey(NodeIndex(x))) {
			return invalid("encryption key of node %d stands twice", x)
		}
		if n.leaf == nil {
			continue
		}
		if !insert(signatureKeys, n.leaf.SignatureKey) {
			return invalid("signature key of leaf %d stands twice", x/2)
		}
		if !insert(identities, n.leaf.Credential.Identity) {
			return invalid("identity of leaf %d stands twice", x/2)
		}
		if err := n.leaf.Capabilities.supports(t.suite.ID, extensions, required); err != nil {
			return err
		}
	}
	return nil
}

// insert tells whether key was new.
func insert(set map[string]bool, key []byte) bool {
	before := len(set)
	set[string(key)] = true
	return len(set) > before
}

// checkLeaves judges each leaf by itself and verifies its signature, on all cores: it is most of the cost of joining.
func (t *Tree) checkLeaves(groupID []byte, now time.Time) error {
	var (
		next  atomic.Int64
		first sync.Map // worker: error
		wait  sync.WaitGroup
	)
	workers := runtime.GOMAXPROCS(0)
	for i := range workers {
		wait.Go(func() {
			for {
				leaf := uint32(next.Add(1) - 1)
				if leaf >= t.Width() {
					return
				}
				if err := t.checkLeaf(leaf, groupID, now); err != nil {
					first.Store(i, err)
					return
				}
			}
		})
	}
	wait.Wait()
	for i := range workers {
		if err, ok := first.Load(i); ok {
			return err.(error)
		}
	}
	return nil
}

func (t *Tree) checkLeaf(leaf uint32, groupID []byte, now time.Time) error {
	l := t.Leaf(leaf)
	if l == nil {
		return nil
	}
	if err := l.check(t.suite, now); err != nil {
		return err
	}
	return l.verify(t.suite, groupID, leaf)
}
