package inbox

import (
	"context"

	"letterlock/api"
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
