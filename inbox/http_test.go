package inbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/grant"
	"letterlock/httpd"
	"letterlock/mls"
	"letterlock/oauth"
	"letterlock/proof"
	"letterlock/slot"
)

const publicURL = "http://" + host

// wire is a world behind real HTTP, with the real authorization server.
type wire struct {
	*world
	client *http.Client // reaches the public URL wherever it listens
}

func newWire(t *testing.T) *wire {
	w := &wire{world: newWorld(t)}
	w.clock.pass(time.Since(w.clock.now())) // go-oidc reads the real clock
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	verifier := dpop.NewVerifier(w.clock.now)
	tokens, err := oauth.New(oauth.Config{Issuer: publicURL, Store: w.store, Verifier: verifier, Judge: w.inbox.JudgeRequest, Logger: log, Now: w.clock.now, Rand: rand.Reader})
	w.must(err)
	w.inbox.OAuth = tokens
	server := httptest.NewServer(httpd.New(httpd.Config{PublicURL: publicURL, Inbox: w.inbox, Links: w.reports, Agents: tokens, OAuth: tokens.Handler(),
		Logger: log, Now: w.clock.now, ExemptLoopback: true}))
	t.Cleanup(server.Close)
	w.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, server.Listener.Addr().String())
		}}}
	t.Cleanup(w.client.CloseIdleConnections)
	return w
}

