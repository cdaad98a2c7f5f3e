package inbox

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/store"
)

// Why a grant ended, as its person reads it.
const (
	endedRevoked   = "revoked"
	endedReplaced  = "replaced by another grant"
	endedByMember  = "removed by a member of the thread"
	endedExpired   = "expired"
	endedAgreement = "the agreement with the partner ended"
	endedStolen    = "the device that signed it was reported stolen"
	endedRefused   = "a member of the thread wants no such app"
)

// end ends a grant: its row, its tokens, its mailbox, its access periods. The leaf, where there is one still, has to go: see Sweep. Of
// a grant that has ended already the row is stored as it is, but for a revocation, which is a better reason than any other.
func (s *Service) end(tx *store.Tx, g *store.Grant, reason string, now int64) error {
	if g.State != string(grant.Pending) && g.State != string(grant.Live) {
		if reason == endedRevoked {
			g.Reason = reason
		}
		return tx.ChangeGrant(*g)
	}
	g.State, g.Reason, g.Changed = string(grant.Ended), reason, now
	mustGo(g)
	if err := tx.ChangeGrant(*g); err != nil {
		return err
	}
	if err := s.OAuth.EndTokens(tx, g.ID); err != nil {
		return err
	}
	return s.endReading(tx, g, now)
}

// narrow stores a grant that was left fewer actions.
func (s *Service) narrow(tx *store.Tx, g *store.Grant, now int64) error {
	if g.Actions.Has(chat.Read) {
		return tx.ChangeGrant(*g)
	}
	mustGo(g)
	if err := tx.ChangeGrant(*g); err != nil {
		return err
	}
	return s.endReading(tx, g, now)
}

func mustGo(g *store.Grant) {
	if g.Leaf == store.LeafIn {
		g.Leaf = store.LeafToGo
	}
}

// endReading takes from a grant what it could still fetch, and sees to it that what it was served is closed, by the agent's receipt or, when
// none comes, by the server's word.
func (s *Service) endReading(tx *store.Tx, g *store.Grant, now int64) error {
	if err := tx.EmptyMailbox(store.AgentMailbox(g.ID)); err != nil {
		return err
	}
	return tx.CloseAccessesBy(g.Conversation, g.ID, now+receiptWithin)
}

// stir wakes Run: something ended.
func (s *Service) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// sweepEvery is how often expired grants are looked for.
const sweepEvery = 10 * time.Second

// Run sweeps until the context ends.
func (s *Service) Run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.Logger.Error("permissions were not swept; it is tried again", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.wake:
		}
	}
}

// sweepPage is how many grants one transaction ends.
const sweepPage = 100

// Sweep ends what is over: grants that waited too long for their commit (void), that expired, whose agreement ended. Then it proposes to
// remove the leaves of agents that may not read any more. All of it can be repeated.
func (s *Service) Sweep(ctx context.Context) error {
	now := s.ms()
	err := errors.Join(
		s.sweepAll(ctx, func(tx *store.Tx) ([]store.Grant, error) {
			return tx.GrantsWaiting(string(grant.Pending), now-grant.PendingFor, sweepPage)
		}, func(tx *store.Tx, g store.Grant) error {
			g.State, g.Changed = string(grant.Void), now
			return tx.ChangeGrant(g)
		}),
		s.sweepAll(ctx, func(tx *store.Tx) ([]store.Grant, error) { return tx.GrantsExpired(string(grant.Live), now, sweepPage) },
			func(tx *store.Tx, g store.Grant) error { return s.end(tx, &g, endedExpired, now) }),
		s.sweepPartners(ctx, now),
		s.sweepAccesses(ctx, now),
	)
	s.Ledger.Notify()
	return errors.Join(err, s.proposeRemovals(ctx))
}

