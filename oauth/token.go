package oauth

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
)

// approved is what one answered request became, as stored (spec/oauth.md).
type approved struct {
	_           struct{} `cbor:",toarray"`
	Version     uint64
	RedirectURI string
	Challenge   string
	Actions     uint64
	ValidUntil  int64 // ms
	Created     int64 // s
	CodeExpires int64 // s
	CodeUsed    int64 // s; 0: not yet
	Refresh     int64 // s: when the present refresh token expires; 0: none yet
}

const approvedVersion = 1

// tokenCall is what a request to the token endpoint learns on its way.
type tokenCall struct {
	key   dpop.Thumbprint
	grant chat.GrantID // of the code or refresh token that came
}

type callKey struct{}

// callFrom finds the call; outside of the token endpoint there is none, and what is written to it is lost.
func callFrom(ctx context.Context) *tokenCall {
	if c, ok := ctx.Value(callKey{}).(*tokenCall); ok {
		return c
	}
	return &tokenCall{}
}

// token serves the token endpoint: go-oidc's, behind our own check of the proof.
func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	key, err := s.proof(r, tokenPath)
	if err != nil {
		refuse(w, http.StatusBadRequest, "invalid_dpop_proof", err)
		return
	}
	s.protocol.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callKey{}, &tokenCall{key: key})))
}

// authorizations keeps what go-oidc calls grants.
type authorizations struct{ *Service }

var (
	_ goidc.GrantManager        = authorizations{}
	_ goidc.RefreshTokenManager = authorizations{}
)

// errInvalidGrant is what a client hears that lost a race or comes with another key.
var errInvalidGrant = goidc.NewError(goidc.ErrorCodeInvalidGrant, "the code or refresh token is not good any more, or is bound to another key")

// versionKey is where a loaded authorization remembers the version that it was read at.
const versionKey = "version"

// SaveGrant writes an authorization: a new one, or one that was read before and did not change since. go-oidc calls it before it
// issues a token and gives up where it fails: of any number of redemptions of one code or refresh token exactly one gets through, and
// only with the key that the first one showed. An end always gets through.
func (s authorizations) SaveGrant(ctx context.Context, g *goidc.Grant) error {
	id := grantOf(g.ID)
	if g.RevokedAt != 0 {
		return s.endTokens(ctx, id)
	}
	row, body, err := authorizationRow(g)
	if err != nil {
		return err
	}
	version, known := g.Store[versionKey].(int64)
	if !known {
		err := s.Store.Update(ctx, func(tx *store.Tx) error { return createAuthorization(tx, row, g.AuthCode, body) })
		if errors.Is(err, store.ErrExists) {
			return goidc.NewError(goidc.ErrorCodeInvalidRequest, "the request was answered before")
		}
		return err
	}
	row.Version = version
	err = s.Store.Update(ctx, func(tx *store.Tx) error { return redeem(tx, row, g.RefreshToken, body.Refresh) })
	if errors.Is(err, store.ErrNotFound) {
		return errInvalidGrant
	}
	g.Store[versionKey] = version + 1
	return err
}

// createAuthorization stores an answered request with its code.
func createAuthorization(tx *store.Tx, row store.OAuthAuthorization, code string, body approved) error {
	if err := tx.PutOAuthAuthorization(row); err != nil {
		return err
	}
	return putCode(tx, row.Grant, code, body)
}

func putCode(tx *store.Tx, id chat.GrantID, code string, body approved) error {
	_, hash, ok := parseToken(code)
	if !ok {
		return errors.New("oauth: the code is malformed")
	}
	return tx.PutOAuthToken(store.OAuthToken{Grant: id, Hash: hash, Kind: store.OAuthCode, Expires: body.CodeExpires * 1000})
}

// redeem moves an authorization on, spends what was redeemed and stores the next refresh token.
func redeem(tx *store.Tx, row store.OAuthAuthorization, refresh string, expires int64) error {
	if err := tx.SwapOAuthAuthorization(row); err != nil {
		return err
	}
	for _, kind := range []store.OAuthTokenKind{store.OAuthCode, store.OAuthRefresh} {
		if err := tx.SpendOAuthTokens(row.Grant, kind); err != nil {
			return err
		}
	}
	_, hash, ok := parseToken(refresh)
	if !ok {
		return errors.New("oauth: the refresh token is malformed")
	}
	return tx.PutOAuthToken(store.OAuthToken{Grant: row.Grant, Hash: hash, Kind: store.OAuthRefresh, Expires: expires * 1000})
}

// authorizationRow is a grant of go-oidc as we store it: without codes and tokens.
func authorizationRow(g *goidc.Grant) (store.OAuthAuthorization, approved, error) {
	row := store.OAuthAuthorization{Grant: grantOf(g.ID), Client: g.ClientID}
	actions, validUntil, err := grantedOf(g.AuthDetails)
	if err != nil {
		return row, approved{}, err
	}
	if g.JWKThumbprint != "" {
		t, err := dpop.ParseThumbprint(g.JWKThumbprint)
		if err != nil {
			return row, approved{}, err
		}
		row.Thumbprint = t[:]
	}
	body := approved{
		Version: approvedVersion, RedirectURI: g.AuthParams.RedirectURI, Challenge: g.AuthParams.CodeChallenge,
		Actions: uint64(actions), ValidUntil: validUntil, Created: int64(g.CreatedAt),
		CodeExpires: int64(g.AuthCodeExpiresAt), CodeUsed: int64(g.AuthCodeConsumedAt),
		Refresh: min(int64(g.RefreshTokenExpiresAt), validUntil/1000),
	}
	row.Expires = max(body.CodeExpires, body.Refresh) * 1000
	row.Body = canon.MustMarshal(body)
	return row, body, nil
}

