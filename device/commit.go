package device

import (
	"context"
	"crypto/rand"
	"errors"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/slot"
)

// commitTries bounds how often a commit is made again because somebody else ended the epoch first.
const commitTries = 10

// change is what a commit shall do. The zero change renews the device's own keys.
type change struct {
	add     [][]byte // KeyPackages
	remove  []uint32
	thread  *grant.Thread // the new extension, if it changes
	proofs  []byte        // authenticated_data
	control [][]byte      // revocations and narrowings that go with it
}

// commit makes a change. plan is asked anew for each epoch that it is tried in; a nil change means that there is nothing left to do. When
// commit returns nil, the change is in the log and merged.
func (c *Client) commit(ctx context.Context, id chat.ConversationID, plan func(*mls.Group, grant.Thread) (*change, error)) error {
	for range commitTries {
		if err := c.syncConversation(ctx, id); err != nil {
			return err
		}
		_, g, err := c.loadGroup(id)
		if err != nil {
			return err
		}
		t, err := grant.ThreadOf(g.Roster())
		if err != nil {
			return err
		}
		ch, err := plan(g, t)
		if ch == nil || err != nil {
			return err
		}
		done, err := c.tryCommit(ctx, id, g, t, ch)
		if done || err != nil {
			return err
		}
	}
	return chat.Errorf(chat.Unavailable, "the conversation is too busy: others keep changing it; try again")
}

// tryCommit sends one commit. It reports false if somebody else's came first.
func (c *Client) tryCommit(ctx context.Context, id chat.ConversationID, g *mls.Group, t grant.Thread, ch *change) (bool, error) {
	p, bundle, err := c.buildCommit(id, g, t, ch)
	if err != nil {
		return false, err
	}
	pending, err := p.MarshalBinary()
	if err != nil {
		return false, err
	}
	err = c.state.Update(func(tx StateTx) error {
		return save(tx, bucketPending, id.String(), pendingCommit{
			Pending: pending, Commit: bundle.Commit, Welcome: bundle.Welcome, Slot: bundle.Slot, Control: bundle.Revocations, Dedup: bundle.DedupKey,
		})
	})
	if err != nil {
		return false, err
	}
	_, err = c.server.Commit(ctx, id, bundle)
	switch {
	case err == nil, chat.Is(err, chat.StaleEpoch):
		// Whoever won, the log says so; the pending commit is merged or discarded there.
		delete(c.merged, id)
		if err := c.syncConversation(ctx, id); err != nil {
			return false, err
		}
		return c.merged[id], nil
	case chat.KindOf(err) == chat.Unavailable || chat.KindOf(err) == chat.Internal:
		return false, err // perhaps it arrived: the next sync finds out, and sends it again if not
	}
	return false, errors.Join(err, c.dropPending(id))
}

// buildCommit makes the commit and everything that travels with it, and judges it as others will.
func (c *Client) buildCommit(id chat.ConversationID, g *mls.Group, t grant.Thread, ch *change) (*mls.Pending, api.Commit, error) {
	var b api.Commit
	o := mls.CommitOptions{Add: ch.add, Remove: ch.remove, AuthenticatedData: ch.proofs, Now: c.now(), Rand: c.rand}
	if ch.thread != nil {
		x := withThread(g.Roster().Extensions(), *ch.thread)
		o.Extensions = &x
	}
	p, err := g.Commit(o)
	if err != nil {
		return nil, b, err
	}
	if _, err := grant.Judge(p.Change(), c.policy.trust); err != nil {
		return nil, b, err
	}
	b = api.Commit{Commit: p.Commit, Welcome: p.Welcome, Revocations: ch.control, DedupKey: dedupKey()}
	if t.Kind == grant.Shared {
		_, public, err := slotOf(p.Next())
		if err != nil {
			return nil, b, err
		}
		if b.Slot, err = slot.Announce(id, p.Next().Epoch(), public, c.ms(), c.key.Private()); err != nil {
			return nil, b, err
		}
	}
	return p, b, nil
}

