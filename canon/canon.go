// Package canon is the one way letterlock writes and signs its own structures: deterministic CBOR (RFC 8949 section 4.2.1) with one
// encoding for each value, and Ed25519 under a domain string. Grants, key chains, leaves, slots and bundles all use it; MLS and
// MIMI content have encodings of their own.
//
// It refuses what a lenient decoder lets through: another encoding of the same value, duplicate keys, indefinite lengths, tags,
// trailing bytes, deep nesting, long arrays.
package canon

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"

	"github.com/fxamacker/cbor/v2"
)

// MaxSize is the largest structure that Unmarshal takes, in bytes. Formats state smaller limits of their own.
const MaxSize = 1 << 20

var (
	// ErrNotCanonical means that the bytes are not the one encoding of the value they hold.
	ErrNotCanonical = errors.New("canon: not the canonical encoding")
	// ErrTooLarge means that the bytes exceed a limit.
	ErrTooLarge = errors.New("canon: structure too large")
)

var (
	enc = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvert7e00,
		InfConvert:    cbor.InfConvertFloat16,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())
	dec = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		UTF8:              cbor.UTF8RejectInvalid,
		MaxNestedLevels:   8,
		MaxArrayElements:  4096,
		MaxMapPairs:       256,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal writes v in its one encoding. Structures of the formats carry `cbor:",toarray"`. A nil slice is written as an empty one.
func Marshal(v any) ([]byte, error) { return enc.Marshal(v) }

// MustMarshal is Marshal for values made by this program, whose types always encode.
func MustMarshal(v any) []byte { return must(enc.Marshal(v)) }

// Unmarshal reads data into v and refuses everything that Marshal would not have written.
func Unmarshal(data []byte, v any) error {
	if len(data) > MaxSize {
		return ErrTooLarge
	}
	if err := dec.Unmarshal(data, v); err != nil {
		return errors.Join(ErrNotCanonical, err)
	}
	again, err := enc.Marshal(v)
	if err != nil {
		return errors.Join(ErrNotCanonical, err)
	}
	if !bytes.Equal(again, data) {
		return ErrNotCanonical
	}
	return nil
}

// Sign signs body for one purpose: Ed25519 over domain, a zero byte, body. A domain is a constant of the format's spec page.
func Sign(key ed25519.PrivateKey, domain string, body []byte) []byte {
	return ed25519.Sign(key, message(domain, body))
}

// Verify checks a signature made by Sign. A key or signature of a wrong length is a failed check, not a panic.
func Verify(key ed25519.PublicKey, domain string, body, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize &&
		ed25519.Verify(key, message(domain, body), sig)
}

// Hash is SHA-256 over domain, a zero byte, body.
func Hash(domain string, body []byte) [32]byte { return sha256.Sum256(message(domain, body)) }

func message(domain string, body []byte) []byte {
	m := make([]byte, 0, len(domain)+1+len(body))
	m = append(m, domain...)
	m = append(m, 0)
	return append(m, body...)
}

// Signed is a body with one signature, as stored and sent: CBOR [body bstr, signature bstr].
type Signed struct {
	_    struct{} `cbor:",toarray"`
	Body []byte
	Sig  []byte
}

// Seal encodes v and signs it: the bytes of a Signed.
func Seal(key ed25519.PrivateKey, domain string, v any) ([]byte, error) {
	body, err := Marshal(v)
	if err != nil {
		return nil, err
	}
	return Marshal(Signed{Body: body, Sig: Sign(key, domain, body)})
}

// Open checks the signature of a Signed and decodes its body into v. Nothing is decoded before the signature holds.
func Open(data []byte, key ed25519.PublicKey, domain string, v any) error {
	var s Signed
	if err := Unmarshal(data, &s); err != nil {
		return err
	}
	if !Verify(key, domain, s.Body, s.Sig) {
		return ErrSignature
	}
	return Unmarshal(s.Body, v)
}

// Peek decodes the body of a Signed without checking the signature, for finding out whose key to check it with.
func Peek(data []byte, v any) error {
	var s Signed
	if err := Unmarshal(data, &s); err != nil {
		return err
	}
	return Unmarshal(s.Body, v)
}

// ErrSignature means that a signature does not hold.
var ErrSignature = errors.New("canon: the signature does not hold")
