package agent

import (
	"crypto/ed25519"
	"fmt"
	"io"

	"letterlock/chat"
)

// The four keys of a partner's side, all Ed25519. Each is a type of its own and prints as a placeholder, whatever the verb.
type (
	rootKey   ed25519.PrivateKey // stands in the agreement; certifies agent keys; belongs offline
	agentKey  ed25519.PrivateKey // certifies the keys of grants
	clientKey ed25519.PrivateKey // says who the OAuth client is (private_key_jwt)
	grantKey  ed25519.PrivateKey // of one grant: signs posts, is the reading leaf's signature key, binds the grant's tokens (DPoP)
)

func (rootKey) Format(f fmt.State, _ rune)   { io.WriteString(f, "(root key)") }
func (agentKey) Format(f fmt.State, _ rune)  { io.WriteString(f, "(agent key)") }
func (clientKey) Format(f fmt.State, _ rune) { io.WriteString(f, "(client key)") }
func (grantKey) Format(f fmt.State, _ rune)  { io.WriteString(f, "(grant key)") }

// newKey draws a key from rand.
func newKey[K ~[]byte](rand io.Reader) (K, error) {
	seed := make([]byte, ed25519.SeedSize)
	defer clear(seed)
	if _, err := io.ReadFull(rand, seed); err != nil {
		return nil, fmt.Errorf("agent: no randomness: %w", err)
	}
	return K(ed25519.NewKeyFromSeed(seed)), nil
}

// openKey is the key of a stored seed.
func openKey[K ~[]byte](seed []byte) (K, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, chat.Errorf(chat.Internal, "agent: a stored key has %d bytes", len(seed))
	}
	return K(ed25519.NewKeyFromSeed(seed)), nil
}

// seed is what is stored of a key: 32 bytes.
func seed[K ~[]byte](key K) []byte { return ed25519.PrivateKey(key).Seed() }

// public is the public half of a key.
func public[K ~[]byte](key K) ed25519.PublicKey {
	return ed25519.PrivateKey(key).Public().(ed25519.PublicKey)
}
