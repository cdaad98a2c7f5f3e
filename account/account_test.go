package account

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/store"
	"letterlock/store/storetest"
)

const host = "chat.example"

// world is an account service over a real database.
type world struct {
	t       *testing.T
	s       *Service
	st      *store.Store
	removed []string // devices that the hook heard of

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T) *world { return worldOn(t, storetest.NewDatabase(t)(t)) }

func worldOn(t *testing.T, st *store.Store) *world {
	t.Helper()
	w := &world{t: t, st: st, now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	w.s = New(Config{
		Server: api.Server{Host: host, PublicURL: "https://" + host}, Store: st, Ledger: w.ledger(), Verifier: dpop.NewVerifier(w.clock), Now: w.clock, Rand: rand.Reader,
		Hooks: Hooks{DeviceRemoved: func(_ *store.Tx, _ chat.AccountID, d chat.DeviceID, stolen bool) error {
			if heard := fmt.Sprint(d, stolen); !slices.Contains(w.removed, heard) { // a transaction may run more than once
				w.removed = append(w.removed, heard)
			}
			return nil
		}},
	})
	return w
}

// ledger is a ledger that is written while the test runs.
func (w *world) ledger() *ledger.Ledger {
	w.t.Helper()
	keys, err := ledger.NewKeys(host)
	if err != nil {
		w.t.Fatal(err)
	}
	l, err := ledger.Open(context.Background(), w.st, keys, w.clock, rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- ledger.NewWriter(l, slog.New(slog.DiscardHandler)).Run(ctx) }()
	w.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return l
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// device is one device of a person.
type device struct {
	*world
	caller   api.Caller
	key      keychain.DeviceKey
	recovery keychain.RecoveryKey
	entry    []byte // of the sign-up
}

// person makes a person without signing up.
func (w *world) person(handle string) *device {
	w.t.Helper()
	key, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	d := &device{world: w, key: key, recovery: recovery, caller: api.Caller{Account: chat.NewAccountID(), Handle: handle, Device: chat.NewDeviceID()}}
	d.entry = d.create(host)
	return d
}

func (d *device) create(host string) []byte {
	d.t.Helper()
	entry, err := keychain.Create(keychain.Creation{Account: d.caller.Account, Host: host, Handle: d.caller.Handle, Device: d.caller.Device, Name: "laptop", At: d.clock()}, d.key, d.recovery)
	if err != nil {
		d.t.Fatal(err)
	}
	return entry
}

// signedUp makes a person with an account.
func (w *world) signedUp(handle string) *device {
	w.t.Helper()
	d := w.person(handle)
	up, err := w.s.SignUp(w.t.Context(), api.SignUp{Entry: d.entry})
	if err != nil || up.Account != d.caller.Account || up.Handle != handle {
		w.t.Fatalf("sign-up: %+v %v", up, err)
	}
	return d
}

func (d *device) ctx() context.Context { return api.WithCaller(d.t.Context(), d.caller) }

func (d *device) signIn() (string, error) {
	session, err := d.s.SignIn(dpop.WithRequest(d.t.Context(), d.request("POST", "/v1/sessions", "")), api.SignIn{Account: d.caller.Account, Device: d.caller.Device})
	return session.Token, err
}

func (d *device) mustSignIn() string {
	d.t.Helper()
	token, err := d.signIn()
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

// request makes a request with a proof under the device's key.
func (d *device) request(method, path, token string) dpop.Request {
	d.t.Helper()
	signer, err := dpop.NewSigner(d.key.Private(), rand.Reader, d.clock)
	if err != nil {
		d.t.Fatal(err)
	}
	proof, err := signer.Proof(method, "https://"+host+path, token)
	if err != nil {
		d.t.Fatal(err)
	}
	return dpop.Request{Proof: proof, Method: method, URL: "https://" + host + path, Token: token}
}

func (d *device) use(token string) (api.Caller, error) {
	return d.s.Authenticate(d.t.Context(), d.request("GET", "/v1/friends", token))
}

func (d *device) chain() *keychain.Chain {
	d.t.Helper()
	var c *keychain.Chain
	err := d.st.View(d.t.Context(), func(tx *store.Tx) (err error) { c, err = d.s.Chain(tx, d.caller.Account); return err })
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// addDevice adds a second device to the account.
func (d *device) addDevice() *device {
	d.t.Helper()
	key, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	second := &device{world: d.world, key: key, recovery: d.recovery, caller: d.caller}
	second.caller.Device = chat.NewDeviceID()
	request, err := d.chain().Request(second.caller.Device, "phone", key)
	if err != nil {
		d.t.Fatal(err)
	}
	entry, err := d.chain().AddDevice(d.key, request, d.clock())
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.s.AppendEntry(d.ctx(), api.AppendEntry{Entry: entry}); err != nil {
		d.t.Fatal(err)
	}
	return second
}

// removal is an entry by d that removes a device.
func (d *device) removal(id chat.DeviceID, why keychain.Reason) []byte {
	d.t.Helper()
	entry, err := d.chain().RemoveDevice(d.key, id, why, d.clock())
	if err != nil {
		d.t.Fatal(err)
	}
	return entry
}

func want(t *testing.T, what string, err error, kind chat.Kind) {
	t.Helper()
	if !chat.Is(err, kind) {
		t.Errorf("%s: %v, want %s", what, err, kind)
	}
}

func TestSignUp(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	a, err := w.s.AccountByHandle(t.Context(), "alice")
	if err != nil || a.Account != alice.caller.Account || len(a.Chain) != 1 || !bytes.Equal(a.Chain[0], alice.entry) {
		t.Fatalf("%+v %v", a, err)
	}
	if byID, err := w.s.AccountByID(t.Context(), alice.caller.Account); err != nil || byID.Handle != "alice" {
		t.Fatalf("%+v %v", byID, err)
	}
	if _, err := w.s.SignUp(t.Context(), api.SignUp{Entry: alice.entry}); err != nil {
		t.Errorf("the same again, as after a lost answer: %v", err)
	}
	thief := w.person("alice")
	_, err = w.s.SignUp(t.Context(), api.SignUp{Entry: thief.entry})
	want(t, "a taken handle", err, chat.Exists)
	sameID := w.person("alice2")
	sameID.caller.Account = alice.caller.Account
	_, err = w.s.SignUp(t.Context(), api.SignUp{Entry: sameID.create(host)})
	want(t, "a taken account id", err, chat.Exists)
	_, err = w.s.SignUp(t.Context(), api.SignUp{Entry: w.person("bob").create("elsewhere.example")})
	want(t, "another host", err, chat.Invalid)
	bad := bytes.Clone(w.person("bob").entry)
	bad[len(bad)-1] ^= 1
	if _, err = w.s.SignUp(t.Context(), api.SignUp{Entry: bad}); err == nil {
		t.Error("a broken signature was accepted")
	}
	_, err = w.s.AccountByHandle(t.Context(), "bob")
	want(t, "nobody", err, chat.NotFound)
	_, err = w.s.AccountByHandle(t.Context(), "../x")
	want(t, "no handle", err, chat.Invalid)
}

func TestSignUpRaces(t *testing.T) {
	w := newWorld(t)
	var people []*device
	for range 6 {
		people = append(people, w.person("alice"))
	}
	wins := atOnce(len(people), func(i int) error {
		_, err := w.s.SignUp(context.Background(), api.SignUp{Entry: people[i].entry})
		return err
	})
	if wins != 1 {
		t.Fatalf("%d people got the handle", wins)
	}
}

// atOnce runs n calls together and counts those without an error.
func atOnce(n int, call func(i int) error) (wins int) {
	var group sync.WaitGroup
	var mu sync.Mutex
	for i := range n {
		group.Go(func() {
			if call(i) == nil {
				mu.Lock()
				wins++
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return wins
}

func TestSession(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	token := alice.mustSignIn()
	for range 2 { // from the store, then from memory
		if c, err := alice.use(token); err != nil || c != alice.caller {
			t.Fatalf("%+v %v", c, err)
		}
	}
	other := "A"
	if token[0] == 'A' {
		other = "B"
	}
	for name, bad := range map[string]string{"none": "", "random": "x", "changed": other + token[1:], "long": token + "A"} {
		_, err := alice.use(bad)
		want(t, name, err, chat.Unauthenticated)
	}
	thief := w.signedUp("thief")
	_, err := thief.use(token)
	want(t, "a stolen token without its key", err, chat.Unauthenticated)
	w.pass(SessionLifetime)
	_, err = alice.use(token)
	want(t, "an old session", err, chat.Unauthenticated)
	if err := w.s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestSignInRefuses(t *testing.T) {
	w := newWorld(t)
	alice, thief := w.signedUp("alice"), w.signedUp("thief")
	thief.caller = alice.caller
	_, err := thief.signIn()
	want(t, "another's key", err, chat.Unauthenticated)
	nobody := w.person("nobody")
	_, err = nobody.signIn()
	want(t, "no account", err, chat.Unauthenticated)
	alice.caller.Device = chat.NewDeviceID()
	_, err = alice.signIn()
	want(t, "a device that is not in the chain", err, chat.Unauthenticated)
	_, err = w.s.SignIn(t.Context(), api.SignIn{})
	want(t, "no proof", err, chat.Unauthenticated)
}

func TestSessionsOfADeviceAreBounded(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	first := alice.mustSignIn()
	for range maxSessions {
		w.pass(time.Second)
		alice.mustSignIn()
	}
	_, err := alice.use(first)
	want(t, "the oldest of too many", err, chat.Unauthenticated)
}

func TestRemovedDeviceIsOutAtOnce(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	phone := alice.addDevice()
	token := phone.mustSignIn()
	if _, err := phone.use(token); err != nil { // now it is in memory too
		t.Fatal(err)
	}
	phone.put(phone.keyPackage(false))
	if err := w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: alice.removal(phone.caller.Device, keychain.Stolen)}); err != nil {
		t.Fatal(err)
	}
	_, err := phone.use(token)
	want(t, "its session", err, chat.Unauthenticated)
	_, err = phone.signIn()
	want(t, "a new session", err, chat.Unauthenticated)
	want(t, "its KeyPackages", w.s.PutKeyPackages(phone.ctx(), api.KeyPackages{Packages: [][]byte{phone.keyPackage(false)}}), chat.Unauthenticated)
	if fmt.Sprint(w.removed) != fmt.Sprint([]string{fmt.Sprint(phone.caller.Device, true)}) {
		t.Errorf("the hook heard %v", w.removed)
	}
	claimed, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: alice.caller.Account})
	if err != nil || len(claimed.Packages) != 0 {
		t.Errorf("KeyPackages of a removed device: %v %v", claimed, err)
	}
	if _, err := alice.use(alice.mustSignIn()); err != nil {
		t.Errorf("the other device: %v", err)
	}
}

func TestAppendEntryRaces(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	var entries [][]byte
	for i := range 6 {
		e, err := alice.chain().SetPreference(alice.key, keychain.NoApps(fmt.Sprint("partner", i), true), w.clock())
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	wins := atOnce(len(entries), func(i int) error {
		return w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: entries[i]})
	})
	if wins != 1 || alice.chain().Version() != 1 {
		t.Fatalf("%d entries took place 1; the chain is at %d", wins, alice.chain().Version())
	}
	var lost []byte
	for _, e := range entries {
		if !bytes.Equal(e, alice.chain().Entries()[1]) {
			lost = e
		}
	}
	want(t, "a late entry", w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: lost}), chat.StaleEpoch)
	if err := w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: alice.chain().Entries()[1]}); err != nil {
		t.Errorf("the winner again, as after a lost answer: %v", err)
	}
}

