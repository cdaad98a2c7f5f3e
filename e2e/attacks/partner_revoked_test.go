package attacks

import (
	"context"
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/mimi"
	"letterlock/mls"
)

// inboxCalls are all calls of the Inbox API that need a token, as one who has the loot makes them.
func inboxCalls(a *app, l *world.Loot) map[string]func(context.Context) error {
	in := l.Inbox()
	post, tb := a.post(l, "let me in", nil), a.takeBack(l, chat.MessageID{1}, nil)
	return map[string]func(context.Context) error{
		"grant": func(ctx context.Context) error { _, err := in.Grant(ctx); return err },
		"slot":  func(ctx context.Context) error { _, err := in.Slot(ctx); return err },
		"post": func(ctx context.Context) error {
			_, err := in.Post(ctx, api.InboxPost{Post: post, IdempotencyKey: "k"})
			return err
		},
		"take-back": func(ctx context.Context) error {
			_, err := in.TakeBack(ctx, api.InboxTakeBack{TakeBack: tb, IdempotencyKey: "k"})
			return err
		},
		"welcome": func(ctx context.Context) error { _, err := in.Welcome(ctx); return err },
		"changes": func(ctx context.Context) error { _, err := in.Changes(ctx, "", 10); return err },
		"link": func(ctx context.Context) error {
			_, err := in.Link(ctx, api.InboxLink{Base: "https://flimmer.example/w/"})
			return err
		},
		"figures": func(ctx context.Context) error { return in.PutFigures(ctx, api.InboxFigures{Figures: []api.Figure{}}) },
	}
}

// TestRevokedAgentIsRefused: the whole folder of the agent was copied while the grant was live. Afterwards neither the tokens in it, nor new
// ones by its refresh token, nor an agent that runs on the copy get anything.
func TestRevokedAgentIsRefused(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	says(a.w, a.bob, a.thread, "before")
	a.reads()
	loot, backup := a.flimmer.Loots(a.grant), a.flimmer.Copy()
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	for name, call := range inboxCalls(a, loot) {
		if err := call(a.w.Ctx()); !chat.Is(err, chat.Unauthenticated) || !strings.Contains(err.Error(), "this access token is unknown or over") {
			t.Errorf("%s was answered with %v", name, err)
		}
	}
	if _, err := loot.Refreshed(); err == nil || !strings.Contains(err.Error(), "invalid_grant") {
		t.Errorf("the refresh token was answered with %v", err)
	}
	_, err := backup.Changes(a.w.Ctx(), a.grant, "", 10)
	answered(t, err, chat.Gone, "this grant is over")
}

// TestRevokedAgentOpensNothing: the server is on the agent's side and hands it every ciphertext. With all that the agent ever held, its
// group above all, it opens none of what was sent after the revocation: not messages, not posts under another person's grant.
func TestRevokedAgentOpensNothing(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	first := a.flimmer.Loots(a.grant)
	fresh := first.Join() // with the KeyPackage that it used, and the Welcome that it got
	says(a.w, a.bob, a.thread, "before")
	if got := a.reads(); got != "bob: before" {
		t.Fatalf("the agent reads %q", got)
	}
	group := a.flimmer.Loots(a.grant).Reads() // as its folder had it last
	says(a.w, a.bob, a.thread, "the last word")
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	a.w.Must(a.bob.Sync(a.w.Ctx()))
	revoked := register(t, a.alice, a.thread).LastSeq
	says(a.w, a.bob, a.thread, "after, by bob")
	says(a.w, a.alice, a.thread, "after, by alice")
	bobs := a.flimmer.Gets(a.bob, "alice", chat.Send)
	_, err := a.flimmer.Send(a.w.Ctx(), bobs, agent.Letter{Text: "after, by the same app for bob"})
	a.w.Must(err)
	says(a.w, a.bob, a.thread, "after all that")

	log := honestLog(t, a.alice, a.thread)
	later := log[revoked:]
	if kinds(later, api.KindMessage) != 3 || kinds(later, api.KindPost) != 1 {
		t.Fatal("the log does not hold what this test is about")
	}
	bobKey := a.flimmer.Loots(bobs).Key.Public().(ed25519.PublicKey)
	for how, g := range map[string]*mls.Group{"from its first day": fresh, "from its last": group} {
		last, opened, removed := follows(t, g, first.Key, log)
		if !removed || len(opened) == 0 || opened[len(opened)-1] != "the last word" {
			t.Fatalf("%s, the agent opens %q", how, opened)
		}
		opensNothing(t, last, later, bobKey)
	}
	kp, err := mls.UnmarshalKeyPackage(first.KeyPackage)
	a.w.Must(err)
	for _, e := range log {
		if _, err := mls.Join(e.Body, kp, mls.JoinOptions{Signer: first.Key}); err == nil {
			t.Fatal("the agent joined again")
		}
	}
}

