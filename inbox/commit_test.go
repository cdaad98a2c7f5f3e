package inbox

import (
	"slices"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/proof"
	"letterlock/slot"
	"letterlock/store"
)

// TestCommitRefuses spoils one thing of a good commit at a time. What everybody judges alike is tested in package grant.
func TestCommitRefuses(t *testing.T) {
	type attempt struct {
		*world
		alice, bob *person
		flimmer    *app
		id         chat.ConversationID
		g          *agent
		ch         changes
		by         *person
		spoil      func(*commit)
	}
	admit := func(a *attempt) {
		a.g = a.flimmer.ask(a.id, chat.AllActions, nil)
		a.must(a.alice.put(a.g, a.alice.draft(a.g, chat.AllActions)))
		a.ch = a.alice.admission(a.g)
	}
	revoke := func(a *attempt) {
		a.g = a.alice.grants(a.flimmer, a.id, chat.Send|chat.Delete)
		a.ch = a.alice.removal(a.g)
	}
	announce := func(a *attempt, change func(*slot.Announcement) (chat.ConversationID, uint64, *person)) {
		a.spoil = func(c *commit) {
			said, err := slot.OpenAnnouncement(c.Slot)
			a.must(err)
			id, epoch, by := change(said)
			c.Slot, err = slot.Announce(id, epoch, said.Key, said.At, by.key.Private())
			a.must(err)
		}
	}
	for name, c := range map[string]struct {
		kind  chat.Kind
		setup func(a *attempt)
	}{
		"no slot announcement": {chat.Invalid, func(a *attempt) { a.spoil = func(c *commit) { c.Slot = nil } }},
		"a slot of another thread": {chat.Forbidden, func(a *attempt) {
			announce(a, func(s *slot.Announcement) (chat.ConversationID, uint64, *person) {
				return chat.NewConversationID(), s.Epoch, a.alice
			})
		}},
		"a slot of this epoch": {chat.Forbidden, func(a *attempt) {
			announce(a, func(s *slot.Announcement) (chat.ConversationID, uint64, *person) { return a.id, s.Epoch - 1, a.alice })
		}},
		"a slot of a friend's": {chat.Forbidden, func(a *attempt) {
			announce(a, func(s *slot.Announcement) (chat.ConversationID, uint64, *person) { return a.id, s.Epoch, a.bob })
		}},
		"a slot in a private talk": {chat.Invalid, func(a *attempt) {
			a.id = a.alice.found("")
			a.spoil = func(c *commit) { c.Slot = a.alice.announce(a.id, c.pending.Next()) }
		}},
		"a grant without its Welcome":  {chat.Invalid, func(a *attempt) { admit(a); a.spoil = func(c *commit) { c.Welcome = nil } }},
		"a grant without its proof":    {chat.Unproven, func(a *attempt) { admit(a); a.ch.proofs = grant.Proofs{} }},
		"a grant that waited too long": {chat.Expired, func(a *attempt) { admit(a); a.clock.pass(grant.PendingFor*time.Millisecond + time.Second) }},
		"a void grant": {chat.Expired, func(a *attempt) {
			admit(a)
			a.clock.pass(grant.PendingFor * time.Millisecond)
			a.must(a.inbox.Sweep(a.ctx))
		}},
		"a stopped partner":              {chat.Expired, func(a *attempt) { admit(a); a.must(a.inbox.StopPartner(a.ctx, "flimmer", api.StopPartner{})) }},
		"a friend who wants no apps now": {chat.Expired, func(a *attempt) { admit(a); a.bob.prefer(keychain.NoApps("", true)) }},
		"a newcomer who wants no apps": {chat.Forbidden, func(a *attempt) {
			a.alice.grants(a.flimmer, a.id, chat.Send)
			carol := a.person("carol")
			carol.prefer(keychain.NoApps("flimmer", true))
			a.ch = changes{add: [][]byte{carol.keyPackage()}}
		}},
		"ends a grant without a word":   {chat.Unproven, revoke},
		"ends a grant with a narrowing": {chat.Invalid, func(a *attempt) { revoke(a); a.ch.control = [][]byte{a.alice.narrowing(a.g, chat.Send)} }},
		"narrows without a word":        {chat.Unproven, func(a *attempt) { revoke(a); a.ch.thread = narrowed(a.alice, a.g, chat.Send) }},
		"narrows with a revocation": {chat.Invalid, func(a *attempt) {
			revoke(a)
			a.ch.thread, a.ch.control = narrowed(a.alice, a.g, chat.Send), [][]byte{a.alice.revocation(a.g)}
		}},
		"narrows to something else than signed": {chat.Invalid, func(a *attempt) {
			revoke(a)
			a.ch.thread, a.ch.control = narrowed(a.alice, a.g, chat.Send), [][]byte{a.alice.narrowing(a.g, chat.Delete)}
		}},
		"revokes what it leaves standing": {chat.Invalid, func(a *attempt) { revoke(a); a.ch = changes{control: [][]byte{a.alice.revocation(a.g)}} }},
		"says it twice":                   {chat.Invalid, func(a *attempt) { revoke(a); r := a.alice.revocation(a.g); a.ch.control = [][]byte{r, r} }},
		"carries a friend's revocation": {chat.Forbidden, func(a *attempt) {
			revoke(a)
			a.by, a.ch = a.bob, a.bob.removal(a.g, a.alice.revocation(a.g))
		}},
		"a revocation out of turn": {chat.StaleEpoch, func(a *attempt) {
			revoke(a)
			a.alice.next["flimmer"]++
			a.ch.control = [][]byte{a.alice.revocation(a.g)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &attempt{world: newWorld(t)}
			a.alice, a.bob, a.flimmer, a.id = a.pair()
			a.by = a.alice
			c.setup(a)
			commit := a.by.prepare(a.id, a.ch)
			if a.spoil != nil {
				a.spoil(commit)
			}
			before := a.thread2(a.id)
			a.refused(commit.send(), c.kind)
			if after := a.thread2(a.id); after.epoch != before.epoch {
				t.Error("the epoch moved")
			}
		})
	}
}

func (w *world) thread2(id chat.ConversationID) *thread {
	w.t.Helper()
	th, err := w.inbox.thread(w.ctx, id)
	w.must(err)
	return th
}

// narrowed is the thread with fewer actions for a grant.
func narrowed(p *person, g *agent, left chat.Actions) *grant.Thread {
	p.sync(g.thread)
	t := p.thread(g.thread)
	e, _ := t.Find(g.grant)
	e.Actions = left
	t = t.With(e)
	return &t
}

// TestFoundingRefused: a conversation begins without grants and with this server's name.
func TestFoundingRefused(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	spoil := map[string]grant.Thread{
		"another host": grant.NewThread("chat.example", "flimmer"),
		"with a grant": grant.NewThread(host, "flimmer").With(grant.Entry{Grant: chat.GrantID{1}, Account: alice.id, Handle: "alice", Actions: chat.Send}),
	}
	for name, thread := range spoil {
		if err := alice.foundWith(chat.NewConversationID(), thread); chat.KindOf(err) != chat.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.must(alice.foundWith(chat.NewConversationID(), grant.NewThread(host, "flimmer")))
}

// TestAnyMemberRemoves: a friend takes an app out that Alice let in; her grant ends with it and says why.
func TestAnyMemberRemoves(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	bob.commit(id, bob.removal(g))
	row := g.row()
	if row.State != "ended" || row.Reason != endedByMember || row.Leaf != store.NoLeaf || !w.oauth.ended[g.grant] {
		t.Errorf("the row: %+v", row)
	}
	if got := kinds(bob.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed", "ended"}) {
		t.Errorf("Bob's chain says %v", got)
	}
	_, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: alice.revocation(g)}) // she may still say so herself
	w.must(err)
}

