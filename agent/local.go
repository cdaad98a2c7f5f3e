package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"letterlock/chat"
)

// Limits of the local API.
const (
	maxLocalBody  = 128 << 10
	maxLocalCalls = 256 // at once; more are asked to come back
	defaultList   = 100
	maxList       = 500
)

// NewAuthorization is the body of POST /authorizations. One of pick, thread and previous.
type NewAuthorization struct {
	Actions   []string             `json:"actions"`
	Pick      bool                 `json:"pick,omitempty"`
	Thread    *chat.ConversationID `json:"thread,omitempty"`
	Previous  *chat.GrantID        `json:"previous,omitempty"`
	For       string               `json:"for,omitempty"`
	ValidDays int                  `json:"valid_days,omitempty"` // 30 if missing
}

// NewMessage is the body of POST /messages.
type NewMessage struct {
	Grant chat.GrantID `json:"grant"`
	Letter
}

// GrantList answers GET /grants.
type GrantList struct {
	Grants []Grant `json:"grants"`
}

// EvidenceList answers GET /evidence.
type EvidenceList struct {
	Evidence []Evidence `json:"evidence"`
}

// Health answers GET /healthz.
type Health struct {
	Status  string `json:"status"`
	Partner string `json:"partner"`
	Server  string `json:"server"`
}

const (
	defaultDays = 30
	maxDays     = 3660
)

// local is the API for the partner's backend.
type local struct {
	agent  *Agent
	secret string
	hosts  []string // that requests may name; nil: any (a unix socket)
	calls  chan struct{}
}

// Handler is the local JSON API. hosts are the names and ports under which it may be addressed: a page in a browser that rebinds its own
// name to our address is refused (DNS rebinding). nil allows any, for a unix socket.
func (a *Agent) Handler(secret string, hosts []string) http.Handler {
	l := &local{agent: a, secret: secret, hosts: hosts, calls: make(chan struct{}, maxLocalCalls)}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", l.open(l.health))
	mux.Handle("GET /callback", l.open(l.callback))
	mux.Handle("POST /authorizations", l.known(l.authorize))
	mux.Handle("GET /authorizations/{id}", l.known(l.authorization))
	mux.Handle("GET /grants", l.known(l.grants))
	mux.Handle("GET /grants/{id}", l.known(l.grant))
	mux.Handle("DELETE /grants/{id}", l.known(l.end))
	mux.Handle("POST /messages", l.known(l.send))
	mux.Handle("DELETE /messages/{id}", l.known(l.takeBack))
	mux.Handle("GET /changes", l.known(l.changes))
	mux.Handle("GET /evidence", l.known(l.evidence))
	mux.Handle("/", l.known(func(http.ResponseWriter, *http.Request) error {
		return chat.Errorf(chat.NotFound, "there is nothing at this address")
	}))
	return mux
}

type localHandler func(w http.ResponseWriter, r *http.Request) error

// open serves a call without the secret: what it answers holds nothing secret, or asks for another one (callback).
func (l *local) open(h localHandler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		select {
		case l.calls <- struct{}{}:
			defer func() { <-l.calls }()
		default:
			refuse(w, r, l.agent.log, chat.Errorf(chat.Unavailable, "the agent is busy with %d calls: try again", maxLocalCalls))
			return
		}
		err := l.checkHost(r)
		if err == nil {
			err = h(w, r)
		}
		if err != nil {
			refuse(w, r, l.agent.log, err)
		}
	})
}

// known serves a call of the partner's backend, which knows the secret.
func (l *local) known(h localHandler) http.Handler {
	return l.open(func(w http.ResponseWriter, r *http.Request) error {
		token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !ok || !chat.EqualBytes([]byte(token), []byte(l.secret)) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			return chat.Errorf(chat.Unauthenticated, "this call needs the header: Authorization: Bearer SECRET, with what the agent's file %s holds", secretFile)
		}
		return h(w, r)
	})
}

func (l *local) checkHost(r *http.Request) error {
	if l.hosts == nil {
		return nil
	}
	for _, h := range l.hosts {
		if strings.EqualFold(r.Host, h) {
			return nil
		}
	}
	return chat.Errorf(chat.Forbidden, "the agent is not addressed by this name")
}

