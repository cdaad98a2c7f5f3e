package inbox

import (
	"bytes"
	"context"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/mls"
	"letterlock/proof"
	"letterlock/store"
)

// TestPutGrantRefuses spoils one thing of a good grant at a time.
func TestPutGrantRefuses(t *testing.T) {
	type attempt struct {
		*world
		alice, bob *person
		flimmer    *app
		g          *agent
		d          *grant.Grant
		r          *api.ConsentRequest
		caller     context.Context
	}
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(a *attempt)
	}{
		"nobody is signed in":         {chat.Unauthenticated, func(a *attempt) { a.caller = a.ctx }},
		"somebody else hands it in":   {chat.Forbidden, func(a *attempt) { a.caller = a.bob.ctx }},
		"another account's":           {chat.Forbidden, func(a *attempt) { a.d.Account = a.bob.id }},
		"another device's":            {chat.Forbidden, func(a *attempt) { a.d.Device = a.bob.device }},
		"another handle":              {chat.Forbidden, func(a *attempt) { a.d.Handle = "bob" }},
		"no such request":             {chat.NotFound, func(a *attempt) { a.g.request = "none" }},
		"an expired request":          {chat.Expired, func(a *attempt) { a.r.ExpiresAt = a.clock.now().UnixMilli() }},
		"another grant than asked":    {chat.Forbidden, func(a *attempt) { a.d.ID = chat.NewGrantID() }},
		"another partner than asked":  {chat.Forbidden, func(a *attempt) { a.d.Partner = "other" }},
		"more actions than asked":     {chat.Forbidden, func(a *attempt) { a.r.Actions = []string{"send"} }},
		"another thread than asked":   {chat.Forbidden, func(a *attempt) { a.r.Pick, a.r.Thread = false, chat.NewConversationID() }},
		"longer than asked":           {chat.Forbidden, func(a *attempt) { a.r.ValidUntil = a.d.Expiry - 1 }},
		"issued long ago":             {chat.Invalid, func(a *attempt) { a.d.Issued -= maxSkew + 1 }},
		"issued in the future":        {chat.Invalid, func(a *attempt) { a.d.Issued += maxSkew + 1 }},
		"over before it begins":       {chat.Invalid, func(a *attempt) { a.d.Issued -= 1000; a.d.Expiry = a.d.Issued + 1 }},
		"no KeyPackage":               {chat.Invalid, func(a *attempt) { a.r.KeyPackage = nil }},
		"another grant's KeyPackage":  {chat.Tampered, func(a *attempt) { a.r.KeyPackage = a.flimmer.ask(a.g.thread, chat.Read, nil).kp.Public }},
		"a KeyPackage of another key": {chat.Tampered, func(a *attempt) { a.r.KeyPackage = strangerPackage(a.world, a.g) }},
		"a conversation without her":  {chat.NotFound, func(a *attempt) { a.d.Conversation = a.bob.found("flimmer") }},
		"no conversation":             {chat.NotFound, func(a *attempt) { a.d.Conversation = chat.NewConversationID() }},
		"a private conversation":      {chat.Forbidden, func(a *attempt) { a.d.Conversation = a.alice.found("") }},
		"another partner's thread":    {chat.Forbidden, func(a *attempt) { a.d.Conversation = a.alice.found("other") }},
		"replaces what is not there":  {chat.Invalid, func(a *attempt) { a.d.Previous = grant.Hash{1} }},
		"a slot signer too few":       {chat.Invalid, func(a *attempt) { a.d.SlotSigners = a.d.SlotSigners[:1] }},
		"a slot signer too many":      {chat.Invalid, func(a *attempt) { a.d.SlotSigners = append(a.d.SlotSigners, [32]byte{9}) }},
		"another slot signer":         {chat.Invalid, func(a *attempt) { a.d.SlotSigners[0] = [32]byte{9} }},
		"an old key-chain version":    {chat.Invalid, func(a *attempt) { a.alice.prefer(keychain.UsesApp("other", keychain.UsesIt)) }},
		"a future key-chain version":  {chat.Invalid, func(a *attempt) { a.d.ChainVersion++ }},
		"signed with another key":     {chat.Invalid, func(a *attempt) { a.alice.key = a.bob.key }},
		"a stopped partner":           {chat.Forbidden, func(a *attempt) { a.must(a.inbox.StopPartner(a.ctx, "flimmer", api.StopPartner{})) }},
		"an agreement that is over":   {chat.Invalid, func(a *attempt) { a.must(a.flimmer.register(nil)) }},
		"another agreement":           {chat.Invalid, func(a *attempt) { a.d.Agreement[0]++ }},
		"more than the agreement":     {chat.Forbidden, func(a *attempt) { a.agree(a.flimmer, a.d, func(g *grant.Agreement) { g.Actions = chat.Send }) }},
		"longer than the agreement":   {chat.Invalid, func(a *attempt) { a.agree(a.flimmer, a.d, func(g *grant.Agreement) { g.NotAfter = a.d.Expiry - 1 }) }},
		"certified by another root":   {chat.Invalid, func(a *attempt) { a.r.Certs = a.app("impostor").ask(a.g.thread, chat.Send, nil).certs }},
		"certified for another grant": {chat.Invalid, func(a *attempt) { a.r.Certs = a.flimmer.ask(a.g.thread, chat.Send, nil).certs }},
		"an agent key of somebody":    {chat.Tampered, func(a *attempt) { a.r.Actions, a.d.Actions, a.d.AgentKey = []string{"send"}, chat.Send, [32]byte{7} }},
		"a control counter too high":  {chat.StaleEpoch, func(a *attempt) { a.d.Counter++ }},
		"a friend wants no apps":      {chat.Forbidden, func(a *attempt) { a.bob.prefer(keychain.NoApps("", true)) }},
		"a friend wants not this app": {chat.Forbidden, func(a *attempt) { a.bob.prefer(keychain.NoApps("flimmer", true)) }},
		"an id that was used":         {chat.Exists, func(a *attempt) { a.must(a.alice.put(a.g, a.d)); a.d.Counter++; a.d.Expiry++ }},
		"an id that somebody else used": {chat.Exists, func(a *attempt) {
			id := a.bob.found("flimmer")
			d := a.bob.draft(&agent{app: a.flimmer, grant: a.g.grant, key: a.g.key, thread: id}, chat.Send)
			a.must(a.bob.put(a.g, d))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &attempt{world: newWorld(t)}
			var id chat.ConversationID
			a.alice, a.bob, a.flimmer, id = a.pair()
			a.g = a.flimmer.ask(id, chat.AllActions, nil)
			a.d = a.alice.draft(a.g, chat.AllActions)
			r := a.oauth.open[a.g.request]
			a.r, a.caller = &r, a.alice.ctx
			request := a.g.request
			c.spoil(a)
			a.oauth.open[request] = r
			signed, err := a.d.Sign(a.alice.key.Private())
			a.must(err)
			_, err = a.inbox.PutGrant(a.caller, api.PutGrant{Request: a.g.request, Signed: signed})
			a.refused(err, c.kind)
		})
	}
}

