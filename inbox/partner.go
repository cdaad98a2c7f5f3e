package inbox

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/oauth"
	"letterlock/proof"
	"letterlock/store"
)

// partner is a partner with its newest agreement, as read in one transaction.
type partner struct {
	row       store.Partner
	agreement store.Agreement
	said      *grant.Agreement
}

// active says whether the partner may ask for grants and use those it has.
func (p *partner) active(now int64) bool {
	return p.row.Stopped == 0 && p.agreement.Ended == 0 && now >= p.said.NotBefore && now < p.said.NotAfter
}

// openedAgreements remembers agreements by hash: they never change, and opening one checks two signatures.
type openedAgreements struct {
	mu     sync.Mutex
	byHash map[[32]byte]*grant.Agreement
}

func (s *Service) openAgreement(a store.Agreement) (*grant.Agreement, error) {
	s.opened.mu.Lock()
	defer s.opened.mu.Unlock()
	if said, ok := s.opened.byHash[a.Hash]; ok {
		return said, nil
	}
	said, err := grant.OpenAgreement(a.Agreement, s.trust.Operator)
	if err != nil {
		return nil, chat.Wrap(chat.Internal, err, "a stored agreement does not hold")
	}
	s.opened.byHash[a.Hash] = said
	return said, nil
}

// partner reads a partner; NotFound where there is none.
func (s *Service) partner(tx *store.Tx, id string) (*partner, error) {
	row, err := tx.Partner(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, chat.Errorf(chat.NotFound, "there is no such partner here")
	}
	if err != nil {
		return nil, err
	}
	return s.withAgreement(tx, row)
}

func (s *Service) withAgreement(tx *store.Tx, row store.Partner) (*partner, error) {
	a, err := tx.Agreement(row.ID, row.Number)
	if err != nil {
		return nil, err
	}
	said, err := s.openAgreement(a)
	return &partner{row, a, said}, err
}

