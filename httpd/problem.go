package httpd

import (
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"letterlock/chat"
	"letterlock/store"
)

// Problem is the body of every refusal: problem details of RFC 9457, media type application/problem+json.
type Problem struct {
	Type   string `json:"type"` // ProblemType + the chat.Kind
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// ProblemType stands before the kind in a problem's type.
const ProblemType = "urn:letterlock:"

// statuses is the one place where a kind becomes an HTTP status.
var statuses = map[chat.Kind]struct {
	status int
	title  string
	retry  string // seconds, for Retry-After
}{
	chat.Internal:        {http.StatusInternalServerError, "The server failed", ""},
	chat.Invalid:         {http.StatusBadRequest, "The request is malformed", ""},
	chat.Unauthenticated: {http.StatusUnauthorized, "Not signed in", ""},
	chat.Forbidden:       {http.StatusForbidden, "Not allowed", ""},
	chat.NotFound:        {http.StatusNotFound, "Not found", ""},
	chat.Exists:          {http.StatusConflict, "Already there", ""},
	chat.StaleEpoch:      {http.StatusConflict, "Made for another epoch", ""},
	chat.Blocked:         {http.StatusConflict, "A removal must be committed first", ""},
	chat.TooLarge:        {http.StatusRequestEntityTooLarge, "Too large", ""},
	chat.TooMany:         {http.StatusTooManyRequests, "Too many", "30"},
	chat.Unavailable:     {http.StatusServiceUnavailable, "Not available now", "5"},
	chat.NoQuorum:        {http.StatusServiceUnavailable, "The ledger's witnesses do not sign", "30"},
	chat.Mismatch:        {http.StatusUnprocessableEntity, "Same key, another body", ""},
	chat.Expired:         {http.StatusGone, "No longer valid", ""},
	chat.Unproven:        {http.StatusForbidden, "Proof missing", ""},
	chat.Gone:            {http.StatusGone, "Deleted", ""},
	chat.Incompatible:    {http.StatusNotImplemented, "Unknown version", ""},
	chat.Tampered:        {http.StatusConflict, "Evidence of tampering", ""},
}

// problemOf turns an error into what the caller may see. An error without a kind is our fault: its text stays here.
func problemOf(err error) Problem {
	kind, detail := chat.Internal, "something went wrong here; it was logged"
	var e *chat.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &e) && e.Kind != chat.Internal:
		kind, detail = e.Kind, e.Detail
	case errors.As(err, &large):
		kind, detail = chat.TooLarge, "the body is larger than this call takes"
	}
	row, ok := statuses[kind]
	if !ok {
		kind = chat.Internal
		row = statuses[kind]
	}
	return Problem{Type: ProblemType + string(kind), Title: row.title, Status: row.status, Detail: detail}
}

// refuse answers with the problem of err and logs the cause where it is ours. Of a disk that takes no writes and of witnesses that
// do not sign the server's log tells once, not for every caller.
func (s *server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError && store.DiskError(err) == nil && !chat.Is(err, chat.NoQuorum) {
		s.Logger.Error("request failed", slog.String("route", r.Pattern), slog.Any("error", err))
	}
	h := w.Header()
	retry := statuses[chat.Kind(p.Type[len(ProblemType):])].retry
	var said *chat.Error
	if errors.As(err, &said) && said.Retry > 0 {
		retry = strconv.FormatInt(int64(math.Ceil(said.Retry.Seconds())), 10)
	}
	if retry != "" {
		h.Set("Retry-After", retry)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", s.challenge(r))
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) // a caller that is gone needs no answer
}

// challenge says how to authenticate (RFC 9449 section 7.1), and where the Inbox API's tokens come from (RFC 9728 section 5.1).
func (s *server) challenge(r *http.Request) string {
	c := `DPoP algs="EdDSA ES256"`
	if r.Header.Get("Authorization") != "" {
		c += `, error="invalid_token"`
	}
	if strings.HasPrefix(r.URL.Path, "/inbox/") {
		c += `, resource_metadata="` + s.PublicURL + `/.well-known/oauth-protected-resource/inbox"`
	}
	return c
}

// recovered turns a panic of a handler into a 500: one broken request, not a broken server.
func (s *server) recovered(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if p == http.ErrAbortHandler {
				panic(p)
			}
			s.Logger.Error("panic in a handler", slog.String("route", r.Pattern), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			s.refuse(w, r, errPanicked)
		}()
		next.ServeHTTP(w, r)
	})
}

var errPanicked = errors.New("httpd: a handler panicked")
