// Package httpclient makes the calls of package api over HTTP: a Device makes those of a person's client, an Agent those of a partner.
// Package httpd serves them.
//
// Each request carries a DPoP proof made for it alone. A session or access token that ran out is renewed once by itself. What the
// server refuses comes back as *chat.Error with the kind that the server gave; a server that cannot be reached is chat.Unavailable.
//
// It refuses redirects (a proof is made for one address), answers above MaxAnswer bytes, and waits no longer than the stated times.
// It keeps nothing on disk and judges nothing of what it carries.
package httpclient

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"letterlock/chat"
	"letterlock/dpop"
)

const (
	// MaxAnswer is the largest answer that is read, in bytes. A key chain of the most entries has 11 MB in base64.
	MaxAnswer = 32 << 20
	// maxProblem is how much of a refusal is read.
	maxProblem = 64 << 10
	// answerTime is how long a call may take, waiting that the caller asked for apart.
	answerTime = 30 * time.Second
	// maxSkew is how wrong our clock may be before the server's is used in proofs.
	maxSkew = 20 * time.Second
)

// Options are what both kinds of client need.
type Options struct {
	BaseURL string       // the server's public URL: an origin, without a slash at its end
	HTTP    *http.Client // its redirect policy and timeout are not used; nil means a transport of its own
	Now     func() time.Time
	Rand    io.Reader // names the proofs
}

// conn makes requests of one key.
type conn struct {
	base   string
	http   *http.Client
	signer *dpop.Signer
	tokens tokens
	skew   *atomic.Int64 // ns that the server's clock is ahead of ours
	now    func() time.Time
}

// tokens gives the access token for a request. old is the one that was refused, or empty; what comes back must differ from it.
type tokens interface {
	token(ctx context.Context, old string) (string, error)
}

func newConn(o Options, key ed25519.PrivateKey) (*conn, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || strings.HasSuffix(o.BaseURL, "/") {
		return nil, chat.Errorf(chat.Invalid, "the server's address must be like https://chat.example, without a path")
	}
	c := &conn{base: o.BaseURL, skew: new(atomic.Int64), now: o.Now, http: &http.Client{}}
	if o.HTTP != nil {
		*c.http = *o.HTTP
	} else {
		c.http.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	c.http.Timeout = 0
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.signer, err = dpop.NewSigner(key, o.Rand, func() time.Time { return c.now().Add(time.Duration(c.skew.Load())) })
	return c, err
}

// call is one request: JSON in, JSON out.
type call struct {
	method string
	path   string // escaped
	query  url.Values
	in     any           // nil: no body
	out    any           // nil: the answer has none; *[]byte: as it is
	open   bool          // without a token, with a proof
	wait   time.Duration // that the server was asked to wait
}

// do makes a call, and makes it once more where token or clock were the reason of a refusal.
func (c *conn) do(ctx context.Context, q call) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime+q.wait)
	defer cancel()
	var body []byte
	if q.in != nil {
		b, err := json.Marshal(q.in)
		if err != nil {
			return err
		}
		body = b
	}
	token, err := c.token(ctx, q, "")
	if err != nil {
		return err
	}
	err = c.once(ctx, q, body, token)
	if !chat.Is(err, chat.Unauthenticated) {
		return err
	}
	token, err2 := c.token(ctx, q, token)
	switch {
	case err2 == nil:
		return c.once(ctx, q, body, token)
	case chat.Is(err2, chat.Forbidden): // it says why: the account is blocked
		return err2
	}
	return err
}

func (c *conn) token(ctx context.Context, q call, old string) (string, error) {
	if q.open {
		return "", nil
	}
	return c.tokens.token(ctx, old)
}

func (c *conn) once(ctx context.Context, q call, body []byte, token string) error {
	r, err := http.NewRequestWithContext(ctx, q.method, c.base+q.path, bytes.NewReader(body))
	if err != nil {
		return chat.Wrap(chat.Invalid, err, "the address of this call is malformed")
	}
	r.URL.RawQuery = q.query.Encode()
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if err := c.sign(r.Header, q.method, c.base+q.path, token); err != nil {
		return err
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer answer.Body.Close()
	c.learnClock(answer)
	if answer.StatusCode >= 300 {
		return problem(answer)
	}
	return read(ctx, answer.Body, q.out)
}

// sign adds the proof for one request, and the token if there is one.
func (c *conn) sign(h http.Header, method, address, token string) error {
	proof, err := c.signer.Proof(method, address, token)
	if err != nil {
		return err
	}
	h.Set("DPoP", proof)
	if token != "" {
		h.Set("Authorization", "DPoP "+token)
	}
	return nil
}

// learnClock takes over the server's clock for proofs when a refusal may be due to ours.
func (c *conn) learnClock(answer *http.Response) {
	if answer.StatusCode != http.StatusUnauthorized {
		return
	}
	at, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return
	}
	if skew := at.Sub(c.now()); skew > maxSkew || skew < -maxSkew {
		c.skew.Store(int64(skew))
	}
}

func read(ctx context.Context, body io.Reader, out any) error {
	if out == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(body, MaxAnswer+1))
	if err != nil {
		return unreachable(ctx, err)
	}
	if len(b) > MaxAnswer {
		return chat.Errorf(chat.TooLarge, "the server's answer is larger than %d bytes", MaxAnswer)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return chat.Wrap(chat.Incompatible, err, "the server's answer is not what this version understands")
	}
	return nil
}

func unreachable(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return chat.Wrap(chat.Unavailable, err, "the server cannot be reached")
}

// problemType stands before the kind in a problem's type (package httpd, RFC 9457).
const problemType = "urn:letterlock:"

// problem reads a refusal.
func problem(answer *http.Response) error {
	var p struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
	}
	b, _ := io.ReadAll(io.LimitReader(answer.Body, maxProblem))
	kind, ok := "", false
	if json.Unmarshal(b, &p) == nil {
		kind, ok = strings.CutPrefix(p.Type, problemType)
	}
	if !ok {
		return chat.Errorf(kindOf(answer.StatusCode), "the server answered %s", strconv.Itoa(answer.StatusCode))
	}
	return chat.Errorf(chat.Kind(kind), "%s", p.Detail)
}

// kindOf guesses the kind of an answer that something between us and the server made.
func kindOf(status int) chat.Kind {
	switch {
	case status == http.StatusUnauthorized:
		return chat.Unauthenticated
	case status == http.StatusForbidden:
		return chat.Forbidden
	case status == http.StatusNotFound:
		return chat.NotFound
	case status == http.StatusRequestEntityTooLarge:
		return chat.TooLarge
	case status == http.StatusTooManyRequests:
		return chat.TooMany
	case status >= 500:
		return chat.Unavailable
	}
	return chat.Invalid
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }
