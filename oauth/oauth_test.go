package oauth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
	"letterlock/store/storetest"
)

// world is an authorization server behind real HTTP, with the partner flimmer registered.
type world struct {
	t      *testing.T
	s      *Service
	st     *store.Store
	issuer string
	judge  func(*store.Tx, api.ConsentRequest) error

	mu  sync.Mutex
	now time.Duration // ahead of the real clock
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.now)
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now += d
}

const redirect = "http://127.0.0.1:7777/callback"

func newWorld(t *testing.T) *world { return worldOn(t, storetest.NewDatabase(t)(t)) }

func worldOn(t *testing.T, st *store.Store) *world {
	t.Helper()
	w := &world{t: t, st: st, judge: func(*store.Tx, api.ConsentRequest) error { return nil }}
	server := httptest.NewUnstartedServer(nil)
	w.issuer = "http://" + server.Listener.Addr().String()
	var err error
	w.s, err = New(Config{
		Issuer: w.issuer, Store: st, Verifier: dpop.NewVerifier(w.clock), Now: w.clock, Rand: rand.Reader,
		Judge:  func(tx *store.Tx, r api.ConsentRequest) error { return w.judge(tx, r) },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = w.s.Handler()
	server.Start()
	t.Cleanup(server.Close)
	return w
}

// partner is an agent that goes through the flow.
type partner struct {
	*world
	id     string
	client crypto.Signer
	alg    jose.SignatureAlgorithm
	grant  chat.GrantID
	key    ed25519.PrivateKey // the grant's
}

func (w *world) partner(id string) *partner {
	_, client, _ := ed25519.GenerateKey(rand.Reader)
	return w.partnerWith(id, client, jose.EdDSA)
}

func (w *world) partnerWith(id string, client crypto.Signer, alg jose.SignatureAlgorithm) *partner {
	w.t.Helper()
	jwks, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: client.Public(), KeyID: "1"}}})
	if err := CheckClient(jwks, []string{redirect}); err != nil {
		w.t.Fatal(err)
	}
	err := w.st.Update(w.t.Context(), func(tx *store.Tx) error {
		return tx.PutOAuthClient(store.OAuthClient{ID: id, JWKS: jwks, RedirectURIs: []string{redirect}})
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return &partner{world: w, id: id, client: client, alg: alg, grant: chat.NewGrantID(), key: key}
}

// assertion makes a client assertion (RFC 7523).
func (p *partner) assertion(change func(map[string]any)) string {
	p.t.Helper()
	jti := chat.NewToken()
	claims := map[string]any{
		"iss": p.id, "sub": p.id, "aud": p.issuer, "jti": base64.RawURLEncoding.EncodeToString(jti[:]),
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
	}
	if change != nil {
		change(claims)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: p.alg, Key: jose.JSONWebKey{Key: p.client, KeyID: "1"}}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	payload, _ := json.Marshal(claims)
	jws, err := signer.Sign(payload)
	if err != nil {
		p.t.Fatal(err)
	}
	out, _ := jws.CompactSerialize()
	return out
}

func (p *partner) signer(key ed25519.PrivateKey) *dpop.Signer {
	s, err := dpop.NewSigner(key, rand.Reader, p.clock)
	if err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (p *partner) proof(path string) string {
	proof, err := p.signer(p.key).Proof("POST", p.issuer+path, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return proof
}

// answer is what an endpoint answered.
type result struct {
	status int
	body   map[string]any
	header http.Header
}

func (r result) text(name string) string { s, _ := r.body[name].(string); return s }

// post sends a form with client authentication. proof "" sends none.
func (p *partner) post(path string, form url.Values, proof string) result {
	p.t.Helper()
	if !form.Has("client_assertion") {
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", p.assertion(nil))
	}
	r, _ := http.NewRequest("POST", p.issuer+path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if proof != "" {
		r.Header.Set("DPoP", proof)
	}
	return p.send(r)
}

func (w *world) send(r *http.Request) result {
	w.t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	out := result{status: resp.StatusCode, header: resp.Header}
	b, _ := io.ReadAll(resp.Body)
	json.Unmarshal(b, &out.body)
	return out
}

const verifier = "a-verifier-of-at-least-forty-three-characters-is-needed"

func challenge(v string) string {
	h := sha256.Sum256([]byte(v))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

func (p *partner) details() map[string]any {
	return map[string]any{
		"type": DetailType, "actions": []string{"send", "read"}, "pick": true, "grant_id": p.grant.String(),
		"certs": []byte("certificates"), "key_package": []byte("key package"), "valid_until": p.clock().Add(24 * time.Hour).UnixMilli(),
	}
}

func (p *partner) pushForm(details map[string]any) url.Values {
	list, _ := json.Marshal([]any{details})
	return url.Values{
		"client_id": {p.id}, "response_type": {"code"}, "redirect_uri": {redirect}, "state": {"the state"},
		"code_challenge": {challenge(verifier)}, "code_challenge_method": {"S256"}, "resource": {p.issuer + "/inbox"},
		"authorization_details": {string(list)},
	}
}

// push pushes a good request and gives its id.
func (p *partner) push() string {
	p.t.Helper()
	r := p.post(pushPath, p.pushForm(p.details()), p.proof(pushPath))
	if r.status != http.StatusCreated {
		p.t.Fatalf("push: %d %v", r.status, r.body)
	}
	id, ok := strings.CutPrefix(r.text("request_uri"), requestURIPrefix)
	if !ok {
		p.t.Fatalf("push: %v", r.body)
	}
	return id
}

// approve pushes, approves and gives the code.
func (p *partner) approve(actions chat.Actions) string {
	p.t.Helper()
	to, err := p.s.Approve(p.t.Context(), p.push(), p.grant, actions)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.codeOf(to)
}

func (p *partner) codeOf(to string) string {
	p.t.Helper()
	u, err := url.Parse(to)
	if err != nil || !strings.HasPrefix(to, redirect+"?") {
		p.t.Fatalf("redirect %q: %v", to, err)
	}
	q := u.Query()
	if q.Get("state") != "the state" || q.Get("iss") != p.issuer || q.Get("code") == "" {
		p.t.Fatalf("redirect %q", to)
	}
	return q.Get("code")
}

func (p *partner) redeemForm(code string) url.Values {
	return url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {redirect}, "code_verifier": {verifier}}
}

func (p *partner) redeem(code string) result {
	p.t.Helper()
	return p.post(tokenPath, p.redeemForm(code), p.proof(tokenPath))
}

func (p *partner) refresh(token string) result {
	p.t.Helper()
	return p.post(tokenPath, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, p.proof(tokenPath))
}

// tokens goes the whole flow.
func (p *partner) tokens() (access, refresh string) {
	p.t.Helper()
	r := p.redeem(p.approve(chat.Send))
	if r.status != http.StatusOK {
		p.t.Fatalf("token: %d %v", r.status, r.body)
	}
	return r.text("access_token"), r.text("refresh_token")
}

// use calls the resource server's check with a token.
func (p *partner) use(token string, key ed25519.PrivateKey) (api.AgentCaller, error) {
	address := p.issuer + "/inbox/v1/grant"
	proof, err := p.signer(key).Proof("GET", address, token)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.s.Authenticate(p.t.Context(), dpop.Request{Proof: proof, Method: "GET", URL: address, Token: token})
}

func (p *partner) mustUse(token string) {
	p.t.Helper()
	if a, err := p.use(token, p.key); err != nil || a.Grant != p.grant || a.Partner != p.id {
		p.t.Fatalf("a good token: %v %v", a, err)
	}
}

func (p *partner) mustNotUse(token string) {
	p.t.Helper()
	if _, err := p.use(token, p.key); !chat.Is(err, chat.Unauthenticated) {
		p.t.Fatalf("a token that ended: %v", err)
	}
}

func TestWholeFlow(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()

	c, err := w.s.Consent(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if c.Partner.ID != "flimmer" || strings.Join(c.Actions, ",") != "send,read" || !c.Pick || c.Grant != p.grant || string(c.Certs) != "certificates" {
		t.Fatalf("consent request: %+v", c)
	}
	to, err := w.s.Approve(t.Context(), id, p.grant, chat.Send) // narrowed
	if err != nil {
		t.Fatal(err)
	}
	r := p.redeem(p.codeOf(to))
	if r.status != http.StatusOK || r.text("token_type") != "DPoP" || r.body["expires_in"] != 600.0 {
		t.Fatalf("token: %d %v", r.status, r.body)
	}
	d := r.body["authorization_details"].([]any)[0].(map[string]any)
	if a := d["actions"].([]any); len(a) != 1 || a[0] != "send" || d["grant_id"] != p.grant.String() || d["certs"] != nil {
		t.Fatalf("granted details: %v", d)
	}
	p.mustUse(r.text("access_token"))

	again := p.refresh(r.text("refresh_token"))
	if again.status != http.StatusOK || again.text("refresh_token") == r.text("refresh_token") {
		t.Fatalf("refresh: %d %v", again.status, again.body)
	}
	p.mustUse(again.text("access_token"))
	p.mustUse(r.text("access_token")) // a refresh ends no access token
}

func TestES256Client(t *testing.T) {
	w := newWorld(t)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p := w.partnerWith("flimmer", key, jose.ES256)
	access, _ := p.tokens()
	p.mustUse(access)
}

func TestSaysNo(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	to, err := w.s.Refuse(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(to)
	if q := u.Query(); q.Get("error") != "access_denied" || q.Get("state") != "the state" || q.Get("iss") != w.issuer || q.Has("code") {
		t.Fatalf("redirect %q", to)
	}
	if _, err := w.s.Approve(t.Context(), id, p.grant, chat.Send); !chat.Is(err, chat.Expired) {
		t.Fatalf("approved after a no: %v", err)
	}
}

func TestNothingWidens(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	if _, err := w.s.Approve(t.Context(), id, p.grant, chat.Send|chat.Delete); !chat.Is(err, chat.Forbidden) {
		t.Fatalf("more actions than asked for: %v", err)
	}
	if _, err := w.s.Approve(t.Context(), id, p.grant, 0); !chat.Is(err, chat.Forbidden) {
		t.Fatalf("no action: %v", err)
	}
	if _, err := w.s.Approve(t.Context(), id, chat.NewGrantID(), chat.Send); !chat.Is(err, chat.Forbidden) {
		t.Fatalf("another grant: %v", err)
	}
	to, err := w.s.Approve(t.Context(), id, p.grant, chat.Send)
	if err != nil {
		t.Fatal(err)
	}
	wide, _ := json.Marshal(granted(p.grant, chat.Send|chat.Read, p.clock().Add(24*time.Hour).UnixMilli()))
	form := p.redeemForm(p.codeOf(to))
	form.Set("authorization_details", string(wide))
	if r := p.post(tokenPath, form, p.proof(tokenPath)); r.text("error") != "invalid_authorization_details" {
		t.Fatalf("wider at redemption: %d %v", r.status, r.body)
	}

	p.grant = chat.NewGrantID()
	_, refresh := p.tokens()
	form = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}, "authorization_details": {string(wide)}}
	if r := p.post(tokenPath, form, p.proof(tokenPath)); r.text("error") != "invalid_authorization_details" {
		t.Fatalf("wider at refresh: %d %v", r.status, r.body)
	}
}

// TestOneCodeOfManyAnswers: however often and however parallel a request is answered, one code is good.
func TestOneCodeOfManyAnswers(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	var answers []string
	var mu sync.Mutex
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			to, err := w.s.Approve(context.Background(), id, p.grant, chat.Send)
			if err != nil && !chat.Is(err, chat.Expired) {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				answers = append(answers, to)
			}
		})
	}
	group.Wait()
	wins := 0
	for _, to := range answers {
		if p.redeem(p.codeOf(to)).status == http.StatusOK {
			wins++
		}
	}
	if wins != 1 {
		t.Fatalf("%d codes of %d answers were good", wins, len(answers))
	}
}

// TestLostAnswer: the code never arrived, the person's client asks for it again.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	approve := func(actions chat.Actions) string {
		t.Helper()
		to, err := w.s.Approve(t.Context(), id, p.grant, actions)
		if err != nil {
			t.Fatal(err)
		}
		return p.codeOf(to)
	}
	lost := approve(chat.Send)
	if _, err := w.s.Consent(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Refuse(t.Context(), id); !chat.Is(err, chat.Expired) {
		t.Errorf("a no after a yes: %v", err)
	}
	if _, err := w.s.Approve(t.Context(), id, p.grant, chat.Send|chat.Delete); !chat.Is(err, chat.Forbidden) {
		t.Errorf("wider the second time: %v", err)
	}
	code := approve(chat.Send)
	if r := p.redeem(lost); r.text("error") != "invalid_grant" {
		t.Errorf("the code before: %d %v", r.status, r.body)
	}
	r := p.redeem(code)
	if r.status != http.StatusOK {
		t.Fatalf("the code after: %d %v", r.status, r.body)
	}
	p.mustUse(r.text("access_token"))
	if _, err := w.s.Approve(t.Context(), id, p.grant, chat.Send); !chat.Is(err, chat.Expired) {
		t.Errorf("after the code was redeemed: %v", err)
	}
	p.redeem(lost)
	p.mustUse(r.text("access_token")) // it was never given to anybody who redeemed it
}

