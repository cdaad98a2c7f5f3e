package inbox

import (
	"context"
	"errors"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/store"
)

// ListPartners is the public register of partners, with the proof of each agreement.
func (s *Service) ListPartners(ctx context.Context) (out api.PartnerList, err error) {
	var list []*partner
	err = s.view(ctx, func(tx *store.Tx) error {
		list, err = s.partners(tx)
		return err
	})
	if err != nil {
		return out, err
	}
	out.Partners = make([]api.Partner, len(list))
	for i, p := range list {
		if out.Partners[i], err = s.public(ctx, p); err != nil {
			return out, err
		}
	}
	return out, nil
}

// public is a partner's public entry. An agreement that is not yet in the log has no proof.
func (s *Service) public(ctx context.Context, p *partner) (api.Partner, error) {
	_, tlogProof, err := s.Ledger.Inclusion(ctx, p.agreement.LeafHash)
	if chat.Is(err, chat.NotFound) {
		err = nil
	}
	return api.Partner{ID: p.row.ID, Name: p.said.Name, Agreement: p.agreement.Agreement, Proof: tlogProof, Active: p.active(s.ms())}, err
}

// JudgeRequest is oauth's hook when a request is pushed: it refuses what no person could grant.
func (s *Service) JudgeRequest(tx *store.Tx, r api.ConsentRequest) error {
	p, err := s.partner(tx, r.Partner.ID)
	if err != nil {
		return err
	}
	asked, err := chat.ParseActions(r.Actions)
	if err != nil {
		return err
	}
	now := s.ms()
	switch {
	case !p.active(now):
		return chat.Errorf(chat.Forbidden, "the agreement with %s has ended", p.said.Name)
	case !p.said.Actions.Has(asked):
		return chat.Errorf(chat.Forbidden, "the agreement with %s allows %s only", p.said.Name, p.said.Actions)
	case r.ValidUntil > p.said.NotAfter:
		return chat.Errorf(chat.Forbidden, "the permission would outlive the agreement")
	}
	key, err := grant.CheckCerts(r.Certs, p.said.RootKey[:], p.row.ID, r.Grant, now)
	if err != nil {
		return err
	}
	if err := s.checkKeyPackage(asked, key, &r); err != nil {
		return err
	}
	if _, err := tx.Grant(r.Grant); !errors.Is(err, store.ErrNotFound) {
		return errors.Join(err, errGrantTaken)
	}
	if r.Pick {
		return nil
	}
	return knows(tx, p, r.Thread)
}

// knows refuses a thread that the partner had no grant for: what exists is none of its business.
func knows(tx *store.Tx, p *partner, id chat.ConversationID) error {
	list, err := tx.GrantsIn(id)
	if err != nil {
		return err
	}
	for _, g := range list {
		if g.Partner == p.row.ID {
			return nil
		}
	}
	return chat.Errorf(chat.NotFound, "%s knows of no such thread", p.said.Name)
}

// GetConsent says what a partner asks for, to a person who is signed in.
func (s *Service) GetConsent(ctx context.Context, request string) (api.ConsentRequest, error) {
	if _, err := api.CallerFrom(ctx); err != nil {
		return api.ConsentRequest{}, err
	}
	r, err := s.OAuth.Consent(ctx, request)
	if err != nil {
		return r, err
	}
	var p *partner
	err = s.view(ctx, func(tx *store.Tx) error {
		p, err = s.partner(tx, r.Partner.ID)
		return err
	})
	if err != nil {
		return r, err
	}
	if !p.active(s.ms()) {
		return r, chat.Errorf(chat.Forbidden, "the agreement with %s has ended", p.said.Name)
	}
	r.Partner, err = s.public(ctx, p)
	return r, err
}

// FinishConsent gives the code of a request whose grant is in its thread.
func (s *Service) FinishConsent(ctx context.Context, request string) (api.Redirect, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Redirect{}, err
	}
	r, err := s.OAuth.Consent(ctx, request)
	if err != nil {
		return api.Redirect{}, err
	}
	var g store.Grant
	err = s.view(ctx, func(tx *store.Tx) error {
		g, err = tx.GrantOf(caller.Account, r.Grant)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return api.Redirect{}, chat.Errorf(chat.Forbidden, "this request has no grant of yours")
	case err != nil:
		return api.Redirect{}, err
	case g.Request != request || g.State != string(grant.Live):
		return api.Redirect{}, chat.Errorf(chat.Forbidden, "the grant of this request is not live: commit it to its thread first")
	}
	url, err := s.OAuth.Approve(ctx, request, g.ID, g.Actions)
	return api.Redirect{URL: url}, err
}

// RefuseConsent tells the partner no.
func (s *Service) RefuseConsent(ctx context.Context, request string) (api.Redirect, error) {
	if _, err := api.CallerFrom(ctx); err != nil {
		return api.Redirect{}, err
	}
	url, err := s.OAuth.Refuse(ctx, request)
	return api.Redirect{URL: url}, err
}
