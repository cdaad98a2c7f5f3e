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
	"slices"

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

// Verify checks a signature made by Sign. A key or signature of a wrong length is a failed check, not a panic. So is a key of small order,
// under which anybody can sign: a signature says who wrote, even where the signer would rather have it say nothing.
func Verify(key ed25519.PublicKey, domain string, body, sig []byte) bool {
	return len(key) == ed25519.PublicKeySize && len(sig) == ed25519.SignatureSize && !smallOrder(key) &&
		ed25519.Verify(key, message(domain, body), sig)
}

// smallOrder knows the y-coordinates of the eight points of small order on edwards25519, in each encoding that crypto/ed25519 takes, the
// sign of x ignored.
func smallOrder(key ed25519.PublicKey) bool {
	y := [32]byte(key)
	y[31] &= 0x7f
	return slices.Contains(smallOrderPoints, y)
}

var smallOrderPoints = func() [][32]byte {
	edge := func(first byte) (y [32]byte) { // p + (first - 0xed), p = 2^255 - 19
		for i := range y {
			y[i] = 0xff
		}
		y[0], y[31] = first, 0x7f
		return y
	}
	return [][32]byte{
		{}, {1}, // order 4, the identity
		edge(0xec), edge(0xed), edge(0xee), // order 2; 0 and 1 again
		{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05}, // order 8
		{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a}, // order 8
	}
}()

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
