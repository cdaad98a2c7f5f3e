package dpop

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"letterlock/chat"
)

const (
	address = "https://chat.example/v1/friends"
	token   = "a token"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func fixed(at time.Time) func() time.Time { return func() time.Time { return at } }

func newKey(t testing.TB) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newSigner(t testing.TB, key ed25519.PrivateKey, at time.Time) *Signer {
	s, err := NewSigner(key, rand.Reader, fixed(at))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func proof(t testing.TB, s *Signer, method, url, token string) string {
	p, err := s.Proof(method, url, token)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustRefuse(t *testing.T, name string, err error) {
	t.Helper()
	if !chat.Is(err, chat.Unauthenticated) {
		t.Errorf("%s: %v", name, err)
	}
}

func TestProofIsForOneRequest(t *testing.T) {
	s := newSigner(t, newKey(t), start)
	v := NewVerifier(fixed(start))
	other := newSigner(t, newKey(t), start)
	make := func() Request {
		return Request{Proof: proof(t, s, "POST", address+"?limit=1#x", token), Method: "POST", URL: address, Token: token}
	}
	if err := v.Verify(make(), s.Thumbprint()); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Request){
		"method":      func(r *Request) { r.Method = "GET" },
		"method case": func(r *Request) { r.Method = "post" },
		"path":        func(r *Request) { r.URL += "/bob" },
		"host":        func(r *Request) { r.URL = "https://elsewhere.example/v1/friends" },
		"scheme":      func(r *Request) { r.URL = "http://chat.example/v1/friends" },
		"port":        func(r *Request) { r.URL = "https://chat.example:8443/v1/friends" },
		"token":       func(r *Request) { r.Token = "another token" },
		"none":        func(r *Request) { r.Proof = "" },
		"two":         func(r *Request) { r.Proof += "," + r.Proof },
		"huge":        func(r *Request) { r.Proof = strings.Repeat("a", MaxProof+1) },
		"spaces":      func(r *Request) { r.Proof = " " + r.Proof },
	} {
		r := make()
		change(&r)
		mustRefuse(t, name, v.Verify(r, s.Thumbprint()))
	}
	mustRefuse(t, "another key", v.Verify(make(), other.Thumbprint()))
	withoutToken := Request{Proof: proof(t, s, "POST", address, ""), Method: "POST", URL: address, Token: token}
	mustRefuse(t, "no ath", v.Verify(withoutToken, s.Thumbprint()))
}

func TestProofWorksOnce(t *testing.T) {
	s := newSigner(t, newKey(t), start)
	now := start
	v := NewVerifier(func() time.Time { return now })
	r := Request{Proof: proof(t, s, "GET", address, token), Method: "GET", URL: address, Token: token}
	if err := v.Verify(r, s.Thumbprint()); err != nil {
		t.Fatal(err)
	}
	for range 20 { // for as long as it is in the window, and after
		mustRefuse(t, "again", v.Verify(r, s.Thumbprint()))
		now = now.Add(Window / 10)
	}
}

func TestRefusedProofIsNotRemembered(t *testing.T) {
	s := newSigner(t, newKey(t), start)
	v := NewVerifier(fixed(start))
	r := Request{Proof: proof(t, s, "GET", address, token), Method: "GET", URL: address, Token: token}
	mustRefuse(t, "another key", v.Verify(r, Thumbprint{}))
	if err := v.Verify(r, s.Thumbprint()); err != nil {
		t.Fatalf("a refusal used up the proof: %v", err)
	}
}

func TestWindow(t *testing.T) {
	key := newKey(t)
	v := NewVerifier(fixed(start))
	for off, good := range map[time.Duration]bool{
		0: true, Window: true, -Window: true, Window + time.Second: false, -Window - time.Second: false, 1000 * time.Hour: false, -1000 * time.Hour: false,
	} {
		s := newSigner(t, key, start.Add(off))
		err := v.Verify(Request{Proof: proof(t, s, "GET", address, ""), Method: "GET", URL: address}, s.Thumbprint())
		if (err == nil) != good {
			t.Errorf("iat off by %v: %v", off, err)
		}
	}
}

func TestES256(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r := Request{Proof: forge(t, jose.ES256, key, nil, nil), Method: "GET", URL: address}
	if _, err := NewVerifier(fixed(start)).Check(r); err != nil {
		t.Fatal(err)
	}
}

// forge makes a proof with a changed header or payload.
func forge(t *testing.T, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, payload map[string]any) string {
	t.Helper()
	o := (&jose.SignerOptions{EmbedJWK: true}).WithType(proofType)
	for k, v := range header {
		o = o.WithHeader(k, v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	c := map[string]any{"jti": "1", "htm": "GET", "htu": address, "iat": start.Unix()}
	for k, v := range payload {
		c[k] = v
		if v == nil {
			delete(c, k)
		}
	}
	b, _ := json.Marshal(c)
	jws, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := jws.CompactSerialize()
	return out
}

// assemble makes a compact JWS of any header, signed with an Ed25519 key.
func assemble(key ed25519.PrivateKey, header string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	payload := fmt.Sprintf(`{"jti":"1","htm":"GET","htu":%q,"iat":%d}`, address, start.Unix())
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	return text + "." + b64(ed25519.Sign(key, []byte(text)))
}

func TestForms(t *testing.T) {
	key := newKey(t)
	x := base64.RawURLEncoding.EncodeToString(key.Public().(ed25519.PublicKey))
	d := base64.RawURLEncoding.EncodeToString(key.Seed())
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	good := assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`)
	v := NewVerifier(fixed(start))
	if _, err := v.Check(Request{Proof: good, Method: "GET", URL: address}); err != nil {
		t.Fatalf("the good form: %v", err)
	}
	for name, p := range map[string]string{
		"other type":     assemble(key, `{"typ":"JWT","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"no type":        assemble(key, `{"alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"alg none":       assemble(key, `{"typ":"dpop+jwt","alg":"none","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"alg HS256":      assemble(key, `{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"alg of another": assemble(key, `{"typ":"dpop+jwt","alg":"ES256","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"private key":    assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`","d":"`+d+`"}}`),
		"no key":         assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA"}`),
		"short key":      assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAA"}}`),
		"symmetric key":  assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","jwk":{"kty":"oct","k":"AAAA"}}`),
		"critical":       assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","crit":["x"],"x":1,"jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"two algs":       assemble(key, `{"typ":"dpop+jwt","alg":"EdDSA","alg":"none","jwk":{"kty":"OKP","crv":"Ed25519","x":"`+x+`"}}`),
		"unsigned":       good[:strings.LastIndex(good, ".")+1],
		"cut":            good[:len(good)-2],
		"not a JWS":      "x",
		"RSA":            forge(t, jose.RS256, rsaKey, nil, nil),
		"P-384":          forge(t, jose.ES384, p384, nil, nil),
		"no jti":         forge(t, jose.EdDSA, key, nil, map[string]any{"jti": nil}),
		"long jti":       forge(t, jose.EdDSA, key, nil, map[string]any{"jti": strings.Repeat("j", maxJTI+1)}),
		"no iat":         forge(t, jose.EdDSA, key, nil, map[string]any{"iat": nil}),
		"iat as text":    forge(t, jose.EdDSA, key, nil, map[string]any{"iat": "now"}),
		"huge iat":       forge(t, jose.EdDSA, key, nil, map[string]any{"iat": int64(1) << 62}),
		"no htu":         forge(t, jose.EdDSA, key, nil, map[string]any{"htu": nil}),
		"no htm":         forge(t, jose.EdDSA, key, nil, map[string]any{"htm": nil}),
	} {
		_, err := v.Check(Request{Proof: p, Method: "GET", URL: address})
		mustRefuse(t, name, err)
	}
	end := strings.LastIndex(good, ".")
	for i := range good[:end-1] { // the last character of payload and signature has bits that mean nothing in base64
		bad := []byte(good)
		bad[i] ^= 1
		if _, err := v.Check(Request{Proof: string(bad), Method: "GET", URL: address}); err == nil {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
}

func TestSameAddress(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"https://chat.example/x", "https://chat.example/x", true},
		{"HTTPS://CHAT.example/x", "https://chat.example/x", true},
		{"https://chat.example:443/x", "https://chat.example/x", true},
		{"http://chat.example:80", "http://chat.example/", true},
		{"https://chat.example/%e2", "https://chat.example/%E2", true},
		{"https://chat.example/x?a=b#c", "https://chat.example/x", true},
		{"https://chat.example/x", "https://chat.example/X", false},
		{"https://chat.example/x/", "https://chat.example/x", false},
		{"https://chat.example/a%2Fb", "https://chat.example/a/b", false},
		{"https://chat.example:80/x", "https://chat.example/x", false},
		{"https://chat.example/x", "https://chat.example.evil.example/x", false},
		{"https://u@chat.example/x", "https://chat.example/x", false},
		{"", "", true}, // equal text; a missing htu never meets an empty address: requests have one
		{"x", "y", false},
		{"mailto:x", "mailto:y", false},
		{"https://chat.example/" + strings.Repeat("x", maxURL), "https://chat.example/", false},
	} {
		if got := sameAddress(c.a, c.b); got != c.same {
			t.Errorf("%.60q and %.60q: %v", c.a, c.b, got)
		}
	}
}

// TestThumbprint holds the vector of RFC 8037 appendix A.3.
func TestThumbprint(t *testing.T) {
	pub, _ := base64.RawURLEncoding.DecodeString("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
	const want = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
	got := Ed25519Thumbprint(pub)
	if got.String() != want {
		t.Fatalf("got %s", got)
	}
	if back, err := ParseThumbprint(want); err != nil || back != got {
		t.Fatal(back, err)
	}
	for _, bad := range []string{"", "x", want + "A", want[:42], strings.Repeat("!", 43)} {
		if _, err := ParseThumbprint(bad); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}

func TestReplayIsBoundedAndForgets(t *testing.T) {
	r := NewReplay(time.Minute)
	r.limit = 64
	now := start
	var refused bool
	for i := range shards * r.limit * 2 {
		err := r.Use(now, Thumbprint{}, fmt.Sprint(i))
		if chat.Is(err, chat.TooMany) {
			refused = true
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !refused {
		t.Fatal("the memory grows without bound")
	}
	if err := r.Use(now, Thumbprint{}, "0"); !chat.Is(err, chat.Unauthenticated) {
		t.Errorf("full, and forgot: %v", err)
	}
	now = now.Add(3 * time.Minute)
	if err := r.Use(now, Thumbprint{}, "0"); err != nil {
		t.Errorf("long after: %v", err)
	}
}

func TestReplayAtOnce(t *testing.T) {
	r := NewReplay(time.Minute)
	var group sync.WaitGroup
	var mu sync.Mutex
	wins := 0
	for range 32 {
		group.Go(func() {
			if r.Use(start, Thumbprint(sha256.Sum256(nil)), "x") == nil {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	if wins != 1 {
		t.Fatalf("%d uses went through", wins)
	}
}

func TestHolders(t *testing.T) {
	var c Holders[string]
	hash := [32]byte{1}
	_, generation, _ := c.Find(hash, start)
	c.Remember(hash, Holder[string]{Caller: "alice", Until: start.Add(time.Second).UnixMilli()}, generation)
	if h, _, ok := c.Find(hash, start); !ok || h.Caller != "alice" {
		t.Fatal("forgotten")
	}
	if _, _, ok := c.Find(hash, start.Add(time.Second)); ok {
		t.Error("believed for too long")
	}
	_, generation, _ = c.Find(hash, start) // the row is read, then
	c.Drop()                               // the token ends, and only then
	c.Remember(hash, Holder[string]{Until: start.Add(time.Second).UnixMilli()}, generation)
	if _, _, ok := c.Find(hash, start); ok {
		t.Error("what was read before the end is believed after it")
	}
	for i := range 2 * maxHolders {
		_, generation, _ := c.Find([32]byte{2, byte(i), byte(i >> 8), byte(i >> 16)}, start)
		c.Remember([32]byte{2, byte(i), byte(i >> 8), byte(i >> 16)}, Holder[string]{Until: start.Add(time.Second).UnixMilli()}, generation)
	}
	if len(c.byHash) > maxHolders {
		t.Errorf("%d are remembered", len(c.byHash))
	}
}

func BenchmarkVerify(b *testing.B) {
	s := newSigner(b, newKey(b), start)
	v := NewVerifier(fixed(start))
	requests := make([]Request, b.N)
	for i := range requests {
		requests[i] = Request{Proof: proof(b, s, "GET", address, token), Method: "GET", URL: address, Token: token}
	}
	b.ResetTimer()
	for _, r := range requests {
		if err := v.Verify(r, s.Thumbprint()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSignature is the floor: the signature check alone.
func BenchmarkSignature(b *testing.B) {
	key := newKey(b)
	m := make([]byte, 300)
	sig := ed25519.Sign(key, m)
	for b.Loop() {
		ed25519.Verify(key.Public().(ed25519.PublicKey), m, sig)
	}
}

func BenchmarkProof(b *testing.B) {
	s := newSigner(b, newKey(b), start)
	for b.Loop() {
		proof(b, s, "GET", address, token)
	}
}
