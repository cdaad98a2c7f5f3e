package inbox

import (
	"context"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
)

// ListGrants lists every grant of the caller's account, ended ones too.
func (s *Service) ListGrants(ctx context.Context) (out api.GrantList, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return out, err
	}
	out.Grants = []api.GrantStatus{}
	return out, s.view(ctx, func(tx *store.Tx) error {
		list, err := tx.GrantsOf(caller.Account)
		for _, g := range list {
			out.Grants = append(out.Grants, api.GrantStatus{Grant: g.ID, Signed: g.Signed, State: g.State, Ended: g.Reason})
		}
		return err
	})
}

// Records reads a part of one of the caller's own chains.
func (s *Service) Records(ctx context.Context, q api.RecordQuery) (out api.RecordList, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return out, err
	}
	chain, err := proof.ParseChain(q.Chain)
	if err != nil {
		return out, err
	}
	page, err := s.Ledger.Records(ctx, proof.Place{Account: caller.Account, Partner: q.Partner, Chain: chain, N: q.From}, q.Limit)
	if err != nil {
		return out, failed(err)
	}
	out.Records = make([]api.Record, len(page))
	for i, p := range page {
		out.Records[i] = api.Record{Record: p.Record.Bytes(), Proof: p.Proof}
	}
	return out, nil
}

// Bundle is everything a stranger needs to check the caller's history with a partner offline; where none is named, the caller's keys. A partner that
// is not known here can be named: that there was nothing can be shown as well.
func (s *Service) Bundle(ctx context.Context, id string) ([]byte, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return nil, err
	}
	if id != "" {
		if err := chat.CheckPartner(id); err != nil {
			return nil, err
		}
	}
	about := ledger.Subject{Account: caller.Account, Handle: caller.Handle, Partner: id}
	err = s.view(ctx, func(tx *store.Tx) error {
		chain, err := s.People.Chain(tx, caller.Account)
		if err != nil {
			return err
		}
		about.KeyChain = chain.Entries()
		list, err := tx.Agreements(id)
		for _, a := range list {
			about.Agreements = append(about.Agreements, a.Agreement)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	b, err := s.Ledger.Bundle(ctx, about)
	if err != nil {
		return nil, failed(err)
	}
	return b.Bytes()
}

// Completeness proves that chains of the caller have no further record.
func (s *Service) Completeness(ctx context.Context, r api.Completeness) (out api.CompletenessProof, err error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return out, err
	}
	if len(r.Chains) > api.MaxChainEnds {
		return out, chat.Errorf(chat.TooLarge, "at most %d chains are shown as complete at once", api.MaxChainEnds)
	}
	places := make([]proof.Place, len(r.Chains))
	for i, c := range r.Chains {
		chain, err := proof.ParseChain(c.Chain)
		if err != nil {
			return out, err
		}
		if err := chat.CheckPartner(c.Partner); err != nil {
			return out, err
		}
		places[i] = proof.Place{Account: caller.Account, Partner: c.Partner, Chain: chain, N: c.Next}
	}
	head, list, err := s.Ledger.Complete(ctx, places)
	if err != nil {
		return out, failed(err)
	}
	out.Head, out.Chains = head.Bytes(), make([]api.MapProof, len(list))
	for i, p := range list {
		out.Chains[i] = api.MapProof(p)
	}
	return out, nil
}
