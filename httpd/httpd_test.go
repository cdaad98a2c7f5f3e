package httpd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
)

// bench is a server without services, whose log can be read.
type bench struct {
	*server
	log bytes.Buffer
}

func newBench() *bench {
	b := &bench{}
	b.server = &server{Config: Config{
		PublicURL: "https://chat.example", Now: time.Now, Logger: slog.New(slog.NewTextHandler(&b.log, nil)),
	}, openCalls: newLimiter(time.Now, openPerMinute, openBurst)}
	return b
}

func (b *bench) serve(h http.Handler, r *http.Request) (*httptest.ResponseRecorder, Problem) {
	w := httptest.NewRecorder()
	b.recovered(b.secured(h)).ServeHTTP(w, r)
	var p Problem
	json.Unmarshal(w.Body.Bytes(), &p)
	return w, p
}

func TestEveryKindHasAStatus(t *testing.T) {
	kinds := []chat.Kind{
		chat.Internal, chat.Invalid, chat.Unauthenticated, chat.Forbidden, chat.NotFound, chat.Exists, chat.StaleEpoch, chat.Blocked, chat.TooLarge,
		chat.TooMany, chat.Unavailable, chat.NoQuorum, chat.Mismatch, chat.Expired, chat.Unproven, chat.Gone, chat.Incompatible, chat.Tampered,
	}
	if len(kinds) != len(statuses) {
		t.Fatalf("%d kinds, %d rows", len(kinds), len(statuses))
	}
	b := newBench()
	for _, k := range kinds {
		w, p := b.serve(b.open(func(http.ResponseWriter, *http.Request) error { return chat.Errorf(k, "why") }), httptest.NewRequest("GET", "/", nil))
		if w.Code != statuses[k].status || p.Type != ProblemType+string(k) || p.Status != w.Code || p.Title == "" {
			t.Errorf("%s: %d %+v", k, w.Code, p)
		}
		if retry := w.Header().Get("Retry-After"); (w.Code == 429 || w.Code == 503) != (retry != "") {
			t.Errorf("%s: Retry-After %q", k, retry)
		}
		if w.Header().Get("Content-Type") != "application/problem+json" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", k, w.Header())
		}
		if (w.Code == 401) != strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "DPoP ") {
			t.Errorf("%s: WWW-Authenticate %q", k, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestCausesAreLoggedNotSent(t *testing.T) {
	for name, err := range map[string]error{
		"without a kind": errors.New("the secret cause"),
		"internal":       chat.Wrap(chat.Internal, errors.New("the secret cause"), "also secret"),
		"unknown kind":   chat.Wrap("strange", errors.New("the secret cause"), "fine"),
		"a cause behind": chat.Wrap(chat.Unavailable, errors.New("the secret cause"), "later"),
	} {
		b := newBench()
		w, _ := b.serve(b.open(func(http.ResponseWriter, *http.Request) error { return err }), httptest.NewRequest("GET", "/", nil))
		if strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%s: sent: %s", name, w.Body)
		}
		if w.Code >= 500 && !strings.Contains(b.log.String(), "the secret cause") {
			t.Errorf("%s: not logged", name)
		}
	}
}

func TestPanicIsOneBadRequest(t *testing.T) {
	b := newBench()
	w, p := b.serve(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("the secret cause") }), httptest.NewRequest("GET", "/", nil))
	if w.Code != 500 || p.Type != ProblemType+"internal" || strings.Contains(w.Body.String(), "secret") || !strings.Contains(b.log.String(), "the secret cause") {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
}

func TestReadJSON(t *testing.T) {
	b := newBench()
	h := b.open(put(64, func(context.Context, api.SignIn) error { return nil }))
	good := `{"account":"` + chat.AccountID{}.String() + `"}`
	for name, c := range map[string]struct {
		body, contentType string
		want              int
	}{
		"good":            {good, "application/json", 204},
		"with charset":    {good, "application/json; charset=utf-8", 204},
		"other type":      {good, "text/plain", 400},
		"no type":         {good, "", 400},
		"unknown field":   {`{"acount":"x"}`, "application/json", 400},
		"trailing data":   {`{} {}`, "application/json", 400},
		"trailing spaces": {good + "  \n", "application/json", 204},
		"broken":          {`{"account":`, "application/json", 400},
		"nothing":         {``, "application/json", 400},
		"wrong id":        {`{"account":"XYZ"}`, "application/json", 400},
		"large":           {`{"account":"` + strings.Repeat("0", 100) + `"}`, "application/json", 413},
	} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", c.contentType)
		if w, _ := b.serve(h, r); w.Code != c.want {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
		r = httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader(c.body))) // of unknown length
		r.ContentLength = -1
		r.Header.Set("Content-Type", c.contentType)
		if w, _ := b.serve(h, r); w.Code != c.want {
			t.Errorf("%s, in chunks: %d %s", name, w.Code, w.Body)
		}
	}
}

// sessions lets one token through and notes what it was asked.
type sessions struct{ asked dpop.Request }

func (s *sessions) Authenticate(_ context.Context, r dpop.Request) (api.Caller, error) {
	s.asked = r
	if r.Token != "good" {
		return api.Caller{}, chat.Errorf(chat.Unauthenticated, "no")
	}
	return api.Caller{Handle: "alice"}, nil
}

type agents struct{}

func (agents) Authenticate(_ context.Context, r dpop.Request) (api.AgentCaller, error) {
	if r.Token != "good" {
		return api.AgentCaller{}, chat.Errorf(chat.Unauthenticated, "no")
	}
	return api.AgentCaller{Partner: "flimmer"}, nil
}

