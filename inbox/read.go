package inbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/proof"
	"letterlock/store"
)

// Limits of one answer to Changes.
const (
	defaultChanges  = 100
	maxChanges      = 500
	maxChangesBytes = 1 << 20 // of bodies; at least one entry comes
)

// Grant says what the calling agent may do now. It is answered for grants in every state: what it says is what decides.
func (s *Service) Grant(ctx context.Context) (out api.InboxGrant, err error) {
	return out, s.acting(ctx, s.view, func(tx *store.Tx, c *call) error {
		out = api.InboxGrant{Grant: c.grant.ID, Conversation: c.grant.Conversation, Actions: c.grant.Actions.Names(), Epoch: c.thread.epoch,
			State: c.grant.State, Signed: c.grant.Signed}
		if out.Recipient, err = s.recipient(tx, c); err != nil || out.Recipient == api.RecipientSeveral {
			return err
		}
		list, err := others(tx, &c.grant)
		if err != nil {
			return err
		}
		handle, err := tx.FriendHandle(c.grant.Account, c.grant.Partner, list[0])
		if err == nil {
			out.Friend = hex.EncodeToString(handle[:])
		}
		if errors.Is(err, store.ErrNotFound) { // came into the thread later: no handle of theirs was asked for
			return nil
		}
		return err
	})
}

// Slot is the newest announcement that the thread's members made.
func (s *Service) Slot(ctx context.Context) (out api.InboxSlot, err error) {
	return out, s.acting(ctx, s.view, func(tx *store.Tx, c *call) error {
		if err := c.may(chat.Send); err != nil {
			return err
		}
		conv, err := tx.Conversation(c.grant.Conversation)
		if err != nil {
			return err
		}
		commit, err := tx.Entry(conv.ID, conv.EpochSeq)
		if errors.Is(err, store.ErrNotFound) || err == nil && len(commit.Extra) == 0 {
			return chat.Errorf(chat.Unavailable, "the members have announced no slot yet")
		}
		out = api.InboxSlot{Slot: commit.Extra, Epoch: conv.Epoch}
		return err
	})
}

// Welcome is the Welcome that lets a reading agent into the thread. It waits as long as the grant is live: a lost answer costs nothing.
func (s *Service) Welcome(ctx context.Context) (out api.MailboxWelcome, err error) {
	return out, s.acting(ctx, s.view, func(tx *store.Tx, c *call) error {
		if err := c.may(chat.Read); err != nil {
			return err
		}
		waiting, err := tx.Welcomes(store.AgentMailbox(c.grant.ID), 1, 1)
		if err != nil {
			return err
		}
		if len(waiting) == 0 {
			return chat.Errorf(chat.NotFound, "no Welcome waits under this grant")
		}
		w := waiting[0]
		out = api.MailboxWelcome{ID: w.ID, Conversation: w.Conversation, Seq: w.Seq, Welcome: w.Welcome}
		return nil
	})
}

// state is where a reading agent stands: the last entry that it has, and how many open records of which period. Agents get it as an
// opaque string; one that makes up its own harms itself.
type state struct {
	seq    uint64
	period int64
	opens  uint64
}

func (st state) String() string { return fmt.Sprintf("1.%d.%d.%d", st.seq, st.period, st.opens) }

// parseState reads what String wrote; the empty string is the beginning.
func parseState(text string) (st state, err error) {
	if text == "" {
		return st, nil
	}
	if len(text) <= 64 {
		fmt.Sscanf(text, "1.%d.%d.%d", &st.seq, &st.period, &st.opens)
	}
	if st.String() != text || st.seq > 1<<62 {
		return st, chat.Errorf(chat.Invalid, "sinceState is not one that was given here: leave it out to begin with the first entry that the grant may read")
	}
	return st, nil
}

// Changes serves what a reading agent has not seen, from the entry after the commit that added its leaf. Nothing is served before the
// open records of the running access period, one for each person in the thread, are in the same transaction's outbox; nothing is
// served in a new period before the agent countersigned what it got in the last one, and nothing at all while the ledger has no quorum.
func (s *Service) Changes(ctx context.Context, since string, limit int) (out api.InboxChanges, err error) {
	st, err := parseState(since)
	if err != nil {
		return out, err
	}
	if limit <= 0 {
		limit = defaultChanges
	}
	limit = min(limit, maxChanges)
	idle := false
	err = s.acting(ctx, s.view, func(tx *store.Tx, c *call) error {
		if err := c.may(chat.Read); err != nil {
			return err
		}
		idle, err = s.nothingNew(tx, c, st)
		return err
	})
	if err != nil {
		return out, err
	}
	if idle {
		return api.InboxChanges{Entries: []api.Entry{}, State: st.String()}, nil
	}
	err = s.acting(ctx, s.update, func(tx *store.Tx, c *call) error {
		if err := c.may(chat.Read); err != nil {
			return err
		}
		out, err = s.serve(tx, c, st, limit)
		return err
	})
	if err == nil {
		s.Ledger.Notify()
	}
	return out, err
}

// nothingNew says that there is neither an entry nor a statement for the agent: then nothing needs to be written.
func (s *Service) nothingNew(tx *store.Tx, c *call, st state) (bool, error) {
	last, err := tx.LastSeq(c.grant.Conversation)
	if err != nil {
		return false, err
	}
	if st.seq > last {
		return false, chat.Errorf(chat.Invalid, "sinceState is ahead of the thread: leave it out to begin again")
	}
	due, err := s.overdue(tx, c)
	return last <= max(st.seq, c.grant.JoinedSeq) && len(due) == 0, err
}

// serve hands out entries and writes down, in the same transaction, that it did.
func (s *Service) serve(tx *store.Tx, c *call, st state, limit int) (api.InboxChanges, error) {
	out := api.InboxChanges{Entries: []api.Entry{}, State: st.String()}
	due, err := s.overdue(tx, c)
	if err != nil {
		return out, err
	}
	if len(due) > 0 && st.seq >= due[len(due)-1].Last {
		out.Closes = s.statements(due)
		return out, nil
	}
	if err := s.Ledger.Quorum(); err != nil {
		return out, err
	}
	entries, opens, period, err := s.page(tx, c, st, due, limit)
	if err != nil || len(entries) == 0 {
		return out, err
	}
	seen := uint64(0)
	if st.period == period {
		seen = st.opens
	}
	for _, o := range opens {
		if o.N > seen {
			out.Opens, out.Promises = append(out.Opens, o.Disclosure), append(out.Promises, o.Promise)
		}
	}
	for i := range entries {
		out.Entries = append(out.Entries, wireEntry(&entries[i]))
	}
	last, err := tx.LastSeq(c.grant.Conversation)
	next := state{seq: entries[len(entries)-1].Seq, period: period, opens: uint64(len(opens))}
	out.State, out.More = next.String(), next.seq < last
	return out, err
}

// page reads the entries to hand out and the open records of their period. A period that is over is served again to its end where the
// agent has not got there: its last page was lost on the way, and a statement about it would not be the agent's to sign.
func (s *Service) page(tx *store.Tx, c *call, st state, due []store.Access, limit int) ([]store.Entry, []store.AccessOpen, int64, error) {
	for _, a := range due {
		if st.seq >= a.Last {
			continue
		}
		after, err := c.from(a, max(st.seq, c.grant.JoinedSeq))
		if err != nil {
			return nil, nil, 0, err
		}
		entries, err := delivery.ReadLog(tx, a.Conversation, after, limit, maxChangesBytes, c.now)
		if err != nil {
			return nil, nil, 0, err
		}
		for len(entries) > 0 && entries[len(entries)-1].Seq > a.Last {
			entries = entries[:len(entries)-1]
		}
		opens, err := tx.AccessOpens(a.Conversation, a.Grant, a.Period)
		return entries, opens, a.Period, err
	}
	period := proof.Period(c.now)
	access, err := c.access(tx, period)
	if err != nil {
		return nil, nil, period, err
	}
	after, err := c.from(access, max(st.seq, c.grant.JoinedSeq))
	if err != nil {
		return nil, nil, period, err
	}
	entries, err := delivery.ReadLog(tx, c.grant.Conversation, after, limit, maxChangesBytes, c.now)
	if err != nil || len(entries) == 0 {
		return nil, nil, period, err
	}
	opens, err := s.served(tx, c, access, entries)
	return entries, opens, period, err
}

func wireEntry(e *store.Entry) api.Entry {
	return api.Entry{Conversation: e.Conversation, Seq: e.Seq, Kind: api.EntryKind(e.Kind), Epoch: e.Epoch, At: e.At, Body: e.Body, Extra: e.Extra,
		Tombstone: e.Tombstone, Expired: e.Expired}
}