// post sends a form to the authorization server as the partner's client, with the proof of the grant's key.
func (w *wire) post(g *agent, path string, form url.Values) (int, map[string]any) {
	w.t.Helper()
	now := time.Now()
	claims, _ := json.Marshal(map[string]any{"iss": g.app.id, "sub": g.app.id, "aud": publicURL, "jti": chat.NewGrantID().String(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: g.app.key, KeyID: "1"}}, nil)
	w.must(err)
	jws, err := signer.Sign(claims)
	w.must(err)
	assertion, err := jws.CompactSerialize()
	w.must(err)
	form.Set("client_id", g.app.id)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	r, err := http.NewRequest(http.MethodPost, publicURL+path, strings.NewReader(form.Encode()))
	w.must(err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	prover, err := dpop.NewSigner(g.key, rand.Reader, time.Now)
	w.must(err)
	shown, err := prover.Proof(http.MethodPost, publicURL+path, "")
	w.must(err)
	r.Header.Set("DPoP", shown)
	resp, err := w.client.Do(r)
	w.must(err)
	defer resp.Body.Close()
	var out map[string]any
	json.NewDecoder(resp.Body).Decode(&out)
	return resp.StatusCode, out
}

const pkce = "a-verifier-of-at-least-forty-three-characters-is-needed"

// push asks over HTTP for what ask prepared.
func (w *wire) push(g *agent) {
	w.t.Helper()
	r := w.oauth.open[g.request]
	detail := map[string]any{"type": "inbox_conversation", "actions": r.Actions, "pick": true, "grant_id": g.grant.String(), "certs": r.Certs, "valid_until": r.ValidUntil}
	if len(r.KeyPackage) > 0 {
		detail["key_package"] = r.KeyPackage
	}
	details, _ := json.Marshal([]any{detail})
	challenge := sha256.Sum256([]byte(pkce))
	status, got := w.post(g, "/oauth/par", url.Values{"response_type": {"code"}, "redirect_uri": {"http://127.0.0.1/callback"}, "state": {"s"}, "resource": {publicURL + "/inbox"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"}, "authorization_details": {string(details)}})
	uri, _ := got["request_uri"].(string)
	if status != http.StatusCreated || uri == "" {
		w.t.Fatalf("push: %d %v", status, got)
	}
	g.request = uri[strings.LastIndex(uri, ":")+1:]
}

// token is an access token that stays as it is.
type token string

func (t token) Token(_ context.Context, refused string) (string, error) {
	if refused != "" {
		return "", chat.Errorf(chat.Unauthenticated, "there is no other token")
	}
	return string(t), nil
}

// connect goes the whole way over HTTP and gives the agent's client.
func (w *wire) connect(p *person, a *app, id chat.ConversationID, actions chat.Actions) (*agent, *httpclient.Agent, token) {
	w.t.Helper()
	g := a.ask(id, actions, nil)
	w.push(g)
	w.must(p.put(g, p.draft(g, actions)))
	p.commit(id, p.admission(g))
	to, err := w.inbox.FinishConsent(p.ctx, g.request)
	w.must(err)
	u, err := url.Parse(to.URL)
	w.must(err)
	status, got := w.post(g, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "code": {u.Query().Get("code")}, "redirect_uri": {"http://127.0.0.1/callback"}, "code_verifier": {pkce}})
	access, _ := got["access_token"].(string)
	if status != http.StatusOK || access == "" {
		w.t.Fatalf("token: %d %v", status, got)
	}
	c, err := httpclient.NewAgent(httpclient.Options{BaseURL: publicURL, HTTP: w.client, Now: w.clock.now, Rand: rand.Reader}, g.key, token(access))
	w.must(err)
	return g, c, token(access)
}

// TestOverHTTP: an agent with a real token sends, reads, deletes, shares a link, reports; after the revocation every call fails.
func TestOverHTTP(t *testing.T) {
	w := newWire(t)
	alice, bob, flimmer, id := w.pair()
	g, c, access := w.connect(alice, flimmer, id, chat.AllActions)
	ctx := w.ctx

	got, err := c.Grant(ctx)
	w.must(err)
	if got.Grant != g.grant || got.Conversation != id || got.State != "live" || got.Recipient != api.RecipientNotTold || grant.HashOf(got.Signed) != grant.HashOf(g.signed) {
		t.Fatalf("the grant: %+v", got)
	}
	s, err := c.Slot(ctx)
	w.must(err)
	a, err := slot.OpenAnnouncement(s.Slot)
	w.must(err)
	l := &letter{g: g, key: a.Key, Header: slot.Header{Host: host, Conversation: id, Epoch: s.Epoch, Grant: g.grant, Counter: 1, Message: chat.MessageID(chat.NewToken()), At: 1}}
	at, err := c.Post(ctx, api.InboxPost{Post: l.seal(g.key), IdempotencyKey: "1"})
	w.must(err)
	link, err := c.Link(ctx, api.InboxLink{Base: "https://flimmer.example/films"})
	w.must(err)

	// One click is one GET; a preview's HEAD is none.
	for method, want := range map[string]int{http.MethodGet: http.StatusFound, http.MethodHead: http.StatusMethodNotAllowed, http.MethodPost: http.StatusMethodNotAllowed} {
		r, _ := http.NewRequest(method, link.URL, nil)
		resp, err := w.client.Do(r)
		w.must(err)
		resp.Body.Close()
		if resp.StatusCode != want || method == http.MethodGet && resp.Header.Get("Location") != "https://flimmer.example/films/"+link.ID {
			t.Errorf("%s: %d, to %q", method, resp.StatusCode, resp.Header.Get("Location"))
		}
	}
	w.must(c.PutFigures(ctx, api.InboxFigures{Figures: []api.Figure{{Day: w.clock.now().UTC().Format(time.DateOnly), Recipient: api.RecipientNotTold, Sends: 1, Clicks: 1}}}))
	built, err := w.inbox.BuildReport(ctx, api.ReportQuery{Partner: "flimmer", Threshold: 1})
	w.must(err)
	if !strings.Contains(string(built.Report), `"total":{"sends":{"count":1,"partner":1,"agrees":true},"clicks":{"count":1,"partner":1,"agrees":true}}`) {
		t.Errorf("the report: %s", built.Report)
	}

	welcome, err := c.Welcome(ctx)
	w.must(err)
	group, err := mls.Join(welcome.Welcome, g.kp, mls.JoinOptions{Signer: g.key})
	w.must(err)
	w.must(bob.say(id, "wonderful"))
	changes, err := c.Changes(ctx, "", 10)
	w.must(err)
	if len(changes.Entries) != 2 || len(changes.Promises) != 2 || changes.Entries[0].Seq != at.Seq {
		t.Fatalf("changes: %d entries, %d promises", len(changes.Entries), len(changes.Promises))
	}
	if read, err := group.Open(changes.Entries[1].Body); err != nil || string(read.Plaintext) != "wonderful" {
		t.Fatalf("read: %v", err)
	}
	signed, err := slot.SignTakeBack(slot.TakeBack{Host: host, Conversation: id, Epoch: s.Epoch, Grant: g.grant, Message: l.Message, At: 1}, g.key)
	w.must(err)
	if _, err := c.TakeBack(ctx, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: "2"}); err != nil {
		t.Fatal(err)
	}

	// A stolen token without its key is worth nothing.
	thief, err := httpclient.NewAgent(httpclient.Options{BaseURL: publicURL, HTTP: w.client, Now: w.clock.now, Rand: rand.Reader}, newKey(w.world), access)
	w.must(err)
	_, err = thief.Grant(ctx)
	w.refused(err, chat.Unauthenticated)

	// After the revocation nothing works but the last receipt.
	alice.commit(id, alice.removal(g, alice.revocation(g)))
	for what, err := range map[string]error{
		"grant": errOf(c.Grant(ctx)), "slot": errOf(c.Slot(ctx)), "post": errOf(c.Post(ctx, api.InboxPost{Post: l.seal(g.key), IdempotencyKey: "3"})),
		"take-back": errOf(c.TakeBack(ctx, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: "4"})), "welcome": errOf(c.Welcome(ctx)),
		"changes": errOf(c.Changes(ctx, changes.State, 10)), "link": errOf(c.Link(ctx, api.InboxLink{Base: "https://flimmer.example/films"})), "figures": c.PutFigures(ctx, api.InboxFigures{}),
	} {
		if !chat.Is(err, chat.Unauthenticated) {
			t.Errorf("%s after the revocation: %v", what, err)
		}
	}
	st := &proof.Statement{Host: host, Conversation: id, Grant: g.grant, Epoch: changes.Entries[1].Epoch, Period: proof.Period(w.clock.now().UnixMilli()),
		From: changes.Entries[0].Seq, To: changes.Entries[1].Seq, Count: 2}
	w.must(c.CloseAccess(ctx, st.Receipt(g.key)))
}

// TestSendOnlyOverHTTP: an agent that may only send is refused at every other door, with a sentence that says why.
func TestSendOnlyOverHTTP(t *testing.T) {
	w := newWire(t)
	alice, bob, flimmer, id := w.pair()
	g, c, _ := w.connect(alice, flimmer, id, chat.Send)
	w.must(bob.say(id, "between us"))
	signed, err := slot.SignTakeBack(slot.TakeBack{Host: host, Conversation: id, Epoch: 1, Grant: g.grant, Message: chat.MessageID{1}, At: 1}, g.key)
	w.must(err)
	for what, err := range map[string]error{
		"read":   errOf(c.Changes(w.ctx, "", 0)),
		"read ":  errOf(c.Welcome(w.ctx)),
		"delete": errOf(c.TakeBack(w.ctx, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: "1"})),
	} {
		what = strings.TrimSpace(what)
		if !chat.Is(err, chat.Forbidden) || err.Error() != "alice has not allowed "+what+" in this thread" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBadBodies: what is no proper call is refused by the HTTP layer or the package, and never breaks the server.
func TestBadBodies(t *testing.T) {
	w := newWire(t)
	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/inbox/v1/receipts", `{"receipt":"AAAA"}`, 400},
		{"POST", "/inbox/v1/receipts", `{"receipt":"` + strings.Repeat("A", 800) + `"}`, 413},
		{"POST", "/inbox/v1/receipts", `{"receipt":"` + strings.Repeat("A", 4096) + `"}`, 413},
		{"POST", "/inbox/v1/receipts", `{"receipt":"AAAA","x":1}`, 400},
		{"POST", "/inbox/v1/receipts", `[]`, 400},
		{"POST", "/inbox/v1/posts", `{}`, 401},
		{"GET", "/inbox/v1/changes", "", 401},
		{"GET", "/inbox/v1/grant", "", 401},
		{"GET", "/l/00000000000000000000000000000000", "", 404},
		{"GET", "/l/x", "", 404},
		{"GET", "/inbox/v1/none", "", 404},
	} {
		r, _ := http.NewRequest(c.method, publicURL+c.path, strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/json")
		resp, err := w.client.Do(r)
		w.must(err)
		if resp.StatusCode != c.status || resp.Header.Get("Content-Type") != "application/problem+json" {
			b, _ := io.ReadAll(resp.Body)
			t.Errorf("%s %s %.40s: %d %s", c.method, c.path, c.body, resp.StatusCode, b)
		}
		resp.Body.Close()
	}
}

// TestAdminOverHTTP: the operator's calls as they go over the socket.
func TestAdminOverHTTP(t *testing.T) {
	w := newWorld(t)
	mux := http.NewServeMux()
	httpd.RouteAdmin(mux, w.inbox, slog.New(slog.NewTextHandler(io.Discard, nil)))
	server := httptest.NewServer(mux)
	defer server.Close()
	do := func(method, path string, in any) (int, map[string]any) {
		b, _ := json.Marshal(in)
		r, _ := http.NewRequest(method, server.URL+"/admin/v1"+path, strings.NewReader(string(b)))
		r.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(r)
		w.must(err)
		defer resp.Body.Close()
		var out map[string]any
		json.NewDecoder(resp.Body).Decode(&out)
		return resp.StatusCode, out
	}
	a := &app{w: w, id: "flimmer", root: newKey(w), key: newKey(w)}
	for _, c := range []struct {
		method, path string
		in           any
		status       int
	}{
		{"GET", "/partners/flimmer", nil, 404},
		{"POST", "/partners", api.AcceptAgreement{Registration: a.registration(a.offer(nil))}, 200},
		{"GET", "/partners/flimmer", nil, 200},
		{"GET", "/partners", nil, 200},
		{"GET", "/status", nil, 200},
		{"POST", "/reports", api.ReportQuery{Partner: "flimmer"}, 200},
		{"POST", "/partners/flimmer/figures", api.InboxFigures{}, 204},
		{"POST", "/partners/flimmer/stop", api.StopPartner{Reason: "flooding"}, 204},
		{"POST", "/partners/flimmer/resume", nil, 403},
		{"POST", "/partners", map[string]int{"x": 1}, 400},
	} {
		if status, got := do(c.method, c.path, c.in); status != c.status {
			t.Errorf("%s %s: %d %v", c.method, c.path, status, got)
		}
	}
}