func (l *local) health(w http.ResponseWriter, r *http.Request) error {
	return answer(w, http.StatusOK, Health{Status: "ok", Partner: l.agent.Partner(), Server: l.agent.Server()})
}

const (
	callbackDone    = "You can close this window.\n"
	callbackRefused = "Nothing was allowed. You can close this window.\n"
)

// callback takes the answer that the person's browser brings. The state in it is the secret that it needs.
func (l *local) callback(w http.ResponseWriter, r *http.Request) error {
	got, err := l.agent.Redeem(r.Context(), r.URL.Query())
	if err != nil {
		return err
	}
	text := callbackDone
	if got.Outcome != Granted {
		text = callbackRefused
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Referrer-Policy", "no-referrer") // the address holds the code
	_, err = io.WriteString(w, text)
	return err
}

func (l *local) authorize(w http.ResponseWriter, r *http.Request) error {
	var in NewAuthorization
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	ask, err := in.ask(l.agent.now())
	if err != nil {
		return err
	}
	out, err := l.agent.Authorize(r.Context(), ask)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func (in NewAuthorization) ask(now time.Time) (ask Ask, err error) {
	if ask.Actions, err = chat.ParseActions(in.Actions); err != nil {
		return ask, err
	}
	if in.ValidDays == 0 {
		in.ValidDays = defaultDays
	}
	if in.ValidDays < 1 || in.ValidDays > maxDays {
		return ask, chat.Errorf(chat.Invalid, "valid_days must be 1 to %d", maxDays)
	}
	ask.Pick, ask.For, ask.Until = in.Pick, in.For, now.AddDate(0, 0, in.ValidDays)
	if in.Thread != nil {
		ask.Thread = *in.Thread
	}
	if in.Previous != nil {
		ask.Previous = *in.Previous
	}
	return ask, nil
}

func (l *local) authorization(w http.ResponseWriter, r *http.Request) error {
	id, err := chat.ParseGrantID(r.PathValue("id"))
	if err != nil {
		return err
	}
	out, err := l.agent.Authorization(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (l *local) grants(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	list, err := l.agent.Grants(r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, GrantList{Grants: append([]Grant{}, list...)})
}

func (l *local) grant(w http.ResponseWriter, r *http.Request) error {
	id, err := chat.ParseGrantID(r.PathValue("id"))
	if err != nil {
		return err
	}
	out, err := l.agent.Check(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (l *local) end(w http.ResponseWriter, r *http.Request) error {
	id, err := chat.ParseGrantID(r.PathValue("id"))
	if err != nil {
		return err
	}
	return nothing(w, l.agent.End(r.Context(), id))
}

func (l *local) send(w http.ResponseWriter, r *http.Request) error {
	var in NewMessage
	if err := readBody(w, r, &in); err != nil {
		return err
	}
	out, err := l.agent.Send(r.Context(), in.Grant, in.Letter)
	if err != nil {
		return err
	}
	return answer(w, http.StatusCreated, out)
}

func (l *local) takeBack(w http.ResponseWriter, r *http.Request) error {
	id, err := chat.ParseMessageID(r.PathValue("id"))
	if err != nil {
		return err
	}
	g, err := chat.ParseGrantID(r.URL.Query().Get("grant"))
	if err != nil {
		return err
	}
	return nothing(w, l.agent.TakeBack(r.Context(), g, id))
}

func (l *local) changes(w http.ResponseWriter, r *http.Request) error {
	id, err := chat.ParseGrantID(r.URL.Query().Get("grant"))
	if err != nil {
		return err
	}
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	out, err := l.agent.Changes(r.Context(), id, r.URL.Query().Get("since"), limit)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, out)
}

func (l *local) evidence(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	list, err := l.agent.Evidence(r.URL.Query().Get("after"), limit)
	if err != nil {
		return err
	}
	return answer(w, http.StatusOK, EvidenceList{Evidence: append([]Evidence{}, list...)})
}

func limitOf(r *http.Request) (int, error) {
	text := r.URL.Query().Get("limit")
	if text == "" {
		return defaultList, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxList {
		return 0, chat.Errorf(chat.Invalid, "limit must be 1 to %d", maxList)
	}
	return n, nil
}

// readBody reads exactly one JSON object. Unknown fields and trailing data are refused: who misspells a field learns it at once.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(t), "application/json") {
		return chat.Errorf(chat.Invalid, "the body must be application/json")
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLocalBody))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var large *http.MaxBytesError
	var kinded *chat.Error
	switch {
	case errors.As(err, &large):
		return chat.Errorf(chat.TooLarge, "the body is larger than %d bytes", maxLocalBody)
	case errors.As(err, &kinded):
		return kinded
	case err != nil:
		return chat.Wrap(chat.Invalid, err, "the body is not the JSON that this call takes (unknown fields are refused)")
	}
	if _, err := d.Token(); err != io.EOF {
		return chat.Errorf(chat.Invalid, "there is more than one JSON value in the body")
	}
	return nil
}

func answer(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // a caller that is gone needs no answer
	return nil
}

func nothing(w http.ResponseWriter, err error) error {
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// problem is a refusal (RFC 9457).
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

const problemType = "urn:letterlock:"

// localStatus is the one place where a kind becomes a status of the local API.
var localStatus = map[chat.Kind]int{
	chat.Invalid: 400, chat.Unauthenticated: 401, chat.Forbidden: 403, chat.Unproven: 403, chat.NotFound: 404, chat.Exists: 409,
	chat.StaleEpoch: 409, chat.Blocked: 409, chat.Tampered: 409, chat.Expired: 410, chat.Gone: 410, chat.TooLarge: 413,
	chat.Mismatch: 422, chat.TooMany: 429, chat.Incompatible: 501, chat.Unavailable: 503, chat.NoQuorum: 503,
}

const retryAfter = "5" // seconds

func refuse(w http.ResponseWriter, r *http.Request, log *slog.Logger, err error) {
	p := problem{Type: problemType + string(chat.Internal), Status: http.StatusInternalServerError, Detail: "the agent failed; it was logged"}
	var e *chat.Error
	if errors.As(err, &e) && localStatus[e.Kind] != 0 {
		p = problem{Type: problemType + string(e.Kind), Status: localStatus[e.Kind], Detail: e.Detail}
	} else {
		log.Error("a call failed", slog.String("route", r.Pattern), slog.Any("error", err))
	}
	p.Title = http.StatusText(p.Status)
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}

// Serve serves the local API on a listener that Listen made, until ctx ends; calls that are under way are finished.
func (a *Agent) Serve(ctx context.Context, listener net.Listener, secret string) error {
	if t, ok := listener.Addr().(*net.TCPAddr); ok && t.IP.To4() != nil && a.config.RedirectURI == DefaultRedirect {
		a.redirect = AddressOf(listener) + "/callback"
	}
	s := &http.Server{Handler: a.Handler(secret, hostsOf(listener)), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}
	watch, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() { defer close(watched); a.Watch(watch) }()
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(listener) }()
	select {
	case err := <-failed:
		cancel()
		<-watched
		return err
	case <-ctx.Done():
	}
	<-watched
	grace, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	return s.Shutdown(grace)
}

// unixPrefix marks the address of a unix socket.
const unixPrefix = "unix:"

// Listen opens the local API's address: HOST:PORT on loopback, or unix:PATH. Anything else is refused: plaintext stays on this machine.
func Listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		return listenUnix(path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil || !loopback(host) {
		return nil, chat.Errorf(chat.Invalid, "the agent listens on loopback only: 127.0.0.1:PORT, [::1]:PORT or unix:PATH")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, chat.Wrap(chat.Unavailable, err, "the agent cannot listen on %s", address)
	}
	return l, nil
}

// loopback reports whether a host is this machine.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// hostsOf lists the names under which a listener may be addressed.
func hostsOf(l net.Listener) []string {
	t, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return nil
	}
	port := strconv.Itoa(t.Port)
	return []string{net.JoinHostPort(t.IP.String(), port), net.JoinHostPort("localhost", port)}
}

// AddressOf is where a listener is reached: a URL, or unix:PATH.
func AddressOf(l net.Listener) string {
	if l.Addr().Network() == "unix" {
		return unixPrefix + l.Addr().String()
	}
	return (&url.URL{Scheme: "http", Host: l.Addr().String()}).String()
}
