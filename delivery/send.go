package delivery

import (
	"context"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// identityOf is the identity of the caller's leaf.
func (s *Service) identityOf(c api.Caller) string { return chat.DeviceURI(s.Host, c.Handle, c.Device) }

// message makes the item of an application message; body is kept, not copied.
func (s *Service) message(ctx context.Context, id chat.ConversationID, caller api.Caller, identity string, dedup, body []byte) (*item, error) {
	if err := checkDedupKey(dedup); err != nil {
		return nil, err
	}
	if err := s.admit(caller, len(body)); err != nil {
		return nil, err
	}
	epoch, err := checkMessage(id, body)
	if err != nil {
		return nil, err
	}
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return nil, err
	}
	if err := c.head.Load().checkSender(identity); err != nil {
		s.cache.release(c)
		return nil, err
	}
	return &item{conv: c, entry: store.Entry{Conversation: id, Kind: uint8(api.KindMessage), Epoch: epoch, Account: caller.Account,
		Device: caller.Device, Dedup: dedup, Body: body}}, nil
}

// SendMessage takes an application message of the current epoch: it is durable when the call returns.
func (s *Service) SendMessage(ctx context.Context, id chat.ConversationID, r api.Message) (api.Accepted, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Accepted{}, err
	}
	if err := checkExpires(r.Expires); err != nil {
		return api.Accepted{}, err
	}
	it, err := s.message(ctx, id, caller, s.identityOf(caller), r.DedupKey, r.Message)
	if err != nil {
		return api.Accepted{}, err
	}
	it.expires(r.Expires)
	return s.submit(ctx, it)
}

// Item is an entry that package inbox appends for an agent.
type Item struct {
	Kind     api.EntryKind  // post, take-back, or proposal (the agent's own Update or Remove)
	Epoch    uint64         // of a post: must be the current one
	Account  chat.AccountID // the person for whom the agent acts
	Body     []byte
	DedupKey []byte // 1 to 64 bytes, of this conversation

	// Check decides and records inside the batch's transaction, reading before it writes. Its error refuses this item alone and
	// undoes what it wrote. nil: no objection.
	Check func(tx *store.Tx, seq uint64, at int64) error
}

// Append puts an agent's entry into a log. The answer is as for SendMessage.
func (s *Service) Append(ctx context.Context, id chat.ConversationID, r Item) (api.Accepted, error) {
	switch {
	case r.Kind != api.KindPost && r.Kind != api.KindTakeBack && r.Kind != api.KindProposal:
		return api.Accepted{}, chat.Errorf(chat.Invalid, "an agent appends posts, take-backs and proposals")
	case len(r.DedupKey) == 0 || len(r.DedupKey) > 64:
		return api.Accepted{}, chat.Errorf(chat.Invalid, "dedup key: want 1 to 64 bytes, got %d", len(r.DedupKey))
	case len(r.Body) == 0 || len(r.Body) > api.MaxMessage:
		return api.Accepted{}, chat.Errorf(chat.TooLarge, "an entry has 1 to %d bytes", api.MaxMessage)
	}
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return api.Accepted{}, err
	}
	it := &item{conv: c, entry: store.Entry{Conversation: id, Kind: uint8(r.Kind), Epoch: r.Epoch, Account: r.Account, Dedup: r.DedupKey, Body: r.Body}}
	it.apply = func(tx *store.Tx, at *tail, write func() error) (next *head, err error) {
		it.entry.Epoch = at.head.epoch // a post's is the same; the others take the one they meet
		if r.Kind == api.KindProposal {
			if next, err = at.head.stageProposal(tx, it.entry.Conversation, r.Body, nil, s.Now()); err != nil {
				return nil, err
			}
		}
		if r.Check != nil {
			if err := r.Check(tx, it.entry.Seq, it.entry.At); err != nil {
				return nil, err
			}
		}
		return next, write()
	}
	return s.submit(ctx, it)
}

// stageProposal adds a proposal to the roster, and a leaf to those that must go before anything else is taken.
func (h *head) stageProposal(tx *store.Tx, id chat.ConversationID, proposal []byte, waitFor *uint32, now time.Time) (*head, error) {
	g, _, err := h.group.StageProposal(proposal, now)
	if err != nil {
		return nil, refusedMLS(err)
	}
	next := *h
	next.group = g
	if waitFor != nil {
		next.waiting = append(slices.Clip(h.waiting), *waitFor)
	}
	snapshot, err := g.MarshalBinary()
	if err != nil {
		return nil, err
	}
	return &next, tx.Await(id, h.epoch, next.waiting, snapshot)
}

// Propose lets the server, as external sender, propose to remove the leaves of these identities, and blocks the conversation until
// a commit has removed them. An identity without a leaf, or one that is proposed already, is passed over. aad goes into the
// proposal, signed: the reason, for members to show.
//
// It removes agents and devices that are gone from their key chain. A person's present device is Forbidden, whoever asks.
func (s *Service) Propose(ctx context.Context, id chat.ConversationID, identities []string, aad []byte) error {
	for _, identity := range identities {
		c, err := s.cache.get(ctx, id)
		if err != nil {
			return err
		}
		it := &item{conv: c, ours: true, entry: store.Entry{Conversation: id, Kind: uint8(api.KindProposal)}}
		it.apply = func(tx *store.Tx, at *tail, write func() error) (*head, error) {
			return s.proposeOne(tx, it, at.head, identity, aad, write)
		}
		if _, err := s.submit(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) proposeOne(tx *store.Tx, it *item, h *head, identity string, aad []byte, write func() error) (*head, error) {
	leaf, ok := h.leaves[identity]
	if !ok || slices.Contains(h.waiting, leaf) {
		return nil, nil
	}
	if err := s.mayPropose(tx, identity); err != nil {
		return nil, err
	}
	proposal, err := roster.ExternalRemove(h.group, s.ServerKey, 0, leaf, aad)
	if err != nil {
		return nil, err
	}
	next, err := h.stageProposal(tx, it.entry.Conversation, proposal, &leaf, s.Now())
	if err != nil {
		return nil, err
	}
	it.entry.Epoch, it.entry.Body = h.epoch, proposal
	return next, write()
}

// mayPropose is the limit of the server's power over a group.
func (s *Service) mayPropose(tx *store.Tx, identity string) error {
	who, err := chat.ParseIdentity([]byte(identity))
	if err != nil || who.IsAgent() {
		return err
	}
	if _, _, err := s.People.Device(tx, who.Handle, who.Device); !chat.Is(err, chat.NotFound) {
		if err != nil {
			return err
		}
		return chat.Errorf(chat.Forbidden, "the server may not propose to remove a person's device")
	}
	return nil
}
