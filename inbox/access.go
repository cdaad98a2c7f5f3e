package inbox

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// maxDue is how many statements one answer asks receipts for.
const maxDue = 16

// access reads what was served in a period; a period that has not begun has First 0.
func (c *call) access(tx *store.Tx, period int64) (store.Access, error) {
	a, err := tx.Access(c.grant.Conversation, c.grant.ID, period)
	if errors.Is(err, store.ErrNotFound) {
		return store.Access{Conversation: c.grant.Conversation, Grant: c.grant.ID, Period: period}, nil
	}
	return a, err
}

// from is the entry after which to serve. What is served in a period is one range without gaps, so that its statement is true and
// the agent can compare it: a state ahead of the range is taken back to its end, one before its beginning has to wait for the next period.
func (c *call) from(a store.Access, after uint64) (uint64, error) {
	if a.First == 0 {
		return after, nil
	}
	if after+1 < a.First {
		return 0, chat.Errorf(chat.Expired, "this state is older than what was served in this hour: go on with a newer one, or ask again after the full hour")
	}
	return min(after, a.Last), nil
}

// served writes down that entries are about to be served: the period's range, and the open records of every person in the thread who has
// none yet in this period.
func (s *Service) served(tx *store.Tx, c *call, a store.Access, entries []store.Entry) ([]store.AccessOpen, error) {
	first, last := entries[0], entries[len(entries)-1]
	if a.First == 0 || first.Seq < a.First {
		a.First = first.Seq
	}
	if last.Seq > a.Last {
		a.Last, a.Epoch = last.Seq, last.Epoch
	}
	if err := tx.PutAccess(a); err != nil {
		return nil, err
	}
	opens, err := tx.AccessOpens(a.Conversation, a.Grant, a.Period)
	if err != nil {
		return nil, err
	}
	people, err := tx.MemberAccounts(a.Conversation)
	if err != nil {
		return nil, err
	}
	for _, person := range people {
		if slices.ContainsFunc(opens, func(o store.AccessOpen) bool { return o.Account == person }) {
			continue
		}
		o, err := s.open(tx, c, a, person, first.Seq)
		if err != nil {
			return nil, err
		}
		o.N = uint64(len(opens)) + 1
		if err := tx.AddAccessOpen(a.Conversation, a.Grant, a.Period, o); err != nil {
			return nil, err
		}
		opens = append(opens, o)
	}
	return opens, nil
}

// open writes one person's open record, and signs the promise that leaves the server only when the transaction stands.
func (s *Service) open(tx *store.Tx, c *call, a store.Access, person chat.AccountID, from uint64) (o store.AccessOpen, err error) {
	r, err := s.Ledger.Access(tx, person, c.grant.Partner, &proof.Open{Conversation: a.Conversation, Grant: a.Grant, Epoch: c.thread.epoch, Period: a.Period, From: from})
	if err != nil {
		return o, err
	}
	o.Account = person
	if o.Disclosure, err = r.Disclose(); err != nil {
		return o, err
	}
	o.Promise, err = s.Ledger.Promise(r.LeafHash())
	return o, err
}

// statement is what the agent is asked to countersign of a period.
func (s *Service) statement(a *store.Access) *proof.Statement {
	return &proof.Statement{Host: s.Host, Conversation: a.Conversation, Grant: a.Grant, Epoch: a.Epoch, Period: a.Period,
		From: a.First, To: a.Last, Count: a.Last - a.First + 1}
}

// overdue lists the periods that are over and that the agent has not countersigned, the oldest first.
func (s *Service) overdue(tx *store.Tx, c *call) (list []store.Access, err error) {
	all, err := tx.AccessesRunning(c.grant.Conversation, c.grant.ID, maxDue)
	for _, a := range all {
		if a.Period < proof.Period(c.now) {
			list = append(list, a)
		}
	}
	return list, err
}

// statements are what the agent is asked to countersign.
func (s *Service) statements(due []store.Access) (list [][]byte) {
	for i := range due {
		list = append(list, s.statement(&due[i]).Bytes())
	}
	return list
}

