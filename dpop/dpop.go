// Package dpop makes and verifies DPoP proofs (RFC 9449): short signed statements that the sender of a request holds the key to
// which its token is bound. Devices, agents and the authorization server all use it; a stolen token without its key is worthless.
//
// Neighbours: account binds device sessions, oauth binds access and refresh tokens to the Thumbprint of a key; httpd builds the
// Request; api/httpclient signs with a Signer. The package knows no tokens' meaning, no store and no HTTP.
//
// It refuses: every algorithm but EdDSA and ES256 ("none" and the symmetric ones above all), a proof under another key than the
// token's, for another method, address or token, one from outside the time window, one that was seen before, keys with private
// members, and more than MaxProof bytes.
package dpop

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"

	"letterlock/chat"
)

const (
	// MaxProof is the longest proof that is looked at, in bytes. An honest one has about 500.
	MaxProof = 4096
	// maxJTI is the longest identifier of a proof, in bytes.
	maxJTI = 128
	// Window is how far the time in a proof may be from ours, either way (RFC 9449 section 11.1).
	Window = 90 * time.Second
	// proofType is the typ header of a proof (RFC 9449 section 4.2).
	proofType = "dpop+jwt"
)

// algorithms is the allow-list: the only signatures that a proof may carry.
var algorithms = []jose.SignatureAlgorithm{jose.EdDSA, jose.ES256}

// Thumbprint names a public key: SHA-256 over its canonical JWK (RFC 7638). Tokens are bound to it.
type Thumbprint [sha256.Size]byte

// String writes the thumbprint as RFC 9449 does in jkt: unpadded base64url.
func (t Thumbprint) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// ParseThumbprint reads what String wrote.
func ParseThumbprint(s string) (t Thumbprint, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(t) {
		return t, chat.Errorf(chat.Invalid, "a key thumbprint is 43 characters of base64url")
	}
	return Thumbprint(b), nil
}

// Ed25519Thumbprint computes the thumbprint of a device's or an agent's key (RFC 8037 section 2, appendix A.3).
func Ed25519Thumbprint(key ed25519.PublicKey) Thumbprint {
	return sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(key) + `"}`))
}

// Request is what a proof is checked against.
type Request struct {
	Proof  string // the DPoP header
	Method string
	URL    string // as clients address it; query and fragment do not count
	Token  string // the access token that came along; empty where none is used yet (sign-in, token endpoint)
}

type requestKey struct{}

// WithRequest adds the request of a call to its context, for those calls that check the proof themselves because only they know
// whose key to ask for (sign-in).
func WithRequest(ctx context.Context, r Request) context.Context {
	return context.WithValue(ctx, requestKey{}, r)
}

// RequestFrom finds the request; a context without one is refused as unauthenticated.
func RequestFrom(ctx context.Context) (Request, error) {
	r, ok := ctx.Value(requestKey{}).(Request)
	if !ok || r.Proof == "" {
		return Request{}, unauthenticated("this call needs a DPoP header")
	}
	return r, nil
}

// claims is the payload of a proof (RFC 9449 section 4.2).
type claims struct {
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"` // seconds
	Hash   string `json:"ath,omitempty"`
}

// Verifier checks proofs and remembers them for as long as they could be sent again. It is safe for concurrent use.
type Verifier struct {
	now  func() time.Time
	seen *Replay
}

// NewVerifier makes a verifier. What it has seen lives in memory: after a restart a proof of the last Window could be sent again,
// by somebody who also holds the token and reads the channel.
func NewVerifier(now func() time.Time) *Verifier {
	return &Verifier{now: now, seen: NewReplay(2 * Window)}
}

// Verify checks a proof under the key that the caller's record names. Only a proof that holds is remembered, so that nobody can
// fill the memory without such a key.
func (v *Verifier) Verify(r Request, key Thumbprint) error {
	got, id, err := v.check(r)
	if err != nil {
		return err
	}
	if got != key {
		return unauthenticated("the DPoP proof was signed with another key than this token is bound to")
	}
	return v.seen.Use(v.now(), got, id)
}

