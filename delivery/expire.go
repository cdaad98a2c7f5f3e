package delivery

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// What the sweep of deadlines works by.
const (
	sweepEvery  = time.Second
	sweepBatch  = 64 // entries of one transaction: the writer is never held for longer than a batch of messages
	forgetAfter = 30 * 24 * time.Hour
)

// clock is the service's time in ms. It does not go back while the service lives: what was over stays over.
type clock struct{ latest atomic.Int64 }

func (s *Service) ms() int64 {
	now := s.Now().UnixMilli()
	for {
		latest := s.clock.latest.Load()
		if now <= latest {
			return latest
		}
		if s.clock.latest.CompareAndSwap(latest, now) {
			return now
		}
	}
}

func checkExpires(at int64) error {
	if at < 0 || at > api.MaxExpires {
		return chat.Errorf(chat.Invalid, "expires: want ms since 1970, at most %d, or 0 for a message that stays", int64(api.MaxExpires))
	}
	return nil
}

// expires gives a message its deadline (ms; 0: none), which is written in the transaction of its entry.
func (it *item) expires(at int64) {
	if at == 0 {
		return
	}
	it.apply = func(tx *store.Tx, _ *tail, write func() error) (*head, error) {
		if err := write(); err != nil {
			return nil, err
		}
		return nil, tx.SetDeadline(store.Deadline{Conversation: it.entry.Conversation, Seq: it.entry.Seq, Due: at, Step: store.StepTombstone})
	}
}

// ReadLog reads a part of a log as it may be handed out at a moment (ms): a message whose time is over is a tombstone already, whether
// the sweep has come by or not.
func ReadLog(tx *store.Tx, id chat.ConversationID, after uint64, limit, size int, now int64) ([]store.Entry, error) {
	page, err := tx.Entries(id, after, limit, size)
	if err != nil || len(page) == 0 {
		return page, err
	}
	over, err := tx.Over(id, after, page[len(page)-1].Seq, now)
	at := 0 // both lists are in order, and the page ends at or above the last deadline
	for _, d := range over {
		for page[at].Seq < d.Seq {
			at++
		}
		if e := &page[at]; e.Seq == d.Seq && !e.Tombstone {
			hash := sha256.Sum256(e.Body)
			e.Body, e.Extra, e.Tombstone, e.Expired = hash[:], nil, true, true
		}
	}
	return page, err
}

// RunSweep does what deadlines ask for, until ctx ends. Several nodes may run it on one database.
func (s *Service) RunSweep(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Error("messages whose time is over could not be deleted; it is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Sweep does everything that is due, in small transactions with room for others between them. Each stands by itself: after a crash the
// next sweep goes on with what is left.
func (s *Service) Sweep(ctx context.Context) error {
	for {
		var due []store.Deadline
		now := s.ms()
		err := s.Store.View(ctx, func(tx *store.Tx) (err error) {
			due, err = tx.Due(now, sweepBatch)
			return err
		})
		if err != nil || len(due) == 0 {
			return err
		}
		if err := s.Store.Update(ctx, func(tx *store.Tx) error { return sweep(tx, now) }); err != nil {
			return err
		}
	}
}

// sweep is one transaction of it. It looks again: another node may have been quicker.
func sweep(tx *store.Tx, now int64) error {
	due, err := tx.Due(now, sweepBatch)
	if err != nil {
		return err
	}
	for _, d := range due {
		switch d.Step {
		case store.StepTombstone:
			err = expire(tx, d, now)
		default:
			err = forget(tx, d, now)
		}
		if errors.Is(err, store.ErrNotFound) { // the entry is not there: check reports it, and it must not stop the others
			err = tx.DropDeadline(d.Conversation, d.Seq)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func expire(tx *store.Tx, d store.Deadline, now int64) error {
	if err := tx.Expire(d.Conversation, d.Seq); err != nil {
		return err
	}
	return ForgetLater(tx, d.Conversation, d.Seq, now)
}

// ForgetLater goes with every tombstone, in its transaction: in thirty days it loses what only a fresh one needs.
func ForgetLater(tx *store.Tx, id chat.ConversationID, seq uint64, now int64) error {
	return tx.SetDeadline(store.Deadline{Conversation: id, Seq: seq, Due: now + forgetAfter.Milliseconds(), Step: store.StepForget})
}

// forget empties a tombstone, but in the epoch that still runs: there devices compare the number of their messages with their own count,
// and a message may still be sent again.
func forget(tx *store.Tx, d store.Deadline, now int64) error {
	e, err := tx.Entry(d.Conversation, d.Seq)
	if err != nil {
		return err
	}
	c, err := tx.Conversation(d.Conversation)
	if err != nil {
		return err
	}
	if e.Epoch >= c.Epoch {
		return ForgetLater(tx, d.Conversation, d.Seq, now)
	}
	if err := tx.Forget(d.Conversation, d.Seq); err != nil {
		return err
	}
	return tx.DropDeadline(d.Conversation, d.Seq)
}
