package keychain

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"letterlock/canon"
	"letterlock/chat"
)

var noon = time.UnixMilli(1_760_000_000_000)

// alice is an account with the keys that a test needs: everything follows from the name.
type alice struct {
	phone, laptop, tablet DeviceKey
	recovery              RecoveryKey
	phrase                string
	random                *rand.ChaCha8
}

var (
	aliceID  = chat.AccountID{0xa1}
	phoneID  = chat.DeviceID{1}
	laptopID = chat.DeviceID{2}
	tabletID = chat.DeviceID{3}
)

func newAlice(t testing.TB) alice {
	t.Helper()
	r := rand.NewChaCha8(sha256.Sum256([]byte("alice")))
	a := alice{phone: deviceKey(t, r), laptop: deviceKey(t, r), tablet: deviceKey(t, r), random: r}
	var err error
	if a.phrase, a.recovery, err = NewRecovery(r); err != nil {
		t.Fatal(err)
	}
	return a
}

func deviceKey(t testing.TB, r *rand.ChaCha8) DeviceKey {
	t.Helper()
	k, err := NewDeviceKey(r)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a alice) creation() Creation {
	return Creation{Account: aliceID, Host: "chat.example", Handle: "alice", Device: phoneID, Name: "phone", At: noon}
}

// start is the chain with the first entry only.
func (a alice) start(t testing.TB) *Chain {
	t.Helper()
	entry, err := Create(a.creation(), a.phone, a.recovery)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Open([][]byte{entry})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wish is a device's request to join.
func (a alice) wish(t testing.TB, id chat.DeviceID, name string, k DeviceKey) []byte {
	t.Helper()
	r, err := a.start(t).Request(id, name, k)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// then appends what a builder made.
func then(t testing.TB, c *Chain) func(entry []byte, err error) *Chain {
	return func(entry []byte, err error) *Chain {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		next, err := c.Append(entry)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
}

// story is a chain with an entry of each kind. The tablet is in it, the phone retired, the laptop stolen.
func (a alice) story(t testing.TB) *Chain {
	t.Helper()
	c := a.start(t)
	c = then(t, c)(c.AddDevice(a.phone, a.wish(t, laptopID, "laptop", a.laptop), noon))      // 1
	c = then(t, c)(c.SetPreference(a.laptop, NoApps("flimmer", true), noon))                 // 2
	c = then(t, c)(c.RemoveDevice(a.phone, phoneID, Retired, noon))                          // 3
	c = then(t, c)(c.AddDevice(a.recovery, a.wish(t, tabletID, "tablet", a.tablet), noon))   // 4
	c = then(t, c)(c.RemoveDevice(a.tablet, laptopID, Stolen, noon))                         // 5
	c = then(t, c)(c.SetPreference(a.tablet, UsesApp("flimmer", UsesItNot), noon))           // 6
	_, next, err := NewRecovery(rand.NewChaCha8(sha256.Sum256([]byte("the next recovery")))) // 7
	if err != nil {
		t.Fatal(err)
	}
	return then(t, c)(c.ReplaceRecovery(a.recovery, next, noon))
}

func TestStory(t *testing.T) {
	a := newAlice(t)
	c := a.story(t)
	if c.Account() != aliceID || c.Host() != "chat.example" || c.Handle() != "alice" || c.Version() != 7 {
		t.Errorf("account %v, host %q, handle %q, version %d", c.Account(), c.Host(), c.Handle(), c.Version())
	}
	if d := c.Devices(); len(d) != 1 || d[0].ID != tabletID || d[0].Name != "tablet" || !d[0].Key.Equal(a.tablet.Public()) {
		t.Errorf("devices: %v", d)
	}
	if d := c.Removed(); len(d) != 2 || d[0].Reason != Retired || d[1].Reason != Stolen {
		t.Errorf("removed: %v", d)
	}
	if _, ok := c.Device(laptopID); ok {
		t.Error("a removed device is found")
	}
	if !c.RemovedAsStolen(laptopID) || c.RemovedAsStolen(phoneID) || c.RemovedAsStolen(tabletID) {
		t.Error("stolen: want the laptop alone")
	}
	if c.Recovery().Equal(a.recovery.Public()) {
		t.Error("the recovery key was not replaced")
	}
	p := c.Preferences()
	if !p.Refuses("flimmer") || p.Refuses("other") || p.RefusesAll() || p.Uses("flimmer") != UsesItNot || p.Uses("other") != NotTold {
		t.Errorf("preferences: %v", p)
	}
	again, err := Open(c.Entries())
	if err != nil || again.Head() != c.Head() || again.Head() != sha256.Sum256(c.Entries()[7]) {
		t.Errorf("opened again: %v", err)
	}
}

// The format is spec/keychain.md. If this fails, old chains do not open any more: that is a new version.
func TestFormatIsFrozen(t *testing.T) {
	c := newAlice(t).story(t)
	head := c.Head()
	if got, want := hex.EncodeToString(head[:]), "70e3c865f7928af1db73f2b1103742f5da97a09f804658126df8923b1189d486"; got != want {
		t.Errorf("head %s, want %s", got, want)
	}
	if got, want := SafetyNumber(c, c), "91378 23911 12875 42723 59817 93858 91378 23911 12875 42723 59817 93858"; got != want {
		t.Errorf("safety number %q, want %q", got, want)
	}
}

func TestKeyAt(t *testing.T) {
	a := newAlice(t)
	c := a.story(t)
	for _, tc := range []struct {
		device  chat.DeviceID
		key     DeviceKey
		present []uint64
	}{
		{phoneID, a.phone, []uint64{0, 1, 2}},
		{laptopID, a.laptop, []uint64{1, 2, 3, 4}},
		{tabletID, a.tablet, []uint64{4, 5, 6, 7}},
		{chat.DeviceID{9}, a.tablet, nil},
	} {
		for v := range uint64(10) {
			key, ok := c.KeyAt(v, tc.device)
			if ok != slices.Contains(tc.present, v) {
				t.Errorf("device %v at version %d: %v", tc.device, v, ok)
			}
			if ok && !key.Equal(tc.key.Public()) {
				t.Errorf("device %v at version %d: another key", tc.device, v)
			}
		}
	}
}

func TestChainNeverChanges(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	before := fmt.Sprintf("%v %x %v", c.Devices(), c.Head(), c.Preferences())
	longer := then(t, c)(c.AddDevice(a.phone, a.wish(t, laptopID, "laptop", a.laptop), noon))
	then(t, longer)(longer.RemoveDevice(a.phone, phoneID, Retired, noon))
	then(t, c)(c.SetPreference(a.phone, NoApps("", true), noon))
	c.Devices()[0].Key[0] ^= 1
	c.Entries()[0][0] ^= 1
	if after := fmt.Sprintf("%v %x %v", c.Devices(), c.Head(), c.Preferences()); after != before {
		t.Errorf("was %s\nis  %s", before, after)
	}
	if _, ok := longer.Device(phoneID); !ok {
		t.Error("a later Append changed an earlier chain")
	}
}

// forge signs a body as it is, without asking whether the chain would take it.
func forge(t testing.TB, s Signer, e entry) []byte {
	t.Helper()
	signed, err := s.sign(domainEntry, e)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// next is a right entry but for its payload.
func next(c *Chain, s Signer, kind uint64, payload []byte) entry {
	return entry{Version: 1, Account: c.account, N: c.Version() + 1, Prev: c.Head(), Kind: kind, Payload: payload,
		At: noon.UnixMilli(), Signer: publicKeyOf(s)}
}

func TestAppendRefuses(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	c = then(t, c)(c.AddDevice(a.phone, a.wish(t, laptopID, "laptop", a.laptop), noon))
	c = then(t, c)(c.RemoveDevice(a.phone, laptopID, Lost, noon))
	c = then(t, c)(c.AddDevice(a.phone, a.wish(t, tabletID, "tablet", a.tablet), noon))
	thief := deviceKey(t, a.random)
	fresh := deviceKey(t, a.random)
	_, freshRecovery, _ := NewRecovery(a.random)
	on := canon.MustMarshal(NoApps("flimmer", true))

	with := func(change func(*entry)) []byte { // a preference by the phone, with one thing wrong
		e := next(c, a.phone, setPreference, on)
		change(&e)
		return forge(t, a.phone, e)
	}
	by := func(s Signer, kind uint64, payload []byte) []byte { return forge(t, s, next(c, s, kind, payload)) }
	remove := func(id chat.DeviceID, why Reason) []byte { return canon.MustMarshal(removal{Device: id, Reason: why}) }
	seal := func(s Signer, domain string, v any) []byte {
		signed, err := s.sign(domain, v)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	wish := func(id chat.DeviceID, key publicKey, name string, signer Signer, account chat.AccountID) []byte {
		return seal(signer, domainDevice, request{Account: account, Creation: c.Creation(), Device: deviceFields{ID: id, Key: key, Name: name}})
	}
	newID, freshKey := chat.DeviceID{7}, publicKeyOf(fresh)
	pref := func(name uint64, partner string, value uint64) []byte {
		return by(a.phone, setPreference, canon.MustMarshal(Preference{Name: name, Partner: partner, Value: value}))
	}

	for name, tc := range map[string]struct {
		entry []byte
		kind  chat.Kind
	}{
		"nothing":           {nil, chat.Invalid},
		"not CBOR":          {[]byte("letterlock"), chat.Invalid},
		"trailing byte":     {append(with(func(*entry) {}), 0), chat.Invalid},
		"too large":         {by(a.phone, setPreference, make([]byte, MaxEntry)), chat.TooLarge},
		"another version":   {with(func(e *entry) { e.Version = 2 }), chat.Incompatible},
		"another account":   {with(func(e *entry) { e.Account[0]++ }), chat.Invalid},
		"a number left out": {with(func(e *entry) { e.N++ }), chat.StaleEpoch},
		"a number again":    {with(func(e *entry) { e.N-- }), chat.StaleEpoch},
		"another history":   {with(func(e *entry) { e.Prev[0]++ }), chat.Invalid},
		"before 1970":       {with(func(e *entry) { e.At = -1 }), chat.Invalid},
		"an unknown kind":   {with(func(e *entry) { e.Kind = 99 }), chat.Incompatible},
		"a second creation": {by(fresh, create, seal(freshRecovery, domainCreate, creation{Account: aliceID, Host: "chat.example", Handle: "alice",
			Recovery: publicKeyOf(freshRecovery), Device: deviceFields{ID: newID, Key: freshKey, Name: "x"}})), chat.Invalid},
		"another's name under it":       {with(func(e *entry) { e.Signer = publicKeyOf(a.tablet) }), chat.Unproven},
		"a stranger":                    {by(thief, setPreference, on), chat.Forbidden},
		"a removed device":              {by(a.laptop, setPreference, on), chat.Forbidden},
		"a server's device":             {by(thief, addDevice, wish(newID, publicKeyOf(thief), "server", thief, aliceID)), chat.Forbidden},
		"no proof of possession":        {by(a.phone, addDevice, wish(newID, freshKey, "x", a.phone, aliceID)), chat.Unproven},
		"a request for another account": {by(a.phone, addDevice, wish(newID, freshKey, "x", fresh, chat.AccountID{0xb0})), chat.Invalid},
		"a request for another chain of that name": {by(a.phone, addDevice, seal(fresh, domainDevice, request{Account: aliceID, Creation: [32]byte{1},
			Device: deviceFields{ID: newID, Key: freshKey, Name: "x"}})), chat.Invalid},
		"a removed device's key":        {by(a.phone, addDevice, wish(newID, publicKeyOf(a.laptop), "x", a.laptop, aliceID)), chat.Exists},
		"a removed device's id":         {by(a.phone, addDevice, wish(laptopID, freshKey, "x", fresh, aliceID)), chat.Exists},
		"a present device's id":         {by(a.phone, addDevice, wish(tabletID, freshKey, "x", fresh, aliceID)), chat.Exists},
		"the recovery key as a device":  {by(a.phone, addDevice, wish(newID, publicKeyOf(a.recovery), "x", a.recovery, aliceID)), chat.Exists},
		"no name":                       {by(a.phone, addDevice, wish(newID, freshKey, "", fresh, aliceID)), chat.Invalid},
		"a long name":                   {by(a.phone, addDevice, wish(newID, freshKey, strings.Repeat("x", 65), fresh, aliceID)), chat.Invalid},
		"a control in a name":           {by(a.phone, addDevice, wish(newID, freshKey, "x\x1b[2J", fresh, aliceID)), chat.Invalid},
		"a name written backwards":      {by(a.phone, addDevice, wish(newID, freshKey, "\u202eenohp", fresh, aliceID)), chat.Invalid},
		"removing a stranger":           {by(a.phone, removeDevice, remove(newID, Lost)), chat.NotFound},
		"removing twice":                {by(a.phone, removeDevice, remove(laptopID, Lost)), chat.NotFound},
		"itself as lost":                {by(a.phone, removeDevice, remove(phoneID, Lost)), chat.Forbidden},
		"itself as stolen":              {by(a.phone, removeDevice, remove(phoneID, Stolen)), chat.Forbidden},
		"no reason":                     {by(a.phone, removeDevice, remove(tabletID, 0)), chat.Incompatible},
		"an unknown reason":             {by(a.phone, removeDevice, remove(tabletID, 4)), chat.Incompatible},
		"recovery replaced by a device": {by(a.phone, replaceRecovery, seal(freshRecovery, domainRecovery, succession{Account: aliceID, Key: publicKeyOf(freshRecovery)})), chat.Forbidden},
		"a recovery key nobody proved":  {by(a.recovery, replaceRecovery, seal(a.recovery, domainRecovery, succession{Account: aliceID, Key: publicKeyOf(freshRecovery)})), chat.Unproven},
		"recovery of another account":   {by(a.recovery, replaceRecovery, seal(freshRecovery, domainRecovery, succession{Account: chat.AccountID{1}, Key: publicKeyOf(freshRecovery)})), chat.Invalid},
		"recovery by itself":            {by(a.recovery, replaceRecovery, seal(a.recovery, domainRecovery, succession{Account: aliceID, Key: publicKeyOf(a.recovery)})), chat.Exists},
		"a device's key as recovery":    {by(a.recovery, replaceRecovery, seal(a.laptop, domainRecovery, succession{Account: aliceID, Key: publicKeyOf(a.laptop)})), chat.Exists},
		"an unknown preference":         {pref(3, "flimmer", 1), chat.Incompatible},
		"an unknown value":              {pref(noApps, "flimmer", 2), chat.Incompatible},
		"an unknown answer":             {pref(usesApp, "flimmer", 3), chat.Incompatible},
		"an answer for all":             {pref(usesApp, "", 1), chat.Invalid},
		"no partner id":                 {pref(noApps, "Flimmer Inc.", 1), chat.Invalid},
		"an empty payload":              {by(a.phone, removeDevice, nil), chat.Invalid},
	} {
		longer, err := c.Append(tc.entry)
		if longer != nil || chat.KindOf(err) != tc.kind {
			t.Errorf("%s: %v, want %s", name, err, tc.kind)
		}
	}
	if _, err := c.Append(with(func(*entry) {})); err != nil {
		t.Errorf("the entry that the cases spoil is refused itself: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	a := newAlice(t)
	good := creation{Account: aliceID, Host: "chat.example", Handle: "alice", Recovery: publicKeyOf(a.recovery),
		Device: deviceFields{ID: phoneID, Key: publicKeyOf(a.phone), Name: "phone"}}
	first := func(signer Signer, byRecovery Signer, change func(*creation)) [][]byte {
		p := good
		change(&p)
		payload, err := byRecovery.sign(domainCreate, p)
		if err != nil {
			t.Fatal(err)
		}
		return [][]byte{forge(t, signer, entry{Version: 1, Account: aliceID, Kind: create, Payload: payload, Signer: publicKeyOf(signer)})}
	}
	as := func(change func(*creation)) [][]byte { return first(a.phone, a.recovery, change) }
	if _, err := Open(as(func(*creation) {})); err != nil {
		t.Fatalf("the entry that the cases spoil is refused itself: %v", err)
	}
	story := a.story(t).Entries()
	for name, tc := range map[string]struct {
		entries [][]byte
		kind    chat.Kind
	}{
		"nothing":                         {nil, chat.Invalid},
		"no beginning":                    {story[1:], chat.StaleEpoch},
		"one left out":                    {slices.Delete(slices.Clone(story), 2, 3), chat.StaleEpoch},
		"two exchanged":                   {[][]byte{story[0], story[2], story[1]}, chat.StaleEpoch},
		"too many":                        {make([][]byte, MaxEntries+1), chat.TooLarge},
		"signed by recovery only":         {first(a.recovery, a.recovery, func(*creation) {}), chat.Forbidden},
		"signed by another device":        {first(a.laptop, a.recovery, func(*creation) {}), chat.Forbidden},
		"no signature by recovery":        {first(a.phone, a.phone, func(*creation) {}), chat.Unproven},
		"recovery signed another account": {as(func(p *creation) { p.Account[0]++ }), chat.Invalid},
		"a bad host":                      {as(func(p *creation) { p.Host = "Chat Example" }), chat.Invalid},
		"a bad handle":                    {as(func(p *creation) { p.Handle = "Alice" }), chat.Invalid},
		"a device without a name":         {as(func(p *creation) { p.Device.Name = "" }), chat.Invalid},
	} {
		if c, err := Open(tc.entries); c != nil || chat.KindOf(err) != tc.kind {
			t.Errorf("%s: %v, want %s", name, err, tc.kind)
		}
	}
	same, err := DeviceKeyFromSeed(a.recovery.key.Seed())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(first(same, a.recovery, func(p *creation) { p.Device.Key = publicKeyOf(same) })); !chat.Is(err, chat.Exists) {
		t.Errorf("one key for device and recovery: %v", err)
	}
}

// Points of small order: under them a signature of zeros fits many messages.
func TestUnsoundKeysAreRefused(t *testing.T) {
	for name, k := range map[string]string{
		"the identity":       "0100000000000000000000000000000000000000000000000000000000000000",
		"of order two":       "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"of order four":      "0000000000000000000000000000000000000000000000000000000000000000",
		"of order eight":     "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"not canonical":      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"not on the curve":   "0200000000000000000000000000000000000000000000000000000000000000",
		"negative zero of x": "0100000000000000000000000000000000000000000000000000000000000080",
	} {
		b, err := hex.DecodeString(k)
		if err != nil {
			t.Fatal(err)
		}
		if publicKey(b).sound() {
			t.Errorf("%s: accepted", name)
		}
		c := &Chain{keys: map[publicKey]bool{}}
		if err := c.take(0, publicKey(b)); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !publicKeyOf(newAlice(t).phone).sound() {
		t.Error("a good key is refused")
	}
}

func TestNoByteCanChange(t *testing.T) {
	entries := newAlice(t).story(t).Entries()
	for n, e := range entries {
		c := &Chain{keys: map[publicKey]bool{}}
		for _, before := range entries[:n] {
			if err := c.extend(before); err != nil {
				t.Fatal(err)
			}
		}
		for i := range e {
			changed := slices.Clone(e)
			changed[i] ^= 1
			if _, err := c.Append(changed); err == nil {
				t.Fatalf("entry %d, byte %d flipped: accepted", n, i)
			}
		}
	}
}

// What one client saw, and what it is shown later:
//
//	0 <- 1 <- 2       seen
//	      \
//	       <- 2'<- 3  shown
func TestForksAndRollbacksAreSeen(t *testing.T) {
	a := newAlice(t)
	zero := a.start(t)
	one := then(t, zero)(zero.AddDevice(a.phone, a.wish(t, laptopID, "laptop", a.laptop), noon))
	two := then(t, one)(one.RemoveDevice(a.phone, laptopID, Stolen, noon))
	fork := then(t, one)(one.SetPreference(a.laptop, NoApps("", true), noon))
	fork3 := then(t, fork)(fork.SetPreference(a.laptop, NoApps("", false), noon))

	for name, later := range map[string]*Chain{"the same": one, "longer": two, "longer still": fork3} {
		if err := later.Extends(one); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, later := range map[string]*Chain{"a fork": fork, "a longer fork": fork3, "a shorter chain": one} {
		if err := later.Extends(two); !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := a.creation()
	other.Account = chat.AccountID{0xb0}
	entry, err := Create(other, a.phone, a.recovery)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := Open([][]byte{entry})
	if err != nil {
		t.Fatal(err)
	}
	if err := stranger.Extends(zero); !chat.Is(err, chat.Invalid) {
		t.Errorf("another account: %v", err)
	}
}

func TestLimitOfDevices(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	add := func(i int) ([]byte, error) {
		id := chat.DeviceID{9, byte(i)}
		return c.AddDevice(a.phone, a.wish(t, id, "device", deviceKey(t, a.random)), noon)
	}
	for i := range MaxDevices - 1 {
		c = then(t, c)(add(i))
	}
	if _, err := add(MaxDevices); !chat.Is(err, chat.TooLarge) {
		t.Errorf("device %d: %v", MaxDevices+1, err)
	}
	c = then(t, c)(c.RemoveDevice(a.phone, chat.DeviceID{9, 0}, Lost, noon))
	then(t, c)(add(MaxDevices))
}

func TestLimitOfEntriesLeavesRoomForRecovery(t *testing.T) {
	a := newAlice(t)
	entries := a.start(t).Entries()
	c, err := Open(entries)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(s Signer, to int) { // extend in place: appending 4,000 times would copy 4,000 chains
		for i := len(c.entries); i < to; i++ {
			p := canon.MustMarshal(NoApps("", i%2 == 0))
			if err := c.extend(forge(t, s, next(c, s, setPreference, p))); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(a.phone, MaxEntries-RecoveryReserve)
	if _, err := c.SetPreference(a.phone, NoApps("", true), noon); !chat.Is(err, chat.TooLarge) {
		t.Errorf("a device in the reserve: %v", err)
	}
	fill(a.recovery, MaxEntries)
	if _, err := c.SetPreference(a.recovery, NoApps("", true), noon); !chat.Is(err, chat.TooLarge) {
		t.Errorf("entry %d: %v", MaxEntries, err)
	}
	if _, err := Open(c.Entries()); err != nil {
		t.Errorf("the longest chain: %v", err)
	}
}

func TestRecoveryOutranksDevices(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	c = then(t, c)(c.RemoveDevice(a.recovery, phoneID, Stolen, noon))
	if len(c.Devices()) != 0 {
		t.Fatal("the stolen phone is still there")
	}
	c = then(t, c)(c.AddDevice(a.recovery, a.wish(t, laptopID, "laptop", a.laptop), noon))
	then(t, c)(c.SetPreference(a.laptop, NoApps("", true), noon))
}

func TestPreferences(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	set := func(p Preference) Preferences {
		t.Helper()
		c = then(t, c)(c.SetPreference(a.phone, p, noon))
		return c.Preferences()
	}
	if p := set(NoApps("flimmer", true)); !p.Refuses("flimmer") || p.Refuses("tonspur") || !slices.Equal(p.Refused(), []string{"flimmer"}) {
		t.Errorf("one refused: %v", p)
	}
	if p := set(NoApps("", true)); !p.RefusesAll() || !p.Refuses("tonspur") || !slices.Equal(p.Refused(), []string{"flimmer"}) {
		t.Errorf("all refused: %v", p)
	}
	if p := set(NoApps("flimmer", false)); !p.Refuses("flimmer") || len(p.Refused()) != 0 {
		t.Errorf("all refused, one taken back: %v", p)
	}
	if p := set(NoApps("", false)); p.Refuses("flimmer") || p.RefusesAll() {
		t.Errorf("none refused: %v", p)
	}
	if p := set(UsesApp("flimmer", UsesIt)); p.Uses("flimmer") != UsesIt {
		t.Errorf("uses: %v", p)
	}
	if p := set(UsesApp("flimmer", NotTold)); p.Uses("flimmer") != NotTold {
		t.Errorf("not told: %v", p)
	}
}

func TestRecoveryPhrase(t *testing.T) {
	a := newAlice(t)
	words := strings.Fields(a.phrase)
	if len(words) != 24 {
		t.Fatalf("%d words", len(words))
	}
	for name, phrase := range map[string]string{
		"as shown":    a.phrase,
		"upper case":  strings.ToUpper(a.phrase),
		"white space": "\n " + strings.Join(words, "\t \r\n") + " ",
	} {
		if k, err := RecoveryFromPhrase(phrase); err != nil || !k.Public().Equal(a.recovery.Public()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	swapped := slices.Clone(words)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	for name, phrase := range map[string]string{
		"nothing":            "",
		"a word missing":     strings.Join(words[1:], " "),
		"a word too many":    a.phrase + " " + words[0],
		"two words swapped":  strings.Join(swapped, " "),
		"a word of no list":  strings.Replace(a.phrase, words[3], "letterlock", 1),
		"longer than a page": strings.Repeat("x ", maxPhrase),
	} {
		_, err := RecoveryFromPhrase(phrase)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, w := range append(words, "letterlock") {
			if slices.Contains(strings.Fields(err.Error()), w) && !slices.Contains([]string{"word", "a", "list", "place"}, w) {
				t.Errorf("%s: the error repeats %q", name, w)
			}
		}
	}
}

// BIP-39's own example of 32 zero bytes, which also has the leading zeros that a number would lose.
func TestRecoveryPhraseOfZeros(t *testing.T) {
	want := strings.Repeat("abandon ", 23) + "art"
	phrase, key, err := NewRecovery(bytes.NewReader(make([]byte, 32)))
	if err != nil || phrase != want {
		t.Fatalf("%q, %v", phrase, err)
	}
	again, err := RecoveryFromPhrase(phrase)
	if err != nil || !again.Public().Equal(key.Public()) {
		t.Errorf("read again: %v", err)
	}
	if ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey).Equal(key.Public()) {
		t.Error("the secret itself is the signing key's seed")
	}
}

func TestSafetyNumber(t *testing.T) {
	a := newAlice(t)
	c := a.start(t)
	bobKey := deviceKey(t, a.random)
	_, bobRecovery, _ := NewRecovery(a.random)
	make1 := func(id byte, handle string, k DeviceKey, r RecoveryKey) *Chain {
		entry, err := Create(Creation{Account: chat.AccountID{id}, Host: "chat.example", Handle: handle, Device: chat.DeviceID{5}, Name: "phone", At: noon}, k, r)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := Open([][]byte{entry})
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	bob := make1(0xb0, "bob", bobKey, bobRecovery)
	number := SafetyNumber(c, bob)
	if digits := strings.ReplaceAll(number, " ", ""); len(digits) != 60 || strings.Trim(digits, "0123456789") != "" || len(number) != 71 {
		t.Errorf("%q is not 12 groups of 5 digits", number)
	}
	if SafetyNumber(bob, c) != number {
		t.Error("the two sides differ")
	}
	more := then(t, c)(c.AddDevice(a.phone, a.wish(t, laptopID, "laptop", a.laptop), noon))
	more = then(t, more)(more.RemoveDevice(a.laptop, phoneID, Stolen, noon))
	if SafetyNumber(more, bob) != number {
		t.Error("it changed with the devices")
	}
	for name, other := range map[string]*Chain{
		"another account":   make1(0xb1, "bob", bobKey, bobRecovery),
		"another handle":    make1(0xb0, "bobb", bobKey, bobRecovery),
		"another device":    make1(0xb0, "bob", a.tablet, bobRecovery),
		"another recovery":  make1(0xb0, "bob", bobKey, a.recovery),
		"recovery replaced": then(t, bob)(bob.ReplaceRecovery(bobRecovery, a.recovery, noon)),
	} {
		if SafetyNumber(c, other) == number {
			t.Errorf("%s: the same number", name)
		}
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	a := newAlice(t)
	for _, secret := range []struct {
		value any
		bytes []byte
	}{{a.phone, a.phone.key}, {a.recovery, a.recovery.key}, {&a.phone, a.phone.key}, {[]DeviceKey{a.phone}, a.phone.key}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
			out := fmt.Sprintf(verb, secret.value)
			for _, form := range []string{"%x", "%X", "%d", "%s"} {
				if strings.Contains(out, strings.Trim(fmt.Sprintf(form, secret.bytes[:8]), "[]")) {
					t.Errorf("%s of %T prints the key", verb, secret.value)
				}
			}
			if !strings.Contains(out, "key)") {
				t.Errorf("%s of %T prints %q", verb, secret.value, out)
			}
		}
	}
}

func TestDeviceKeySeed(t *testing.T) {
	a := newAlice(t)
	again, err := DeviceKeyFromSeed(a.phone.Seed())
	if err != nil || !again.Public().Equal(a.phone.Public()) {
		t.Errorf("%v", err)
	}
	if _, err := DeviceKeyFromSeed(make([]byte, 31)); err == nil {
		t.Error("31 bytes: accepted")
	}
	if _, err := NewDeviceKey(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("randomness that ends: accepted")
	}
	again.Wipe()
	if !bytes.Equal(again.key, make([]byte, 64)) {
		t.Error("not wiped")
	}
}
