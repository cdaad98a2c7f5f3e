package world

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/dpop"
	"letterlock/mls"
	"letterlock/slot"
	"letterlock/vault"
)

// Partner is a partner's app whose agreement is in force, with its agent open on a folder.
type Partner struct {
	*agent.Agent
	World *World
	Home  string
	// Lie, when set before a call, may answer in the server's place; nil lets the call through.
	Lie   func(*http.Request) *http.Response
	ahead atomic.Int64 // ns that the agent's clock is ahead
}

// Flimmer registers the sample partner, as its operator does.
func (w *World) Flimmer(change ...func(*agent.Options)) *Partner {
	w.T.Helper()
	o := agent.Options{Server: w.URL, Partner: "flimmer", Name: "Flimmer", Actions: chat.AllActions, ReportDays: 14, PostsPerMinute: 1000,
		LinkBases: []string{"https://flimmer.example/w/"}, Interfaces: []string{"web"}, Surfaces: []string{"player"}, Variants: []string{"a"},
		Valid: 365 * 24 * time.Hour, Number: 1, RedirectURI: agent.DefaultRedirect}
	for _, c := range change {
		c(&o)
	}
	p := &Partner{World: w, Home: filepath.Join(w.Dir, "partner-"+o.Partner)}
	r, err := agent.Init(w.Ctx(), p.Home, o, p.env())
	w.Must(err)
	w.Must(w.Operator("POST", "/admin/v1/partners", api.AcceptAgreement{Registration: *r}))
	p.open()
	return p
}

func (p *Partner) open() {
	p.World.T.Helper()
	a, err := agent.Open(p.Home, p.env(), slog.New(slog.DiscardHandler))
	p.World.Must(err)
	p.Agent = a
	p.World.T.Cleanup(func() { a.Close() })
}

func (p *Partner) env() agent.Env {
	return agent.Env{Now: func() time.Time { return time.Now().Add(time.Duration(p.ahead.Load())) }, Rand: rand.Reader, Transport: lyingTransport{p}}
}

// Pass turns the agent's clock on, and nobody else's.
func (p *Partner) Pass(d time.Duration) { p.ahead.Add(int64(d)) }

type lyingTransport struct{ p *Partner }

func (t lyingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.p.Lie != nil {
		if a := t.p.Lie(r); a != nil {
			return a, nil
		}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// Answer is a made-up answer to a request.
func Answer(r *http.Request, status int, body any) *http.Response {
	b, _ := json.Marshal(body)
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(bytes.NewReader(b))}
}

// Operator makes a call on the server's admin socket.
func (w *World) Operator(method, path string, in any) error {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(w.Dir, "server", "admin.sock"))
	}}}
	return call(c, method, "http://admin"+path, "", nil, in, nil)
}

// Asks opens a request of the partner. Where the end is not named, it is in a day.
func (p *Partner) Asks(ask agent.Ask) agent.Authorization {
	p.World.T.Helper()
	if ask.Until.IsZero() {
		ask.Until = time.Now().Add(24 * time.Hour)
	}
	q, err := p.Authorize(p.World.Ctx(), ask)
	p.World.Must(err)
	return q
}

// Consent lets somebody say yes to a request, and returns what their browser brings back.
func (p *Partner) Consent(who *Person, q agent.Authorization, a device.Answer) url.Values {
	p.World.T.Helper()
	p.World.Must(who.Sync(p.World.Ctx()))
	consent, err := who.OpenConsent(p.World.Ctx(), q.URL)
	p.World.Must(err)
	back, err := who.Allow(p.World.Ctx(), consent, a)
	p.World.Must(err)
	u, err := url.Parse(back)
	p.World.Must(err)
	return u.Query()
}

// Gets goes the whole way: asked for a friend, allowed, redeemed.
func (p *Partner) Gets(who *Person, friend string, actions chat.Actions) chat.GrantID {
	p.World.T.Helper()
	return p.GetsBy(who, friend, agent.Ask{Actions: actions, Pick: true})
}

// GetsBy is Gets with a request of the test's own.
func (p *Partner) GetsBy(who *Person, friend string, ask agent.Ask) chat.GrantID {
	p.World.T.Helper()
	q := p.Asks(ask)
	got, err := p.Redeem(p.World.Ctx(), p.Consent(who, q, device.Answer{Friend: friend}))
	p.World.Must(err)
	if got.Outcome != agent.Granted {
		p.World.T.Fatalf("the request came to %s: %s", got.Outcome, got.Detail)
	}
	return q.ID
}

// Copy opens a copy of the agent's folder as it is now, as another agent with all the same keys.
func (p *Partner) Copy() *Partner {
	p.World.T.Helper()
	c := &Partner{World: p.World, Home: p.copyFolder()}
	c.ahead.Store(p.ahead.Load())
	c.open()
	return c
}

