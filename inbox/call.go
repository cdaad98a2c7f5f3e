package inbox

import (
	"context"
	"errors"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/store"
)

// thread is a conversation as one of its epochs has it.
type thread struct {
	grant.Thread
	id    chat.ConversationID
	epoch uint64
}

// thread reads the current epoch's GroupContext from delivery's roster. It is judged for good in the transaction that acts: see call.
func (s *Service) thread(ctx context.Context, id chat.ConversationID) (*thread, error) {
	g, _, err := s.Delivery.Roster(ctx, id)
	if err != nil {
		return nil, err
	}
	said, err := grant.ThreadOf(g)
	return &thread{said, id, g.Epoch()}, err
}

// call is one call of an agent: what was read of its grant in the transaction that acts.
type call struct {
	grant   store.Grant
	partner *partner
	thread  *thread
	blocked bool // the person for whom the agent calls
	now     int64
}

// errMoved means that the thread's epoch changed between the roster and the transaction: read both again.
var errMoved = chat.Errorf(chat.StaleEpoch, "the thread moved on: fetch what is new, then ask again")

// call reads the grant of an agent within the transaction that acts. It does not say what the grant allows: ask may.
func (s *Service) call(tx *store.Tx, a api.AgentCaller, t *thread, now int64) (*call, error) {
	g, err := grantOf(tx, a)
	if err != nil {
		return nil, err
	}
	conv, err := tx.Conversation(g.Conversation)
	if err != nil {
		return nil, err
	}
	if t.id != g.Conversation || conv.Epoch != t.epoch {
		return nil, errMoved
	}
	blocked, err := tx.Blocked(g.Account)
	if err != nil {
		return nil, err
	}
	p, err := s.partner(tx, g.Partner)
	return &call{g, p, t, blocked, now}, err
}

func grantOf(tx *store.Tx, a api.AgentCaller) (store.Grant, error) {
	g, err := tx.Grant(a.Grant)
	if errors.Is(err, store.ErrNotFound) || err == nil && g.Partner != a.Partner {
		return g, chat.Errorf(chat.NotFound, "there is no such grant")
	}
	return g, err
}

// may is the decision: package grant's, over what stands in this transaction.
func (c *call) may(action chat.Actions) error {
	standing := grant.Standing{
		Name: c.partner.said.Name, Handle: c.grant.Handle, State: grant.State(c.grant.State), Actions: c.grant.Actions, Expiry: c.grant.Expiry,
		Stopped: !c.partner.active(c.now) || c.partner.agreement.Hash != c.grant.Agreement, Blocked: c.blocked,
	}
	if e, ok := c.thread.Find(c.grant.ID); ok && e.Account == c.grant.Account && e.Hash == c.grant.Hash {
		standing.Entry = &e
	}
	return grant.May(standing, action, c.now)
}

// callTries bounds how often a call is tried again because a commit came between.
const callTries = 4

// acting finds the agent's grant and thread and runs fn in a transaction: View or Update of the store.
func (s *Service) acting(ctx context.Context, in func(context.Context, func(*store.Tx) error) error, fn func(*store.Tx, *call) error) error {
	a, err := api.AgentFrom(ctx)
	if err != nil {
		return err
	}
	for range callTries {
		var g store.Grant
		if err = s.view(ctx, func(tx *store.Tx) error { g, err = grantOf(tx, a); return err }); err != nil {
			return err
		}
		var t *thread
		if t, err = s.thread(ctx, g.Conversation); err != nil {
			return err
		}
		err = in(ctx, func(tx *store.Tx) error {
			c, err := s.call(tx, a, t, s.ms())
			if err != nil {
				return err
			}
			return fn(tx, c)
		})
		if !errors.Is(err, errMoved) {
			return err
		}
	}
	return err
}
