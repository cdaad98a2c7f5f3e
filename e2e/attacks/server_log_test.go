package attacks

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// TestServerLeavesOutAnEntry: one message in the middle is not delivered.
func TestServerLeavesOutAnEntry(t *testing.T) {
	w, alice, bob, id := friends(t)
	for _, text := range []string{"one", "two", "three"} {
		says(w, alice, id, text)
	}
	showsLog(bob, func(list []api.Entry) []api.Entry {
		return slices.DeleteFunc(list, func(e api.Entry) bool { return e.Seq == 3 })
	})
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server left out entry 3 of the conversation")
	shows(t, bob, id, "alice: one")
	stopped(t, w, bob, id, "the server left out entry 3 of the conversation")
}

// TestServerReordersTheLog: two entries change places.
func TestServerReordersTheLog(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "one")
	says(w, alice, id, "two")
	showsLog(bob, func(list []api.Entry) []api.Entry { slices.Reverse(list); return list })
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server left out entry 2 of the conversation")
	stopped(t, w, bob, id, "left out entry 2")
}

// TestServerMovesAMessageAcrossACommit: the message is numbered anew and shown after a commit that it was written before.
func TestServerMovesAMessageAcrossACommit(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "before")
	w.Recover("alice", alice.Phrase, "phone")
	w.Must(alice.Sync(w.Ctx())) // adds the phone: a commit
	list := honestLog(t, alice, id)
	message, commit := list[1], list[2]
	if message.Kind != api.KindMessage || commit.Kind != api.KindCommit {
		t.Fatalf("the log is not what the test expects: %v", list)
	}
	message.Seq, commit.Seq = 3, 2
	injects(bob, commit, message)
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server says that entry 3 is of epoch 1; it is of epoch 2")
	shows(t, bob, id)
	stopped(t, w, bob, id, "entry 3 is of epoch 1")
}

// TestServerDeliversWithAWrongEpoch: the register's word against the message's own.
func TestServerDeliversWithAWrongEpoch(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "one")
	showsLog(bob, func(list []api.Entry) []api.Entry {
		for i := range list {
			list[i].Epoch++
		}
		return list
	})
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server says that entry 2 is of epoch 2; it is of epoch 1")
	stopped(t, w, bob, id, "entry 2 is of epoch 2")
}

// TestServerDeliversAMessageTwice: once more under a new number, and once more under the old one.
func TestServerDeliversAMessageTwice(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "pay me 10")
	w.Must(bob.Sync(w.Ctx()))
	again := honestLog(t, bob, id)[1]
	again.Seq++
	injects(bob, again)
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id, "alice: pay me 10")
	kept(t, bob, "The server delivered a message a second time, as entry 3; it was ignored.")

	again.Seq--
	inventsLog(bob, id, func(uint64) []api.Entry { return []api.Entry{again} })
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server delivers entry 2 of the conversation again and again")
	shows(t, bob, id, "alice: pay me 10")
}

// TestServerDeliversAnotherConversationsEntry: as it is, and under this conversation's name.
func TestServerDeliversAnotherConversationsEntry(t *testing.T) {
	w, alice, bob, id := friends(t)
	other := meet(w, alice, bob, "flimmer")
	says(w, alice, other, "not for here")
	foreign := honestLog(t, bob, other)[1]
	if foreign.Seq != 2 || foreign.Epoch != 1 {
		t.Fatalf("the log is not what the test expects: %+v", foreign)
	}
	renamed := foreign
	renamed.Conversation = id
	injects(bob, renamed)
	bob.Sync(w.Ctx())
	shows(t, bob, id, "! A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown.")

	foreign.Seq = 3
	inventsLog(bob, id, after([]api.Entry{foreign}))
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "left out entry")
	stopped(t, w, bob, id, "left out entry 3")
}

// TestServerAltersAMessage: a flipped bit is not shown as anything, and the conversation goes on.
func TestServerAltersAMessage(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "one")
	says(w, alice, id, "two")
	showsLog(bob, func(list []api.Entry) []api.Entry {
		for i := range list {
			if list[i].Seq == 2 {
				list[i].Body = bytes.Clone(list[i].Body)
				list[i].Body[len(list[i].Body)-1] ^= 1
			}
		}
		return list
	})
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id, "! A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown.", "alice: two")
	if e := kept(t, bob, "A message cannot be opened"); len(e.Data) == 0 {
		t.Fatal("the altered message was not kept")
	}
}

