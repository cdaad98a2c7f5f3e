package device

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/proof"
	"letterlock/slot"
)

// pageSize is how many entries of a log are asked for at once.
const pageSize = 500

// Sync takes everything that is new: Welcomes, then every conversation's log; then it does what a member owes the others (carries out
// proposed removals, adds and removes devices as key chains say, sends what waits). A conversation that fails does not keep the others
// from going on; their errors are joined.
func (c *Client) Sync(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sync(ctx)
}

func (c *Client) sync(ctx context.Context) (err error) {
	if err := c.forgetOver(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.forgetOver()) }()
	if err := c.greet(ctx); err != nil {
		return err
	}
	if err := c.takeWelcomes(ctx); err != nil {
		return err
	}
	ids, err := c.conversationIDs()
	if err != nil {
		return err
	}
	var failed []error
	if err := c.checkDaily(ctx); err != nil {
		failed = append(failed, err)
	}
	for _, id := range ids {
		if err := c.attend(ctx, id); err != nil {
			failed = append(failed, err)
		}
	}
	if err := c.fillKeyPackages(ctx); err != nil {
		failed = append(failed, err)
	}
	return errors.Join(failed...)
}

// attend brings one conversation up to date and does what is owed there.
func (c *Client) attend(ctx context.Context, id chat.ConversationID) error {
	if err := c.syncConversation(ctx, id); err != nil {
		return err
	}
	if err := c.compareHeard(ctx, id); err != nil {
		return err
	}
	conv, g, err := c.loadGroup(id)
	if err != nil || conv.Left {
		return err
	}
	if err := c.neverSent(id, g.Epoch()); err != nil {
		return err
	}
	if err := c.finishRemovals(ctx, id); err != nil {
		return err
	}
	if err := c.reconcile(ctx, id, g.Roster()); err != nil {
		return err
	}
	_, err = c.flush(ctx, id)
	return err
}

func (c *Client) conversationIDs() (ids []chat.ConversationID, err error) {
	err = c.state.View(func(tx StateTx) error {
		return tx.List(bucketConversation, "", func(name string, _ []byte) (bool, error) {
			id, err := chat.ParseConversationID(name)
			ids = append(ids, id)
			return true, err
		})
	})
	return ids, err
}

