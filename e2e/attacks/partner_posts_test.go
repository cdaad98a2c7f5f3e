package attacks

import (
	"net/http"
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
	"letterlock/slot"
)

const refusedPost = "! A message of a partner app was refused: "

// sent lets Flimmer send a text and returns its message id and the post as the log has it.
func (a *app) sent(text string) (chat.MessageID, []byte) {
	a.t.Helper()
	s, err := a.flimmer.Send(a.w.Ctx(), a.grant, agent.Letter{Text: text})
	a.w.Must(err)
	a.w.Must(a.bob.Sync(a.w.Ctx()))
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	return s.ID, honestLog(a.t, a.bob, a.thread)[s.Seq-1].Body
}

// TestFriendForgesAPost: Bob is a member, so that he can derive the slot's private key; the server is his friend. What he writes as Alice's
// through Flimmer is neither taken by the honest server nor shown to Alice, nor read by the app: it lacks the agent's signature.
func TestFriendForgesAPost(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	says(a.w, a.bob, a.thread, "hello")
	a.reads()
	mallory := steal(t, a.bob)
	own := &world.Loot{Grant: a.grant, Key: mallory.key}
	forged := a.post(own, "I, Alice, owe Bob 100", nil)
	err := mallory.sends(a.w.Ctx(), a.thread, forged)
	answered(t, err, chat.Invalid, "")
	_, err = a.w.Inbox(mallory.calls.Session(), mallory.key).Post(a.w.Ctx(), api.InboxPost{Post: forged, IdempotencyKey: "k"})
	answered(t, err, chat.Unauthenticated, "this access token is unknown or over")

	real := honestLog(t, a.bob, a.thread) // what the app reads after it, were it shown
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	a.shows(a.alice, api.KindPost, forged)
	shows(t, a.alice, a.thread, "bob: hello", refusedPost+"the post is not signed with its grant's key.")
	kept(t, a.alice, "the post is not signed with its grant's key")
	last := real[len(real)-1]
	last.Seq, last.Kind, last.Body = last.Seq+1, api.KindPost, forged
	a.flimmer.Lie = func(r *http.Request) *http.Response {
		if r.URL.Path != "/inbox/v1/changes" {
			return nil
		}
		return world.Answer(r, http.StatusOK, api.InboxChanges{Entries: []api.Entry{last}, State: r.URL.Query().Get("sinceState")})
	}
	if got := a.reads(); got != "bob: hello" {
		t.Fatalf("the app reads %q", got)
	}
}

// TestPostAltered: every part of a real post, changed on its way. Nothing of it is shown.
func TestPostAltered(t *testing.T) {
	a := flimmer(t, chat.Send)
	l := a.flimmer.Loots(a.grant)
	post := a.post(l, "Metropolis", nil)
	var altered [][]byte
	for i := 0; i < len(post); i += 7 {
		p := append([]byte(nil), post...)
		p[i] ^= 1
		altered = append(altered, p)
	}
	a.shows(a.bob, api.KindPost, altered...)
	got := strings.Split(shown(t, a.bob, a.thread), " | ")
	if len(got) != len(altered) {
		t.Fatalf("%d of %d altered posts were refused", len(got), len(altered))
	}
	for i, line := range got {
		if !strings.HasPrefix(line, refusedPost) {
			t.Errorf("altered at byte %d, Bob sees %q", 7*i, line)
		}
	}
}

// TestPostMoved: a post, good where it was sent, is delivered again, later, in another epoch or another thread; and posts that the agent
// itself signed for elsewhere are delivered here.
func TestPostMoved(t *testing.T) {
	a := flimmer(t, chat.Send)
	_, first := a.sent("first")
	l := a.flimmer.Loots(a.grant)
	elsewhere := a.post(l, "for another thread", func(h *slot.Header) { h.Conversation = chat.NewConversationID() })
	host := a.post(l, "for another server", func(h *slot.Header) { h.Host = "evil.example" })
	other := a.post(l, "under a name that is not in its content", func(h *slot.Header) { h.Message[9] ^= 1 })
	a.flimmer.Gets(a.bob, "alice", chat.Send) // the next epoch
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	good := a.post(l, "good", nil)
	a.shows(a.bob, api.KindPost, first, elsewhere, host, other, good, good)
	const elsewhen = "it was written for another thread or another time."
	shows(t, a.bob, a.thread, "alice: first", refusedPost+elsewhen, refusedPost+elsewhen, refusedPost+elsewhen, refusedPost+elsewhen, "alice: good",
		refusedPost+"it was delivered before.")
}

