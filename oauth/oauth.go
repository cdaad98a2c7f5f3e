// Package oauth is the authorization server for partners: OAuth 2.1 with pushed requests, PKCE, rich authorization requests, DPoP and
// private_key_jwt (spec/oauth.md lists the standards). One file holds one step: client, push, detail, authorize, consent, token,
// access, metadata.
//
// A token is no permission. It carries the id of a grant and nothing else; what the grant allows is read from the grant's own row, in
// the transaction that acts on it, by package inbox. Refresh reuse or a failed redemption ends tokens and never touches the grant.
//
// Neighbours: inbox judges what may be asked for (Judge) and says when a grant stands (Approve) or ended (EndTokens); store keeps
// every row, secrets as hashes; httpd mounts the handler and asks Authenticate. The protocol's checks are go-oidc's; what it lacks is
// here, each in one place: atomic redemption and key binding (SaveGrant), reuse of refresh tokens (GrantByRefreshToken), proofs at the
// resource server (Authenticate), replay (ConsumeJTI), narrowing only (Approve, sameDetails).
//
// It refuses clients that are not registered, requests that were not pushed, every scope, and to widen anything.
package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/luikyv/go-oidc/pkg/goidc"
	"github.com/luikyv/go-oidc/pkg/provider"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

// The lifetimes.
const (
	RequestLifetime = 10*time.Minute - 10*time.Second // of a pushed request; FAPI 2.0 section 5.3.2.2 wants less than ten minutes
	CodeLifetime    = time.Minute
	AccessLifetime  = 10 * time.Minute
	RefreshLifetime = 90 * 24 * time.Hour // from its last use, and never beyond the grant's valid_until
	assertionTime   = 2 * time.Minute     // the furthest expiry of a client assertion
)

// Config is what a Service works with.
type Config struct {
	Issuer   string // the server's public URL, an origin
	Store    *store.Store
	Verifier *dpop.Verifier
	// Judge says whether a partner may ask for this: certificates, agreement, grant id never used. It runs when the request is pushed.
	Judge  func(tx *store.Tx, r api.ConsentRequest) error
	Logger *slog.Logger
	Now    func() time.Time
	Rand   io.Reader
}

// Service is safe for concurrent use.
type Service struct {
	Config
	protocol http.Handler // go-oidc
	used     *dpop.Replay // identifiers of proofs and assertions at our own endpoints
	holders  dpop.Holders[api.AgentCaller]

	mu sync.Mutex // of Rand
}

// algorithms are what clients sign with: assertions and proofs.
var algorithms = []goidc.SignatureAlgorithm{jose.EdDSA, jose.ES256}

// New makes the service.
func New(c Config) (*Service, error) {
	s := &Service{Config: c, used: dpop.NewReplay(2*assertionTime + 2*dpop.Window)}
	p, err := provider.New(provider.Config{
		Issuer: c.Issuer, Manager: authorizations{s}, IDTokenAlgs: algorithms[1:],
		JWKS: func(context.Context) (goidc.JSONWebKeySet, error) { return goidc.JSONWebKeySet{}, nil }, // we sign no tokens
	},
		provider.WithProfile(goidc.ProfileFAPI2), // only what was pushed counts; one audience in assertions
		provider.WithTokenEndpoint(tokenPath),
		provider.WithAuthorizeEndpoint(authorizePath),
		provider.WithTokenIntrospectionEndpoint(introspectPath),
		provider.WithPrivateKeyJWTAuthn(algorithms...),
		provider.WithDCR(clients{s}), // the registry; its endpoint is not routed
		provider.WithJWTLifetime(int(assertionTime.Seconds())),
		provider.WithJTIConsumer(s.consume),
		provider.WithAuthCodeGrant(provider.AuthCodeGrantConfig{Manager: requests{s}, ResponseTypes: []goidc.ResponseType{goidc.ResponseTypeCode}},
			provider.WithAuthCodeFunc(func(ctx context.Context) string { return s.newToken(decisionFrom(ctx).detail.grant()) }),
			provider.WithAuthCodeLifetime(int(CodeLifetime.Seconds())),
			provider.WithIssuerResponseParameter(), // RFC 9207
			provider.WithPKCE([]goidc.CodeChallengeMethod{goidc.CodeChallengeMethodSHA256}, provider.WithPKCERequired()),
			provider.WithPAR(requests{s}, provider.WithPARRequired(), provider.WithPAREndpoint(pushPath), provider.WithPARSessionHandler(s.judgePush),
				provider.WithPARLifetime(int(RequestLifetime.Seconds())), provider.WithPARIDFunc(func(context.Context) string { return s.random() })),
			provider.WithAuthPolicies(goidc.NewPolicy("consent", hasDecision, decide(s.resource())))),
		provider.WithRefreshTokenGrant(authorizations{s}, provider.WithRefreshTokenRotation(),
			provider.WithRefreshTokenLifetime(int(RefreshLifetime.Seconds())),
			provider.WithRefreshTokenFunc(func(ctx context.Context) string { return s.newToken(callFrom(ctx).grant) })),
		provider.WithTokenOptions(accessOptions, provider.WithOpaqueTokens(accessTokens{s}),
			provider.WithOpaqueTokenFunc(func(_ context.Context, g *goidc.Grant) string { return s.newToken(grantOf(g.ID)) })),
		provider.WithGrantIDFunc(func(ctx context.Context) string { return decisionFrom(ctx).detail.grant().String() }),
		provider.WithRAR([]goidc.AuthDetailType{DetailType},
			provider.WithRARDetailValidator(validDetail), provider.WithRARDetailsComparator(sameDetails)),
		provider.WithDPoP(algorithms, provider.WithDPoPRequired()),
		provider.WithResourceIndicators([]goidc.ResourceIndicator{s.resource()}, provider.WithResourceIndicatorsRequired()),
		provider.WithTokenIntrospection(ownToken),
		provider.WithTokenRevocation(func(context.Context, *goidc.Client) bool { return true }, provider.WithTokenRevocationEndpoint(revokePath)),
		provider.WithErrorHandler(s.logError),
	)
	if err != nil {
		return nil, err
	}
	s.protocol = p.Handler()
	return s, nil
}