// grantedOf reads back what granted wrote.
func grantedOf(details []goidc.AuthDetail) (chat.Actions, int64, error) {
	if len(details) == 1 {
		names, _ := details[0]["actions"].([]any)
		validUntil, ok := details[0]["valid_until"].(int64)
		var list []string
		for _, n := range names {
			name, _ := n.(string)
			list = append(list, name)
		}
		if actions, err := chat.ParseActions(list); ok && err == nil {
			return actions, validUntil, nil
		}
	}
	return 0, 0, errors.New("oauth: granted details are malformed")
}

// goidcGrant is a stored authorization as go-oidc sees it.
func (s *Service) goidcGrant(row store.OAuthAuthorization) (*goidc.Grant, error) {
	var body approved
	if err := canon.Unmarshal(row.Body, &body); err != nil {
		return nil, err
	}
	g := &goidc.Grant{
		ID: row.Grant.String(), CreatedAt: int(body.Created), Subject: row.Grant.String(), ClientID: row.Client,
		AuthDetails:           granted(row.Grant, chat.Actions(body.Actions), body.ValidUntil),
		Resources:             goidc.Resources{s.resource()},
		RefreshTokenExpiresAt: int(body.Refresh),
		AuthParams: goidc.AuthorizationParameters{
			RedirectURI: body.RedirectURI, CodeChallenge: body.Challenge, CodeChallengeMethod: goidc.CodeChallengeMethodSHA256,
		},
		AuthCodeExpiresAt: int(body.CodeExpires), AuthCodeConsumedAt: int(body.CodeUsed),
		Store: map[string]any{versionKey: row.Version},
	}
	if len(row.Thumbprint) > 0 {
		g.JWKThumbprint = dpop.Thumbprint(row.Thumbprint).String()
	}
	if row.Ended {
		g.RevokedAt = 1
	}
	return g, nil
}

// Grant reads an authorization.
func (s authorizations) Grant(ctx context.Context, id string) (*goidc.Grant, error) {
	var row store.OAuthAuthorization
	err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
		row, err = tx.OAuthAuthorization(grantOf(id))
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil, goidc.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return s.goidcGrant(row)
}

// GrantByAuthCode reads the authorization of a code, also of one that was redeemed: go-oidc ends the tokens then (RFC 6749 section
// 4.1.2). The refresh token that comes with the first access token is made here, since it would be stored in clear before.
func (s requests) GrantByAuthCode(ctx context.Context, code string) (*goidc.Grant, error) {
	_, row, err := s.readToken(ctx, code, store.OAuthCode)
	if err != nil {
		return nil, err
	}
	if row.Ended { // go-oidc would answer with a code that RFC 6749 section 5.2 does not know
		return nil, goidc.ErrNotFound
	}
	g, err := s.goidcGrant(row)
	if err != nil {
		return nil, err
	}
	callFrom(ctx).grant = row.Grant
	g.RefreshToken = s.newToken(row.Grant)
	g.RefreshTokenExpiresAt = int(seconds(s.Now().Add(RefreshLifetime)))
	return g, nil
}

// GrantByRefreshToken reads the authorization of a refresh token. One that was used before ends all tokens of the grant (RFC 9700
// section 4.14.2), since either the partner or a thief has the next one; the permission stands.
func (s authorizations) GrantByRefreshToken(ctx context.Context, refresh string) (*goidc.Grant, error) {
	t, row, err := s.readToken(ctx, refresh, store.OAuthRefresh)
	if err != nil {
		return nil, err
	}
	if t.Spent {
		if ctx.Value(callKey{}) != nil { // introspecting or revoking it is no use of it
			err = s.endTokens(ctx, row.Grant)
		}
		return nil, errors.Join(goidc.ErrNotFound, err)
	}
	callFrom(ctx).grant = row.Grant
	return s.goidcGrant(row)
}

// readToken finds a token's row and its authorization.
func (s *Service) readToken(ctx context.Context, token string, kind store.OAuthTokenKind) (t store.OAuthToken, row store.OAuthAuthorization, err error) {
	id, hash, ok := parseToken(token)
	if !ok {
		return t, row, goidc.ErrNotFound
	}
	err = s.Store.View(ctx, func(tx *store.Tx) (err error) {
		t, row, err = tx.OAuthToken(id, hash, kind)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		err = goidc.ErrNotFound
	}
	return t, row, err
}

// nowSeconds is go-oidc's clock, which cannot be passed in. It measures only how long what it issues will be good; whether a token is
// good is judged by ours.
func nowSeconds() int { return int(time.Now().Unix()) }
