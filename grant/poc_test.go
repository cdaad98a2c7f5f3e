package grant_test

import (
	"crypto/rand"
	"testing"

	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
	"letterlock/mls/roster"
)

func TestPOC(t *testing.T) {
	w := newWorld(t)
	// public: the request in Alice's real chain
	request := must(keychain.Request(w.alicePhone.account, w.aliceLaptop.device, "laptop", deviceKey(w.aliceLaptop)))
	evil := must(keychain.NewDeviceKey(rand.Reader))
	c := chainOf(t, w.alicePhone, testHost, "alice", evil, [8]byte{0xee})
	c = must(c.Append(must(c.AddDevice(evil, request, testNow))))
	c = must(c.Append(must(c.RemoveDevice(evil, w.aliceLaptop.device, keychain.Lost, testNow))))
	g := proposed(t, w.bob, must(roster.ExternalRemove(w.bob.group.Roster(), w.operator, 0, w.leafOf(w.aliceLaptop), grant.GoneProof(c.Entries()))))
	_, err := w.judge(g, mls.CommitOptions{})
	t.Logf("forged chain judged: %v", err)
}
