package store

import (
	"crypto/sha256"
	"fmt"

	"letterlock/chat"
)

// Entry is one entry of a conversation's log, as stored.
type Entry struct {
	Conversation chat.ConversationID
	Seq          uint64 // from 1, without gaps
	Kind         uint8  // api.EntryKind
	Epoch        uint64
	At           int64          // ms
	Account      chat.AccountID // who sent it, or for whom an agent did; zero: the server
	Device       chat.DeviceID  // zero: not a device
	Dedup        []byte         // nil: the server's own
	Tombstone    bool           // Body is the SHA-256 of what stood there
	Expired      bool           // of a tombstone: nobody deleted it, its time was over
	Body         []byte
	Extra        []byte
}

// EntryColumns are the columns of an entry, for engines that append in a form of their own.
const EntryColumns = `conversation, seq, kind, epoch, at, account, device, dedup, tombstone, body, extra`

func scanEntry(scan func(...any) error) (e Entry, err error) {
	var conversation, account, device []byte
	var tombstone int64
	err = scan(&conversation, &e.Seq, &e.Kind, &e.Epoch, &e.At, &account, &device, &e.Dedup, &tombstone, &e.Body, &e.Extra)
	e.Tombstone, e.Expired = tombstone != 0, tombstone == 2
	if err == nil && (copy(e.Conversation[:], conversation) != len(e.Conversation) ||
		copy(e.Account[:], account) != len(account) || copy(e.Device[:], device) != len(device)) {
		err = fmt.Errorf("store: entry row %x/%d is damaged", conversation, e.Seq)
	}
	return e, err
}

// LastSeq is the sequence number of a conversation's newest entry, 0 if there is none. There is no counter that it could differ from.
func (tx *Tx) LastSeq(id chat.ConversationID) (seq uint64, err error) {
	err = tx.one([]any{&seq}, `SELECT COALESCE(MAX(seq), 0) FROM entries WHERE conversation = $1`, id[:])
	return seq, err
}

// Entry reads one entry.
func (tx *Tx) Entry(id chat.ConversationID, seq uint64) (Entry, error) {
	return scanEntry(func(dst ...any) error {
		return tx.one(dst, `SELECT `+EntryColumns+` FROM entries WHERE conversation = $1 AND seq = $2`, id[:], int64(seq))
	})
}

// EntryByDedup reads the entry that was sent with a dedup key.
func (tx *Tx) EntryByDedup(id chat.ConversationID, dedup []byte) (Entry, error) {
	return scanEntry(func(dst ...any) error {
		return tx.one(dst, `SELECT `+EntryColumns+` FROM entries WHERE conversation = $1 AND dedup = $2`, id[:], dedup)
	})
}

// Entries reads a log in order: after the given sequence number, at most limit entries, and no more once size bytes of bodies are
// passed (but at least one).
func (tx *Tx) Entries(id chat.ConversationID, after uint64, limit, size int) (entries []Entry, err error) {
	rows, err := tx.tx.QueryContext(tx.ctx, `SELECT `+EntryColumns+` FROM entries WHERE conversation = $1 AND seq > $2 ORDER BY seq LIMIT $3`,
		id[:], int64(after), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for size > 0 && rows.Next() {
		e, err := scanEntry(rows.Scan)
		if err != nil {
			return nil, err
		}
		size -= len(e.Body) + len(e.Extra)
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// CountSent counts the application messages of one device in one epoch, which began after the given sequence number.
func (tx *Tx) CountSent(id chat.ConversationID, epochSeq, epoch uint64, kind uint8, a chat.AccountID, d chat.DeviceID) (n uint64, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM entries
		WHERE conversation = $1 AND seq > $2 AND epoch = $3 AND kind = $4 AND account = $5 AND device = $6`,
		id[:], int64(epochSeq), int64(epoch), int64(kind), a[:], d[:])
	return n, err
}

// Tombstone replaces an entry's body by its SHA-256, and its extra by nothing. Once is enough: again changes nothing.
func (tx *Tx) Tombstone(id chat.ConversationID, seq uint64) error { return tx.bury(id, seq, false) }

// Expire is Tombstone for a message whose time is over, and says so.
func (tx *Tx) Expire(id chat.ConversationID, seq uint64) error { return tx.bury(id, seq, true) }

// bury writes the row anew instead of changing it: SQLite gives the space of a row that shrank in its place back to nobody, but that
// of rows that went to the next ones.
func (tx *Tx) bury(id chat.ConversationID, seq uint64, expired bool) error {
	e, err := tx.Entry(id, seq)
	if err != nil || e.Tombstone {
		return err
	}
	if err := tx.change(`DELETE FROM entries WHERE conversation = $1 AND seq = $2`, id[:], int64(seq)); err != nil {
		return err
	}
	hash := sha256.Sum256(e.Body)
	e.Body, e.Extra, e.Tombstone, e.Expired = hash[:], nil, true, expired
	return tx.AppendEntry(e)
}

// Forget takes from a tombstone who sent it and under which dedup key: what stays is its place and the hash.
func (tx *Tx) Forget(id chat.ConversationID, seq uint64) error {
	return tx.change(`UPDATE entries SET account = $1, device = $1, dedup = NULL WHERE conversation = $2 AND seq = $3 AND tombstone <> 0`,
		empty, id[:], int64(seq))
}