// agree puts another agreement in force and lets the grant stand on it.
func (w *world) agree(a *app, d *grant.Grant, change func(*grant.Agreement)) {
	w.t.Helper()
	w.must(a.register(change))
	got, err := w.inbox.GetAgreement(w.ctx, a.id)
	w.must(err)
	d.Agreement = grant.AgreementHash(got.Agreement)
}

// strangerPackage is a KeyPackage with the agent's identity and another key.
func strangerPackage(w *world, g *agent) []byte {
	w.t.Helper()
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: []byte(chat.AgentURI(host, "flimmer", g.grant)), Signer: newKey(w),
		SupportedExtensions: []uint16{grant.ExtensionType}, NotBefore: w.clock.now().Add(-time.Hour), NotAfter: w.clock.now().Add(time.Hour)})
	w.must(err)
	return kp.Public
}

func TestPutGrantAgainGivesTheSameRecord(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := flimmer.ask(id, chat.Send, nil)
	w.must(alice.put(g, alice.draft(g, chat.Send)))
	again, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Request: g.request, Signed: g.signed})
	w.must(err)
	if !bytes.Equal(again.Record, g.record) {
		t.Fatal("another record")
	}
	_, err = w.inbox.PutGrant(bob.ctx, api.PutGrant{Request: g.request, Signed: g.signed})
	w.refused(err, chat.Exists)
	if n := len(alice.says("flimmer", proof.Control)); n != 1 {
		t.Fatalf("%d records", n)
	}
}