func (s *Service) partners(tx *store.Tx) ([]*partner, error) {
	rows, err := tx.Partners()
	if err != nil {
		return nil, err
	}
	list := make([]*partner, len(rows))
	for i, row := range rows {
		if list[i], err = s.withAgreement(tx, row); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// PutPartner registers a partner's OAuth client and, where the registration holds an offer, countersigns it: the agreement is then in
// force, logged in clear, and takes the place of the one before, whose grants end. The same registration again changes nothing.
func (s *Service) PutPartner(ctx context.Context, r api.AcceptAgreement) (api.AgreementInForce, error) {
	if err := chat.CheckPartner(r.Registration.Partner); err != nil {
		return api.AgreementInForce{}, err
	}
	if err := oauth.CheckClient(r.Registration.ClientJWKS, r.Registration.RedirectURIs); err != nil {
		return api.AgreementInForce{}, err
	}
	err := s.update(ctx, func(tx *store.Tx) error {
		if len(r.Registration.Offer) > 0 {
			if err := s.accept(tx, r); err != nil {
				return err
			}
		}
		return s.putClient(tx, r)
	})
	if err != nil {
		return api.AgreementInForce{}, err
	}
	s.stir()
	return s.GetAgreement(ctx, r.Registration.Partner)
}

// accept countersigns the offer and puts it in force.
func (s *Service) accept(tx *store.Tx, r api.AcceptAgreement) error {
	said, err := grant.OpenOffer(r.Registration.Offer)
	if err != nil {
		return err
	}
	now := s.ms()
	switch {
	case said.Partner != r.Registration.Partner || said.Name != r.Registration.Name:
		return chat.Errorf(chat.Invalid, "the offer is of another partner than the registration names")
	case said.Host != s.Host:
		return chat.Errorf(chat.Invalid, "the offer is for %s, this server is %s", said.Host, s.Host)
	case now < said.NotBefore || now >= said.NotAfter:
		return chat.Errorf(chat.Expired, "the offer is not in force now")
	}
	signed, err := grant.Countersign(r.Registration.Offer, s.Keys.Server)
	if err != nil {
		return err
	}
	row := store.Agreement{Partner: said.Partner, Number: said.Number, Agreement: signed, Hash: grant.AgreementHash(signed), Accepted: now}
	before, err := tx.Partner(said.Partner)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	case said.Number <= before.Number:
		return s.acceptedBefore(tx, row)
	default:
		if err := s.supersede(tx, before, said, now); err != nil {
			return err
		}
	}
	if row.LeafHash, err = s.Ledger.Public(tx, &proof.Agreement{Countersigned: signed}); err != nil {
		return err
	}
	if err := tx.AddAgreement(row); err != nil {
		return err
	}
	before.ID, before.Number = said.Partner, said.Number
	return tx.PutPartner(before)
}

// acceptedBefore is nil if exactly this agreement stands already.
func (s *Service) acceptedBefore(tx *store.Tx, row store.Agreement) error {
	old, err := tx.Agreement(row.Partner, row.Number)
	if err == nil && old.Hash == row.Hash {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return chat.Errorf(chat.Exists, "the partner's agreements have reached this number: the offer must have a greater one")
}

// supersede ends the agreement before. A partner keeps its root key: with another one nobody could tell it from an impostor.
func (s *Service) supersede(tx *store.Tx, before store.Partner, next *grant.Agreement, now int64) error {
	old, err := s.withAgreement(tx, before)
	if err != nil {
		return err
	}
	if old.said.RootKey != next.RootKey {
		return chat.Errorf(chat.Forbidden, "the offer is signed with another root key than the partner's agreement so far")
	}
	if old.agreement.Ended != 0 {
		return nil
	}
	return s.endAgreement(tx, old, proof.CauseEnded, "replaced by a newer agreement", now)
}

// endAgreement says in public that an agreement is over. Its grants are ended by the sweeper; May refuses them at once.
func (s *Service) endAgreement(tx *store.Tx, p *partner, why proof.Cause, reason string, now int64) error {
	if err := tx.EndAgreement(p.row.ID, p.agreement.Number, now); err != nil {
		return err
	}
	_, err := s.Ledger.Public(tx, &proof.PartnerEnd{Partner: p.row.ID, Agreement: p.agreement.LeafHash, At: now, Cause: why, Reason: reason})
	return err
}

// putClient registers the OAuth client of a partner that has an agreement.
func (s *Service) putClient(tx *store.Tx, r api.AcceptAgreement) error {
	p, err := s.partner(tx, r.Registration.Partner)
	if err != nil {
		return err
	}
	if len(r.DomainKey) > 0 && !bytes.Equal(r.DomainKey, p.said.RootKey[:]) {
		return chat.Errorf(chat.Tampered, "the partner's domain serves another root key than the one that signed the offer")
	}
	cert, err := grant.OpenCert(r.Registration.AgentCert, p.said.RootKey[:])
	if err != nil {
		return err
	}
	if cert.Partner != p.row.ID || cert.Purpose != grant.AgentPurpose {
		return chat.Errorf(chat.Invalid, "the agent certificate is for something else")
	}
	return tx.PutOAuthClient(store.OAuthClient{ID: p.row.ID, JWKS: r.Registration.ClientJWKS, RedirectURIs: r.Registration.RedirectURIs, Created: s.ms()})
}

// StopPartner is the operator's one switch: from now on every call of the partner is refused, its grants end, its leaves are proposed
// for removal, and the ledger says so in clear.
func (s *Service) StopPartner(ctx context.Context, id string, r api.StopPartner) error {
	err := s.update(ctx, func(tx *store.Tx) error {
		p, err := s.partner(tx, id)
		if err != nil || p.row.Stopped != 0 {
			return err
		}
		now := s.ms()
		if p.agreement.Ended == 0 {
			if err := s.endAgreement(tx, p, proof.CauseStopped, r.Reason, now); err != nil {
				return err
			}
		}
		p.row.Stopped, p.row.StoppedNumber = now, p.row.Number
		return tx.PutPartner(p.row)
	})
	if err != nil {
		return err
	}
	s.stir()
	return s.Sweep(ctx)
}

// ResumePartner lets a stopped partner ask for grants again, under a newer agreement than the one that the ledger says is over. Grants
// that ended stay ended.
func (s *Service) ResumePartner(ctx context.Context, id string) error {
	return s.update(ctx, func(tx *store.Tx) error {
		p, err := s.partner(tx, id)
		if err != nil || p.row.Stopped == 0 {
			return err
		}
		if p.row.Number <= p.row.StoppedNumber {
			return chat.Errorf(chat.Forbidden, "the agreement of %s was ended in public: accept a newer one, then resume", p.said.Name)
		}
		p.row.Stopped = 0
		return tx.PutPartner(p.row)
	})
}

// ListAgreements lists every partner's newest agreement.
func (s *Service) ListAgreements(ctx context.Context) (out api.AgreementList, err error) {
	out.Agreements = []api.AgreementInForce{}
	return out, s.view(ctx, func(tx *store.Tx) error {
		list, err := s.partners(tx)
		if err != nil {
			return err
		}
		for _, p := range list {
			a, err := s.inForce(tx, p)
			if err != nil {
				return err
			}
			out.Agreements = append(out.Agreements, a)
		}
		return nil
	})
}

// GetAgreement shows one partner's newest agreement.
func (s *Service) GetAgreement(ctx context.Context, id string) (out api.AgreementInForce, err error) {
	return out, s.view(ctx, func(tx *store.Tx) error {
		p, err := s.partner(tx, id)
		if err != nil {
			return err
		}
		out, err = s.inForce(tx, p)
		return err
	})
}

func (s *Service) inForce(tx *store.Tx, p *partner) (api.AgreementInForce, error) {
	live, err := tx.CountGrants(p.row.ID, string(grant.Live))
	a := p.said
	return api.AgreementInForce{
		Partner: a.Partner, Name: a.Name, Number: a.Number, Actions: a.Actions.Names(), ReportDays: a.ReportDays, PostsPerMinute: a.PostsPerMinute,
		LinkBases: a.LinkBases, Interfaces: a.Interfaces, Surfaces: a.Surfaces, Variants: a.Variants, NotBefore: a.NotBefore, NotAfter: a.NotAfter,
		RootKey: a.RootKey[:], Agreement: p.agreement.Agreement, Leaf: p.agreement.LeafHash[:],
		Stopped: p.row.Stopped != 0, Active: p.active(s.ms()), LiveGrants: live,
	}, err
}

// Status says how the server's durable work stands.
func (s *Service) Status(ctx context.Context) (out api.Status, err error) {
	out.Host, out.LedgerVKey, out.Unsigned = s.Host, s.Keys.LedgerVKey(), s.Ledger.Waiting()
	return out, s.view(ctx, func(tx *store.Tx) error {
		partners, err := tx.Partners()
		if err != nil {
			return err
		}
		out.Partners = len(partners)
		if out.Outbox, err = tx.LedgerOutboxSize(); err != nil {
			return err
		}
		log, err := tx.LedgerState(proof.Origin(s.Host))
		out.LedgerSize = log.Size
		return err
	})
}

// BuildReport builds a partner's report and logs its hash.
func (s *Service) BuildReport(ctx context.Context, r api.ReportQuery) (api.BuiltReport, error) {
	var said *grant.Agreement
	err := s.view(ctx, func(tx *store.Tx) error {
		p, err := s.partner(tx, r.Partner)
		if err == nil {
			said = p.said
		}
		return err
	})
	if err != nil {
		return api.BuiltReport{}, err
	}
	return s.Reports.Build(ctx, said, r)
}

// PutPartnerFigures stores figures that a partner handed to the operator.
func (s *Service) PutPartnerFigures(ctx context.Context, id string, r api.InboxFigures) error {
	return s.update(ctx, func(tx *store.Tx) error {
		p, err := s.partner(tx, id)
		if err != nil {
			return err
		}
		return s.Reports.PutFigures(tx, p.said, r)
	})
}
