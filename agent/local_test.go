package agent_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/chat"
)

// served is a local API that listens, and how to call it.
type served struct {
	*flimmer
	base, secret string
	client       *http.Client
}

// serve serves the agent's local API at an address until the test ends.
func (f *flimmer) serve(address string) *served {
	f.T.Helper()
	secret, err := agent.ReadSecret(f.home, "")
	f.no(err)
	l, err := agent.Listen(address)
	f.no(err)
	forget, err := agent.Announce(f.home, l)
	f.no(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, l, secret) }()
	f.T.Cleanup(func() { cancel(); f.no(<-done); forget() })
	return &served{flimmer: f, base: agent.AddressOf(l), secret: secret, client: &http.Client{}}
}

// call makes a call and returns status and body.
func (s *served) call(method, path, body string, change func(*http.Request)) (int, string) {
	s.T.Helper()
	r, err := http.NewRequest(method, s.base+path, strings.NewReader(body))
	s.no(err)
	r.Header.Set("Authorization", "Bearer "+s.secret)
	r.Header.Set("Content-Type", "application/json")
	if change != nil {
		change(r)
	}
	answer, err := s.client.Do(r)
	s.no(err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	s.no(err)
	if answer.StatusCode >= 400 && answer.Header.Get("Content-Type") != "application/problem+json" {
		s.T.Errorf("%s %s: a refusal of type %s", method, path, answer.Header.Get("Content-Type"))
	}
	return answer.StatusCode, string(b)
}

func TestLocalAPI(t *testing.T) {
	s := newFlimmer(t).serve("127.0.0.1:0")

	// A whole round over the wire: ask, the browser's way back, send, list, take back, end.
	status, body := s.call("POST", "/authorizations", `{"actions":["send","delete"],"pick":true,"for":"user-17"}`, nil)
	var q agent.Authorization
	if s.no(json.Unmarshal([]byte(body), &q)); status != http.StatusCreated || q.Outcome != agent.Waiting {
		t.Fatalf("%d %s", status, body)
	}
	u := s.alicesWayBack(q)
	if !strings.HasPrefix(u, s.base+"/callback?") {
		t.Fatalf("alice is sent to %s", u)
	}
	if status, body := s.call("GET", strings.TrimPrefix(u, s.base), "", func(r *http.Request) { r.Header.Del("Authorization") }); status != 200 || !strings.Contains(body, "close this window") {
		t.Fatalf("callback: %d %s", status, body)
	}
	if _, body := s.call("GET", "/authorizations/"+q.ID.String(), "", nil); !strings.Contains(body, `"granted"`) {
		t.Fatalf("authorization: %s", body)
	}
	status, body = s.call("POST", "/messages", `{"grant":"`+q.ID.String()+`","text":"hello","idempotency_key":"k"}`, nil)
	var sent agent.Sent
	if s.no(json.Unmarshal([]byte(body), &sent)); status != http.StatusCreated || sent.Seq == 0 {
		t.Fatalf("%d %s", status, body)
	}
	if _, again := s.call("POST", "/messages", `{"grant":"`+q.ID.String()+`","text":"hello","idempotency_key":"k"}`, nil); again != body {
		t.Fatalf("the same key: %s", again)
	}
	if status, body := s.call("DELETE", "/messages/"+sent.ID.String()+"?grant="+q.ID.String(), "", nil); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if _, body := s.call("GET", "/grants", "", nil); !strings.Contains(body, `"user-17"`) || !strings.Contains(body, `"live"`) {
		t.Fatalf("grants: %s", body)
	}
	if status, body := s.call("DELETE", "/grants/"+q.ID.String(), "", nil); status != http.StatusNoContent {
		t.Fatalf("%d %s", status, body)
	}
	if _, body := s.call("GET", "/grants/"+q.ID.String(), "", nil); !strings.Contains(body, `"ended"`) {
		t.Fatalf("grant: %s", body)
	}

	// What it refuses.
	for name, c := range map[string]struct {
		method, path, body string
		change             func(*http.Request)
		status             int
	}{
		"no secret":          {"GET", "/grants", "", func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"a wrong secret":     {"GET", "/grants", "", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("0", 64)) }, 401},
		"basic":              {"GET", "/grants", "", func(r *http.Request) { r.SetBasicAuth("x", s.secret) }, 401},
		"a rebound name":     {"GET", "/grants", "", func(r *http.Request) { r.Host = "evil.example" }, 403},
		"health, rebound":    {"GET", "/healthz", "", func(r *http.Request) { r.Host = "evil.example" }, 403},
		"nothing there":      {"GET", "/nothing", "", nil, 404},
		"unknown member":     {"POST", "/messages", `{"grant":"` + q.ID.String() + `","txt":"x"}`, nil, 400},
		"two values":         {"POST", "/authorizations", `{"actions":["send"],"pick":true} {}`, nil, 400},
		"not JSON":           {"POST", "/messages", `grant=1`, func(r *http.Request) { r.Header.Set("Content-Type", "application/x-www-form-urlencoded") }, 400},
		"too large":          {"POST", "/messages", `{"grant":"` + q.ID.String() + `","text":"` + strings.Repeat("x", 200<<10) + `"}`, nil, 413},
		"a bad id":           {"POST", "/messages", `{"grant":"xyz","text":"x"}`, nil, 400},
		"an unknown grant":   {"POST", "/messages", `{"grant":"` + chat.NewGrantID().String() + `","text":"x"}`, nil, 404},
		"an ended grant":     {"POST", "/messages", `{"grant":"` + q.ID.String() + `","text":"x"}`, nil, 410},
		"text and card":      {"POST", "/messages", `{"grant":"` + q.ID.String() + `","text":"x","card":{"kind":"film","title":"t","url":"https://a.example"}}`, nil, 400},
		"no action":          {"POST", "/authorizations", `{"actions":[],"pick":true}`, nil, 400},
		"an unknown action":  {"POST", "/authorizations", `{"actions":["own"],"pick":true}`, nil, 400},
		"two ways to ask":    {"POST", "/authorizations", `{"actions":["send"],"pick":true,"thread":"` + chat.NewConversationID().String() + `"}`, nil, 400},
		"a thread unknown":   {"POST", "/authorizations", `{"actions":["send"],"thread":"` + chat.NewConversationID().String() + `"}`, nil, 400},
		"a long past":        {"POST", "/authorizations", `{"actions":["send"],"pick":true,"valid_days":-1}`, nil, 400},
		"a bad limit":        {"GET", "/grants?limit=0", "", nil, 400},
		"a foreign callback": {"GET", "/callback?state=x&code=y&iss=" + url.QueryEscape(s.URL), "", nil, 403},
	} {
		t.Run(name, func(t *testing.T) {
			status, body := s.call(c.method, c.path, c.body, c.change)
			if status != c.status || !strings.Contains(body, `"urn:letterlock:`) || strings.Contains(body, s.secret) {
				t.Errorf("%d %s, want %d", status, body, c.status)
			}
		})
	}
}