// Check checks a proof where no key is bound yet, and says which one signed it. It remembers nothing: whoever calls it refuses
// proofs that come twice with a Replay of its own, once it knows the sender.
func (v *Verifier) Check(r Request) (Thumbprint, error) {
	key, _, err := v.check(r)
	return key, err
}

func (v *Verifier) check(r Request) (key Thumbprint, jti string, err error) {
	key, c, err := open(r.Proof)
	if err != nil {
		return key, "", err
	}
	return key, c.ID, v.matches(c, r)
}

// open checks form and signature (RFC 9449 section 4.3, points 1 to 7).
func open(proof string) (key Thumbprint, c claims, err error) {
	if proof == "" {
		return key, c, unauthenticated("the DPoP header is missing")
	}
	if len(proof) > MaxProof {
		return key, c, unauthenticated("the DPoP proof is longer than %d bytes", MaxProof)
	}
	jws, err := jose.ParseSignedCompact(proof, algorithms)
	if err != nil {
		return key, c, invalid(err, "the DPoP proof is not a JWS with EdDSA or ES256 and a public key in its header")
	}
	head := jws.Signatures[0].Protected
	if head.ExtraHeaders[jose.HeaderType] != proofType {
		return key, c, unauthenticated("the DPoP proof's typ is not %s", proofType)
	}
	if !acceptable(head) {
		return key, c, unauthenticated("the DPoP proof must carry a public Ed25519 or P-256 key that fits its algorithm")
	}
	payload, err := jws.Verify(head.JSONWebKey)
	if err != nil {
		return key, c, invalid(err, "the DPoP proof's signature does not hold")
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return key, c, invalid(err, "the DPoP proof's payload is not the JSON of RFC 9449")
	}
	sum, err := head.JSONWebKey.Thumbprint(crypto.SHA256)
	if err != nil {
		return key, c, invalid(err, "the DPoP proof's key has no thumbprint")
	}
	return Thumbprint(sum), c, nil
}

// acceptable says whether the key in the header is a public one of the algorithm's own type.
func acceptable(head jose.Header) bool {
	k := head.JSONWebKey
	if k == nil || !k.IsPublic() || !k.Valid() {
		return false
	}
	switch pub := k.Key.(type) {
	case ed25519.PublicKey:
		return head.Algorithm == string(jose.EdDSA)
	case *ecdsa.PublicKey:
		return head.Algorithm == string(jose.ES256) && pub.Curve == elliptic.P256()
	}
	return false
}

// matches checks the payload against the request (RFC 9449 section 4.3, points 8 to 11).
func (v *Verifier) matches(c claims, r Request) error {
	if c.ID == "" || len(c.ID) > maxJTI {
		return unauthenticated("the DPoP proof's jti must have 1 to %d bytes", maxJTI)
	}
	if c.Method != r.Method {
		return unauthenticated("the DPoP proof is for another method (htm)")
	}
	if !sameAddress(c.URL, r.URL) {
		return unauthenticated("the DPoP proof is for another address (htu)")
	}
	if age := v.now().Sub(time.Unix(c.Issued, 0)); age > Window || age < -Window {
		return unauthenticated("the DPoP proof's time (iat) is more than %d seconds from the server's: check the clock", int(Window.Seconds()))
	}
	if r.Token != "" && !chat.EqualBytes([]byte(c.Hash), []byte(tokenHash(r.Token))) {
		return unauthenticated("the DPoP proof is for another token (ath)")
	}
	return nil
}

// tokenHash is the ath of a token (RFC 9449 section 4.2).
func tokenHash(token string) string {
	h := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

func unauthenticated(format string, args ...any) *chat.Error {
	return chat.Errorf(chat.Unauthenticated, format, args...)
}

func invalid(cause error, detail string) *chat.Error {
	return chat.Wrap(chat.Unauthenticated, cause, "%s", detail)
}
