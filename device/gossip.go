package device

import (
	"context"
	"errors"
	"fmt"
	"time"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/mimi"
	"letterlock/proof"
)

// People tell each other, inside their messages, which checkpoint of the ledger they remember. A server that shows two people two
// ledgers is found out by the first message between them (spec/content.md).

// tellEvery is the least time between two checkpoints that a device puts into the messages of one conversation.
const tellEvery = time.Hour

// told is what a conversation was last told by this device.
type told struct {
	_    struct{} `cbor:",toarray"`
	Size int64
	At   int64 // ms
}

func (t *told) save(tx StateTx, id chat.ConversationID) error {
	if t == nil {
		return nil
	}
	return save(tx, bucketLedger, toldName(id), *t)
}

func toldName(id chat.ConversationID) string { return "told-" + id.String() }

// heard is a checkpoint that somebody else remembers, until it was compared. The newest of each sender counts.
type heard struct {
	_          struct{} `cbor:",toarray"`
	Handle     string
	At         int64 // ms, by this device's clock
	Checkpoint []byte
}

func (h heard) save(tx StateTx, id chat.ConversationID) error {
	return save(tx, bucketHeard, id.String()+"-"+handleName(h.Handle), h)
}

// withCheckpoint adds the remembered checkpoint to a message, if it is newer than what the conversation was told and that was an hour
// ago. What it was told by this message is to be saved with it.
func (c *Client) withCheckpoint(id chat.ConversationID, content mimi.Content) (mimi.Content, *told, error) {
	var last told
	if err := c.state.View(func(tx StateTx) error { _, err := load(tx, bucketLedger, toldName(id), &last); return err }); err != nil {
		return content, nil, err
	}
	now, size := c.ms(), c.log.Checkpoint().Size
	if size <= last.Size || last.At != 0 && now < last.At+tellEvery.Milliseconds() {
		return content, nil, nil
	}
	content, err := content.WithCheckpoint(c.log.Own())
	return content, &told{Size: size, At: now}, err
}

// compareHeard holds what others of a conversation told against the ledger that this device is shown.
func (c *Client) compareHeard(ctx context.Context, id chat.ConversationID) error {
	all := map[string]heard{}
	err := c.state.View(func(tx StateTx) error {
		return tx.List(bucketHeard, id.String(), func(name string, _ []byte) (bool, error) {
			if len(name) < len(id.String()) || name[:len(id.String())] != id.String() {
				return false, nil
			}
			var h heard
			_, err := load(tx, bucketHeard, name, &h)
			all[name] = h
			return true, err
		})
	})
	if err != nil {
		return err
	}
	var failed []error
	for name, h := range all {
		err := c.compareWith(ctx, id, h)
		if chat.KindOf(err) == chat.Unavailable && c.ms() < h.At+tellEvery.Milliseconds() {
			continue // the server does not answer: at the next sync
		}
		if err != nil {
			failed = append(failed, err)
		}
		if err := c.state.Update(func(tx StateTx) error { return tx.Delete(bucketHeard, name) }); err != nil {
			return err
		}
	}
	return errors.Join(failed...)
}

func (c *Client) compareWith(ctx context.Context, id chat.ConversationID, h heard) error {
	theirs, err := c.log.Open(h.Checkpoint)
	if err != nil {
		return nil // not the ledger's: anybody can write that, and it says nothing
	}
	if theirs.Size > c.log.Checkpoint().Size {
		if err := c.follow(ctx); err != nil {
			return err
		}
	}
	err = c.log.Compare(ctx, c.server, h.Checkpoint)
	var e *proof.Evidence
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return c.forked(id, h.Handle, e)
	case chat.KindOf(err) == chat.Unavailable && c.ms() >= h.At+tellEvery.Milliseconds():
		return c.forked(id, h.Handle, &proof.Evidence{What: proof.Inconsistent, Remembered: c.log.Checkpoint().Signed, Shown: h.Checkpoint})
	}
	return err
}

// forked tells the person that a friend is shown another ledger, in the conversation too, and keeps both checkpoints.
func (c *Client) forked(id chat.ConversationID, handle string, e *proof.Evidence) error {
	sentence := fmt.Sprintf("the server shows %s another ledger than you", handle)
	if e.What == proof.Behind {
		sentence = fmt.Sprintf("the server shows %s a newer ledger than you: what it added is kept from you", handle)
	}
	if err := c.addEvent(id, EventAlarm, capital(sentence)+"."); err != nil {
		return err
	}
	return c.alarm(chat.ConversationID{}, chat.Wrap(chat.Tampered, e, "%s", sentence), canon.MustMarshal([][]byte{e.Remembered, e.Shown}))
}

// addEvent adds a line to a conversation that no entry of its log brought: after the last entry that was taken.
func (c *Client) addEvent(id chat.ConversationID, kind EventKind, text string) error {
	return c.state.Update(func(tx StateTx) error { return c.putEvent(tx, id, kind, text) })
}

func (c *Client) putEvent(tx StateTx, id chat.ConversationID, kind EventKind, text string) error {
	var conv conversation
	if _, err := load(tx, bucketConversation, id.String(), &conv); err != nil {
		return err
	}
	item := c.event(conv.Cursor, c.ms(), kind, "%s", text)
	for n := 50; ; n++ { // the entry's own events come first
		name := fmt.Sprintf("%s.%02d", seqName(item.Seq), n)
		there, err := tx.Get(bucketItems+id.String(), name)
		if err != nil {
			return err
		}
		if there == nil {
			return save(tx, bucketItems+id.String(), name, item)
		}
	}
}

func capital(s string) string {
	if s != "" && s[0] >= 'a' && s[0] <= 'z' {
		return string(s[0]-'a'+'A') + s[1:]
	}
	return s
}