// TestServerReplacesACommit: Alice is shown another commit than the one that the others got. A server can do so only together with a member;
// what it gets is a fork in which nobody's messages open, and whose epoch authenticators differ.
func TestServerReplacesACommit(t *testing.T) {
	w, alice, bob, id := friends(t)
	phone := w.Recover("bob", bob.Phrase, "phone")
	w.Must(alice.Sync(w.Ctx()))
	w.Must(phone.Sync(w.Ctx()))
	w.Must(bob.Sync(w.Ctx()))
	mallory := steal(t, phone)
	shown, err := mallory.group(id).Commit(mls.CommitOptions{})
	w.Must(err)
	injects(alice, next(t, alice, id, 1, api.KindCommit, shown.Commit))
	alice.Sync(w.Ctx())
	if o := overview(t, alice, id); o.Epoch != 3 || o.Problem != "" {
		t.Fatalf("Alice is in epoch %d: %s", o.Epoch, o.Problem)
	}

	real, err := mallory.group(id).Commit(mls.CommitOptions{})
	w.Must(err)
	_, err = mallory.calls.Commit(w.Ctx(), id, api.Commit{Commit: real.Commit, DedupKey: newDedupKey()})
	w.Must(err)
	says(w, bob, id, "which of us is right?")
	alice.Wrap = nil
	w.Must(alice.Sync(w.Ctx()))
	shows(t, alice, id, "! A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown.")
	if bytes.Equal(overview(t, alice, id).Authenticator, overview(t, bob, id).Authenticator) {
		t.Fatal("the fork does not show in the epoch authenticator")
	}
}

// TestServerAltersACommit: what does not verify to the last tag stops the conversation.
func TestServerAltersACommit(t *testing.T) {
	w, alice, bob, id := friends(t)
	p, err := steal(t, bob).group(id).Commit(mls.CommitOptions{})
	w.Must(err)
	p.Commit[len(p.Commit)-1] ^= 1
	injects(alice, next(t, alice, id, 1, api.KindCommit, p.Commit))
	answered(t, alice.Sync(w.Ctx()), chat.Tampered, "entry 2 of the conversation is not valid")
	stopped(t, w, alice, id, "entry 2 of the conversation is not valid")
	if e := kept(t, alice, "entry 2 of the conversation is not valid"); !bytes.Equal(e.Data, p.Commit) {
		t.Fatal("the commit was not kept")
	}
}

// TestServerPassesAMessageOffAsACommit: the kind is the server's word, the content is not.
func TestServerPassesAMessageOffAsACommit(t *testing.T) {
	w, alice, bob, id := friends(t)
	m := seals(t, steal(t, bob).group(id), mimi.Text("hello"))
	injects(alice, next(t, alice, id, 1, api.KindCommit, m))
	answered(t, alice.Sync(w.Ctx()), chat.Tampered, "the server passes something else off as a commit")
}

// TestServerRemovesAPerson: the external sender's Remove, real and signed with the server's key, against Bob's device.
func TestServerRemovesAPerson(t *testing.T) {
	w, alice, bob, id := friends(t)
	mallory := steal(t, bob)
	g := mallory.group(id)
	proposal, err := roster.ExternalRemove(g.Roster(), serverKeys(t, w).Server, 0, g.OwnLeaf(), nil)
	w.Must(err)
	injected := next(t, alice, id, 1, api.KindProposal, proposal)
	injects(alice, injected)
	w.Must(alice.Sync(w.Ctx()))
	const sentence = "Somebody tried to change who is in this conversation, and was refused: the server may not remove a person."
	shows(t, alice, id, "! "+sentence)
	kept(t, alice, sentence)
	if o := overview(t, alice, id); o.Epoch != 1 || !slices.Equal(o.People, []string{"bob"}) {
		t.Fatalf("Alice carried it out: %+v", o)
	}

	// A member who takes it up is refused as well: Carol would, on the server's side.
	carried, _, err := commitOf(t, alice, id, proposal)
	w.Must(err)
	commit := injected
	commit.Seq, commit.Kind, commit.Body = injected.Seq+1, api.KindCommit, carried
	injects(bob, injected, commit)
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "entry 3 of the conversation is not valid")
}