// TestStoppedBetweenAnswerAndCode: the answer was recorded, the code was not.
func TestStoppedBetweenAnswerAndCode(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	err := w.st.Update(t.Context(), func(tx *store.Tx) error { return tx.DecideOAuthRequest(requestHash(id), store.OAuthAllowed) })
	if err != nil {
		t.Fatal(err)
	}
	to, err := w.s.Approve(t.Context(), id, p.grant, chat.Send)
	if err != nil {
		t.Fatal(err)
	}
	r := p.redeem(p.codeOf(to))
	p.mustUse(r.text("access_token"))
	thief := *p
	_, thief.key, _ = ed25519.GenerateKey(rand.Reader)
	if r := thief.refresh(r.text("refresh_token")); r.status == http.StatusOK {
		t.Error("the key of the pushed request was forgotten")
	}
}

func TestPushRefuses(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	detail := func(change func(map[string]any)) url.Values {
		d := p.details()
		change(d)
		return p.pushForm(d)
	}
	param := func(name, value string) url.Values {
		f := p.pushForm(p.details())
		f.Set(name, value)
		if value == "" {
			f.Del(name)
		}
		return f
	}
	for name, c := range map[string]struct {
		form url.Values
		want string
	}{
		"foreign redirect":       {param("redirect_uri", "https://evil.example/callback"), "invalid_request"},
		"redirect with a suffix": {param("redirect_uri", redirect+"/more"), "invalid_request"},
		"other scheme":           {param("redirect_uri", "https://127.0.0.1:7777/callback"), "invalid_request"},
		"another spelling":       {param("redirect_uri", "HTTP://127.0.0.1:7777/callback"), "invalid_request"},
		"no PKCE":                {param("code_challenge", ""), "invalid_request"},
		"plain PKCE":             {param("code_challenge_method", "plain"), "invalid_request"},
		"default PKCE":           {param("code_challenge_method", ""), "invalid_request"},
		"foreign resource":       {param("resource", "https://elsewhere.example/inbox"), "invalid_target"},
		"no resource":            {param("resource", ""), "invalid_target"},
		"implicit":               {param("response_type", "token"), "invalid_request"},
		"fragment":               {param("response_mode", "fragment"), "invalid_request"},
		"scope":                  {param("scope", "openid"), "invalid_scope"},
		"request_uri":            {param("request_uri", requestURIPrefix+"x"), "invalid_request"},
		"no details":             {param("authorization_details", ""), "invalid_authorization_details"},
		"broken details":         {param("authorization_details", "[{"), "invalid_authorization_details"},
		"two details":            {param("authorization_details", `[{"type":"inbox_conversation"},{"type":"inbox_conversation"}]`), "invalid_authorization_details"},
		"other type":             {detail(func(d map[string]any) { d["type"] = "all_messages" }), "invalid_authorization_details"},
		"unknown action":         {detail(func(d map[string]any) { d["actions"] = []string{"send", "admin"} }), "invalid_authorization_details"},
		"unknown member":         {detail(func(d map[string]any) { d["also"] = true }), "invalid_authorization_details"},
		"pick and identifier":    {detail(func(d map[string]any) { d["identifier"] = chat.NewConversationID().String() }), "invalid_authorization_details"},
		"neither":                {detail(func(d map[string]any) { delete(d, "pick") }), "invalid_authorization_details"},
		"read without package":   {detail(func(d map[string]any) { delete(d, "key_package") }), "invalid_authorization_details"},
		"package without read":   {detail(func(d map[string]any) { d["actions"] = []string{"send"} }), "invalid_authorization_details"},
		"no certs":               {detail(func(d map[string]any) { delete(d, "certs") }), "invalid_authorization_details"},
		"past":                   {detail(func(d map[string]any) { d["valid_until"] = 1 }), "invalid_authorization_details"},
		"short grant id":         {detail(func(d map[string]any) { d["grant_id"] = "00" }), "invalid_authorization_details"},
		"zero grant id":          {detail(func(d map[string]any) { d["grant_id"] = chat.GrantID{}.String() }), "invalid_authorization_details"},
	} {
		if r := p.post(pushPath, c.form, ""); r.text("error") != c.want {
			t.Errorf("%s: %d %v", name, r.status, r.body)
		}
	}
	twice := p.pushForm(p.details())
	twice.Add("state", "another")
	if r := p.post(pushPath, twice, ""); r.text("error") != "invalid_request" {
		t.Errorf("parameter twice: %d %v", r.status, r.body)
	}
	huge := p.pushForm(p.details())
	huge.Set("state", strings.Repeat("x", maxForm))
	if r := p.post(pushPath, huge, ""); r.text("error") != "invalid_request" {
		t.Errorf("huge form: %d %v", r.status, r.body)
	}
	w.judge = func(*store.Tx, api.ConsentRequest) error { return chat.Errorf(chat.Forbidden, "beyond the agreement") }
	if r := p.post(pushPath, p.pushForm(p.details()), ""); r.text("error") != "invalid_authorization_details" || r.text("error_description") != "beyond the agreement" {
		t.Errorf("beyond the agreement: %d %v", r.status, r.body)
	}
}