// takeWelcomes joins what others added this device to.
func (c *Client) takeWelcomes(ctx context.Context) error {
	box, err := c.server.Welcomes(ctx, 0)
	if err != nil {
		return err
	}
	for _, w := range box.Welcomes {
		if err := c.join(ctx, w); err != nil {
			// A Welcome that cannot be used must not stand in the way of the others.
			if chat.KindOf(err) == chat.Unavailable {
				return err
			}
			if chat.Is(err, chat.NotFound) { // made for keys that this device no longer has: nobody's lie
				err = nil
			}
			if err := c.refuseWelcome(w, err); err != nil {
				return err
			}
		}
		if err := c.server.DeleteWelcome(ctx, w.ID); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) refuseWelcome(w api.MailboxWelcome, why error) error {
	if why == nil {
		return nil
	}
	sentence := fmt.Sprintf("an invitation to conversation %s was refused: %v", w.Conversation, why)
	return c.state.Update(func(tx StateTx) error { return c.keepEvidence(tx, w.Conversation, sentence, w.Welcome) })
}

func (c *Client) join(ctx context.Context, w api.MailboxWelcome) error {
	if conv, g, err := c.readGroup(w.Conversation); err == nil && g != nil && conv.Cursor >= w.Seq {
		return nil // joined by it before, and interrupted before the server was told
	}
	refs, err := roster.InspectWelcome(w.Welcome)
	if err != nil {
		return err
	}
	kp, name, err := c.findKeyPackage(refs)
	if err != nil {
		return err
	}
	lastResort := kp.LastResort()
	g, err := mls.Join(w.Welcome, kp, mls.JoinOptions{Signer: c.key.Private()})
	if err != nil {
		return err
	}
	t, err := grant.JudgeJoin(g.Roster(), c.policy.trust)
	if err != nil {
		return err
	}
	if !bytes.Equal(g.ID(), w.Conversation[:]) {
		return chat.Errorf(chat.Tampered, "the invitation is to another conversation than the server says")
	}
	if err := c.mayJoin(w.Conversation, t); err != nil {
		return err
	}
	conv := conversation{ID: w.Conversation, Kind: t.Kind, Partner: t.Partner, Cursor: w.Seq, Read: w.Seq, Founded: true, Created: c.ms()}
	if conv.Warned, err = c.strangers(ctx, g.Roster().Members()); err != nil {
		return err
	}
	items := []Item{c.event(w.Seq, c.ms(), EventJoined, "You are in this conversation now, with %s.", listNames(others(peopleOf(g.Roster()), c.self.Handle)))}
	for _, e := range t.Grants {
		items = append(items, c.grantEvent(w.Seq, c.ms(), t.Partner, e))
	}
	return c.state.Update(func(tx StateTx) error {
		if !lastResort {
			if err := tx.Delete(bucketKeyPackage, name); err != nil {
				return err
			}
		}
		if err := tx.Delete(bucketPending, conv.ID.String()); err != nil {
			return err
		}
		if err := putItems(tx, conv.ID, items); err != nil {
			return err
		}
		return saveGroup(tx, conv, g)
	})
}

// mayJoin refuses an invitation to a conversation that the device is in: it could put another group in its place. One that the device was
// removed from may be joined again, and one that broke too, if it starts without apps.
func (c *Client) mayJoin(id chat.ConversationID, t grant.Thread) error {
	conv, g, err := c.readGroup(id)
	switch {
	case chat.Is(err, chat.NotFound):
		return nil
	case err != nil:
		return err
	case conv.Broken != "" && len(t.Grants) > 0:
		return chat.Errorf(chat.Forbidden, "a conversation that was stopped begins again without partner apps")
	case conv.Broken == "" && g != nil:
		return chat.Errorf(chat.Tampered, "the invitation is to a conversation that this device is in")
	}
	return nil
}

func (c *Client) findKeyPackage(refs [][]byte) (kp *mls.KeyPackage, name string, err error) {
	err = c.state.View(func(tx StateTx) error {
		for _, ref := range refs {
			data, err := tx.Get(bucketKeyPackage, hexName(ref))
			if err != nil {
				return err
			}
			if data != nil {
				name = hexName(ref)
				kp, err = mls.UnmarshalKeyPackage(data)
				return err
			}
		}
		return chat.Errorf(chat.NotFound, "it was made for keys that this device no longer has")
	})
	return kp, name, err
}

// syncConversation takes every entry of a log that is new to this device, in order.
func (c *Client) syncConversation(ctx context.Context, id chat.ConversationID) error {
	resent := false
	for {
		conv, _, err := c.loadGroup(id)
		if err != nil || conv.Left {
			return err
		}
		if !conv.Founded {
			if err := c.foundAgain(ctx, conv); err != nil {
				return err
			}
		}
		page, err := c.server.Log(ctx, id, conv.Cursor, pageSize, 0)
		if err != nil {
			return err
		}
		if len(page.Entries) == 0 {
			again, err := c.resendOnce(ctx, id, &resent)
			if err != nil || !again {
				return err
			}
			continue
		}
		if last := page.Entries[len(page.Entries)-1]; last.Seq <= conv.Cursor {
			return chat.Errorf(chat.Tampered, "the server delivers entry %d of the conversation again and again", last.Seq)
		}
		for _, e := range page.Entries {
			if err := c.take(ctx, id, e); err != nil {
				return err
			}
		}
	}
}

// resendOnce sends a commit again whose answer was lost, at most once a sync, and says whether the log is worth another look.
func (c *Client) resendOnce(ctx context.Context, id chat.ConversationID, done *bool) (bool, error) {
	if *done {
		return false, nil
	}
	*done = true
	return c.resend(ctx, id)
}

// foundAgain tells the server of a conversation whose founding it may not have heard of.
func (c *Client) foundAgain(ctx context.Context, conv conversation) error {
	_, g, err := c.loadGroup(conv.ID)
	if err != nil {
		return err
	}
	info, err := g.GroupInfo()
	if err != nil {
		return err
	}
	if _, err := c.server.Found(ctx, api.NewConversation{GroupInfo: info}); err != nil && !chat.Is(err, chat.Exists) {
		return err
	}
	conv.Founded = true
	return c.state.Update(func(tx StateTx) error { return save(tx, bucketConversation, conv.ID.String(), conv) })
}

// outcome is what one entry changes. It is computed first and written in one transaction.
type outcome struct {
	conv      conversation
	group     *mls.Group
	items     []Item
	forget    []forget // messages that were deleted
	over      []over   // messages that are to disappear
	sent      string   // name in the outbox of the message that has arrived
	epochOver bool     // a pending commit of ours is merged or lost
	merged    bool     // it was ours
	evidence  []Evidence
	heard     []heard // checkpoints that others remember
}

// over is when something is to be forgotten (ms).
type over struct {
	at int64
	overdue
}

// forget names a message whose text is to be forgotten, and who says so.
type forget struct {
	id  chat.MessageID
	may func(Item) bool
}

// take judges one entry of the log and takes it over. The cursor moves with it, in one transaction: everything arrives once.
func (c *Client) take(ctx context.Context, id chat.ConversationID, e api.Entry) error {
	conv, g, err := c.loadGroup(id)
	if err != nil {
		return err
	}
	if e.Seq <= conv.Cursor {
		return nil
	}
	if e.Conversation != id || e.Seq != conv.Cursor+1 {
		return c.alarm(id, chat.Errorf(chat.Tampered, "the server left out entry %d of the conversation", conv.Cursor+1), nil)
	}
	if e.Epoch != g.Epoch() {
		return c.alarm(id, chat.Errorf(chat.Tampered, "the server says that entry %d is of epoch %d; it is of epoch %d", e.Seq, e.Epoch, g.Epoch()), e.Body)
	}
	conv.Cursor = e.Seq
	o := &outcome{conv: conv, group: g}
	if err := c.judge(ctx, o, e); err != nil {
		if k := chat.KindOf(err); k == chat.Unavailable || ctx.Err() != nil {
			return err
		}
		return c.alarm(id, chat.Wrap(chat.Tampered, err, "entry %d of the conversation is not valid", e.Seq), e.Body)
	}
	return c.write(o)
}

func (c *Client) judge(ctx context.Context, o *outcome, e api.Entry) error {
	switch {
	case e.Kind == api.KindCommit && !e.Tombstone:
		return c.takeCommit(ctx, o, e)
	case e.Kind == api.KindProposal && !e.Tombstone:
		return c.takeProposal(o, e)
	case e.Kind == api.KindMessage:
		return c.takeMessage(ctx, o, e)
	case e.Kind == api.KindPost:
		return c.takePost(o, e)
	case e.Kind == api.KindTakeBack && !e.Tombstone:
		return c.takeTakeBack(o, e)
	}
	return chat.Errorf(chat.Incompatible, "an entry of kind %d cannot be taken by this version", e.Kind)
}

func (c *Client) write(o *outcome) error {
	id := o.conv.ID.String()
	err := c.state.Update(func(tx StateTx) error {
		for _, f := range o.forget {
			if err := forgetItem(tx, o.conv.ID, f); err != nil {
				return err
			}
		}
		if err := putItems(tx, o.conv.ID, o.items); err != nil {
			return err
		}
		for _, x := range o.over {
			if err := saveOverdue(tx, x.at, x.overdue); err != nil {
				return err
			}
		}
		for _, e := range o.evidence {
			if err := c.keepEvidence(tx, o.conv.ID, e.Sentence, e.Data); err != nil {
				return err
			}
		}
		for _, h := range o.heard {
			if err := h.save(tx, o.conv.ID); err != nil {
				return err
			}
		}
		if o.sent != "" {
			if err := tx.Delete(bucketOutbox+id, o.sent); err != nil {
				return err
			}
		}
		if o.epochOver {
			if err := tx.Delete(bucketPending, id); err != nil {
				return err
			}
		}
		if o.conv.Left {
			if err := tx.Delete(bucketGroup, id); err != nil {
				return err
			}
			return save(tx, bucketConversation, id, o.conv)
		}
		return saveGroup(tx, o.conv, o.group)
	})
	if err == nil && o.merged {
		c.merged[o.conv.ID] = true
	}
	return err
}

// takeCommit ends an epoch: by our own pending commit if that is the one, or by somebody else's.
func (c *Client) takeCommit(ctx context.Context, o *outcome, e api.Entry) error {
	var mine pendingCommit
	var there bool
	err := c.state.View(func(tx StateTx) (err error) {
		there, err = load(tx, bucketPending, o.conv.ID.String(), &mine)
		return err
	})
	if err != nil {
		return err
	}
	o.epochOver = true
	if there && bytes.Equal(mine.Commit, e.Body) {
		p, err := mls.UnmarshalPending(mine.Pending, o.group)
		if err != nil {
			return err
		}
		o.merged = true
		return c.merge(ctx, o, e, p.Change(), p.Merge)
	}
	done, err := o.group.Process(e.Body, time.Time{})
	if err != nil {
		return err
	}
	if done.Commit == nil {
		return chat.Errorf(chat.Tampered, "the server passes something else off as a commit")
	}
	return c.merge(ctx, o, e, done.Commit.Change(), done.Commit.Merge)
}

// merge judges a commit by the rules of permission, takes it over, and checks what came with it.
func (c *Client) merge(ctx context.Context, o *outcome, e api.Entry, change *roster.Change, merge func() (*mls.Group, error)) error {
	v, err := grant.Judge(change, c.policy.trust)
	if err != nil {
		return err
	}
	for _, granted := range v.Added {
		if err := c.proveGrant(ctx, granted); err != nil {
			return err
		}
	}
	next, err := merge()
	if errors.Is(err, mls.ErrRemoved) {
		o.conv.Left = true
		o.items = append(o.items, c.event(e.Seq, e.At, EventLeft, "%s removed you from this conversation.", v.Committer.Handle))
		return nil
	}
	if err != nil {
		return err
	}
	o.group = next
	if v.After.Kind == grant.Shared {
		c.checkSlot(o, e, change.Committer)
	}
	// Whether a key is in its key chain is no matter of validity (chains change apart from the group), but nothing is sent to a stranger.
	if o.conv.Warned, err = c.strangers(ctx, next.Roster().Members()); err != nil {
		return err
	}
	c.tellChange(o, e, change, v)
	return nil
}

// proveGrant makes sure that the grant stands in the same ledger that this device remembers, and learns the partner's name.
func (c *Client) proveGrant(ctx context.Context, granted grant.Granted) error {
	a, err := grant.OpenAgreement(granted.Proof.Agreement, c.policy.trust.Operator)
	if err != nil {
		return err
	}
	if err := c.rememberPartner(a.Partner, a.Name); err != nil {
		return err
	}
	r, err := proof.ParseRecord(granted.Proof.Record)
	if err != nil {
		return err
	}
	_, _, err = c.prove(ctx, r.LeafHash(), 10)
	return err
}

// checkSlot compares the announced slot with our own derivation. A difference is somebody's lie: it is kept and told.
func (c *Client) checkSlot(o *outcome, e api.Entry, committer roster.Member) {
	_, own, err := slotOf(o.group)
	var a *slot.Announcement
	if err == nil {
		a, err = slot.OpenAnnouncement(e.Extra)
	}
	if err == nil && a.Conversation == o.conv.ID && a.Epoch == o.group.Epoch() && a.Key == own && bytes.Equal(a.Signer[:], committer.SignatureKey) {
		return
	}
	const sentence = "The letter slot that was announced for this thread is not the thread's own. Partner apps could be made to write to somebody else."
	o.items = append(o.items, c.event(e.Seq, e.At, EventAlarm, sentence))
	o.evidence = append(o.evidence, Evidence{Sentence: sentence, Data: e.Extra})
}

// strangers lists members whose key is in nobody's key chain, as sentences. Where the server does not answer, nothing is known: an error.
func (c *Client) strangers(ctx context.Context, members []roster.Member) (warned []string, err error) {
	for _, m := range members {
		err := c.checkMember(ctx, m)
		if chat.KindOf(err) == chat.Unavailable || ctx.Err() != nil {
			return nil, err
		}
		if err != nil {
			warned = append(warned, err.Error())
		}
	}
	return warned, nil
}

// takeProposal remembers a proposal, so that a commit may refer to it. One that is not allowed is not remembered: no commit of ours takes
// it up, and one of others that does is refused.
func (c *Client) takeProposal(o *outcome, e api.Entry) error {
	done, err := o.group.Process(e.Body, time.Time{})
	if err != nil || done.Proposal == nil {
		c.doubt(o, e, "Something was proposed for this conversation that cannot be read: nobody may propose it, or it was altered on its way. It was refused.")
		return nil
	}
	if err := grant.CheckProposal(o.group.Roster(), *done.Proposal); err != nil {
		c.doubt(o, e, "Somebody tried to change who is in this conversation, and was refused: %v.", err)
		return nil
	}
	o.group = done.Group
	return nil
}

// reconcile makes the group's devices those of its people's key chains.
func (c *Client) reconcile(ctx context.Context, id chat.ConversationID, g *roster.Group) error {
	people := peopleOf(g)
	missing := []string{}
	for _, handle := range people {
		chain, err := c.chainOf(ctx, handle)
		if err != nil {
			return err
		}
		for _, d := range chain.Devices() {
			if _, in := g.MemberByIdentity([]byte(chat.DeviceURI(c.self.Host, handle, d.ID))); !in {
				missing = append(missing, handle)
				break
			}
		}
	}
	if err := c.commit(ctx, id, c.dropRemovedDevices); err != nil {
		return err
	}
	if len(missing) == 0 {
		return nil
	}
	return c.addPeople(ctx, id, missing...)
}

// dropRemovedDevices removes the leaves whose device has left its key chain.
func (c *Client) dropRemovedDevices(g *mls.Group, _ grant.Thread) (*change, error) {
	var gone []uint32
	for _, m := range g.Roster().Members() {
		id, err := chat.ParseIdentity(m.Identity)
		if err != nil || id.IsAgent() || m.Leaf == g.OwnLeaf() {
			continue
		}
		account, err := c.knownHandle(id.Handle)
		if err != nil {
			return nil, err
		}
		_, chain, err := c.knownChain(account)
		if err != nil {
			return nil, err
		}
		if chain == nil {
			continue
		}
		if !inChain(chain, id, m) {
			gone = append(gone, m.Leaf)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return &change{remove: gone}, nil
}

// digest names what was sent: the log of a deleted message holds it in the message's place.
func digest(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

func others(handles []string, own string) []string {
	return slices.DeleteFunc(slices.Clone(handles), func(h string) bool { return h == own })
}
