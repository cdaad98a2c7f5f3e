package httpclient

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"net/url"
	"strconv"

	"letterlock/api"
)

// Agent makes the calls of a partner's agent under one grant: api.Inbox. It is safe for concurrent use.
type Agent struct{ *conn }

var _ api.Inbox = (*Agent)(nil)

// TokenSource gives the access token of a grant. It must be safe for concurrent use.
type TokenSource interface {
	// Token returns a token that is good, and never the one that was just refused (empty on a first call): that one is renewed.
	Token(ctx context.Context, refused string) (string, error)
}

// NewAgent makes the client of one grant with the key that its tokens are bound to.
func NewAgent(o Options, key ed25519.PrivateKey, source TokenSource) (*Agent, error) {
	c, err := newConn(o, key)
	if err != nil {
		return nil, err
	}
	c.tokens = sourced{source}
	return &Agent{c}, nil
}

type sourced struct{ TokenSource }

func (s sourced) token(ctx context.Context, old string) (string, error) { return s.Token(ctx, old) }

// Grant asks what the agent may do now.
func (a *Agent) Grant(ctx context.Context) (out api.InboxGrant, err error) {
	err = a.do(ctx, call{method: http.MethodGet, path: "/inbox/v1/grant", out: &out})
	return out, err
}

// Slot fetches the newest announcement.
func (a *Agent) Slot(ctx context.Context) (out api.InboxSlot, err error) {
	err = a.do(ctx, call{method: http.MethodGet, path: "/inbox/v1/slot", out: &out})
	return out, err
}

// Post puts a letter through the slot.
func (a *Agent) Post(ctx context.Context, r api.InboxPost) (out api.Accepted, err error) {
	err = a.do(ctx, call{method: http.MethodPost, path: "/inbox/v1/posts", in: r, out: &out})
	return out, err
}

// TakeBack takes back a post.
func (a *Agent) TakeBack(ctx context.Context, r api.InboxTakeBack) (out api.Accepted, err error) {
	err = a.do(ctx, call{method: http.MethodPost, path: "/inbox/v1/take-backs", in: r, out: &out})
	return out, err
}

// Welcome fetches the Welcome that waits for the agent's leaf.
func (a *Agent) Welcome(ctx context.Context) (out api.MailboxWelcome, err error) {
	err = a.do(ctx, call{method: http.MethodGet, path: "/inbox/v1/welcome", out: &out})
	return out, err
}

// Changes fetches what the agent has not seen.
func (a *Agent) Changes(ctx context.Context, since string, limit int) (out api.InboxChanges, err error) {
	q := url.Values{"sinceState": {since}, "limit": {strconv.Itoa(limit)}}
	err = a.do(ctx, call{method: http.MethodGet, path: "/inbox/v1/changes", query: q, out: &out})
	return out, err
}

// CloseAccess hands in the receipt of an access period. It needs no token: the last receipt comes when the grant's tokens are over.
func (a *Agent) CloseAccess(ctx context.Context, receipt []byte) error {
	in := struct {
		Receipt []byte `json:"receipt"`
	}{receipt}
	return a.do(ctx, call{method: http.MethodPost, path: "/inbox/v1/receipts", in: in, open: true})
}

// Link makes a share link.
func (a *Agent) Link(ctx context.Context, r api.InboxLink) (out api.InboxLinked, err error) {
	err = a.do(ctx, call{method: http.MethodPost, path: "/inbox/v1/links", in: r, out: &out})
	return out, err
}

// PutFigures hands in the partner's own figures for the report.
func (a *Agent) PutFigures(ctx context.Context, r api.InboxFigures) error {
	return a.do(ctx, call{method: http.MethodPost, path: "/inbox/v1/figures", in: r})
}
