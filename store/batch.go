package store

import (
	"context"
	"fmt"
	"strings"

	"letterlock/chat"
)

// rowsPerInsert is how many entries one statement writes: the most that fit are written first.
var rowsPerInsert = [...]int{16, 4, 1}

// Batch is a transaction of AppendBatch.
type Batch struct {
	tx   *Tx
	rows []Entry // not yet written
	args []any
}

// AppendEntries is the hot call: entries of any conversations in one transaction, with one sync for all. When it returns nil, all of them
// are durable; when it returns an error, none is, unless the commit itself failed.
//
// The caller gives the sequence numbers, so that nothing is read or counted here; (conversation, seq) and (conversation, dedup) are
// unique keys, and a batch that would break one is refused whole with ErrExists.
func (s *Store) AppendEntries(ctx context.Context, entries []Entry) error {
	err := s.retry(ctx, func() error { return s.engine.AppendEntries(ctx, entries) })
	if err != nil && s.engine.Duplicate(err) {
		return ErrExists
	}
	return err
}

// AppendBatch is AppendEntries for a batch that also holds entries with more beside them, like commits: fill puts entries of any
// conversations into one write transaction, with one sync for all, under the same promise. Like the function of Update, fill may run
// more than once.
func (s *Store) AppendBatch(ctx context.Context, fill func(*Batch) error) error {
	err := s.Update(ctx, func(tx *Tx) error {
		b := &Batch{tx: tx}
		if err := fill(b); err != nil {
			return err
		}
		return b.flush()
	})
	if err != nil && s.engine.Duplicate(err) {
		return ErrExists
	}
	return err
}

// Append adds an entry. It is written when sixteen wait, before the next Try, or at the end.
func (b *Batch) Append(e Entry) error {
	b.rows = append(b.rows, e)
	if len(b.rows) < rowsPerInsert[0] {
		return nil
	}
	return b.flush()
}

// Try runs fn inside the transaction. When fn fails, what it wrote is undone, and the rest of the batch stands: refused is its error,
// and err is the transaction's. Entries of the batch so far are visible to fn.
func (b *Batch) Try(fn func(*Tx) error) (refused, err error) {
	if err := b.flush(); err != nil {
		return nil, err
	}
	if _, err := b.tx.exec(`SAVEPOINT item`); err != nil {
		return nil, err
	}
	if refused = fn(b.tx); refused != nil {
		if b.tx.store.engine.Retryable(refused) || b.tx.store.engine.DiskError(refused) != nil {
			return nil, refused
		}
		if _, err := b.tx.exec(`ROLLBACK TO SAVEPOINT item`); err != nil {
			return nil, err
		}
	}
	_, err = b.tx.exec(`RELEASE SAVEPOINT item`)
	return refused, err
}

// AppendEntry writes one entry inside a transaction, next to what belongs with it.
func (tx *Tx) AppendEntry(e Entry) error {
	return tx.insertEntries(appendArgs(make([]any, 0, entryFields), &e), len(rowsPerInsert)-1)
}

func (b *Batch) flush() error {
	if len(b.rows) == 0 {
		return nil
	}
	b.args = b.args[:0]
	for i := range b.rows {
		b.args = appendArgs(b.args, &b.rows[i])
	}
	b.rows = b.rows[:0]
	args := b.args
	for i, rows := range rowsPerInsert {
		for n := rows * entryFields; len(args) >= n; args = args[n:] {
			if err := b.tx.insertEntries(args[:n], i); err != nil {
				return err
			}
		}
	}
	return nil
}

// entryFields is how many columns an entry has.
const entryFields = 11

// EntryValues are the values of an entry in the order of EntryColumns, as drivers take them: int64, []byte, nil.
func EntryValues(e *Entry) [entryFields]any {
	tombstone := flag(e.Tombstone)
	if e.Expired {
		tombstone = 2
	}
	account, device := e.Account[:], e.Device[:]
	if e.Account.IsZero() {
		account = empty
	}
	if e.Device == (chat.DeviceID{}) {
		device = empty
	}
	var dedup any
	if e.Dedup != nil {
		dedup = e.Dedup
	}
	return [entryFields]any{e.Conversation[:], int64(e.Seq), int64(e.Kind), int64(e.Epoch), e.At, account, device, dedup, tombstone, e.Body, notNull(e.Extra)}
}

func appendArgs(args []any, e *Entry) []any {
	values := EntryValues(e)
	return append(args, values[:]...)
}

var empty = []byte{}

// insertEntries writes as many rows as the i-th statement takes.
func (tx *Tx) insertEntries(args []any, i int) error {
	_, err := tx.tx.StmtContext(tx.ctx, tx.store.inserts[i]).ExecContext(tx.ctx, args...)
	return err
}

// prepareBatch prepares the statements of the hot path on the writer's connections, once.
func (s *Store) prepareBatch(ctx context.Context) (err error) {
	for i, rows := range rowsPerInsert {
		if s.inserts[i], err = s.engine.Writer().PrepareContext(ctx, insertEntries(rows)); err != nil {
			return fmt.Errorf("store: prepare: %w", err)
		}
	}
	return nil
}

func insertEntries(rows int) string {
	var s strings.Builder
	s.WriteString(`INSERT INTO entries (` + EntryColumns + `) VALUES `)
	for i := range rows * entryFields {
		switch {
		case i == 0:
			s.WriteString("(")
		case i%entryFields == 0:
			s.WriteString("), (")
		default:
			s.WriteString(", ")
		}
		fmt.Fprintf(&s, "$%d", i+1)
	}
	return s.String() + ")"
}
