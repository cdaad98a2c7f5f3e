package delivery

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"slices"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls/roster"
	"letterlock/store"
)

const (
	maxFounding     = 64 << 10 // a GroupInfo with one leaf
	maxRevocations  = 64
	maxRevocation   = 64 << 10
	maxSlotAnnounce = 4 << 10
)

// refusedMLS gives an error of mls/roster a kind. Its sentences name structures and rules, never secrets.
func refusedMLS(err error) error {
	if errors.Is(err, roster.ErrWrongEpoch) {
		return chat.Wrap(chat.StaleEpoch, err, "made for another epoch: process what is new, then make it again")
	}
	return chat.Errorf(chat.Invalid, "not valid: %v", err)
}

// Found makes a conversation at epoch 0, alone with the device that founds it. The same founding again is answered as before.
func (s *Service) Found(ctx context.Context, r api.NewConversation) (api.Conversation, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Conversation{}, err
	}
	if len(r.GroupInfo) > maxFounding {
		return api.Conversation{}, chat.Errorf(chat.TooLarge, "a new conversation's group info has at most %d bytes", maxFounding)
	}
	if err := s.admit(caller, len(r.GroupInfo)); err != nil {
		return api.Conversation{}, err
	}
	g, err := roster.Open(r.GroupInfo, s.Now())
	if err != nil {
		return api.Conversation{}, refusedMLS(err)
	}
	thread, err := s.judgeFounding(g, caller)
	if err != nil {
		return api.Conversation{}, err
	}
	snapshot, err := g.MarshalBinary()
	if err != nil {
		return api.Conversation{}, err
	}
	f := store.Founding{GroupInfo: r.GroupInfo, Roster: snapshot, Members: []chat.AccountID{caller.Account},
		Conversation: store.Conversation{ID: chat.ConversationID(g.ID()), Kind: thread.Kind, Partner: thread.Partner, Created: s.Now().UnixMilli()}}
	err = s.Store.Update(ctx, func(tx *store.Tx) error { return s.foundIn(tx, &f, g, caller) })
	if err != nil {
		return api.Conversation{}, failed(err)
	}
	s.hub.wake(caller.Account, f.ID, 0)
	return s.GetConversation(ctx, f.ID)
}

// judgeFounding checks what can be seen from the group alone.
func (s *Service) judgeFounding(g *roster.Group, caller api.Caller) (grant.Thread, error) {
	members := g.Members()
	switch {
	case len(g.ID()) != len(chat.ConversationID{}):
		return grant.Thread{}, chat.Errorf(chat.Invalid, "the group id must have %d bytes", len(chat.ConversationID{}))
	case g.Epoch() != 0 || len(members) != 1 || len(g.Pending()) != 0:
		return grant.Thread{}, chat.Errorf(chat.Invalid, "a conversation begins at epoch 0 with one leaf")
	case string(members[0].Identity) != s.identityOf(caller):
		return grant.Thread{}, chat.Errorf(chat.Forbidden, "a conversation begins with the device that founds it")
	}
	if err := s.checkExternalSenders(g); err != nil {
		return grant.Thread{}, err
	}
	thread, err := grant.ThreadOf(g)
	if err != nil {
		return grant.Thread{}, err
	}
	if s.Hooks.JudgeFound != nil {
		err = s.Hooks.JudgeFound(g, caller)
	}
	return thread, err
}

// checkExternalSenders wants exactly this server there: without it expired agents could not be proposed for removal, and nobody
// else may speak from outside.
func (s *Service) checkExternalSenders(g *roster.Group) error {
	senders := g.ExternalSenders()
	if len(senders) != 1 || !bytes.Equal(senders[0].SignatureKey, s.ServerKey.Public().(ed25519.PublicKey)) {
		return chat.Errorf(chat.Invalid, "the external senders must be this server's key and no other")
	}
	return nil
}

func (s *Service) foundIn(tx *store.Tx, f *store.Founding, g *roster.Group, caller api.Caller) error {
	_, key, err := s.People.Device(tx, caller.Handle, caller.Device)
	if err != nil {
		return err
	}
	if !bytes.Equal(g.Members()[0].SignatureKey, key) {
		return chat.Errorf(chat.Forbidden, "the leaf must carry the device's key from its key chain")
	}
	if err := s.checkRoom(tx, caller.Account); err != nil {
		return err
	}
	err = tx.CreateConversation(*f)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	before, err := tx.ConversationFounding(f.ID)
	if err != nil {
		return err
	}
	if !bytes.Equal(before, f.GroupInfo) {
		return chat.Errorf(chat.Exists, "this conversation id is taken")
	}
	return nil
}

func (s *Service) checkRoom(tx *store.Tx, a chat.AccountID) error {
	most := s.Limits.conversations()
	n, err := tx.CountConversations(a)
	if err == nil && n >= most {
		return chat.Errorf(chat.TooMany, "an account is in at most %d conversations", most)
	}
	return err
}

