package inbox

import (
	"errors"
	"math"
	"slices"
	"strings"
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

// TestPostRefuses spoils one thing of a good letter at a time. Nothing that is refused may leave a trace.
func TestPostRefuses(t *testing.T) {
	type attempt struct {
		*world
		alice, bob *person
		flimmer    *app
		g          *agent
		l          *letter
	}
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(a *attempt)
	}{
		"no token":                {chat.Unauthenticated, func(a *attempt) { a.g.ctx = a.ctx }},
		"a device's session":      {chat.Unauthenticated, func(a *attempt) { a.g.ctx = a.alice.ctx }},
		"another partner's token": {chat.NotFound, func(a *attempt) { a.g.ctx = api.WithAgent(a.ctx, api.AgentCaller{Partner: "other", Grant: a.g.grant}) }},
		"a token of no grant": {chat.NotFound, func(a *attempt) {
			a.g.ctx = api.WithAgent(a.ctx, api.AgentCaller{Partner: "flimmer", Grant: chat.NewGrantID()})
		}},
		"a grant without send": {chat.Forbidden, func(a *attempt) { a.g.ctx = a.alice.grants(a.flimmer, a.g.thread, chat.Delete).ctx }},
		"a pending grant": {chat.Forbidden, func(a *attempt) {
			g := a.flimmer.ask(a.g.thread, chat.Send, nil)
			a.must(a.alice.put(g, a.alice.draft(g, chat.Send)))
			a.g.ctx = g.ctx
		}},
		"a revoked grant": {chat.Forbidden, func(a *attempt) { a.alice.commit(a.g.thread, a.alice.removal(a.g, a.alice.revocation(a.g))) }},
		"a revocation not yet committed": {chat.Forbidden, func(a *attempt) {
			_, err := a.inbox.PutGrant(a.alice.ctx, api.PutGrant{Signed: a.alice.revocation(a.g)})
			a.must(err)
		}},
		"an expired grant":  {chat.Expired, func(a *attempt) { a.clock.pass(13 * time.Hour) }},
		"a stopped partner": {chat.Forbidden, func(a *attempt) { a.must(a.inbox.StopPartner(a.ctx, "flimmer", api.StopPartner{Reason: "flooding"})) }},
		"a blocked person": {chat.Forbidden, func(a *attempt) {
			a.must(a.store.Update(a.ctx, func(tx *store.Tx) error { return tx.BlockAccount(store.Block{Account: a.alice.id, Since: 1}) }))
		}},
		"an agreement that was replaced": {chat.Forbidden, func(a *attempt) { a.must(a.flimmer.register(nil)) }},
		"a friend who wants no apps":     {chat.Forbidden, func(a *attempt) { a.bob.prefer(keychain.NoApps("", true)) }},
		"a stolen device's grant": {chat.Forbidden, func(a *attempt) {
			a.must(a.store.Update(a.ctx, func(tx *store.Tx) error { return a.inbox.DeviceRemoved(tx, a.alice.id, a.alice.device, true) }))
		}},
		"signed by nobody":         {chat.Forbidden, func(a *attempt) { a.g.key = newKey(a.world) }},
		"signed by a member":       {chat.Forbidden, func(a *attempt) { a.g.key = a.bob.key.Private() }},
		"signed by the agent key":  {chat.Forbidden, func(a *attempt) { a.g.key = a.flimmer.key }},
		"for another host":         {chat.Forbidden, func(a *attempt) { a.l.Host = "chat.example" }},
		"for another thread":       {chat.Forbidden, func(a *attempt) { a.l.Conversation = chat.NewConversationID() }},
		"under another grant":      {chat.Forbidden, func(a *attempt) { a.l.Grant = chat.NewGrantID() }},
		"for an earlier epoch":     {chat.StaleEpoch, func(a *attempt) { a.bob.commit(a.g.thread, changes{}) }},
		"for a later epoch":        {chat.StaleEpoch, func(a *attempt) { a.l.Epoch++ }},
		"a counter that was used":  {chat.Invalid, func(a *attempt) { a.g.posts(); a.l.Counter = a.g.counter }},
		"a counter that went back": {chat.Invalid, func(a *attempt) { a.l.Counter = 0; a.g.posts() }},
		"a counter beyond all":     {chat.Invalid, func(a *attempt) { a.l.Counter = math.MaxUint64 }},
		"an unknown interface":     {chat.Invalid, func(a *attempt) { a.l.Labels.Interface = "fridge" }},
		"an unknown surface":       {chat.Invalid, func(a *attempt) { a.l.Labels.Surface = "web" }},
		"an unknown variant":       {chat.Invalid, func(a *attempt) { a.l.Labels.Variant = "c" }},
		"no idempotency key":       {chat.Invalid, func(a *attempt) { a.l.idempotency = "" }},
		"a long idempotency key":   {chat.Invalid, func(a *attempt) { a.l.idempotency = strings.Repeat("x", maxIdempotencyKey+1) }},
		"an idempotency key that was used": {chat.Mismatch, func(a *attempt) {
			l := a.g.letter()
			_, err := l.send()
			a.must(err)
			a.l.Counter, a.l.idempotency = a.g.counter+1, l.idempotency
		}},
		"a message that was taken back": {chat.Gone, func(a *attempt) {
			m, _ := a.g.posts()
			_, err := a.g.takeBack(m, a.g.key, nil)
			a.must(err)
			a.l.Message, a.l.Counter = m, a.g.counter+1
		}},
		"another grant's message id": {chat.Exists, func(a *attempt) {
			a.l.Message, _ = a.alice.grants(a.flimmer, a.g.thread, chat.Send).posts()
			a.l.Epoch = a.g.letter().Epoch
		}},
		"a thread that waits": {chat.Blocked, func(a *attempt) {
			g := a.bob.grants(a.flimmer, a.g.thread, chat.Read)
			_, err := a.inbox.PutGrant(a.bob.ctx, api.PutGrant{Signed: a.bob.revocation(g)})
			a.must(err)
			*a.l = *a.g.letter()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &attempt{world: newWorld(t)}
			var id chat.ConversationID
			a.alice, a.bob, a.flimmer, id = a.pair()
			a.g = a.alice.grants(a.flimmer, id, chat.Send|chat.Delete)
			a.l = a.g.letter()
			c.spoil(a)
			posts := a.count(id, api.KindPost)
			records := len(a.alice.says("flimmer", proof.Access))
			_, err := a.l.send()
			a.refused(err, c.kind)
			if a.count(id, api.KindPost) != posts || len(a.alice.says("flimmer", proof.Access)) != records {
				t.Error("the refused letter left a trace")
			}
		})
	}
}

