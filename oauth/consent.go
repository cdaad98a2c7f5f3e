package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/store"
)

// Consent answers with what a pushed request asks for; chat.NotFound or chat.Expired where it cannot be answered any more. Of the
// partner it knows the id only.
func (s *Service) Consent(ctx context.Context, requestID string) (api.ConsentRequest, error) {
	row, p, err := s.open(ctx, requestID)
	if err != nil {
		return api.ConsentRequest{}, err
	}
	return p.Detail.consent(requestID, row.Client, row.Expires), nil
}

// open reads a request that still waits for its answer, or was allowed with an answer that may have been lost: no code of it was
// redeemed yet.
func (s *Service) open(ctx context.Context, id string) (row store.OAuthRequest, p pushed, err error) {
	row, p, err = s.request(ctx, id)
	if err != nil {
		return row, p, err
	}
	if row.Expires <= s.Now().UnixMilli() {
		return row, p, chat.Errorf(chat.Expired, "this request is too old: go back to the app and ask again")
	}
	switch row.Decided {
	case store.OAuthUndecided:
		return row, p, nil
	case store.OAuthAllowed:
		return row, p, s.Store.View(ctx, func(tx *store.Tx) error { return unredeemed(tx, p.Detail.Grant) })
	}
	return row, p, errAnswered
}

var errAnswered = chat.Errorf(chat.Expired, "this request was answered already")

// unredeemed is nil while a code of the grant could still be redeemed.
func unredeemed(tx *store.Tx, id chat.GrantID) error {
	a, err := tx.OAuthAuthorization(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil // the server stopped between answer and code
	}
	if err != nil {
		return err
	}
	var body approved
	if err := canon.Unmarshal(a.Body, &body); err != nil {
		return err
	}
	if a.Ended || body.CodeUsed != 0 {
		return errAnswered
	}
	return nil
}

// Approve answers a request: the code is for exactly this grant. Fewer actions than asked for are fine, others are refused. The
// caller has made sure that the grant stands. The result is where the person's browser goes next. Until a code is redeemed, it may be
// called again: the codes given before are good no more.
func (s *Service) Approve(ctx context.Context, requestID string, grant chat.GrantID, actions chat.Actions) (string, error) {
	row, p, err := s.open(ctx, requestID)
	if err != nil {
		return "", err
	}
	if grant != p.Detail.Grant {
		return "", chat.Errorf(chat.Forbidden, "the request is for another grant")
	}
	if actions == 0 || !p.Detail.actions().Has(actions) {
		return "", chat.Errorf(chat.Forbidden, "a request can be narrowed and never widened")
	}
	if row.Decided == store.OAuthAllowed {
		return s.approveAgain(ctx, row.Client, p, actions)
	}
	return s.answer(ctx, requestID, row.Client, decision{allowed: true, actions: actions, detail: p.Detail})
}

// Refuse answers a request with no.
func (s *Service) Refuse(ctx context.Context, requestID string) (string, error) {
	row, p, err := s.open(ctx, requestID)
	if err == nil && row.Decided != store.OAuthUndecided {
		err = errAnswered
	}
	if err != nil {
		return "", err
	}
	return s.answer(ctx, requestID, row.Client, decision{detail: p.Detail})
}

