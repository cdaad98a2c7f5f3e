package store

import (
	"encoding/binary"
	"fmt"

	"letterlock/chat"
)

// Conversation is one conversation's row but for its roster and founding bytes, which are read apart.
type Conversation struct {
	ID       chat.ConversationID
	Kind     uint8  // 0 private, 1 shared
	Partner  string // of a shared thread
	Created  int64  // ms
	Epoch    uint64
	EpochSeq uint64   // of the commit that began the epoch; 0 in epoch 0
	Waiting  []uint32 // leaves whose proposed removal must be committed before anything else
}

// Founding is what a conversation begins with.
type Founding struct {
	Conversation
	GroupInfo []byte
	Roster    []byte
	Members   []chat.AccountID
}

// CreateConversation inserts a conversation at epoch 0 with its first members; ErrExists if the id is taken.
func (tx *Tx) CreateConversation(f Founding) error {
	err := tx.insert(`INSERT INTO conversations (conversation, kind, partner, created, epoch, epoch_seq, waiting, founding, roster)
		VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8) ON CONFLICT DO NOTHING`,
		f.ID[:], int64(f.Kind), f.Partner, f.Created, int64(f.Epoch), leafBytes(f.Waiting), f.GroupInfo, f.Roster)
	if err != nil {
		return err
	}
	for _, a := range f.Members {
		if err := tx.JoinConversation(f.ID, a); err != nil {
			return err
		}
	}
	return nil
}

const conversationColumns = `conversation, kind, partner, created, epoch, epoch_seq, waiting`

func scanConversation(scan func(...any) error, more ...any) (c Conversation, err error) {
	var id, waiting []byte
	err = scan(append([]any{&id, &c.Kind, &c.Partner, &c.Created, &c.Epoch, &c.EpochSeq, &waiting}, more...)...)
	if err != nil {
		return c, err
	}
	if len(id) != len(c.ID) || len(waiting)%4 != 0 {
		return c, fmt.Errorf("store: conversation row %x is damaged", id)
	}
	copy(c.ID[:], id)
	for ; len(waiting) > 0; waiting = waiting[4:] {
		c.Waiting = append(c.Waiting, binary.BigEndian.Uint32(waiting))
	}
	return c, nil
}

// Conversation reads one conversation.
func (tx *Tx) Conversation(id chat.ConversationID) (Conversation, error) {
	return scanConversation(func(dst ...any) error {
		return tx.one(dst, `SELECT `+conversationColumns+` FROM conversations WHERE conversation = $1`, id[:])
	})
}

// ConversationRoster reads one conversation with its roster snapshot.
func (tx *Tx) ConversationRoster(id chat.ConversationID) (c Conversation, roster []byte, err error) {
	c, err = scanConversation(func(dst ...any) error {
		return tx.one(dst, `SELECT `+conversationColumns+`, roster FROM conversations WHERE conversation = $1`, id[:])
	}, &roster)
	return c, roster, err
}

// ConversationFounding reads the GroupInfo that a conversation was founded with.
func (tx *Tx) ConversationFounding(id chat.ConversationID) (groupInfo []byte, err error) {
	err = tx.one([]any{&groupInfo}, `SELECT founding FROM conversations WHERE conversation = $1`, id[:])
	return groupInfo, err
}

// ConversationIDs lists ids in order, after the given one, at most limit.
func (tx *Tx) ConversationIDs(after chat.ConversationID, limit int) (ids []chat.ConversationID, err error) {
	return ids, tx.list(func(scan func(...any) error) error {
		var id chat.ConversationID
		err := scanID(scan, id[:])
		ids = append(ids, id)
		return err
	}, `SELECT conversation FROM conversations WHERE conversation > $1 ORDER BY conversation LIMIT $2`, after[:], limit)
}

// NextEpoch moves a conversation from epoch to epoch+1, begun by the commit at seq, and forgets what it waited for. It is the
// register that takes one commit for each epoch: ErrNotFound when the conversation is not in that epoch.
func (tx *Tx) NextEpoch(id chat.ConversationID, epoch, seq uint64, roster []byte) error {
	return tx.change(`UPDATE conversations SET epoch = $1, epoch_seq = $2, waiting = $3, roster = $4 WHERE conversation = $5 AND epoch = $6`,
		int64(epoch+1), int64(seq), []byte{}, roster, id[:], int64(epoch))
}

