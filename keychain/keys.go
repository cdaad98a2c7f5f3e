package keychain

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"

	"github.com/tyler-smith/go-bip39"

	"letterlock/canon"
	"letterlock/chat"
)

// Signer signs entries: a DeviceKey or a RecoveryKey.
type Signer interface {
	// Public is the key that others check with.
	Public() ed25519.PublicKey
	sign(domain string, v any) ([]byte, error)
}

// DeviceKey is a device's private key. It prints as a placeholder, whatever the verb.
type DeviceKey struct{ key ed25519.PrivateKey }

// NewDeviceKey draws a key from rand, which is crypto/rand.Reader outside of tests.
func NewDeviceKey(rand io.Reader) (DeviceKey, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return DeviceKey{}, fmt.Errorf("keychain: no randomness: %w", err)
	}
	return DeviceKeyFromSeed(seed)
}

// DeviceKeyFromSeed is the key that Seed stored: 32 bytes.
func DeviceKeyFromSeed(seed []byte) (DeviceKey, error) {
	if len(seed) != ed25519.SeedSize {
		return DeviceKey{}, chat.Errorf(chat.Invalid, "device key: want %d bytes, got %d", ed25519.SeedSize, len(seed))
	}
	return DeviceKey{ed25519.NewKeyFromSeed(seed)}, nil
}

// Seed is what to store, encrypted: 32 bytes.
func (k DeviceKey) Seed() []byte { return k.key.Seed() }

// Private is the key for the other things that a device signs: leaves, grants, announcements, DPoP proofs. It is not a copy.
func (k DeviceKey) Private() ed25519.PrivateKey { return k.key }

// Public is the key that others check with.
func (k DeviceKey) Public() ed25519.PublicKey { return public(k.key) }

// Wipe overwrites the key.
func (k DeviceKey) Wipe() { clear(k.key) }

// Format prints a placeholder for every verb.
func (k DeviceKey) Format(f fmt.State, _ rune) { io.WriteString(f, "(device key)") }

func (k DeviceKey) sign(domain string, v any) ([]byte, error) { return canon.Seal(k.key, domain, v) }

// RecoveryKey is an account's recovery key. It prints as a placeholder, whatever the verb. It is not to be stored: the person keeps
// the phrase.
type RecoveryKey struct{ key ed25519.PrivateKey }

const (
	recoverySize  = 32 // bytes of randomness
	recoveryWords = 24
	recoveryInfo  = "letterlock/recovery-signing/v1"
	maxPhrase     = 1 << 10 // bytes that are looked at
)

// NewRecovery draws a recovery key from rand, which is crypto/rand.Reader outside of tests, and its phrase of 24 words, to be
// shown once.
func NewRecovery(rand io.Reader) (phrase string, key RecoveryKey, err error) {
	secret := make([]byte, recoverySize)
	defer clear(secret)
	if _, err := io.ReadFull(rand, secret); err != nil {
		return "", RecoveryKey{}, fmt.Errorf("keychain: no randomness: %w", err)
	}
	phrase, err = bip39.NewMnemonic(secret)
	if err != nil {
		return "", RecoveryKey{}, fmt.Errorf("keychain: recovery phrase: %w", err)
	}
	key, err = recoveryKey(secret)
	return phrase, key, err
}

// RecoveryFromPhrase is the key whose phrase it is, written in any case with any white space. The error does not repeat words.
func RecoveryFromPhrase(phrase string) (RecoveryKey, error) {
	if len(phrase) > maxPhrase {
		return RecoveryKey{}, chat.Errorf(chat.TooLarge, "recovery phrase: longer than %d bytes", maxPhrase)
	}
	words := strings.Fields(strings.ToLower(phrase))
	if len(words) != recoveryWords {
		return RecoveryKey{}, chat.Errorf(chat.Invalid, "recovery phrase: want %d words, got %d", recoveryWords, len(words))
	}
	for i, w := range words {
		if _, ok := bip39.GetWordIndex(w); !ok {
			return RecoveryKey{}, chat.Errorf(chat.Invalid, "recovery phrase: word %d is not in the list of words", i+1)
		}
	}
	secret, err := bip39.EntropyFromMnemonic(strings.Join(words, " "))
	if err != nil {
		return RecoveryKey{}, chat.Errorf(chat.Invalid, "recovery phrase: a word is wrong or in the wrong place")
	}
	defer clear(secret)
	return recoveryKey(secret)
}

func recoveryKey(secret []byte) (RecoveryKey, error) {
	seed, err := hkdf.Key(sha256.New, secret, nil, recoveryInfo, ed25519.SeedSize)
	if err != nil {
		return RecoveryKey{}, fmt.Errorf("keychain: recovery key: %w", err)
	}
	defer clear(seed)
	return RecoveryKey{ed25519.NewKeyFromSeed(seed)}, nil
}

// Public is the key that others check with.
func (k RecoveryKey) Public() ed25519.PublicKey { return public(k.key) }

// Wipe overwrites the key.
func (k RecoveryKey) Wipe() { clear(k.key) }

// Format prints a placeholder for every verb.
func (k RecoveryKey) Format(f fmt.State, _ rune) { io.WriteString(f, "(recovery key)") }

func (k RecoveryKey) sign(domain string, v any) ([]byte, error) { return canon.Seal(k.key, domain, v) }

// public copies the public half; nil for the zero key.
func public(k ed25519.PrivateKey) ed25519.PublicKey {
	if len(k) != ed25519.PrivateKeySize {
		return nil
	}
	return k.Public().(ed25519.PublicKey)
}