// count counts the entries of a kind.
func (w *world) count(id chat.ConversationID, kind api.EntryKind) (n int) {
	w.t.Helper()
	page, err := w.delivery.LogFor(w.ctx, id, 0, 500)
	w.must(err)
	for _, e := range page.Entries {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// TestPostAgain: a lost answer costs nothing, not even over an epoch, and nothing is said twice.
func TestPostAgain(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	l := g.letter()
	bob.commit(id, changes{}) // the epoch ends first
	_, err := l.send()
	w.refused(err, chat.StaleEpoch)

	again := g.letter() // sealed again: the same message id and idempotency key
	again.Message, again.idempotency = l.Message, l.idempotency
	first, err := again.send()
	w.must(err)
	sameBytes, err := again.send()
	w.must(err)
	bob.commit(id, changes{})
	later := g.letter()
	later.Message, later.idempotency = l.Message, l.idempotency
	laterAnswer, err := later.send()
	w.must(err)
	if first != sameBytes || first != laterAnswer {
		t.Errorf("answers %+v, %+v, %+v", first, sameBytes, laterAnswer)
	}
	if n := w.count(id, api.KindPost); n != 1 {
		t.Errorf("%d posts in the log", n)
	}
	if got := alice.says("flimmer", proof.Access); len(got) != 1 {
		t.Errorf("Alice's chain says %v", kinds(got))
	}
}

// TestPostsInParallel: the same letter from thirty requests stands once; each answer is the same.
func TestPostsInParallel(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	l := g.letter()
	body := l.seal(g.key)
	type answer struct {
		api.Accepted
		err error
	}
	answers := make(chan answer)
	const n = 30
	for i := range n {
		go func() {
			key := l.idempotency
			if i%2 == 0 {
				key += "x" // another key, the same message
			}
			a, err := w.inbox.Post(g.ctx, api.InboxPost{Post: body, IdempotencyKey: key})
			answers <- answer{a, err}
		}()
	}
	var first answer
	for i := range n {
		a := <-answers
		w.must(a.err)
		if i == 0 {
			first = a
		} else if a != first {
			t.Errorf("answers %+v and %+v", first, a)
		}
	}
	if n := w.count(id, api.KindPost); n != 1 {
		t.Errorf("%d posts in the log", n)
	}
}

// TestRate: the agreement's allowance is spent, and comes back with time.
func TestRate(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	for range flimmer.agreed.PostsPerMinute {
		g.posts()
	}
	l := g.letter()
	_, err := l.send()
	w.refused(err, chat.TooMany)
	w.clock.pass(time.Second)
	_, err = l.send() // refused before, it has used neither counter nor key
	w.must(err)
	_, err = g.letter().send()
	w.refused(err, chat.TooMany)

	for range flimmer.agreed.PostsPerMinute {
		_, err := w.inbox.Link(g.ctx, api.InboxLink{Base: "https://flimmer.example/films"})
		w.must(err)
	}
	_, err = w.inbox.Link(g.ctx, api.InboxLink{Base: "https://flimmer.example/films"})
	w.refused(err, chat.TooMany)
}

// TestPostRecord: what stands on Alice's chain is what was sent.
func TestPostRecord(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	l := g.letter()
	l.Labels = slot.Labels{Interface: "tv", Variant: "b"}
	at, err := l.send()
	w.must(err)
	p := alice.says("flimmer", proof.Access)[0].(*proof.Post)
	if p.Grant != g.grant || p.Seq != at.Seq || p.Epoch != l.Epoch || p.Message != l.Message || p.At != at.At || !slices.Equal(p.Labels, []string{"tv", "b"}) {
		t.Errorf("the record: %+v", p)
	}
}

func TestTakeBackRefuses(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	sendOnly := alice.grants(flimmer, id, chat.Send)
	bobs := bob.grants(flimmer, id, chat.Send|chat.Delete)
	m, at := g.posts()
	for name, c := range map[string]struct {
		kind chat.Kind
		do   func() error
	}{
		"without delete":     {chat.Forbidden, func() error { return errOf(sendOnly.takeBack(m, sendOnly.key, nil)) }},
		"a friend's app's":   {chat.NotFound, func() error { return errOf(bobs.takeBack(m, bobs.key, nil)) }},
		"what never was":     {chat.NotFound, func() error { return errOf(g.takeBack(chat.MessageID{1}, g.key, nil)) }},
		"signed by nobody":   {chat.Forbidden, func() error { return errOf(g.takeBack(m, newKey(w), nil)) }},
		"signed by a member": {chat.Forbidden, func() error { return errOf(g.takeBack(m, bob.key.Private(), nil)) }},
		"in another thread": {chat.Forbidden, func() error {
			return errOf(g.takeBack(m, g.key, func(t *slot.TakeBack) { t.Conversation = chat.NewConversationID() }))
		}},
		"under another grant": {chat.Forbidden, func() error { return errOf(g.takeBack(m, g.key, func(t *slot.TakeBack) { t.Grant = bobs.grant })) }},
		"on another host":     {chat.Forbidden, func() error { return errOf(g.takeBack(m, g.key, func(t *slot.TakeBack) { t.Host = "chat.example" })) }},
		"for another epoch":   {chat.StaleEpoch, func() error { return errOf(g.takeBack(m, g.key, func(t *slot.TakeBack) { t.Epoch-- })) }},
		"garbage": {chat.Invalid, func() error {
			return errOf(w.inbox.TakeBack(g.ctx, api.InboxTakeBack{TakeBack: []byte{1}, IdempotencyKey: "1"}))
		}},
		"without a key": {chat.Invalid, func() error { return errOf(w.inbox.TakeBack(g.ctx, api.InboxTakeBack{TakeBack: []byte{1}})) }},
	} {
		if err := c.do(); !chat.Is(err, c.kind) {
			t.Errorf("%s: want %s, got %v", name, c.kind, err)
		}
	}
	if w.entry(id, at.Seq).Tombstone || w.count(id, api.KindTakeBack) != 0 {
		t.Error("a refused take-back took something back")
	}
}

// TestTakeBackAgain: once is enough; a person's own message is out of reach.
func TestTakeBackAgain(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	m, at := g.posts()
	first, err := g.takeBack(m, g.key, nil)
	w.must(err)
	bob.commit(id, changes{})
	again, err := g.takeBack(m, g.key, nil)
	w.must(err)
	if first != again || w.count(id, api.KindTakeBack) != 1 || !w.entry(id, at.Seq).Tombstone {
		t.Errorf("answers %+v and %+v", first, again)
	}
	if got := kinds(alice.says("flimmer", proof.Access)); !slices.Equal(got, []string{"post", "delete"}) {
		t.Errorf("Alice's chain says %v", got)
	}
}

// TestLinkRefuses: a link leads where the agreement says and nowhere else.
func TestLinkRefuses(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	readOnly := alice.grants(flimmer, id, chat.Delete)
	_, err := w.inbox.Link(readOnly.ctx, api.InboxLink{Base: "https://flimmer.example/films"})
	w.refused(err, chat.Forbidden)
	_, err = w.inbox.Link(g.ctx, api.InboxLink{Base: "https://evil.example/films"})
	w.refused(err, chat.Forbidden)
	_, err = w.inbox.Link(g.ctx, api.InboxLink{Base: "https://flimmer.example/films", Variant: "z"})
	w.refused(err, chat.Invalid)
}

// TestRecipients: what posts are counted under is what the one other person lets a partner know.
func TestRecipients(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	want := func(kind api.Recipient) {
		t.Helper()
		got, err := w.inbox.Grant(g.ctx)
		w.must(err)
		if got.Recipient != kind {
			t.Errorf("recipient %s, want %s", got.Recipient, kind)
		}
	}
	want(api.RecipientNotTold)
	bob.prefer(keychain.UsesApp("flimmer", keychain.UsesIt))
	want(api.RecipientUser)
	bob.prefer(keychain.UsesApp("flimmer", keychain.UsesItNot))
	want(api.RecipientNoUser)
	friend, err := w.inbox.Grant(g.ctx)
	w.must(err)
	if len(friend.Friend) != 32 {
		t.Errorf("the friend's handle is %q", friend.Friend)
	}
	alice.add(id, w.person("carol"))
	want(api.RecipientSeveral)
}

// TestFriendHandles: the same friend has one handle for one partner and person, and another for everybody else.
func TestFriendHandles(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	second := alice.found("flimmer")
	alice.add(second, bob)
	carol := w.person("carol")
	third := carol.found("flimmer")
	carol.add(third, bob)
	handle := func(g *agent) string {
		got, err := w.inbox.Grant(g.ctx)
		w.must(err)
		return got.Friend
	}
	a, b, c := handle(alice.grants(flimmer, id, chat.Send)), handle(alice.grants(flimmer, second, chat.Send)), handle(carol.grants(flimmer, third, chat.Send))
	if a != b || a == c || strings.Contains(a, bob.id.String()) {
		t.Errorf("handles %s, %s, %s", a, b, c)
	}
}

// TestDecidedWhereItActs: a post that was fine when it was looked at is refused when the grant ended before its transaction.
func TestDecidedWhereItActs(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	m, _ := g.posts()
	l := g.letter()
	p := &posting{agent: agentIn(g.ctx), body: l.seal(g.key)}
	b := &takingBack{agent: agentIn(g.ctx)}
	w.must(w.inbox.acting(g.ctx, w.inbox.view, func(tx *store.Tx, c *call) error { return w.inbox.openPost(tx, c, p, "1") }))
	signed, err := slot.SignTakeBack(slot.TakeBack{Host: host, Conversation: id, Epoch: l.Epoch, Grant: g.grant, Message: m, At: 1}, g.key)
	w.must(err)
	w.must(w.inbox.acting(g.ctx, w.inbox.view, func(tx *store.Tx, c *call) error {
		return w.inbox.openTakeBack(tx, c, b, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: "2"})
	}))
	_, err = w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: alice.revocation(g)})
	w.must(err)
	w.refused(w.store.Update(w.ctx, func(tx *store.Tx) error { return w.inbox.recordPost(tx, p, 99, w.inbox.ms()) }), chat.Forbidden)
	w.refused(w.store.Update(w.ctx, func(tx *store.Tx) error { return w.inbox.recordTakeBack(tx, b, 99, w.inbox.ms()) }), chat.Forbidden)

	alice.commit(id, changes{})
	err = w.store.Update(w.ctx, func(tx *store.Tx) error { return w.inbox.recordPost(tx, p, 99, w.inbox.ms()) })
	if !errors.Is(err, errMoved) {
		t.Errorf("over an epoch: %v", err)
	}
}