func TestPutGrantGarbage(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	for _, b := range [][]byte{nil, {}, {0x80}, bytes.Repeat([]byte{0xff}, 100), make([]byte, grant.MaxSigned+1)} {
		_, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: b})
		if err == nil || chat.KindOf(err) == chat.Internal {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}

// TestRevocationWithoutCommit: the server refuses the agent at once, proposes the removal of its leaf, and takes nothing more until a
// commit carries it out.
func TestRevocationWithoutCommit(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	revocation := alice.revocation(g)
	first, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: revocation})
	w.must(err)
	_, err = w.inbox.Changes(g.ctx, "", 0)
	w.refused(err, chat.Forbidden)
	if !w.oauth.ended[g.grant] {
		t.Error("the tokens stand")
	}
	w.refused(bob.say(id, "still there?"), chat.Blocked)
	again, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: revocation})
	w.must(err)
	if !bytes.Equal(first.Record, again.Record) {
		t.Error("the repeated revocation has another record")
	}
	_, err = w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: alice.revocation(g)})
	w.refused(err, chat.Gone)
	alice.next["flimmer"]--

	bob.commit(id, bob.removal(g)) // any member may carry it out, without a statement of their own
	w.must(bob.say(id, "now it is quiet"))
	if row := g.row(); row.Reason != endedRevoked || row.Leaf != store.NoLeaf {
		t.Errorf("the row: %+v", row)
	}
	if got := kinds(alice.says("flimmer", proof.Control)); len(got) != 2 {
		t.Errorf("Alice's control chain says %v", got)
	}
}

func TestRevokePending(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := flimmer.ask(id, chat.Send, nil)
	w.must(alice.put(g, alice.draft(g, chat.Send)))
	_, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: alice.revocation(g)})
	w.must(err)
	w.refused(alice.prepare(id, alice.admission(g)).send(), chat.Expired)
}

func TestNarrowingWithoutCommit(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	narrowing := alice.narrowing(g, chat.Send)
	_, err := w.inbox.PutGrant(alice.ctx, api.PutGrant{Signed: narrowing})
	w.must(err)
	_, err = w.inbox.Changes(g.ctx, "", 0)
	w.refused(err, chat.Forbidden)
	_, err = g.letter().send()
	w.refused(err, chat.Blocked) // it may send, but the leaf has to go first
	w.refused(bob.say(id, "hm"), chat.Blocked)

	// The commit narrows the entry; the same statement may come along again.
	alice.sync(id)
	thread := alice.thread(id)
	e, _ := thread.Find(g.grant)
	e.Actions = chat.Send
	thread = thread.With(e)
	alice.commit(id, changes{thread: &thread, control: [][]byte{narrowing}})
	g.counter++
	g.posts()
	if row := g.row(); row.State != "live" || row.Leaf != store.NoLeaf || row.Actions != chat.Send {
		t.Errorf("the row: %+v", row)
	}
	if w.oauth.ended[g.grant] {
		t.Error("a narrowed grant lost its tokens")
	}
	w.must(bob.say(id, "fine"))
}