// alicesWayBack lets alice say yes and returns the address where she is sent.
func (s *served) alicesWayBack(q agent.Authorization) string {
	s.T.Helper()
	v := s.allow(s.alice, q, 0)
	return s.base + "/callback?" + v.Encode()
}

// TestLocalSocket: the commands find a running agent by its folder, also on a unix socket that only this user can open.
func TestLocalSocket(t *testing.T) {
	f := newFlimmer(t)
	_, err := agent.Dial(f.home, "")
	kindIs(t, err, chat.Unavailable)
	path := filepath.Join(t.TempDir(), "agent.sock")
	f.serve("unix:" + path)
	info, err := os.Stat(path)
	f.no(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %o", info.Mode().Perm())
	}
	l, err := agent.Dial(f.home, "")
	f.no(err)
	var h agent.Health
	f.no(l.Do(f.Ctx(), "GET", "/healthz", nil, &h))
	if h.Partner != "flimmer" || h.Server != f.URL {
		t.Fatalf("%+v", h)
	}
	err = l.Do(f.Ctx(), "GET", "/grants/"+chat.NewGrantID().String(), nil, nil)
	kindIs(t, err, chat.NotFound)
	_, err = agent.Listen("unix:" + path)
	kindIs(t, err, chat.Unavailable)
}

