package device

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/proof"
)

// sendTries bounds how often a message is sealed anew because the epoch ended meanwhile.
const sendTries = 10

// Sent says what became of a message.
type Sent struct {
	Conversation chat.ConversationID `json:"conversation"`
	ID           chat.MessageID      `json:"id"`
	Held         bool                `json:"held"` // somebody new can read the thread: send again to agree
	Reason       string              `json:"reason,omitempty"`
}

// Send writes a message. It is written down first; if the server cannot be reached it waits and goes out at the next Sync, unless
// somebody new can read the thread by then: then it is held until Resend.
func (c *Client) Send(ctx context.Context, id chat.ConversationID, content mimi.Content) (Sent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.send(ctx, id, content)
}

func (c *Client) send(ctx context.Context, id chat.ConversationID, content mimi.Content) (Sent, error) {
	if err := c.forgetOver(); err != nil {
		return Sent{}, err
	}
	content, err := c.withExpiry(id, content)
	if err != nil {
		return Sent{}, err
	}
	content, news, err := c.withCheckpoint(id, content)
	if err != nil {
		return Sent{}, err
	}
	data, err := mimi.Marshal(content)
	if err != nil {
		return Sent{}, err
	}
	conv, g, err := c.loadGroup(id)
	if err != nil {
		return Sent{}, err
	}
	if conv.Left {
		return Sent{}, chat.Errorf(chat.Forbidden, "you are no longer in this conversation")
	}
	readers, err := readersOf(g)
	if err != nil {
		return Sent{}, err
	}
	m := outgoing{Content: data, ID: mimi.ID(c.accountURI(), c.roomURI(id), data, content.Salt), Queued: c.ms(), Readers: readers}
	name := seqName(uint64(m.Queued)) + "-" + hex.EncodeToString(m.ID[1:9])
	if err := c.state.Update(func(tx StateTx) error {
		if at := content.Over(); at != 0 {
			if err := saveOverdue(tx, at, overdue{Conversation: id, Name: name, Outbox: true}); err != nil {
				return err
			}
		}
		if err := news.save(tx, id); err != nil {
			return err
		}
		return save(tx, bucketOutbox+id.String(), name, m)
	}); err != nil {
		return Sent{}, err
	}
	held, err := c.flush(ctx, id)
	s := Sent{Conversation: id, ID: m.ID}
	for _, h := range held {
		if h.ID == m.ID {
			s.Held, s.Reason = true, "a partner app was given read access while the message was on its way; send it again if that is fine"
		}
	}
	return s, err
}

// readersOf lists the grants that let an app read the thread now.
func readersOf(g *mls.Group) (ids []chat.GrantID, err error) {
	t, err := grant.ThreadOf(g.Roster())
	for _, e := range t.Grants {
		if e.Actions.Has(chat.Read) {
			ids = append(ids, e.Grant)
		}
	}
	return ids, err
}

// flush sends what waits, in order, and returns what is held because somebody new can read.
func (c *Client) flush(ctx context.Context, id chat.ConversationID) (held []outgoing, err error) {
	for range sendTries {
		held = nil
		if err := c.syncConversation(ctx, id); err != nil {
			return nil, err
		}
		waiting, err := c.outbox(id)
		if err != nil || len(waiting) == 0 {
			return nil, err
		}
		conv, g, err := c.loadGroup(id)
		if err != nil {
			return nil, err
		}
		if conv, err = c.clearUp(ctx, conv, g); err != nil {
			return nil, err
		}
		if len(conv.Warned) > 0 {
			return nil, chat.Errorf(chat.Tampered, "nothing is sent here until this is cleared up: %s", conv.Warned[0])
		}
		if held, err = c.holdBack(id, g, waiting); err != nil {
			return held, err
		}
		if len(held) == len(waiting) {
			return held, nil
		}
		if err := c.exposureKnown(ctx, conv, g); err != nil {
			return held, err
		}
		if err := c.sendAll(ctx, id, waiting, held); err != nil {
			if chat.Is(err, chat.StaleEpoch) {
				continue
			}
			if chat.Is(err, chat.Blocked) {
				if err := c.finishRemovals(ctx, id); err != nil {
					return held, err
				}
				continue
			}
			return held, err
		}
		return held, c.syncConversation(ctx, id)
	}
	return held, chat.Errorf(chat.Unavailable, "the conversation is too busy: others keep changing it; the message waits and goes out with the next sync")
}

// clearUp looks again at what a conversation was warned of.
func (c *Client) clearUp(ctx context.Context, conv conversation, g *mls.Group) (_ conversation, err error) {
	if len(conv.Warned) == 0 {
		return conv, nil
	}
	if conv.Warned, err = c.strangers(ctx, g.Roster().Members()); err != nil {
		return conv, err
	}
	return conv, c.state.Update(func(tx StateTx) error { return save(tx, bucketConversation, conv.ID.String(), conv) })
}