func TestAppendEntryRefuses(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	entry, _ := bob.chain().SetPreference(bob.key, keychain.NoApps("", true), w.clock())
	want(t, "another's chain", w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: entry}), chat.Forbidden)
	want(t, "no entry", w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: []byte("x")}), chat.Invalid)
	want(t, "a huge one", w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: make([]byte, keychain.MaxEntry+1)}), chat.TooLarge)
	forged, _ := alice.chain().SetPreference(bob.key, keychain.NoApps("", true), w.clock())
	if forged != nil {
		if err := w.s.AppendEntry(t.Context(), api.AppendEntry{Entry: forged}); err == nil {
			t.Error("an entry signed by a stranger was accepted")
		}
	}
	nobody := w.person("nobody")
	want(t, "no account", w.s.AppendEntry(t.Context(), api.AppendEntry{Entry: nobody.entry}), chat.NotFound)
}

// TestRecoveryWithoutASession: every device is lost; the recovery key lets a new one in.
// TestEveryKeyIsLogged: the proof that comes with a key chain is of its newest entry, from sign-up on.
func TestEveryKeyIsLogged(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	for version := range uint64(3) {
		if version > 0 {
			alice.addDevice()
		}
		a, err := w.s.AccountByHandle(t.Context(), "alice")
		if err != nil {
			t.Fatal(err)
		}
		if a.Keys.Version != version || a.Keys.Index < 0 || len(a.Chain) != int(version)+1 {
			t.Errorf("with %d entries the log proves version %d, at %d", len(a.Chain), a.Keys.Version, a.Keys.Index)
		}
	}
}

