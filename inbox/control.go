package inbox

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls/roster"
	"letterlock/proof"
	"letterlock/store"
)

// maxSkew is how far the time of issue of a grant may be from the server's clock, in milliseconds: as long as a grant may wait for its
// commit. Certificates and agreement are judged as of that time.
const maxSkew = grant.PendingFor

// PutGrant takes what a device signed: a grant that answers a consent request, or, where no device can commit now, a revocation or a
// narrowing. It is durable with its record when the call returns. The same bytes again are answered with the same record.
func (s *Service) PutGrant(ctx context.Context, r api.PutGrant) (api.Record, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Record{}, err
	}
	var rec *proof.Record
	var g *grant.Grant
	if g, err = grant.Peek(r.Signed); err == nil {
		rec, err = s.putGrant(ctx, r, g, caller)
	} else {
		rec, err = s.putControl(ctx, r.Signed, caller)
	}
	if err != nil {
		return api.Record{}, err
	}
	s.Ledger.Notify()
	return api.Record{Record: rec.Bytes()}, nil
}

// putGrant stores a grant as pending. What it says is checked against the consent request, the key chain, the agreement and the thread.
func (s *Service) putGrant(ctx context.Context, r api.PutGrant, g *grant.Grant, caller api.Caller) (*proof.Record, error) {
	if rec, err := s.putBefore(ctx, r.Signed, g, caller); rec != nil || err != nil {
		return rec, err
	}
	request, err := s.OAuth.Consent(ctx, r.Request)
	if err != nil {
		return nil, err
	}
	if err := s.checkRequest(g, &request); err != nil {
		return nil, err
	}
	group, _, err := s.Delivery.Roster(ctx, g.Conversation)
	if err != nil {
		return nil, err
	}
	if err := s.checkThread(g, group, caller); err != nil {
		return nil, err
	}
	var rec *proof.Record
	err = s.update(ctx, func(tx *store.Tx) error {
		rec, err = s.storeGrant(tx, r, g, &request, group, caller)
		return err
	})
	return rec, err
}

// putBefore finds the record of a grant that was handed in already with the same bytes.
func (s *Service) putBefore(ctx context.Context, signed []byte, g *grant.Grant, caller api.Caller) (rec *proof.Record, err error) {
	err = s.view(ctx, func(tx *store.Tx) error {
		old, err := tx.Grant(g.ID)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if old.Account != caller.Account || !bytes.Equal(old.Signed, signed) {
			return errGrantTaken
		}
		rec, err = s.Ledger.Control(tx, old.Account, old.Partner, old.Counter, &proof.Grant{Signed: signed})
		return err
	})
	return rec, err
}

var errGrantTaken = chat.Errorf(chat.Exists, "this grant id was used before: the partner must ask with a new one")

// checkRequest wants the grant to answer what the partner asked, or less.
func (s *Service) checkRequest(g *grant.Grant, r *api.ConsentRequest) error {
	asked, err := chat.ParseActions(r.Actions)
	if err != nil {
		return err
	}
	now := s.ms()
	switch {
	case now >= r.ExpiresAt:
		return chat.Errorf(chat.Expired, "the request has expired: the partner must ask again")
	case g.Partner != r.Partner.ID || g.ID != r.Grant:
		return chat.Errorf(chat.Forbidden, "the grant is not the one that was asked for")
	case !asked.Has(g.Actions):
		return chat.Errorf(chat.Forbidden, "the grant allows more than was asked for: %s", asked)
	case !r.Pick && g.Conversation != r.Thread:
		return chat.Errorf(chat.Forbidden, "the grant is for another thread than was asked for")
	case r.ValidUntil > 0 && g.Expiry > r.ValidUntil:
		return chat.Errorf(chat.Forbidden, "the grant lasts longer than was asked for")
	case g.Issued < now-maxSkew || g.Issued > now+maxSkew:
		return chat.Errorf(chat.Invalid, "the grant's time of issue is far from the server's clock: set the device's clock")
	case g.Expiry <= now:
		return chat.Errorf(chat.Invalid, "the grant has expired already")
	}
	return s.checkKeyPackage(g.Actions, g.AgentKey[:], r)
}