func (p *Partner) copyFolder() string {
	t := p.World.T
	t.Helper()
	to := filepath.Join(t.TempDir(), "agent")
	p.World.Must(os.CopyFS(to, os.DirFS(p.Home)))
	p.World.Must(filepath.WalkDir(to, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := os.FileMode(0o600) // CopyFS adds bits that a vault refuses
		if d.IsDir() {
			mode = 0o700
		}
		return os.Chmod(path, mode)
	}))
	return to
}

// Loot is everything that an agent holds under a grant, and its partner's keys: what a thief of the folder has, and what a partner can
// use that does not keep to the rules.
type Loot struct {
	World        *World
	Partner      string
	Grant        chat.GrantID
	Conversation chat.ConversationID
	Handle       string // whose grant it is

	RootKey, AgentKey, ClientKey, Key ed25519.PrivateKey // Key is the grant's

	AgentCert, Certs, Signed []byte
	KeyPackage               []byte // with its private keys, until it was used
	Group                    []byte // the reading leaf's, as stored; empty without one
	Access, Refresh          string
	Counter                  uint64
	Verifier, Redirect       string // of the request, until it was redeemed
}

// The agent's own records, as spec/agent.md section 3 has them.
type (
	agentConfig struct {
		_                     struct{} `cbor:",toarray"`
		Version               uint64
		Partner, Name         string
		RedirectURI           string
		LinkBases             []string
		AgentSeed, ClientSeed []byte
		AgentCert             []byte
		Server                canonRest
	}
	agentGrant struct {
		_                   struct{} `cbor:",toarray"`
		Version             uint64
		Grant               chat.GrantID
		Phase, Detail, For  string
		Seed, Certs, KeyPkg []byte
		AskedFor            chat.Actions
		Signed              []byte
		Conversation        chat.ConversationID
		Handle              string
		Actions             chat.Actions
		Expiry              int64
		Friend              string
		SlotEpoch           uint64
		SlotKey             slot.PublicKey
		Counter             uint64
		Since               string
		Last, Lines         uint64
	}
	agentTokens struct {
		_       struct{} `cbor:",toarray"`
		Version uint64
		Access  string
		Expires int64
		Refresh string
	}
	agentAsked struct {
		_                         struct{} `cbor:",toarray"`
		Version                   uint64
		Grant                     chat.GrantID
		Outcome, Detail, Redirect string
		State, Verifier           string
		Expires                   int64
	}
	canonRest struct {
		_          struct{} `cbor:",toarray"`
		Host, URL  string
		ServerKey  []byte
		LedgerVKey string
		VRFKey     []byte
	}
)

// Loots takes everything out of a copy of the agent's folder.
func (p *Partner) Loots(g chat.GrantID) *Loot {
	p.World.T.Helper()
	home := p.copyFolder()
	l := &Loot{World: p.World, Grant: g}
	l.open(filepath.Join(home, "root"), func(get func(bucket, name string) []byte) {
		l.RootKey = ed25519.NewKeyFromSeed(get("root", "key"))
	})
	l.open(filepath.Join(home, "state"), func(get func(bucket, name string) []byte) {
		var c agentConfig
		var h agentGrant
		var t agentTokens
		var q agentAsked
		for v, data := range map[any][]byte{&c: get("agent", "config"), &h: get("grants", g.String()), &t: get("tokens", g.String()), &q: get("asked", g.String())} {
			if len(data) > 0 {
				p.World.Must(canon.Unmarshal(data, v))
			}
		}
		l.Partner, l.AgentCert = c.Partner, c.AgentCert
		l.AgentKey, l.ClientKey, l.Key = ed25519.NewKeyFromSeed(c.AgentSeed), ed25519.NewKeyFromSeed(c.ClientSeed), ed25519.NewKeyFromSeed(h.Seed)
		l.Certs, l.Signed, l.KeyPackage, l.Group = h.Certs, h.Signed, h.KeyPkg, get("groups", g.String())
		l.Conversation, l.Handle, l.Counter = h.Conversation, h.Handle, h.Counter
		l.Access, l.Refresh, l.Verifier, l.Redirect = t.Access, t.Refresh, q.Verifier, q.Redirect
	})
	return l
}

// open reads a vault.
func (l *Loot) open(dir string, read func(get func(bucket, name string) []byte)) {
	l.World.T.Helper()
	v, err := vault.Open(dir, vault.Options{})
	l.World.Must(err)
	defer v.Close()
	l.World.Must(v.View(func(tx *vault.Tx) error {
		read(func(bucket, name string) []byte {
			data, _, err := tx.Get(bucket, name)
			l.World.Must(err)
			return data
		})
		return nil
	}))
}

// Reads is the group of the agent's leaf, as it was stored.
func (l *Loot) Reads() *mls.Group {
	l.World.T.Helper()
	g, err := mls.UnmarshalGroup(l.Group, l.Key)
	l.World.Must(err)
	return g
}

