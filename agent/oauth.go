package agent

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"letterlock/chat"
	"letterlock/dpop"
)

const (
	maxOAuthAnswer = 64 << 10
	oauthTime      = 30 * time.Second
	assertionFor   = time.Minute
	// InboxResource is added to the server's address: the resource indicator of the Inbox API (RFC 8707).
	inboxResource = "/inbox"
)

// metadata is what is used of RFC 8414.
type metadata struct {
	Issuer        string `json:"issuer"`
	Authorization string `json:"authorization_endpoint"`
	Token         string `json:"token_endpoint"`
	PAR           string `json:"pushed_authorization_request_endpoint"`
	Revocation    string `json:"revocation_endpoint"`
}

// oauthClient speaks OAuth 2.1 with one server, as one client that shows who it is with a signed assertion (RFC 7523).
type oauthClient struct {
	server, partner string
	key             clientKey
	http            *http.Client
	now             func() time.Time
	rand            io.Reader

	mu   sync.Mutex
	meta *metadata // nil: not fetched
}

func newOAuthClient(c config, key clientKey, h *http.Client, now func() time.Time, rand io.Reader) *oauthClient {
	own := *h
	own.Timeout = oauthTime
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &oauthClient{server: c.Server.URL, partner: c.Partner, key: key, http: &own, now: now, rand: rand}
}

// jwk is the client key as the operator registers it; its key id is its thumbprint.
func (k clientKey) jwk() jose.JSONWebKey {
	j := jose.JSONWebKey{Key: public(k), Algorithm: string(jose.EdDSA), Use: "sig"}
	sum, _ := j.Thumbprint(crypto.SHA256) // an Ed25519 key always has one
	j.KeyID = base64.RawURLEncoding.EncodeToString(sum)
	return j
}

// checkRedirect says whether people can be sent back there: https, or http on loopback (RFC 8252 section 7.3).
func checkRedirect(uri string) error {
	u, err := url.Parse(uri)
	if err != nil || u.Host == "" || u.Fragment != "" || u.User != nil {
		return chat.Errorf(chat.Invalid, "the redirect URI must be an absolute URL without a fragment")
	}
	if u.Scheme == "https" || u.Scheme == "http" && u.Hostname() != "localhost" && loopback(u.Hostname()) {
		return nil
	}
	return chat.Errorf(chat.Invalid, "the redirect URI must be https, or http on 127.0.0.1 or [::1]")
}

// discover fetches the server's metadata once. Every address in it must be the server's own (RFC 8414 section 3.3, RFC 9700 section 4.4).
func (c *oauthClient) discover(ctx context.Context) (metadata, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.meta != nil {
		return *c.meta, nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+"/.well-known/oauth-authorization-server", nil)
	if err != nil {
		return metadata{}, err
	}
	var m metadata
	if err := c.answer(r, &m); err != nil {
		return metadata{}, err
	}
	if m.Issuer != c.server {
		return metadata{}, chat.Errorf(chat.Tampered, "the authorization server calls itself by another name than %s", c.server)
	}
	for _, address := range []string{m.Authorization, m.Token, m.PAR, m.Revocation} {
		if !strings.HasPrefix(address, c.server+"/") {
			return metadata{}, chat.Errorf(chat.Tampered, "the authorization server's metadata points elsewhere")
		}
	}
	c.meta = &m
	return m, nil
}

// assertion says who the client is (RFC 7523 section 3), for this server alone and for a minute.
func (c *oauthClient) assertion() (string, error) {
	j := c.key.jwk()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: ed25519.PrivateKey(c.key)},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", j.KeyID))
	if err != nil {
		return "", err
	}
	id, err := c.random()
	if err != nil {
		return "", err
	}
	now := c.now()
	return jwt.Signed(signer).Claims(jwt.Claims{Issuer: c.partner, Subject: c.partner, Audience: jwt.Audience{c.server}, ID: id,
		IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(assertionFor))}).Serialize()
}

// random is 32 random bytes in base64url: identifiers, states, verifiers.
func (c *oauthClient) random() (string, error) {
	var b [32]byte
	if _, err := io.ReadFull(c.rand, b[:]); err != nil {
		return "", fmt.Errorf("agent: no randomness: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b[:]), nil
}

// post makes a call of the authorization server as this client, with a proof of the grant's key (RFC 9449).
func (c *oauthClient) post(ctx context.Context, address string, form url.Values, key grantKey, out any) error {
	assertion, err := c.assertion()
	if err != nil {
		return err
	}
	form.Set("client_id", c.partner)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	signer, err := dpop.NewSigner(ed25519.PrivateKey(key), c.rand, c.now)
	if err != nil {
		return err
	}
	proof, err := signer.Proof(http.MethodPost, address, "")
	if err != nil {
		return err
	}
	r.Header.Set("DPoP", proof)
	return c.answer(r, out)
}

// oauthError is the error form of RFC 6749 section 5.2.
type oauthError struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
}

func (e *oauthError) Error() string { return "oauth: " + e.Code }

// answer sends a request and reads JSON. What the authorization server refuses is an *oauthError below a *chat.Error.
func (c *oauthClient) answer(r *http.Request, out any) error {
	r.Header.Set("Accept", "application/json")
	a, err := c.http.Do(r)
	if err != nil {
		return unreachable(r.Context(), err)
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxOAuthAnswer+1))
	if err != nil {
		return unreachable(r.Context(), err)
	}
	switch {
	case len(b) > maxOAuthAnswer:
		return chat.Errorf(chat.TooLarge, "the authorization server's answer is larger than %d bytes", maxOAuthAnswer)
	case a.StatusCode >= 300:
		return refused(a.StatusCode, b)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return chat.Errorf(chat.Incompatible, "the authorization server's answer is not JSON of the expected form")
	}
	return nil
}

func unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address, which may hold a code
	}
	return chat.Wrap(chat.Unavailable, err, "the server cannot be reached")
}

func refused(status int, body []byte) error {
	var e oauthError
	if json.Unmarshal(body, &e) != nil {
		e = oauthError{}
	}
	e.Code, e.Description = plainText(e.Code, 64), plainText(e.Description, 200)
	if e.Code == "" {
		e.Code = fmt.Sprintf("http_%d", status)
	}
	kind := chat.Forbidden
	switch {
	case status >= 500:
		kind = chat.Unavailable
	case status == http.StatusTooManyRequests:
		kind = chat.TooMany
	case e.Code == "invalid_client":
		kind = chat.Unauthenticated
	case e.Code == "invalid_request" || e.Code == "invalid_authorization_details":
		kind = chat.Invalid
	}
	return chat.Wrap(kind, &e, "the authorization server refused: %s", strings.TrimSpace(e.Code+" "+e.Description))
}

// isInvalidGrant tells that code or refresh token are not, or no longer, good.
func isInvalidGrant(err error) bool {
	var e *oauthError
	return errors.As(err, &e) && e.Code == "invalid_grant"
}

// details is an authorization_details entry of type inbox_conversation (RFC 9396; spec/oauth.md).
type details struct {
	Type       string       `json:"type"`
	Actions    []string     `json:"actions"`
	Identifier string       `json:"identifier,omitempty"`
	Pick       bool         `json:"pick,omitempty"`
	Grant      chat.GrantID `json:"grant_id"`
	Certs      []byte       `json:"certs"`
	KeyPackage []byte       `json:"key_package,omitempty"`
	ValidUntil int64        `json:"valid_until"`
}

const detailsType = "inbox_conversation"

// push pushes an authorization request (RFC 9126) and returns the address where the person decides, and until when.
func (c *oauthClient) push(ctx context.Context, d details, q asked, key grantKey) (address string, expires int64, err error) {
	m, err := c.discover(ctx)
	if err != nil {
		return "", 0, err
	}
	wanted, err := json.Marshal([]details{d})
	if err != nil {
		return "", 0, err
	}
	challenge := sha256.Sum256([]byte(q.Verifier))
	form := url.Values{
		"response_type": {"code"}, "redirect_uri": {q.Redirect}, "state": {q.State}, "authorization_details": {string(wanted)},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
		"resource": {c.server + inboxResource},
	}
	var out struct {
		RequestURI string `json:"request_uri"`
		ExpiresIn  int64  `json:"expires_in"`
	}
	at := c.now()
	if err := c.post(ctx, m.PAR, form, key, &out); err != nil {
		return "", 0, err
	}
	if out.RequestURI == "" || out.ExpiresIn <= 0 {
		return "", 0, chat.Errorf(chat.Incompatible, "the authorization server's answer lacks the request")
	}
	to := url.Values{"client_id": {c.partner}, "request_uri": {out.RequestURI}}
	return m.Authorization + "?" + to.Encode(), at.Add(time.Duration(out.ExpiresIn) * time.Second).UnixMilli(), nil
}

// exchange turns a code into tokens.
func (c *oauthClient) exchange(ctx context.Context, code string, q asked, key grantKey) (tokens, error) {
	return c.tokens(ctx, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "code_verifier": {q.Verifier},
		"redirect_uri": {q.Redirect}, "resource": {c.server + inboxResource}}, key)
}

// refresh turns a refresh token into new tokens. The old one is dead from here on, whether or not the answer arrives.
func (c *oauthClient) refresh(ctx context.Context, refresh string, key grantKey) (tokens, error) {
	return c.tokens(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "resource": {c.server + inboxResource}}, key)
}

func (c *oauthClient) tokens(ctx context.Context, form url.Values, key grantKey) (t tokens, err error) {
	m, err := c.discover(ctx)
	if err != nil {
		return t, err
	}
	var out struct {
		Access    string `json:"access_token"`
		Type      string `json:"token_type"`
		ExpiresIn int64  `json:"expires_in"`
		Refresh   string `json:"refresh_token"`
	}
	at := c.now()
	if err := c.post(ctx, m.Token, form, key, &out); err != nil {
		return t, err
	}
	if out.Access == "" || !strings.EqualFold(out.Type, "DPoP") {
		return t, chat.Errorf(chat.Incompatible, "the authorization server gave a token that is not bound to a key")
	}
	return tokens{Version: stateVersion, Access: out.Access, Expires: at.Add(time.Duration(out.ExpiresIn) * time.Second).UnixMilli(), Refresh: out.Refresh}, nil
}

// revoke gives tokens up (RFC 7009).
func (c *oauthClient) revoke(ctx context.Context, token string, key grantKey) error {
	m, err := c.discover(ctx)
	if err != nil {
		return err
	}
	return c.post(ctx, m.Revocation, url.Values{"token": {token}}, key, nil)
}