func TestRecoveryWithoutASession(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	fresh := w.person("alice")
	fresh.caller.Account = alice.caller.Account
	request, err := alice.chain().Request(fresh.caller.Device, "new laptop", fresh.key)
	if err != nil {
		t.Fatal(err)
	}
	entry, err := alice.chain().AddDevice(alice.recovery, request, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.s.AppendEntry(t.Context(), api.AppendEntry{Entry: entry}); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.use(fresh.mustSignIn()); err != nil {
		t.Fatal(err)
	}
}

func TestHookErrorUndoesTheEntry(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	phone := alice.addDevice()
	w.s.Hooks.DeviceRemoved = func(*store.Tx, chat.AccountID, chat.DeviceID, bool) error {
		return chat.Errorf(chat.Unavailable, "not now")
	}
	entry := alice.removal(phone.caller.Device, keychain.Lost)
	want(t, "the hook's error", w.s.AppendEntry(alice.ctx(), api.AppendEntry{Entry: entry}), chat.Unavailable)
	if v := alice.chain().Version(); v != 1 {
		t.Fatalf("the chain is at %d", v)
	}
	phone.mustSignIn()
}

// TestChainSurvivesAnUndoneTransaction: what a transaction read of its own undone writing must not be believed later.
func TestChainSurvivesAnUndoneTransaction(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	before := alice.chain()
	a, _ := before.SetPreference(alice.key, keychain.NoApps("flimmer", true), w.clock())
	b, _ := before.SetPreference(alice.key, keychain.NoApps("", true), w.clock())
	undone, _ := before.Append(a)
	err := w.st.Update(t.Context(), func(tx *store.Tx) error {
		if err := tx.AppendChainEntry(alice.caller.Account, 1, a, undone.Head()); err != nil {
			return err
		}
		if _, err := w.s.Chain(tx, alice.caller.Account); err != nil {
			return err
		}
		return chat.Errorf(chat.Unavailable, "undone")
	})
	want(t, "the transaction", err, chat.Unavailable)
	other := New(w.s.Config) // another process on the same store
	if err := other.AppendEntry(alice.ctx(), api.AppendEntry{Entry: b}); err != nil {
		t.Fatal(err)
	}
	if c := alice.chain(); c.Version() != 1 || !bytes.Equal(c.Entries()[1], b) {
		t.Fatal("the undone entry is believed")
	}
}

// keyPackage makes a KeyPackage of the device.
func (d *device) keyPackage(lastResort bool, change ...func(*mls.KeyPackageOptions)) []byte {
	d.t.Helper()
	o := mls.KeyPackageOptions{
		Identity: []byte(chat.DeviceURI(host, d.caller.Handle, d.caller.Device)), Signer: d.key.Private(),
		SupportedExtensions: []uint16{roster.ExtLetterlock},
		NotBefore:           d.clock().Add(-time.Hour), NotAfter: d.clock().Add(30 * 24 * time.Hour), LastResort: lastResort, Rand: rand.Reader,
	}
	for _, c := range change {
		c(&o)
	}
	kp, err := mls.NewKeyPackage(o)
	if err != nil {
		d.t.Fatal(err)
	}
	return kp.Public
}

func (d *device) put(packages ...[]byte) {
	d.t.Helper()
	if err := d.s.PutKeyPackages(d.ctx(), api.KeyPackages{Packages: packages}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) befriend(other *device) {
	d.t.Helper()
	if _, err := d.s.AddFriend(d.ctx(), other.caller.Handle); err != nil {
		d.t.Fatal(err)
	}
	if f, err := d.s.AddFriend(other.ctx(), d.caller.Handle); err != nil || f.State != api.Friends {
		d.t.Fatal(f, err)
	}
}

func TestKeyPackagesAreHandedOutOnce(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	alice.befriend(bob)
	const n = 10
	for range n {
		bob.put(bob.keyPackage(false))
	}
	last := bob.keyPackage(true)
	if err := w.s.PutKeyPackages(bob.ctx(), api.KeyPackages{LastResort: last}); err != nil {
		t.Fatal(err)
	}
	if c, err := w.s.CountKeyPackages(bob.ctx()); err != nil || c.Left != n || !c.LastResort {
		t.Fatalf("%+v %v", c, err)
	}
	var mu sync.Mutex
	seen := map[string]int{}
	atOnce(n+3, func(int) error {
		out, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: bob.caller.Account})
		mu.Lock()
		defer mu.Unlock()
		for _, p := range out.Packages {
			seen[string(p.KeyPackage)]++
		}
		return err
	})
	for kp, times := range seen {
		if kp != string(last) && times != 1 {
			t.Errorf("a KeyPackage was handed out %d times", times)
		}
	}
	if seen[string(last)] != 3 || len(seen) != n+1 {
		t.Fatalf("%d kinds, last resort %d times", len(seen), seen[string(last)])
	}
}