// commitOf makes a person's device commit a proposal, whatever its client thinks of it.
func commitOf(t *testing.T, p *world.Person, id chat.ConversationID, proposal []byte) (commit, welcome []byte, err error) {
	t.Helper()
	done, err := steal(t, p).group(id).Process(proposal, noClock)
	if err != nil {
		return nil, nil, err
	}
	c, err := done.Group.Commit(mls.CommitOptions{})
	if err != nil {
		return nil, nil, err
	}
	return c.Commit, c.Welcome, nil
}

// TestServerInventsAKeyChainToRemoveADevice: the server proposes to remove Bob's phone, with a key chain of its own making in which the
// phone's old request to join stands, and then its removal.
func TestServerInventsAKeyChainToRemoveADevice(t *testing.T) {
	w, alice, bob, id := friends(t)
	phone := w.Recover("bob", bob.Phrase, "phone")
	w.Must(alice.Sync(w.Ctx()))
	w.Must(phone.Sync(w.Ctx()))
	proof := inventedChain(t, w, bob, phone)
	g := steal(t, alice).group(id)
	m, ok := g.Roster().MemberByIdentity([]byte(chat.DeviceURI(bob.Self().Host, "bob", phone.Self().Device)))
	if !ok {
		t.Fatal("the phone is not in the conversation")
	}
	proposal, err := roster.ExternalRemove(g.Roster(), serverKeys(t, w).Server, 0, m.Leaf, proof)
	w.Must(err)
	before := overview(t, alice, id).Epoch
	injects(alice, next(t, alice, id, 1, api.KindProposal, proposal))
	w.Must(alice.Sync(w.Ctx()))
	kept(t, alice, "Somebody tried to change who is in this conversation, and was refused: ")
	if o := overview(t, alice, id); o.Epoch != before {
		t.Fatalf("Alice removed the phone: epoch %d", o.Epoch)
	}
}

// inventedChain is a key chain of Bob's account id and handle under the server's own keys, around the phone's own request to join.
func inventedChain(t *testing.T, w *world.World, bob, phone *world.Person) []byte {
	t.Helper()
	own := newKey(t)
	_, k, err := keychain.NewRecovery(rand.Reader)
	w.Must(err)
	first, err := keychain.Create(keychain.Creation{Account: bob.Self().Account, Host: bob.Self().Host, Handle: "bob", Device: chat.NewDeviceID(),
		Name: "x", At: time.Now()}, own, k)
	w.Must(err)
	added := signEntry(t, bob.Self().Account, 1, sha256.Sum256(first), addDevice, payloadOf(t, chainOf(t, w, bob).Entries()[1]), own)
	removed := signEntry(t, bob.Self().Account, 2, sha256.Sum256(added), removeDevice, canon.MustMarshal([]any{phone.Self().Device, uint64(keychain.Lost)}), own)
	return grant.GoneProof([][]byte{first, added, removed})
}

// TestServerAddsALeafFromOutside: an external Add is not a thing that MLS gives the server here.
func TestServerAddsALeafFromOutside(t *testing.T) {
	w, alice, bob, id := friends(t)
	g := steal(t, bob).group(id)
	kp := keyPackageOf(t, chat.DeviceURI(bob.Self().Host, "bob", chat.NewDeviceID()), newKey(t))
	injects(alice, next(t, alice, id, 1, api.KindProposal, externalAdd(t, w, g, kp)))
	w.Must(alice.Sync(w.Ctx()))
	kept(t, alice, "Something was proposed for this conversation that cannot be read")
	if o := overview(t, alice, id); o.Epoch != 1 || o.Problem != "" {
		t.Fatalf("the conversation: %+v", o)
	}
}