// TestListenOnLoopbackOnly: plaintext stays on this machine.
func TestListenOnLoopbackOnly(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.com:80", "127.0.0.1", "127.0.0.1.example.com:80"} {
		l, err := agent.Listen(address)
		if err == nil {
			l.Close()
		}
		if !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: %v", address, err)
		}
	}
	var l net.Listener
	l, err := agent.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// TestSecretFile: a secret that others can read, or guess, is refused.
func TestSecretFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	write := func(s string, mode os.FileMode) {
		t.Helper()
		os.Remove(path)
		if err := os.WriteFile(path, []byte(s), mode); err != nil {
			t.Fatal(err)
		}
	}
	_, err := agent.ReadSecret("", path)
	kindIs(t, err, chat.NotFound)
	write(strings.Repeat("a", 64), 0o644)
	_, err = agent.ReadSecret("", path)
	kindIs(t, err, chat.Forbidden)
	write("short", 0o600)
	_, err = agent.ReadSecret("", path)
	kindIs(t, err, chat.Invalid)
	write(strings.Repeat("a", 5000), 0o600)
	_, err = agent.ReadSecret("", path)
	kindIs(t, err, chat.Invalid)
	write(strings.Repeat("a", 64)+"\n", 0o600)
	if s, err := agent.ReadSecret("", path); err != nil || len(s) != 64 {
		t.Fatalf("%d characters, %v", len(s), err)
	}
}

// TestInit: what it writes, and that it never writes over an agent.
func TestInit(t *testing.T) {
	f := newFlimmer(t)
	o := agent.Options{Server: f.URL, Partner: "flimmer", Name: "Flimmer", Actions: chat.Send, PostsPerMinute: 1, Valid: time.Hour, Number: 1, RedirectURI: agent.DefaultRedirect}
	_, err := agent.Init(f.Ctx(), f.home, o, f.env)
	kindIs(t, err, chat.Unavailable) // it is open
	f.Agent.Close()
	_, err = agent.Init(f.Ctx(), f.home, o, f.env)
	kindIs(t, err, chat.Exists)
	f.open()
	for name, change := range map[string]func(*agent.Options){
		"no such server":    func(o *agent.Options) { o.Server = "http://127.0.0.1:1" },
		"a path":            func(o *agent.Options) { o.Server += "/x" },
		"a bad partner":     func(o *agent.Options) { o.Partner = "Flimmer!" },
		"a bad redirect":    func(o *agent.Options) { o.RedirectURI = "http://flimmer.example/callback" },
		"a bad link base":   func(o *agent.Options) { o.LinkBases = []string{"https://flimmer.example/#x"} },
		"no action":         func(o *agent.Options) { o.Actions = 0 },
		"ends at its start": func(o *agent.Options) { o.Valid = -24 * time.Hour },
	} {
		bad := o
		change(&bad)
		home := filepath.Join(t.TempDir(), "home")
		if _, err := agent.Init(f.Ctx(), home, bad, f.env); err == nil {
			t.Errorf("%s: taken", name)
		}
		if _, err := os.Stat(filepath.Join(home, agent.RegistrationFile)); err == nil {
			t.Errorf("%s: a registration was written", name)
		}
		if a, err := agent.Open(home, f.env, nil); err == nil {
			a.Close()
			t.Errorf("%s: the folder holds an agent", name)
		}
	}
}