// TestRevocationTakesTheLeaf: a modified client of Alice's ends the grant in words and leaves the agent its key. Neither the server nor Bob
// takes that for a commit.
func TestRevocationTakesTheLeaf(t *testing.T) {
	a := flimmer(t, chat.Send|chat.Read)
	mallory := steal(t, a.alice)
	g := mallory.group(a.thread)
	thread := threadOf(t, g).Without(a.grant)
	x := withThread(g, thread)
	p, err := g.Commit(mls.CommitOptions{Extensions: &x})
	a.w.Must(err)
	_, err = mallory.calls.Commit(a.w.Ctx(), a.thread, api.Commit{Commit: p.Commit, Slot: announcement(t, a.thread, p.Next().Epoch(), slotKey(t), mallory.key), DedupKey: newDedupKey()})
	answered(t, err, chat.Forbidden, "an agent is in the conversation without a grant to read it")
	injects(a.bob, next(t, a.bob, a.thread, 1, api.KindCommit, p.Commit))
	if err := a.bob.Sync(a.w.Ctx()); err == nil {
		t.Fatal("Bob took the commit")
	}
	stopped(t, a.w, a.bob, a.thread, "an agent is in the conversation without a grant to read it")
}

// TestRevokedAgentCannotPost: no later post is taken, by the server or, where the server is on the agent's side, by a member. The slot's
// public key is no secret.
func TestRevokedAgentCannotPost(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	loot := a.flimmer.Loots(a.grant)
	old := a.post(loot, "sealed before", nil)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	a.w.Must(a.bob.Sync(a.w.Ctx()))
	_, err := loot.Inbox().Post(a.w.Ctx(), api.InboxPost{Post: a.post(loot, "sealed after", nil), IdempotencyKey: "k"})
	answered(t, err, chat.Unauthenticated, "this access token is unknown or over")
	const refused = "! A message of a partner app was refused: nobody in this thread has allowed it."
	a.shows(a.bob, api.KindPost, old, a.post(loot, "sealed after", nil))
	shows(t, a.bob, a.thread, refused, refused)
	kept(t, a.bob, "nobody in this thread has allowed it")
	takeBack := a.takeBack(loot, chat.MessageID{1}, nil)
	injects(a.alice, next(t, a.alice, a.thread, 1, api.KindTakeBack, takeBack))
	w := a.w
	w.Must(a.alice.Sync(w.Ctx()))
	kept(t, a.alice, "A partner app tried to delete a message; this was refused: nobody in this thread has allowed it.")
}

// TestNarrowedAgentCannotPost: the grant stands, and its key, but no longer for sending.
func TestNarrowedAgentCannotPost(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	loot := a.flimmer.Loots(a.grant)
	group := loot.Join()
	a.w.Must(a.alice.Narrow(a.w.Ctx(), a.grant, chat.Delete))
	a.w.Must(a.bob.Sync(a.w.Ctx()))
	_, err := loot.Inbox().Post(a.w.Ctx(), api.InboxPost{Post: a.post(loot, "one more", nil), IdempotencyKey: "k"})
	answered(t, err, chat.Forbidden, "alice has not allowed send in this thread")
	_, err = loot.Inbox().Changes(a.w.Ctx(), "", 10)
	answered(t, err, chat.Forbidden, "alice has not allowed read in this thread")
	_, err = loot.Inbox().Welcome(a.w.Ctx())
	answered(t, err, chat.Forbidden, "alice has not allowed read in this thread")
	a.shows(a.bob, api.KindPost, a.post(loot, "one more", nil))
	shows(t, a.bob, a.thread, "! A message of a partner app was refused: nobody in this thread has allowed it.")
	a.bob.Wrap = nil
	says(a.w, a.alice, a.thread, "among ourselves")
	log := honestLog(t, a.alice, a.thread)
	if last, opened, removed := follows(t, group, loot.Key, log); !removed || len(opened) > 0 {
		t.Fatalf("the agent opens %q", opened)
	} else {
		opensNothing(t, last, log)
	}
}

