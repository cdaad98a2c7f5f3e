// Package people tests what people do with each other, on a real server with real devices.
package people

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/keychain"
	"letterlock/mimi"
)

// texts are the messages that a person sees, "handle: text".
func texts(t *testing.T, p *world.Person, id chat.ConversationID) (list []string) {
	t.Helper()
	lines, err := p.Lines(id)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		switch {
		case l.Kind != "message":
		case l.Deleted:
			list = append(list, l.From+": (deleted)")
		default:
			list = append(list, l.From+": "+l.View.Text)
		}
	}
	return list
}

func expect(t *testing.T, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

// pair is Alice and Bob with a private conversation.
func pair(t *testing.T) (*world.World, *world.Person, *world.Person, chat.ConversationID) {
	t.Helper()
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	id, err := alice.With(w.Ctx(), "bob", "")
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	return w, alice, bob, id
}

func send(t *testing.T, w *world.World, p *world.Person, id chat.ConversationID, text string) chat.MessageID {
	t.Helper()
	s, err := p.Send(w.Ctx(), id, mimi.Text(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.ID
}

func TestConversation(t *testing.T) {
	w, alice, bob, id := pair(t)
	first := send(t, w, alice, id, "Hello")
	w.Must(bob.Sync(w.Ctx()))
	send(t, w, bob, id, "Hi")
	_, err := alice.Send(w.Ctx(), id, mimi.Edit(first, "Hello, Bob"))
	w.Must(err)
	reaction, err := mimi.Reaction(first, "👍")
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	_, err = bob.Send(w.Ctx(), id, reaction)
	w.Must(err)
	w.Must(alice.Sync(w.Ctx()))
	w.Must(bob.Sync(w.Ctx()))
	for _, p := range []*world.Person{alice, bob} {
		expect(t, texts(t, p, id), "alice: Hello, Bob", "bob: Hi")
	}
	if _, err := bob.DeleteMessage(w.Ctx(), id, first); !chat.Is(err, chat.Forbidden) {
		t.Fatalf("bob deleted alice's message: %v", err)
	}
	_, err = alice.DeleteMessage(w.Ctx(), id, first)
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	for _, p := range []*world.Person{alice, bob} {
		expect(t, texts(t, p, id), "alice: (deleted)", "bob: Hi")
	}
}

func TestAwayForAWeek(t *testing.T) {
	w, alice, bob, id := pair(t)
	var want []string
	for i := range 60 {
		text := fmt.Sprintf("message %d", i)
		send(t, w, alice, id, text)
		want = append(want, "alice: "+text)
		if i == 30 {
			bob.Restart()
		}
	}
	w.Must(bob.Sync(w.Ctx()))
	w.Must(bob.Sync(w.Ctx()))
	expect(t, texts(t, bob, id), want...)
}

// lostAnswers carries calls out and loses their answers.
type lostAnswers struct {
	world.Calls
	left *int
}

var errLost = chat.Errorf(chat.Unavailable, "the answer was lost")

func (l lostAnswers) SendMessage(ctx context.Context, c chat.ConversationID, m api.Message) (api.Accepted, error) {
	a, err := l.Calls.SendMessage(ctx, c, m)
	if *l.left > 0 {
		*l.left--
		return api.Accepted{}, errLost
	}
	return a, err
}

func (l lostAnswers) Commit(ctx context.Context, c chat.ConversationID, m api.Commit) (api.Accepted, error) {
	a, err := l.Calls.Commit(ctx, c, m)
	if *l.left > 0 {
		*l.left--
		return api.Accepted{}, errLost
	}
	return a, err
}

func TestLostAnswersDoubleNothing(t *testing.T) {
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	left := 1
	alice.Wrap = func(s device.Server) device.Server { return lostAnswers{s, &left} }
	_, err := alice.With(w.Ctx(), "bob", "")
	if !errors.Is(err, errLost) {
		t.Fatalf("the commit's answer was not lost: %v", err)
	}
	alice.Restart()
	w.Must(alice.Sync(w.Ctx()))
	id, err := alice.With(w.Ctx(), "bob", "")
	w.Must(err)
	left = 1
	if _, err := alice.Send(w.Ctx(), id, mimi.Text("once")); !errors.Is(err, errLost) {
		t.Fatalf("the message's answer was not lost: %v", err)
	}
	alice.Restart()
	w.Must(alice.Sync(w.Ctx()))
	w.Must(bob.Sync(w.Ctx()))
	expect(t, texts(t, alice, id), "alice: once")
	expect(t, texts(t, bob, id), "alice: once")
	list, err := bob.Conversations()
	w.Must(err)
	if len(list) != 1 {
		t.Fatalf("bob has %d conversations", len(list))
	}
}

func TestServerStopsAndReturns(t *testing.T) {
	w, alice, bob, id := pair(t)
	w.Stop()
	if _, err := alice.Send(w.Ctx(), id, mimi.Text("while you were down")); !chat.Is(err, chat.Unavailable) {
		t.Fatalf("sending to a stopped server: %v", err)
	}
	w.Start()
	w.Must(alice.Sync(w.Ctx()))
	w.Must(bob.Sync(w.Ctx()))
	expect(t, texts(t, bob, id), "alice: while you were down")
}

func TestSecondDeviceByRecovery(t *testing.T) {
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	id, err := alice.With(w.Ctx(), "bob", "")
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	phone := w.Recover("alice", alice.Phrase, "phone")
	w.Must(bob.Sync(w.Ctx())) // a member adds the new device once the key chain shows it
	w.Must(phone.Sync(w.Ctx()))
	send(t, w, bob, id, "to both of you")
	w.Must(phone.Sync(w.Ctx()))
	expect(t, texts(t, phone, id), "bob: to both of you")
	send(t, w, phone, id, "from the phone")
	w.Must(alice.Sync(w.Ctx()))
	expect(t, texts(t, alice, id), "bob: to both of you", "alice: from the phone")
}

func TestRemovedDeviceIsOut(t *testing.T) {
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	id, err := alice.With(w.Ctx(), "bob", "")
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	phone := w.Recover("alice", alice.Phrase, "phone")
	w.Must(bob.Sync(w.Ctx()))
	w.Must(phone.Sync(w.Ctx()))
	// The old device is stolen: the new one removes it. The server proposes the Remove with the key chain as proof, and a member commits.
	w.Must(phone.RemoveDevice(w.Ctx(), alice.Self().Device, keychain.Stolen))
	w.Must(bob.Sync(w.Ctx()))
	send(t, w, bob, id, "without the thief")
	if err := alice.Sync(w.Ctx()); !chat.Is(err, chat.Unauthenticated) {
		t.Fatalf("the removed device is still served: %v", err)
	}
	w.Must(phone.Sync(w.Ctx()))
	expect(t, texts(t, phone, id), "bob: without the thief")
	if evidence, err := bob.ListEvidence(); err != nil || len(evidence) > 0 {
		t.Fatalf("bob took the server's proposal for a lie: %v %v", evidence, err)
	}
}
