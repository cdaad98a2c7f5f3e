package attacks

import (
	"context"
	"slices"
	"strings"
	"testing"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/mimi"
)

// deafServer takes no message.
type deafServer struct{ world.Calls }

func (deafServer) SendMessage(context.Context, chat.ConversationID, api.Message) (api.Accepted, error) {
	return api.Accepted{}, chat.Errorf(chat.Unavailable, "the train is in a tunnel")
}

// TestQueuedMessageNeverCrossesANewReader: Bob wrote while nobody but Alice could read. Before it leaves, Alice lets Flimmer read. The message,
// sealed already and tried again, waits until Bob has seen that and sends it once more.
func TestQueuedMessageNeverCrossesANewReader(t *testing.T) {
	w := world.New(t)
	flimmer := w.Flimmer()
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	first := flimmer.Gets(alice, "bob", chat.Send)
	w.Must(bob.Sync(w.Ctx()))
	id, err := bob.FindWith("alice", "flimmer")
	w.Must(err)

	lies(bob, func(s world.Calls) device.Server { return deafServer{s} })
	_, err = bob.Send(w.Ctx(), id, mimi.Text("between the two of us"))
	answered(t, err, chat.Unavailable, "the train is in a tunnel")
	flimmer.GetsBy(alice, "bob", agent.Ask{Actions: chat.Send | chat.Read, Previous: first})
	bob.Wrap = nil
	w.Must(bob.Sync(w.Ctx()))

	shows(t, bob, id, "(held)")
	if o := overview(t, bob, id); o.Held != 1 || !slices.Equal(o.Readers, []string{"Flimmer"}) {
		t.Fatalf("Bob's list says: %+v", o)
	}
	if slices.Contains(entryKinds(honestLog(t, alice, id)), api.KindMessage) {
		t.Fatal("the message went out")
	}
	lines, err := bob.Lines(id)
	w.Must(err)
	if !slices.ContainsFunc(lines, func(l device.Line) bool {
		return l.Event == device.EventExposed && strings.HasPrefix(l.Text, "Flimmer can read this thread from here on")
	}) {
		t.Fatalf("Bob is not told: %+v", lines)
	}
	w.Must(bob.Sync(w.Ctx())) // time alone changes nothing
	shows(t, bob, id, "(held)")

	_, err = bob.Resend(w.Ctx(), id, lines[len(lines)-1].ID)
	w.Must(err)
	w.Must(alice.Sync(w.Ctx()))
	shows(t, alice, id, "bob: between the two of us")
}
