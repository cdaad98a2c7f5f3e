package store

import (
	"errors"
	"fmt"
	"strings"

	"letterlock/chat"
)

// OAuthClient is a partner as the authorization server knows it.
type OAuthClient struct {
	ID           string // the partner's id
	JWKS         []byte // RFC 7517, public keys
	RedirectURIs []string
	Created      int64
}

// PutOAuthClient registers a client or replaces its keys and addresses.
func (tx *Tx) PutOAuthClient(c OAuthClient) error {
	_, err := tx.exec(`INSERT INTO oauth_clients (client, jwks, redirect_uris, created) VALUES ($1, $2, $3, $4)
		ON CONFLICT (client) DO UPDATE SET jwks = excluded.jwks, redirect_uris = excluded.redirect_uris`,
		c.ID, c.JWKS, strings.Join(c.RedirectURIs, "\n"), c.Created)
	return err
}

// OAuthClient reads a client.
func (tx *Tx) OAuthClient(id string) (OAuthClient, error) {
	c := OAuthClient{ID: id}
	var uris string
	err := tx.one([]any{&c.JWKS, &uris, &c.Created}, `SELECT jwks, redirect_uris, created FROM oauth_clients WHERE client = $1`, id)
	c.RedirectURIs = strings.Split(uris, "\n")
	return c, err
}

// OAuthDecision is how a request was answered.
type OAuthDecision int64

// The answers.
const (
	OAuthUndecided OAuthDecision = 0
	OAuthAllowed   OAuthDecision = 1
	OAuthRefused   OAuthDecision = 2
)

// OAuthRequest is a pushed authorization request.
type OAuthRequest struct {
	Hash    [32]byte
	Client  string
	Body    []byte
	Expires int64
	Decided OAuthDecision
}

// PutOAuthRequest stores a request that waits for its answer.
func (tx *Tx) PutOAuthRequest(r OAuthRequest) error {
	return tx.insert(`INSERT INTO oauth_requests (request_hash, client, request, expires, decided) VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING`,
		r.Hash[:], r.Client, r.Body, r.Expires)
}

// OAuthRequest reads a request.
func (tx *Tx) OAuthRequest(hash [32]byte) (OAuthRequest, error) {
	r := OAuthRequest{Hash: hash}
	err := tx.one([]any{&r.Client, &r.Body, &r.Expires, &r.Decided},
		`SELECT client, request, expires, decided FROM oauth_requests WHERE request_hash = $1`, hash[:])
	return r, err
}

// DecideOAuthRequest notes that a request was answered; ErrNotFound if it was before.
func (tx *Tx) DecideOAuthRequest(hash [32]byte, d OAuthDecision) error {
	return tx.change(`UPDATE oauth_requests SET decided = $1 WHERE request_hash = $2 AND decided = 0`, int64(d), hash[:])
}

// OAuthAuthorization is what an approved request became.
type OAuthAuthorization struct {
	Grant      chat.GrantID
	Client     string
	Version    int64
	Thumbprint []byte // 32 bytes, or none yet
	Ended      bool
	Expires    int64
	Body       []byte
}

// PutOAuthAuthorization stores a new one as version 1; ErrExists if the grant has one.
func (tx *Tx) PutOAuthAuthorization(a OAuthAuthorization) error {
	return tx.insert(`INSERT INTO oauth_authorizations (grant_id, client, version, thumbprint, ended, expires, body) VALUES ($1, $2, 1, $3, 0, $4, $5)
		ON CONFLICT DO NOTHING`, a.Grant[:], a.Client, notNull(a.Thumbprint), a.Expires, a.Body)
}

// ReplaceOAuthAuthorization stores one in place of any that the grant has, unless that one ended.
func (tx *Tx) ReplaceOAuthAuthorization(a OAuthAuthorization) error {
	err := tx.PutOAuthAuthorization(a)
	if !errors.Is(err, ErrExists) {
		return err
	}
	return tx.change(`UPDATE oauth_authorizations SET client = $1, thumbprint = $2, expires = $3, body = $4, version = version + 1
		WHERE grant_id = $5 AND ended = 0`, a.Client, notNull(a.Thumbprint), a.Expires, a.Body, a.Grant[:])
}

// SwapOAuthAuthorization changes one from the version that was read to the next; ErrNotFound if it changed or ended in between, or if
// it is bound to another key than a's already.
func (tx *Tx) SwapOAuthAuthorization(a OAuthAuthorization) error {
	return tx.change(`UPDATE oauth_authorizations SET thumbprint = $1, expires = $2, body = $3, version = version + 1
		WHERE grant_id = $4 AND version = $5 AND ended = 0 AND (thumbprint = $1 OR LENGTH(thumbprint) = 0)`,
		notNull(a.Thumbprint), a.Expires, a.Body, a.Grant[:], a.Version)
}