// checkKeyPackage wants, for read, a KeyPackage that can enter the thread under this grant with the agent's key.
func (s *Service) checkKeyPackage(actions chat.Actions, agentKey []byte, r *api.ConsentRequest) error {
	if !actions.Has(chat.Read) {
		return nil
	}
	info, err := roster.InspectKeyPackage(r.KeyPackage, s.Now())
	if err != nil {
		return chat.Wrap(chat.Invalid, err, "the request's KeyPackage cannot be used")
	}
	if string(info.Identity) != chat.AgentURI(s.Host, r.Partner.ID, r.Grant) || !bytes.Equal(info.SignatureKey, agentKey) {
		return chat.Errorf(chat.Tampered, "the request's KeyPackage is another agent's")
	}
	return nil
}

// checkThread wants the grant to fit a shared thread of its partner in which the caller's device is.
func (s *Service) checkThread(g *grant.Grant, group *roster.Group, caller api.Caller) error {
	said, err := grant.ThreadOf(group)
	if err != nil {
		return err
	}
	if _, ok := group.MemberByIdentity([]byte(chat.DeviceURI(s.Host, caller.Handle, caller.Device))); !ok {
		return chat.Errorf(chat.NotFound, "there is no such conversation, or you are not in it")
	}
	if said.Kind != grant.Shared || said.Partner != g.Partner {
		return chat.Errorf(chat.Forbidden, "the conversation was not made for this partner")
	}
	if g.Previous != (grant.Hash{}) && !slices.ContainsFunc(said.Grants, func(e grant.Entry) bool { return e.Hash == g.Previous && e.Account == g.Account }) {
		return chat.Errorf(chat.Invalid, "the grant replaces one that is not in the thread")
	}
	if !slices.Equal(g.SlotSigners, deviceKeys(group)) {
		return chat.Errorf(chat.Invalid, "the grant's slot signers are not exactly the devices in the thread")
	}
	return nil
}

