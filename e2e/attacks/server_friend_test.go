package attacks

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
)

// TestFriendEditsOrDeletesAnothersMessage: Bob's client says that Alice's message now reads otherwise, and then that it is gone.
func TestFriendEditsOrDeletesAnothersMessage(t *testing.T) {
	w, alice, bob, id := friends(t)
	first := says(w, alice, id, "I owe you nothing")
	w.Must(bob.Sync(w.Ctx()))
	for _, c := range []mimi.Content{mimi.Edit(first, "I owe you 100"), mimi.Delete(first)} {
		_, err := bob.Send(w.Ctx(), id, c)
		w.Must(err)
	}
	w.Must(alice.Sync(w.Ctx()))
	shows(t, alice, id, "alice: I owe you nothing")
	shows(t, bob, id, "alice: I owe you nothing")
	// Nor does the server replace the ciphertext for him.
	answered(t, steal(t, bob).calls.DeleteMessage(w.Ctx(), id, 2), chat.Forbidden, "who sent")
	_, err := bob.DeleteMessage(w.Ctx(), id, first)
	answered(t, err, chat.Forbidden, "only who wrote a message may delete it")
}

// TestFriendNamesAnotherSender: the content says that Carol wrote it.
func TestFriendNamesAnotherSender(t *testing.T) {
	w, alice, bob, id := friends(t)
	c := mimi.Text("Bob is right")
	c.Extensions = map[any]cbor.RawMessage{mimi.ExtensionSender: canon.MustMarshal(chat.AccountURI(bob.Self().Host, "carol"))}
	w.Must(steal(t, bob).sends(w.Ctx(), id, seals(t, steal(t, bob).group(id), c)))
	w.Must(alice.Sync(w.Ctx()))
	got := shown(t, alice, id)
	if !strings.HasPrefix(got, "! bob sent something that cannot be shown") || strings.Contains(got, "Bob is right") {
		t.Fatalf("Alice sees %q", got)
	}
}

// TestFriendSendsGarbage: noise for a ciphertext, noise for a content, a content above every limit, and one that is too large to be sent.
// The conversation goes on each time.
func TestFriendSendsGarbage(t *testing.T) {
	w, alice, bob, id := friends(t)
	mallory := steal(t, bob)
	g := mallory.group(id)
	sealed := func(plaintext []byte) []byte {
		m, _, err := g.Seal(plaintext, nil)
		w.Must(err)
		return m
	}
	noise := sealed([]byte("x"))
	noise[len(noise)-1] ^= 1
	w.Must(mallory.sends(w.Ctx(), id, noise))
	w.Must(mallory.sends(w.Ctx(), id, sealed([]byte("\xff\x00garbage"))))
	w.Must(mallory.sends(w.Ctx(), id, sealed(bytes.Repeat([]byte{0x81}, mimi.MaxContent-1))))
	w.Must(mallory.sends(w.Ctx(), id, sealed(bytes.Repeat([]byte{0}, mimi.MaxContent+1))))
	answered(t, mallory.sends(w.Ctx(), id, sealed(bytes.Repeat([]byte{0}, mls.MaxPlaintext))), chat.TooLarge, "larger than")
	w.Must(alice.Sync(w.Ctx()))
	says(w, alice, id, "are you well?")
	got := strings.Split(shown(t, alice, id), " | ")
	if len(got) != 5 || got[0] != "! A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown." || got[4] != "alice: are you well?" {
		t.Fatalf("Alice sees %q", got)
	}
	for _, line := range got[1:4] {
		if !strings.HasPrefix(line, "! bob sent something that cannot be shown (") {
			t.Errorf("Alice sees %q", line)
		}
	}
}

// commits makes a commit as a device, tries it on the honest server, and shows it to a victim by a server that looks away.
func commits(t *testing.T, w *world.World, mallory *stolen, victim *world.Person, id chat.ConversationID, o mls.CommitOptions) (refused, taken error) {
	t.Helper()
	o.Now = time.Now()
	p, err := mallory.group(id).Commit(o)
	w.Must(err)
	_, refused = mallory.calls.Commit(w.Ctx(), id, api.Commit{Commit: p.Commit, Welcome: p.Welcome, DedupKey: newDedupKey()})
	injects(victim, next(t, victim, id, 1, api.KindCommit, p.Commit))
	return refused, victim.Sync(w.Ctx())
}

// TestFriendChangesWhatTheConversationIs: a private conversation shall become one for a partner, or somebody else's.
func TestFriendChangesWhatTheConversationIs(t *testing.T) {
	for what, thread := range map[string]func(host string) grant.Thread{
		"for a partner":   func(host string) grant.Thread { return grant.NewThread(host, "flimmer") },
		"of another host": func(string) grant.Thread { return grant.NewThread("elsewhere.example", "") },
	} {
		t.Run(what, func(t *testing.T) {
			w, alice, bob, id := friends(t)
			mallory := steal(t, bob)
			x := replaced(mallory.group(id).Roster().Extensions(), roster.Extension{Type: grant.ExtensionType, Data: thread(bob.Self().Host).Marshal()})
			refused, taken := commits(t, w, mallory, alice, id, mls.CommitOptions{Extensions: &x})
			const sentence = "what a conversation is, and for which partner, never changes"
			answered(t, refused, chat.Forbidden, sentence)
			answered(t, taken, chat.Tampered, sentence)
			stopped(t, w, alice, id, sentence)
		})
	}
}

