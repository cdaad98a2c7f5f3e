package attacks

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
)

// chainOf is the honest key chain of a person.
func chainOf(t *testing.T, w *world.World, p *world.Person) *keychain.Chain {
	t.Helper()
	a, err := steal(t, p).calls.AccountByHandle(w.Ctx(), p.Self().Handle)
	w.Must(err)
	c, err := keychain.Open(a.Chain)
	w.Must(err)
	return c
}

func newKey(t *testing.T) keychain.DeviceKey {
	t.Helper()
	k, err := keychain.NewDeviceKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestServerAddsADeviceToAKeyChain: the server appends a device of its own to Bob's chain. It can sign with any key but Bob's.
func TestServerAddsADeviceToAKeyChain(t *testing.T) {
	w, alice, bob, _ := friends(t)
	honest, own := chainOf(t, w, bob), newKey(t)
	request, err := honest.Request(chat.NewDeviceID(), "phone", newKey(t))
	w.Must(err)
	added := signEntry(t, bob.Self().Account, 1, honest.Head(), addDevice, request, own)
	lies(alice, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				a.Chain = append(a.Chain, added)
			}
		}}
	})
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, "the server's key chain of bob does not hold")
	answered(t, err, chat.Tampered, "the signer is neither a device in the chain nor the recovery key")
}

// keychainEntry is the signed body of an entry (spec/keychain.md).
type keychainEntry struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Account chat.AccountID
	N       uint64
	Prev    [32]byte
	Kind    uint64
	Payload []byte
	At      int64
	Signer  [32]byte
}

// The kinds of entry.
const (
	addDevice    = 2
	removeDevice = 3
)

// signEntry makes an entry without asking whether the signer may.
func signEntry(t *testing.T, account chat.AccountID, n uint64, prev [32]byte, kind uint64, payload []byte, signer keychain.DeviceKey) []byte {
	t.Helper()
	signed, err := canon.Seal(signer.Private(), "letterlock/keychain/v1", keychainEntry{Version: 1, Account: account, N: n, Prev: prev, Kind: kind,
		Payload: payload, At: time.Now().UnixMilli(), Signer: [32]byte(signer.Public())})
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// payloadOf takes the payload out of an entry.
func payloadOf(t *testing.T, signed []byte) []byte {
	t.Helper()
	var e keychainEntry
	if err := canon.Peek(signed, &e); err != nil {
		t.Fatal(err)
	}
	return e.Payload
}

func recovery(t *testing.T, phrase string) keychain.RecoveryKey {
	t.Helper()
	k, err := keychain.RecoveryFromPhrase(phrase)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestServerShortensAKeyChain: the server hides that Bob has removed or added a device.
func TestServerShortensAKeyChain(t *testing.T) {
	w, alice, bob, _ := friends(t)
	w.Recover("bob", bob.Phrase, "phone")
	_, err := alice.SafetyNumber(w.Ctx(), "bob") // Alice has seen two devices
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				a.Chain = a.Chain[:1]
			}
		}}
	})
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, "the server's key chain of bob contradicts the one this device remembers")
	kept(t, alice, "has 1 entries where 2 were seen before")
}

// TestServerForksAKeyChain: the server has Bob's recovery key and shows Alice another second device than it showed her before.
func TestServerForksAKeyChain(t *testing.T) {
	w, alice, bob, _ := friends(t)
	first := chainOf(t, w, bob)
	w.Recover("bob", bob.Phrase, "phone")
	_, err := alice.SafetyNumber(w.Ctx(), "bob")
	w.Must(err)
	request, err := first.Request(chat.NewDeviceID(), "phone", newKey(t))
	w.Must(err)
	other, err := first.AddDevice(recovery(t, bob.Phrase), request, time.Now())
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				a.Chain = [][]byte{a.Chain[0], other}
			}
		}}
	})
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, "the server's key chain of bob contradicts the one this device remembers")
	kept(t, alice, "differs from what was seen before")
}