// TestPostOfThisEpochMoved is TestPostMoved within one epoch, where the keys are the same: only what is bound into the post tells.
func TestPostOfThisEpochMoved(t *testing.T) {
	a := flimmer(t, chat.Send)
	bobs := a.flimmer.Loots(a.flimmer.Gets(a.bob, "alice", chat.Send))
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	l := a.flimmer.Loots(a.grant)
	_, first := a.sent("first")
	_, second := a.sent("second")
	underBobs := &world.Loot{Grant: bobs.Grant, Key: l.Key}
	a.shows(a.bob, api.KindPost, second, first,
		a.post(l, "x", func(h *slot.Header) { h.Conversation = chat.NewConversationID() }),
		a.post(l, "x", func(h *slot.Header) { h.Host = "evil.example" }),
		a.post(l, "x", func(h *slot.Header) { h.Epoch-- }),
		a.post(l, "x", func(h *slot.Header) { h.Epoch++ }),
		a.post(l, "x", func(h *slot.Header) { h.Message[9] ^= 1 }),
		a.post(l, "x", func(h *slot.Header) { h.Counter = 1 }),
		a.post(underBobs, "x", nil),
		a.postTo(slotKey(t), l, "x", nil),
		a.post(bobs, "for Bob", nil))
	const elsewhere, before = "it was written for another thread or another time.", "it was delivered before."
	shows(t, a.bob, a.thread, "alice: first", "alice: second", refusedPost+before, refusedPost+before, refusedPost+elsewhere, refusedPost+elsewhere,
		refusedPost+elsewhere, refusedPost+elsewhere, refusedPost+"its content is not what its envelope says.", refusedPost+before,
		refusedPost+"the post is not signed with its grant's key.", refusedPost+"the post is not sealed to this slot: cipher: message authentication failed.", "bob: for Bob")
}

// TestAgentBeyondItsAgreement: what the server refuses of a post that its agent signed.
func TestAgentBeyondItsAgreement(t *testing.T) {
	a := flimmer(t, chat.Send)
	l := a.flimmer.Loots(a.grant)
	good := uint64(0)
	_, err := l.Inbox().Post(a.w.Ctx(), api.InboxPost{Post: a.post(l, "good", func(h *slot.Header) { good = h.Counter; h.Labels.Surface = "player" }), IdempotencyKey: "good"})
	a.w.Must(err)
	for name, c := range map[string]struct {
		change func(*slot.Header)
		kind   chat.Kind
		part   string
	}{
		"a surface that is not agreed":   {func(h *slot.Header) { h.Labels.Surface = "bedroom" }, chat.Invalid, "the agreement lists no such surface"},
		"an interface":                   {func(h *slot.Header) { h.Labels.Interface = "fridge" }, chat.Invalid, "the agreement lists no such interface"},
		"a variant":                      {func(h *slot.Header) { h.Labels.Variant = "alice@example.com" }, chat.Invalid, "the agreement lists no such variant"},
		"a counter that was used":        {func(h *slot.Header) { h.Counter = good }, chat.Invalid, "the letter's counter was used up to"},
		"a counter beyond all":           {func(h *slot.Header) { h.Counter = 1 << 63 }, chat.Invalid, "the letter's counter is too large"},
		"an epoch that is over":          {func(h *slot.Header) { h.Epoch-- }, chat.StaleEpoch, "the letter was sealed for epoch"},
		"an epoch to come":               {func(h *slot.Header) { h.Epoch++ }, chat.StaleEpoch, "the letter was sealed for epoch"},
		"another thread":                 {func(h *slot.Header) { h.Conversation = chat.NewConversationID() }, chat.Forbidden, "the letter is for another thread or under another grant"},
		"another grant":                  {func(h *slot.Header) { h.Grant = chat.NewGrantID() }, chat.Forbidden, "the letter is for another thread or under another grant"},
		"another server":                 {func(h *slot.Header) { h.Host = "evil.example" }, chat.Forbidden, "the letter is for another thread or under another grant"},
		"an empty idempotency key, okay": {nil, chat.Invalid, "idempotency_key"},
	} {
		key := name
		if c.change == nil {
			key = ""
		}
		_, err := l.Inbox().Post(a.w.Ctx(), api.InboxPost{Post: a.post(l, "bad", c.change), IdempotencyKey: key})
		if !chat.Is(err, c.kind) || !strings.Contains(err.Error(), c.part) {
			t.Errorf("%s: answered with %v, want %s %q", name, err, c.kind, c.part)
		}
	}
	if log := honestLog(t, a.bob, a.thread); kinds(log, api.KindPost) != 1 {
		t.Errorf("%d posts are in the log", kinds(log, api.KindPost))
	}
}