// resource is the identifier of the Inbox API (RFC 8707).
func (s *Service) resource() string { return s.Issuer + "/inbox" }

// EndTokens ends every token of a grant for good. The caller's transaction decides. A request that is under way may still find its
// agent for cachedFor; the grant's own row, which the same transaction ended, refuses it.
func (s *Service) EndTokens(tx *store.Tx, id chat.GrantID) error {
	defer s.holders.Drop()
	return tx.EndOAuthAuthorization(id)
}

// endTokens is EndTokens in a transaction of its own, after which nobody finds the agent any more.
func (s *Service) endTokens(ctx context.Context, id chat.GrantID) error {
	defer s.holders.Drop()
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.EndOAuthAuthorization(id) })
}

// Sweep drops what expired. The server calls it every hour.
func (s *Service) Sweep(ctx context.Context) error {
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.SweepOAuth(s.Now().UnixMilli()) })
}

// consume takes the identifier of a proof or a client assertion, once (RFC 9449 section 11.1, RFC 7523 section 3). go-oidc calls it
// after the signature held.
func (s *Service) consume(_ context.Context, jti string) error {
	return s.used.Use(s.Now(), dpop.Thumbprint{}, jti)
}

// logError keeps what is our fault for the operator. What clients do wrong is in their answer.
func (s *Service) logError(_ context.Context, err error) {
	var refused goidc.Error
	if !errors.As(err, &refused) {
		s.Logger.Error("oauth request failed", slog.Any("error", err))
	}
}

// Codes, access and refresh tokens look alike: unpadded base64url of the grant's id, which finds the row, and 32 random bytes.
const (
	secretSize = 32
	tokenSize  = len(chat.GrantID{}) + secretSize
)

func (s *Service) newToken(id chat.GrantID) string {
	return base64.RawURLEncoding.EncodeToString(append(id[:], s.secret()...))
}

// random is the id of a pushed request.
func (s *Service) random() string { return base64.RawURLEncoding.EncodeToString(s.secret()) }

// secret draws 32 bytes. go-oidc asks for strings and takes no error; without randomness nothing may go on.
func (s *Service) secret() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := make([]byte, secretSize)
	if _, err := io.ReadFull(s.Rand, b); err != nil {
		panic("oauth: no randomness")
	}
	return b
}

// parseToken finds the grant and the hash of a token.
func parseToken(t string) (id chat.GrantID, hash [32]byte, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(t)
	if err != nil || len(b) != tokenSize {
		return id, hash, false
	}
	copy(id[:], b)
	return id, sha256.Sum256([]byte(t)), true
}

// grantOf reads the id that go-oidc carries as text. It is ours: a malformed one is no id.
func grantOf(id string) chat.GrantID {
	g, _ := chat.ParseGrantID(id)
	return g
}