func TestUsedGrantIDRefused(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	p.tokens()
	if r := p.post(pushPath, p.pushForm(p.details()), ""); r.text("error") != "invalid_authorization_details" {
		t.Fatalf("the same grant id again: %d %v", r.status, r.body)
	}
}

func TestLoopbackPortIsFree(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	form := p.pushForm(p.details())
	form.Set("redirect_uri", "http://127.0.0.1:50123/callback")
	r := p.post(pushPath, form, "")
	if r.status != http.StatusCreated {
		t.Fatalf("%d %v", r.status, r.body)
	}
	to, err := w.s.Approve(t.Context(), strings.TrimPrefix(r.text("request_uri"), requestURIPrefix), p.grant, chat.Send)
	if err != nil || !strings.HasPrefix(to, "http://127.0.0.1:50123/callback?") {
		t.Fatalf("%q %v", to, err)
	}
}

func TestClientAuthentication(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	other := w.partner("elsewhere")
	try := func(assertion string) result {
		form := p.pushForm(p.details())
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
		return p.post(pushPath, form, "")
	}
	stranger := *p
	_, strange, _ := ed25519.GenerateKey(rand.Reader)
	stranger.client = strange
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(p.assertion(nil), ".")[1] + "."
	for name, a := range map[string]string{
		"another's key":  stranger.assertion(nil),
		"another client": other.assertion(nil),
		"alg none":       none,
		"other audience": p.assertion(func(c map[string]any) { c["aud"] = "https://elsewhere.example" }),
		"token audience": p.assertion(func(c map[string]any) { c["aud"] = w.issuer + tokenPath }),
		"expired":        p.assertion(func(c map[string]any) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
		"too long":       p.assertion(func(c map[string]any) { c["exp"] = time.Now().Add(time.Hour).Unix() }),
		"no jti":         p.assertion(func(c map[string]any) { delete(c, "jti") }),
		"unknown client": p.assertion(func(c map[string]any) { c["iss"], c["sub"] = "nobody", "nobody" }),
		"symmetric":      hmacAssertion(t, p),
		"not even a JWT": "x",
		"a huge one":     strings.Repeat("a", 40<<10),
	} {
		if r := try(a); r.status != http.StatusUnauthorized || r.text("error") != "invalid_client" {
			t.Errorf("%s: %d %v", name, r.status, r.body)
		}
	}
	once := p.assertion(nil)
	if r := try(once); r.status != http.StatusCreated {
		t.Fatalf("a good one: %d %v", r.status, r.body)
	}
	p.grant = chat.NewGrantID()
	if r := try(once); r.status != http.StatusUnauthorized {
		t.Errorf("used twice: %d %v", r.status, r.body)
	}
}

// hmacAssertion signs with the public key as a shared secret: algorithm confusion.
func hmacAssertion(t *testing.T, p *partner) string {
	pub := p.client.Public().(ed25519.PublicKey)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: []byte(pub)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	jws, _ := signer.Sign([]byte(`{"iss":"flimmer","sub":"flimmer"}`))
	out, _ := jws.CompactSerialize()
	return out
}

func TestRedemptionRefuses(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	other := w.partner("elsewhere")
	for name, try := range map[string]func(code string) result{
		"wrong verifier": func(code string) result {
			f := p.redeemForm(code)
			f.Set("code_verifier", strings.Repeat("w", 50))
			return p.post(tokenPath, f, p.proof(tokenPath))
		},
		"no verifier": func(code string) result {
			f := p.redeemForm(code)
			f.Del("code_verifier")
			return p.post(tokenPath, f, p.proof(tokenPath))
		},
		"other redirect": func(code string) result {
			f := p.redeemForm(code)
			f.Set("redirect_uri", "http://127.0.0.1:7778/callback")
			return p.post(tokenPath, f, p.proof(tokenPath))
		},
		"another client": func(code string) result { return other.post(tokenPath, p.redeemForm(code), other.proof(tokenPath)) },
		"another key": func(code string) result { // the pushed request showed p.key
			return p.post(tokenPath, p.redeemForm(code), other.proof(tokenPath))
		},
	} {
		p.grant = chat.NewGrantID()
		code := p.approve(chat.Send)
		if r := try(code); r.status == http.StatusOK || r.body["access_token"] != nil {
			t.Errorf("%s: %d %v", name, r.status, r.body)
		}
		if r := p.redeem(code); r.status == http.StatusOK {
			t.Errorf("%s: the code was still good afterwards", name)
		}
	}
	if r := p.redeem("unknown"); r.text("error") != "invalid_grant" {
		t.Errorf("unknown code: %v", r.body)
	}
}

func TestTokenEndpointProof(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	code := p.approve(chat.Send)
	late, _ := dpop.NewSigner(p.key, rand.Reader, func() time.Time { return w.clock().Add(-time.Hour) })
	future, _ := dpop.NewSigner(p.key, rand.Reader, func() time.Time { return w.clock().Add(time.Hour) })
	stale, _ := late.Proof("POST", w.issuer+tokenPath, "")
	early, _ := future.Proof("POST", w.issuer+tokenPath, "")
	get, _ := p.signer(p.key).Proof("GET", w.issuer+tokenPath, "")
	for name, proof := range map[string]string{
		"none": "", "for another endpoint": p.proof(pushPath), "for GET": get, "old": stale, "from the future": early, "broken": "x.y.z",
	} {
		if r := p.post(tokenPath, p.redeemForm(code), proof); r.text("error") != "invalid_dpop_proof" {
			t.Errorf("%s: %d %v", name, r.status, r.body)
		}
	}
	// None of these used up the code, but a proof works once.
	proof := p.proof(tokenPath)
	r := p.post(tokenPath, p.redeemForm(code), proof)
	if r.status != http.StatusOK {
		t.Fatalf("%d %v", r.status, r.body)
	}
	again := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.text("refresh_token")}}
	if r := p.post(tokenPath, again, proof); r.status == http.StatusOK {
		t.Error("the same proof twice")
	}
	again = url.Values{"grant_type": {"refresh_token"}, "refresh_token": {r.text("refresh_token")}}
	if r := p.post(tokenPath, again, p.proof(tokenPath)); r.status != http.StatusOK {
		t.Errorf("a refused proof ended the tokens: %v", r.body)
	}
}