// slotOf derives the slot of the group's epoch.
func slotOf(g *mls.Group) (slot.PrivateKey, slot.PublicKey, error) {
	secret, err := g.Export(slot.Label, g.Roster().ConfirmedTranscriptHash(), slot.Length)
	if err != nil {
		return slot.PrivateKey{}, slot.PublicKey{}, err
	}
	return slot.Derive(secret)
}

func (c *Client) dropPending(id chat.ConversationID) error {
	return c.state.Update(func(tx StateTx) error { return tx.Delete(bucketPending, id.String()) })
}

// resend sends a pending commit again whose answer was lost, and says whether the log may now tell what became of it.
func (c *Client) resend(ctx context.Context, id chat.ConversationID) (bool, error) {
	var p pendingCommit
	var there bool
	err := c.state.View(func(tx StateTx) (err error) {
		there, err = load(tx, bucketPending, id.String(), &p)
		return err
	})
	if err != nil || !there {
		return false, err
	}
	_, err = c.server.Commit(ctx, id, api.Commit{Commit: p.Commit, Welcome: p.Welcome, Slot: p.Slot, Revocations: p.Control, DedupKey: p.Dedup})
	if err != nil && !chat.Is(err, chat.StaleEpoch) {
		if k := chat.KindOf(err); k == chat.Unavailable || k == chat.Internal {
			return false, err
		}
		return false, c.dropPending(id)
	}
	return true, nil
}

// loadGroup reads a conversation and its group.
func (c *Client) loadGroup(id chat.ConversationID) (conv conversation, g *mls.Group, err error) {
	err = c.state.View(func(tx StateTx) error {
		known, err := load(tx, bucketConversation, id.String(), &conv)
		if err != nil {
			return err
		}
		if !known {
			return chat.Errorf(chat.NotFound, "this device knows no conversation %s", id)
		}
		data, err := tx.Get(bucketGroup, id.String())
		if err != nil {
			return err
		}
		if data == nil {
			return chat.Errorf(chat.Internal, "the keys of conversation %s are lost on this device", id)
		}
		g, err = mls.UnmarshalGroup(data, c.key.Private())
		return err
	})
	if err == nil && conv.Broken != "" {
		err = chat.Errorf(chat.Tampered, "this conversation was stopped: %s", conv.Broken)
	}
	return conv, g, err
}

// saveGroup writes a conversation and its group.
func saveGroup(tx StateTx, conv conversation, g *mls.Group) error {
	data, err := g.MarshalBinary()
	if err != nil {
		return err
	}
	if err := tx.Put(bucketGroup, conv.ID.String(), data); err != nil {
		return err
	}
	return save(tx, bucketConversation, conv.ID.String(), conv)
}

func dedupKey() []byte {
	b := make([]byte, 16)
	rand.Read(b)
	return b
}

// finishRemovals commits what was proposed: removals of agents, whose entries go with them, and of devices that left their key chain. A conversation
// that waits for one takes nothing else.
func (c *Client) finishRemovals(ctx context.Context, id chat.ConversationID) error {
	return c.commit(ctx, id, func(g *mls.Group, t grant.Thread) (*change, error) {
		due, entries := false, len(t.Grants)
		for _, p := range g.Roster().Pending() {
			m, ok := g.Roster().Member(p.Proposal.Remove)
			if p.Proposal.Type != roster.ProposalRemove || !ok || m.Leaf == g.OwnLeaf() {
				continue
			}
			due = true
			if who, err := chat.ParseIdentity(m.Identity); err == nil && who.IsAgent() {
				t = t.Without(who.Grant)
			}
		}
		switch {
		case !due:
			return nil, nil
		case len(t.Grants) < entries:
			return &change{thread: &t}, nil
		}
		return &change{}, nil
	})
}
