package device

import (
	"context"
	"slices"
	"time"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
)

// Overview is one conversation in a list.
type Overview struct {
	ID            chat.ConversationID `json:"id"`
	Partner       string              `json:"partner,omitempty"`
	People        []string            `json:"people"`            // the others
	Readers       []string            `json:"readers,omitempty"` // partner apps that can read it
	Apps          []string            `json:"apps,omitempty"`    // what partner apps may do, a sentence each
	Unread        int                 `json:"unread"`
	Lifetime      int64               `json:"lifetime,omitempty"` // seconds after which what this device sends disappears; 0: it stays
	Waiting       int                 `json:"waiting,omitempty"`  // messages not yet sent
	Held          int                 `json:"held,omitempty"`     // of these, held because somebody new can read
	Problem       string              `json:"problem,omitempty"`
	Left          bool                `json:"left,omitempty"`
	Epoch         uint64              `json:"epoch"`
	Authenticator []byte              `json:"authenticator,omitempty"` // of the epoch: equal for all who see the same conversation
}

// Line is one line as it is shown.
type Line struct {
	Seq       uint64         `json:"seq"`
	At        int64          `json:"at"`
	Kind      string         `json:"kind"` // message, event, withheld, expired, waiting, held
	From      string         `json:"from,omitempty"`
	Through   string         `json:"through,omitempty"` // the partner app that wrote it for that person
	ID        chat.MessageID `json:"id,omitzero"`
	View      *mimi.View     `json:"view,omitempty"`
	Edited    bool           `json:"edited,omitempty"`
	Deleted   bool           `json:"deleted,omitempty"`
	Reactions []Mark         `json:"reactions,omitempty"`
	Event     EventKind      `json:"event,omitempty"`
	Text      string         `json:"text,omitempty"`
}

// Mark is a reaction and who gave it.
type Mark struct {
	From  string `json:"from"`
	Emoji string `json:"emoji"`
}

