package inbox

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"slices"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/keychain"
	"letterlock/proof"
	"letterlock/report"
	"letterlock/slot/envelope"
	"letterlock/store"
)

// domainDedup keeps one grant's idempotency keys apart from another's, and all of them from clients' dedup keys, which are shorter.
const domainDedup = "letterlock/inbox-dedup/v1"

const maxIdempotencyKey = 128 // bytes

// dedupKey turns an agent's idempotency key into the key under which the conversation's log has the entry.
func dedupKey(g chat.GrantID, key string) ([]byte, error) {
	if key == "" || len(key) > maxIdempotencyKey {
		return nil, chat.Errorf(chat.Invalid, "idempotency_key: 1 to %d bytes, a new one for each message", maxIdempotencyKey)
	}
	h := canon.Hash(domainDedup, append(g[:], key...))
	return h[:], nil
}

// Post puts a letter through the slot. What is checked from outside of the letter: the signature of the grant's key, that it belongs
// here and to this epoch, that it is new, its labels, the rate. A message id that is known is answered as the first time.
func (s *Service) Post(ctx context.Context, r api.InboxPost) (api.Accepted, error) {
	p := &posting{agent: agentIn(ctx), body: r.Post}
	if err := s.acting(ctx, s.view, func(tx *store.Tx, c *call) error { return s.openPost(tx, c, p, r.IdempotencyKey) }); err != nil {
		return api.Accepted{}, err
	}
	if p.known != nil {
		return *p.known, nil
	}
	done, err := s.Delivery.Append(ctx, p.thread.id, delivery.Item{
		Kind: api.KindPost, Epoch: p.header.Epoch, Account: p.account, Body: r.Post, DedupKey: p.dedup,
		Check: func(tx *store.Tx, seq uint64, at int64) error { return s.recordPost(tx, p, seq, at) },
	})
	if errors.Is(err, errKnownPost) { // the same letter came in by another request meanwhile
		return s.Post(ctx, r)
	}
	if err == nil {
		s.Ledger.Notify()
	}
	return done, err
}

// agentIn is the calling agent; acting refuses a context without one.
func agentIn(ctx context.Context) api.AgentCaller {
	a, _ := api.AgentFrom(ctx)
	return a
}

// posting is a post on its way.
type posting struct {
	agent   api.AgentCaller
	body    []byte
	header  *envelope.Header
	dedup   []byte
	account chat.AccountID
	thread  *thread
	known   *api.Accepted // the answer, if the message is in the log already
}

var errKnownPost = errors.New("inbox: the message is in the log already")

// openPost decides early and reads the letter's outside: what it refuses costs no place in the queue.
func (s *Service) openPost(tx *store.Tx, c *call, p *posting, key string) (err error) {
	if err = c.may(chat.Send); err != nil {
		return err
	}
	if p.dedup, err = dedupKey(c.grant.ID, key); err != nil {
		return err
	}
	if p.header, err = envelope.Inspect(p.body, c.grant.AgentKey[:]); err != nil {
		return err
	}
	p.thread, p.account = c.thread, c.grant.Account
	h := p.header
	switch {
	case h.Host != s.Host || h.Conversation != c.grant.Conversation || h.Grant != c.grant.ID:
		return chat.Errorf(chat.Forbidden, "the letter is for another thread or under another grant")
	case h.Counter > math.MaxInt64:
		return chat.Errorf(chat.Invalid, "the letter's counter is too large")
	}
	if p.known, err = knownPost(tx, c, h.Message); err != nil || p.known != nil {
		return err
	}
	if h.Epoch != c.thread.epoch {
		return chat.Errorf(chat.StaleEpoch, "the letter was sealed for epoch %d, the thread is in %d: take the new slot and seal it again", h.Epoch, c.thread.epoch)
	}
	return report.CheckLabels(c.partner.said, h.Labels.Interface, h.Labels.Surface, h.Labels.Variant)
}

// knownPost finds the answer to a message that is in the log.
func knownPost(tx *store.Tx, c *call, m chat.MessageID) (*api.Accepted, error) {
	old, err := tx.Post(c.grant.Conversation, m)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case old.Grant != c.grant.ID:
		return nil, chat.Errorf(chat.Exists, "the message id is another message's")
	case old.TakenBack != 0:
		return nil, chat.Errorf(chat.Gone, "the message was taken back")
	}
	return &api.Accepted{Seq: old.Seq, Epoch: old.Epoch, At: old.At}, nil
}

