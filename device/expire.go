package device

import (
	"encoding/hex"
	"fmt"
	"time"

	"letterlock/chat"
	"letterlock/mimi"
)

// The longest and the shortest life that a person may give a message.
const (
	MinLifetime = time.Second
	MaxLifetime = 365 * 24 * time.Hour
)

// lifetime is the life that a conversation's messages are given where nothing else is said. It is this device's own setting.
type lifetime struct {
	_       struct{} `cbor:",toarray"`
	Seconds uint64
}

// overdue is what is to be forgotten at a time: a line of a conversation, or a message that waits to be sent. Its name begins with the time.
type overdue struct {
	_            struct{} `cbor:",toarray"`
	Conversation chat.ConversationID
	Name         string // in the bucket of items, or of the outbox
	Outbox       bool
}

func saveOverdue(tx StateTx, at int64, o overdue) error {
	return save(tx, bucketOverdue, seqName(uint64(at))+"-"+o.Conversation.String()+"-"+o.Name, o)
}

// CheckLifetime refuses a life that is too short or too long.
func CheckLifetime(d time.Duration) error {
	if d < MinLifetime || d > MaxLifetime {
		return chat.Errorf(chat.Invalid, "a message lives for one second at least and 365 days at most")
	}
	return nil
}

// SetLifetime makes the messages that this device sends to a conversation disappear after so long; 0: they stay. It changes none that was
// sent, and nobody else's.
func (c *Client) SetLifetime(id chat.ConversationID, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, _, err := c.readGroup(id); err != nil {
		return err
	}
	if d != 0 {
		if err := CheckLifetime(d); err != nil {
			return err
		}
	}
	return c.state.Update(func(tx StateTx) error {
		return save(tx, bucketLifetime, id.String(), lifetime{Seconds: uint64(d / time.Second)})
	})
}

// Lifetime is what SetLifetime has set.
func (c *Client) Lifetime(id chat.ConversationID) (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lifetime(id)
}

func (c *Client) lifetime(id chat.ConversationID) (time.Duration, error) {
	var l lifetime
	err := c.state.View(func(tx StateTx) error {
		_, err := load(tx, bucketLifetime, id.String(), &l)
		return err
	})
	return time.Duration(l.Seconds) * time.Second, err
}

// withExpiry says in a message when it is to disappear. What was said stands. An edit and a reaction go with the message that they belong to;
// a delete stays, so that everybody learns of it.
func (c *Client) withExpiry(id chat.ConversationID, content mimi.Content) (mimi.Content, error) {
	v := content.View()
	if content.Expires != nil || v.Kind == mimi.KindDelete {
		return content, nil
	}
	target := v.Replaces
	if v.Kind == mimi.KindReaction {
		target = v.InReplyTo
	}
	if target != nil {
		first, found, err := c.firstVersion(id, *target)
		if err != nil {
			return content, err
		}
		if found {
			content.Expires = first.Expires
			return content, nil
		}
	}
	life, err := c.lifetime(id)
	if err == nil && life > 0 {
		content.Expires = mimi.ExpiresAt(c.now().Add(life))
	}
	return content, err
}

// firstVersion reads the message that an edit or a reaction belongs to. One that has disappeared takes neither any more.
func (c *Client) firstVersion(id chat.ConversationID, target chat.MessageID) (content mimi.Content, found bool, err error) {
	var item Item
	err = c.state.View(func(tx StateTx) error {
		item, _, found, err = findFirst(tx, id, target)
		return err
	})
	if err != nil || !found {
		return content, false, err
	}
	if item.Kind == ItemGone {
		return content, false, chat.Errorf(chat.NotFound, "the message has disappeared")
	}
	if len(item.Content) == 0 {
		return content, false, nil
	}
	content, err = mimi.Unmarshal(item.Content)
	return content, true, err
}

// maxOverdue bounds what is forgotten in one transaction.
const maxOverdue = 10_000

// forgetOver forgets every message whose time is over, by this device's clock and the sender's word in the message; what the server says of
// it is no matter. It is called before anything is shown or sent, and after anything was taken.
func (c *Client) forgetOver() error {
	for {
		names := map[chat.ConversationID][]overdue{}
		var done []string
		err := c.state.View(func(tx StateTx) error {
			end := seqName(uint64(c.ms()) + 1)
			return tx.List(bucketOverdue, "", func(name string, _ []byte) (bool, error) {
				if name >= end || len(done) == maxOverdue {
					return false, nil
				}
				var o overdue
				_, err := load(tx, bucketOverdue, name, &o)
				names[o.Conversation] = append(names[o.Conversation], o)
				done = append(done, name)
				return true, err
			})
		})
		if err != nil || len(done) == 0 {
			return err
		}
		if err := c.state.Update(func(tx StateTx) error { return c.forgetAll(tx, names, done) }); err != nil {
			return err
		}
	}
}

