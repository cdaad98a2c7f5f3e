package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// CheckReport says what Check has read and what does not fit.
type CheckReport struct {
	Conversations int      `json:"conversations"`
	Entries       uint64   `json:"entries"`
	Overdue       uint64   `json:"overdue"` // deadlines that wait for the server to run again; no problem
	Problems      []string `json:"problems"`
}

// Check reads every conversation of a store from its founding and says what does not fit: a sequence with gaps, an entry in the wrong
// epoch, a register or roster that differs from the replay of the commits, members that differ from the leaves, a tombstone without a
// hash, a deadline without its entry, a Welcome that nobody or too many wait for. It needs the store to itself and changes nothing.
//
// The time it takes grows with the entries and no faster: each is read once and looked up once by its key. progress is told after each
// page of a log how far it is; nil: nobody is.
func Check(ctx context.Context, s *store.Store, progress func(CheckReport)) (report CheckReport, err error) {
	if err := s.View(ctx, report.deadlines); err != nil {
		return report, err
	}
	err = eachConversation(ctx, s, func(id chat.ConversationID) error {
		r := replay{id: id, page: func(seq uint64) {
			if progress != nil {
				progress(CheckReport{Conversations: report.Conversations, Entries: report.Entries + seq})
			}
		}}
		if err := s.View(ctx, r.run); err != nil {
			return err
		}
		report.Conversations++
		report.Entries += r.seq
		report.Problems = append(report.Problems, r.problems...)
		return nil
	})
	return report, err
}

// deadlines looks for those that fit no entry, and counts those that are over: a server that stood still has some, and does them when
// it runs again.
func (r *CheckReport) deadlines(tx *store.Tx) (err error) {
	misplaced, err := tx.MisplacedDeadlines(20)
	if err != nil {
		return err
	}
	for _, d := range misplaced {
		r.Problems = append(r.Problems, fmt.Sprintf("conversation %s: there is a deadline of step %d for entry %d, which is not there or not of that kind", d.Conversation, d.Step, d.Seq))
	}
	r.Overdue, err = tx.CountDue(time.Now().UnixMilli())
	return err
}

// replay carries one conversation from its founding to its end.
type replay struct {
	id       chat.ConversationID
	group    *roster.Group
	seq      uint64
	epochSeq uint64
	people   map[string]bool // handles with a leaf
	problems []string
	page     func(seq uint64) // called after each page
}

func (r *replay) wrong(format string, a ...any) {
	r.problems = append(r.problems, fmt.Sprintf("conversation %s: ", r.id)+fmt.Sprintf(format, a...))
}

func (r *replay) run(tx *store.Tx) error {
	founding, err := tx.ConversationFounding(r.id)
	if err != nil {
		return err
	}
	if r.group, err = roster.Open(founding, time.Time{}); err != nil {
		r.wrong("its founding does not open: %v", err)
		return nil
	}
	for {
		entries, err := tx.Entries(r.id, r.seq, maxPage, maxPageBytes)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		for i := range entries {
			if e := &entries[i]; !r.step(e) {
				return nil // after this one, everything would look wrong
			}
			if err := r.dedup(tx, &entries[i]); err != nil {
				return err
			}
		}
		r.page(r.seq)
	}
	return errors.Join(r.register(tx), r.members(tx), r.welcomes(tx))
}

// step checks one entry and applies it to the roster; false: the log cannot be followed further.
func (r *replay) step(e *store.Entry) bool {
	r.seq++
	if e.Seq != r.seq {
		r.wrong("entry %d follows entry %d", e.Seq, r.seq-1)
		return false
	}
	if e.Epoch != r.group.Epoch() {
		r.wrong("entry %d is of epoch %d, the conversation was in %d", e.Seq, e.Epoch, r.group.Epoch())
	}
	kind := api.EntryKind(e.Kind)
	if e.Tombstone && (len(e.Body) != sha256.Size || kind != api.KindMessage && kind != api.KindPost) {
		r.wrong("entry %d is a tombstone of kind %d with %d bytes", e.Seq, kind, len(e.Body))
	}
	switch kind {
	case api.KindCommit:
		change, err := r.group.Stage(e.Body, time.Time{})
		if err != nil {
			r.wrong("commit %d does not stand: %v", e.Seq, err)
			return false
		}
		r.group, r.epochSeq = change.Next(), e.Seq
	case api.KindProposal:
		g, _, err := r.group.StageProposal(e.Body, time.Time{})
		if err != nil {
			r.wrong("proposal %d does not stand: %v", e.Seq, err)
			return false
		}
		r.group = g
	case api.KindMessage:
		if epoch, err := checkMessage(r.id, e.Body); !e.Tombstone && (err != nil || epoch != e.Epoch) {
			r.wrong("entry %d is no message of this conversation and epoch", e.Seq)
		}
	case api.KindPost, api.KindTakeBack:
	default:
		r.wrong("entry %d is of unknown kind %d", e.Seq, kind)
	}
	return true
}

// dedup checks that the entry's key finds the entry.
func (r *replay) dedup(tx *store.Tx, e *store.Entry) error {
	if e.Dedup == nil {
		return nil
	}
	found, err := tx.EntryByDedup(r.id, e.Dedup)
	if errors.Is(err, store.ErrNotFound) || err == nil && found.Seq != e.Seq {
		r.wrong("the dedup key of entry %d finds entry %d", e.Seq, found.Seq)
		return nil
	}
	return err
}

// register compares the conversation's row with where the replay ended.
func (r *replay) register(tx *store.Tx) error {
	row, snapshot, err := tx.ConversationRoster(r.id)
	if err != nil {
		return err
	}
	if row.Epoch != r.group.Epoch() || row.EpochSeq != r.epochSeq {
		r.wrong("the register says epoch %d since entry %d, the log says %d since %d", row.Epoch, row.EpochSeq, r.group.Epoch(), r.epochSeq)
	}
	want, err := r.group.MarshalBinary()
	if err != nil {
		return err
	}
	if !bytes.Equal(snapshot, want) {
		r.wrong("the roster differs from the replay of its commits")
	}
	for _, leaf := range row.Waiting {
		if _, ok := r.group.Member(leaf); !ok {
			r.wrong("it waits for the removal of leaf %d, which is blank", leaf)
		}
	}
	return nil
}

// members compares the member rows, in both directions, with the leaves. Who a handle belongs to is package account's to check: here
// their number.
func (r *replay) members(tx *store.Tx) error {
	r.people = make(map[string]bool)
	for _, m := range r.group.Members() {
		if who, err := chat.ParseIdentity(m.Identity); err != nil {
			r.wrong("leaf %d has no identity of ours", m.Leaf)
		} else if !who.IsAgent() {
			r.people[who.Handle] = true
		}
	}
	accounts, err := tx.MemberAccounts(r.id)
	if err != nil {
		return err
	}
	if len(accounts) != len(r.people) {
		r.wrong("%d accounts are members, %d have leaves", len(accounts), len(r.people))
	}
	listed, err := tx.CountListed(r.id, accounts)
	if err == nil && listed != len(accounts) {
		r.wrong("%d of its %d members have it in their list", listed, len(accounts))
	}
	return err
}

// welcomes compares what is stored with the mailboxes that point to it.
func (r *replay) welcomes(tx *store.Tx) error {
	counts, err := tx.WelcomeCounts(r.id)
	for _, c := range counts {
		if c.Seq > r.seq || c.Unread != c.Boxes {
			r.wrong("the Welcome of entry %d waits for %d, and is in %d mailboxes", c.Seq, c.Unread, c.Boxes)
		}
	}
	return err
}