// EndOAuthAuthorization ends every token of a grant. Nothing undoes it.
func (tx *Tx) EndOAuthAuthorization(id chat.GrantID) error {
	_, err := tx.exec(`UPDATE oauth_authorizations SET ended = 1, version = version + 1 WHERE grant_id = $1 AND ended = 0`, id[:])
	return err
}

const authorizationColumns = `a.client, a.version, a.thumbprint, a.ended, a.expires, a.body`

func (a *OAuthAuthorization) columns() []any {
	return []any{&a.Client, &a.Version, &a.Thumbprint, &a.Ended, &a.Expires, &a.Body}
}

// OAuthAuthorization reads one.
func (tx *Tx) OAuthAuthorization(id chat.GrantID) (OAuthAuthorization, error) {
	a := OAuthAuthorization{Grant: id}
	err := tx.one(a.columns(), `SELECT `+authorizationColumns+` FROM oauth_authorizations a WHERE a.grant_id = $1`, id[:])
	return a, err
}

// OAuthTokenKind is what a token is for.
type OAuthTokenKind int64

// The kinds of token.
const (
	OAuthCode    OAuthTokenKind = 1
	OAuthAccess  OAuthTokenKind = 2
	OAuthRefresh OAuthTokenKind = 3
)

// OAuthToken is one token's row.
type OAuthToken struct {
	Grant   chat.GrantID
	Hash    [32]byte
	Kind    OAuthTokenKind
	Expires int64
	Spent   bool
}

// PutOAuthToken stores a token.
func (tx *Tx) PutOAuthToken(t OAuthToken) error {
	return tx.insert(`INSERT INTO oauth_tokens (grant_id, token_hash, kind, expires, spent) VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING`,
		t.Grant[:], t.Hash[:], int64(t.Kind), t.Expires)
}

// OAuthToken reads a token of a kind and the authorization that it belongs to.
func (tx *Tx) OAuthToken(id chat.GrantID, hash [32]byte, kind OAuthTokenKind) (t OAuthToken, a OAuthAuthorization, err error) {
	t, a = OAuthToken{Grant: id, Hash: hash, Kind: kind}, OAuthAuthorization{Grant: id}
	err = tx.one(append([]any{&t.Expires, &t.Spent}, a.columns()...), `SELECT t.expires, t.spent, `+authorizationColumns+`
		FROM oauth_tokens t JOIN oauth_authorizations a ON a.grant_id = t.grant_id
		WHERE t.grant_id = $1 AND t.token_hash = $2 AND t.kind = $3`, id[:], hash[:], int64(kind))
	return t, a, err
}

// SpendOAuthToken notes that a token was redeemed or revoked.
func (tx *Tx) SpendOAuthToken(id chat.GrantID, hash [32]byte) error {
	_, err := tx.exec(`UPDATE oauth_tokens SET spent = 1 WHERE grant_id = $1 AND token_hash = $2`, id[:], hash[:])
	return err
}

// SpendOAuthTokens notes that every token of a kind was redeemed or rotated.
func (tx *Tx) SpendOAuthTokens(id chat.GrantID, kind OAuthTokenKind) error {
	_, err := tx.exec(`UPDATE oauth_tokens SET spent = 1 WHERE grant_id = $1 AND kind = $2`, id[:], int64(kind))
	return err
}

// DropOAuthTokens forgets every token of a kind, as if it had never been given.
func (tx *Tx) DropOAuthTokens(id chat.GrantID, kind OAuthTokenKind) error {
	_, err := tx.exec(`DELETE FROM oauth_tokens WHERE grant_id = $1 AND kind = $2`, id[:], int64(kind))
	return err
}

// SweepOAuth drops what expired before a time.
func (tx *Tx) SweepOAuth(before int64) error {
	var errs []error
	for _, q := range []string{
		`DELETE FROM oauth_requests WHERE expires < $1`,
		`DELETE FROM oauth_tokens WHERE expires < $1`,
		`DELETE FROM oauth_authorizations WHERE expires < $1`,
	} {
		if _, err := tx.exec(q, before); err != nil {
			errs = append(errs, fmt.Errorf("store: sweep: %w", err))
		}
	}
	return errors.Join(errs...)
}

// notNull stores no bytes as empty ones.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
