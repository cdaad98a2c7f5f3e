package attacks

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/e2e/world"
)

// route is a call that the server knows.
type route struct{ method, path string }

// routesOf finds every call in the sources of the HTTP layer: one that is added later and not decided upon here fails the test.
func routesOf(t *testing.T, prefix string) (list []route) {
	t.Helper()
	files, err := filepath.Glob("../../httpd/*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("the sources of httpd are not there")
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`mux\.Handle\("([A-Z]+) (/[^"]*)"`).FindAllStringSubmatch(string(data), -1) {
			if strings.HasPrefix(m[2], prefix) {
				list = append(list, route{m[1], m[2]})
			}
		}
	}
	return list
}

// TestSendOnlyAgentAtEveryCall: Flimmer may send in Alice's name, and nothing else. It tries every call of the Inbox API and every call of
// people's own API, with its good token, for the thread that it may write to.
func TestSendOnlyAgentAtEveryCall(t *testing.T) {
	a := flimmer(t, chat.Send)
	says(a.w, a.bob, a.thread, "nobody but Alice is to read this")
	l := a.flimmer.Loots(a.grant)
	allowed := map[string]string{ // of the Inbox API: how each is answered; empty: done
		"GET /inbox/v1/grant":       "",
		"GET /inbox/v1/slot":        "",
		"POST /inbox/v1/posts":      "",
		"POST /inbox/v1/links":      "",
		"POST /inbox/v1/figures":    "",
		"POST /inbox/v1/take-backs": "alice has not allowed delete in this thread",
		"GET /inbox/v1/welcome":     "alice has not allowed read in this thread",
		"GET /inbox/v1/changes":     "alice has not allowed read in this thread",
		"POST /inbox/v1/receipts":   "the receipt cannot be read",
	}
	bodies := map[string]any{
		"POST /inbox/v1/posts":      api.InboxPost{Post: a.post(l, "hello", nil), IdempotencyKey: "k"},
		"POST /inbox/v1/take-backs": api.InboxTakeBack{TakeBack: a.takeBack(l, chat.MessageID{1}, nil), IdempotencyKey: "k"},
		"POST /inbox/v1/links":      api.InboxLink{Base: "https://flimmer.example/w/"},
		"POST /inbox/v1/figures":    api.InboxFigures{Figures: []api.Figure{}},
		"POST /inbox/v1/receipts":   map[string][]byte{"receipt": {1}},
	}
	inbox := routesOf(t, "/inbox/")
	if len(inbox) != len(allowed) {
		t.Fatalf("the Inbox API has %d calls, this test knows %d", len(inbox), len(allowed))
	}
	for _, r := range inbox {
		name := r.method + " " + r.path
		want, known := allowed[name]
		err := a.w.Call(r.method, r.path, l.Access, l.Key, bodies[name])
		switch {
		case !known:
			t.Errorf("%s is new: decide what a send-only agent gets there", name)
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s was answered with %v, want %q", name, err, want)
		}
	}
	a.refusedByPeoplesAPI(l)
}

// open are the calls that everybody may make, without a token; whoever presents one is judged by it.
var open = []string{"GET /v1/partners", "POST /v1/accounts", "POST /v1/sessions"}

// refusedByPeoplesAPI tries every call of people's API with an agent's token.
func (a *app) refusedByPeoplesAPI(l *world.Loot) {
	a.t.Helper()
	tried := 0
	for _, r := range routesOf(a.t, "/v1/") {
		name := r.method + " " + r.path
		if slices.Contains(open, name) {
			continue
		}
		path := strings.NewReplacer("{id}", a.thread.String(), "{handle}", "bob", "{seq}", "2", "{request}", "x").Replace(r.path)
		err := a.w.Call(r.method, path, l.Access, l.Key, nil)
		if !chat.Is(err, chat.Unauthenticated) || !strings.Contains(err.Error(), "session") {
			a.t.Errorf("%s was answered with %v", name, err)
		}
		tried++
	}
	if tried < 25 {
		a.t.Fatalf("only %d calls were found", tried)
	}
	// Nor is the agent's key anybody's device.
	who := a.alice.Self()
	err := a.w.Call("POST", "/v1/sessions", "", l.Key, api.SignIn{Account: who.Account, Device: who.Device})
	answered(a.t, err, chat.Unauthenticated, "")
}