// externalAdd is a well-formed external proposal to add, signed by the server.
func externalAdd(t *testing.T, w *world.World, g *mls.Group, kp *mls.KeyPackage) []byte {
	t.Helper()
	m, err := roster.DecodeMessage(kp.Public)
	w.Must(err)
	a := roster.AuthenticatedContent{WireFormat: roster.WirePublicMessage, Content: roster.Content{GroupID: g.ID(), Epoch: g.Epoch(),
		Sender: roster.Sender{Type: roster.SenderExternal}, Type: roster.ContentProposal,
		Proposal: &roster.Proposal{Type: roster.ProposalAdd, Add: m.KeyPackage}}}
	w.Must(a.Sign(g.Roster().Suite(), serverKeys(t, w).Server, g.Roster().Context()))
	return roster.Marshal(&roster.Message{WireFormat: roster.WirePublicMessage, Public: &roster.PublicMessage{AuthenticatedContent: a}})
}

// TestServerWithholdsAMessage: a tombstone without the sender's delete is shown as the server's doing; with it, as a delete.
func TestServerWithholdsAMessage(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "one")
	says(w, alice, id, "two")
	showsLog(bob, func(list []api.Entry) []api.Entry {
		for i := range list {
			if list[i].Seq == 2 {
				list[i].Body, list[i].Tombstone = sum(list[i].Body), true
			}
		}
		return list
	})
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id, "(withheld)", "alice: two")
	lines, err := bob.Lines(id)
	w.Must(err)
	if text := lines[len(lines)-2].Text; text != "A message was withheld by the server." {
		t.Fatalf("it says %q", text)
	}
	bob.Wrap = nil

	// The same tombstone with the sender's signed delete after it.
	carol := w.SignUp("carol")
	w.Befriend(alice, carol)
	other := meet(w, alice, carol, "")
	gone := says(w, alice, other, "mistake")
	_, err = alice.DeleteMessage(w.Ctx(), other, gone)
	w.Must(err)
	w.Must(carol.Sync(w.Ctx()))
	shows(t, carol, other, ": (deleted)")
}

// TestServerClaimsThatItsTimeWasOver: the server deletes a message and says that its sender wanted that. It is shown as the server's word. What a
// device has taken stays as long as its sender said, whatever the server says of it later.
func TestServerClaimsThatItsTimeWasOver(t *testing.T) {
	w, alice, bob, id := friends(t)
	says(w, alice, id, "one")
	w.Must(bob.Sync(w.Ctx()))
	says(w, alice, id, "two")
	showsLog(bob, func(list []api.Entry) []api.Entry {
		for i := range list {
			if list[i].Kind == api.KindMessage {
				list[i].Body, list[i].Tombstone, list[i].Expired = sum(list[i].Body), true, true
			}
		}
		return list
	})
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id, "alice: one", "(expired)")
	lines, err := bob.Lines(id)
	w.Must(err)
	const says = "A message was gone before this device fetched it. The server says that its time was over; it cannot prove that."
	if text := lines[len(lines)-1].Text; text != says {
		t.Fatalf("it says %q", text)
	}
}

// TestServerInventsAFriend: the server makes a conversation of its own in which it is "alice", and invites Bob.
func TestServerInventsAFriend(t *testing.T) {
	w, alice, bob, _ := friends(t)
	fake := newKey(t)
	forged, welcome := inventConversation(t, w, bob, chat.DeviceURI(alice.Self().Host, "alice", chat.NewDeviceID()), fake)
	room := chat.ConversationID(forged.ID())
	first := seals(t, forged, mimi.Text("send me the money"))
	lies(bob, mailboxLie(room, welcome, []api.Entry{{Conversation: room, Seq: 1, Kind: api.KindMessage, Epoch: 1, Body: first}}))
	bob.Sync(w.Ctx())
	shows(t, bob, room, "! Somebody wrote as alice with a device that alice never added. The message is not shown.")
	kept(t, bob, "with a device that alice never added")
	if o := overview(t, bob, room); o.Problem != "a device that alice never added is in the conversation" {
		t.Fatalf("the conversation's problem: %q", o.Problem)
	}
	_, err := bob.Send(w.Ctx(), room, mimi.Text("how much?"))
	answered(t, err, chat.Tampered, "nothing is sent here until this is cleared up")
}
