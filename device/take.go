package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/slot"
)

// ItemKind is what a line of a conversation is.
type ItemKind uint8

// The kinds.
const (
	ItemMessage  ItemKind = 1
	ItemEvent    ItemKind = 2
	ItemWithheld ItemKind = 3 // deleted on the server before this device saw it, and nobody's delete has been seen
	ItemGone     ItemKind = 4 // a message whose time is over; what it said is forgotten
	ItemExpired  ItemKind = 5 // not there any more when this device came, since its time was over: so says the server
)

// EventKind is what happened, for programs; the sentence is for people.
type EventKind string

// The kinds of event.
const (
	EventJoined  EventKind = "joined"
	EventLeft    EventKind = "left"
	EventPeople  EventKind = "people"  // somebody was added or removed
	EventGranted EventKind = "granted" // a partner app may do something here
	EventExposed EventKind = "exposed" // a partner app can read from here on
	EventEnded   EventKind = "ended"   // a permission is over
	EventKeys    EventKind = "keys"    // somebody's devices or recovery phrase changed
	EventAlarm   EventKind = "alarm"   // somebody was caught lying
	EventUnsent  EventKind = "unsent"  // a message of one's own was over before it could be sent
)

// Item is one line of a conversation as this device took it from the log.
type Item struct {
	_       struct{} `cbor:",toarray"`
	Seq     uint64
	At      int64
	Kind    ItemKind
	Sender  string // URI: of an account, or of an agent
	Handle  string // the person who wrote, or for whom the app wrote
	Partner string // the app that wrote for the person; empty if the person did
	Grant   chat.GrantID
	ID      chat.MessageID
	Content []byte // MIMI content; empty once deleted
	Deleted bool
	Event   EventKind
	Text    string // of an event
}

func (c *Client) event(seq uint64, at int64, kind EventKind, format string, args ...any) Item {
	return Item{Seq: seq, At: at, Kind: ItemEvent, Event: kind, Text: fmt.Sprintf(format, args...)}
}

