package attacks

import (
	"crypto/ed25519"
	"errors"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/slot"
)

// app is Alice and Bob with a thread in which Flimmer has a grant of Alice's.
type app struct {
	t          *testing.T
	w          *world.World
	alice, bob *world.Person
	flimmer    *world.Partner
	grant      chat.GrantID
	thread     chat.ConversationID
}

// flimmer lets Flimmer have a grant of Alice's in a thread with Bob.
func flimmer(t *testing.T, actions chat.Actions) *app {
	t.Helper()
	a := people(t)
	a.gets(actions)
	return a
}

// people is Alice, Bob and Flimmer, which nobody has allowed anything yet.
func people(t *testing.T) *app {
	t.Helper()
	a := &app{t: t, w: world.New(t)}
	a.meet()
	return a
}

func (a *app) meet() {
	a.alice, a.bob, a.flimmer = a.w.SignUp("alice"), a.w.SignUp("bob"), a.w.Flimmer()
	a.w.Befriend(a.alice, a.bob)
}

func (a *app) gets(actions chat.Actions) {
	a.t.Helper()
	a.grant = a.flimmer.Gets(a.alice, "bob", actions)
	g, err := a.flimmer.Look(a.grant)
	a.w.Must(err)
	a.thread = g.Conversation
	a.w.Must(a.bob.Sync(a.w.Ctx()))
}

// widens lets Alice allow more in the same thread; the agent has another grant from here on.
func (a *app) widens(actions chat.Actions) {
	a.t.Helper()
	a.grant = a.flimmer.GetsBy(a.alice, "", agent.Ask{Actions: actions, Previous: a.grant})
	a.w.Must(a.bob.Sync(a.w.Ctx()))
}

// reads is what the agent reads, text by text.
func (a *app) reads() string {
	a.t.Helper()
	c, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 100)
	a.w.Must(err)
	return readTexts(c)
}

func readTexts(c agent.Changes) string {
	var list []string
	for _, m := range c.Messages {
		list = append(list, m.Sender+": "+m.Text)
	}
	return strings.Join(list, " | ")
}

// post is a text through the slot, as somebody makes it who has the keys in loot and knows the thread's slot. change may spoil its header.
func (a *app) post(l *world.Loot, text string, change func(*slot.Header)) []byte {
	a.t.Helper()
	return a.postTo(slotOf(a.t, a.alice, a.thread), l, text, change)
}

func (a *app) postTo(key slot.PublicKey, l *world.Loot, text string, change func(*slot.Header)) []byte {
	a.t.Helper()
	host, content, now := a.alice.Self().Host, mimi.Text(text), time.Now().UnixMilli()
	data, err := mimi.Marshal(content)
	a.w.Must(err)
	h := slot.Header{Host: host, Conversation: a.thread, Epoch: register(a.t, a.alice, a.thread).Epoch, Grant: l.Grant, Counter: uint64(now),
		Message: mimi.ID(chat.AgentURI(host, "flimmer", l.Grant), chat.ConversationURI(host, a.thread), data, content.Salt), At: now}
	if change != nil {
		change(&h)
	}
	sealed, err := slot.Seal(key, h, data, l.Key)
	a.w.Must(err)
	return sealed
}

// takeBack is a signed request to delete a message.
func (a *app) takeBack(l *world.Loot, m chat.MessageID, change func(*slot.TakeBack)) []byte {
	a.t.Helper()
	tb := slot.TakeBack{Host: a.alice.Self().Host, Conversation: a.thread, Epoch: register(a.t, a.alice, a.thread).Epoch, Grant: l.Grant, Message: m,
		At: time.Now().UnixMilli()}
	if change != nil {
		change(&tb)
	}
	signed, err := slot.SignTakeBack(tb, l.Key)
	a.w.Must(err)
	return signed
}

// shows lets Bob's server show him entries that the honest log does not have, after the last that he has, and Bob takes them.
func (a *app) shows(p *world.Person, kind api.EntryKind, bodies ...[]byte) {
	a.t.Helper()
	var list []api.Entry
	for i, b := range bodies {
		list = append(list, next(a.t, p, a.thread, uint64(i+1), kind, b))
	}
	injects(p, list...)
	a.w.Must(p.Sync(a.w.Ctx()))
}

// opensNothing tries every entry of a log with a group's secrets, and with the slot key that the group derives.
func opensNothing(t *testing.T, g *mls.Group, entries []api.Entry, agentKeys ...[]byte) {
	t.Helper()
	for _, e := range entries {
		switch e.Kind {
		case api.KindMessage:
			if app, err := g.Open(e.Body); err == nil {
				t.Errorf("entry %d opens: %q", e.Seq, app.Plaintext)
			}
		case api.KindPost:
			secret, err := g.Export(slot.Label, g.Roster().ConfirmedTranscriptHash(), slot.Length)
			if err != nil {
				t.Fatal(err)
			}
			key, _, err := slot.Derive(secret)
			if err != nil {
				t.Fatal(err)
			}
			for _, agentKey := range agentKeys {
				if _, content, err := slot.Open(e.Body, key, agentKey); err == nil {
					t.Errorf("the post in entry %d opens: %q", e.Seq, content)
				}
			}
		}
	}
}

// kinds counts the entries of a kind.
func kinds(entries []api.Entry, kind api.EntryKind) (n int) {
	for _, e := range entries {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// threadOf is what a group's context lists.
func threadOf(t *testing.T, g *mls.Group) grant.Thread {
	t.Helper()
	thread, err := grant.ThreadOf(g.Roster())
	if err != nil {
		t.Fatal(err)
	}
	return thread
}

// withThread is a group's extensions with another list of grants.
func withThread(g *mls.Group, thread grant.Thread) (x roster.Extensions) {
	for _, e := range g.Roster().Extensions() {
		if e.Type == grant.ExtensionType {
			e.Data = thread.Marshal()
		}
		x = append(x, e)
	}
	return x
}

// follows moves a group along a log as far as its secrets lead, and says whether it was removed on the way. It opens what it can, and
// keeps the secrets of the epoch that it was removed from, as no honest library does.
func follows(t *testing.T, g *mls.Group, key ed25519.PrivateKey, log []api.Entry) (last *mls.Group, opened []string, removed bool) {
	t.Helper()
	for _, e := range log {
		switch e.Kind {
		case api.KindCommit, api.KindProposal:
			kept, err := g.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			done, err := g.Process(e.Body, noClock)
			if err != nil {
				continue
			}
			if done.Commit == nil {
				g = done.Group
				continue
			}
			next, err := done.Commit.Merge()
			if errors.Is(err, mls.ErrRemoved) {
				removed = true
				if g, err = mls.UnmarshalGroup(kept, key); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err == nil {
				g = next
			}
		case api.KindMessage:
			if m, err := g.Open(e.Body); err == nil {
				opened = append(opened, textOf(t, m.Plaintext))
			}
		}
	}
	return g, opened, removed
}

func textOf(t *testing.T, content []byte) string {
	t.Helper()
	c, err := mimi.Unmarshal(content)
	if err != nil {
		t.Fatal(err)
	}
	return c.View().Text
}