// TestEntryDecides: a row that says yes is not enough where the thread does not list the grant.
func TestEntryDecides(t *testing.T) {
	now := int64(1000)
	e := grant.Entry{Grant: chat.GrantID{1}, Account: chat.AccountID{1}, Hash: grant.Hash{1}, Actions: chat.AllActions}
	c := func(change func(*grant.Entry)) *call {
		e := e
		change(&e)
		return &call{now: now, grant: store.Grant{ID: chat.GrantID{1}, Account: chat.AccountID{1}, Hash: [32]byte{1}, State: "live", Actions: chat.AllActions, Expiry: now + 1},
			partner: &partner{said: &grant.Agreement{NotAfter: now + 1}}, thread: &thread{Thread: grant.Thread{Grants: []grant.Entry{e}}}}
	}
	if err := c(func(*grant.Entry) {}).may(chat.Send); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*grant.Entry){
		"no entry":          func(e *grant.Entry) { e.Grant[0]++ },
		"another account's": func(e *grant.Entry) { e.Account[0]++ },
		"another grant's":   func(e *grant.Entry) { e.Hash[0]++ },
		"narrowed entry":    func(e *grant.Entry) { e.Actions = chat.Read },
	} {
		if err := c(spoil).may(chat.Send); !chat.Is(err, chat.Forbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
