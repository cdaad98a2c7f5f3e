package delivery

import (
	"context"
	"errors"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// CheckQuick compares each conversation's register with its roster and with the newest entries of its log, and replays nothing: it
// finds a log that lost its end, a register or a roster that was moved alone, and no more. What it reads of a conversation does
// not grow with its log. progress is told how far it is; nil: nobody is.
func CheckQuick(ctx context.Context, s *store.Store, progress func(CheckReport)) (report CheckReport, err error) {
	err = eachConversation(ctx, s, func(id chat.ConversationID) error {
		r := replay{id: id}
		if err := s.View(ctx, r.newest); err != nil {
			return err
		}
		report.Conversations++
		report.Entries += r.seq
		report.Problems = append(report.Problems, r.problems...)
		if progress != nil {
			progress(report)
		}
		return nil
	})
	return report, err
}

// eachConversation calls fn for each id of the store, in order.
func eachConversation(ctx context.Context, s *store.Store, fn func(chat.ConversationID) error) error {
	var after chat.ConversationID
	for {
		var ids []chat.ConversationID
		if err := s.View(ctx, func(tx *store.Tx) (err error) {
			ids, err = tx.ConversationIDs(after, 1000)
			return err
		}); err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			if err := fn(id); err != nil {
				return err
			}
		}
		after = ids[len(ids)-1]
	}
}

// newest reads the register, the last entry and the commit that began the epoch.
func (r *replay) newest(tx *store.Tx) error {
	row, snapshot, err := tx.ConversationRoster(r.id)
	if err != nil {
		return err
	}
	if g, err := roster.UnmarshalGroup(snapshot); err != nil {
		r.wrong("its roster does not open: %v", err)
	} else if g.Epoch() != row.Epoch {
		r.wrong("the register says epoch %d, the roster is of %d", row.Epoch, g.Epoch())
	}
	if r.seq, err = tx.LastSeq(r.id); err != nil {
		return err
	}
	if r.seq > 0 {
		if err := r.last(tx, row); err != nil {
			return err
		}
	}
	if row.Epoch == 0 {
		return nil
	}
	commit, err := tx.Entry(r.id, row.EpochSeq)
	if errors.Is(err, store.ErrNotFound) || err == nil && (api.EntryKind(commit.Kind) != api.KindCommit || commit.Epoch+1 != row.Epoch) {
		r.wrong("the register says epoch %d since entry %d, and no commit stands there that began it", row.Epoch, row.EpochSeq)
		return nil
	}
	return err
}

// last compares the last entry with the register, and looks whether there is one before it.
func (r *replay) last(tx *store.Tx, row store.Conversation) error {
	e, err := tx.Entry(r.id, r.seq)
	if err != nil {
		return err
	}
	after := e.Epoch
	if api.EntryKind(e.Kind) == api.KindCommit {
		after++
	}
	if after != row.Epoch {
		r.wrong("the register says epoch %d, after the last entry (%d) it is %d", row.Epoch, r.seq, after)
	}
	if r.seq == 1 {
		return nil
	}
	if _, err = tx.Entry(r.id, r.seq-1); errors.Is(err, store.ErrNotFound) {
		r.wrong("entry %d is missing before the last one", r.seq-1)
		return nil
	}
	return err
}
