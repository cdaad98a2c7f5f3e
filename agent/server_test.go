package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/mimi"
	"letterlock/server"
)

// flimmer is a partner's agent on a real server, with the people who use it.
type flimmer struct {
	*world.World
	alice, bob *world.Person
	home       string
	env        agent.Env
	ahead      atomic.Int64 // ns that the clock of server and agent is ahead
	log        bytes.Buffer
	*agent.Agent
}

func (f *flimmer) now() time.Time { return time.Now().Add(time.Duration(f.ahead.Load())) }

func (f *flimmer) no(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

func textOf(s string) mimi.Content { return mimi.Text(s) }

func kindIs(t testing.TB, err error, kind chat.Kind) {
	t.Helper()
	if !chat.Is(err, kind) {
		t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
}

// newFlimmer registers a partner and opens its agent.
func newFlimmer(t testing.TB) *flimmer {
	t.Helper()
	f := &flimmer{World: &world.World{T: t, Dir: t.TempDir()}}
	f.serveWorld()
	f.alice, f.bob = f.SignUp("alice"), f.SignUp("bob")
	f.Befriend(f.alice, f.bob)
	f.home = filepath.Join(f.Dir, "flimmer")
	f.env = agent.Env{Now: f.now, Rand: rand.Reader}
	r, err := agent.Init(f.Ctx(), f.home, agent.Options{Server: f.URL, Partner: "flimmer", Name: "Flimmer", Actions: chat.AllActions, ReportDays: 14,
		PostsPerMinute: 1000, LinkBases: []string{"https://flimmer.example/w/"}, Surfaces: []string{"player"}, Valid: 365 * 24 * time.Hour, Number: 1,
		RedirectURI: agent.DefaultRedirect}, f.env)
	f.no(err)
	f.admin("POST", "/admin/v1/partners", api.AcceptAgreement{Registration: *r})
	f.open()
	t.Cleanup(func() { f.Agent.Close() })
	return f
}

// serveWorld starts the server as world.New does, but with the test's clock.
func (f *flimmer) serveWorld() {
	f.T.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{DataDir: filepath.Join(f.Dir, "server"), Listen: "127.0.0.1:0", Now: f.now, Version: "test",
		Logger: slog.New(slog.DiscardHandler), ExemptLoopback: true})
	f.no(err)
	f.URL = s.URL()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	f.T.Cleanup(func() { cancel(); f.no(<-done) })
}

// open opens the agent on its folder, through a transport that may break.
func (f *flimmer) open() {
	f.T.Helper()
	a, err := agent.Open(f.home, f.env, slog.New(slog.NewTextHandler(&f.log, nil)))
	f.no(err)
	f.Agent = a
}

// admin makes a call of the operator on the admin socket.
func (f *flimmer) admin(method, path string, in any) {
	f.T.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(f.Dir, "server", "admin.sock"))
	}}}
	b, err := json.Marshal(in)
	f.no(err)
	r, err := http.NewRequest(method, "http://admin"+path, bytes.NewReader(b))
	f.no(err)
	r.Header.Set("Content-Type", "application/json")
	answer, err := c.Do(r)
	f.no(err)
	defer answer.Body.Close()
	if body, _ := io.ReadAll(answer.Body); answer.StatusCode >= 300 {
		f.T.Fatalf("%s %s: %d %s", method, path, answer.StatusCode, body)
	}
}

// ask asks alice, who allows what is given, and takes her answer.
func (f *flimmer) ask(ask agent.Ask, allow chat.Actions) chat.GrantID {
	f.T.Helper()
	return f.askWhom(f.alice, ask, allow)
}

func (f *flimmer) askWhom(who *world.Person, ask agent.Ask, allow chat.Actions) chat.GrantID {
	f.T.Helper()
	ask.Until = f.now().Add(24 * time.Hour)
	q, err := f.Authorize(f.Ctx(), ask)
	f.no(err)
	got, err := f.Redeem(f.Ctx(), f.allow(who, q, allow))
	f.no(err)
	if got.Outcome != agent.Granted {
		f.T.Fatalf("outcome %s: %s", got.Outcome, got.Detail)
	}
	return q.ID
}

// allow lets somebody say yes; it returns the query that their browser brings back.
func (f *flimmer) allow(who *world.Person, q agent.Authorization, allow chat.Actions) url.Values {
	f.T.Helper()
	friend := "bob"
	if who == f.bob {
		friend = "alice"
	}
	f.no(who.Sync(f.Ctx()))
	consent, err := who.OpenConsent(f.Ctx(), q.URL)
	f.no(err)
	back, err := who.Allow(f.Ctx(), consent, device.Answer{Friend: friend, Actions: allow})
	f.no(err)
	u, err := url.Parse(back)
	f.no(err)
	return u.Query()
}

