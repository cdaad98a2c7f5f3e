package dpop

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Signer makes the proofs of one Ed25519 key: a device's, or the one of an agent's grant. It is safe for concurrent use if its
// source of randomness is.
type Signer struct {
	signer jose.Signer
	key    Thumbprint
	rand   io.Reader
	now    func() time.Time
}

// NewSigner makes a signer. rand names the proofs.
func NewSigner(key ed25519.PrivateKey, rand io.Reader, now func() time.Time) (*Signer, error) {
	if len(key) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("dpop: not an Ed25519 private key")
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key},
		(&jose.SignerOptions{EmbedJWK: true}).WithType(proofType))
	if err != nil {
		return nil, fmt.Errorf("dpop: signer: %w", err)
	}
	return &Signer{signer: signer, key: Ed25519Thumbprint(key.Public().(ed25519.PublicKey)), rand: rand, now: now}, nil
}

// Thumbprint names the key.
func (s *Signer) Thumbprint() Thumbprint { return s.key }

// Proof makes the DPoP header for one request. address may have query and fragment; they are left out. token is the access token
// sent along, or empty.
func (s *Signer) Proof(method, address, token string) (string, error) {
	u, err := url.Parse(address)
	if err != nil {
		return "", fmt.Errorf("dpop: address: %w", err)
	}
	u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = "", false, "", ""
	var id [16]byte
	if _, err := io.ReadFull(s.rand, id[:]); err != nil {
		return "", fmt.Errorf("dpop: randomness: %w", err)
	}
	c := claims{ID: base64.RawURLEncoding.EncodeToString(id[:]), Method: method, URL: u.String(), Issued: s.now().Unix()}
	if token != "" {
		c.Hash = tokenHash(token)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	jws, err := s.signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("dpop: sign: %w", err)
	}
	return jws.CompactSerialize()
}