// TestAgentFloods: the agreement allows three letters a minute, and as many links.
func TestAgentFloods(t *testing.T) {
	a := &app{t: t, w: world.New(t)}
	a.alice, a.bob = a.w.SignUp("alice"), a.w.SignUp("bob")
	a.flimmer = a.w.Flimmer(func(o *agent.Options) { o.PostsPerMinute = 3 })
	a.w.Befriend(a.alice, a.bob)
	a.gets(chat.Send)
	for range 3 {
		a.sent("buy")
	}
	_, err := a.flimmer.Send(a.w.Ctx(), a.grant, agent.Letter{Text: "buy now"})
	answered(t, err, chat.TooMany, "the agreement allows 3 letters a minute under one grant: wait")
	in := a.flimmer.Loots(a.grant).Inbox()
	answered(t, errOf(in.Link(a.w.Ctx(), api.InboxLink{Base: "https://evil.example/"})), chat.Forbidden, "")
	for range 3 {
		a.w.Must(errOf(in.Link(a.w.Ctx(), api.InboxLink{Base: "https://flimmer.example/w/"})))
	}
	answered(t, errOf(in.Link(a.w.Ctx(), api.InboxLink{Base: "https://flimmer.example/w/"})), chat.TooMany, "the agreement allows 3 links a minute")
}

// TestAgentTakesBackOthersMessages: Bob's own, Alice's own, and what the same app wrote for Bob. The server refuses; told by a server that does
// not, members forget nothing.
func TestAgentTakesBackOthersMessages(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	bobs := a.flimmer.Loots(a.flimmer.Gets(a.bob, "alice", chat.AllActions))
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	byBob, byAlice := says(a.w, a.bob, a.thread, "by bob"), says(a.w, a.alice, a.thread, "by alice")
	forBob, err := a.flimmer.Send(a.w.Ctx(), bobs.Grant, agent.Letter{Text: "for bob"})
	a.w.Must(err)
	forAlice, _ := a.sent("for alice")
	l := a.flimmer.Loots(a.grant)
	var requests [][]byte
	for name, m := range map[string]chat.MessageID{"Bob's": byBob, "Alice's": byAlice, "the app's for Bob": forBob.ID} {
		tb := a.takeBack(l, m, nil)
		_, err := l.Inbox().TakeBack(a.w.Ctx(), api.InboxTakeBack{TakeBack: tb, IdempotencyKey: name})
		answered(t, err, chat.NotFound, "Flimmer has no such message of alice here")
		requests = append(requests, tb)
	}
	a.shows(a.bob, api.KindTakeBack, requests...)
	lines := []string{"bob: by bob", "alice: by alice", "bob: for bob", "alice: for alice"}
	shows(t, a.bob, a.thread, lines...)
	// Of another epoch, for another thread, signed by Bob.
	forger := &world.Loot{Grant: a.grant, Key: steal(t, a.bob).key}
	a.alice.Wrap = nil
	a.shows(a.alice, api.KindTakeBack, a.takeBack(forger, forAlice, nil), a.takeBack(l, forAlice, func(tb *slot.TakeBack) { tb.Epoch-- }),
		a.takeBack(l, forAlice, func(tb *slot.TakeBack) { tb.Conversation = chat.NewConversationID() }))
	const refused = "! A partner app tried to delete a message; this was refused: "
	shows(t, a.alice, a.thread, append(lines, refused+"the take-back is not signed with its grant's key: canon: the signature does not hold.", refused+"it was written for another thread or another time.",
		refused+"it was written for another thread or another time.")...)
}

