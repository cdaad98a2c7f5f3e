package attacks

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/keychain"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/proof"
)

// recordsLiar shows other records than there are.
type recordsLiar struct {
	world.Calls
	records   func([]api.Record) []api.Record
	inclusion func(leaf [32]byte) error
}

func (l recordsLiar) Records(ctx context.Context, q api.RecordQuery) (api.RecordList, error) {
	list, err := l.Calls.Records(ctx, q)
	if err == nil && q.Chain == proof.Access.String() && l.records != nil {
		list.Records = l.records(list.Records)
	}
	return list, err
}

func (l recordsLiar) InclusionProof(ctx context.Context, leaf [32]byte, wait int) ([]byte, error) {
	if l.inclusion != nil {
		if err := l.inclusion(leaf); err != nil {
			return nil, err
		}
	}
	return l.Calls.InclusionProof(ctx, leaf, wait)
}

// TestServerHidesTheExposure: Flimmer can read from here on; Bob's record does not say so, or says it of another thread's reader, or the ledger
// does not hold it. Bob's client sends nothing until it does.
func TestServerHidesTheExposure(t *testing.T) {
	other := flimmer(t, chat.Send|chat.Read)
	foreign, err := steal(t, other.bob).calls.Records(other.w.Ctx(), api.RecordQuery{Partner: "flimmer", Chain: "access", Limit: 10})
	other.w.Must(err)
	for name, c := range map[string]struct {
		lie  recordsLiar
		kind chat.Kind
		part string
	}{
		"withheld": {recordsLiar{records: func([]api.Record) []api.Record { return nil }}, chat.Unproven,
			"Flimmer can read this thread, and your record does not say so yet: nothing is sent until it does"},
		"somebody else's": {recordsLiar{records: func([]api.Record) []api.Record { return foreign.Records }}, chat.Tampered,
			"the server left out record 0 of your history with Flimmer"},
		"not in the ledger": {recordsLiar{inclusion: func([32]byte) error { return chat.Errorf(chat.NotFound, "no such leaf") }}, chat.NotFound, "no such leaf"},
	} {
		t.Run(name, func(t *testing.T) {
			a := people(t)
			a.w.Must(a.bob.Sync(a.w.Ctx())) // the daily check is made: it knows nothing of what comes
			a.grant = a.flimmer.Gets(a.alice, "bob", chat.Send|chat.Read)
			g, err := a.flimmer.Look(a.grant)
			a.w.Must(err)
			a.thread = g.Conversation
			a.w.Must(a.bob.Sync(a.w.Ctx()))
			lies(a.bob, func(s world.Calls) device.Server { l := c.lie; l.Calls = s; return l })
			_, err = a.bob.Send(a.w.Ctx(), a.thread, mimi.Text("who reads this?"))
			answered(t, err, c.kind, c.part)
			if log := honestLog(t, a.alice, a.thread); kinds(log, api.KindMessage) != 0 {
				t.Fatal("Bob's message was sent")
			}
			a.bob.Wrap = nil
			a.w.Must(a.bob.Sync(a.w.Ctx()))
			if log := honestLog(t, a.alice, a.thread); kinds(log, api.KindMessage) != 1 {
				t.Fatal("Bob's message was not sent once his record said so")
			}
		})
	}
}

// proposed waits until the server has proposed to remove the agent, and returns the log.
func (a *app) proposed() []api.Entry {
	a.t.Helper()
	calls, last := steal(a.t, a.bob).calls, uint64(0)
	for {
		page, err := calls.Log(a.w.Ctx(), a.thread, last, 500, 5)
		a.w.Must(err)
		if len(page.Entries) == 0 {
			a.t.Fatal("the server proposed nothing")
		}
		last = page.Entries[len(page.Entries)-1].Seq
		if kinds(page.Entries, api.KindProposal) > 0 {
			return honestLog(a.t, a.bob, a.thread)
		}
	}
}

// TestOperatorStops: the operator stops Flimmer. No device of Alice's is there to revoke anything.
func TestOperatorStops(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	loot := a.flimmer.Loots(a.grant)
	group := loot.Join()
	a.w.Must(a.w.Operator("POST", "/admin/v1/partners/flimmer/stop", api.StopPartner{Reason: "it sells what it reads"}))
	a.isOut(loot, func() {
		last, opened, _ := follows(t, group, loot.Key, honestLog(t, a.bob, a.thread))
		if len(opened) != 0 {
			t.Fatalf("the agent opens %q", opened)
		}
		opensNothing(t, last, honestLog(t, a.bob, a.thread))
	})
	_, err := a.flimmer.Authorize(a.w.Ctx(), agent.Ask{Actions: chat.Send, Pick: true, Until: time.Now().Add(time.Hour)})
	answered(t, err, chat.Invalid, "the agreement with Flimmer has ended")
}