func TestCodeReplayEndsTokens(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	code := p.approve(chat.Send)
	r := p.redeem(code)
	p.mustUse(r.text("access_token"))
	if again := p.redeem(code); again.status == http.StatusOK {
		t.Fatal("a code was redeemed twice")
	}
	p.mustNotUse(r.text("access_token"))
	if r := p.refresh(r.text("refresh_token")); r.status == http.StatusOK {
		t.Error("the refresh token outlived the replay")
	}
}

// TestParallelRedemption is the race that an ordinary store loses: 15 codes, 30 redemptions of each at once.
func TestParallelRedemption(t *testing.T) {
	rounds, parallel := 15, 30
	if testing.Short() {
		rounds = 3
	}
	w := newWorld(t)
	p := w.partner("flimmer")
	for round := range rounds {
		p.grant = chat.NewGrantID()
		code := p.approve(chat.Send)
		start := make(chan struct{})
		var group sync.WaitGroup
		var mu sync.Mutex
		wins := 0
		for range parallel {
			form, proof := p.redeemForm(code), p.proof(tokenPath)
			group.Go(func() {
				<-start
				if p.post(tokenPath, form, proof).status == http.StatusOK {
					mu.Lock()
					wins++
					mu.Unlock()
				}
			})
		}
		close(start)
		group.Wait()
		if wins != 1 {
			t.Fatalf("round %d: %d redemptions of one code succeeded", round, wins)
		}
	}
}