// recordPost is the decision for good, within the transaction that appends the post, and all that is written beside it.
func (s *Service) recordPost(tx *store.Tx, p *posting, seq uint64, at int64) error {
	c, err := s.call(tx, p.agent, p.thread, at)
	if err != nil {
		return err
	}
	if err := c.may(chat.Send); err != nil {
		return err
	}
	h := p.header
	known, err := knownPost(tx, c, h.Message)
	if err != nil {
		return err
	}
	if known != nil {
		return errKnownPost
	}
	if int64(h.Counter) <= c.grant.Posted {
		return chat.Errorf(chat.Invalid, "the letter's counter was used up to %d: seal it again with a greater one", c.grant.Posted)
	}
	if c.grant.PostsUntil, err = c.spend(c.grant.PostsUntil, "letters"); err != nil {
		return err
	}
	c.grant.Posted = int64(h.Counter)
	if err := tx.ChangeGrant(c.grant); err != nil {
		return err
	}
	if err := tx.AddPost(store.Post{Conversation: c.grant.Conversation, Message: h.Message, Grant: c.grant.ID, Account: c.grant.Account,
		Partner: c.grant.Partner, Seq: seq, Epoch: h.Epoch, At: at}); err != nil {
		return err
	}
	if _, err := s.Ledger.Access(tx, c.grant.Account, c.grant.Partner, &proof.Post{Conversation: c.grant.Conversation, Grant: c.grant.ID,
		Epoch: h.Epoch, Seq: seq, Message: h.Message, Labels: labelList(h.Labels), Post: sha256.Sum256(p.body), At: at}); err != nil {
		return err
	}
	recipient, err := s.recipient(tx, c)
	if err != nil {
		return err
	}
	return s.Reports.Sent(tx, c.partner.said, at, report.Labels{Interface: h.Labels.Interface, Surface: h.Labels.Surface, Variant: h.Labels.Variant, Recipient: recipient})
}

// labelList is how a post's labels stand in its record: those that are set, in the order of the header.
func labelList(l envelope.Labels) []string {
	list := []string{l.Interface, l.Surface, l.Variant}
	return slices.DeleteFunc(list, func(label string) bool { return label == "" })
}

// spend takes one from the grant's allowance of the agreement's posts a minute, and says until when the allowance is used up. A
// partner that was silent for a minute may send a minute's worth at once.
func (c *call) spend(until int64, what string) (int64, error) {
	const minute = 60_000_000 // us
	now := c.now * 1000
	until = max(until, now) + minute/int64(c.partner.said.PostsPerMinute)
	if until > now+minute {
		return 0, chat.Errorf(chat.TooMany, "the agreement allows %d %s a minute under one grant: wait", c.partner.said.PostsPerMinute, what)
	}
	return until, nil
}

// others lists the people of the grant's thread but for its own person.
func others(tx *store.Tx, g *store.Grant) ([]chat.AccountID, error) {
	accounts, err := tx.MemberAccounts(g.Conversation)
	return slices.DeleteFunc(accounts, func(a chat.AccountID) bool { return a == g.Account }), err
}

// recipient is the kind of recipient that the grant's posts and links are counted under.
func (s *Service) recipient(tx *store.Tx, c *call) (api.Recipient, error) {
	list, err := others(tx, &c.grant)
	if err != nil || len(list) != 1 {
		return api.RecipientSeveral, err
	}
	chain, err := s.People.Chain(tx, list[0])
	if err != nil {
		return "", err
	}
	switch chain.Preferences().Uses(c.grant.Partner) {
	case keychain.UsesIt:
		return api.RecipientUser, nil
	case keychain.UsesItNot:
		return api.RecipientNoUser, nil
	}
	return api.RecipientNotTold, nil
}

// TakeBack deletes a post that the same partner made for the same person. The log keeps the agent's signed request, so that members
// forget the plaintext by themselves, and a tombstone where the post was.
func (s *Service) TakeBack(ctx context.Context, r api.InboxTakeBack) (api.Accepted, error) {
	b := &takingBack{agent: agentIn(ctx)}
	if err := s.acting(ctx, s.view, func(tx *store.Tx, c *call) error { return s.openTakeBack(tx, c, b, r) }); err != nil {
		return api.Accepted{}, err
	}
	if b.known != nil {
		return *b.known, nil
	}
	done, err := s.Delivery.Append(ctx, b.thread.id, delivery.Item{
		Kind: api.KindTakeBack, Epoch: b.said.Epoch, Account: b.account, Body: r.TakeBack, DedupKey: b.dedup,
		Check: func(tx *store.Tx, seq uint64, at int64) error { return s.recordTakeBack(tx, b, seq, at) },
	})
	if errors.Is(err, errKnownPost) {
		return s.TakeBack(ctx, r)
	}
	if err == nil {
		s.Ledger.Notify()
	}
	return done, err
}

