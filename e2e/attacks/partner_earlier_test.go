package attacks

import (
	"crypto/ed25519"
	"fmt"
	"testing"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
)

// TestReaderAsksForEarlierMessages: Flimmer may read from today on. It asks for yesterday, by every state that it can make up.
func TestReaderAsksForEarlierMessages(t *testing.T) {
	a := flimmer(t, chat.Send|chat.Delete)
	_, err := a.flimmer.Send(a.w.Ctx(), a.grant, agent.Letter{Text: "of the app itself"})
	a.w.Must(err)
	says(a.w, a.bob, a.thread, "yesterday")
	a.widens(chat.AllActions)
	joined := register(t, a.bob, a.thread).LastSeq
	says(a.w, a.bob, a.thread, "today")
	l := a.flimmer.Loots(a.grant)
	in := l.Inbox()
	for _, since := range []string{"", "1.0.0.0", "1.1.0.0", fmt.Sprintf("1.%d.0.0", joined-1)} {
		c, err := in.Changes(a.w.Ctx(), since, 500)
		a.w.Must(err)
		if len(c.Entries) != 1 || c.Entries[0].Seq != joined+1 {
			t.Errorf("asked since %q, the server served %d entries from %d on", since, len(c.Entries), c.Entries[0].Seq)
		}
	}
	for _, since := range []string{"1.-1.0.0", "0.1.0.0", "1.1", " ", "1.01.0.0"} {
		_, err := in.Changes(a.w.Ctx(), since, 500)
		answered(t, err, chat.Invalid, "sinceState is not one that was given here")
	}
	_, err = in.Changes(a.w.Ctx(), "1.1000.0.0", 500)
	answered(t, err, chat.Invalid, "sinceState is ahead of the thread")
	if got := a.reads(); got != "bob: today" {
		t.Fatalf("the agent reads %q", got)
	}
}

// TestReaderOpensNothingEarlier: the server is on the agent's side and hands it the thread's whole log. What was said before the agent's
// leaf came does not open: neither messages, nor what the same app posted, nor what it posted for Bob.
func TestReaderOpensNothingEarlier(t *testing.T) {
	a := flimmer(t, chat.Send)
	bobs := a.flimmer.Gets(a.bob, "alice", chat.Send)
	_, err := a.flimmer.Send(a.w.Ctx(), bobs, agent.Letter{Text: "for bob"})
	a.w.Must(err)
	_, err = a.flimmer.Send(a.w.Ctx(), a.grant, agent.Letter{Text: "for alice"})
	a.w.Must(err)
	earlier := a.flimmer.Loots(a.grant)
	says(a.w, a.bob, a.thread, "yesterday")
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	a.widens(chat.AllActions)
	joined := register(t, a.bob, a.thread).LastSeq
	l, bobKey := a.flimmer.Loots(a.grant), a.flimmer.Loots(bobs).Key.Public().(ed25519.PublicKey)
	g := l.Join()
	says(a.w, a.bob, a.thread, "today")
	log := honestLog(t, a.bob, a.thread)
	before := log[:joined]
	if kinds(before, api.KindMessage) != 1 || kinds(before, api.KindPost) != 2 {
		t.Fatal("the log does not hold what this test is about")
	}
	opensNothing(t, g, before, bobKey, earlier.Key.Public().(ed25519.PublicKey))
	if _, opened, _ := follows(t, g, l.Key, log[joined:]); len(opened) != 1 || opened[0] != "today" {
		t.Fatalf("the agent opens %q: this test shows nothing", opened)
	}
}

// TestSendOnlyAgentOpensNothing: with all that a send-only agent holds, and all that a server holds, nothing opens: it has no group, and the
// slot's public key is no secret. Not even its own posts open again.
func TestSendOnlyAgentOpensNothing(t *testing.T) {
	a := flimmer(t, chat.Send|chat.Delete)
	says(a.w, a.bob, a.thread, "not for apps")
	l := a.flimmer.Loots(a.grant)
	if len(l.Group) != 0 || len(l.KeyPackage) != 0 {
		t.Fatal("the agent holds a group or a KeyPackage")
	}
	answered(t, errOf(l.Inbox().Welcome(a.w.Ctx())), chat.Forbidden, "alice has not allowed read in this thread")
	_, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10)
	answered(t, err, chat.Forbidden, "alice has not allowed read in this thread")
	// Narrowed at consent, what was prepared for reading is of no use: no leaf was made for it.
	q := a.flimmer.Asks(agent.Ask{Actions: chat.AllActions, Previous: a.grant})
	_, err = a.flimmer.Redeem(a.w.Ctx(), a.flimmer.Consent(a.alice, q, device.Answer{Actions: chat.Send}))
	a.w.Must(err)
	l = a.flimmer.Loots(q.ID)
	answered(t, errOf(l.Inbox().Welcome(a.w.Ctx())), chat.Forbidden, "alice has not allowed read in this thread")
	if o := overview(t, a.alice, a.thread); len(o.Readers) != 0 {
		t.Fatalf("readers: %v", o.Readers)
	}
	for _, m := range steal(t, a.alice).group(a.thread).Roster().Members() {
		if id, err := chat.ParseIdentity(m.Identity); err != nil || id.IsAgent() {
			t.Fatalf("%s has a leaf", m.Identity)
		}
	}
	if len(l.Group) != 0 || len(l.KeyPackage) != 0 {
		t.Fatal("the agent kept what it prepared for reading")
	}
}

func errOf[T any](_ T, err error) error { return err }
