package attacks

import (
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/slot"
)

// shared is Alice and Bob with a thread for Flimmer, and a commit of Alice's that Bob has not seen.
func shared(t *testing.T) (w *world.World, alice, bob *world.Person, id chat.ConversationID) {
	t.Helper()
	w = world.New(t)
	alice, bob = w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	id = meet(w, alice, bob, "flimmer")
	w.Recover("alice", alice.Phrase, "phone")
	w.Must(alice.Sync(w.Ctx())) // adds the phone
	return w, alice, bob, id
}

// slotKey is a slot of the liar's own.
func slotKey(t *testing.T) slot.PublicKey {
	t.Helper()
	secret := chat.NewToken()
	_, public, err := slot.Derive(secret[:])
	if err != nil {
		t.Fatal(err)
	}
	return public
}

const otherSlot = "The letter slot that was announced for this thread is not the thread's own."

// TestServerSubstitutesTheSlot: its own key, announced by itself, by nobody, and with the help of the very device that committed.
func TestServerSubstitutesTheSlot(t *testing.T) {
	for what, announce := range map[string]func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte{
		"another signer": func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte {
			return announcement(t, id, 2, slotKey(t), newKey(t).Private())
		},
		"another key": func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte {
			return announcement(t, id, 2, slotKey(t), steal(t, alice).key)
		},
		"the right key, by another signer": func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte {
			return announcement(t, id, 2, slotOf(t, alice, id), newKey(t).Private())
		},
		"of another epoch": func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte {
			return announcement(t, id, 3, slotOf(t, alice, id), steal(t, alice).key)
		},
		"of another thread": func(t *testing.T, alice *world.Person, id chat.ConversationID) []byte {
			return announcement(t, chat.NewConversationID(), 2, slotOf(t, alice, id), steal(t, alice).key)
		},
		"none": func(*testing.T, *world.Person, chat.ConversationID) []byte { return nil },
	} {
		t.Run(what, func(t *testing.T) {
			w, alice, bob, id := shared(t)
			lie := announce(t, alice, id)
			showsLog(bob, func(list []api.Entry) []api.Entry {
				for i := range list {
					if list[i].Kind == api.KindCommit {
						list[i].Extra = lie
					}
				}
				return list
			})
			w.Must(bob.Sync(w.Ctx()))
			shows(t, bob, id, "! "+otherSlot+" Partner apps could be made to write to somebody else.")
			if e := kept(t, bob, otherSlot); string(e.Data) != string(lie) {
				t.Fatal("the announcement was not kept")
			}
		})
	}
}

// TestHonestSlotRaisesNoAlarm: the alarm of the test above is not always there.
func TestHonestSlotRaisesNoAlarm(t *testing.T) {
	w, _, bob, id := shared(t)
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id)
}

// TestMemberAnnouncesAnotherSlot: a member's own client announces a slot that only it can open; the server does not take the commit without
// a good signature, and cannot judge the key. The others can.
func TestMemberAnnouncesAnotherSlot(t *testing.T) {
	w, alice, bob, id := shared(t)
	w.Must(bob.Sync(w.Ctx()))
	mallory := steal(t, bob)
	p, err := mallory.group(id).Commit(mls.CommitOptions{})
	w.Must(err)
	commit := api.Commit{Commit: p.Commit, Slot: announcement(t, id, 3, slotKey(t), newKey(t).Private()), DedupKey: newDedupKey()}
	_, err = mallory.calls.Commit(w.Ctx(), id, commit)
	if err == nil {
		t.Fatal("the server took an announcement that the committer did not sign")
	}
	commit.Slot = announcement(t, id, 3, slotKey(t), mallory.key)
	_, err = mallory.calls.Commit(w.Ctx(), id, commit)
	w.Must(err)
	w.Must(alice.Sync(w.Ctx()))
	shows(t, alice, id, "! "+otherSlot+" Partner apps could be made to write to somebody else.")
	kept(t, alice, otherSlot)
	_, err = alice.Send(w.Ctx(), id, mimi.Text("Bob, update your client"))
	w.Must(err)
}

func announcement(t *testing.T, id chat.ConversationID, epoch uint64, key slot.PublicKey, signer []byte) []byte {
	t.Helper()
	a, err := slot.Announce(id, epoch, key, time.Now().UnixMilli(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// slotOf is the thread's own slot, as a member derives it.
func slotOf(t *testing.T, p *world.Person, id chat.ConversationID) slot.PublicKey {
	t.Helper()
	g := steal(t, p).group(id)
	secret, err := g.Export(slot.Label, g.Roster().ConfirmedTranscriptHash(), slot.Length)
	if err != nil {
		t.Fatal(err)
	}
	_, public, err := slot.Derive(secret)
	if err != nil {
		t.Fatal(err)
	}
	return public
}
