package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// Limits of one answer.
const (
	maxPage        = 1000    // entries
	defaultPage    = 100     // entries
	maxPageBytes   = 1 << 20 // of bodies; one entry always fits
	maxMailbox     = 100     // Welcomes
	maxMailboxSize = 8 << 20 // of Welcomes; one always fits
	maxWait        = 60      // seconds of a long poll
)

// GetConversation says where a conversation stands.
func (s *Service) GetConversation(ctx context.Context, id chat.ConversationID) (c api.Conversation, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return c, err
	}
	return c, s.view(ctx, func(tx *store.Tx) error {
		if _, err := membership(tx, id, caller.Account); err != nil {
			return err
		}
		c, err = describe(tx, id)
		return err
	})
}

// ListConversations lists the conversations that the caller's account is in.
func (s *Service) ListConversations(ctx context.Context) (list api.ConversationList, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return list, err
	}
	list.Conversations = []api.Conversation{}
	return list, s.view(ctx, func(tx *store.Tx) error {
		ids, err := tx.AccountConversations(caller.Account)
		for _, id := range ids {
			if err != nil {
				return err
			}
			var c api.Conversation
			c, err = describe(tx, id)
			list.Conversations = append(list.Conversations, c)
		}
		return err
	})
}

func describe(tx *store.Tx, id chat.ConversationID) (api.Conversation, error) {
	c, err := tx.Conversation(id)
	if err != nil {
		return api.Conversation{}, err
	}
	last, err := tx.LastSeq(id)
	return api.Conversation{ID: id, Kind: c.Kind, Partner: c.Partner, Epoch: c.Epoch, LastSeq: last, Blocked: len(c.Waiting) > 0, Created: c.Created}, err
}

// membership refuses who never was a member, and whom the operator blocked. Who left may read up to the commit that says so.
func membership(tx *store.Tx, id chat.ConversationID, a chat.AccountID) (leftAtSeq uint64, err error) {
	if err := notBlocked(tx, a); err != nil {
		return 0, err
	}
	leftAtSeq, err = tx.Membership(id, a)
	if errors.Is(err, store.ErrNotFound) {
		err = errNoConversation
	}
	return leftAtSeq, err
}

// page reads entries that an account may have. last is 0, or the end of what it may have, since it left there; end is the log's.
func (s *Service) page(ctx context.Context, id chat.ConversationID, a chat.AccountID, after uint64, limit, size int) (page []store.Entry, last, end uint64, err error) {
	return page, last, end, s.view(ctx, func(tx *store.Tx) error {
		if last, err = membership(tx, id, a); err != nil {
			return err
		}
		if page, err = ReadLog(tx, id, after, limit, size, s.ms()); err != nil {
			return err
		}
		if last != 0 {
			page = slices.DeleteFunc(page, func(e store.Entry) bool { return e.Seq > last })
		}
		end, err = tx.LastSeq(id)
		return err
	})
}

// Log reads entries after a sequence number, in order. With waitSeconds it waits for the first if there is none.
func (s *Service) Log(ctx context.Context, id chat.ConversationID, after uint64, limit int, waitSeconds int) (api.Page, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Page{}, err
	}
	if limit <= 0 {
		limit = defaultPage
	}
	read := func() (p api.Page, err error) {
		entries, _, end, err := s.page(ctx, id, caller.Account, after, min(limit, maxPage), maxPageBytes)
		return wirePage(entries, end), err
	}
	p, err := read()
	if err != nil || len(p.Entries) > 0 || waitSeconds <= 0 {
		return p, err
	}
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return p, err
	}
	defer s.cache.release(c)
	if !s.wait(ctx, c.after(after), waitSeconds) {
		return p, nil
	}
	return read()
}

// wait waits for news, but for so many seconds at most.
func (s *Service) wait(ctx context.Context, ch <-chan struct{}, seconds int) bool {
	t := time.NewTimer(time.Duration(min(seconds, maxWait)) * time.Second)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
	case <-s.draining:
	case <-ctx.Done():
	}
	return false
}

func wirePage(entries []store.Entry, end uint64) api.Page {
	p := api.Page{Entries: make([]api.Entry, len(entries)), LastSeq: end}
	for i := range entries {
		p.Entries[i] = *wireEntry(&entries[i])
	}
	return p
}

