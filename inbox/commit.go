package inbox

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"io"
	"maps"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls/roster"
	"letterlock/proof"
	"letterlock/slot/envelope"
	"letterlock/store"
)

// judgeFound is the hook of a founding.
func (s *Service) judgeFound(g *roster.Group, _ api.Caller) error {
	_, err := grant.JudgeFounding(g, s.trust)
	return err
}

// judgeCommit is the hook that decides whether a commit is taken. What everybody judges alike is grant.Judge; the rest is what the
// server alone can see: its grant rows, the bundle that came with the commit, and who wants no apps.
func (s *Service) judgeCommit(tx *store.Tx, id chat.ConversationID, change *roster.Change, r api.Commit, caller api.Caller) error {
	v, err := grant.Judge(change, s.trust)
	if err != nil {
		return err
	}
	if err := checkAnnouncement(v, change, id, r.Slot); err != nil {
		return err
	}
	for _, added := range v.Added {
		if err := s.checkPending(tx, id, added.Entry, caller); err != nil {
			return err
		}
	}
	if err := s.checkWishes(tx, v, change); err != nil {
		return err
	}
	_, err = s.bundle(tx, v, r.Revocations, caller)
	return err
}

// checkAnnouncement wants the new epoch's slot key, announced by the committing device, with every commit to a shared thread; and none
// in a private conversation, which has no slot.
func checkAnnouncement(v *grant.Verdict, change *roster.Change, id chat.ConversationID, announcement []byte) error {
	if v.After.Kind != grant.Shared {
		if len(announcement) != 0 {
			return chat.Errorf(chat.Invalid, "a private conversation has no slot")
		}
		return nil
	}
	a, err := envelope.OpenAnnouncement(announcement)
	if err != nil {
		return err
	}
	if a.Conversation != id || a.Epoch != change.Epoch || !bytes.Equal(a.Signer[:], change.Committer.SignatureKey) {
		return chat.Errorf(chat.Forbidden, "the slot announcement is not the committing device's for this thread and its next epoch")
	}
	return nil
}

// checkPending wants a grant to enter its thread as it was handed in, in time, and by its own account.
func (s *Service) checkPending(tx *store.Tx, id chat.ConversationID, e grant.Entry, caller api.Caller) error {
	g, err := tx.GrantOf(caller.Account, e.Grant)
	if errors.Is(err, store.ErrNotFound) {
		return chat.Errorf(chat.Forbidden, "the grant was not handed in by this account")
	}
	if err != nil {
		return err
	}
	p, err := s.partner(tx, g.Partner)
	if err != nil {
		return err
	}
	now := s.ms()
	switch {
	case g.Conversation != id || g.Hash != e.Hash:
		return chat.Errorf(chat.Forbidden, "the grant was handed in for another thread or with other words")
	case g.State != string(grant.Pending) || now-g.Created > grant.PendingFor:
		return chat.Errorf(chat.Expired, "the grant is not waiting for its commit: ask the partner to ask again")
	case now >= g.Expiry:
		return chat.Errorf(chat.Expired, "the grant has expired")
	case !p.active(now) || p.agreement.Hash != g.Agreement:
		return chat.Errorf(chat.Forbidden, "the agreement with %s has ended", p.said.Name)
	}
	return nil
}

