package grant_test

import (
	"crypto/rand"
	"crypto/sha256"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// chainOf is a key chain for a member's account, whose first device and recovery key its maker holds.
func chainOf(t *testing.T, m *member, host, handle string, first keychain.DeviceKey, id chat.DeviceID) *keychain.Chain {
	t.Helper()
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	entry := must(keychain.Create(keychain.Creation{Account: m.account, Host: host, Handle: handle, Device: id, Name: "first", At: testNow}, first, recovery))
	return must(keychain.Open([][]byte{entry}))
}

func deviceKey(m *member) keychain.DeviceKey { return must(keychain.DeviceKeyFromSeed(m.key.Seed())) }

// TestADeviceThatLeftItsKeyChain: rule 9, second half.
func TestADeviceThatLeftItsKeyChain(t *testing.T) {
	w := newWorld(t)
	phone, laptop := w.alicePhone, w.aliceLaptop
	// chain is Alice's: her phone first, her laptop added, perhaps removed.
	chain := func(host, handle string, id chat.DeviceID, key keychain.DeviceKey, remove bool) [][]byte {
		c := chainOf(t, phone, host, handle, deviceKey(phone), phone.device)
		c = must(c.Append(must(c.AddDevice(deviceKey(phone), must(c.Request(id, "laptop", key)), testNow))))
		if remove {
			c = must(c.Append(must(c.RemoveDevice(deviceKey(phone), id, keychain.Lost, testNow))))
		}
		return c.Entries()
	}
	other := must(keychain.NewDeviceKey(rand.Reader))
	good := chain(testHost, "alice", laptop.device, deviceKey(laptop), true)
	for _, c := range []struct {
		name   string
		remove *member
		aad    []byte
		ok     bool
	}{
		{"removed", laptop, grant.GoneProof(good), true},
		{"nothing said", laptop, nil, false},
		{"no key chain", laptop, []byte("gone"), false},
		{"an empty key chain", laptop, grant.GoneProof(nil), false},
		{"still there", laptop, grant.GoneProof(chain(testHost, "alice", laptop.device, deviceKey(laptop), false)), false},
		{"the end is missing", laptop, grant.GoneProof(good[:2]), false},
		{"the beginning is missing", laptop, grant.GoneProof(good[1:]), false},
		{"another device was removed", phone, grant.GoneProof(good), false},
		{"another person's", w.bob, grant.GoneProof(good), false},
		{"another host's", laptop, grant.GoneProof(chain("other.example", "alice", laptop.device, deviceKey(laptop), true)), false},
		{"another handle's", laptop, grant.GoneProof(chain(testHost, "alicia", laptop.device, deviceKey(laptop), true)), false},
		{"another key", laptop, grant.GoneProof(chain(testHost, "alice", laptop.device, other, true)), false},
		{"another id", laptop, grant.GoneProof(chain(testHost, "alice", chat.DeviceID{9}, deviceKey(laptop), true)), false},
		{"above the limit", laptop, make([]byte, 512<<10+1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := proposed(t, w.bobOr(c.remove), must(roster.ExternalRemove(w.bob.group.Roster(), w.operator, 0, w.leafOf(c.remove), c.aad)))
			pending := g.Roster().Pending()
			err := grant.CheckProposal(g.Roster(), pending[0])
			_, judged := w.judge(g, mls.CommitOptions{})
			if c.ok {
				if err != nil || judged != nil {
					t.Errorf("%v; %v", err, judged)
				}
				return
			}
			refused(t, err, chat.Forbidden, "may not remove a person")
			refused(t, judged, chat.Forbidden, "may not remove a person")
		})
	}
}

// bobOr is Bob, or Alice's phone if it is Bob who would go: nobody commits its own removal.
func (w *world) bobOr(gone *member) *member {
	if gone == w.bob {
		return w.alicePhone
	}
	return w.bob
}

// TestAForgedKeyChain: a server makes a chain of its own, under Alice's account id and handle, copies into it the request by which her
// laptop joined her true chain, and signs the laptop's removal there. It holds none of Alice's keys. The request names the beginning of the
// chain that it was made for.
func TestAForgedKeyChain(t *testing.T) {
	w := newWorld(t)
	genuine := chainOf(t, w.alicePhone, testHost, "alice", deviceKey(w.alicePhone), w.alicePhone.device)
	request := must(genuine.Request(w.aliceLaptop.device, "laptop", deviceKey(w.aliceLaptop))) // stands in the true chain, for all to read
	server := must(keychain.NewDeviceKey(rand.Reader))
	forged := chainOf(t, w.alicePhone, testHost, "alice", server, chat.DeviceID{0xee}).Entries()
	const addDevice, removeDevice = 2, 3 // spec/keychain.md
	forged = append(forged, handMade(t, forged, w.alicePhone.account, server, addDevice, request))
	removal := must(canon.Marshal([]any{w.aliceLaptop.device[:], uint64(keychain.Lost)}))
	forged = append(forged, handMade(t, forged, w.alicePhone.account, server, removeDevice, removal))
	msg := must(roster.ExternalRemove(w.bob.group.Roster(), w.operator, 0, w.leafOf(w.aliceLaptop), grant.GoneProof(forged)))
	_, err := w.judge(proposed(t, w.bob, msg), mls.CommitOptions{})
	refused(t, err, chat.Forbidden, "may not remove a person")
}

// handMade is an entry after others, signed without asking whether it may stand there.
func handMade(t *testing.T, before [][]byte, account chat.AccountID, signer keychain.DeviceKey, kind uint64, payload []byte) []byte {
	t.Helper()
	prev := sha256.Sum256(before[len(before)-1])
	return must(canon.Seal(signer.Private(), "letterlock/keychain/v1", []any{
		uint64(1), account[:], uint64(len(before)), prev[:], kind, payload, testNow.UnixMilli(), []byte(signer.Public()),
	}))
}
