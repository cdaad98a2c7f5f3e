package roster

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"time"
)

// Credential types (RFC 9420, section 17.5).
const (
	CredentialBasic uint16 = 1
	credentialX509  uint16 = 2
)

// Credential says who a member is. Only the basic one is admitted to groups; X.509 is decoded so that foreign messages can
// be told apart from broken ones.
type Credential struct {
	Type         uint16
	Identity     []byte   // basic
	certificates [][]byte // X.509
}

// BasicCredential names identity.
func BasicCredential(identity []byte) Credential {
	return Credential{Type: CredentialBasic, Identity: identity}
}

func (c *Credential) Encode(w *Writer) {
	w.Uint16(c.Type)
	if c.Type == CredentialBasic {
		w.Opaque(c.Identity)
		return
	}
	w.Vector(func(w *Writer) {
		for _, cert := range c.certificates {
			w.Opaque(cert)
		}
	})
}

func DecodeCredential(r *Reader) Credential {
	c := Credential{Type: r.Uint16()}
	switch c.Type {
	case CredentialBasic:
		c.Identity = r.Opaque()
	case credentialX509:
		r.Vector(func(r *Reader) { c.certificates = append(c.certificates, r.Opaque()) })
	default:
		r.Fail(unsupported("credential type %#04x", c.Type))
	}
	return c
}

// Capabilities is what a client supports (RFC 9420, section 7.2). Unknown and GREASE values are kept and ignored.
type Capabilities struct {
	Versions, Suites, Extensions, Proposals, Credentials []uint16
}

func (c *Capabilities) Encode(w *Writer) {
	w.Uint16s(c.Versions)
	w.Uint16s(c.Suites)
	w.Uint16s(c.Extensions)
	w.Uint16s(c.Proposals)
	w.Uint16s(c.Credentials)
}

func decodeCapabilities(r *Reader) Capabilities {
	return Capabilities{r.Uint16s(), r.Uint16s(), r.Uint16s(), r.Uint16s(), r.Uint16s()}
}

// LeafSource says what a leaf was made for (RFC 9420, section 7.2).
type LeafSource uint8

const (
	LeafKeyPackage LeafSource = 1
	LeafUpdate     LeafSource = 2
	LeafCommit     LeafSource = 3
)

// LeafNode is one member's public state. It is not changed after it was decoded or signed.
type LeafNode struct {
	EncryptionKey []byte
	SignatureKey  []byte
	Credential    Credential
	Capabilities  Capabilities
	Source        LeafSource
	NotBefore     uint64 // LeafKeyPackage: seconds since 1970
	NotAfter      uint64 // LeafKeyPackage: seconds since 1970
	ParentHash    []byte // LeafCommit
	Extensions    Extensions
	Signature     []byte
}

func (l *LeafNode) encodeUnsigned(w *Writer) {
	w.Opaque(l.EncryptionKey)
	w.Opaque(l.SignatureKey)
	l.Credential.Encode(w)
	l.Capabilities.Encode(w)
	w.Uint8(uint8(l.Source))
	switch l.Source {
	case LeafKeyPackage:
		w.Uint64(l.NotBefore)
		w.Uint64(l.NotAfter)
	case LeafCommit:
		w.Opaque(l.ParentHash)
	}
	l.Extensions.Encode(w)
}

func (l *LeafNode) Encode(w *Writer) {
	l.encodeUnsigned(w)
	w.Opaque(l.Signature)
}

func DecodeLeafNode(r *Reader) *LeafNode {
	l := &LeafNode{
		EncryptionKey: r.Opaque(), SignatureKey: r.Opaque(), Credential: DecodeCredential(r),
		Capabilities: decodeCapabilities(r), Source: LeafSource(r.Uint8()),
	}
	switch l.Source {
	case LeafKeyPackage:
		l.NotBefore, l.NotAfter = r.Uint64(), r.Uint64()
	case LeafUpdate:
	case LeafCommit:
		l.ParentHash = r.Opaque()
	default:
		r.Fail(malformed("leaf source %d", l.Source))
	}
	l.Extensions = DecodeExtensions(r)
	l.Signature = r.Opaque()
	return l
}

// tbs is LeafNodeTBS (RFC 9420, section 7.2): a leaf made for a group is bound to its place there.
func (l *LeafNode) tbs(groupID []byte, leaf uint32) []byte {
	w := Writer{make([]byte, 0, 256)}
	l.encodeUnsigned(&w)
	if l.Source != LeafKeyPackage {
		w.Opaque(groupID)
		w.Uint32(leaf)
	}
	return w.b
}

// Sign signs the leaf for its place in a group; both are ignored for a KeyPackage's leaf.
func (l *LeafNode) Sign(s *Suite, key ed25519.PrivateKey, groupID []byte, leaf uint32) (err error) {
	l.Signature, err = s.SignWithLabel(key, "LeafNodeTBS", l.tbs(groupID, leaf))
	return err
}

func (l *LeafNode) verify(s *Suite, groupID []byte, leaf uint32) error {
	return s.VerifyWithLabel(l.SignatureKey, "LeafNodeTBS", l.tbs(groupID, leaf), l.Signature)
}