// approveAgain gives another code for a request that was allowed, in place of those before.
func (s *Service) approveAgain(ctx context.Context, client string, p pushed, actions chat.Actions) (string, error) {
	now := s.Now()
	code := s.newToken(p.Detail.Grant)
	row, body, err := authorizationRow(&goidc.Grant{
		ID: p.Detail.Grant.String(), ClientID: client, CreatedAt: int(now.Unix()), JWKThumbprint: p.Thumbprint,
		AuthDetails:       granted(p.Detail.Grant, actions, p.Detail.ValidUntil),
		AuthParams:        goidc.AuthorizationParameters{RedirectURI: p.RedirectURI, CodeChallenge: p.Challenge},
		AuthCodeExpiresAt: int(now.Add(CodeLifetime).Unix()),
	})
	if err != nil {
		return "", err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := unredeemed(tx, row.Grant); err != nil {
			return err
		}
		if err := tx.ReplaceOAuthAuthorization(row); err != nil {
			return err
		}
		if err := tx.DropOAuthTokens(row.Grant, store.OAuthCode); err != nil {
			return err
		}
		return putCode(tx, row.Grant, code, body)
	})
	if err != nil {
		return "", err
	}
	u, err := url.Parse(p.RedirectURI)
	if err != nil {
		return "", err
	}
	q := u.Query()
	q.Set("code", code)
	q.Set("iss", s.Issuer)
	if p.State != "" {
		q.Set("state", p.State)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// decision is a person's answer on its way through go-oidc.
type decision struct {
	allowed bool
	actions chat.Actions
	detail  detail
}

type decisionKey struct{}

// decisionFrom finds the answer; without one, none was given.
func decisionFrom(ctx context.Context) decision {
	d, _ := ctx.Value(decisionKey{}).(decision)
	return d
}

// hasDecision keeps everybody out of go-oidc's authorization endpoint who does not come through answer.
func hasDecision(r *http.Request, _ *goidc.AuthnSession, _ *goidc.Client) bool {
	_, ok := r.Context().Value(decisionKey{}).(decision)
	return ok
}

// decide is go-oidc's policy: it turns the answer into what is granted.
func decide(resource string) goidc.AuthnFunc {
	return func(_ http.ResponseWriter, r *http.Request, as *goidc.AuthnSession, _ *goidc.Client) (goidc.Status, error) {
		d := decisionFrom(r.Context())
		if !d.allowed {
			return goidc.StatusFailure, goidc.NewError(goidc.ErrorCodeAccessDenied, "the person said no")
		}
		as.Subject = d.detail.Grant.String() // partners learn no account id
		as.GrantedAuthDetails = granted(d.detail.Grant, d.actions, d.detail.ValidUntil)
		as.GrantedResources = goidc.Resources{resource}
		return goidc.StatusSuccess, nil
	}
}

// answer drives go-oidc's authorization endpoint in the person's name and gives the redirect that it makes.
func (s *Service) answer(ctx context.Context, requestID, client string, d decision) (string, error) {
	q := url.Values{"client_id": {client}, "request_uri": {requestURIPrefix + requestID}}
	r, err := http.NewRequestWithContext(context.WithValue(ctx, decisionKey{}, d), http.MethodGet, s.Issuer+authorizePath+"?"+q.Encode(), nil)
	if err != nil {
		return "", err
	}
	r.RequestURI = r.URL.RequestURI()
	w := &captured{header: http.Header{}}
	s.protocol.ServeHTTP(w, r)
	to := w.header.Get("Location")
	if to == "" {
		return "", w.refusal()
	}
	u, err := url.Parse(to)
	if err != nil {
		return "", err
	}
	if d.allowed == (u.Query().Get("code") == "") {
		return "", errors.New("oauth: the answer did not become a code: " + u.Query().Get("error_description"))
	}
	return to, nil
}

// captured is an http.ResponseWriter that keeps what was written.
type captured struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (c *captured) Header() http.Header         { return c.header }
func (c *captured) WriteHeader(status int)      { c.status = status }
func (c *captured) Write(b []byte) (int, error) { return c.body.Write(b) }

// refusal turns go-oidc's error answer into ours: somebody answered the same request at the same moment, or it just ran out.
func (c *captured) refusal() error {
	var e struct {
		Description string `json:"error_description"`
	}
	if c.status >= http.StatusInternalServerError || json.Unmarshal(c.body.Bytes(), &e) != nil {
		return errors.New("oauth: the answer could not be recorded")
	}
	return chat.Errorf(chat.Expired, "the request cannot be answered any more: %s", e.Description)
}