// TestAgentWritesAsAPerson: an agent that reads has a leaf, and a leaf can seal. No call takes what it seals; a server that delivers it all the
// same does not get it shown.
func TestAgentWritesAsAPerson(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	l := a.flimmer.Loots(a.grant)
	g := l.Join()
	sealed := seals(t, g, mimi.Text("I am Alice"))
	path := "/v1/conversations/" + a.thread.String() + "/messages"
	answered(t, a.w.Call("POST", path, l.Access, l.Key, api.Message{Message: sealed, DedupKey: newDedupKey()}), chat.Unauthenticated, "session")
	answered(t, steal(t, a.bob).sends(a.w.Ctx(), a.thread, a.post(l, "x", nil)), chat.Invalid, "")
	a.shows(a.bob, api.KindMessage, sealed)
	const refused = "Flimmer tried to write in this thread as if it were a person; this was refused."
	shows(t, a.bob, a.thread, "! "+refused)
	if e := kept(t, a.bob, refused); string(e.Data) != string(sealed) {
		t.Fatal("the message was not kept")
	}
}

// TestAgentProposesAndCommits: the agent proposes that Bob be removed, and commits that he is, that somebody is added, and that it may do more.
func TestAgentProposesAndCommits(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	l := a.flimmer.Loots(a.grant)
	g := l.Join()
	bob, ok := g.Roster().MemberByIdentity([]byte(chat.DeviceURI(a.bob.Self().Host, "bob", a.bob.Self().Device)))
	if !ok {
		t.Fatal("Bob is not in the thread")
	}
	proposal, _, err := g.ProposeRemove(bob.Leaf, nil)
	a.w.Must(err)
	for path, in := range map[string]any{
		"/messages": api.Message{Message: proposal, DedupKey: newDedupKey()},
		"/commits":  api.Commit{Commit: proposal, DedupKey: newDedupKey()},
	} {
		answered(t, a.w.Call("POST", "/v1/conversations/"+a.thread.String()+path, l.Access, l.Key, in), chat.Unauthenticated, "session")
	}
	a.shows(a.alice, api.KindProposal, proposal)
	const refused = "Somebody tried to change who is in this conversation, and was refused: a member may propose to renew or to remove its own leaf only."
	shows(t, a.alice, a.thread, "! "+refused)
	kept(t, a.alice, refused)
	a.alice.Wrap = nil

	mallory := newKey(t)
	kp := keyPackageOf(t, chat.DeviceURI(a.bob.Self().Host, "mallory", chat.NewDeviceID()), mallory)
	thread := threadOf(t, g)
	e := thread.Grants[0]
	e.Expiry += 1000
	longer := withThread(g, thread.With(e))
	for name, o := range map[string]mls.CommitOptions{"removes Bob": {Remove: []uint32{bob.Leaf}}, "adds Mallory": {Add: [][]byte{kp.Public}, Now: time.Now()},
		"lasts longer": {Extensions: &longer}, "renews its key": {}} {
		p, err := g.Commit(o)
		a.w.Must(err)
		entry := next(t, a.bob, a.thread, 1, api.KindCommit, p.Commit)
		victim := steal(t, a.bob).runWith(func(s world.Calls) device.Server {
			return inventedLog{s, a.thread, func(after uint64) []api.Entry {
				if after < entry.Seq {
					return []api.Entry{entry}
				}
				return nil
			}}
		})
		if err := victim.Sync(a.w.Ctx()); err == nil {
			t.Errorf("%s: Bob took the agent's commit", name)
		}
		stopped(t, a.w, victim, a.thread, "only a person's device in the conversation may commit")
	}
}
