package store

import (
	"crypto/sha256"
	"fmt"

	"letterlock/chat"
)

// Mailbox names where Welcomes wait: a device's, or that of the agent under one grant.
type Mailbox struct {
	owner  [16]byte // account or grant
	device []byte   // empty: an agent
}

// DeviceMailbox is a device's.
func DeviceMailbox(a chat.AccountID, d chat.DeviceID) Mailbox { return Mailbox{a, d[:]} }

// AgentMailbox is that of the agent under a grant.
func AgentMailbox(g chat.GrantID) Mailbox { return Mailbox{g, []byte{}} }

// WaitingWelcome is a Welcome in a mailbox.
type WaitingWelcome struct {
	ID           [32]byte // SHA-256 of the Welcome
	Conversation chat.ConversationID
	Seq          uint64 // of the commit that made it
	Welcome      []byte
}

// PutWelcome stores the Welcome of the commit at seq once and puts it into every box.
func (tx *Tx) PutWelcome(id chat.ConversationID, seq uint64, welcome []byte, boxes []Mailbox) error {
	if err := tx.insert(`INSERT INTO welcomes (conversation, seq, unread, welcome) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		id[:], int64(seq), len(boxes), welcome); err != nil {
		return err
	}
	hash := sha256.Sum256(welcome)
	for _, box := range boxes {
		if err := tx.insert(`INSERT INTO mailboxes (owner, device, id, conversation, seq) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			box.owner[:], box.device, hash[:], id[:], int64(seq)); err != nil {
			return err
		}
	}
	return nil
}

// HasWelcome says whether anything waits in a box.
func (tx *Tx) HasWelcome(box Mailbox) (bool, error) {
	var n int
	err := tx.one([]any{&n}, `SELECT COUNT(*) FROM mailboxes WHERE owner = $1 AND device = $2`, box.owner[:], box.device)
	return n > 0, err
}

// Welcomes lists what waits in a box by sequence number, at most limit, and no more once size bytes are passed (but at least one).
func (tx *Tx) Welcomes(box Mailbox, limit, size int) (waiting []WaitingWelcome, err error) {
	err = tx.list(func(scan func(...any) error) error {
		var w WaitingWelcome
		var id, conversation []byte
		if err := scan(&id, &conversation, &w.Seq); err != nil {
			return err
		}
		if copy(w.ID[:], id) != len(w.ID) || copy(w.Conversation[:], conversation) != len(w.Conversation) {
			return fmt.Errorf("store: mailbox row %x is damaged", id)
		}
		waiting = append(waiting, w)
		return nil
	}, `SELECT id, conversation, seq FROM mailboxes WHERE owner = $1 AND device = $2 ORDER BY seq, id LIMIT $3`, box.owner[:], box.device, limit)
	if err != nil {
		return nil, err
	}
	for i := range waiting {
		w := &waiting[i]
		if size <= 0 {
			return waiting[:i], nil
		}
		if err := tx.one([]any{&w.Welcome}, `SELECT welcome FROM welcomes WHERE conversation = $1 AND seq = $2`, w.Conversation[:], int64(w.Seq)); err != nil {
			return nil, err
		}
		size -= len(w.Welcome)
	}
	return waiting, nil
}

// DeleteWelcome takes a Welcome out of a box, and drops its bytes with the last box that pointed to them.
func (tx *Tx) DeleteWelcome(box Mailbox, id [32]byte) error {
	var conversation []byte
	var seq int64
	if err := tx.one([]any{&conversation, &seq}, `SELECT conversation, seq FROM mailboxes WHERE owner = $1 AND device = $2 AND id = $3`,
		box.owner[:], box.device, id[:]); err != nil {
		return err
	}
	if err := tx.change(`DELETE FROM mailboxes WHERE owner = $1 AND device = $2 AND id = $3`, box.owner[:], box.device, id[:]); err != nil {
		return err
	}
	if err := tx.change(`UPDATE welcomes SET unread = unread - 1 WHERE conversation = $1 AND seq = $2`, conversation, seq); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM welcomes WHERE conversation = $1 AND seq = $2 AND unread <= 0`, conversation, seq)
	return err
}

// EmptyMailbox takes out everything: for a device that left its key chain.
func (tx *Tx) EmptyMailbox(box Mailbox) error {
	var ids [][32]byte
	if err := tx.list(func(scan func(...any) error) error {
		var id [32]byte
		err := scanID(scan, id[:])
		ids = append(ids, id)
		return err
	}, `SELECT id FROM mailboxes WHERE owner = $1 AND device = $2`, box.owner[:], box.device); err != nil {
		return err
	}
	for _, id := range ids {
		if err := tx.DeleteWelcome(box, id); err != nil {
			return err
		}
	}
	return nil
}

// WelcomeCount says how many are to read a Welcome, and how many mailboxes point to it: the same number.
type WelcomeCount struct {
	Seq           uint64
	Unread, Boxes int
}

// WelcomeCounts lists a conversation's Welcomes, for checks. It looks into every mailbox.
func (tx *Tx) WelcomeCounts(id chat.ConversationID) (counts []WelcomeCount, err error) {
	err = tx.list(func(scan func(...any) error) error {
		var c WelcomeCount
		err := scan(&c.Seq, &c.Unread)
		counts = append(counts, c)
		return err
	}, `SELECT seq, unread FROM welcomes WHERE conversation = $1 ORDER BY seq`, id[:])
	for i := range counts {
		if err == nil {
			err = tx.one([]any{&counts[i].Boxes}, `SELECT COUNT(*) FROM mailboxes WHERE conversation = $1 AND seq = $2`, id[:], int64(counts[i].Seq))
		}
	}
	return counts, err
}