// sweepAll ends page after page.
func (s *Service) sweepAll(ctx context.Context, list func(*store.Tx) ([]store.Grant, error), end func(*store.Tx, store.Grant) error) error {
	for {
		n := 0
		err := s.update(ctx, func(tx *store.Tx) error {
			page, err := list(tx)
			n = len(page)
			for _, g := range page {
				err = errors.Join(err, end(tx, g))
			}
			return err
		})
		if err != nil || n == 0 {
			return err
		}
	}
}

// sweepPartners ends the grants that stand on agreements which are over: replaced, or stopped by the operator. Where an agreement's time is
// over, so is that of every grant under it.
func (s *Service) sweepPartners(ctx context.Context, now int64) error {
	var over []store.Agreement
	err := s.view(ctx, func(tx *store.Tx) error {
		partners, err := tx.Partners()
		if err != nil {
			return err
		}
		for _, p := range partners {
			list, err := tx.Agreements(p.ID)
			if err != nil {
				return err
			}
			over = append(over, slices.DeleteFunc(list, func(a store.Agreement) bool { return a.Ended == 0 })...)
		}
		return nil
	})
	for _, a := range over {
		for _, state := range []grant.State{grant.Live, grant.Pending} {
			err = errors.Join(err, s.sweepAll(ctx, func(tx *store.Tx) ([]store.Grant, error) {
				return tx.GrantsUnder(a.Partner, string(state), a.Hash, sweepPage)
			}, func(tx *store.Tx, g store.Grant) error { return s.end(tx, &g, endedAgreement, now) }))
		}
	}
	return err
}

// proposeRemovals proposes, as external sender, to remove each leaf whose grant does not read any more. A thread whose proposal fails does
// not keep the others waiting.
func (s *Service) proposeRemovals(ctx context.Context) error {
	var after chat.GrantID
	var failed error
	for {
		var page []store.Grant
		err := s.view(ctx, func(tx *store.Tx) (err error) {
			page, err = tx.GrantsToRemove(after, sweepPage)
			return err
		})
		if err != nil || len(page) == 0 {
			return errors.Join(failed, err)
		}
		for _, g := range page {
			failed = errors.Join(failed, s.proposeRemoval(ctx, g))
		}
		after = page[len(page)-1].ID
	}
}

// proposeRemoval proposes to remove the leaf of a grant; again changes nothing. The reason stands in the proposal, for members to read.
func (s *Service) proposeRemoval(ctx context.Context, g store.Grant) error {
	reason := g.Reason
	if reason == "" {
		reason = "narrowed"
	}
	return s.Delivery.Propose(ctx, g.Conversation, []string{chat.AgentURI(s.Host, g.Partner, g.ID)}, []byte(reason))
}

// DeviceRemoved is account's hook: what a stolen device granted ends with it. Its person may grant again from another device.
func (s *Service) DeviceRemoved(tx *store.Tx, a chat.AccountID, d chat.DeviceID, stolen bool) error {
	if !stolen {
		return nil
	}
	list, err := tx.GrantsOf(a)
	if err != nil {
		return err
	}
	for _, g := range list {
		if g.Device != d {
			continue
		}
		if err := s.end(tx, &g, endedStolen, s.ms()); err != nil {
			return err
		}
	}
	return nil
}

// PreferencesChanged is account's hook: who wants no app ends what that app may do in their threads.
func (s *Service) PreferencesChanged(tx *store.Tx, a chat.AccountID, wishes keychain.Preferences) error {
	ids, err := tx.AccountConversations(a)
	if err != nil {
		return err
	}
	for _, id := range ids {
		c, err := tx.Conversation(id)
		if err != nil {
			return err
		}
		if c.Kind != grant.Shared || !wishes.Refuses(c.Partner) {
			continue
		}
		list, err := tx.GrantsIn(id)
		if err != nil {
			return err
		}
		for _, g := range list {
			if err := s.end(tx, &g, endedRefused, s.ms()); err != nil {
				return err
			}
		}
	}
	return nil
}

// ChainChanged is account's hook after the transaction of either.
func (s *Service) ChainChanged(chat.AccountID) {
	s.Ledger.Notify()
	s.stir()
}
