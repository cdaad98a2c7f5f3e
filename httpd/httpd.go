// Package httpd turns HTTP into calls of the api interfaces and their answers back into HTTP. It owns what belongs to the wire:
// routes, size limits, JSON, tokens and DPoP proofs out of headers, problems (RFC 9457), rate limits by address, security headers.
//
// Neighbours: api is the contract; account, delivery, inbox and ledger stand behind it; oauth brings a handler of its own.
// It decides no permission, holds no SQL and never passes on a caller that it did not authenticate.
package httpd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/dpop"
)

// Sessions knows which device holds a token: account.Service.
type Sessions interface {
	// Authenticate checks the token in r and the proof of its key. A token that is unknown, old or without its key is Unauthenticated.
	Authenticate(ctx context.Context, r dpop.Request) (api.Caller, error)
}

// Agents knows which grant stands behind an access token: oauth.Service.
type Agents interface {
	// Authenticate checks the token in r and the proof of its key. It says nothing about what the grant allows now.
	Authenticate(ctx context.Context, r dpop.Request) (api.AgentCaller, error)
}

// Config is what the HTTP layer serves. A part that is nil is not routed.
type Config struct {
	PublicURL string // origin under which clients reach the server: scheme, host, port; proofs are made for it

	Accounts      api.Accounts
	Conversations api.Conversations
	Permission    api.Permission
	Inbox         api.Inbox
	Links         Links // /l/: share links

	Sessions Sessions // for every call of a device
	Agents   Agents   // for every call of the Inbox API

	OAuth http.Handler // /oauth/ and its metadata under /.well-known/
	Log   http.Handler // /log/
	Pages http.Handler // /log, /log.json, /log/partners/: the log for people

	Live func(ctx context.Context, ready func()) (*delivery.Stream, error) // the live connection: delivery.Service.Open

	Logger *slog.Logger
	Now    func() time.Time

	ExemptLoopback bool // no rate limits for callers from loopback: for tests and benchmarks, never behind a proxy
}

type server struct {
	Config
	openCalls *limiter // calls that need no session, by address
}

// New builds the handler of a server.
func New(c Config) http.Handler {
	s := &server{Config: c, openCalls: newLimiter(c.Now, openPerMinute, openBurst)}
	mux := http.NewServeMux()
	s.routesAccounts(mux)
	s.routesConversations(mux)
	s.routesLive(mux)
	s.routesPermission(mux)
	s.routesInbox(mux)
	s.routesOAuth(mux)
	if s.Log != nil {
		mux.Handle("/log/", s.Log)
	}
	if s.Pages != nil {
		mux.Handle("GET /log", s.Pages)
		mux.Handle("GET /log.json", s.Pages)
		mux.Handle("GET /log/partners/", s.Pages)
	}
	mux.Handle("/", s.open(notFound))
	return s.recovered(s.secured(mux))
}

func notFound(http.ResponseWriter, *http.Request) error {
	return chat.Errorf(chat.NotFound, "there is nothing at this address")
}

// secured sets the headers that make a browser treat our answers as data and nothing else.
func (s *server) secured(next http.Handler) http.Handler {
	https := strings.HasPrefix(s.PublicURL, "https:")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		if https {
			h.Set("Strict-Transport-Security", "max-age=63072000")
		}
		next.ServeHTTP(w, r)
	})
}

// handler answers a request or returns why not.
type handler func(w http.ResponseWriter, r *http.Request) error

// open serves a call that needs no token.
func (s *server) open(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.refuse(w, r, err)
		}
	})
}

// authenticated serves a call of a signed-in device: api.CallerFrom finds it.
func (s *server) authenticated(h handler) http.Handler {
	return s.open(func(w http.ResponseWriter, r *http.Request) error {
		q, err := s.tokenRequest(r)
		if err != nil {
			return err
		}
		c, err := s.Sessions.Authenticate(r.Context(), q)
		if err != nil {
			return err
		}
		c.Unlimited = s.exempt(r)
		return h(w, r.WithContext(api.WithCaller(r.Context(), c)))
	})
}

// agent serves a call of a partner's agent: api.AgentFrom finds it.
func (s *server) agent(h handler) http.Handler {
	return s.open(func(w http.ResponseWriter, r *http.Request) error {
		q, err := s.tokenRequest(r)
		if err != nil {
			return err
		}
		a, err := s.Agents.Authenticate(r.Context(), q)
		if err != nil {
			return err
		}
		return h(w, r.WithContext(api.WithAgent(r.Context(), a)))
	})
}