func TestClaimNeedsAReason(t *testing.T) {
	w := newWorld(t)
	alice, bob, eve := w.signedUp("alice"), w.signedUp("bob"), w.signedUp("eve")
	bob.put(bob.keyPackage(false))
	claim := func(d *device) error {
		_, err := w.s.ClaimKeyPackages(d.ctx(), api.ClaimKeyPackages{Account: bob.caller.Account})
		return err
	}
	want(t, "a stranger", claim(eve), chat.Forbidden)
	w.s.AddFriend(eve.ctx(), "bob")
	want(t, "one who only asked", claim(eve), chat.Forbidden)
	conversation := chat.NewConversationID()
	err := w.st.Update(t.Context(), func(tx *store.Tx) error {
		for _, d := range []*device{alice, bob} {
			if err := tx.JoinConversation(conversation, d.caller.Account); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := claim(alice); err != nil {
		t.Errorf("people of a common conversation: %v", err)
	}
	want(t, "nobody", func() error {
		_, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: chat.NewAccountID()})
		return err
	}(), chat.Forbidden)
}

func TestClaimOwnOtherDevices(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	phone := alice.addDevice()
	alice.put(alice.keyPackage(false))
	phone.put(phone.keyPackage(false))
	out, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: alice.caller.Account})
	if err != nil || len(out.Packages) != 1 || out.Packages[0].Device != phone.caller.Device {
		t.Fatalf("%v %v", out, err)
	}
}

