package mls

import (
	"bytes"
	"crypto/ed25519"
	"maps"
	"slices"

	"letterlock/mls/roster"
)

// snapshotVersion is the first byte of a stored group; spec/mls.md gives the layout.
const snapshotVersion = 1

// maxSnapshot bounds a stored group, in bytes.
const maxSnapshot = 64 << 20

// MarshalBinary is the whole state of the epoch, used keys already gone, for storage in encrypted state. The signing key is
// not part of it.
func (g *Group) MarshalBinary() ([]byte, error) {
	if err := g.alive(); err != nil {
		return nil, err
	}
	public, err := g.public.MarshalBinary()
	if err != nil {
		return nil, err
	}
	var w roster.Writer
	w.Uint8(snapshotVersion)
	w.Opaque(public)
	w.Uint32(g.own)
	w.Optional(g.mustCommit)
	for _, s := range g.epoch.all() {
		w.Opaque(*s)
	}
	g.epoch.keys.encode(&w)
	g.epoch.tree.encode(&w)
	return w.Bytes(), nil
}

// UnmarshalGroup reads what MarshalBinary wrote. signer must be the key of our leaf. If the copy may be old, go on with
// Restored.
func UnmarshalGroup(b []byte, signer ed25519.PrivateKey) (*Group, error) {
	if len(b) > maxSnapshot {
		return nil, refuse(roster.ErrMalformed, "snapshot of %d bytes", []any{len(b)})
	}
	r := roster.NewReader(bytes.Clone(b))
	if v := r.Uint8(); r.Err() == nil && v != snapshotVersion {
		return nil, unsupported("snapshot version %d", v)
	}
	publicBytes := r.Opaque()
	if r.Err() != nil {
		return nil, r.Err()
	}
	public, err := roster.UnmarshalGroup(publicBytes)
	if err != nil {
		return nil, err
	}
	s, err := newSuite(public.Suite())
	if err != nil {
		return nil, err
	}
	g := &Group{suite: s, public: public, own: r.Uint32(), signer: signer, mustCommit: r.Optional(), epoch: &epoch{}}
	for _, p := range g.epoch.all() {
		*p = s.decodeSecret(r)
	}
	g.epoch.keys = decodeKeyring(r)
	g.epoch.tree = decodeSecretTree(r, s, public.Tree().Width())
	if err := r.Done(); err != nil {
		return nil, err
	}
	if err := g.checkOwn(); err != nil {
		return nil, err
	}
	return g, nil
}

// checkOwn: the signing key and the private keys belong to our leaf.
func (g *Group) checkOwn() error {
	leaf := g.public.Tree().Leaf(g.own)
	if leaf == nil || !signsFor(g.signer, leaf) {
		return invalid("signing key of another leaf")
	}
	if g.epoch.keys[string(leaf.EncryptionKey)] == nil {
		return invalid("snapshot without the key of our leaf")
	}
	return nil
}

// signsFor tells whether a signing key is a leaf's.
func signsFor(signer ed25519.PrivateKey, leaf *roster.LeafNode) bool {
	return len(signer) == ed25519.PrivateKeySize && bytes.Equal(signer.Public().(ed25519.PublicKey), leaf.SignatureKey)
}

// decodeSecret reads a secret of the hash's size.
func (s suite) decodeSecret(r *roster.Reader) secret {
	b := r.Opaque()
	if r.Err() == nil && len(b) != s.HashSize {
		r.Fail(refuse(roster.ErrMalformed, "secret of %d bytes", []any{len(b)}))
	}
	return bytes.Clone(b)
}

func (k keyring) encode(w *roster.Writer) {
	w.Vector(func(w *roster.Writer) {
		for _, public := range slices.Sorted(maps.Keys(k)) {
			w.Opaque([]byte(public))
			w.Opaque(k[public])
		}
	})
}

func decodeKeyring(r *roster.Reader) keyring {
	k := keyring{}
	r.Vector(func(r *roster.Reader) {
		public := r.Opaque()
		k[string(public)] = bytes.Clone(r.Opaque())
	})
	return k
}

func (t *secretTree) encode(w *roster.Writer) {
	w.Vector(func(w *roster.Writer) {
		for _, x := range slices.Sorted(maps.Keys(t.nodes)) {
			w.Uint32(uint32(x))
			w.Opaque(t.nodes[x])
		}
	})
	w.Vector(func(w *roster.Writer) {
		for _, leaf := range slices.Sorted(maps.Keys(t.ratchet)) {
			w.Uint32(leaf)
			t.ratchet[leaf].handshake.encode(w)
			t.ratchet[leaf].application.encode(w)
		}
	})
}

// decodeSecretTree reads a tree in which every leaf has either ratchets or exactly one secret above it.
func decodeSecretTree(r *roster.Reader, s suite, width uint32) *secretTree {
	t := &secretTree{suite: s, width: width, nodes: map[roster.NodeIndex]secret{}, ratchet: map[uint32]*ratchets{}}
	r.Vector(func(r *roster.Reader) {
		x := roster.NodeIndex(r.Uint32())
		t.nodes[x] = s.decodeSecret(r)
	})
	r.Vector(func(r *roster.Reader) {
		leaf := r.Uint32()
		t.ratchet[leaf] = &ratchets{s.decodeRatchet(r), s.decodeRatchet(r)}
	})
	if r.Err() == nil && !t.covers() {
		r.Fail(refuse(roster.ErrMalformed, "secret tree with gaps", nil))
	}
	return t
}

// covers tells whether each leaf is provided for exactly once, so that no walk leaves the tree.
func (t *secretTree) covers() bool {
	for x := range t.nodes {
		if x > 2*roster.NodeIndex(t.width-1) {
			return false
		}
	}
	for leaf := range t.ratchet {
		if leaf >= t.width {
			return false
		}
	}
	for leaf := range t.width {
		x, root, found := roster.NodeOf(leaf), roster.Root(t.width), 0
		if t.ratchet[leaf] != nil {
			found++
		}
		for {
			if t.nodes[x] != nil {
				found++
			}
			if x == root {
				break
			}
			x = x.Parent()
		}
		if found != 1 {
			return false
		}
	}
	return true
}

func (r *ratchet) encode(w *roster.Writer) {
	w.Opaque(r.secret)
	w.Uint32(r.next)
	w.Vector(func(w *roster.Writer) {
		for _, k := range r.skipped {
			w.Uint32(k.generation)
			w.Opaque(k.key)
			w.Opaque(k.nonce)
		}
	})
}

func (s suite) decodeRatchet(r *roster.Reader) ratchet {
	c := ratchet{secret: s.decodeSecret(r), next: r.Uint32()}
	r.Vector(func(r *roster.Reader) {
		k := messageKey{r.Uint32(), bytes.Clone(r.Opaque()), bytes.Clone(r.Opaque())}
		last := len(c.skipped) - 1
		ok := len(k.key) == s.KeySize && len(k.nonce) == s.NonceSize && k.generation < c.next &&
			len(c.skipped) < maxSkipped && (last < 0 || c.skipped[last].generation < k.generation)
		if r.Err() == nil && !ok {
			r.Fail(refuse(roster.ErrMalformed, "skipped message key", nil))
		}
		c.skipped = append(c.skipped, k)
	})
	return c
}
