package delivery

import (
	"context"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/store"
)

// KeyChainChanged follows a change of an account's key chain, after its transaction: live connections of devices that are gone end, and
// the server proposes to remove their leaves wherever the account is. It may take a while: call it beside the request.
func (s *Service) KeyChainChanged(ctx context.Context, a chat.AccountID) error {
	for _, st := range s.hub.streamsOf(a) {
		gone, err := s.gone(ctx, st.identity)
		if err != nil {
			return err
		}
		if gone {
			st.End(chat.Errorf(chat.Unauthenticated, "this device is no longer in its account's key chain"))
		}
	}
	var ids []chat.ConversationID
	if err := s.view(ctx, func(tx *store.Tx) (err error) {
		ids, err = tx.AccountConversations(a)
		return err
	}); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.proposeGone(ctx, id, a); err != nil {
			return err
		}
	}
	return nil
}

// gone says whether a leaf's device stands in no key chain.
func (s *Service) gone(ctx context.Context, identity string) (gone bool, err error) {
	who, err := chat.ParseIdentity([]byte(identity))
	if err != nil || who.IsAgent() {
		return false, err
	}
	return gone, s.view(ctx, func(tx *store.Tx) error {
		_, _, err := s.People.Device(tx, who.Handle, who.Device)
		if gone = chat.Is(err, chat.NotFound); gone {
			return nil
		}
		return err
	})
}

// proposeGone proposes to remove the account's devices that are gone from their key chain.
func (s *Service) proposeGone(ctx context.Context, id chat.ConversationID, a chat.AccountID) error {
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return err
	}
	leaves := c.head.Load().leaves
	s.cache.release(c)
	var gone []string
	var proof []byte
	if err := s.view(ctx, func(tx *store.Tx) error {
		for identity := range leaves {
			who, err := chat.ParseIdentity([]byte(identity))
			if err != nil || who.IsAgent() {
				continue
			}
			if of, err := s.People.Account(tx, who.Handle); err != nil || of != a {
				continue
			}
			if _, _, err := s.People.Device(tx, who.Handle, who.Device); !chat.Is(err, chat.NotFound) {
				continue
			}
			gone = append(gone, identity)
			entries, err := s.People.Chain(tx, who.Handle)
			if err != nil {
				return err
			}
			proof = grant.GoneProof(entries)
		}
		return nil
	}); err != nil || len(gone) == 0 {
		return err
	}
	return s.Propose(ctx, id, gone, proof)
}
