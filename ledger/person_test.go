package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
)

// person is Alice, with what she and Flimmer signed.
type person struct {
	account   chat.AccountID
	chain     [][]byte
	agreement []byte
	grant     []byte
}

func newPerson(t *testing.T, b *bench) person {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := person{account: chat.NewAccountID()}
	phone, err := keychain.NewDeviceKey(rand.Reader)
	must(err)
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	must(err)
	id := chat.NewDeviceID()
	entry, err := keychain.Create(keychain.Creation{Account: p.account, Host: b.keys.Host(), Handle: "alice", Device: id, Name: "phone", At: b.clock}, phone, recovery)
	must(err)
	p.chain = [][]byte{entry}
	_, root, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	a := grant.Agreement{Number: 1, Host: b.keys.Host(), Partner: "flimmer", Name: "Flimmer", Actions: chat.AllActions, PostsPerMinute: 60,
		NotBefore: b.ms() - 1, NotAfter: b.ms() + 1e9}
	offer, err := a.Offer(root)
	must(err)
	p.agreement, err = grant.Countersign(offer, b.keys.Server)
	must(err)
	g := grant.Grant{ID: chat.GrantID{2}, Account: p.account, Handle: "alice", Partner: "flimmer", Agreement: grant.AgreementHash(p.agreement),
		Actions: chat.Send, Conversation: chat.ConversationID{1}, SlotSigners: [][32]byte{[32]byte(phone.Public())},
		Issued: b.ms(), Expiry: b.ms() + 1e8, Device: id}
	p.grant, err = g.Sign(phone.Private())
	must(err)
	return p
}