// Join enters the thread by the Welcome that waits and the KeyPackage of the request, as the agent does once.
func (l *Loot) Join() *mls.Group {
	l.World.T.Helper()
	w, err := l.Inbox().Welcome(l.World.Ctx())
	l.World.Must(err)
	kp, err := mls.UnmarshalKeyPackage(l.KeyPackage)
	l.World.Must(err)
	g, err := mls.Join(w.Welcome, kp, mls.JoinOptions{Signer: l.Key})
	l.World.Must(err)
	return g
}

// Tokens is an answer of the token endpoint.
type Tokens struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
}

// Token makes a call of the token endpoint as the partner, proven with any key.
func (l *Loot) Token(form url.Values, key ed25519.PrivateKey) (t Tokens, err error) {
	address := l.World.URL + "/oauth/token"
	form = maps.Clone(form)
	form.Set("client_id", l.Partner)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", l.assertion())
	r, err := http.NewRequest(http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return t, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("DPoP", l.World.Proof(http.MethodPost, "/oauth/token", "", key))
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return t, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return t, err
	}
	if answer.StatusCode >= 300 {
		return t, chat.Errorf(chat.Forbidden, "%s", text)
	}
	return t, json.Unmarshal(text, &t)
}

// assertion says who the client is (RFC 7523 section 3).
func (l *Loot) assertion() string {
	l.World.T.Helper()
	public := jose.JSONWebKey{Key: l.ClientKey.Public()}
	sum, err := public.Thumbprint(crypto.SHA256)
	l.World.Must(err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: l.ClientKey},
		(&jose.SignerOptions{}).WithType("JWT").WithHeader("kid", base64.RawURLEncoding.EncodeToString(sum)))
	l.World.Must(err)
	id := chat.NewToken()
	now := time.Now()
	text, err := jwt.Signed(signer).Claims(jwt.Claims{Issuer: l.Partner, Subject: l.Partner, Audience: jwt.Audience{l.World.URL},
		ID: base64.RawURLEncoding.EncodeToString(id[:]), IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute))}).Serialize()
	l.World.Must(err)
	return text
}

// Refreshed asks for new tokens by the refresh token.
func (l *Loot) Refreshed() (Tokens, error) {
	return l.Token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {l.Refresh}, "resource": {l.World.URL + "/inbox"}}, l.Key)
}

// Inbox is a client with the grant's token and key.
func (l *Loot) Inbox() *httpclient.Agent { return l.World.Inbox(l.Access, l.Key) }

// Inbox is a client of the Inbox API with any token and any key. It renews no token.
func (w *World) Inbox(token string, key ed25519.PrivateKey) *httpclient.Agent {
	w.T.Helper()
	a, err := httpclient.NewAgent(httpclient.Options{BaseURL: w.URL, Now: time.Now, Rand: rand.Reader}, key, fixed(token))
	w.Must(err)
	return a
}

// fixed is a token that is all there is.
type fixed string

func (f fixed) Token(_ context.Context, refused string) (string, error) {
	if refused != "" {
		return "", chat.Errorf(chat.Unauthenticated, "there is no other token")
	}
	return string(f), nil
}

// Call makes a raw call with any token (empty: none) and a proof of any key (nil: none). A refusal is a *chat.Error.
func (w *World) Call(method, path, token string, key ed25519.PrivateKey, in any) error {
	w.T.Helper()
	h := http.Header{}
	if token != "" {
		h.Set("Authorization", "DPoP "+token)
	}
	if key != nil {
		h.Set("DPoP", w.Proof(method, path, token, key))
	}
	return call(http.DefaultClient, method, w.URL+path, "application/json", h, in, nil)
}

// CallWith is Call with headers of the test's own.
func (w *World) CallWith(method, path string, h http.Header) error {
	return call(http.DefaultClient, method, w.URL+path, "", h, nil, nil)
}

// Proof is a DPoP proof for one call.
func (w *World) Proof(method, path, token string, key ed25519.PrivateKey) string {
	w.T.Helper()
	path, _, _ = strings.Cut(path, "?")
	s, err := dpop.NewSigner(key, rand.Reader, time.Now)
	w.Must(err)
	proof, err := s.Proof(method, w.URL+path, token)
	w.Must(err)
	return proof
}

// call sends JSON and reads a problem, if the answer is one.
func call(c *http.Client, method, address, contentType string, h http.Header, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, contentType = bytes.NewReader(b), "application/json"
	}
	r, err := http.NewRequest(method, address, body)
	if err != nil {
		return err
	}
	if h != nil {
		r.Header = h
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode < 300 {
		if out == nil {
			return nil
		}
		return json.Unmarshal(text, out)
	}
	var p struct {
		Type   string `json:"type"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(text, &p) != nil || p.Detail == "" {
		return chat.Errorf(chat.Internal, "%s %s: %d %s", method, address, answer.StatusCode, text)
	}
	return chat.Errorf(chat.Kind(strings.TrimPrefix(p.Type, "urn:letterlock:")), "%s", p.Detail)
}