// bobSees are the texts that bob's client shows.
func (f *flimmer) bobSees() string {
	f.T.Helper()
	f.no(f.bob.Sync(f.Ctx()))
	id, err := f.bob.FindWith("alice", "flimmer")
	f.no(err)
	lines, err := f.bob.Lines(id)
	f.no(err)
	var out []string
	for _, l := range lines {
		b, err := json.Marshal(l)
		f.no(err)
		out = append(out, string(b))
	}
	return strings.Join(out, "\n")
}

func (f *flimmer) read(id chat.GrantID, since string) agent.Changes {
	f.T.Helper()
	c, err := f.Changes(f.Ctx(), id, since, 100)
	f.no(err)
	return c
}

// TestStory goes with one grant from the question to the end.
func TestStory(t *testing.T) {
	f := newFlimmer(t)
	g := f.ask(agent.Ask{Actions: chat.Send, Pick: true, For: "user-17"}, chat.Send)
	list, err := f.Grants("", 10)
	f.no(err)
	if len(list) != 1 || list[0].ID != g || list[0].Phase != agent.Live || list[0].For != "user-17" || list[0].Handle != "alice" || list[0].Friend == "" {
		t.Fatalf("grants: %+v", list)
	}
	sent, err := f.Send(f.Ctx(), g, agent.Letter{Card: &agent.Card{Kind: "film", Title: "Metropolis", URL: "https://flimmer.example/w/#metropolis"}, Link: true, Surface: "player"})
	f.no(err)
	if seen := f.bobSees(); !strings.Contains(seen, "Metropolis") || !strings.Contains(seen, "#metropolis") || !strings.Contains(seen, f.URL+"/l/") {
		t.Fatalf("bob sees %s", seen)
	}
	_, err = f.Changes(f.Ctx(), g, "", 10)
	kindIs(t, err, chat.Forbidden)
	kindIs(t, f.TakeBack(f.Ctx(), g, sent.ID), chat.Forbidden)

	thread := list[0].Conversation
	_, err = f.bob.Send(f.Ctx(), thread, textOf("before the reader"))
	f.no(err)
	wide := f.ask(agent.Ask{Actions: chat.AllActions, Previous: g}, chat.AllActions)
	f.no(f.bob.Sync(f.Ctx()))
	_, err = f.bob.Send(f.Ctx(), thread, textOf("after the reader"))
	f.no(err)
	got := f.read(wide, "")
	if len(got.Messages) != 1 || got.Messages[0].Text != "after the reader" || got.Messages[0].Sender != "bob" {
		t.Fatalf("read %+v", got)
	}
	if again := f.read(wide, got.State); len(again.Messages) != 0 || again.State != got.State {
		t.Fatalf("read again: %+v", again)
	}
	_, err = f.Send(f.Ctx(), g, agent.Letter{Text: "under the old grant"}) // it was replaced
	kindIs(t, err, chat.Gone)

	second, err := f.Send(f.Ctx(), wide, agent.Letter{Text: "by the reader"})
	f.no(err)
	if own := f.read(wide, got.State); len(own.Messages) != 1 || own.Messages[0].ID != second.ID || own.Messages[0].Sender != "alice" || own.Messages[0].Through != "flimmer" {
		t.Fatalf("the agent reads its own letter as %+v", own.Messages)
	}
	f.no(f.TakeBack(f.Ctx(), wide, sent.ID)) // what was posted under the earlier grant
	f.no(f.TakeBack(f.Ctx(), wide, second.ID))
	if seen := f.bobSees(); strings.Contains(seen, "Metropolis") || strings.Contains(seen, "by the reader") {
		t.Fatalf("bob still sees %s", seen)
	}
	own := f.read(wide, got.State)
	if len(own.Messages) != 1 || own.Messages[0].ID != second.ID || !own.Messages[0].Deleted {
		t.Fatalf("the agent reads the taken-back letter as %+v", own.Messages)
	}

	f.Agent.Close() // a restart loses nothing
	f.open()
	if all := f.read(wide, ""); len(all.Messages) != 2 || all.State != own.State {
		t.Fatalf("after a restart: %+v", all)
	}

	f.no(f.alice.Revoke(f.Ctx(), wide))
	_, err = f.Changes(f.Ctx(), wide, "", 10)
	kindIs(t, err, chat.Gone)
	status, err := f.Check(f.Ctx(), wide)
	f.no(err)
	if status.Phase != agent.Ended {
		t.Fatalf("the grant stands as %+v", status)
	}
	if evidence, err := f.Evidence("", 10); err != nil || len(evidence) != 0 {
		t.Fatalf("evidence against an honest server: %v %v", evidence, err)
	}
}

// TestNarrowedConsent: the person allows less than was asked for.
func TestNarrowedConsent(t *testing.T) {
	f := newFlimmer(t)
	g := f.ask(agent.Ask{Actions: chat.Send | chat.Read, Pick: true}, chat.Send)
	_, err := f.Changes(f.Ctx(), g, "", 10)
	kindIs(t, err, chat.Forbidden)
	_, err = f.Send(f.Ctx(), g, agent.Letter{Text: "hello"})
	f.no(err)
}