// TestExposureOfNewcomers: who comes into a thread that has a reader has it on record, and who leaves it too.
func TestExposureOfNewcomers(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	carol := w.person("carol")
	alice.add(id, carol)
	said := carol.says("flimmer", proof.Access)
	if len(said) != 1 {
		t.Fatalf("Carol's chain says %v", kinds(said))
	}
	x := said[0].(*proof.Exposed)
	if x.Grant != g.grant || x.Granting != alice.id || x.Epoch != w.thread2(id).epoch || x.AgentKey != pub(g.key) || x.Conversation != id {
		t.Errorf("Carol's record: %+v", x)
	}
	bob.sync(id)
	bob.commit(id, changes{remove: []string{string(carol.identity())}})
	if got := kinds(carol.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed", "ended"}) {
		t.Errorf("Carol's chain says %v", got)
	}
	if got := kinds(bob.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed"}) {
		t.Errorf("Bob's chain says %v", got)
	}
}

// TestSendOnlyExposesNobody: a slot reads nothing.
func TestSendOnlyExposesNobody(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	g.posts()
	if got := kinds(bob.says("flimmer", proof.Access)); len(got) != 0 {
		t.Errorf("Bob's chain says %v", got)
	}
	if got := kinds(alice.says("flimmer", proof.Access)); !slices.Equal(got, []string{"post"}) {
		t.Errorf("Alice's chain says %v", got)
	}
}

// TestBundleRepeatsWhatIsKnown: a revocation handed in alone may come again with the commit that carries it out.
func TestBundleRepeatsWhatIsKnown(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	revocation := alice.revocation(g)
	_, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: revocation})
	w.must(err)
	alice.commit(id, alice.removal(g, revocation))
	if got := kinds(alice.says("flimmer", proof.Control)); !slices.Equal(got, []string{"grant", "revoke"}) {
		t.Errorf("Alice's control chain says %v", got)
	}
}

func TestNarrowingByCommit(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	ch := changes{thread: narrowed(alice, g, chat.Send), remove: []string{chat.AgentURI(host, "flimmer", g.grant)}, control: [][]byte{alice.narrowing(g, chat.Send)}}
	alice.commit(id, ch)
	if row := g.row(); row.State != "live" || row.Leaf != store.NoLeaf || row.Actions != chat.Send {
		t.Errorf("the row: %+v", row)
	}
	_, err := w.inbox.Changes(g.ctx, "", 0)
	w.refused(err, chat.Forbidden)
	g.posts()
	w.must(bob.say(id, "go on"))
	if got := kinds(bob.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed", "ended"}) {
		t.Errorf("Bob's chain says %v", got)
	}
}