// TestServerReassignsAHandle: the server gives Bob's handle to an account of its own.
func TestServerReassignsAHandle(t *testing.T) {
	w, alice, bob, id := friends(t)
	account := chat.NewAccountID()
	_, k, err := keychain.NewRecovery(rand.Reader)
	w.Must(err)
	forged, err := keychain.Create(keychain.Creation{Account: account, Host: bob.Self().Host, Handle: "bob", Device: chat.NewDeviceID(),
		Name: "phone", At: time.Now()}, newKey(t), k)
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				*a = api.Account{Account: account, Handle: "bob", Chain: [][]byte{forged}}
			}
		}}
	})
	const sentence = "the handle bob belongs to somebody else now; handles are never reassigned"
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, sentence)
	kept(t, alice, sentence)
	// And nobody is added under the stolen name.
	if err := alice.Sync(w.Ctx()); !chat.Is(err, chat.Tampered) {
		t.Fatalf("the next sync said %v", err)
	}
	if o := overview(t, alice, id); o.Epoch != 1 {
		t.Fatalf("the conversation moved to epoch %d", o.Epoch)
	}
}

// TestServerAnswersWithAnotherPerson: asked for Bob, the server gives Carol's keys.
func TestServerAnswersWithAnotherPerson(t *testing.T) {
	w := world.New(t)
	alice, carol := w.SignUp("alice"), w.SignUp("carol")
	w.SignUp("bob")
	account, err := steal(t, carol).calls.AccountByHandle(w.Ctx(), "carol")
	w.Must(err)
	lies(alice, func(s world.Calls) device.Server { return accountLiar{s, func(a *api.Account) { *a = account }} })
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, "the server answered with another person's keys")
	account.Handle = "bob" // under Bob's name it is still Carol's chain
	_, err = alice.SafetyNumber(w.Ctx(), "bob")
	answered(t, err, chat.Tampered, "the server's key chain of bob is another person's")
}

// keyPackageLiar gives KeyPackages of its own for one account.
type keyPackageLiar struct {
	world.Calls
	of       chat.AccountID
	packages []api.ClaimedKeyPackage
}

func (l keyPackageLiar) ClaimKeyPackages(ctx context.Context, r api.ClaimKeyPackages) (api.ClaimedKeyPackages, error) {
	if r.Account != l.of {
		return l.Calls.ClaimKeyPackages(ctx, r)
	}
	return api.ClaimedKeyPackages{Packages: l.packages}, nil
}

// keyPackageOf makes one of any identity under any key.
func keyPackageOf(t *testing.T, identity string, key keychain.DeviceKey) *mls.KeyPackage {
	t.Helper()
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: []byte(identity), Signer: key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	return kp
}

// TestServerSubstitutesAKeyPackage: the server gives a KeyPackage whose private half it has, so that it could read along.
func TestServerSubstitutesAKeyPackage(t *testing.T) {
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	own := newKey(t)
	for what, identity := range map[string]string{
		"Bob's device with another key": chat.DeviceURI(bob.Self().Host, "bob", bob.Self().Device),
		"a device that Bob has not":     chat.DeviceURI(bob.Self().Host, "bob", chat.NewDeviceID()),
		"somebody else":                 chat.DeviceURI(bob.Self().Host, "mallory", chat.NewDeviceID()),
		"an agent":                      chat.AgentURI(bob.Self().Host, "flimmer", chat.NewGrantID()),
	} {
		kp := keyPackageOf(t, identity, own)
		lies(alice, func(s world.Calls) device.Server {
			return keyPackageLiar{s, bob.Self().Account, []api.ClaimedKeyPackage{{Device: bob.Self().Device, KeyPackage: kp.Public}}}
		})
		_, err := alice.With(w.Ctx(), "bob", "")
		const sentence = "the server gave a KeyPackage for bob that no device of theirs made"
		if !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: answered with %v", what, err)
			continue
		}
		answered(t, err, chat.Tampered, sentence)
		if e := kept(t, alice, sentence); len(e.Data) == 0 {
			t.Errorf("%s: the evidence is empty", what)
		}
	}
}