func TestParallelRefresh(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	_, refresh := p.tokens()
	var group sync.WaitGroup
	var mu sync.Mutex
	wins := 0
	for range 10 {
		proof := p.proof(tokenPath)
		group.Go(func() {
			form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}}
			if p.post(tokenPath, form, proof).status == http.StatusOK {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if wins != 1 {
		t.Fatalf("%d refreshes with one token succeeded", wins)
	}
}

func TestRefreshReuseEndsTokens(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	_, first := p.tokens()
	second := p.refresh(first)
	p.mustUse(second.text("access_token"))
	if r := p.refresh(first); r.text("error") != "invalid_grant" {
		t.Fatalf("reuse: %d %v", r.status, r.body)
	}
	p.mustNotUse(second.text("access_token"))
	if r := p.refresh(second.text("refresh_token")); r.status == http.StatusOK {
		t.Error("the newest refresh token outlived the reuse")
	}
}

func TestRefreshBoundToFirstKey(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	_, refresh := p.tokens()
	thief := *p
	_, thief.key, _ = ed25519.GenerateKey(rand.Reader)
	if r := thief.refresh(refresh); r.text("error") != "invalid_grant" {
		t.Fatalf("refresh with another key: %d %v", r.status, r.body)
	}
	if r := p.refresh(refresh); r.status != http.StatusOK {
		t.Fatalf("the right key afterwards: %d %v", r.status, r.body)
	}
}

func TestFirstRedemptionBindsKey(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	r := p.post(pushPath, p.pushForm(p.details()), "") // no proof: any key may redeem, and is then the only one
	to, err := w.s.Approve(t.Context(), strings.TrimPrefix(r.text("request_uri"), requestURIPrefix), p.grant, chat.Send)
	if err != nil {
		t.Fatal(err)
	}
	first := p.redeem(p.codeOf(to))
	p.mustUse(first.text("access_token"))
	thief := *p
	_, thief.key, _ = ed25519.GenerateKey(rand.Reader)
	if r := thief.refresh(first.text("refresh_token")); r.status == http.StatusOK {
		t.Fatal("refresh with another key")
	}
}

func TestStolenTokenWithoutKey(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	access, refresh := p.tokens()
	_, thief, _ := ed25519.GenerateKey(rand.Reader)
	if _, err := p.use(access, thief); !chat.Is(err, chat.Unauthenticated) {
		t.Fatalf("another key: %v", err)
	}
	if _, err := p.use(refresh, p.key); !chat.Is(err, chat.Unauthenticated) {
		t.Fatalf("a refresh token as access token: %v", err)
	}
	_, err := w.s.Authenticate(t.Context(), dpop.Request{Method: "GET", URL: w.issuer + "/inbox/v1/grant", Token: access})
	if !chat.Is(err, chat.Unauthenticated) {
		t.Fatalf("no proof: %v", err)
	}
	proof, _ := p.signer(p.key).Proof("GET", w.issuer+"/inbox/v1/grant", access)
	q := dpop.Request{Proof: proof, Method: "GET", URL: w.issuer + "/inbox/v1/grant", Token: access}
	if _, err := w.s.Authenticate(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Authenticate(t.Context(), q); !chat.Is(err, chat.Unauthenticated) {
		t.Fatalf("replayed proof: %v", err)
	}
}

func TestEndTokens(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	access, refresh := p.tokens()
	p.mustUse(access)
	if err := w.st.Update(t.Context(), func(tx *store.Tx) error { return w.s.EndTokens(tx, p.grant) }); err != nil {
		t.Fatal(err)
	}
	p.mustNotUse(access)
	if r := p.refresh(refresh); r.status == http.StatusOK {
		t.Error("refreshed after the grant ended")
	}
}

func TestLifetimes(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	access, _ := p.tokens()
	q := w.partner("elsewhere")
	id := q.push()
	w.pass(AccessLifetime + time.Second)
	p.mustNotUse(access)
	if _, err := w.s.Approve(t.Context(), id, q.grant, chat.Send); !chat.Is(err, chat.Expired) {
		t.Fatalf("an old request: %v", err)
	}
	if err := w.s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Consent(t.Context(), id); !chat.Is(err, chat.NotFound) {
		t.Fatalf("a swept request: %v", err)
	}
	w.pass(RefreshLifetime)
	w.s.Sweep(t.Context())
	err := w.st.View(t.Context(), func(tx *store.Tx) error { _, err := tx.OAuthAuthorization(p.grant); return err })
	if err != store.ErrNotFound {
		t.Fatalf("an authorization outlived its refresh token: %v", err)
	}
}

func TestRefreshEndsWithThePermission(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	d := p.details()
	d["valid_until"] = time.Now().Add(time.Second).UnixMilli()
	r := p.post(pushPath, p.pushForm(d), "")
	to, err := w.s.Approve(t.Context(), strings.TrimPrefix(r.text("request_uri"), requestURIPrefix), p.grant, chat.Send)
	if err != nil {
		t.Fatal(err)
	}
	if r = p.redeem(p.codeOf(to)); r.body["expires_in"].(float64) > 1 {
		t.Errorf("an access token that outlives the permission: %v", r.body["expires_in"])
	}
	var row store.OAuthAuthorization
	err = w.st.View(t.Context(), func(tx *store.Tx) (err error) { row, err = tx.OAuthAuthorization(p.grant); return err })
	if err != nil || row.Expires > time.Now().Add(2*time.Minute).UnixMilli() {
		t.Fatalf("a refresh token that outlives the permission: %v %v", row.Expires, err)
	}
}

func TestIntrospectionAndRevocation(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	other := w.partner("elsewhere")
	access, refresh := p.tokens()
	r := p.post(introspectPath, url.Values{"token": {access}}, "")
	cnf, _ := r.body["cnf"].(map[string]any)
	if r.body["active"] != true || r.text("sub") != p.grant.String() || r.text("client_id") != "flimmer" || cnf["jkt"] != p.signer(p.key).Thumbprint().String() {
		t.Fatalf("introspection: %v", r.body)
	}
	if r := other.post(introspectPath, url.Values{"token": {access}}, ""); r.body["active"] == true {
		t.Errorf("another client introspects: %v", r.body)
	}
	if r := other.post(revokePath, url.Values{"token": {access}}, ""); r.status == http.StatusOK {
		t.Errorf("another client revokes: %d", r.status)
	}
	p.mustUse(access)
	if r := p.post(revokePath, url.Values{"token": {access}}, ""); r.status != http.StatusOK {
		t.Fatalf("revocation: %d", r.status)
	}
	p.mustNotUse(access)
	again := p.refresh(refresh)
	if again.status != http.StatusOK {
		t.Fatalf("revoking an access token ended more: %v", again.body)
	}
	if r := p.post(introspectPath, url.Values{"token": {refresh}}, ""); r.body["active"] == true {
		t.Errorf("a rotated refresh token is active: %v", r.body)
	}
	p.mustUse(again.text("access_token")) // introspecting the rotated one is no reuse
	p.post(revokePath, url.Values{"token": {again.text("refresh_token")}}, "")
	p.mustNotUse(again.text("access_token"))
}

func TestSecretsHashedAtRest(t *testing.T) {
	dir := t.TempDir()
	w := worldOn(t, storetest.File(t, filepath.Join(dir, "test.db"))(t))
	p := w.partner("flimmer")
	id := p.push()
	to, _ := w.s.Approve(t.Context(), id, p.grant, chat.Send)
	code := p.codeOf(to)
	r := p.redeem(code)
	dump := filesOf(t, dir)
	for name, secret := range map[string]string{"request id": id, "code": code, "access token": r.text("access_token"), "refresh token": r.text("refresh_token")} {
		raw, _ := base64.RawURLEncoding.DecodeString(secret)
		if strings.Contains(dump, secret) || strings.Contains(dump, string(raw[len(raw)-secretSize:])) {
			t.Errorf("the %s stands in the database", name)
		}
	}
	if !strings.Contains(dump, redirect) {
		t.Fatal("the search itself does not work: a known value was not found")
	}
}

func TestAuthorizationEndpoint(t *testing.T) {
	w := newWorld(t)
	p := w.partner("flimmer")
	id := p.push()
	get := func(q url.Values, accept string) (int, string) {
		r, _ := http.NewRequest("GET", w.issuer+authorizePath+"?"+q.Encode(), nil)
		r.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	good := url.Values{"client_id": {"flimmer"}, "request_uri": {requestURIPrefix + id}}
	for range 2 {
		if status, body := get(good, "text/html"); status != 200 || !strings.Contains(body, "letterlock client authorize") {
			t.Fatalf("%d %s", status, body)
		}
	}
	if _, body := get(good, "application/json"); !strings.Contains(body, id) {
		t.Errorf("JSON: %s", body)
	}
	for name, q := range map[string]url.Values{
		"not pushed":     {"client_id": {"flimmer"}, "response_type": {"code"}, "redirect_uri": {redirect}},
		"unknown":        {"client_id": {"flimmer"}, "request_uri": {requestURIPrefix + "x"}},
		"another client": {"client_id": {"elsewhere"}, "request_uri": {requestURIPrefix + id}},
	} {
		if status, _ := get(q, ""); status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, status)
		}
	}
	if _, err := w.s.Approve(t.Context(), id, p.grant, chat.Send); err != nil {
		t.Fatalf("looking at the page used up the request: %v", err)
	}
}

func TestOnlyOurEndpoints(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/register", "/userinfo", "/jwks", "/.well-known/openid-configuration", "/oauth/authorize/x", "/oauth/register"} {
		for _, method := range []string{"GET", "POST"} {
			r, _ := http.NewRequest(method, w.issuer+path, nil)
			if got := w.send(r); got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, got.status)
			}
		}
	}
}