// check judges a leaf by itself (RFC 9420, section 7.3): what does not depend on the group around it.
func (l *LeafNode) check(s *Suite, now time.Time) error {
	if l.Credential.Type != CredentialBasic {
		return unsupported("credential type %#04x", l.Credential.Type)
	}
	if !slices.Contains(l.Capabilities.Credentials, l.Credential.Type) {
		return invalid("leaf does not support its own credential")
	}
	if err := checkPublicKey(s, l.EncryptionKey); err != nil {
		return err
	}
	if err := l.Extensions.checkDistinct(); err != nil {
		return err
	}
	for _, x := range l.Extensions {
		if !defaultExtension(x.Type) && !slices.Contains(l.Capabilities.Extensions, x.Type) {
			return invalid("leaf carries extension %#04x without supporting it", x.Type)
		}
	}
	return l.checkLifetime(now)
}

// checkLifetime judges the lifetime of a KeyPackage's leaf, if a clock is given. What a group has ordered is judged without
// one, so that early and late readers agree.
func (l *LeafNode) checkLifetime(now time.Time) error {
	if l.Source != LeafKeyPackage || now.IsZero() {
		return nil
	}
	t := uint64(max(now.Unix(), 0))
	if t < l.NotBefore || t > l.NotAfter {
		return invalid("key package outside its lifetime")
	}
	if l.NotAfter-l.NotBefore > uint64(MaxLifetime/time.Second) {
		return invalid("key package with a lifetime above %v", MaxLifetime)
	}
	return nil
}

// checkPublicKey refuses HPKE keys that nobody could encrypt to: a wrong length, or an X25519 point of small order, for
// which HPKE fails (RFC 9180, section 7.1.4) and with it every commit that must reach the member.
func checkPublicKey(s *Suite, key []byte) error {
	if len(key) != s.PublicKeySize {
		return invalid("encryption key of %d bytes", len(key))
	}
	if s.KEM == 0x0020 && smallOrder(key) {
		return invalid("encryption key of small order")
	}
	return nil
}

// smallOrder knows the u-coordinates of small order on Curve25519 and its twist (RFC 7748, section 6.1), the top bit
// ignored as X25519 does. Keys are public, so time does not matter.
func smallOrder(u []byte) bool {
	k := [32]byte(u)
	k[31] &= 0x7f
	for i := range smallOrderPoints {
		if bytes.Equal(k[:], smallOrderPoints[i][:]) {
			return true
		}
	}
	return false
}

var smallOrderPoints = func() [][32]byte {
	edge := func(first byte) (p [32]byte) { // 2^255 - 19 + (first - 0xed)
		for i := range p {
			p[i] = 0xff
		}
		p[0], p[31] = first, 0x7f
		return p
	}
	return [][32]byte{
		{}, {1},
		{0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
		{0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44, 0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57},
		edge(0xec), edge(0xed), edge(0xee),
	}
}()

// KeyPackage lets others add a client while it is away (RFC 9420, section 10).
type KeyPackage struct {
	Suite      uint16
	InitKey    []byte
	Leaf       *LeafNode
	Extensions Extensions
	Signature  []byte
}

func (k *KeyPackage) encodeUnsigned(w *Writer) {
	w.Uint16(Version)
	w.Uint16(k.Suite)
	w.Opaque(k.InitKey)
	k.Leaf.Encode(w)
	k.Extensions.Encode(w)
}

func (k *KeyPackage) Encode(w *Writer) {
	k.encodeUnsigned(w)
	w.Opaque(k.Signature)
}

func DecodeKeyPackage(r *Reader) *KeyPackage {
	decodeVersion(r)
	return &KeyPackage{
		Suite: r.Uint16(), InitKey: r.Opaque(), Leaf: DecodeLeafNode(r), Extensions: DecodeExtensions(r), Signature: r.Opaque(),
	}
}

func (k *KeyPackage) tbs() []byte {
	var w Writer
	k.encodeUnsigned(&w)
	return w.b
}

// Sign signs the package; its leaf must be signed already.
func (k *KeyPackage) Sign(s *Suite, key ed25519.PrivateKey) (err error) {
	k.Signature, err = s.SignWithLabel(key, "KeyPackageTBS", k.tbs())
	return err
}

// Ref is the package's name in a Welcome (RFC 9420, section 5.2).
func (k *KeyPackage) Ref(s *Suite) []byte {
	return s.RefHash("MLS 1.0 KeyPackage Reference", Marshal(k))
}

// check judges a KeyPackage by itself (RFC 9420, section 10.1).
func (k *KeyPackage) check(s *Suite, now time.Time) error {
	if k.Suite != s.ID {
		return invalid("key package for suite %#04x", k.Suite)
	}
	if k.Leaf.Source != LeafKeyPackage {
		return invalid("key package with a leaf of source %d", k.Leaf.Source)
	}
	if err := checkPublicKey(s, k.InitKey); err != nil {
		return err
	}
	if bytes.Equal(k.InitKey, k.Leaf.EncryptionKey) {
		return invalid("key package with one key for two purposes")
	}
	if err := k.Extensions.checkDistinct(); err != nil {
		return err
	}
	if err := k.Leaf.check(s, now); err != nil {
		return err
	}
	if err := k.Leaf.verify(s, nil, 0); err != nil {
		return err
	}
	return s.VerifyWithLabel(k.Leaf.SignatureKey, "KeyPackageTBS", k.tbs(), k.Signature)
}
