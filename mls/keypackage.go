package mls

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"time"

	"letterlock/mls/roster"
)

// KeyPackage is a KeyPackage with its private keys. The public part goes to the server; the whole is kept, in the device's
// encrypted state, until it has served.
type KeyPackage struct {
	Public []byte // MLSMessage
	Ref    []byte // as a Welcome names it

	suite      suite
	leaf       []byte // signature of the leaf, by which Join finds it in the tree
	leafKey    keyPair
	initKey    keyPair
	lastResort bool
}

// KeyPackageOptions say for whom a KeyPackage is.
type KeyPackageOptions struct {
	Identity            []byte
	Signer              ed25519.PrivateKey
	SupportedExtensions []uint16 // beyond the default ones
	LeafExtensions      roster.Extensions
	Extensions          roster.Extensions // of the KeyPackage itself
	NotBefore, NotAfter time.Time
	LastResort          bool      // may serve more than once
	Rand                io.Reader // nil: crypto/rand
}

// NewKeyPackage makes a KeyPackage of suite 1.
func NewKeyPackage(o KeyPackageOptions) (*KeyPackage, error) {
	s, err := newSuite(&roster.Suites[0])
	if err != nil {
		return nil, err
	}
	k := &KeyPackage{suite: s, lastResort: o.LastResort}
	if k.leafKey, err = s.newKeyPair(o.Rand); err != nil {
		return nil, err
	}
	if k.initKey, err = s.newKeyPair(o.Rand); err != nil {
		return nil, err
	}
	leaf, err := s.newLeaf(k.leafKey.public, o.Identity, o.Signer, o.SupportedExtensions, o.LeafExtensions, o.NotBefore, o.NotAfter)
	if err != nil {
		return nil, err
	}
	public := &roster.KeyPackage{Suite: s.ID, InitKey: k.initKey.public, Leaf: leaf, Extensions: o.Extensions}
	if o.LastResort {
		public.Extensions = append(public.Extensions[:len(public.Extensions):len(public.Extensions)], roster.Extension{Type: roster.ExtLastResort})
	}
	if err := public.Sign(s.Suite, o.Signer); err != nil {
		return nil, err
	}
	k.leaf = leaf.Signature
	k.setPublic(public)
	_, err = roster.InspectKeyPackage(k.Public, o.NotBefore)
	return k, err
}

func (k *KeyPackage) setPublic(public *roster.KeyPackage) {
	k.Public = roster.Marshal(&roster.Message{WireFormat: roster.WireKeyPackage, KeyPackage: public})
	k.Ref = public.Ref(k.suite.Suite)
}

// newLeaf signs a leaf as it stands in a KeyPackage.
func (s suite) newLeaf(key, identity []byte, signer ed25519.PrivateKey, supported []uint16, extensions roster.Extensions, notBefore, notAfter time.Time) (*roster.LeafNode, error) {
	if len(signer) != ed25519.PrivateKeySize {
		return nil, invalid("signing key of %d bytes", len(signer))
	}
	if notBefore.Unix() < 0 || notAfter.Before(notBefore) {
		return nil, invalid("lifetime that ends before it begins")
	}
	leaf := &roster.LeafNode{
		EncryptionKey: key, SignatureKey: signer.Public().(ed25519.PublicKey),
		Credential: roster.BasicCredential(bytes.Clone(identity)),
		Capabilities: roster.Capabilities{
			Versions: []uint16{roster.Version}, Suites: []uint16{s.ID}, Extensions: supported,
			Credentials: []uint16{roster.CredentialBasic},
		},
		Source: roster.LeafKeyPackage, NotBefore: uint64(notBefore.Unix()), NotAfter: uint64(notAfter.Unix()),
		Extensions: extensions,
	}
	return leaf, leaf.Sign(s.Suite, signer, nil, 0)
}

// LastResort tells whether the package may serve more than once.
func (k *KeyPackage) LastResort() bool { return k.lastResort }

// Wipe forgets the private keys.
func (k *KeyPackage) Wipe() {
	k.initKey.private.wipe()
	k.leafKey.private.wipe()
	k.initKey.private, k.leafKey.private = nil, nil
}

// keyPackageVersion is the first byte of a stored KeyPackage.
const keyPackageVersion = 1

// MarshalBinary is the package with its private keys, for storage in encrypted state.
func (k *KeyPackage) MarshalBinary() ([]byte, error) {
	if k.initKey.private == nil {
		return nil, ErrKeyUsed
	}
	var w roster.Writer
	w.Uint8(keyPackageVersion)
	w.Opaque(k.Public)
	w.Opaque(k.initKey.private)
	w.Opaque(k.leafKey.private)
	return w.Bytes(), nil
}

// UnmarshalKeyPackage reads what MarshalBinary wrote.
func UnmarshalKeyPackage(b []byte) (*KeyPackage, error) {
	r := roster.NewReader(bytes.Clone(b))
	if v := r.Uint8(); r.Err() == nil && v != keyPackageVersion {
		return nil, unsupported("key package version %d", v)
	}
	public, initKey, leafKey := r.Opaque(), r.Opaque(), r.Opaque()
	if err := r.Done(); err != nil {
		return nil, err
	}
	m, err := roster.DecodeMessage(public)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != roster.WireKeyPackage {
		return nil, invalid("wire format %d is no key package", m.WireFormat)
	}
	return newKeyPackage(m.KeyPackage, initKey, leafKey)
}

// newKeyPackage joins a public KeyPackage with its private keys, which must fit.
func newKeyPackage(public *roster.KeyPackage, initKey, leafKey secret) (*KeyPackage, error) {
	s, err := suiteByID(public.Suite)
	if err != nil {
		return nil, err
	}
	if !s.fits(initKey, public.InitKey) || !s.fits(leafKey, public.Leaf.EncryptionKey) {
		return nil, invalid("private keys do not fit the key package")
	}
	k := &KeyPackage{suite: s, leaf: public.Leaf.Signature}
	k.initKey = keyPair{public.InitKey, initKey}
	k.leafKey = keyPair{public.Leaf.EncryptionKey, leafKey}
	_, k.lastResort = public.Extensions.Lookup(roster.ExtLastResort)
	k.setPublic(public)
	return k, nil
}

// fits tells whether a private key belongs to a public one.
func (s suite) fits(private secret, public []byte) bool {
	k, err := s.kem.NewPrivateKey(private)
	return err == nil && bytes.Equal(k.PublicKey().Bytes(), public)
}