// CloseAccess takes the receipt of a period. The receipt is signed by the grant's key, which is all that it needs: it is taken without a
// token, since a grant's last receipt comes after its end. One that comes after the server closed the period by its own word is kept,
// and changes no record. The same receipt again changes nothing.
func (s *Service) CloseAccess(ctx context.Context, receipt []byte) error {
	if err := s.view(ctx, func(tx *store.Tx) error { _, err := s.openReceipt(tx, receipt); return err }); err != nil {
		return err // before a stranger's bytes keep the writer busy
	}
	err := s.update(ctx, func(tx *store.Tx) error {
		r, err := s.openReceipt(tx, receipt)
		if err != nil {
			return err
		}
		return s.takeReceipt(tx, r)
	})
	if err == nil {
		s.Ledger.Notify()
	}
	return err
}

// signedReceipt is a receipt whose signature and statement were checked.
type signedReceipt struct {
	bytes            []byte
	grant            store.Grant
	access           store.Access
	countersignature []byte
}

func (s *Service) openReceipt(tx *store.Tx, receipt []byte) (*signedReceipt, error) {
	id, err := peekReceipt(receipt)
	if err != nil {
		return nil, err
	}
	r := &signedReceipt{bytes: receipt}
	if r.grant, err = tx.Grant(id); errors.Is(err, store.ErrNotFound) {
		return nil, errNoPeriod
	}
	if err != nil {
		return nil, err
	}
	said, countersignature, err := proof.OpenReceipt(receipt, r.grant.AgentKey[:])
	if err != nil {
		return nil, err
	}
	r.countersignature = countersignature
	r.access, err = tx.Access(said.Conversation, said.Grant, said.Period)
	if errors.Is(err, store.ErrNotFound) || err == nil && !bytes.Equal(s.statement(&r.access).Bytes(), said.Bytes()) {
		return nil, errNoPeriod
	}
	return r, err
}

func (s *Service) takeReceipt(tx *store.Tx, r *signedReceipt) error {
	a := r.access
	a.Receipt = r.bytes
	switch {
	case a.Closed == store.AccessCountersigned:
		return nil
	case a.Closed == store.AccessStated:
		return tx.PutAccess(a)
	case a.CloseBy == 0 && a.Period == proof.Period(s.ms()):
		return chat.Errorf(chat.Invalid, "the access period is not over")
	}
	a.Closed = store.AccessCountersigned
	return s.close(tx, &r.grant, a, r.countersignature)
}

var errNoPeriod = chat.Errorf(chat.NotFound, "the receipt does not state what was served: compare it with the entries that came")

// peekReceipt reads under which grant a receipt is. It is believed only once the signature was checked with that grant's key.
func peekReceipt(receipt []byte) (chat.GrantID, error) {
	var signed canon.Signed
	if len(receipt) > proof.MaxReceipt {
		return chat.GrantID{}, chat.Errorf(chat.TooLarge, "a receipt has at most %d bytes", proof.MaxReceipt)
	}
	if err := canon.Unmarshal(receipt, &signed); err != nil {
		return chat.GrantID{}, chat.Wrap(chat.Invalid, err, "the receipt cannot be read")
	}
	said, err := proof.ParseStatement(signed.Body)
	if err != nil {
		return chat.GrantID{}, err
	}
	return said.Grant, nil
}

// close writes the one close of a period onto the chain of every person who has its open.
func (s *Service) close(tx *store.Tx, g *store.Grant, a store.Access, countersignature []byte) error {
	opens, err := tx.AccessOpens(a.Conversation, a.Grant, a.Period)
	if err != nil {
		return err
	}
	for _, o := range opens {
		if _, err := s.Ledger.Access(tx, o.Account, g.Partner, s.statement(&a).Close(countersignature)); err != nil {
			return err
		}
	}
	return tx.PutAccess(a)
}

// receiptWithin is how long after the end of its reading an agent may hand in its last receipts, in milliseconds. Then the server closes
// by its own word.
const receiptWithin = 10 * 60 * 1000

// sweepAccesses closes what no receipt came for.
func (s *Service) sweepAccesses(ctx context.Context, now int64) error {
	for {
		n := 0
		err := s.update(ctx, func(tx *store.Tx) error {
			list, err := tx.AccessesDue(now, sweepPage)
			if err != nil {
				return err
			}
			n = len(list)
			for _, a := range list {
				g, err := tx.Grant(a.Grant)
				if err != nil {
					return err
				}
				a.Closed = store.AccessStated
				if err := s.close(tx, &g, a, nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil || n == 0 {
			return err
		}
	}
}
