package inbox

import (
	"context"
	"errors"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/proof"
	"letterlock/store"
)

// EraseRecords deletes what the caller's records with a partner say, with their salts, in one transaction: nobody can open their leaves
// any more, and the chains still check. It also deletes the other copies of the same bytes that the server keeps for the caller. Records
// of a permission that stands stay, whoever gave it: people must be able to see what is in force. Again changes nothing.
func (s *Service) EraseRecords(ctx context.Context, r api.EraseRecords) (out api.ErasedRecords, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return out, err
	}
	if err := chat.CheckPartner(r.Partner); err != nil {
		return out, err
	}
	err = s.update(ctx, func(tx *store.Tx) error {
		e := &erasing{service: s, tx: tx, standing: map[chat.GrantID]bool{}}
		e.Standing = []chat.GrantID{}
		for _, part := range []struct {
			chain proof.Chain
			until uint64
		}{{proof.Control, r.Control}, {proof.Access, r.Access}} {
			if err := e.chain(proof.Place{Account: caller.Account, Partner: r.Partner, Chain: part.chain}, part.until); err != nil {
				return err
			}
		}
		out = e.ErasedRecords
		return nil
	})
	return out, err
}

// erasing is one transaction of EraseRecords.
type erasing struct {
	api.ErasedRecords
	service  *Service
	tx       *store.Tx
	standing map[chat.GrantID]bool // of grants that were looked at
}

// erasePage is how many records are read at once.
const erasePage = 500

// chain erases the records of a chain before number until.
func (e *erasing) chain(place proof.Place, until uint64) error {
	chain := store.LedgerChain{Account: place.Account, Partner: place.Partner, Chain: uint8(place.Chain)}
	for from := uint64(0); from < until; from += erasePage {
		rows, err := e.tx.LedgerRecords(chain, from, int(min(until-from, erasePage)))
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if len(row.Payload) == 0 {
				continue // erased before
			}
			place.N = row.N
			if err := e.record(place, row.Payload); err != nil {
				return err
			}
		}
	}
	return nil
}

func (e *erasing) record(place proof.Place, payload []byte) error {
	said, err := proof.ParsePayload(payload)
	if err != nil {
		return err
	}
	about, err := grantNamed(said)
	if err != nil {
		return err
	}
	stands, err := e.stands(about)
	if err != nil {
		return err
	}
	if stands {
		e.Kept++
		if !slices.Contains(e.Standing, about) {
			e.Standing = append(e.Standing, about)
		}
		return nil
	}
	e.Erased++
	if err := e.service.Ledger.Erase(e.tx, place); err != nil {
		return err
	}
	switch p := said.(type) { // the server's other copies
	case *proof.Grant:
		return e.tx.EraseGrant(place.Account, about)
	case *proof.Open:
		return e.tx.EraseAccessOpen(p.Conversation, p.Grant, p.Period, place.Account)
	}
	return nil
}

// grantNamed names the grant that a record is about.
func grantNamed(p proof.Payload) (chat.GrantID, error) {
	switch p := p.(type) {
	case *proof.Grant:
		g, err := grant.Peek(p.Signed)
		if err != nil {
			return chat.GrantID{}, err
		}
		return g.ID, nil
	case *proof.Narrow:
		n, err := grant.PeekNarrowing(p.Signed)
		if err != nil {
			return chat.GrantID{}, err
		}
		return n.Grant, nil
	case *proof.Revoke:
		r, err := grant.PeekRevocation(p.Signed)
		if err != nil {
			return chat.GrantID{}, err
		}
		return r.Grant, nil
	case *proof.Open:
		return p.Grant, nil
	case *proof.Close:
		return p.Grant, nil
	case *proof.Post:
		return p.Grant, nil
	case *proof.Delete:
		return p.Grant, nil
	case *proof.Exposed:
		return p.Grant, nil
	case *proof.Ended:
		return p.Grant, nil
	}
	return chat.GrantID{}, chat.Errorf(chat.Internal, "a record of kind %s names no grant", p.Kind())
}

// stands says whether a grant is in force or about to be, or its app still a reader of its thread.
func (e *erasing) stands(id chat.GrantID) (bool, error) {
	if known, ok := e.standing[id]; ok {
		return known, nil
	}
	g, err := e.tx.Grant(id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return false, err
	}
	e.standing[id] = err == nil && (g.State == string(grant.Live) || g.State == string(grant.Pending) || g.Leaf != store.NoLeaf)
	return e.standing[id], nil
}