// Commit takes the one commit that ends the current epoch, whole with its Welcome and announcement, or refuses it.
func (s *Service) Commit(ctx context.Context, id chat.ConversationID, r api.Commit) (api.Accepted, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return api.Accepted{}, err
	}
	if err := checkCommitSizes(r); err != nil {
		return api.Accepted{}, err
	}
	if err := s.admit(caller, len(r.Commit)+len(r.Welcome)); err != nil {
		return api.Accepted{}, err
	}
	c, err := s.cache.get(ctx, id)
	if err != nil {
		return api.Accepted{}, err
	}
	h := c.head.Load()
	it := &item{conv: c, entry: store.Entry{Conversation: id, Kind: uint8(api.KindCommit), Account: caller.Account, Device: caller.Device,
		Dedup: r.DedupKey, Body: r.Commit, Extra: r.Slot}}
	change, err := s.stage(it, h, r, caller)
	if err != nil {
		it.err = err
		s.settleOne(ctx, it) // it may be the commit that won, sent again
		s.cache.release(c)
		return it.accepted, it.err
	}
	it.apply = func(tx *store.Tx, at *tail, write func() error) (*head, error) {
		next, added, err := s.applyCommit(tx, it, at.head, change, r, caller, write)
		before := at.head
		it.after = func() { s.committed(c, before, next, it.entry.Seq, change, added) }
		return next, err
	}
	return s.submit(ctx, it)
}

func checkCommitSizes(r api.Commit) error {
	switch {
	case len(r.Commit) > api.MaxCommit:
		return chat.Errorf(chat.TooLarge, "a commit has at most %d bytes", api.MaxCommit)
	case len(r.Welcome) > api.MaxWelcome:
		return chat.Errorf(chat.TooLarge, "a Welcome has at most %d bytes", api.MaxWelcome)
	case len(r.Slot) > maxSlotAnnounce:
		return chat.Errorf(chat.TooLarge, "a slot announcement has at most %d bytes", maxSlotAnnounce)
	case len(r.Revocations) > maxRevocations:
		return chat.Errorf(chat.TooMany, "a commit carries out at most %d revocations", maxRevocations)
	}
	for _, v := range r.Revocations {
		if len(v) > maxRevocation {
			return chat.Errorf(chat.TooLarge, "a revocation has at most %d bytes", maxRevocation)
		}
	}
	return checkDedupKey(r.DedupKey)
}

// stage judges a commit against the current epoch, outside any transaction: it is the costly part.
func (s *Service) stage(it *item, h *head, r api.Commit, caller api.Caller) (*roster.Change, error) {
	identity := s.identityOf(caller)
	info, err := roster.InspectMessage(r.Commit)
	if err != nil || info.WireFormat != roster.WirePublicMessage || info.ContentType != roster.ContentCommit {
		return nil, chat.Errorf(chat.Invalid, "the commit must be an MLS PublicMessage that holds a commit")
	}
	if !bytes.Equal(info.GroupID, it.entry.Conversation[:]) {
		return nil, chat.Errorf(chat.Invalid, "the commit is for another conversation")
	}
	it.entry.Epoch = info.Epoch
	if info.Epoch != h.epoch {
		return nil, staleEpoch(info.Epoch, h.epoch)
	}
	if err := h.checkSender(identity); err != nil {
		return nil, err
	}
	change, err := h.group.Stage(r.Commit, s.Now())
	if err != nil {
		return nil, refusedMLS(err)
	}
	if string(change.Committer.Identity) != identity {
		return nil, chat.Errorf(chat.Forbidden, "a device commits for itself")
	}
	for _, m := range change.Removed {
		it.removes = append(it.removes, m.Leaf)
	}
	return change, s.checkChange(change, r.Welcome)
}

// checkChange refuses what no policy may allow: another external sender, a crowd, a Welcome that is not for those who are added.
func (s *Service) checkChange(change *roster.Change, welcome []byte) error {
	if err := s.checkExternalSenders(change.Next()); err != nil {
		return err
	}
	if len(change.Added) > 0 && len(change.Next().Members()) > MaxMembers {
		return chat.Errorf(chat.TooMany, "a conversation has at most %d leaves", MaxMembers)
	}
	if len(change.Added) == 0 {
		if len(welcome) != 0 {
			return chat.Errorf(chat.Invalid, "there is a Welcome, but the commit adds nobody")
		}
		return nil
	}
	refs, err := roster.InspectWelcome(welcome)
	if err != nil {
		return refusedMLS(err)
	}
	if len(refs) != len(change.AddedKeyPackages) {
		return chat.Errorf(chat.Invalid, "the Welcome is for %d leaves, the commit adds %d", len(refs), len(change.Added))
	}
	for _, k := range change.AddedKeyPackages {
		if !containsRef(refs, k.Ref) {
			return chat.Errorf(chat.Invalid, "the Welcome is not for every leaf that the commit adds")
		}
	}
	return nil
}

func containsRef(refs [][]byte, ref []byte) bool {
	for _, r := range refs {
		if subtle.ConstantTimeCompare(r, ref) == 1 {
			return true
		}
	}
	return false
}