// putItems writes lines; events of one entry follow its message.
func putItems(tx StateTx, id chat.ConversationID, items []Item) error {
	for n, item := range items {
		name := seqName(item.Seq)
		if item.Kind == ItemEvent {
			name = fmt.Sprintf("%s.%02d", name, n)
		}
		if err := save(tx, bucketItems+id.String(), name, item); err != nil {
			return err
		}
		if item.Kind == ItemMessage || item.Kind == ItemGone {
			if err := tx.Put(bucketMessageIndex+id.String(), item.ID.String(), []byte(name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// findItem looks a message up by its id.
func findItem(tx StateTx, conv chat.ConversationID, id chat.MessageID) (item Item, name string, found bool, err error) {
	at, err := tx.Get(bucketMessageIndex+conv.String(), id.String())
	if err != nil || at == nil {
		return item, "", false, err
	}
	found, err = load(tx, bucketItems+conv.String(), string(at), &item)
	return item, string(at), found, err
}

// forgetItem forgets a deleted message's text, and that of every edit of it. A delete for a message that never arrived explains the oldest
// withheld one.
func forgetItem(tx StateTx, conv chat.ConversationID, f forget) error {
	item, name, found, err := findFirst(tx, conv, f.id)
	if err != nil {
		return err
	}
	if !found {
		return explainWithheld(tx, conv)
	}
	if !f.may(item) {
		return nil
	}
	clear(item.Content)
	item.Content, item.Deleted = nil, true
	if err := save(tx, bucketItems+conv.String(), name, item); err != nil {
		return err
	}
	return dropEdits(tx, conv, map[chat.MessageID]bool{item.ID: true}, name)
}

// findFirst looks a message up by the id of any of its versions.
func findFirst(tx StateTx, conv chat.ConversationID, id chat.MessageID) (item Item, name string, found bool, err error) {
	for {
		item, name, found, err = findItem(tx, conv, id)
		if err != nil || !found {
			return item, name, found, err
		}
		first := replacedBy(item)
		if first == nil {
			return item, name, true, nil
		}
		id = *first
	}
}

// replacedBy is the message that an edit replaces; nil if the item is no edit.
func replacedBy(item Item) *chat.MessageID {
	if item.Kind != ItemMessage || len(item.Content) == 0 {
		return nil
	}
	content, err := mimi.Unmarshal(item.Content)
	if err != nil {
		return nil
	}
	v := content.View()
	if v.Kind != mimi.KindEdit || v.Replaces == nil || *v.Replaces == item.ID {
		return nil
	}
	return v.Replaces
}

// dropEdits drops the edits of messages, which stand after them in the log, and adds them to the versions.
func dropEdits(tx StateTx, conv chat.ConversationID, versions map[chat.MessageID]bool, after string) error {
	bucket := bucketItems + conv.String()
	var names []string
	err := tx.List(bucket, after, func(name string, _ []byte) (bool, error) {
		var item Item
		if _, err := load(tx, bucket, name, &item); err != nil {
			return false, err
		}
		if first := replacedBy(item); first != nil && versions[*first] {
			versions[item.ID] = true
			names = append(names, name)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := tx.Delete(bucket, name); err != nil {
			return err
		}
	}
	return nil
}

func explainWithheld(tx StateTx, conv chat.ConversationID) error {
	var oldest Item
	var at string
	err := tx.List(bucketItems+conv.String(), "", func(name string, _ []byte) (bool, error) {
		var item Item
		if _, err := load(tx, bucketItems+conv.String(), name, &item); err != nil {
			return false, err
		}
		if item.Kind == ItemWithheld && !item.Deleted {
			oldest, at = item, name
			return false, nil
		}
		return true, nil
	})
	if err != nil || at == "" {
		return err
	}
	oldest.Deleted = true
	return save(tx, bucketItems+conv.String(), at, oldest)
}

func (c *Client) roomURI(id chat.ConversationID) string {
	return chat.ConversationURI(c.self.Host, id)
}

// takeMessage opens an application message, or recognises one of our own. What cannot be opened or believed becomes a line that says so:
// any member can make such a message, and it must not stop the others.
func (c *Client) takeMessage(ctx context.Context, o *outcome, e api.Entry) error {
	own, name, err := c.findOutgoing(o.conv.ID, e)
	if err != nil {
		return err
	}
	if own != nil {
		o.sent = name
		if own.over() {
			o.items = append(o.items, Item{Seq: e.Seq, At: e.At, Kind: ItemGone, Sender: c.accountURI(), Handle: c.self.Handle, ID: own.ID})
			return nil
		}
		return c.addMessage(o, e, own.Content, Item{Sender: c.accountURI(), Handle: c.self.Handle})
	}
	if e.Tombstone {
		o.items = append(o.items, notThere(e))
		return nil
	}
	app, err := o.group.Open(e.Body)
	switch {
	case errors.Is(err, mls.ErrOwnMessage): // sent by this device before its state was restored: this state would use the same keys again
		o.group = o.group.Restored()
		o.items = append(o.items, Item{Seq: e.Seq, At: e.At, Kind: ItemWithheld, Handle: c.self.Handle})
		return nil
	case errors.Is(err, mls.ErrReplayed):
		o.evidence = append(o.evidence, Evidence{Sentence: fmt.Sprintf("The server delivered a message a second time, as entry %d; it was ignored.", e.Seq), Data: e.Body})
		return nil
	case err != nil:
		c.doubt(o, e, "A message cannot be opened: it was altered on its way, or its sender made it so. It is not shown.")
		return nil
	}
	id, err := chat.ParseIdentity(app.Sender.Identity)
	if err != nil {
		return err
	}
	switch err := c.checkAuthor(ctx, app.Sender); {
	case chat.Is(err, chat.Tampered):
		c.doubt(o, e, "Somebody wrote as %s with a device that %s never added. The message is not shown.", id.Handle, id.Handle)
		return nil
	case err != nil:
		return err
	}
	if id.IsAgent() { // agents write through the slot, where their grant is checked
		c.doubt(o, e, "%s tried to write in this thread as if it were a person; this was refused.", c.partnerName(id.Partner))
		return nil
	}
	return c.addMessage(o, e, app.Plaintext, Item{Sender: chat.AccountURI(c.self.Host, id.Handle), Handle: id.Handle})
}

// notThere is the line of a message that this device never had. Why it is gone is the server's word.
func notThere(e api.Entry) Item {
	kind := ItemWithheld
	if e.Expired {
		kind = ItemExpired
	}
	return Item{Seq: e.Seq, At: e.At, Kind: kind}
}

// doubt adds a line about an entry that is not shown, and keeps the entry.
func (c *Client) doubt(o *outcome, e api.Entry, format string, args ...any) {
	sentence := fmt.Sprintf(format, args...)
	o.items = append(o.items, c.event(e.Seq, e.At, EventAlarm, "%s", sentence))
	o.evidence = append(o.evidence, Evidence{Sentence: sentence, Data: e.Body})
}

// addMessage reads the content and adds the line. Content that cannot be read is kept as a line that says so: one member's
// mistake must not stop the others.
func (c *Client) addMessage(o *outcome, e api.Entry, content []byte, item Item) error {
	m, err := mimi.Open(content, item.Sender, c.roomURI(o.conv.ID))
	if err != nil {
		o.items = append(o.items, c.event(e.Seq, e.At, EventAlarm, "%s sent something that cannot be shown (%v).", item.Handle, err))
		return nil
	}
	item.Seq, item.At, item.Kind, item.ID, item.Content = e.Seq, e.At, ItemMessage, m.ID, content
	o.items = append(o.items, item)
	if told := m.Content.Checkpoint(); told != nil && item.Partner == "" && item.Handle != c.self.Handle {
		o.heard = append(o.heard, heard{Handle: item.Handle, At: c.ms(), Checkpoint: told})
	}
	if at := m.Content.Over(); at != 0 {
		o.over = append(o.over, over{at, overdue{Conversation: o.conv.ID, Name: seqName(e.Seq)}})
	}
	if v := m.Content.View(); v.Kind == mimi.KindDelete && v.Replaces != nil {
		o.forget = append(o.forget, forget{*v.Replaces, func(first Item) bool { return mimi.MayReplace(first.Sender, item.Sender) }})
	}
	return nil
}

// takePost opens what a partner app put through the slot for a person, and checks it against the thread's own list of grants.
func (c *Client) takePost(o *outcome, e api.Entry) error {
	if e.Tombstone {
		o.items = append(o.items, notThere(e))
		return nil
	}
	refused := func(format string, args ...any) error {
		sentence := "A message of a partner app was refused: " + fmt.Sprintf(format, args...) + "."
		o.items = append(o.items, c.event(e.Seq, e.At, EventAlarm, "%s", sentence))
		o.evidence = append(o.evidence, Evidence{Sentence: sentence, Data: e.Body})
		return nil
	}
	h, err := slot.Peek(e.Body)
	if err != nil {
		return refused("%v", err)
	}
	t, err := grant.ThreadOf(o.group.Roster())
	if err != nil {
		return err
	}
	entry, ok := t.Find(h.Grant)
	switch {
	case !ok || !entry.Actions.Has(chat.Send):
		return refused("nobody in this thread has allowed it")
	case h.Host != c.self.Host || h.Conversation != o.conv.ID || h.Epoch != o.group.Epoch():
		return refused("it was written for another thread or another time")
	}
	private, _, err := slotOf(o.group)
	if err != nil {
		return err
	}
	h, content, err := slot.Open(e.Body, private, entry.AgentKey[:])
	if err != nil {
		return refused("%v", err)
	}
	item := Item{Sender: chat.AgentURI(c.self.Host, t.Partner, h.Grant), Handle: entry.Handle, Partner: t.Partner, Grant: h.Grant}
	m, err := mimi.Open(content, item.Sender, c.roomURI(o.conv.ID))
	if err != nil || m.ID != h.Message {
		return refused("its content is not what its envelope says")
	}
	if !o.conv.count(h.Grant, h.Counter) {
		return refused("it was delivered before")
	}
	return c.addMessage(o, e, content, item)
}

// count takes a post's counter; false if one as high was taken before.
func (conv *conversation) count(id chat.GrantID, n uint64) bool {
	for i := range conv.Counters {
		if conv.Counters[i].Grant == id {
			if n <= conv.Counters[i].N {
				return false
			}
			conv.Counters[i].N = n
			return true
		}
	}
	conv.Counters = append(slices.Clone(conv.Counters), counter{Grant: id, N: n})
	return true
}

// takeTakeBack forgets a post that its partner took back for its person.
func (c *Client) takeTakeBack(o *outcome, e api.Entry) error {
	refused := func(why string) error {
		sentence := "A partner app tried to delete a message; this was refused: " + why + "."
		o.items = append(o.items, c.event(e.Seq, e.At, EventAlarm, "%s", sentence))
		o.evidence = append(o.evidence, Evidence{Sentence: sentence, Data: e.Body})
		return nil
	}
	tb, err := slot.PeekTakeBack(e.Body)
	if err != nil {
		return refused(err.Error())
	}
	t, err := grant.ThreadOf(o.group.Roster())
	if err != nil {
		return err
	}
	entry, ok := t.Find(tb.Grant)
	if !ok || !entry.Actions.Has(chat.Delete) {
		return refused("nobody in this thread has allowed it")
	}
	if _, err := slot.OpenTakeBack(e.Body, entry.AgentKey[:]); err != nil {
		return refused(err.Error())
	}
	if tb.Host != c.self.Host || tb.Conversation != o.conv.ID || tb.Epoch != o.group.Epoch() {
		return refused("it was written for another thread or another time")
	}
	o.forget = append(o.forget, forget{tb.Message, func(first Item) bool {
		return first.Partner == t.Partner && first.Handle == entry.Handle
	}})
	return nil
}

// findOutgoing finds the message of our own that an entry carries, also where the log holds only its hash.
func (c *Client) findOutgoing(id chat.ConversationID, e api.Entry) (own *outgoing, name string, err error) {
	want := e.Body
	if !e.Tombstone {
		want = digest(e.Body)
	}
	err = c.eachOutgoing(id, func(n string, m outgoing) bool {
		if len(m.Sealed) > 0 && bytes.Equal(digest(m.Sealed), want) || m.over() && bytes.Equal(m.Dedup, want) {
			own, name = &m, n
		}
		return own == nil
	})
	return own, name, err
}

// tellChange writes down what a commit means for people.
func (c *Client) tellChange(o *outcome, e api.Entry, ch *roster.Change, v *grant.Verdict) {
	was, is := peopleOf(ch.Before()), peopleOf(ch.Next())
	by := v.Committer.Handle
	if v.Committer.Handle == c.self.Handle {
		by = "You"
	}
	if added := minus(is, was); len(added) > 0 {
		o.items = append(o.items, c.event(e.Seq, e.At, EventPeople, "%s added %s.", by, listNames(added)))
	}
	if gone := minus(was, is); len(gone) > 0 {
		o.items = append(o.items, c.event(e.Seq, e.At, EventPeople, "%s removed %s.", by, listNames(gone)))
	}
	for _, ended := range v.Ended {
		if !replaced(ended, v) {
			o.items = append(o.items, c.event(e.Seq, e.At, EventEnded, "%s can do nothing here for %s from here on. What it could read before, it may have kept.", c.partnerName(v.After.Partner), ended.Handle))
		}
	}
	for _, n := range v.Narrowed {
		o.items = append(o.items, c.grantEvent(e.Seq, e.At, v.After.Partner, n.After))
	}
	for _, granted := range v.Added {
		o.items = append(o.items, c.grantEvent(e.Seq, e.At, v.After.Partner, granted.Entry))
	}
}

func replaced(ended grant.Entry, v *grant.Verdict) bool {
	return slices.ContainsFunc(v.Added, func(g grant.Granted) bool { return g.Grant.Previous == ended.Hash })
}

// grantEvent says what a partner app may do from here on.
func (c *Client) grantEvent(seq uint64, at int64, partner string, e grant.Entry) Item {
	if e.Actions.Has(chat.Read) {
		return c.event(seq, at, EventExposed, "%s can read this thread from here on, and who is in it, because %s allowed it (%s).", c.partnerName(partner), e.Handle, andList(e.Actions))
	}
	return c.event(seq, at, EventGranted, "%s may %s here for %s. It cannot read.", c.partnerName(partner), strings.Join(e.Actions.Names(), " and "), e.Handle)
}

func minus(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

func listNames(names []string) string {
	switch len(names) {
	case 0:
		return "nobody else"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