// TestFriendChangesTheExternalSender: so that somebody else could propose removals, or the server none.
func TestFriendChangesTheExternalSender(t *testing.T) {
	w, alice, bob, id := friends(t)
	mallory := steal(t, bob)
	x := replaced(mallory.group(id).Roster().Extensions(), roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: newKey(t).Public(),
		Credential: roster.BasicCredential([]byte("mimi://" + bob.Self().Host))}))
	refused, taken := commits(t, w, mallory, alice, id, mls.CommitOptions{Extensions: &x})
	answered(t, refused, chat.Invalid, "external sender")
	answered(t, taken, chat.Tampered, "the conversation's external sender must be this server alone")
}

func replaced(x roster.Extensions, with roster.Extension) roster.Extensions {
	x = slices.Clone(x)
	for i := range x {
		if x[i].Type == with.Type {
			x[i] = with
		}
	}
	return x
}

// TestFriendAddsAnAgentToAPrivateConversation: a leaf that looks like a partner's.
func TestFriendAddsAnAgentToAPrivateConversation(t *testing.T) {
	w, alice, bob, id := friends(t)
	kp := keyPackageOf(t, chat.AgentURI(bob.Self().Host, "flimmer", chat.NewGrantID()), newKey(t))
	refused, taken := commits(t, w, steal(t, bob), alice, id, mls.CommitOptions{Add: [][]byte{kp.Public}})
	const sentence = "an agent is in the conversation without a grant to read it"
	answered(t, refused, chat.Forbidden, sentence)
	answered(t, taken, chat.Tampered, sentence)
	stopped(t, w, alice, id, sentence)
}

// TestServerAddsALeafWithAMembersHelp: Bob adds a device that is in nobody's key chain; the server lets it pass.
func TestServerAddsALeafWithAMembersHelp(t *testing.T) {
	w, alice, bob, id := friends(t)
	kp := keyPackageOf(t, chat.DeviceURI(bob.Self().Host, "bob", chat.NewDeviceID()), newKey(t))
	refused, _ := commits(t, w, steal(t, bob), alice, id, mls.CommitOptions{Add: [][]byte{kp.Public}})
	if refused == nil {
		t.Fatal("the honest server took a leaf that is in no key chain")
	}
	const sentence = "a device that bob never added is in the conversation"
	if o := overview(t, alice, id); o.Problem != sentence {
		t.Fatalf("the conversation's problem: %q", o.Problem)
	}
	_, err := alice.Send(w.Ctx(), id, mimi.Text("are we alone?"))
	answered(t, err, chat.Tampered, "nothing is sent here until this is cleared up: "+sentence)
	for _, e := range honestLog(t, bob, id) {
		if e.Kind == api.KindMessage {
			t.Fatal("Alice's message left her device")
		}
	}
}

// TestFriendAddsASecondMemberOfOneIdentity: two leaves of one device cannot be told apart, so there are none. His own code refuses, as
// everybody else's does with the same function.
func TestFriendAddsASecondMemberOfOneIdentity(t *testing.T) {
	_, alice, bob, id := friends(t)
	kp := keyPackageOf(t, chat.DeviceURI(alice.Self().Host, "alice", alice.Self().Device), newKey(t))
	_, err := steal(t, bob).group(id).Commit(mls.CommitOptions{Add: [][]byte{kp.Public}, Now: time.Now()})
	if err == nil || !strings.Contains(err.Error(), "identity") {
		t.Fatalf("answered with %v", err)
	}
}

// TestFriendBreaksTheConversation: a commit that the server cannot tell from a good one and no device accepts. The conversation stops with
// a sentence, and a new one can be had at once.
func TestFriendBreaksTheConversation(t *testing.T) {
	w, alice, bob, id := friends(t)
	mallory := steal(t, bob)
	p, err := mallory.group(id).Commit(mls.CommitOptions{})
	w.Must(err)
	p.Commit[len(p.Commit)-1] ^= 1 // of the membership tag
	_, err = mallory.calls.Commit(w.Ctx(), id, api.Commit{Commit: p.Commit, DedupKey: newDedupKey()})
	w.Must(err)
	answered(t, alice.Sync(w.Ctx()), chat.Tampered, "entry 2 of the conversation is not valid")
	stopped(t, w, alice, id, "entry 2 of the conversation is not valid")
	again, err := alice.With(w.Ctx(), "bob", "")
	w.Must(err)
	if again == id {
		t.Fatal("the broken conversation was taken up again")
	}
	says(w, alice, again, "once more")
	bob.Sync(w.Ctx()) // his old conversation is broken as well
	shows(t, bob, again, "alice: once more")
}