func TestAuthenticated(t *testing.T) {
	b := newBench()
	s := &sessions{}
	b.Sessions, b.Agents = s, agents{}
	device := b.authenticated(func(w http.ResponseWriter, r *http.Request) error {
		if c, err := api.CallerFrom(r.Context()); err != nil || c.Handle != "alice" {
			t.Errorf("caller: %v %v", c, err)
		}
		if _, err := api.AgentFrom(r.Context()); err == nil {
			t.Error("a device became an agent")
		}
		return nil
	})
	agent := b.agent(func(w http.ResponseWriter, r *http.Request) error {
		if a, err := api.AgentFrom(r.Context()); err != nil || a.Partner != "flimmer" {
			t.Errorf("agent: %v %v", a, err)
		}
		if _, err := api.CallerFrom(r.Context()); err == nil {
			t.Error("an agent became a device")
		}
		return nil
	})
	for name, c := range map[string]struct {
		auth, proof []string
		want        int
	}{
		"good":          {[]string{"DPoP good"}, []string{"proof"}, 200},
		"lower case":    {[]string{"dpop good"}, []string{"proof"}, 200},
		"bearer":        {[]string{"Bearer good"}, []string{"proof"}, 401},
		"no token":      {nil, []string{"proof"}, 401},
		"empty token":   {[]string{"DPoP "}, []string{"proof"}, 401},
		"wrong token":   {[]string{"DPoP bad"}, []string{"proof"}, 401},
		"two tokens":    {[]string{"DPoP good", "DPoP good"}, []string{"proof"}, 401},
		"no proof":      {[]string{"DPoP good"}, nil, 401},
		"two proofs":    {[]string{"DPoP good"}, []string{"proof", "proof"}, 401},
		"endless token": {[]string{"DPoP " + strings.Repeat("x", maxToken+1)}, []string{"proof"}, 401},
	} {
		for _, h := range []http.Handler{device, agent} {
			r := httptest.NewRequest("GET", "/v1/a%2Fb?x=y", nil)
			r.Host = "elsewhere.example" // proves nothing
			r.Header["Authorization"], r.Header["Dpop"] = c.auth, c.proof
			if w, _ := b.serve(h, r); w.Code != c.want {
				t.Errorf("%s: %d %s", name, w.Code, w.Body)
			}
		}
	}
	if s.asked.URL != "https://chat.example/v1/a%2Fb" || s.asked.Method != "GET" {
		t.Errorf("the proof is checked for %s %s", s.asked.Method, s.asked.URL)
	}
}

func TestLimiter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	l := newLimiter(func() time.Time { return now }, 60, 3)
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	for i, want := range []bool{true, true, true, false} {
		if l.allow(a) != want {
			t.Fatalf("call %d", i)
		}
	}
	if !l.allow(b) {
		t.Error("one address used up another's")
	}
	now = now.Add(time.Second)
	if !l.allow(a) || l.allow(a) {
		t.Error("one token a second")
	}
	for i := range 3 * maxAddresses {
		l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(l.buckets) > maxAddresses {
		t.Errorf("%d addresses are remembered", len(l.buckets))
	}
}

func TestLimited(t *testing.T) {
	for _, c := range []struct {
		remote string
		exempt bool
		others string // shares the bucket
		want   int
	}{
		{"192.0.2.1:1000", true, "192.0.2.1:2000", 429},
		{"[2001:db8::1]:1000", true, "[2001:db8::ffff]:1000", 429}, // one /64
		{"127.0.0.1:1000", false, "127.0.0.1:2000", 429},
		{"127.0.0.1:1000", true, "127.0.0.1:2000", 204},
		{"[::ffff:127.0.0.1]:1000", true, "127.0.0.1:2000", 204},
		{"@", true, "", 429},
	} {
		b := newBench()
		b.ExemptLoopback = c.exempt
		h := b.open(b.limited(do(func(*http.Request) error { return nil })))
		call := func(remote string) int {
			r := httptest.NewRequest("POST", "/", nil)
			r.RemoteAddr = remote
			w, _ := b.serve(h, r)
			return w.Code
		}
		for range openBurst {
			if got := call(c.remote); got != 204 {
				t.Fatalf("%s: %d within the burst", c.remote, got)
			}
		}
		if got := call(c.others); got != c.want {
			t.Errorf("%s after %s: %d", c.others, c.remote, got)
		}
	}
}

func TestNothingElseIsServed(t *testing.T) {
	h := New(Config{PublicURL: "https://chat.example", Now: time.Now, Logger: slog.New(slog.DiscardHandler)})
	for _, target := range []string{"/", "/v1", "/v1/accounts", "/v1/../etc/passwd", "/debug/pprof/", "/metrics"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", target, nil))
		if w.Code != 404 && w.Code != 301 && w.Code != 307 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if w.Header().Get("Strict-Transport-Security") == "" || !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("headers: %v", w.Header())
	}
}

func TestCheckPublicURL(t *testing.T) {
	for _, good := range []string{"https://chat.example", "http://127.0.0.1:8080"} {
		if err := CheckPublicURL(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "chat.example", "https://", "https://chat.example/", "https://chat.example/x", "ftp://chat.example", "https://u@chat.example", "https://chat.example?x", "https://CHAT.example"} {
		if err := CheckPublicURL(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func FuzzReadJSON(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		b := newBench()
		for _, h := range []handler{
			put(1<<10, func(context.Context, api.SignIn) error { return nil }),
			put(1<<10, func(context.Context, api.KeyPackages) error { return nil }),
		} {
			r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			if w, _ := b.serve(b.open(h), r); w.Code >= 500 {
				t.Fatalf("%d", w.Code)
			}
		}
	})
}

func TestFuzzSeeds(t *testing.T) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzReadJSON"); err != nil || len(seeds) == 0 {
		t.Fatalf("no seeds: %v", err)
	}
}