func TestPutKeyPackagesRefuses(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	phone := alice.addDevice()
	put := func(packages ...[]byte) error {
		return w.s.PutKeyPackages(alice.ctx(), api.KeyPackages{Packages: packages})
	}
	broken := alice.keyPackage(false)
	broken[len(broken)-1] ^= 1
	for name, c := range map[string]struct {
		kp   []byte
		kind chat.Kind
	}{
		"another person's":   {bob.keyPackage(false), chat.Forbidden},
		"another device's":   {phone.keyPackage(false), chat.Forbidden},
		"another's identity": {alice.keyPackage(false, func(o *mls.KeyPackageOptions) { o.Identity = []byte(chat.DeviceURI(host, "bob", bob.caller.Device)) }), chat.Forbidden},
		"another's key":      {alice.keyPackage(false, func(o *mls.KeyPackageOptions) { o.Signer = bob.key.Private() }), chat.Forbidden},
		"another host": {alice.keyPackage(false, func(o *mls.KeyPackageOptions) {
			o.Identity = []byte(chat.DeviceURI("x.example", "alice", alice.caller.Device))
		}), chat.Forbidden},
		"broken":                 {broken, chat.Invalid},
		"nothing":                {[]byte{}, chat.Invalid},
		"no KeyPackage":          {[]byte("hello"), chat.Invalid},
		"huge":                   {make([]byte, MaxKeyPackageSize+1), chat.TooLarge},
		"nearly over":            {alice.keyPackage(false, func(o *mls.KeyPackageOptions) { o.NotAfter = w.clock().Add(time.Minute) }), chat.Invalid},
		"good for too long":      {alice.keyPackage(false, func(o *mls.KeyPackageOptions) { o.NotAfter = w.clock().Add(200 * 24 * time.Hour) }), chat.Invalid},
		"last resort among them": {alice.keyPackage(true), chat.Invalid},
	} {
		want(t, name, put(c.kp), c.kind)
	}
	want(t, "one use as last resort", w.s.PutKeyPackages(alice.ctx(), api.KeyPackages{LastResort: alice.keyPackage(false)}), chat.Invalid)
	want(t, "a bad one among good ones", put(alice.keyPackage(false), broken), chat.Invalid)
	want(t, "too many at a time", put(make([][]byte, maxPerPut+1)...), chat.TooLarge)
	if c, _ := w.s.CountKeyPackages(alice.ctx()); c.Left != 0 || c.LastResort {
		t.Errorf("a refused call left something behind: %+v", c)
	}
}

