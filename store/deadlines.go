package store

import (
	"fmt"

	"letterlock/chat"
)

// Step is what a deadline takes from an entry.
type Step uint8

// The steps, in their order. After the second an entry has no deadline.
const (
	StepTombstone Step = 1 // the message goes: its time is over
	StepForget    Step = 2 // the tombstone forgets who sent it and under which dedup key
)

// Deadline says when an entry takes its next step.
type Deadline struct {
	Conversation chat.ConversationID
	Seq          uint64
	Due          int64 // ms
	Step         Step
}

// SetDeadline gives an entry its next step, in place of the one that it had.
func (tx *Tx) SetDeadline(d Deadline) error {
	_, err := tx.exec(`INSERT INTO deadlines (conversation, seq, due, step) VALUES ($1, $2, $3, $4)
		ON CONFLICT (conversation, seq) DO UPDATE SET due = excluded.due, step = excluded.step`,
		d.Conversation[:], int64(d.Seq), d.Due, int64(d.Step))
	return err
}

// DropDeadline takes an entry's deadline away. There need not be one.
func (tx *Tx) DropDeadline(id chat.ConversationID, seq uint64) error {
	_, err := tx.exec(`DELETE FROM deadlines WHERE conversation = $1 AND seq = $2`, id[:], int64(seq))
	return err
}

const deadlineColumns = `d.conversation, d.seq, d.due, d.step`

// Due lists deadlines that are over at a moment, the oldest first, at most limit.
func (tx *Tx) Due(now int64, limit int) ([]Deadline, error) {
	return tx.deadlines(`SELECT `+deadlineColumns+` FROM deadlines d WHERE d.due <= $1 ORDER BY d.due, d.conversation, d.seq LIMIT $2`, now, limit)
}

// Over lists which messages of a part of a log, after one sequence number and up to another, are to be tombstones by now.
func (tx *Tx) Over(id chat.ConversationID, after, last uint64, now int64) ([]Deadline, error) {
	return tx.deadlines(`SELECT `+deadlineColumns+` FROM deadlines d
		WHERE d.conversation = $1 AND d.seq > $2 AND d.seq <= $3 AND d.due <= $4 AND d.step = 1 ORDER BY d.seq`,
		id[:], int64(after), int64(last), now)
}

// CountDue says how many deadlines are over at a moment.
func (tx *Tx) CountDue(now int64) (n uint64, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM deadlines WHERE due <= $1`, now)
	return n, err
}

// MisplacedDeadlines lists deadlines whose entry is not there or not what the step is for, at most limit: for checks.
func (tx *Tx) MisplacedDeadlines(limit int) ([]Deadline, error) {
	return tx.deadlines(`SELECT `+deadlineColumns+` FROM deadlines d LEFT JOIN entries e ON e.conversation = d.conversation AND e.seq = d.seq
		WHERE e.seq IS NULL OR d.step = 1 AND e.tombstone <> 0 OR d.step = 2 AND e.tombstone = 0 OR d.step NOT IN (1, 2)
		ORDER BY d.conversation, d.seq LIMIT $1`, limit)
}

func (tx *Tx) deadlines(query string, args ...any) (list []Deadline, err error) {
	return list, tx.list(func(scan func(...any) error) error {
		var d Deadline
		var id []byte
		if err := scan(&id, &d.Seq, &d.Due, &d.Step); err != nil {
			return err
		}
		if copy(d.Conversation[:], id) != len(d.Conversation) {
			return fmt.Errorf("store: deadline row %x/%d is damaged", id, d.Seq)
		}
		list = append(list, d)
		return nil
	}, query, args...)
}
