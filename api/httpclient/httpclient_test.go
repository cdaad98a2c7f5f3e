package httpclient_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/account"
	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/httpd"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/store/sqlite"
)

// world is the accounts part of a server behind real HTTP.
type world struct {
	t      *testing.T
	url    string
	server *httptest.Server
	calls  atomic.Int64  // that reached the server
	ahead  *atomic.Int64 // ns: the server's clock
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	w := &world{t: t, ahead: new(atomic.Int64)}
	now := func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }
	w.server = httptest.NewUnstartedServer(nil)
	host := w.server.Listener.Addr().String()
	w.url = "http://" + host
	keys, err := ledger.NewKeys(host)
	if err != nil {
		t.Fatal(err)
	}
	log, err := ledger.Open(t.Context(), st, keys, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	writer, ctx := ledger.NewWriter(log, slog.New(slog.DiscardHandler)), t.Context()
	go writer.Run(ctx)
	s := account.New(account.Config{
		Server: api.Server{Host: host, PublicURL: w.url, Version: "test"}, Store: st, Ledger: log, Verifier: dpop.NewVerifier(now), Now: now, Rand: rand.Reader,
	})
	h := httpd.New(httpd.Config{PublicURL: w.url, Accounts: s, Sessions: s, Logger: slog.New(slog.DiscardHandler), Now: now, ExemptLoopback: true})
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.calls.Add(1)
		rw.Header().Set("Date", now().UTC().Format(http.TimeFormat))
		h.ServeHTTP(rw, r)
	})
	w.server.Start()
	t.Cleanup(w.server.Close)
	return w
}

func (w *world) options() httpclient.Options {
	return httpclient.Options{BaseURL: w.url, Now: time.Now, Rand: rand.Reader}
}

// person is somebody with a client.
type person struct {
	*httpclient.Device
	who      api.SignIn
	key      keychain.DeviceKey
	recovery keychain.RecoveryKey
}

func (w *world) signedUp(handle string) *person {
	w.t.Helper()
	key, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	p := &person{who: api.SignIn{Account: chat.NewAccountID(), Device: chat.NewDeviceID()}, key: key, recovery: recovery}
	if p.Device, err = httpclient.NewDevice(w.options(), key.Private(), p.who, ""); err != nil {
		w.t.Fatal(err)
	}
	server, err := p.Server(w.t.Context())
	if err != nil || server.Version != "test" {
		w.t.Fatal(server, err)
	}
	entry, err := keychain.Create(keychain.Creation{Account: p.who.Account, Host: server.Host, Handle: handle, Device: p.who.Device, Name: "laptop", At: time.Now()}, key, recovery)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := p.SignUp(w.t.Context(), api.SignUp{Entry: entry}); err != nil {
		w.t.Fatal(err)
	}
	return p
}

func want(t *testing.T, what string, err error, kind chat.Kind) {
	t.Helper()
	if !chat.Is(err, kind) {
		t.Errorf("%s: %v, want %s", what, err, kind)
	}
}

