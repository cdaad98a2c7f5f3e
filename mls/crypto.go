package mls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/hpke"
	"crypto/rand"
	"fmt"
	"io"

	"letterlock/mls/roster"
)

// secret is key material. It prints as nothing else, whatever the verb.
type secret []byte

// Format keeps secrets out of errors and logs.
func (s secret) Format(f fmt.State, _ rune) { io.WriteString(f, "secret") }

// String serves what does not ask for a Formatter.
func (s secret) String() string { return "secret" }

// MarshalText serves encoding/json and log/slog.
func (s secret) MarshalText() ([]byte, error) { return []byte("secret"), nil }

// wipe overwrites the secret.
func (s secret) wipe() { clear(s) }

func (s secret) clone() secret { return append(secret(nil), s...) }

// suite is a row of roster.Suites with the operations that take secrets.
type suite struct {
	*roster.Suite
	kem  hpke.KEM
	kdf  hpke.KDF
	aead hpke.AEAD
}

func newSuite(row *roster.Suite) (s suite, err error) {
	s.Suite = row
	if s.kem, err = hpke.NewKEM(row.KEM); err != nil {
		return s, unsupported("KEM %#04x", row.KEM)
	}
	if s.kdf, err = hpke.NewKDF(row.KDF); err != nil {
		return s, unsupported("KDF %#04x", row.KDF)
	}
	if s.aead, err = hpke.NewAEAD(row.AEAD); err != nil {
		return s, unsupported("AEAD %#04x", row.AEAD)
	}
	return s, nil
}

func suiteByID(id uint16) (suite, error) {
	row, err := roster.SuiteByID(id)
	if err != nil {
		return suite{}, err
	}
	return newSuite(row)
}

// random draws n bytes; a nil source is the system's.
func random(source io.Reader, n int) (secret, error) {
	if source == nil {
		source = rand.Reader
	}
	b := make(secret, n)
	if _, err := io.ReadFull(source, b); err != nil {
		return nil, fmt.Errorf("mls: randomness: %w", err)
	}
	return b, nil
}

// extract is KDF.Extract.
func (s suite) extract(salt, input secret) secret {
	out, err := hkdf.Extract(s.NewHash, input, salt)
	if err != nil {
		panic("mls: " + err.Error()) // only where FIPS mode forbids short keys
	}
	return out
}

// expand is ExpandWithLabel (RFC 9420, section 8). n is at most 255 hashes.
func (s suite) expand(from secret, label string, context []byte, n int) secret {
	var w roster.Writer
	w.Uint16(uint16(n))
	w.Opaque([]byte("MLS 1.0 " + label))
	w.Opaque(context)
	out, err := hkdf.Expand(s.NewHash, from, string(w.Bytes()), n)
	if err != nil {
		panic("mls: " + err.Error()) // n too large, or FIPS mode
	}
	return out
}

// derive is DeriveSecret (RFC 9420, section 8).
func (s suite) derive(from secret, label string) secret {
	return s.expand(from, label, nil, s.HashSize)
}

// mac authenticates data.
func (s suite) mac(key secret, data []byte) []byte {
	h := hmac.New(s.NewHash, key)
	h.Write(data)
	return h.Sum(nil)
}

// checkMAC compares in constant time, length included.
func (s suite) checkMAC(key secret, data, tag []byte) error {
	if !hmac.Equal(s.mac(key, data), tag) {
		return ErrTag
	}
	return nil
}

// cipher is the suite's AEAD under one key.
func (s suite) cipher(key secret) (cipher.AEAD, error) {
	switch s.AEAD {
	case 0x0001, 0x0002: // AES-128-GCM, AES-256-GCM
		block, err := aes.NewCipher(key)
		if err != nil {
			return nil, unsupported("AEAD key of %d bytes", len(key))
		}
		return cipher.NewGCM(block)
	}
	return nil, unsupported("AEAD %#04x", s.AEAD)
}

func (s suite) seal(key, nonce secret, plaintext, aad []byte) ([]byte, error) {
	c, err := s.cipher(key)
	if err != nil {
		return nil, err
	}
	return c.Seal(nil, nonce, plaintext, aad), nil
}

func (s suite) open(key, nonce secret, ciphertext, aad []byte) (secret, error) {
	c, err := s.cipher(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := c.Open(nil, nonce, ciphertext, aad)
	if err != nil {
		return nil, ErrDecrypt
	}
	return plaintext, nil
}

// keyPair is an HPKE key pair in bytes.
type keyPair struct {
	public  []byte
	private secret
}

// deriveKeyPair is KEM.DeriveKeyPair.
func (s suite) deriveKeyPair(from secret) (keyPair, error) {
	k, err := s.kem.DeriveKeyPair(from)
	if err != nil {
		return keyPair{}, invalid("key derivation")
	}
	private, err := k.Bytes()
	if err != nil {
		return keyPair{}, invalid("key derivation")
	}
	return keyPair{k.PublicKey().Bytes(), private}, nil
}

func (s suite) newKeyPair(source io.Reader) (keyPair, error) {
	seed, err := random(source, s.HashSize)
	if err != nil {
		return keyPair{}, err
	}
	defer seed.wipe()
	return s.deriveKeyPair(seed)
}

// encryptContext is the HPKE info of EncryptWithLabel (RFC 9420, section 5.1.3).
func encryptContext(label string, context []byte) []byte {
	var w roster.Writer
	w.Opaque([]byte("MLS 1.0 " + label))
	w.Opaque(context)
	return w.Bytes()
}

// encryptTo is EncryptWithLabel.
func (s suite) encryptTo(public []byte, label string, context []byte, plaintext secret) (c roster.HPKECiphertext, err error) {
	key, err := s.kem.NewPublicKey(public)
	if err != nil {
		return c, invalid("encryption key")
	}
	kemOutput, sender, err := hpke.NewSender(key, s.kdf, s.aead, encryptContext(label, context))
	if err != nil {
		return c, invalid("encryption key")
	}
	ciphertext, err := sender.Seal(nil, plaintext)
	if err != nil {
		return c, invalid("encryption key")
	}
	return roster.HPKECiphertext{KEMOutput: kemOutput, Ciphertext: ciphertext}, nil
}

// decryptWith is DecryptWithLabel.
func (s suite) decryptWith(private secret, label string, context []byte, c roster.HPKECiphertext) (secret, error) {
	key, err := s.kem.NewPrivateKey(private)
	if err != nil {
		return nil, ErrDecrypt
	}
	recipient, err := hpke.NewRecipient(c.KEMOutput, key, s.kdf, s.aead, encryptContext(label, context))
	if err != nil {
		return nil, ErrDecrypt
	}
	plaintext, err := recipient.Open(nil, c.Ciphertext)
	if err != nil {
		return nil, ErrDecrypt
	}
	return plaintext, nil
}