type waitingMessage struct {
	name string
	outgoing
}

// outbox lists what waits to be sent, without what is over.
func (c *Client) outbox(id chat.ConversationID) (waiting []waitingMessage, err error) {
	err = c.eachOutgoing(id, func(name string, m outgoing) bool {
		if !m.over() {
			waiting = append(waiting, waitingMessage{name, m})
		}
		return true
	})
	return waiting, err
}

func (c *Client) eachOutgoing(id chat.ConversationID, fn func(string, outgoing) bool) error {
	return c.state.View(func(tx StateTx) error {
		bucket := bucketOutbox + id.String()
		return tx.List(bucket, "", func(name string, _ []byte) (bool, error) {
			var m outgoing
			if _, err := load(tx, bucket, name, &m); err != nil {
				return false, err
			}
			return fn(name, m), nil
		})
	})
}

// holdBack marks messages that were written before somebody new could read. Never across a new reader: the person must see it first.
func (c *Client) holdBack(id chat.ConversationID, g *mls.Group, waiting []waitingMessage) (held []outgoing, err error) {
	readers, err := readersOf(g)
	if err != nil {
		return nil, err
	}
	err = c.state.Update(func(tx StateTx) error {
		for i := range waiting {
			m := &waiting[i]
			for _, r := range readers {
				m.Held = m.Held || !slices.Contains(m.Readers, r)
			}
			if !m.Held {
				continue
			}
			held = append(held, m.outgoing)
			if err := save(tx, bucketOutbox+id.String(), m.name, m.outgoing); err != nil {
				return err
			}
		}
		return nil
	})
	return held, err
}

// sendAll sends every message that is not held. Each is sealed, and the group's new state written down with it, before it leaves.
func (c *Client) sendAll(ctx context.Context, id chat.ConversationID, waiting []waitingMessage, held []outgoing) error {
	for _, m := range waiting {
		if m.Held {
			continue
		}
		sealed, err := c.sealed(ctx, id, m)
		if err != nil {
			return err
		}
		if _, err := c.server.SendMessage(ctx, id, api.Message{Message: sealed, DedupKey: sendKey(m.Queued, sealed), Expires: overOf(m.Content)}); err != nil {
			return err
		}
	}
	return nil
}

// sendKey names these very bytes: the same bytes sent again are answered as before. It begins with the time at which the message was
// written, so that the server finds the keys of one conversation's messages side by side (spec/frames.md).
func sendKey(queued int64, sealed []byte) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 18), uint64(queued))[2:]
	return append(key, digest(sealed)[:10]...)
}

// overOf is when the server is to delete a message: what its content says (ms), or 0. Of one that counts from reading the server is told
// nothing, since it does not learn when that is.
func overOf(content []byte) int64 {
	m, err := mimi.Unmarshal(content)
	if err != nil {
		return 0
	}
	return m.Over()
}

func (c *Client) sealed(ctx context.Context, id chat.ConversationID, m waitingMessage) ([]byte, error) {
	conv, g, err := c.loadGroup(id)
	if err != nil {
		return nil, err
	}
	if len(m.Sealed) > 0 && m.Epoch == g.Epoch() {
		return m.Sealed, nil
	}
	if g, err = c.compareCount(ctx, id, conv, g); err != nil {
		return nil, err
	}
	if m.Sealed, _, err = g.Seal(m.Content, nil); err != nil {
		return nil, err
	}
	m.Epoch = g.Epoch()
	return m.Sealed, c.state.Update(func(tx StateTx) error {
		if err := save(tx, bucketOutbox+id.String(), m.name, m.outgoing); err != nil {
			return err
		}
		return saveGroup(tx, conv, g)
	})
}

// compareCount finds out, once a run, whether this state is an old copy: then the server has seen more messages of this device than
// the device knows of, and sealing would use keys twice. Such a group commits itself fresh keys first.
func (c *Client) compareCount(ctx context.Context, id chat.ConversationID, conv conversation, g *mls.Group) (*mls.Group, error) {
	if !c.compared[id] {
		own, err := c.server.OwnCount(ctx, id)
		if err != nil {
			return nil, err
		}
		if own.Epoch != g.Epoch() {
			return nil, chat.Errorf(chat.StaleEpoch, "the conversation moved on meanwhile: seal again")
		}
		if own.Count > uint64(g.Generation()) {
			g = g.Restored()
			if err := c.state.Update(func(tx StateTx) error { return saveGroup(tx, conv, g) }); err != nil {
				return nil, err
			}
		}
		c.compared[id] = true
	}
	if !g.MustCommit() {
		return g, nil
	}
	err := c.commit(ctx, id, func(g *mls.Group, _ grant.Thread) (*change, error) {
		if !g.MustCommit() {
			return nil, nil
		}
		return &change{}, nil
	})
	if err != nil {
		return nil, err
	}
	return nil, chat.Errorf(chat.StaleEpoch, "the device has renewed its keys: seal again")
}