func TestDeviceAgainstARealServer(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	if f, err := alice.AddFriend(ctx, "bob"); err != nil || f.State != api.Requested {
		t.Fatal(f, err)
	}
	if f, err := bob.AddFriend(ctx, "alice"); err != nil || f.State != api.Friends {
		t.Fatal(f, err)
	}
	if list, err := alice.ListFriends(ctx); err != nil || len(list.Friends) != 1 || list.Friends[0].Handle != "bob" {
		t.Fatal(list, err)
	}
	a, err := alice.AccountByHandle(ctx, "bob")
	if err != nil || a.Account != bob.who.Account {
		t.Fatal(a, err)
	}
	if a, err := alice.AccountByID(ctx, bob.who.Account); err != nil || a.Handle != "bob" {
		t.Fatal(a, err)
	}
	if n, err := alice.CountKeyPackages(ctx); err != nil || n.Left != 0 {
		t.Fatal(n, err)
	}
	if out, err := alice.ClaimKeyPackages(ctx, api.ClaimKeyPackages{Account: bob.who.Account}); err != nil || len(out.Packages) != 0 {
		t.Fatal(out, err)
	}
	want(t, "a bad KeyPackage", alice.PutKeyPackages(ctx, api.KeyPackages{Packages: [][]byte{{1}}}), chat.Invalid)
	if err := alice.RemoveFriend(ctx, "bob"); err != nil {
		t.Fatal(err)
	}
	want(t, "not a friend any more", alice.RemoveFriend(ctx, "bob"), chat.NotFound)
	chain, err := keychain.Open(mustAccount(t, alice, "alice").Chain)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := chain.SetPreference(alice.key, keychain.NoApps("flimmer", true), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := alice.AppendEntry(ctx, api.AppendEntry{Entry: entry}); err != nil {
		t.Fatal(err)
	}
	if n := len(mustAccount(t, bob, "alice").Chain); n != 2 {
		t.Fatalf("the chain has %d entries", n)
	}
}

func mustAccount(t *testing.T, p *person, handle string) api.Account {
	t.Helper()
	a, err := p.AccountByHandle(t.Context(), handle)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSessionIsRenewed(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	if _, err := alice.ListFriends(t.Context()); err != nil {
		t.Fatal(err)
	}
	old := alice.Session()
	w.ahead.Store(int64(2 * account.SessionLifetime)) // the session is over, and the two clocks differ by hours
	if _, err := alice.ListFriends(t.Context()); err != nil {
		t.Fatal(err)
	}
	if alice.Session() == old || alice.Session() == "" {
		t.Error("no new session")
	}
	saved, err := httpclient.NewDevice(w.options(), alice.key.Private(), alice.who, alice.Session())
	if err != nil {
		t.Fatal(err)
	}
	w.ahead.Store(0)
	if _, err := saved.ListFriends(t.Context()); err != nil || saved.Session() != alice.Session() {
		t.Errorf("a saved session: %v", err)
	}
}

func TestWrongClockIsCorrected(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	for _, off := range []time.Duration{-3 * time.Hour, 48 * time.Hour} {
		o := w.options()
		o.Now = func() time.Time { return time.Now().Add(off) }
		d, err := httpclient.NewDevice(o, alice.key.Private(), alice.who, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.ListFriends(t.Context()); err != nil {
			t.Errorf("a clock off by %v: %v", off, err)
		}
	}
}

func TestRetriesAreBounded(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	_, thief, _ := ed25519.GenerateKey(rand.Reader)
	d, err := httpclient.NewDevice(w.options(), thief, alice.who, "")
	if err != nil {
		t.Fatal(err)
	}
	before := w.calls.Load()
	_, err = d.ListFriends(t.Context())
	want(t, "another's key", err, chat.Unauthenticated)
	if n := w.calls.Load() - before; n > 4 {
		t.Errorf("%d requests for one refused call", n)
	}
}

// TestRecovery: whoever lost every device fetches the chain and adds a device with the recovery key, without a session.
func TestRecovery(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	key, _ := keychain.NewDeviceKey(rand.Reader)
	nobody, err := httpclient.NewDevice(w.options(), key.Private(), api.SignIn{}, "")
	if err != nil {
		t.Fatal(err)
	}
	a, err := nobody.AccountByHandle(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	chain, err := keychain.Open(a.Chain)
	if err != nil {
		t.Fatal(err)
	}
	id := chat.NewDeviceID()
	request, _ := chain.Request(id, "new", key)
	entry, err := chain.AddDevice(alice.recovery, request, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := nobody.AppendEntry(t.Context(), api.AppendEntry{Entry: entry}); err != nil {
		t.Fatal(err)
	}
	fresh, _ := httpclient.NewDevice(w.options(), key.Private(), api.SignIn{Account: a.Account, Device: id}, "")
	if _, err := fresh.ListFriends(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = nobody.ListFriends(t.Context())
	want(t, "without a session", err, chat.Unauthenticated)
}

// serverThat answers everything in one way.
func serverThat(t *testing.T, h http.HandlerFunc) *httpclient.Device {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d, err := httpclient.NewDevice(httpclient.Options{BaseURL: s.URL, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{}, "")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBadServers(t *testing.T) {
	stolen := make(chan string, 1)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { stolen <- r.Header.Get("DPoP") }))
	defer elsewhere.Close()
	for name, c := range map[string]struct {
		h    http.HandlerFunc
		kind chat.Kind
	}{
		"a page":           {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, chat.Incompatible},
		"a gateway":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502); io.WriteString(w, "<html>") }, chat.Unavailable},
		"a redirect":       {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, 307) }, chat.Invalid},
		"an endless one":   {endless, chat.TooLarge},
		"a hang-up":        {func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, chat.Unavailable},
		"a problem":        {problem("urn:letterlock:blocked"), chat.Blocked},
		"another problem":  {problem("about:blank"), chat.Invalid},
		"an endless other": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500); endless(w, nil) }, chat.Unavailable},
	} {
		_, err := serverThat(t, c.h).Server(t.Context())
		want(t, name, err, c.kind)
	}
	select {
	case <-stolen:
		t.Error("a redirect was followed")
	default:
	}
	d := serverThat(t, func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `["AAAA"]`) })
	_, err := d.ConsistencyProof(t.Context(), 1, 2)
	want(t, "a short hash", err, chat.Incompatible)
}

func problem(kind string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(409)
		io.WriteString(w, `{"type":"`+kind+`","detail":"why"}`)
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat(" ", 1<<20))
	for {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

func TestUnreachableAndCancelled(t *testing.T) {
	s := httptest.NewServer(nil)
	s.Close()
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	d, err := httpclient.NewDevice(httpclient.Options{BaseURL: s.URL, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{}, "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.Server(t.Context())
	want(t, "nobody there", err, chat.Unavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = d.Server(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, bad := range []string{"", "chat.example", "https://chat.example/", "ftp://chat.example"} {
		if _, err := httpclient.NewDevice(httpclient.Options{BaseURL: bad, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{}, ""); err == nil {
			t.Errorf("%q: accepted", bad)
		}
	}
}