// checkWishes keeps partners' apps away from people who want none, whether the app comes to the person or the person to the app. It is the
// server's courtesy and no rule of the group: a wish is read when a commit comes, never when one is merged.
func (s *Service) checkWishes(tx *store.Tx, v *grant.Verdict, change *roster.Change) error {
	if len(v.After.Grants) == 0 {
		return nil
	}
	before, after := handles(change.Before()), handles(change.Next())
	for h := range after {
		if h == v.Committer.Handle || len(v.Added) == 0 && before[h] {
			continue
		}
		a, err := tx.AccountOf(h)
		if err != nil {
			return err
		}
		if err := s.checkWish(tx, a, v.After.Partner); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkWish(tx *store.Tx, a chat.AccountID, partner string) error {
	chain, err := s.People.Chain(tx, a)
	if err != nil {
		return err
	}
	if chain.Preferences().Refuses(partner) {
		return chat.Errorf(chat.Forbidden, "%s wants no threads with this app", chain.Handle())
	}
	return nil
}

// handles are the people of a group.
func handles(g *roster.Group) map[string]bool {
	people := map[string]bool{}
	for _, m := range g.Members() {
		if who, err := chat.ParseIdentity(m.Identity); err == nil && !who.IsAgent() {
			people[who.Handle] = true
		}
	}
	return people
}

// control is a revocation or narrowing whose signature was checked.
type control struct {
	grant     chat.GrantID
	counter   uint64
	narrowing *grant.Narrowing // nil: a revocation
	signed    []byte
}

// left is what the statement leaves: nothing, after a revocation.
func (c *control) left() chat.Actions {
	if c.narrowing == nil {
		return 0
	}
	return c.narrowing.Actions
}

func (c *control) payload() proof.Payload {
	if c.narrowing == nil {
		return &proof.Revoke{Signed: c.signed}
	}
	return &proof.Narrow{Signed: c.signed}
}

// openControl reads a revocation or narrowing and checks that a device of the caller's account signed it, for a grant of that account.
func (s *Service) openControl(tx *store.Tx, signed []byte, caller api.Caller) (*control, store.Grant, error) {
	if r, err := grant.PeekRevocation(signed); err == nil {
		key, g, err := s.controlled(tx, r.Account, r.Device, r.Grant, caller)
		if err != nil {
			return nil, g, err
		}
		if r, err = grant.OpenRevocation(signed, key); err != nil {
			return nil, g, err
		}
		return &control{r.Grant, r.Counter, nil, signed}, g, checkControl(g, r.Handle, r.Partner, r.Conversation)
	}
	n, err := grant.PeekNarrowing(signed)
	if err != nil {
		return nil, store.Grant{}, chat.Wrap(chat.Invalid, err, "this is neither a grant nor a revocation nor a narrowing")
	}
	key, g, err := s.controlled(tx, n.Account, n.Device, n.Grant, caller)
	if err != nil {
		return nil, g, err
	}
	if n, err = grant.OpenNarrowing(signed, key); err != nil {
		return nil, g, err
	}
	return &control{n.Grant, n.Counter, n, signed}, g, checkControl(g, n.Handle, n.Partner, n.Conversation)
}

// controlled finds the key to check a control statement with, and the grant it is about.
func (s *Service) controlled(tx *store.Tx, a chat.AccountID, d chat.DeviceID, id chat.GrantID, caller api.Caller) (ed25519.PublicKey, store.Grant, error) {
	if a != caller.Account {
		return nil, store.Grant{}, chat.Errorf(chat.Forbidden, "only the person who made a grant may revoke or narrow it")
	}
	chain, err := s.People.Chain(tx, a)
	if err != nil {
		return nil, store.Grant{}, err
	}
	device, ok := chain.Device(d)
	if !ok {
		return nil, store.Grant{}, chat.Errorf(chat.Forbidden, "the device that signed is not in the key chain")
	}
	g, err := tx.GrantOf(a, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, g, chat.Errorf(chat.NotFound, "there is no such grant")
	}
	return device.Key, g, err
}

func checkControl(g store.Grant, handle, partner string, id chat.ConversationID) error {
	if g.Handle != handle || g.Partner != partner || g.Conversation != id {
		return chat.Errorf(chat.Invalid, "the statement names another partner or thread than the grant")
	}
	return nil
}

// outcome is what a commit leaves of a grant of the committer's account.
type outcome struct {
	left chat.Actions // 0: it ends
	must bool         // the grant stands otherwise: a signed statement has to say so
}

// bundle opens the control statements that came with a commit and compares them with what it does: each entry of the committer's own
// account that goes needs its signed revocation, each that is narrowed its signed narrowing, and no statement is about anything else.
// An entry that a new grant replaces needs none; nor does a grant for which the server has the statement already.
func (s *Service) bundle(tx *store.Tx, v *grant.Verdict, signed [][]byte, caller api.Caller) ([]*control, error) {
	outcomes, err := s.outcomes(tx, v, caller)
	if err != nil {
		return nil, err
	}
	list := make([]*control, 0, len(signed))
	for _, data := range signed {
		c, _, err := s.openControl(tx, data, caller)
		if err != nil {
			return nil, err
		}
		o, ok := outcomes[c.grant]
		if !ok || c.left() != o.left {
			return nil, chat.Errorf(chat.Invalid, "the commit carries a revocation or narrowing that it does not carry out")
		}
		delete(outcomes, c.grant)
		list = append(list, c)
	}
	for _, o := range outcomes {
		if o.must {
			return nil, chat.Errorf(chat.Unproven, "a commit that ends or narrows a grant of one's own carries the signed revocation or narrowing")
		}
	}
	return list, nil
}

func (s *Service) outcomes(tx *store.Tx, v *grant.Verdict, caller api.Caller) (map[chat.GrantID]outcome, error) {
	list := map[chat.GrantID]outcome{}
	for _, e := range v.Ended {
		if e.Account != caller.Account || replaced(v, e) {
			continue
		}
		g, err := tx.GrantOf(e.Account, e.Grant)
		if err != nil {
			return nil, err
		}
		list[e.Grant] = outcome{0, g.State == string(grant.Live)}
	}
	for _, n := range v.Narrowed {
		g, err := tx.GrantOf(n.After.Account, n.After.Grant)
		if err != nil {
			return nil, err
		}
		list[n.After.Grant] = outcome{n.After.Actions, g.State == string(grant.Live) && !n.After.Actions.Has(g.Actions)}
	}
	return list, nil
}

// replaced says that a new grant of the same commit takes the place of an entry.
func replaced(v *grant.Verdict, e grant.Entry) bool {
	for _, a := range v.Added {
		if a.Grant.Previous == e.Hash && a.Grant.Account == e.Account {
			return true
		}
	}
	return false
}

// committed is the hook that writes down what a taken commit changed: rows, tokens, records.
func (s *Service) committed(tx *store.Tx, id chat.ConversationID, change *roster.Change, r api.Commit, seq uint64) error {
	v, err := grant.Judge(change, s.judged())
	if err != nil {
		return err
	}
	caller, err := callerOf(tx, v.Committer)
	if err != nil {
		return err
	}
	said, err := s.bundle(tx, v, r.Revocations, caller)
	if err != nil {
		return err
	}
	now := s.ms()
	for _, c := range said {
		g, err := tx.GrantOf(caller.Account, c.grant)
		if err != nil {
			return err
		}
		if _, err := s.control(tx, c, &g); err != nil {
			return err
		}
	}
	for _, e := range v.Ended {
		if err := s.entryEnded(tx, v, e, now); err != nil {
			return err
		}
	}
	for _, n := range v.Narrowed {
		if err := s.entryNarrowed(tx, n.After, now); err != nil {
			return err
		}
	}
	for _, a := range v.Added {
		if err := s.entryAdded(tx, a.Entry, seq, now); err != nil {
			return err
		}
	}
	return s.recordExposure(tx, id, v, change, now)
}

// judged is the trust with which a commit is read again that judgeCommit took in the same transaction: its proofs held.
func (s *Service) judged() grant.Trust {
	t := s.trust
	t.AgreementLogged = func([]byte, []byte) error { return nil }
	t.GrantLogged = func(*grant.Grant, []byte, []byte, []byte) error { return nil }
	return t
}

func callerOf(tx *store.Tx, who chat.Identity) (api.Caller, error) {
	a, err := tx.AccountOf(who.Handle)
	return api.Caller{Account: a, Handle: who.Handle, Device: who.Device}, err
}

// entryEnded follows an entry that left the thread, and its leaf with it.
func (s *Service) entryEnded(tx *store.Tx, v *grant.Verdict, e grant.Entry, now int64) error {
	g, err := tx.GrantOf(e.Account, e.Grant)
	if err != nil {
		return err
	}
	g.Leaf = store.NoLeaf
	if replaced(v, e) {
		return s.end(tx, &g, endedReplaced, now)
	}
	return s.end(tx, &g, endedByMember, now)
}

// entryNarrowed follows an entry that was left fewer actions. The row has them already, from the signed statement.
func (s *Service) entryNarrowed(tx *store.Tx, e grant.Entry, now int64) error {
	g, err := tx.GrantOf(e.Account, e.Grant)
	if err != nil {
		return err
	}
	if !e.Actions.Has(chat.Read) {
		g.Leaf = store.NoLeaf
	}
	return s.narrow(tx, &g, now)
}

// entryAdded brings a grant to life.
func (s *Service) entryAdded(tx *store.Tx, e grant.Entry, seq uint64, now int64) error {
	g, err := tx.GrantOf(e.Account, e.Grant)
	if err != nil {
		return err
	}
	g.State, g.Changed = string(grant.Live), now
	if e.Actions.Has(chat.Read) {
		g.Leaf, g.JoinedSeq = store.LeafIn, seq
	}
	if err := s.nameFriends(tx, &g); err != nil {
		return err
	}
	return tx.ChangeGrant(g)
}

// nameFriends gives each other person of the thread an opaque handle for this partner and person.
func (s *Service) nameFriends(tx *store.Tx, g *store.Grant) error {
	list, err := others(tx, g)
	if err != nil {
		return err
	}
	for _, friend := range list {
		var fresh [16]byte
		if _, err := io.ReadFull(s.Rand, fresh[:]); err != nil {
			return err
		}
		if err := tx.SetFriendHandle(g.Account, g.Partner, friend, fresh); err != nil {
			return err
		}
	}
	return nil
}

// recordExposure writes, on the chain of every person concerned, that a reader came within reach of their words, or is out of it: the
// reader was added or removed, or the person.
func (s *Service) recordExposure(tx *store.Tx, id chat.ConversationID, v *grant.Verdict, change *roster.Change, now int64) error {
	before := exposures(v.Before, change.Before())
	after := exposures(v.After, change.Next())
	for _, x := range before {
		if slices.Contains(after, x) {
			continue
		}
		if err := s.record(tx, x.person, v.After.Partner, &proof.Ended{Conversation: id, Grant: x.grant, Partner: v.After.Partner, Epoch: change.Epoch,
			Granting: x.granting, At: now}); err != nil {
			return err
		}
	}
	for _, x := range after {
		if slices.Contains(before, x) {
			continue
		}
		if err := s.record(tx, x.person, v.After.Partner, &proof.Exposed{Conversation: id, Grant: x.grant, Partner: v.After.Partner, Epoch: change.Epoch,
			Granting: x.granting, AgentKey: x.agentKey, At: now}); err != nil {
			return err
		}
	}
	return nil
}

// exposure is one person within reach of one reader.
type exposure struct {
	person   string // handle
	grant    chat.GrantID
	granting chat.AccountID
	agentKey [32]byte
}

// exposures lists who is within reach of which reader in an epoch, in a fixed order.
func exposures(t grant.Thread, g *roster.Group) (list []exposure) {
	people := slices.Sorted(maps.Keys(handles(g)))
	for _, e := range t.Grants {
		if !e.Actions.Has(chat.Read) {
			continue
		}
		for _, h := range people {
			list = append(list, exposure{h, e.Grant, e.Account, e.AgentKey})
		}
	}
	return list
}

// record writes the next record of the access chain of a person who is known by the handle.
func (s *Service) record(tx *store.Tx, handle, partner string, p proof.Payload) error {
	a, err := tx.AccountOf(handle)
	if err != nil {
		return err
	}
	_, err = s.Ledger.Access(tx, a, partner, p)
	return err
}

// after is the hook of a commit that is durable.
func (s *Service) after(chat.ConversationID, *roster.Change) {
	s.Ledger.Notify()
	s.stir()
}