func TestMetadata(t *testing.T) {
	w := newWorld(t)
	r, _ := http.NewRequest("GET", w.issuer+metadataPath, nil)
	m := w.send(r)
	if m.text("issuer") != w.issuer || m.body["require_pushed_authorization_requests"] != true || m.text("token_endpoint") != w.issuer+tokenPath {
		t.Errorf("RFC 8414: %v", m.body)
	}
	r, _ = http.NewRequest("GET", w.issuer+resourcePath, nil)
	if m := w.send(r); m.text("resource") != w.issuer+"/inbox" || m.body["dpop_bound_access_tokens_required"] != true {
		t.Errorf("RFC 9728: %v", m.body)
	}
}

func TestCheckClient(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(rand.Reader)
	rsa := `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`
	set := func(keys ...jose.JSONWebKey) string {
		b, _ := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		return string(b)
	}
	good := set(jose.JSONWebKey{Key: pub})
	for name, jwks := range map[string]string{
		"private key": set(jose.JSONWebKey{Key: key}), "RSA": rsa, "none": `{"keys":[]}`, "no JSON": "x",
		"wrong algorithm": set(jose.JSONWebKey{Key: pub, Algorithm: "ES256"}), "symmetric": `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		"two without kid": set(jose.JSONWebKey{Key: pub}, jose.JSONWebKey{Key: pub}),
		"two of one kid":  set(jose.JSONWebKey{Key: pub, KeyID: "1"}, jose.JSONWebKey{Key: pub, KeyID: "1"}),
		"huge":            strings.Repeat(" ", maxJWKS) + good,
	} {
		if err := CheckClient([]byte(jwks), []string{redirect}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, uri := range []string{"", "http://flimmer.example/cb", "https://flimmer.example/cb#f", "https://u@flimmer.example/", "javascript:alert(1)", "https:///x", "http://localhost/cb", "//flimmer.example", "https://" + strings.Repeat("x", 600)} {
		if err := CheckClient([]byte(good), []string{uri}); err == nil {
			t.Errorf("redirect %q: accepted", uri)
		}
	}
	if err := CheckClient([]byte(good), []string{"https://flimmer.example/cb", "http://[::1]:1/cb"}); err != nil {
		t.Error(err)
	}
}