// TestReadingAgentHasNoPeoplesAPI: to read is not to be a device.
func TestReadingAgentHasNoPeoplesAPI(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	a.refusedByPeoplesAPI(a.flimmer.Loots(a.grant))
}

// TestStolenToken: somebody has a grant's access token and not its key, or a proof that was made for another call.
func TestStolenToken(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	other := a.flimmer.Loots(a.flimmer.Gets(a.bob, "alice", chat.AllActions)) // the same app's grant of Bob's
	l, thief := a.flimmer.Loots(a.grant), newKey(t).Private()
	const path = "/inbox/v1/changes"
	header := func(scheme, token string, proofs ...string) http.Header {
		return http.Header{"Authorization": {scheme + " " + token}, "Dpop": proofs}
	}
	good := a.w.Proof("GET", path, l.Access, l.Key)
	a.w.Must(a.w.CallWith("GET", path, header("DPoP", l.Access, good)))
	for name, c := range map[string]struct {
		h    http.Header
		want string
	}{
		"no proof":                        {header("DPoP", l.Access), "this call needs one DPoP header"},
		"as a bearer":                     {header("Bearer", l.Access, a.w.Proof("GET", path, l.Access, l.Key)), "must read: DPoP TOKEN"},
		"the thief's proof":               {header("DPoP", l.Access, a.w.Proof("GET", path, l.Access, thief)), "another key than this token is bound to"},
		"the proof of another grant's":    {header("DPoP", l.Access, a.w.Proof("GET", path, l.Access, other.Key)), "another key than this token is bound to"},
		"another grant's token, this key": {header("DPoP", other.Access, a.w.Proof("GET", path, other.Access, l.Key)), "another key than this token is bound to"},
		"a proof that was used":           {header("DPoP", l.Access, good), "used before"},
		"a proof for another token":       {header("DPoP", l.Access, a.w.Proof("GET", path, other.Access, l.Key)), "is for another token"},
		"a proof for another address":     {header("DPoP", l.Access, a.w.Proof("GET", "/inbox/v1/slot", l.Access, l.Key)), "another address"},
		"a proof for another method":      {header("DPoP", l.Access, a.w.Proof("POST", path, l.Access, l.Key)), "another method"},
		"two proofs":                      {header("DPoP", l.Access, a.w.Proof("GET", path, l.Access, thief), a.w.Proof("GET", path, l.Access, l.Key)), "one DPoP header"},
		"the refresh token":               {header("DPoP", l.Refresh, a.w.Proof("GET", path, l.Refresh, l.Key)), "this access token is unknown or over"},
	} {
		if err := a.w.CallWith("GET", path, c.h); !chat.Is(err, chat.Unauthenticated) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: answered with %v, want %q", name, err, c.want)
		}
	}
	stolen := *l
	stolen.Key = thief
	if _, err := stolen.Refreshed(); err == nil {
		t.Error("the refresh token was good under another key")
	}
	if _, err := l.Refreshed(); err != nil { // the thief's attempt did the owner no harm
		t.Error(err)
	}
}

// TestGrantOpensItsOwnThreadOnly: with the token of one grant, posts and take-backs under another, or for another thread.
func TestGrantOpensItsOwnThreadOnly(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	bobs := a.flimmer.Loots(a.flimmer.Gets(a.bob, "alice", chat.AllActions))
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	l := a.flimmer.Loots(a.grant)
	in := l.Inbox()
	mixed := *bobs
	mixed.Key = l.Key // the token's own key, under the other grant's name
	for name, post := range map[string][]byte{
		"another grant's post":            a.post(bobs, "x", nil),
		"under another grant's name":      a.post(&mixed, "x", nil),
		"another grant's key, this grant": a.post(&world.Loot{Grant: l.Grant, Key: bobs.Key}, "x", nil),
	} {
		if _, err := in.Post(a.w.Ctx(), api.InboxPost{Post: post, IdempotencyKey: name}); !chat.Is(err, chat.Forbidden) {
			t.Errorf("%s: answered with %v", name, err)
		}
	}
	for name, tb := range map[string][]byte{
		"another grant's take-back":  a.takeBack(bobs, chat.MessageID{1}, nil),
		"under another grant's name": a.takeBack(&mixed, chat.MessageID{1}, nil),
	} {
		if _, err := in.TakeBack(a.w.Ctx(), api.InboxTakeBack{TakeBack: tb, IdempotencyKey: name}); !chat.Is(err, chat.Forbidden) {
			t.Errorf("%s: answered with %v", name, err)
		}
	}
}