func (c *Client) forgetAll(tx StateTx, of map[chat.ConversationID][]overdue, done []string) error {
	for id, list := range of {
		if err := forgetItems(tx, id, list); err != nil {
			return err
		}
		for _, o := range list {
			if err := c.forgetWaiting(tx, o); err != nil {
				return err
			}
		}
	}
	for _, name := range done {
		if err := tx.Delete(bucketOverdue, name); err != nil {
			return err
		}
	}
	return nil
}

// forgetItems forgets messages of one conversation with all their edits. An edit whose time is over takes its message with it, if it is
// its sender's: the text before it is not brought back.
func forgetItems(tx StateTx, id chat.ConversationID, list []overdue) error {
	bucket := bucketItems + id.String()
	versions := map[chat.MessageID]bool{}
	earliest := ""
	for _, o := range list {
		var item Item
		known, err := load(tx, bucket, o.Name, &item)
		if err != nil {
			return err
		}
		if o.Outbox || !known || item.Kind != ItemMessage {
			continue
		}
		name := o.Name
		if first, at, found, err := findFirst(tx, id, item.ID); err != nil {
			return err
		} else if found && mimi.MayReplace(first.Sender, item.Sender) {
			item, name = first, at
		}
		clear(item.Content)
		item.Kind, item.Content = ItemGone, nil
		if err := save(tx, bucket, name, item); err != nil {
			return err
		}
		versions[item.ID] = true
		if earliest == "" || name < earliest {
			earliest = name
		}
	}
	if earliest == "" {
		return nil
	}
	return dropEdits(tx, id, versions, earliest)
}

// forgetWaiting forgets a message whose time was over before it was seen in the log. One that may have left is remembered by its hash.
func (c *Client) forgetWaiting(tx StateTx, o overdue) error {
	if !o.Outbox {
		return nil
	}
	bucket := bucketOutbox + o.Conversation.String()
	var m outgoing
	if known, err := load(tx, bucket, o.Name, &m); err != nil || !known {
		return err
	}
	if len(m.Sealed) > 0 {
		m.Dedup, m.Sealed, m.Content = digest(m.Sealed), nil, nil
		return save(tx, bucket, o.Name, m)
	}
	return c.unsent(tx, o.Conversation, o.Name, m)
}

// unsent drops a message that was over before it could be sent, and tells the person.
func (c *Client) unsent(tx StateTx, id chat.ConversationID, waiting string, m outgoing) error {
	var conv conversation
	if _, err := load(tx, bucketConversation, id.String(), &conv); err != nil {
		return err
	}
	event := c.event(conv.Cursor, c.ms(), EventUnsent, "A message of yours disappeared before it could be sent: its time was over.")
	name := fmt.Sprintf("%s.%s", seqName(conv.Cursor), hex.EncodeToString(m.ID[1:9]))
	if err := save(tx, bucketItems+id.String(), name, event); err != nil {
		return err
	}
	return tx.Delete(bucketOutbox+id.String(), waiting)
}

// neverSent drops what is over and was sealed for an epoch that has ended without it: the log was read to its end.
func (c *Client) neverSent(id chat.ConversationID, epoch uint64) error {
	lost := map[string]outgoing{}
	if err := c.eachOutgoing(id, func(name string, m outgoing) bool {
		if m.over() && m.Epoch < epoch {
			lost[name] = m
		}
		return true
	}); err != nil || len(lost) == 0 {
		return err
	}
	return c.state.Update(func(tx StateTx) error {
		for name, m := range lost {
			if err := c.unsent(tx, id, name, m); err != nil {
				return err
			}
		}
		return nil
	})
}

// over says that a message's time was over while it waited: what is left of it only recognises it in the log.
func (m *outgoing) over() bool { return len(m.Content) == 0 }

// noteRead starts the time of messages that are to disappear so long after they were read.
func (c *Client) noteRead(tx StateTx, id chat.ConversationID, read []Item) error {
	for _, i := range read {
		if i.Kind != ItemMessage || len(i.Content) == 0 {
			continue
		}
		content, err := mimi.Unmarshal(i.Content)
		if err != nil || content.Expires == nil || !content.Expires.Relative || content.Expires.Time == 0 {
			continue
		}
		at := c.ms() + int64(content.Expires.Time)*1000
		if err := saveOverdue(tx, at, overdue{Conversation: id, Name: seqName(i.Seq)}); err != nil {
			return err
		}
	}
	return nil
}
