package roster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
)

// Version is MLS 1.0, the only protocol version.
const Version uint16 = 1

// Suite is one row of cipher suites: the numbers and sizes of its parts. Keys never appear here; package mls looks the HPKE
// parts up by their RFC 9180 numbers.
type Suite struct {
	ID   uint16
	Name string

	KEM, KDF, AEAD uint16 // HPKE identifiers (RFC 9180, section 7)
	PublicKeySize  int    // bytes of an HPKE public key
	HashSize       int    // KDF.Nh, bytes
	KeySize        int    // AEAD.Nk, bytes
	NonceSize      int    // AEAD.Nn, bytes

	NewHash func() hash.Hash
}

// Suites are the suites that are built. A post-quantum hybrid is one more row with an id of the private range (0xF000 to
// 0xFFFF) and X-Wing as its KEM. All rows sign with Ed25519.
var Suites = []Suite{{
	ID: 0x0001, Name: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
	KEM: 0x0020, KDF: 0x0001, AEAD: 0x0001,
	PublicKeySize: 32, HashSize: sha256.Size, KeySize: 16, NonceSize: 12,
	NewHash: sha256.New,
}}

// SuiteByID finds a row.
func SuiteByID(id uint16) (*Suite, error) {
	for i := range Suites {
		if Suites[i].ID == id {
			return &Suites[i], nil
		}
	}
	return nil, unsupported("cipher suite %#04x", id)
}

// Hash hashes the parts one after another.
func (s *Suite) Hash(parts ...[]byte) []byte {
	h := s.NewHash()
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// RefHash names a KeyPackage or proposal by its hash (RFC 9420, section 5.2).
func (s *Suite) RefHash(label string, value []byte) []byte {
	var w Writer
	w.Opaque([]byte(label))
	w.Opaque(value)
	return s.Hash(w.b)
}

// SignWithLabel signs content for one purpose (RFC 9420, section 5.1.2).
func (s *Suite) SignWithLabel(key ed25519.PrivateKey, label string, content []byte) ([]byte, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, invalid("signing key of %d bytes", len(key))
	}
	return ed25519.Sign(key, signContent(label, content)), nil
}

// VerifyWithLabel checks what SignWithLabel made.
func (s *Suite) VerifyWithLabel(key []byte, label string, content, signature []byte) error {
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, signContent(label, content), signature) {
		return refuse(ErrSignature, "%s", []any{label})
	}
	return nil
}

func signContent(label string, content []byte) []byte {
	w := Writer{make([]byte, 0, len(label)+len(content)+16)}
	w.Opaque([]byte("MLS 1.0 " + label))
	w.Opaque(content)
	return w.b
}

// equal compares in constant time; different lengths are different.
func equal(a, b []byte) bool { return subtle.ConstantTimeCompare(a, b) == 1 }