// takingBack is a take-back on its way.
type takingBack struct {
	agent   api.AgentCaller
	said    *envelope.TakeBack
	dedup   []byte
	account chat.AccountID
	thread  *thread
	known   *api.Accepted // the answer, if the message was taken back before
}

func (s *Service) openTakeBack(tx *store.Tx, c *call, b *takingBack, r api.InboxTakeBack) (err error) {
	if err = c.may(chat.Delete); err != nil {
		return err
	}
	if b.dedup, err = dedupKey(c.grant.ID, r.IdempotencyKey); err != nil {
		return err
	}
	if b.said, err = envelope.OpenTakeBack(r.TakeBack, c.grant.AgentKey[:]); err != nil {
		return err
	}
	b.thread, b.account = c.thread, c.grant.Account
	if b.said.Host != s.Host || b.said.Conversation != c.grant.Conversation || b.said.Grant != c.grant.ID {
		return chat.Errorf(chat.Forbidden, "the take-back is for another thread or under another grant")
	}
	old, err := ownPost(tx, c, b.said.Message)
	if err != nil {
		return err
	}
	if old.TakenBack != 0 {
		e, err := tx.Entry(old.Conversation, old.TakenBack)
		b.known = &api.Accepted{Seq: e.Seq, Epoch: e.Epoch, At: e.At}
		return err
	}
	if b.said.Epoch != c.thread.epoch {
		return chat.Errorf(chat.StaleEpoch, "the take-back was made for epoch %d, the thread is in %d: sign it again", b.said.Epoch, c.thread.epoch)
	}
	return nil
}

// ownPost finds a post that the partner made for the same person, under whatever grant.
func ownPost(tx *store.Tx, c *call, m chat.MessageID) (store.Post, error) {
	old, err := tx.Post(c.grant.Conversation, m)
	if errors.Is(err, store.ErrNotFound) || err == nil && (old.Partner != c.grant.Partner || old.Account != c.grant.Account) {
		return old, chat.Errorf(chat.NotFound, "%s has no such message of %s here", c.partner.said.Name, c.grant.Handle)
	}
	return old, err
}

func (s *Service) recordTakeBack(tx *store.Tx, b *takingBack, seq uint64, at int64) error {
	c, err := s.call(tx, b.agent, b.thread, at)
	if err != nil {
		return err
	}
	if err := c.may(chat.Delete); err != nil {
		return err
	}
	old, err := ownPost(tx, c, b.said.Message)
	if err != nil {
		return err
	}
	if old.TakenBack != 0 {
		return errKnownPost
	}
	if err := tx.TakeBackPost(old.Conversation, old.Message, seq); err != nil {
		return err
	}
	if err := tx.Tombstone(old.Conversation, old.Seq); err != nil {
		return err
	}
	if err := delivery.ForgetLater(tx, old.Conversation, old.Seq, at); err != nil {
		return err
	}
	_, err = s.Ledger.Access(tx, c.grant.Account, c.grant.Partner, &proof.Delete{Conversation: c.grant.Conversation, Grant: c.grant.ID,
		Message: b.said.Message, Seq: old.Seq, At: at})
	return err
}

// Link makes a share link, for an agent that may send, out of the same allowance a minute as letters have.
func (s *Service) Link(ctx context.Context, r api.InboxLink) (out api.InboxLinked, err error) {
	return out, s.acting(ctx, s.update, func(tx *store.Tx, c *call) error {
		if err := c.may(chat.Send); err != nil {
			return err
		}
		if c.grant.LinksUntil, err = c.spend(c.grant.LinksUntil, "links"); err != nil {
			return err
		}
		if err := tx.ChangeGrant(c.grant); err != nil {
			return err
		}
		to, err := s.recipient(tx, c)
		if err != nil {
			return err
		}
		out, err = s.Reports.NewLink(tx, c.partner.said, r, to)
		return err
	})
}

// PutFigures stores the partner's own counts. Any live grant of the partner will do: they are the partner's, not the person's.
func (s *Service) PutFigures(ctx context.Context, r api.InboxFigures) error {
	return s.acting(ctx, s.update, func(tx *store.Tx, c *call) error {
		if err := c.may(c.grant.Actions); err != nil {
			return err
		}
		return s.Reports.PutFigures(tx, c.partner.said, r)
	})
}