// isOut asserts what holds once a permission ended without its person: the agent is refused, the thread takes nothing but the commit that
// removes the agent, and Bob's client, the first that comes, makes it before it sends.
func (a *app) isOut(loot *world.Loot, then func()) {
	t := a.t
	t.Helper()
	a.proposed()
	for name, call := range inboxCalls(a, loot) {
		if err := call(a.w.Ctx()); !chat.Is(err, chat.Unauthenticated) || !strings.Contains(err.Error(), "this access token is unknown or over") {
			t.Errorf("%s was answered with %v", name, err)
		}
	}
	thief := steal(t, a.bob)
	answered(t, thief.sends(a.w.Ctx(), a.thread, seals(t, thief.group(a.thread), mimi.Text("x"))), chat.Blocked, "a proposed removal must be committed before anything else is taken")
	mallory := steal(t, a.alice) // a modified client commits, and leaves the agent in
	p, err := mallory.group(a.thread).Commit(mls.CommitOptions{IgnorePending: true})
	a.w.Must(err)
	_, err = mallory.calls.Commit(a.w.Ctx(), a.thread, api.Commit{Commit: p.Commit, Slot: announcement(t, a.thread, p.Next().Epoch(), slotKey(t), mallory.key), DedupKey: newDedupKey()})
	answered(t, err, chat.Blocked, "the next commit must remove leaf")
	says(a.w, a.bob, a.thread, "among ourselves again")
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	if o := overview(t, a.alice, a.thread); len(o.Readers) != 0 || len(o.Apps) != 0 {
		t.Fatalf("still there: %v", o.Apps)
	}
	if got := shown(t, a.alice, a.thread); got != "bob: among ourselves again" {
		t.Fatalf("Alice sees %q", got)
	}
	then()
}

// TestExpiry: the grant's time is over, by the server's clock.
func TestExpiry(t *testing.T) {
	var ahead atomic.Int64
	w := &world.World{T: t, Dir: t.TempDir(), Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}
	w.Start()
	t.Cleanup(func() { w.Stop() })
	a := &app{t: t, w: w}
	a.meet()
	a.grant = a.flimmer.GetsBy(a.alice, "bob", agent.Ask{Actions: chat.AllActions, Pick: true, Until: time.Now().Add(40 * time.Second)})
	g, err := a.flimmer.Look(a.grant)
	w.Must(err)
	a.thread = g.Conversation
	w.Must(a.bob.Sync(w.Ctx()))
	loot := a.flimmer.Loots(a.grant)
	group := loot.Join()
	ahead.Store(int64(41 * time.Second))
	_, err = loot.Inbox().Changes(w.Ctx(), "", 10)
	answered(t, err, chat.Unauthenticated, "this access token is unknown or over")        // a token lives no longer than its grant
	w.Must(a.bob.AddPreference(w.Ctx(), keychain.UsesApp("flimmer", keychain.UsesItNot))) // any change of a key chain wakes the sweeper
	a.isOut(loot, func() {
		if _, opened, _ := follows(t, group, loot.Key, honestLog(t, a.bob, a.thread)); len(opened) != 0 {
			t.Fatalf("the agent opens %q", opened)
		}
	})
}

// TestNoAppsWithMe: Bob wants none. Alice's client asks before it grants, the server refuses her modified one, and the app that is there goes.
func TestNoAppsWithMe(t *testing.T) {
	a := people(t)
	a.w.Must(a.bob.AddPreference(a.w.Ctx(), keychain.NoApps("", true)))
	q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	consent, err := a.alice.OpenConsent(a.w.Ctx(), q.URL)
	a.w.Must(err)
	_, err = a.alice.Allow(a.w.Ctx(), consent, device.Answer{Friend: "bob"})
	answered(t, err, chat.Forbidden, "bob wants no conversations with Flimmer in them")

	a.thread = meet(a.w, a.alice, a.bob, "flimmer")
	mallory := steal(t, a.alice)
	signed, err := a.draft(mallory, consent).Sign(mallory.key)
	a.w.Must(err)
	_, err = mallory.calls.PutGrant(a.w.Ctx(), api.PutGrant{Request: consent.Request.ID, Signed: signed})
	answered(t, err, chat.Forbidden, "bob wants no threads with this app")
}

// TestNoMoreAppsWithMe: the app is there, and reads, when Bob says that he wants none. No commit of Alice's is needed.
func TestNoMoreAppsWithMe(t *testing.T) {
	a := flimmer(t, chat.AllActions)
	loot := a.flimmer.Loots(a.grant)
	group := loot.Join()
	a.w.Must(a.bob.AddPreference(a.w.Ctx(), keychain.NoApps("flimmer", true)))
	a.isOut(loot, func() {
		if _, opened, _ := follows(t, group, loot.Key, honestLog(t, a.bob, a.thread)); len(opened) != 0 {
			t.Fatalf("the agent opens %q", opened)
		}
	})
}