// exposureKnown makes sure, beside a reading app, that this person's own record says so and stands in the ledger. Until then nothing is sent.
func (c *Client) exposureKnown(ctx context.Context, conv conversation, g *mls.Group) error {
	t, err := grant.ThreadOf(g.Roster())
	if err != nil {
		return err
	}
	for _, e := range t.Grants {
		if !e.Actions.Has(chat.Read) {
			continue
		}
		if err := c.proveExposed(ctx, conv, t.Partner, e); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) proveExposed(ctx context.Context, conv conversation, partner string, e grant.Entry) error {
	name := conv.ID.String() + e.Grant.String()
	var known []byte
	if err := c.state.View(func(tx StateTx) (err error) { known, err = tx.Get(bucketGrant, name); return err }); err != nil || known != nil {
		return err
	}
	records, err := c.records(ctx, partner, proof.Access)
	if err != nil {
		return err
	}
	for _, r := range records {
		said, err := r.Says()
		if err != nil {
			return err
		}
		x, ok := said.(*proof.Exposed)
		if !ok || x.Grant != e.Grant || x.Conversation != conv.ID || x.AgentKey != e.AgentKey {
			continue
		}
		if _, _, err := c.prove(ctx, r.LeafHash(), 30); err != nil {
			return err
		}
		return c.state.Update(func(tx StateTx) error { return tx.Put(bucketGrant, name, r.Bytes()) })
	}
	return chat.Errorf(chat.Unproven, "%s can read this thread, and your record does not say so yet: nothing is sent until it does", c.partnerName(partner))
}

// Resend sends a held message after all, beside those who can read now.
func (c *Client) Resend(ctx context.Context, id chat.ConversationID, message chat.MessageID) (Sent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, g, err := c.loadGroup(id)
	if err != nil {
		return Sent{}, err
	}
	readers, err := readersOf(g)
	if err != nil {
		return Sent{}, err
	}
	if err := c.changeOutgoing(id, message, func(m *outgoing) { m.Held, m.Readers, m.Sealed = false, readers, nil }); err != nil {
		return Sent{}, err
	}
	_, err = c.flush(ctx, id)
	return Sent{Conversation: id, ID: message}, err
}

// Withdraw drops a message that has not been sent.
func (c *Client) Withdraw(id chat.ConversationID, message chat.MessageID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changeOutgoing(id, message, nil)
}

// changeOutgoing changes a waiting message, or drops it where change is nil.
func (c *Client) changeOutgoing(id chat.ConversationID, message chat.MessageID, change func(*outgoing)) error {
	waiting, err := c.outbox(id)
	if err != nil {
		return err
	}
	for _, m := range waiting {
		if m.ID != message {
			continue
		}
		return c.state.Update(func(tx StateTx) error {
			if change == nil {
				return tx.Delete(bucketOutbox+id.String(), m.name)
			}
			change(&m.outgoing)
			return save(tx, bucketOutbox+id.String(), m.name, m.outgoing)
		})
	}
	return chat.Errorf(chat.NotFound, "no such message waits to be sent")
}

// DeleteMessage deletes a message of one's own: for everybody who honours it, and its ciphertext on the server.
func (c *Client) DeleteMessage(ctx context.Context, id chat.ConversationID, message chat.MessageID) (Sent, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var item Item
	var found bool
	err := c.state.View(func(tx StateTx) (err error) {
		item, _, found, err = findItem(tx, id, message)
		return err
	})
	if err != nil {
		return Sent{}, err
	}
	if !found || item.Deleted || item.Kind == ItemGone {
		return Sent{}, chat.Errorf(chat.NotFound, "there is no such message here")
	}
	if item.Sender != c.accountURI() {
		return Sent{}, chat.Errorf(chat.Forbidden, "only who wrote a message may delete it")
	}
	s, err := c.send(ctx, id, mimi.Delete(message))
	if err != nil || s.Held {
		return s, err
	}
	return s, c.server.DeleteMessage(ctx, id, item.Seq)
}

// MarkRestored says that this state came out of a backup: every group commits itself fresh keys before it sends.
func (c *Client) MarkRestored() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ids, err := c.conversationIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		conv, g, err := c.readGroup(id)
		if err != nil {
			return err
		}
		if g == nil {
			continue
		}
		if err := c.state.Update(func(tx StateTx) error { return saveGroup(tx, conv, g.Restored()) }); err != nil {
			return err
		}
	}
	return nil
}