func TestKeyPackageQuota(t *testing.T) {
	w := newWorld(t)
	alice := w.signedUp("alice")
	batch := func() (out [][]byte) {
		for range maxPerPut {
			out = append(out, alice.keyPackage(false))
		}
		return out
	}
	for range MaxKeyPackages / maxPerPut {
		alice.put(batch()...)
	}
	want(t, "one more", w.s.PutKeyPackages(alice.ctx(), api.KeyPackages{Packages: [][]byte{alice.keyPackage(false)}}), chat.TooMany)
	if c, _ := w.s.CountKeyPackages(alice.ctx()); c.Left != MaxKeyPackages {
		t.Errorf("%d are left", c.Left)
	}
}

func TestOldKeyPackagesAreNotHandedOut(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	alice.befriend(bob)
	bob.put(bob.keyPackage(false))
	w.pass(30*24*time.Hour - time.Minute)
	out, err := w.s.ClaimKeyPackages(alice.ctx(), api.ClaimKeyPackages{Account: bob.caller.Account})
	if err != nil || len(out.Packages) != 0 {
		t.Fatalf("%v %v", out, err)
	}
}

func TestFriends(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.signedUp("alice"), w.signedUp("bob")
	state := func(d *device) string {
		list, err := w.s.ListFriends(d.ctx())
		if err != nil {
			t.Fatal(err)
		}
		out := ""
		for _, f := range list.Friends {
			out += f.Handle + ":" + string(f.State) + " "
		}
		return out
	}
	for range 2 {
		if f, err := w.s.AddFriend(alice.ctx(), "bob"); err != nil || f.State != api.Requested {
			t.Fatal(f, err)
		}
	}
	if state(alice) != "bob:requested " || state(bob) != "alice:incoming " {
		t.Fatalf("%s / %s", state(alice), state(bob))
	}
	if f, err := w.s.AddFriend(bob.ctx(), "alice"); err != nil || f.State != api.Friends {
		t.Fatal(f, err)
	}
	if state(alice) != "bob:friends " || state(bob) != "alice:friends " {
		t.Fatalf("%s / %s", state(alice), state(bob))
	}
	if err := w.s.RemoveFriend(bob.ctx(), "alice"); err != nil {
		t.Fatal(err)
	}
	if state(alice) != "" || state(bob) != "" {
		t.Fatalf("%s / %s", state(alice), state(bob))
	}
	want(t, "nothing to remove", w.s.RemoveFriend(bob.ctx(), "alice"), chat.NotFound)
	_, err := w.s.AddFriend(alice.ctx(), "nobody")
	want(t, "nobody", err, chat.NotFound)
	_, err = w.s.AddFriend(alice.ctx(), "alice")
	want(t, "oneself", err, chat.Invalid)
	_, err = w.s.ListFriends(t.Context())
	want(t, "no caller", err, chat.Unauthenticated)
}

func TestTokensHashedAtRest(t *testing.T) {
	dir := t.TempDir()
	w := worldOn(t, storetest.File(t, filepath.Join(dir, "test.db"))(t))
	alice := w.signedUp("alice")
	token := alice.mustSignIn()
	parsed, err := parseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	dump := filesOf(t, dir)
	if bytes.Contains(dump, parsed.secret[:]) || bytes.Contains(dump, []byte(token)) {
		t.Error("the session token stands in the database")
	}
	if !bytes.Contains(dump, alice.caller.Account[:]) {
		t.Fatal("the search itself does not work")
	}
}