// TestControlRefuses spoils revocations and narrowings.
func TestControlRefuses(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	ended := alice.grants(flimmer, id, chat.Send)
	alice.commit(id, alice.removal(ended, alice.revocation(ended)))
	revocation := func(change func(*grant.Revocation), p *person) []byte {
		r := &grant.Revocation{Grant: g.grant, Account: alice.id, Handle: "alice", Partner: "flimmer", Conversation: id, Counter: alice.next["flimmer"], At: 1, Device: alice.device}
		change(r)
		signed, err := r.Sign(p.key.Private())
		w.must(err)
		return signed
	}
	narrowing := func(change func(*grant.Narrowing), p *person) []byte {
		n := &grant.Narrowing{Grant: g.grant, Account: alice.id, Handle: "alice", Partner: "flimmer", Conversation: id, Actions: chat.Send, Counter: alice.next["flimmer"], At: 1, Device: alice.device}
		change(n)
		signed, err := n.Sign(p.key.Private())
		w.must(err)
		return signed
	}
	for name, c := range map[string]struct {
		kind   chat.Kind
		signed []byte
		caller *person
	}{
		"revoked by a friend":            {chat.Forbidden, revocation(func(r *grant.Revocation) {}, alice), bob},
		"revoked with a friend's key":    {chat.Invalid, revocation(func(r *grant.Revocation) {}, bob), alice},
		"revoked by an unknown device":   {chat.Forbidden, revocation(func(r *grant.Revocation) { r.Device = bob.device }, alice), alice},
		"revoked for a friend's account": {chat.Forbidden, revocation(func(r *grant.Revocation) { r.Account = bob.id }, alice), alice},
		"revoked what never was":         {chat.NotFound, revocation(func(r *grant.Revocation) { r.Grant = chat.NewGrantID() }, alice), alice},
		"revoked for another partner":    {chat.Invalid, revocation(func(r *grant.Revocation) { r.Partner = "other" }, alice), alice},
		"revoked in another thread":      {chat.Invalid, revocation(func(r *grant.Revocation) { r.Conversation = chat.NewConversationID() }, alice), alice},
		"revoked out of turn":            {chat.StaleEpoch, revocation(func(r *grant.Revocation) { r.Counter++ }, alice), alice},
		"revoked at a used place":        {chat.StaleEpoch, revocation(func(r *grant.Revocation) { r.Counter = 0 }, alice), alice},
		"narrowed by a friend":           {chat.Forbidden, narrowing(func(n *grant.Narrowing) {}, alice), bob},
		"narrowed with a friend's key":   {chat.Invalid, narrowing(func(n *grant.Narrowing) {}, bob), alice},
		"narrowed to more":               {chat.Forbidden, narrowing(func(n *grant.Narrowing) { n.Actions = chat.AllActions }, alice), alice},
		"narrowed to something else":     {chat.Forbidden, narrowing(func(n *grant.Narrowing) { n.Actions = chat.Read }, alice), alice},
		"narrowed to the same":           {chat.Forbidden, narrowing(func(n *grant.Narrowing) { n.Actions = chat.Send | chat.Delete }, alice), alice},
		"narrowed what has ended":        {chat.Gone, narrowing(func(n *grant.Narrowing) { n.Grant = ended.grant }, alice), alice},
		"narrowed for another partner":   {chat.Invalid, narrowing(func(n *grant.Narrowing) { n.Partner = "other" }, alice), alice},
		"revoked what was revoked":       {chat.Gone, revocation(func(r *grant.Revocation) { r.Grant = ended.grant }, alice), alice},
	} {
		_, err := w.inbox.PutGrant(c.caller.ctx, api.PutGrant{Signed: c.signed})
		if !chat.Is(err, c.kind) {
			t.Errorf("%s: want %s, got %v", name, c.kind, err)
		}
	}
	if row := g.row(); row.State != "live" || row.Actions != chat.Send|chat.Delete {
		t.Errorf("a refused statement changed the row: %+v", row)
	}
	g.posts()
}
