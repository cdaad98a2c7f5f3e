package postgres

import (
	"context"

	"letterlock/chat"
	"letterlock/store"
)

// insertEntries is the whole batch. Being one statement it is one transaction without saying so: PostgreSQL commits before it answers.
const insertEntries = `INSERT INTO entries (conversation, seq, kind, epoch, at, account, device, dedup, tombstone, body, extra)
	SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[], $8::bytea[],
	$9::bigint[], $10::bytea[], $11::bytea[])`

// columns are entries turned over: what the statement takes.
type columns struct {
	conversation                    [][]byte
	seq, kind, epoch, at, tombstone []int64
	account, device                 [][]byte // empty: none
	dedup                           [][]byte // nil: none
	body, extra                     [][]byte
}

// AppendEntries writes the batch in one round trip.
func (e *engine) AppendEntries(ctx context.Context, entries []store.Entry) error {
	c := turnOver(entries)
	_, err := e.hot.Exec(ctx, insertEntries, c.conversation, c.seq, c.kind, c.epoch, c.at, c.account, c.device, c.dedup, c.tombstone, c.body, c.extra)
	return err
}

func turnOver(entries []store.Entry) *columns {
	n := len(entries)
	numbers, bytes := make([]int64, 5*n), make([][]byte, 6*n)
	number := func(i int) []int64 { return numbers[i*n : (i+1)*n] }
	text := func(i int) [][]byte { return bytes[i*n : (i+1)*n] }
	c := &columns{conversation: text(0), seq: number(0), kind: number(1), epoch: number(2), at: number(3), tombstone: number(4),
		account: text(1), device: text(2), dedup: text(3), body: text(4), extra: text(5)}
	for i := range entries {
		e := &entries[i]
		c.conversation[i], c.seq[i], c.kind[i], c.epoch[i], c.at[i] = e.Conversation[:], int64(e.Seq), int64(e.Kind), int64(e.Epoch), e.At
		c.account[i], c.device[i], c.dedup[i], c.body[i], c.extra[i] = e.Account[:], e.Device[:], e.Dedup, e.Body, e.Extra
		if e.Account.IsZero() {
			c.account[i] = []byte{}
		}
		if e.Device == (chat.DeviceID{}) {
			c.device[i] = []byte{}
		}
		if e.Extra == nil {
			c.extra[i] = []byte{}
		}
		if e.Tombstone {
			c.tombstone[i] = 1
		}
	}
	return c
}
