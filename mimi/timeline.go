package mimi

import (
	"slices"

	"letterlock/chat"
)

// Timeline folds the messages of a conversation, added in the order of its log, into what is shown. The zero value is empty.
type Timeline struct {
	shown  []Shown
	places map[chat.MessageID]place // of every version of a message and of a reaction
}

// place is what an ID names: a message, or a reaction under it.
type place struct {
	message  int            // index
	reaction chat.MessageID // of the first version; zero if the ID names the message itself
}

// Shown is a message as it stands after everything that came later.
type Shown struct {
	ID        chat.MessageID // of the first version
	Sender    string         // URI
	View      View           // of the latest version; of a deleted message nothing but the kind
	Edited    bool
	Deleted   bool
	Reactions []Mark // one for each sender and emoji, in order
}

// Mark is a reaction under a message.
type Mark struct {
	ID     chat.MessageID // of the message that brought it
	Sender string         // URI
	Emoji  string
}

// Effect is what a message did to the timeline.
type Effect int

// The effects.
const (
	Ignored Effect = iota // twice the same, or about something that is not there
	Added
	Edited
	Deleted
	Reacted // put a reaction, changed it or took it back
	Refused // an edit or delete of another sender's message
)

// MayReplace reports whether a message of the sender later may edit or delete a message of the sender first, both as URIs: only the
// original sender may, with whichever device.
func MayReplace(first, later string) bool { return first == later }

// Add folds in the next message of the log.
func (t *Timeline) Add(m Message) Effect {
	if _, twice := t.places[m.ID]; twice {
		return Ignored
	}
	v := m.Content.View()
	switch v.Kind {
	case KindDelete:
		return t.delete(m)
	case KindEdit:
		return t.edit(m)
	case KindReaction:
		return t.react(m, v)
	}
	t.append(m, v)
	return Added
}

// Shown is the timeline, oldest first. The caller may keep it.
func (t *Timeline) Shown() []Shown {
	shown := slices.Clone(t.shown)
	for i := range shown {
		shown[i].Reactions = distinct(shown[i].Reactions)
	}
	return shown
}

// Find is a message by the ID of any of its versions, or of a reaction under it.
func (t *Timeline) Find(id chat.MessageID) (Shown, bool) {
	p, ok := t.places[id]
	if !ok {
		return Shown{}, false
	}
	s := t.shown[p.message]
	s.Reactions = distinct(s.Reactions)
	return s, true
}

// append shows a new message at the end.
func (t *Timeline) append(m Message, v View) *Shown {
	t.note(m.ID, place{message: len(t.shown)})
	t.shown = append(t.shown, Shown{ID: m.ID, Sender: m.Sender, View: v})
	return &t.shown[len(t.shown)-1]
}

func (t *Timeline) note(id chat.MessageID, p place) {
	if t.places == nil {
		t.places = map[chat.MessageID]place{}
	}
	t.places[id] = p
}

func (t *Timeline) react(m Message, v View) Effect {
	p, ok := t.places[*v.InReplyTo]
	if !ok || t.shown[p.message].Deleted {
		return Ignored
	}
	s := &t.shown[p.message]
	s.Reactions = append(s.Reactions, Mark{ID: m.ID, Sender: m.Sender, Emoji: v.Emoji})
	t.note(m.ID, place{message: p.message, reaction: m.ID})
	return Reacted
}

func (t *Timeline) delete(m Message) Effect {
	p, ok := t.places[*m.Content.Replaces]
	if !ok {
		return Ignored
	}
	s := &t.shown[p.message]
	if p.reaction != (chat.MessageID{}) {
		return s.changeMark(p.reaction, m.Sender, "")
	}
	if !MayReplace(s.Sender, m.Sender) {
		return Refused
	}
	if s.Deleted {
		return Ignored
	}
	*s = Shown{ID: s.ID, Sender: s.Sender, View: View{Kind: KindDelete}, Deleted: true}
	return Deleted
}

func (t *Timeline) edit(m Message) Effect {
	c := m.Content
	p, ok := t.places[*c.Replaces]
	c.Replaces = nil // what it would show by itself
	if !ok {
		t.append(m, c.View()).Edited = true // to this reader, who never had the first version, it is the sender's word
		return Added
	}
	s := &t.shown[p.message]
	if p.reaction != (chat.MessageID{}) {
		return t.editMark(m, p)
	}
	if !MayReplace(s.Sender, m.Sender) {
		return Refused
	}
	if c.InReplyTo == nil {
		c.InReplyTo = s.View.InReplyTo
	}
	v := c.View()
	if s.Deleted || v.Kind == KindReaction {
		return Ignored
	}
	s.View, s.Edited = v, true
	t.note(m.ID, p)
	return Edited
}

// editMark changes a reaction into another one.
func (t *Timeline) editMark(m Message, p place) Effect {
	emoji, ok := emojiOf(m.Content)
	if !ok {
		return Ignored
	}
	effect := t.shown[p.message].changeMark(p.reaction, m.Sender, emoji)
	if effect == Reacted {
		t.note(m.ID, p)
	}
	return effect
}

// changeMark gives a reaction of the sender another emoji; with none it takes the reaction back.
func (s *Shown) changeMark(id chat.MessageID, sender, emoji string) Effect {
	i := slices.IndexFunc(s.Reactions, func(r Mark) bool { return r.ID == id })
	if i < 0 {
		return Ignored
	}
	if !MayReplace(s.Reactions[i].Sender, sender) {
		return Refused
	}
	if emoji == "" {
		s.Reactions = slices.Delete(s.Reactions, i, i+1)
	} else {
		s.Reactions[i].Emoji = emoji
	}
	return Reacted
}

// distinct keeps the first reaction of each sender and emoji, in a new slice.
func distinct(all []Mark) []Mark {
	seen := map[Mark]bool{}
	var kept []Mark
	for _, r := range all {
		if key := (Mark{Sender: r.Sender, Emoji: r.Emoji}); !seen[key] {
			seen[key] = true
			kept = append(kept, r)
		}
	}
	return kept
}
