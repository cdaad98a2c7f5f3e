package inbox

import (
	"crypto/rand"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/proof"
	"letterlock/store"
)

// TestExpiry: an expired grant is refused at once, ended by the sweeper, and its leaf proposed for removal; any member carries it out.
func TestExpiry(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	w.clock.pass(12 * time.Hour)
	_, err := w.inbox.Changes(g.ctx, "", 0)
	w.refused(err, chat.Expired)
	w.must(w.inbox.Sweep(w.ctx))
	w.must(w.inbox.Sweep(w.ctx)) // again changes nothing
	if row := g.row(); row.State != "ended" || row.Reason != endedExpired || !w.oauth.ended[g.grant] {
		t.Fatalf("the row: %+v", row)
	}
	if n := w.count(id, api.KindProposal); n != 1 {
		t.Fatalf("%d proposals", n)
	}
	w.refused(bob.say(id, "hello"), chat.Blocked)
	bob.commit(id, bob.removal(g))
	w.must(bob.say(id, "hello"))
	alice.sync(id)
	if len(alice.thread(id).Grants) != 0 || g.row().Leaf != store.NoLeaf {
		t.Error("the entry or the leaf still stands")
	}
}

func TestVoid(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := flimmer.ask(id, chat.Send, nil)
	w.must(alice.put(g, alice.draft(g, chat.Send)))
	w.clock.pass(grant.PendingFor*time.Millisecond - time.Second)
	w.must(w.inbox.Sweep(w.ctx))
	if s := g.row().State; s != "pending" {
		t.Fatalf("too early: %s", s)
	}
	w.clock.pass(time.Second)
	w.must(w.inbox.Sweep(w.ctx))
	if s := g.row().State; s != "void" {
		t.Fatalf("too late: %s", s)
	}
	_, err := w.inbox.FinishConsent(alice.ctx, g.request)
	w.refused(err, chat.Forbidden)
	again := flimmer.ask(id, chat.Send, nil) // asks again, with a new id
	w.must(alice.put(again, alice.draft(again, chat.Send)))
	alice.commit(id, alice.admission(again))
}

// TestStop: the operator's one switch refuses every call at once, ends every grant, and says so in public.
func TestStop(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	reading, pending := alice.grants(flimmer, id, chat.AllActions), flimmer.ask(id, chat.Send, nil)
	w.must(alice.put(pending, alice.draft(pending, chat.Send)))
	w.must(w.inbox.StopPartner(w.ctx, "flimmer", api.StopPartner{Reason: "it floods people"}))
	w.must(w.inbox.StopPartner(w.ctx, "flimmer", api.StopPartner{Reason: "again"}))
	for _, g := range []*agent{reading, pending} {
		if row := g.row(); row.State != "ended" || row.Reason != endedAgreement {
			t.Errorf("the row: %+v", row)
		}
	}
	_, err := w.inbox.Changes(reading.ctx, "", 0)
	w.refused(err, chat.Forbidden)
	w.refused(bob.say(id, "?"), chat.Blocked)
	bob.commit(id, bob.removal(reading))
	list, err := w.inbox.ListPartners(w.ctx)
	w.must(err)
	if list.Partners[0].Active {
		t.Error("the register calls it active")
	}
	w.publish()
	if !w.logged(func(l proof.Leaf) bool {
		e, ok := l.(*proof.PartnerEnd)
		return ok && e.Partner == "flimmer" && e.Cause == proof.CauseStopped && e.Reason == "it floods people"
	}) {
		t.Error("the ledger does not say so")
	}
	_, err = w.inbox.GetConsent(alice.ctx, pending.request)
	w.refused(err, chat.Forbidden)

	// It comes back under a newer agreement, with no grant.
	w.refused(w.inbox.ResumePartner(w.ctx, "flimmer"), chat.Forbidden)
	w.must(flimmer.register(nil))
	g := flimmer.ask(id, chat.Send, nil)
	w.refused(alice.put(g, alice.draft(g, chat.Send)), chat.Forbidden)
	w.must(w.inbox.ResumePartner(w.ctx, "flimmer"))
	w.must(w.inbox.ResumePartner(w.ctx, "flimmer"))
	w.must(alice.put(g, alice.draft(g, chat.Send)))
	if reading.row().State != "ended" {
		t.Error("an ended grant came back")
	}
}

