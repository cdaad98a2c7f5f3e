package mls

import (
	"encoding/binary"
	"math"
	"slices"

	"letterlock/mls/roster"
)

// Bounds on what one sender can cost us within an epoch.
const (
	maxForward = 1000 // generations that one message may jump ahead
	maxSkipped = 1000 // message keys kept for each sender and kind; beyond it the oldest are given up
)

// secretTree derives each member's ratchets from the encryption secret (RFC 9420, section 9). Secrets of inner nodes are
// split when a leaf below is first needed, and forgotten.
type secretTree struct {
	suite   suite
	width   uint32
	nodes   map[roster.NodeIndex]secret // not yet split
	ratchet map[uint32]*ratchets        // by leaf
}

// ratchets is one sender's two chains.
type ratchets struct{ handshake, application ratchet }

func newSecretTree(s suite, encryption secret, width uint32) *secretTree {
	return &secretTree{
		suite: s, width: width, nodes: map[roster.NodeIndex]secret{roster.Root(width): encryption.clone()},
		ratchet: map[uint32]*ratchets{},
	}
}

// of is a leaf's ratchets; the leaf must lie in the tree.
func (t *secretTree) of(leaf uint32) *ratchets {
	if r := t.ratchet[leaf]; r != nil {
		return r
	}
	at := t.split(roster.NodeOf(leaf))
	r := &ratchets{
		handshake:   ratchet{secret: t.suite.derive(at, "handshake")},
		application: ratchet{secret: t.suite.derive(at, "application")},
	}
	at.wipe()
	t.ratchet[leaf] = r
	return r
}

// split walks up to the nearest secret and down again, and takes the leaf's secret out of the tree.
func (t *secretTree) split(leaf roster.NodeIndex) secret {
	x := leaf
	for t.nodes[x] == nil {
		x = x.Parent()
	}
	for x != leaf {
		from := t.nodes[x]
		t.nodes[x.Left()] = t.suite.expand(from, "tree", []byte("left"), t.suite.HashSize)
		t.nodes[x.Right()] = t.suite.expand(from, "tree", []byte("right"), t.suite.HashSize)
		from.wipe()
		delete(t.nodes, x)
		if x = x.Left(); !x.Contains(leaf) {
			x = x.Parent().Right()
		}
	}
	taken := t.nodes[leaf]
	delete(t.nodes, leaf)
	return taken
}

func (t *secretTree) wipe() {
	for _, s := range t.nodes {
		s.wipe()
	}
	for _, r := range t.ratchet {
		r.handshake.wipe()
		r.application.wipe()
	}
	clear(t.nodes)
	clear(t.ratchet)
}

// ratchet is one chain of message keys. It never goes back.
type ratchet struct {
	secret  secret
	next    uint32       // generation that secret stands at
	skipped []messageKey // rising; passed over, not yet used
}

// messageKey is for one message.
type messageKey struct {
	generation uint32
	key, nonce secret
}

func (k messageKey) wipe() {
	k.key.wipe()
	k.nonce.wipe()
}

// step derives the key of the current generation and the secret of the next (RFC 9420, section 9.1).
func (s suite) step(from secret, generation uint32) (k messageKey, next secret) {
	var g [4]byte
	binary.BigEndian.PutUint32(g[:], generation)
	k = messageKey{generation, s.expand(from, "key", g[:], s.KeySize), s.expand(from, "nonce", g[:], s.NonceSize)}
	return k, s.expand(from, "secret", g[:], s.HashSize)
}

// take is the next key for sending; the ratchet moves at once, since a key that was taken must not be taken again.
func (r *ratchet) take(s suite) (messageKey, error) {
	if r.next == math.MaxUint32 {
		return messageKey{}, invalid("generations of the epoch are used up")
	}
	k, next := s.step(r.secret, r.next)
	r.secret.wipe()
	r.secret, r.next = next, r.next+1
	return k, nil
}

// at finds the key of a received generation without moving. advance moves the ratchet and is called once the message is
// authenticated; until then an attacker has changed nothing.
func (r *ratchet) at(s suite, generation uint32) (k messageKey, advance func(), err error) {
	if generation < r.next {
		return r.skippedAt(generation)
	}
	if generation-r.next > maxForward {
		return k, nil, ErrTooFar
	}
	if generation == math.MaxUint32 {
		return k, nil, ErrTooFar
	}
	chain := r.secret.clone()
	var passed []messageKey
	for g := r.next; ; g++ {
		key, next := s.step(chain, g)
		chain.wipe()
		chain = next
		if g == generation {
			k = key
			break
		}
		passed = append(passed, key)
	}
	return k, func() {
		r.secret.wipe()
		r.secret, r.next = chain, generation+1
		r.skipped = append(r.skipped, passed...)
		r.dropOldest()
		k.wipe()
	}, nil
}

func (r *ratchet) skippedAt(generation uint32) (k messageKey, advance func(), err error) {
	i, found := slices.BinarySearchFunc(r.skipped, generation, func(k messageKey, g uint32) int {
		return int(int64(k.generation) - int64(g))
	})
	if !found {
		return k, nil, ErrReplayed
	}
	return r.skipped[i], func() {
		r.skipped[i].wipe()
		r.skipped = slices.Delete(r.skipped, i, i+1)
	}, nil
}

// dropOldest keeps the bound on skipped keys.
func (r *ratchet) dropOldest() {
	over := len(r.skipped) - maxSkipped
	if over <= 0 {
		return
	}
	for _, k := range r.skipped[:over] {
		k.wipe()
	}
	r.skipped = slices.Delete(r.skipped, 0, over)
}

func (r *ratchet) wipe() {
	r.secret.wipe()
	for _, k := range r.skipped {
		k.wipe()
	}
}
