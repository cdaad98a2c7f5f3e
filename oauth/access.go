package oauth

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

// cachedFor is how long an access token may stay believed after another server process ended it. It delays no revocation of a
// permission: that is the grant's row, which package inbox reads each time.
const cachedFor = 20 * time.Second

// Authenticate finds the agent that holds an access token, and checks that the request was made with the key that the token is bound
// to (RFC 9449 section 7). What its grant allows is not answered here.
func (s *Service) Authenticate(ctx context.Context, r dpop.Request) (api.AgentCaller, error) {
	h, err := s.holder(ctx, r.Token)
	if err != nil {
		return api.AgentCaller{}, err
	}
	if err := s.Verifier.Verify(r, h.Key); err != nil {
		return api.AgentCaller{}, err
	}
	return h.Caller, nil
}

// holder finds an access token in memory or in the store.
func (s *Service) holder(ctx context.Context, token string) (dpop.Holder[api.AgentCaller], error) {
	_, hash, _ := parseToken(token)
	now := s.Now()
	h, generation, ok := s.holders.Find(hash, now)
	if ok {
		return h, nil
	}
	t, row, err := s.readToken(ctx, token, store.OAuthAccess)
	if errors.Is(err, goidc.ErrNotFound) {
		return h, noAccess()
	}
	if err != nil {
		return h, err
	}
	if t.Spent || row.Ended || t.Expires <= now.UnixMilli() || len(row.Thumbprint) != len(h.Key) {
		return h, noAccess()
	}
	h = dpop.Holder[api.AgentCaller]{
		Caller: api.AgentCaller{Partner: row.Client, Grant: row.Grant},
		Key:    dpop.Thumbprint(row.Thumbprint),
		Until:  min(t.Expires, now.Add(cachedFor).UnixMilli()),
	}
	s.holders.Remember(hash, h, generation)
	return h, nil
}

func noAccess() error {
	return chat.Errorf(chat.Unauthenticated, "this access token is unknown or over: refresh it")
}

// accessOptions gives every token the same form: opaque, ten minutes, and no longer than the permission.
func accessOptions(_ context.Context, g *goidc.Grant, _ *goidc.Client) goidc.TokenOptions {
	life := int(AccessLifetime.Seconds())
	if _, validUntil, err := grantedOf(g.AuthDetails); err == nil {
		life = max(1, min(life, int(validUntil/1000)-nowSeconds()))
	}
	return goidc.NewOpaqueTokenOptions(life)
}

// accessTokens keeps access tokens for go-oidc, as hashes.
type accessTokens struct{ *Service }

var _ goidc.OpaqueTokenManager = accessTokens{}

// SaveToken stores a new token, or the end of one.
func (s accessTokens) SaveToken(ctx context.Context, t *goidc.Token) error {
	id, hash, ok := parseToken(t.ID)
	if !ok || id.String() != t.GrantID {
		return errors.New("oauth: the access token is malformed")
	}
	if t.RevokedAt != 0 {
		defer s.holders.Drop()
		return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.SpendOAuthToken(id, hash) })
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.PutOAuthToken(store.OAuthToken{Grant: id, Hash: hash, Kind: store.OAuthAccess, Expires: int64(t.ExpiresAt) * 1000})
	})
}

// Token reads a token, for introspection and revocation.
func (s accessTokens) Token(ctx context.Context, token string) (*goidc.Token, error) {
	t, row, err := s.readToken(ctx, token, store.OAuthAccess)
	if err != nil {
		return nil, err
	}
	g, err := s.goidcGrant(row)
	if err != nil {
		return nil, err
	}
	expires := int(t.Expires / 1000)
	out := &goidc.Token{
		ID: token, GrantID: g.ID, ClientID: g.ClientID, Subject: g.Subject, CreatedAt: expires - int(AccessLifetime.Seconds()),
		ExpiresAt: expires, Format: goidc.TokenFormatOpaque, Type: goidc.TokenTypeDPoP, AuthDetails: g.AuthDetails,
		Resources: g.Resources, JWKThumbprint: g.JWKThumbprint,
	}
	if t.Spent || row.Ended {
		out.RevokedAt = 1
	}
	return out, nil
}

// ownToken lets a client introspect its own tokens and nobody else's.
func ownToken(_ context.Context, c *goidc.Client, t goidc.TokenInfo) bool {
	return bytes.Equal([]byte(c.ID), []byte(t.ClientID))
}