// logged looks for a leaf in the published log.
func (w *world) logged(is func(proof.Leaf) bool) bool {
	w.t.Helper()
	for _, l := range w.leaves() {
		leaf, err := proof.ParseLeaf(l.Leaf)
		w.must(err)
		if is(leaf) {
			return true
		}
	}
	return false
}

// TestNewerAgreement: the grants of the agreement before end with it.
func TestNewerAgreement(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	w.must(flimmer.register(func(a *grant.Agreement) { a.Actions = chat.Send }))
	_, err := g.letter2()
	w.refused(err, chat.Forbidden)
	w.must(w.inbox.Sweep(w.ctx))
	if row := g.row(); row.State != "ended" || row.Reason != endedAgreement {
		t.Errorf("the row: %+v", row)
	}
	w.publish()
	if !w.logged(func(l proof.Leaf) bool { e, ok := l.(*proof.PartnerEnd); return ok && e.Cause == proof.CauseEnded }) {
		t.Error("the ledger does not say so")
	}
}

// letter2 asks for the slot, as every letter begins.
func (g *agent) letter2() (api.InboxSlot, error) { return g.app.w.inbox.Slot(g.ctx) }

// TestAgreementOver: when an agreement's time is over nobody has to end it.
func TestAgreementOver(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	w.must(flimmer.register(func(a *grant.Agreement) { a.NotAfter = w.clock.now().Add(time.Hour).UnixMilli() }))
	g := flimmer.ask(id, chat.Send, nil)
	d := alice.draft(g, chat.Send)
	d.Expiry = w.clock.now().Add(time.Hour).UnixMilli()
	w.must(alice.put(g, d))
	alice.commit(id, alice.admission(g))
	w.clock.pass(time.Hour)
	_, err := g.letter2()
	w.refused(err, chat.Forbidden)
}

// TestStolenDevice: what the stolen device granted ends with its removal; what another device granted stands.
func TestStolenDevice(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.AllActions)
	key, err := keychain.NewDeviceKey(rand.Reader)
	w.must(err)
	second := chat.NewDeviceID()
	request, err := alice.chain().Request(second, "phone", key)
	w.must(err)
	entry, err := alice.chain().AddDevice(alice.key, request, w.clock.now())
	w.must(err)
	w.must(w.accounts.AppendEntry(alice.ctx, api.AppendEntry{Entry: entry}))
	entry, err = alice.chain().RemoveDevice(key, alice.device, keychain.Stolen, w.clock.now())
	w.must(err)
	w.must(w.accounts.AppendEntry(alice.ctx, api.AppendEntry{Entry: entry}))
	if row := g.row(); row.State != "ended" || row.Reason != endedStolen || !w.oauth.ended[g.grant] {
		t.Errorf("the row: %+v", row)
	}
	w.must(w.inbox.Sweep(w.ctx))
	if n := w.count(id, api.KindProposal); n != 1 {
		t.Errorf("%d proposals", n)
	}
}

// TestRetiredDevice: a device that was merely retired leaves its grants standing.
func TestRetiredDevice(t *testing.T) {
	w := newWorld(t)
	alice, _, flimmer, id := w.pair()
	g := alice.grants(flimmer, id, chat.Send)
	w.must(w.inbox.DeviceRemoved(nil, alice.id, alice.device, false))
	if g.row().State != "live" {
		t.Error("it ended")
	}
}

// TestNoAppsWithMe: a wish ends what is there, in the person's threads and nowhere else.
func TestNoAppsWithMe(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()
	carol := w.person("carol")
	other := alice.found("flimmer")
	alice.add(other, carol)
	g, elsewhere := alice.grants(flimmer, id, chat.AllActions), alice.grants(flimmer, other, chat.Send)
	bob.prefer(keychain.NoApps("another", true))
	if g.row().State != "live" {
		t.Fatal("another app's wish ended this one")
	}
	bob.prefer(keychain.NoApps("flimmer", true))
	if row := g.row(); row.State != "ended" || row.Reason != endedRefused {
		t.Errorf("the row: %+v", row)
	}
	if elsewhere.row().State != "live" {
		t.Error("a wish reached into a thread of others")
	}
	w.must(w.inbox.Sweep(w.ctx))
	if n := w.count(id, api.KindProposal); n != 1 {
		t.Errorf("%d proposals", n)
	}
	bob.commit(id, bob.removal(g))
}