// applyCommit takes the commit inside the appender's transaction: judged, written, the epoch moved, members and mailboxes kept. It
// returns what the conversation becomes and which devices have a Welcome.
func (s *Service) applyCommit(tx *store.Tx, it *item, h *head, change *roster.Change, r api.Commit, caller api.Caller, write func() error) (next *head, added map[string]chat.AccountID, err error) {
	id := it.entry.Conversation
	if change.Before() != h.group {
		// A proposal came since the commit was staged, which the next group's state depends on: stage it on what is current.
		again, err := h.group.Stage(r.Commit, s.Now())
		if err != nil {
			return nil, nil, refusedMLS(err)
		}
		*change = *again
	}
	if s.Hooks.JudgeCommit != nil {
		if err := s.Hooks.JudgeCommit(tx, id, change, r, caller); err != nil {
			return nil, nil, err
		}
	}
	added, boxes, err := s.addLeaves(tx, id, change)
	if err != nil {
		return nil, nil, err
	}
	if err := write(); err != nil {
		return nil, nil, err
	}
	if next, err = s.nextEpoch(tx, it, h, change); err != nil {
		return nil, nil, err
	}
	if len(boxes) > 0 {
		if err := tx.PutWelcome(id, it.entry.Seq, r.Welcome, boxes); err != nil {
			return nil, nil, err
		}
	}
	if s.Hooks.Committed != nil {
		err = s.Hooks.Committed(tx, id, change, r, it.entry.Seq)
	}
	return next, added, err
}

// addLeaves checks every added leaf against what the server knows of its identity, makes accounts members, and says which devices are
// added and whose mailboxes get the Welcome.
func (s *Service) addLeaves(tx *store.Tx, id chat.ConversationID, change *roster.Change) (added map[string]chat.AccountID, boxes []store.Mailbox, err error) {
	added = make(map[string]chat.AccountID)
	for _, m := range change.Added {
		who, err := chat.ParseIdentity(m.Identity)
		if err != nil {
			return nil, nil, err
		}
		if who.Host != s.Host {
			return nil, nil, chat.Errorf(chat.Invalid, "there are no people of other servers here")
		}
		if who.IsAgent() {
			boxes = append(boxes, store.AgentMailbox(who.Grant))
			continue
		}
		account, key, err := s.People.Device(tx, who.Handle, who.Device)
		if err != nil {
			return nil, nil, err
		}
		if !bytes.Equal(key, m.SignatureKey) {
			return nil, nil, chat.Errorf(chat.Forbidden, "an added leaf does not carry the device's key from its key chain")
		}
		if err := mayJoin(tx, account); err != nil {
			return nil, nil, err
		}
		if err := s.join(tx, id, account); err != nil {
			return nil, nil, err
		}
		added[string(m.Identity)] = account
		boxes = append(boxes, store.DeviceMailbox(account, who.Device))
	}
	return added, boxes, nil
}

func (s *Service) join(tx *store.Tx, id chat.ConversationID, a chat.AccountID) error {
	left, err := tx.Membership(id, a)
	if err == nil && left == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := s.checkRoom(tx, a); err != nil {
		return err
	}
	return tx.JoinConversation(id, a)
}

// nextEpoch moves the register of (conversation, epoch), which takes one commit, and says goodbye to accounts without a leaf.
func (s *Service) nextEpoch(tx *store.Tx, it *item, h *head, change *roster.Change) (*head, error) {
	id, seq := it.entry.Conversation, it.entry.Seq
	snapshot, err := change.Next().MarshalBinary()
	if err != nil {
		return nil, err
	}
	switch err := tx.NextEpoch(id, h.epoch, seq, snapshot); {
	case errors.Is(err, store.ErrNotFound):
		return nil, staleEpoch(h.epoch, h.epoch+1)
	case err != nil:
		return nil, err
	}
	people := make(map[string]bool) // handles with a leaf
	for _, m := range change.Next().Members() {
		if who, err := chat.ParseIdentity(m.Identity); err == nil && !who.IsAgent() {
			people[who.Handle] = true
		}
	}
	for _, m := range change.Removed {
		who, err := chat.ParseIdentity(m.Identity)
		if err != nil || who.IsAgent() || people[who.Handle] {
			continue
		}
		people[who.Handle] = true // once is enough
		account, err := s.People.Account(tx, who.Handle)
		if err != nil {
			return nil, err
		}
		if err := tx.LeaveConversation(id, account, seq); err != nil {
			return nil, err
		}
	}
	accounts, err := tx.MemberAccounts(id)
	if err != nil {
		return nil, err
	}
	return newHead(store.Conversation{ID: id, Epoch: change.Epoch, EpochSeq: seq}, change.Next(), accounts), nil
}

// committed runs when a commit is durable: who was added learns of its Welcome, who left is told once, and hooks run.
func (s *Service) committed(c *conversation, h, next *head, seq uint64, change *roster.Change, welcomed map[string]chat.AccountID) {
	for identity, a := range welcomed {
		s.hub.welcomed(a, identity)
	}
	for _, a := range h.accounts {
		if !slices.Contains(next.accounts, a) {
			s.hub.wake(a, c.id, seq)
			c.end(a)
		}
	}
	if s.Hooks.After != nil {
		s.Hooks.After(c.id, change)
	}
}