// TestRefusedConsent: no means that the keys are forgotten.
func TestRefusedConsent(t *testing.T) {
	f := newFlimmer(t)
	q, err := f.Authorize(f.Ctx(), agent.Ask{Actions: chat.Send, Pick: true, Until: time.Now().Add(time.Hour)})
	f.no(err)
	consent, err := f.alice.OpenConsent(f.Ctx(), q.URL)
	f.no(err)
	back, err := f.alice.Refuse(f.Ctx(), consent)
	f.no(err)
	u, _ := url.Parse(back)
	got, err := f.Redeem(f.Ctx(), u.Query())
	f.no(err)
	if got.Outcome != agent.Refused {
		t.Fatalf("outcome %s", got.Outcome)
	}
	_, err = f.Look(q.ID)
	kindIs(t, err, chat.NotFound)
	if list, _ := f.Grants("", 10); len(list) != 0 {
		t.Fatalf("grants: %v", list)
	}
}

// TestRedeemTakesOwnAnswersOnly: another state, another server's name, and a used answer.
func TestRedeemTakesOwnAnswersOnly(t *testing.T) {
	f := newFlimmer(t)
	q, err := f.Authorize(f.Ctx(), agent.Ask{Actions: chat.Send, Pick: true, Until: time.Now().Add(time.Hour)})
	f.no(err)
	good := f.allow(f.alice, q, chat.Send)
	for name, change := range map[string]func(url.Values){
		"no state":       func(v url.Values) { v.Del("state") },
		"another state":  func(v url.Values) { v.Set("state", v.Get("state")+"x") },
		"a guessed one":  func(v url.Values) { v.Set("state", q.ID.String()+".") },
		"no issuer":      func(v url.Values) { v.Del("iss") },
		"another issuer": func(v url.Values) { v.Set("iss", "https://evil.example") },
	} {
		bad := url.Values{}
		for k, v := range good {
			bad[k] = v
		}
		change(bad)
		if _, err := f.Redeem(f.Ctx(), bad); !chat.Is(err, chat.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = f.Redeem(f.Ctx(), good)
	f.no(err)
	_, err = f.Redeem(f.Ctx(), good)
	kindIs(t, err, chat.Forbidden)
}

// faulty is a transport that breaks on a call to a path: before the server sees it, or after it answered.
type faulty struct {
	http.RoundTripper
	path  string
	after bool
	left  atomic.Int32
}

var errBroken = errors.New("the connection broke")

func (x *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(r.URL.Path, x.path) || x.left.Add(-1) < 0 {
		return x.RoundTripper.RoundTrip(r)
	}
	if !x.after {
		return nil, errBroken
	}
	answer, err := x.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body.Close()
	}
	return nil, errBroken
}

// TestLettersSurvive: a letter whose call broke before or after the server took it is sent exactly once, also if the agent restarts
// and the thread moves to another epoch meanwhile.
func TestLettersSurvive(t *testing.T) {
	for name, c := range map[string]struct{ after, restart, epoch bool }{
		"not taken":                          {},
		"taken, answer lost":                 {after: true},
		"not taken, restart":                 {restart: true},
		"taken, answer lost, restart":        {after: true, restart: true},
		"not taken, new epoch":               {epoch: true},
		"taken, lost, new epoch and restart": {after: true, restart: true, epoch: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlimmer(t)
			g := f.ask(agent.Ask{Actions: chat.Send, Pick: true}, chat.Send)
			f.Agent.Close()
			x := &faulty{RoundTripper: http.DefaultTransport, path: "/inbox/v1/posts", after: c.after}
			x.left.Store(1)
			f.env.Transport = x
			f.open()
			letter := agent.Letter{Text: "exactly once", Key: "k1"}
			_, err := f.Send(f.Ctx(), g, letter)
			kindIs(t, err, chat.Unavailable)
			if c.restart {
				f.Agent.Close()
				f.open()
			}
			if c.epoch {
				f.askWhom(f.bob, agent.Ask{Actions: chat.Send, Pick: true}, chat.Send)
			}
			one, err := f.Send(f.Ctx(), g, letter)
			f.no(err)
			two, err := f.Send(f.Ctx(), g, letter)
			f.no(err)
			if one != two {
				t.Fatalf("answered %v, then %v", one, two)
			}
			letter.Text = "something else"
			_, err = f.Send(f.Ctx(), g, letter)
			kindIs(t, err, chat.Mismatch)
			if n := strings.Count(f.bobSees(), "exactly once"); n != 1 {
				t.Fatalf("bob sees the letter %d times", n)
			}
		})
	}
}

// BenchmarkSend is a letter's way from the agent into the thread's log and back, one after the other: two durable writes of the agent, one of
// the server, two calls.
func BenchmarkSend(b *testing.B) {
	f := newFlimmer(b)
	g := f.ask(agent.Ask{Actions: chat.Send, Pick: true}, chat.Send)
	for b.Loop() {
		if _, err := f.Send(f.Ctx(), g, agent.Letter{Text: "hello"}); err != nil {
			b.Fatal(err)
		}
	}
}