// Conversations lists what the device knows, as of the last sync.
func (c *Client) Conversations() ([]Overview, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids, err := c.conversationIDs()
	if err != nil {
		return nil, err
	}
	list := []Overview{}
	for _, id := range ids {
		o, err := c.overview(id)
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

func (c *Client) overview(id chat.ConversationID) (Overview, error) {
	o := Overview{ID: id}
	conv, g, err := c.readGroup(id)
	if err != nil {
		return o, err
	}
	life, err := c.lifetime(id)
	if err != nil {
		return o, err
	}
	o.Lifetime = int64(life / time.Second)
	o.Partner, o.Left, o.Problem = conv.Partner, conv.Left, conv.Broken
	if o.Problem == "" && len(conv.Warned) > 0 {
		o.Problem = conv.Warned[0]
	}
	if g != nil {
		o.Epoch, o.Authenticator = g.Epoch(), g.EpochAuthenticator()
		o.People = others(peopleOf(g.Roster()), c.self.Handle)
		t, err := grant.ThreadOf(g.Roster())
		if err != nil {
			return o, err
		}
		for _, e := range t.Grants {
			o.Apps = append(o.Apps, c.grantEvent(0, 0, t.Partner, e).Text)
			if e.Actions.Has(chat.Read) {
				o.Readers = append(o.Readers, c.partnerName(t.Partner))
			}
		}
	}
	err = c.eachItem(id, seqName(conv.Read)+"~", func(i Item) {
		if i.Kind == ItemMessage && i.Handle != c.self.Handle || i.Kind == ItemMessage && i.Partner != "" {
			o.Unread++
		}
	})
	if err != nil {
		return o, err
	}
	return o, c.eachOutgoing(id, func(_ string, m outgoing) bool {
		if m.over() {
			return true
		}
		o.Waiting++
		if m.Held {
			o.Held++
		}
		return true
	})
}

// readGroup is loadGroup for looking at: a conversation that was stopped or left can still be looked at.
func (c *Client) readGroup(id chat.ConversationID) (conv conversation, g *mls.Group, err error) {
	err = c.state.View(func(tx StateTx) error {
		known, err := load(tx, bucketConversation, id.String(), &conv)
		if err != nil {
			return err
		}
		if !known {
			return chat.Errorf(chat.NotFound, "this device knows no conversation %s", id)
		}
		data, err := tx.Get(bucketGroup, id.String())
		if err != nil || data == nil {
			return err
		}
		g, err = mls.UnmarshalGroup(data, c.key.Private())
		return err
	})
	return conv, g, err
}

func (c *Client) eachItem(id chat.ConversationID, after string, fn func(Item)) error {
	return c.state.View(func(tx StateTx) error {
		bucket := bucketItems + id.String()
		return tx.List(bucket, after, func(name string, _ []byte) (bool, error) {
			var item Item
			if _, err := load(tx, bucket, name, &item); err != nil {
				return false, err
			}
			fn(item)
			return true, nil
		})
	})
}

// Lines shows a conversation from its beginning on this device: messages with their edits, deletes and reactions folded in, and what
// happened in between. A message that has disappeared has no line. It marks everything as read.
func (c *Client) Lines(id chat.ConversationID) ([]Line, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conv, _, err := c.readGroup(id)
	if err != nil {
		return nil, err
	}
	if err := c.forgetOver(); err != nil {
		return nil, err
	}
	var items, fresh []Item
	if err := c.eachItem(id, "", func(i Item) {
		items = append(items, i)
		if i.Seq > conv.Read {
			fresh = append(fresh, i)
		}
	}); err != nil {
		return nil, err
	}
	lines := c.fold(items)
	err = c.eachOutgoing(id, func(_ string, m outgoing) bool {
		if content, err := mimi.Unmarshal(m.Content); err == nil {
			v := content.View()
			lines = append(lines, Line{At: m.Queued, Kind: waitingKind(m), From: c.self.Handle, ID: m.ID, View: &v})
		}
		return true
	})
	if err != nil || conv.Read == conv.Cursor {
		return lines, err
	}
	conv.Read = conv.Cursor
	return lines, c.state.Update(func(tx StateTx) error {
		if err := c.noteRead(tx, id, fresh); err != nil {
			return err
		}
		return save(tx, bucketConversation, id.String(), conv)
	})
}

func waitingKind(m outgoing) string {
	if m.Held {
		return "held"
	}
	return "waiting"
}

// fold turns the log's items into lines.
func (c *Client) fold(items []Item) []Line {
	var timeline mimi.Timeline
	deleted := map[chat.MessageID]bool{}
	for _, i := range items {
		if i.Deleted || i.Kind == ItemGone {
			deleted[i.ID] = true
		}
		if first := replacedBy(i); first != nil && deleted[*first] {
			continue // an edit that comes after the delete brings nothing back
		}
		if i.Kind == ItemMessage && len(i.Content) > 0 {
			if content, err := mimi.Unmarshal(i.Content); err == nil {
				timeline.Add(mimi.Message{ID: i.ID, Sender: i.Sender, Content: content})
			}
		}
	}
	lines := []Line{}
	for _, i := range items {
		switch i.Kind {
		case ItemEvent:
			lines = append(lines, Line{Seq: i.Seq, At: i.At, Kind: "event", Event: i.Event, Text: i.Text})
		case ItemWithheld, ItemExpired:
			lines = append(lines, withheld(i))
		case ItemMessage:
			if line, ok := c.message(i, &timeline); ok {
				lines = append(lines, line)
			}
		}
	}
	return lines
}

func withheld(i Item) Line {
	if i.Deleted {
		return Line{Seq: i.Seq, At: i.At, Kind: "message", Deleted: true}
	}
	if i.Kind == ItemExpired {
		return Line{Seq: i.Seq, At: i.At, Kind: "expired", Text: "A message was gone before this device fetched it. The server says that its time was over; it cannot prove that."}
	}
	return Line{Seq: i.Seq, At: i.At, Kind: "withheld", Text: "A message was withheld by the server."}
}

// message is the line of a message; edits, deletes and reactions have none of their own.
func (c *Client) message(i Item, t *mimi.Timeline) (Line, bool) {
	line := Line{Seq: i.Seq, At: i.At, Kind: "message", From: i.Handle, ID: i.ID}
	if i.Partner != "" {
		line.Through = c.partnerName(i.Partner)
	}
	if i.Deleted {
		line.Deleted = true
		return line, true
	}
	shown, ok := t.Find(i.ID)
	if !ok || shown.ID != i.ID {
		return line, false
	}
	line.View, line.Edited, line.Deleted = &shown.View, shown.Edited, shown.Deleted
	for _, m := range shown.Reactions {
		line.Reactions = append(line.Reactions, Mark{c.handleOf(m.Sender), m.Emoji})
	}
	return line, true
}

// handleOf reads the handle out of an account URI.
func (c *Client) handleOf(uri string) string {
	prefix := chat.AccountURI(c.self.Host, "")
	if len(uri) > len(prefix) && uri[:len(prefix)] == prefix {
		return uri[len(prefix):]
	}
	return uri
}

// With finds the conversation with exactly this person: the private one, or the thread for a partner. It is made if there is none.
func (c *Client) With(ctx context.Context, handle, partner string) (chat.ConversationID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.with(ctx, handle, partner)
}

func (c *Client) with(ctx context.Context, handle, partner string) (chat.ConversationID, error) {
	if handle == c.self.Handle {
		return chat.ConversationID{}, chat.Errorf(chat.Invalid, "a conversation needs somebody else")
	}
	id, found, err := c.findWith(handle, partner)
	if err != nil {
		return id, err
	}
	if !found {
		return c.found(ctx, handle, partner)
	}
	_, g, err := c.loadGroup(id)
	if err != nil || slices.Contains(peopleOf(g.Roster()), handle) {
		return id, err
	}
	return id, c.addPeople(ctx, id, handle)
}

// findWith looks for a conversation that is just with this person, and for that partner or none. One whose friend was never added,
// because the client stopped in between, counts and is finished.
func (c *Client) findWith(handle, partner string) (chat.ConversationID, bool, error) {
	ids, err := c.conversationIDs()
	if err != nil {
		return chat.ConversationID{}, false, err
	}
	for _, id := range ids {
		conv, g, err := c.readGroup(id)
		if err != nil {
			return id, false, err
		}
		if conv.Left || conv.Broken != "" || conv.Partner != partner || g == nil {
			continue
		}
		with := others(peopleOf(g.Roster()), c.self.Handle)
		if slices.Equal(with, []string{handle}) || len(with) == 0 && conv.With == handle {
			return id, true, nil
		}
	}
	return chat.ConversationID{}, false, nil
}

// FindWith is With for one that must exist.
func (c *Client) FindWith(handle, partner string) (chat.ConversationID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, found, err := c.findWith(handle, partner)
	switch {
	case err != nil || found:
		return id, err
	case partner != "":
		return id, chat.Errorf(chat.NotFound, "there is no thread with %s that was made for %s", handle, partner)
	}
	return id, chat.Errorf(chat.NotFound, "there is no conversation with %s yet", handle)
}

// Waiter returns a function that waits for news of a conversation, at most so many seconds. It needs the device's state no more: another
// command may use the folder meanwhile.
func (c *Client) Waiter(id chat.ConversationID) (func(ctx context.Context, seconds int) error, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conv, _, err := c.readGroup(id)
	if err != nil {
		return nil, err
	}
	server := c.server
	return func(ctx context.Context, seconds int) error {
		_, err := server.Log(ctx, id, conv.Cursor, 1, seconds)
		return err
	}, nil
}