// oldLog shows a log that ends before an entry, and takes messages as if nothing had come after it.
type oldLog struct {
	world.Calls
	last  uint64
	taken *[][]byte // nil: messages go to the honest server
}

func (l oldLog) Log(ctx context.Context, c chat.ConversationID, after uint64, limit, wait int) (api.Page, error) {
	p, err := l.Calls.Log(ctx, c, after, limit, wait)
	for len(p.Entries) > 0 && p.Entries[len(p.Entries)-1].Seq > l.last {
		p.Entries = p.Entries[:len(p.Entries)-1]
	}
	return p, err
}

func (l oldLog) SendMessage(ctx context.Context, c chat.ConversationID, m api.Message) (api.Accepted, error) {
	if l.taken == nil {
		return l.Calls.SendMessage(ctx, c, m)
	}
	*l.taken = append(*l.taken, m.Message)
	return api.Accepted{Seq: l.last + uint64(len(*l.taken)), At: time.Now().UnixMilli()}, nil
}

// TestServerHidesTheRevocation: Alice revoked; the commit is withheld from Bob and from the agent. As long as messages go where members read
// them, nothing of Bob's is sent, since the thread is in another epoch. A server that takes Bob's word in the old epoch all the same can
// hand it to the agent, and to nobody who has seen the commit: Alice's client tells her.
func TestServerHidesTheRevocation(t *testing.T) {
	a := flimmer(t, chat.Send|chat.Read)
	says(a.w, a.bob, a.thread, "before")
	a.reads()
	loot := a.flimmer.Loots(a.grant)
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	last := register(t, a.alice, a.thread).LastSeq
	old := a.post(loot, "of the old epoch", nil)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))

	lies(a.bob, func(s world.Calls) device.Server { return oldLog{Calls: s, last: last} })
	sent, err := a.bob.Send(a.w.Ctx(), a.thread, mimi.Text("does Flimmer read this?"))
	answered(t, err, chat.Unavailable, "the conversation is too busy")
	a.w.Must(a.bob.Withdraw(a.thread, sent.ID))
	if log := honestLog(t, a.alice, a.thread); kinds(log, api.KindMessage) != 1 {
		t.Fatal("Bob's message was sent in the old epoch")
	}

	var taken [][]byte
	lies(a.bob, func(s world.Calls) device.Server { return oldLog{Calls: s, last: last, taken: &taken} })
	_, err = a.bob.Send(a.w.Ctx(), a.thread, mimi.Text("does Flimmer read this?"))
	a.w.Must(err)
	if len(taken) != 1 {
		t.Fatal("nothing left Bob's device")
	}
	entry := next(t, a.alice, a.thread, 1, api.KindMessage, taken[0])
	injects(a.alice, entry)
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	shows(t, a.alice, a.thread, "bob: before", "! A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown.")
	// Told honestly of its epoch, it is refused for that.
	entry.Epoch--
	entry.Seq++
	injects(a.alice, entry)
	if err := a.alice.Sync(a.w.Ctx()); err == nil {
		t.Fatal("Alice took a message of an epoch that is over")
	}
	stopped(t, a.w, a.alice, a.thread, "it is of epoch")
	a.bob.Wrap = nil
	a.w.Must(a.bob.Sync(a.w.Ctx()))
	a.shows(a.bob, api.KindPost, old) // what the agent sealed in its old epoch is nothing in the new one
	kept(t, a.bob, "A message of a partner app was refused")
}