// Await notes proposals of the epoch in the roster, and the leaves that a commit must remove before anything else is taken.
func (tx *Tx) Await(id chat.ConversationID, epoch uint64, waiting []uint32, roster []byte) error {
	return tx.change(`UPDATE conversations SET waiting = $1, roster = $2 WHERE conversation = $3 AND epoch = $4`,
		leafBytes(waiting), roster, id[:], int64(epoch))
}

func leafBytes(leaves []uint32) []byte {
	b := make([]byte, 0, 4*len(leaves))
	for _, l := range leaves {
		b = binary.BigEndian.AppendUint32(b, l)
	}
	return b
}

// JoinConversation makes an account a member, for the first time or again.
func (tx *Tx) JoinConversation(id chat.ConversationID, a chat.AccountID) error {
	if _, err := tx.exec(`INSERT INTO members (conversation, account, left_at_seq) VALUES ($1, $2, 0)
		ON CONFLICT (conversation, account) DO UPDATE SET left_at_seq = 0`, id[:], a[:]); err != nil {
		return err
	}
	_, err := tx.exec(`INSERT INTO account_conversations (account, conversation) VALUES ($1, $2) ON CONFLICT DO NOTHING`, a[:], id[:])
	return err
}

// LeaveConversation notes that the commit at seq removed the last device of an account.
func (tx *Tx) LeaveConversation(id chat.ConversationID, a chat.AccountID, seq uint64) error {
	if err := tx.change(`UPDATE members SET left_at_seq = $1 WHERE conversation = $2 AND account = $3`, int64(seq), id[:], a[:]); err != nil {
		return err
	}
	return tx.change(`DELETE FROM account_conversations WHERE account = $1 AND conversation = $2`, a[:], id[:])
}

// Membership says whether an account is (leftAtSeq 0) or was a member; ErrNotFound if it never was.
func (tx *Tx) Membership(id chat.ConversationID, a chat.AccountID) (leftAtSeq uint64, err error) {
	err = tx.one([]any{&leftAtSeq}, `SELECT left_at_seq FROM members WHERE conversation = $1 AND account = $2`, id[:], a[:])
	return leftAtSeq, err
}

// MemberAccounts lists the accounts that are members, in order.
func (tx *Tx) MemberAccounts(id chat.ConversationID) (accounts []chat.AccountID, err error) {
	return accounts, tx.list(func(scan func(...any) error) error {
		var a chat.AccountID
		err := scanID(scan, a[:])
		accounts = append(accounts, a)
		return err
	}, `SELECT account FROM members WHERE conversation = $1 AND left_at_seq = 0 ORDER BY account`, id[:])
}

// AccountConversations lists the conversations that an account is a member of, in order.
func (tx *Tx) AccountConversations(a chat.AccountID) (ids []chat.ConversationID, err error) {
	return ids, tx.list(func(scan func(...any) error) error {
		var id chat.ConversationID
		err := scanID(scan, id[:])
		ids = append(ids, id)
		return err
	}, `SELECT conversation FROM account_conversations WHERE account = $1 ORDER BY conversation`, a[:])
}

// CountConversations says how many conversations an account is a member of.
func (tx *Tx) CountConversations(a chat.AccountID) (n int, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM account_conversations WHERE account = $1`, a[:])
	return n, err
}

// HaveCommonConversation says whether two accounts are members of one conversation. Each list is read from its own shard.
func (tx *Tx) HaveCommonConversation(a, b chat.AccountID) (bool, error) {
	of := make(map[chat.ConversationID]bool)
	ids, err := tx.AccountConversations(a)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		of[id] = true
	}
	if ids, err = tx.AccountConversations(b); err != nil {
		return false, err
	}
	for _, id := range ids {
		if of[id] {
			return true, nil
		}
	}
	return false, nil
}

// scanID reads one column into a fixed-size id.
func scanID(scan func(...any) error, id []byte) error {
	var b []byte
	if err := scan(&b); err != nil {
		return err
	}
	if len(b) != len(id) {
		return fmt.Errorf("store: id of %d bytes, want %d", len(b), len(id))
	}
	copy(id, b)
	return nil
}

// CountListed says in how many of the accounts' lists a conversation stands, for checks.
func (tx *Tx) CountListed(id chat.ConversationID, accounts []chat.AccountID) (n int, err error) {
	for _, a := range accounts {
		var one int
		if err := tx.one([]any{&one}, `SELECT COUNT(*) FROM account_conversations WHERE account = $1 AND conversation = $2`, a[:], id[:]); err != nil {
			return n, err
		}
		n += one
	}
	return n, nil
}