// maxToken is the longest access token that is looked up, in bytes. Ours have 43.
const maxToken = 256

// tokenRequest finds token and proof in the headers (RFC 9449 section 7.1). Two headers of either are refused, not merged.
func (s *server) tokenRequest(r *http.Request) (dpop.Request, error) {
	auth := r.Header.Values("Authorization")
	if len(auth) != 1 {
		return dpop.Request{}, chat.Errorf(chat.Unauthenticated, "this call needs one header: Authorization: DPoP TOKEN")
	}
	scheme, token, _ := strings.Cut(auth[0], " ")
	if !strings.EqualFold(scheme, "DPoP") || token == "" || len(token) > maxToken {
		return dpop.Request{}, chat.Errorf(chat.Unauthenticated, "the Authorization header must read: DPoP TOKEN")
	}
	q, err := s.proofRequest(r)
	q.Token = token
	return q, err
}

// proofRequest finds the proof alone, for calls without a token yet. The address is the public one: a Host header proves nothing.
func (s *server) proofRequest(r *http.Request) (dpop.Request, error) {
	proofs := r.Header.Values("DPoP")
	if len(proofs) != 1 {
		return dpop.Request{}, chat.Errorf(chat.Unauthenticated, "this call needs one DPoP header")
	}
	return dpop.Request{Proof: proofs[0], Method: r.Method, URL: s.PublicURL + r.URL.EscapedPath()}, nil
}

// call serves a call that takes and gives JSON; bodies above limit bytes are refused.
func call[In, Out any](limit int64, f func(context.Context, In) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := readJSON(w, r, limit, &in); err != nil {
			return err
		}
		out, err := f(r.Context(), in)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, out)
	}
}

// put serves a call that takes JSON and answers 204.
func put[In any](limit int64, f func(context.Context, In) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		var in In
		if err := readJSON(w, r, limit, &in); err != nil {
			return err
		}
		return done(w, f(r.Context(), in))
	}
}

// get serves a call that gives JSON and takes nothing but its path and query.
func get[Out any](f func(r *http.Request) (Out, error)) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		out, err := f(r)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, out)
	}
}

// do serves a call without bodies.
func do(f func(r *http.Request) error) handler {
	return func(w http.ResponseWriter, r *http.Request) error { return done(w, f(r)) }
}

func done(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// readJSON reads exactly one JSON value of at most limit bytes. Unknown fields and trailing data are refused: a caller that
// misspells a field learns it at once.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(t), "application/json") {
		return chat.Errorf(chat.Invalid, "the body must be application/json")
	}
	if r.ContentLength > limit {
		return chat.Errorf(chat.TooLarge, "the body is larger than %d bytes", limit)
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, limit))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badJSON(err)
	}
	if _, err := d.Token(); err != io.EOF {
		return chat.Errorf(chat.Invalid, "there is more than one JSON value in the body")
	}
	return nil
}

// badJSON says what is wrong with a body. The decoder's own sentences name fields and types, never values.
func badJSON(err error) error {
	var large *http.MaxBytesError
	var kinded *chat.Error
	switch {
	case errors.As(err, &large):
		return chat.Errorf(chat.TooLarge, "the body is larger than %d bytes", large.Limit)
	case errors.As(err, &kinded):
		return kinded
	}
	return chat.Wrap(chat.Invalid, err, "the body is not the JSON this call takes (unknown fields are refused)")
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	w.Write(b) // a caller that is gone needs no answer
	return nil
}

// queryUint reads a number from the query: def where it is missing, Invalid where it is not a number up to most.
func queryUint(r *http.Request, name string, def, most uint64) (uint64, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(v, 10, 64)
	if err != nil || n > most {
		return 0, chat.Errorf(chat.Invalid, "%s must be a number from 0 to %d", name, most)
	}
	return n, nil
}

// CheckPublicURL says whether u is an origin: http or https, host, perhaps a port, and nothing after it.
func CheckPublicURL(u string) error {
	p, err := url.Parse(u)
	if err != nil || (p.Scheme != "http" && p.Scheme != "https") || p.User != nil || p.Path != "" || p.RawQuery != "" || p.Fragment != "" {
		return chat.Errorf(chat.Invalid, "the public URL must be an origin like https://chat.example, without a path")
	}
	return chat.CheckHost(p.Host)
}