// LogFor reads entries without asking who wants them: for package inbox, which has decided that.
func (s *Service) LogFor(ctx context.Context, id chat.ConversationID, after uint64, limit int) (p api.Page, err error) {
	return p, s.view(ctx, func(tx *store.Tx) error {
		entries, err := ReadLog(tx, id, after, min(limit, maxPage), maxPageBytes, s.ms())
		if err != nil {
			return err
		}
		end, err := tx.LastSeq(id)
		p = wirePage(entries, end)
		return err
	})
}

// WaitFor waits until a conversation has entries above seq, or for so many seconds: for package inbox.
func (s *Service) WaitFor(ctx context.Context, id chat.ConversationID, seq uint64, seconds int) error {
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return err
	}
	defer s.cache.release(c)
	s.wait(ctx, c.after(seq), seconds)
	return nil
}

// Roster is the public group of the current epoch and the last sequence number.
func (s *Service) Roster(ctx context.Context, id chat.ConversationID) (*roster.Group, uint64, error) {
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	defer s.cache.release(c)
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head.Load().group, c.published, nil
}

// DeleteMessage puts a tombstone in place of an entry: for the account that sent it, or for which an agent did.
func (s *Service) DeleteMessage(ctx context.Context, id chat.ConversationID, seq uint64) error {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return err
	}
	return failed(s.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := membership(tx, id, caller.Account); err != nil {
			return err
		}
		e, err := tx.Entry(id, seq)
		if errors.Is(err, store.ErrNotFound) {
			return chat.Errorf(chat.NotFound, "there is no entry %d", seq)
		}
		if err != nil {
			return err
		}
		if kind := api.EntryKind(e.Kind); e.Account != caller.Account || kind != api.KindMessage && kind != api.KindPost {
			return chat.Errorf(chat.Forbidden, "only a message can be deleted, by the person who sent it")
		}
		if e.Tombstone { // once is enough
			return nil
		}
		return errors.Join(tx.Tombstone(id, seq), ForgetLater(tx, id, seq, s.ms()))
	}))
}

// Welcomes lists the Welcomes that wait for the calling device. With waitSeconds it waits for the first if there is none.
func (s *Service) Welcomes(ctx context.Context, waitSeconds int) (api.Mailbox, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Mailbox{}, err
	}
	box := store.DeviceMailbox(caller.Account, caller.Device)
	if waitSeconds <= 0 {
		return s.WelcomesIn(ctx, box)
	}
	news, leave := s.hub.await(s.identityOf(caller)) // before looking, so that nothing falls between
	defer leave()
	m, err := s.WelcomesIn(ctx, box)
	if err != nil || len(m.Welcomes) > 0 || !s.wait(ctx, news, waitSeconds) {
		return m, err
	}
	return s.WelcomesIn(ctx, box)
}

// WelcomesIn lists the Welcomes of a mailbox: package inbox asks for an agent's.
func (s *Service) WelcomesIn(ctx context.Context, box store.Mailbox) (api.Mailbox, error) {
	var waiting []store.WaitingWelcome
	err := s.view(ctx, func(tx *store.Tx) (err error) {
		waiting, err = tx.Welcomes(box, maxMailbox, maxMailboxSize)
		return err
	})
	m := api.Mailbox{Welcomes: make([]api.MailboxWelcome, len(waiting))}
	for i, w := range waiting {
		m.Welcomes[i] = api.MailboxWelcome{ID: w.ID, Conversation: w.Conversation, Seq: w.Seq, Welcome: w.Welcome}
	}
	return m, err
}

// DeleteWelcome takes a Welcome out of the calling device's mailbox.
func (s *Service) DeleteWelcome(ctx context.Context, id chat.MessageID) error {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return err
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.DeleteWelcome(store.DeviceMailbox(caller.Account, caller.Device), id)
	})
	if errors.Is(err, store.ErrNotFound) {
		return chat.Errorf(chat.NotFound, "no such Welcome waits for this device")
	}
	return failed(err)
}

// OwnCount says how many application messages of the calling device were taken in the current epoch.
func (s *Service) OwnCount(ctx context.Context, id chat.ConversationID) (n api.OwnCount, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return n, err
	}
	return n, s.view(ctx, func(tx *store.Tx) error {
		if _, err := membership(tx, id, caller.Account); err != nil {
			return err
		}
		c, err := tx.Conversation(id)
		if err != nil {
			return err
		}
		n.Epoch = c.Epoch
		n.Count, err = tx.CountSent(id, c.EpochSeq, c.Epoch, uint8(api.KindMessage), caller.Account, caller.Device)
		return err
	})
}
