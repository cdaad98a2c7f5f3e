package oauth

import (
	"bytes"
	"context"
	"errors"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

// Authenticate finds the agent that holds an access token, and checks that the request was made with the key that the token is bound
// to (RFC 9449 section 7). What its grant allows is not answered here.
func (s *Service) Authenticate(ctx context.Context, r dpop.Request) (api.AgentCaller, error) {
	t, row, err := s.readToken(ctx, r.Token, store.OAuthAccess)
	if errors.Is(err, goidc.ErrNotFound) {
		return api.AgentCaller{}, noAccess()
	}
	if err != nil {
		return api.AgentCaller{}, err
	}
	if t.Spent || row.Ended || t.Expires <= s.Now().UnixMilli() || len(row.Thumbprint) != len(dpop.Thumbprint{}) {
		return api.AgentCaller{}, noAccess()
	}
	if err := s.Verifier.Verify(r, dpop.Thumbprint(row.Thumbprint)); err != nil {
		return api.AgentCaller{}, err
	}
	return api.AgentCaller{Partner: row.Client, Grant: row.Grant}, nil
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
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		if t.RevokedAt != 0 {
			return tx.SpendOAuthToken(id, hash)
		}
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
