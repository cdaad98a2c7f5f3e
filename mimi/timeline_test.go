package mimi

import (
	"reflect"
	"testing"

	"letterlock/chat"
)

func react(t *testing.T, to chat.MessageID, emoji string) Content {
	t.Helper()
	c, err := Reaction(to, emoji)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// line is a timeline whose every step says what it should do.
type line struct {
	*testing.T
	Timeline
}

func (l *line) say(sender string, c Content, want Effect) Message {
	l.Helper()
	m := open(l, c, sender)
	if effect := l.Add(m); effect != want {
		l.Errorf("effect %v, want %v", effect, want)
	}
	return m
}

func (l *line) texts(want ...string) {
	l.Helper()
	var got []string
	for _, s := range l.Shown() {
		got = append(got, s.View.Text)
	}
	if !reflect.DeepEqual(got, want) {
		l.Errorf("shown %q, want %q", got, want)
	}
}

func TestOnlyTheSenderEdits(t *testing.T) {
	l := &line{T: t}
	first := l.say(alice, Text("hello"), Added)
	l.say(bob, Edit(first.ID, "I owe Bob money"), Refused)
	l.say(flimmer, Edit(first.ID, "buy a ticket"), Refused)
	l.texts("hello")
	edit := l.say(alice, Edit(first.ID, "hello Bob"), Edited)
	l.say(alice, Edit(edit.ID, "hello, Bob"), Edited)
	l.say(bob, Edit(edit.ID, "bye"), Refused)
	l.texts("hello, Bob")
	if s := l.Shown()[0]; !s.Edited || s.ID != first.ID || s.View.Kind != KindText {
		t.Errorf("%+v", s)
	}
	if s, ok := l.Find(edit.ID); !ok || s.ID != first.ID {
		t.Error("the edit does not lead to the message")
	}
}

func TestOnlyTheSenderDeletes(t *testing.T) {
	l := &line{T: t}
	post := l.say(flimmer, Text("Metropolis"), Added)
	l.say(alice, Delete(post.ID), Refused)
	l.say(bob, Delete(post.ID), Refused)
	l.say(bob, react(t, post.ID, "\u2764"), Reacted)
	l.texts("Metropolis")
	l.say(flimmer, Delete(post.ID), Deleted)
	l.texts("")
	l.say(flimmer, Delete(post.ID), Ignored)
	l.say(flimmer, Edit(post.ID, "back again"), Ignored)
	l.say(bob, react(t, post.ID, "\u2764"), Ignored)
	if want := (Shown{ID: post.ID, Sender: flimmer, View: View{Kind: KindDelete}, Deleted: true}); !reflect.DeepEqual(l.Shown()[0], want) {
		t.Errorf("what is left of a deleted message: %+v", l.Shown()[0])
	}
}

func TestTwiceIsOnce(t *testing.T) {
	l := &line{T: t}
	c := Text("hello")
	first := l.say(alice, c, Added)
	l.say(alice, c, Ignored)
	r := react(t, first.ID, "\u2764")
	l.say(bob, r, Reacted)
	l.say(bob, r, Ignored)
	e := Edit(first.ID, "hello 2")
	l.say(alice, e, Edited)
	l.say(alice, Edit(first.ID, "hello 3"), Edited)
	l.say(alice, e, Ignored) // an old edit delivered again does not bring the old text back
	l.texts("hello 3")
}

func TestReactions(t *testing.T) {
	l := &line{T: t}
	first := l.say(alice, Text("hello"), Added)
	heart := l.say(bob, react(t, first.ID, "\u2764"), Reacted)
	l.say(bob, react(t, first.ID, "\u2764"), Reacted)
	l.say(alice, react(t, first.ID, "\u2764"), Reacted)
	before := l.Shown()
	if n := len(before[0].Reactions); n != 2 {
		t.Errorf("%d reactions, want one for each of two people", n)
	}
	l.say(alice, Delete(heart.ID), Refused)
	l.say(alice, Edit(heart.ID, "x"), Ignored)
	change := react(t, first.ID, "\U0001f600")
	change.Replaces = &heart.ID
	l.say(alice, change, Refused)
	l.say(bob, change, Reacted)
	if r := l.Shown()[0].Reactions; len(r) != 3 || r[0].Emoji != "\U0001f600" {
		t.Errorf("changed: %v", r)
	}
	l.say(bob, Delete(heart.ID), Reacted)
	l.say(bob, Delete(heart.ID), Ignored)
	if r := l.Shown()[0].Reactions; len(r) != 2 {
		t.Errorf("taken back: %v", r)
	}
	if len(before[0].Reactions) != 2 || before[0].Reactions[0].Emoji != "\u2764" {
		t.Error("what Shown returned earlier has changed")
	}
	l.say(bob, react(t, chat.MessageID{9}, "\u2764"), Ignored)
	l.texts("hello")
}

// Somebody who joined later gets edits and deletes of what they never had.
func TestWithoutTheFirstVersion(t *testing.T) {
	l := &line{T: t}
	unknown := chat.MessageID{9}
	l.say(alice, Delete(unknown), Ignored)
	l.say(alice, Edit(unknown, "as I said"), Added)
	l.texts("as I said")
	if s := l.Shown()[0]; !s.Edited || s.Sender != alice || s.View.Kind != KindText {
		t.Errorf("%+v", s)
	}
}

func TestEditKeepsWhatWasAnswered(t *testing.T) {
	l := &line{T: t}
	first := l.say(alice, Text("hello"), Added)
	second := l.say(bob, Reply(first.ID, "yo"), Added)
	l.say(bob, Edit(second.ID, "yes"), Edited)
	if v := l.Shown()[1].View; v.Kind != KindReply || *v.InReplyTo != first.ID {
		t.Errorf("%+v", v)
	}
	odd := react(t, first.ID, "\u2764")
	odd.Replaces = &second.ID
	l.say(bob, odd, Ignored)
	l.texts("hello", "yes")
}

func TestNothingIsDropped(t *testing.T) {
	l := &line{T: t}
	l.say(alice, content(single("application/x-unknown", "")), Added)
	if l.Shown()[0].View.Text == "" {
		t.Error("nothing is shown of an unknown message")
	}
}