// deviceKeys are the keys of the people's leaves, sorted as in a grant.
func deviceKeys(group *roster.Group) [][32]byte {
	var keys [][32]byte
	for _, m := range group.Members() {
		if who, err := chat.ParseIdentity(m.Identity); err == nil && !who.IsAgent() && len(m.SignatureKey) == 32 {
			keys = append(keys, [32]byte(m.SignatureKey))
		}
	}
	slices.SortFunc(keys, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return keys
}

// storeGrant is the transaction: signature, key chain, agreement and wishes are read where row, record and outbox row are written.
func (s *Service) storeGrant(tx *store.Tx, r api.PutGrant, g *grant.Grant, request *api.ConsentRequest, group *roster.Group, caller api.Caller) (*proof.Record, error) {
	if err := s.checkSigner(tx, r.Signed, g, caller); err != nil {
		return nil, err
	}
	if err := s.checkAgreement(tx, g, request); err != nil {
		return nil, err
	}
	for h := range handles(group) {
		if h == caller.Handle {
			continue
		}
		a, err := tx.AccountOf(h)
		if err != nil {
			return nil, err
		}
		if err := s.checkWish(tx, a, g.Partner); err != nil {
			return nil, err
		}
	}
	now := s.ms()
	err := tx.AddGrant(store.Grant{
		Account: g.Account, ID: g.ID, Handle: g.Handle, Device: g.Device, Partner: g.Partner, Conversation: g.Conversation, Agreement: g.Agreement,
		Hash: grant.HashOf(r.Signed), Signed: r.Signed, Request: r.Request, AgentKey: g.AgentKey, Actions: g.Actions, Expiry: g.Expiry, Counter: g.Counter,
		State: string(grant.Pending), Created: now, Changed: now, Posted: -1,
	})
	if errors.Is(err, store.ErrExists) {
		return nil, errGrantTaken
	}
	if err != nil {
		return nil, err
	}
	return s.Ledger.Control(tx, g.Account, g.Partner, g.Counter, &proof.Grant{Signed: r.Signed})
}

// checkSigner wants the calling device, as it stands in its account's newest key chain, to have signed for its own account.
func (s *Service) checkSigner(tx *store.Tx, signed []byte, g *grant.Grant, caller api.Caller) error {
	if g.Account != caller.Account || g.Handle != caller.Handle || g.Device != caller.Device {
		return chat.Errorf(chat.Forbidden, "a grant is made by the device that hands it in")
	}
	chain, err := s.People.Chain(tx, caller.Account)
	if err != nil {
		return err
	}
	device, ok := chain.Device(g.Device)
	if !ok {
		return chat.Errorf(chat.Forbidden, "the device is not in the key chain")
	}
	if g.ChainVersion != chain.Version() {
		return chat.Errorf(chat.Invalid, "the grant names version %d of the key chain, it is at %d", g.ChainVersion, chain.Version())
	}
	_, err = grant.Open(signed, device.Key)
	return err
}

// checkAgreement wants the grant to stand on the agreement in force, and its agent's key to come from the agreement's root key.
func (s *Service) checkAgreement(tx *store.Tx, g *grant.Grant, request *api.ConsentRequest) error {
	p, err := s.partner(tx, g.Partner)
	if err != nil {
		return err
	}
	if !p.active(s.ms()) {
		return chat.Errorf(chat.Forbidden, "the agreement with %s has ended", p.said.Name)
	}
	if g.Agreement != p.agreement.Hash {
		return chat.Errorf(chat.Invalid, "the grant stands on another agreement than the one in force")
	}
	if err := p.said.Covers(g); err != nil {
		return err
	}
	key, err := grant.CheckCerts(request.Certs, p.said.RootKey[:], g.Partner, g.ID, g.Issued)
	if err != nil {
		return err
	}
	if !bytes.Equal(key, g.AgentKey[:]) {
		return chat.Errorf(chat.Tampered, "the grant names a key that the partner did not certify")
	}
	return nil
}

// proposeWithin bounds how long a revocation waits for the proposal that follows it; the sweeper makes up for it.
const proposeWithin = 5 * time.Second

// putControl takes a revocation or narrowing that no commit carries out yet. The server refuses the agent at once, and proposes to remove
// its leaf if it has one that must go.
func (s *Service) putControl(ctx context.Context, signed []byte, caller api.Caller) (*proof.Record, error) {
	var rec *proof.Record
	var g store.Grant
	err := s.update(ctx, func(tx *store.Tx) error {
		c, row, err := s.openControl(tx, signed, caller)
		if err != nil {
			return err
		}
		g = row
		rec, err = s.control(tx, c, &g)
		return err
	})
	if err != nil {
		return nil, err
	}
	if g.Leaf == store.LeafToGo {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), proposeWithin)
		defer cancel()
		if err := s.proposeRemoval(ctx, g); err != nil {
			s.Logger.Error("a removal was not proposed; it is tried again", "error", err)
			s.stir()
		}
	}
	return rec, nil
}

// control records a control statement and carries it out: g becomes what it says. A statement that was recorded before gives the same record
// and changes nothing.
func (s *Service) control(tx *store.Tx, c *control, g *store.Grant) (*proof.Record, error) {
	head, err := tx.LedgerHead(store.LedgerChain{Account: g.Account, Partner: g.Partner, Chain: uint8(proof.Control)})
	if err != nil {
		return nil, err
	}
	if c.counter > head.N {
		if err := s.carryOut(tx, c, g); err != nil {
			return nil, err
		}
	}
	return s.Ledger.Control(tx, g.Account, g.Partner, c.counter, c.payload())
}

func (s *Service) carryOut(tx *store.Tx, c *control, g *store.Grant) error {
	now := s.ms()
	switch {
	case g.Reason == endedRevoked || g.Reason == endedReplaced:
		return chat.Errorf(chat.Gone, "the grant was %s before", g.Reason)
	case c.narrowing == nil:
		return s.end(tx, g, endedRevoked, now)
	case g.State != string(grant.Live) && g.State != string(grant.Pending):
		return chat.Errorf(chat.Gone, "the grant has ended")
	case g.Actions == c.narrowing.Actions || !g.Actions.Has(c.narrowing.Actions):
		return chat.Errorf(chat.Forbidden, "a narrowing leaves fewer actions than there are, and adds none")
	}
	g.Actions = c.narrowing.Actions
	return s.narrow(tx, g, now)
}
