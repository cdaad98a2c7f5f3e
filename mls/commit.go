package mls

import (
	"bytes"
	"io"
	"slices"
	"time"

	"letterlock/mls/roster"
)

// noClock skips lifetimes: what is judged was ordered by the server already, and all must judge it alike.
var noClock time.Time

// CommitOptions say what a commit of ours does. The zero value renews our own keys and takes up what is pending.
type CommitOptions struct {
	Add               [][]byte           // MLSMessages with KeyPackages
	Remove            []uint32           // leaves
	Extensions        *roster.Extensions // replaces the GroupContext's extensions; nil: they stay
	IgnorePending     bool               // leave the pending proposals out
	NoPath            bool               // do not renew our keys where the RFC lets us
	AuthenticatedData []byte
	Now               time.Time // for lifetimes of KeyPackages
	Rand              io.Reader // nil: crypto/rand
}

// Pending is a commit of ours that was not ordered yet. The group it was made in is as it was; exactly one of Merge and
// Discard ends the Pending. Store it before the commit leaves: a crash must not lose the new epoch.
type Pending struct {
	Commit  []byte // MLSMessage, a PublicMessage
	Welcome []byte // MLSMessage for those added, nil if there are none

	group  *Group // that it was made in
	next   *Group
	change *roster.Change
}

// Change is what the commit does.
func (p *Pending) Change() *roster.Change { return p.change }

// Next is the group of the new epoch, for deriving from it what must be sent with the commit. It must not seal before Merge.
func (p *Pending) Next() *Group { return p.next }

// Merge takes the new epoch into use, once the server has ordered the commit, and forgets the old one's secrets.
func (p *Pending) Merge() (*Group, error) {
	if err := p.group.alive(); err != nil {
		return nil, err
	}
	if err := p.next.alive(); err != nil {
		return nil, err
	}
	p.group.epoch.end()
	return p.next, nil
}

// Discard forgets the new epoch, because another commit won.
func (p *Pending) Discard() { p.next.epoch.end() }

// Commit prepares a commit. By default it takes up all pending proposals that fit: not our own Updates, not the removal of
// ourselves, and of several for one leaf only one, a Remove before an Update, the newest first.
func (g *Group) Commit(o CommitOptions) (*Pending, error) {
	if err := g.alive(); err != nil {
		return nil, err
	}
	list, err := g.proposals(o)
	if err != nil {
		return nil, err
	}
	step, err := g.public.BeginOwn(g.own, list, o.AuthenticatedData, o.Now)
	if err != nil {
		return nil, err
	}
	a := g.content(roster.WirePublicMessage, roster.ContentCommit, o.AuthenticatedData)
	a.Content.Commit = &roster.Commit{Proposals: list}
	keys := g.epoch.keys.clone()
	path := &newPath{commit: make(secret, g.suite.HashSize)}
	if step.PathRequired() || !o.NoPath {
		if path, err = g.suite.makePath(step, g.ID(), g.signer, o.Rand); err != nil {
			return nil, err
		}
		for public, private := range path.keys {
			keys[public] = private
		}
		a.Content.Commit.Path = path.update
	} else if err := step.Check(); err != nil {
		return nil, err
	}
	defer path.wipe()
	return g.finishCommit(a, step, path, keys)
}

// finishCommit signs the commit and sets up the epoch after it.
func (g *Group) finishCommit(a *roster.AuthenticatedContent, step *roster.Step, path *newPath, keys keyring) (*Pending, error) {
	if err := a.Sign(g.suite.Suite, g.signer, g.public.Context()); err != nil {
		return nil, err
	}
	context := step.Confirm(a)
	noPSK := make(secret, g.suite.HashSize)
	k := g.suite.scheduleFrom(g.suite.joinerSecret(g.epoch.init, path.commit, context), noPSK, context)
	defer k.wipe()
	a.ConfirmationTag = g.suite.mac(k.confirmation, step.ConfirmedHash())

	p := &Pending{group: g, change: step.Finish(a.ConfirmationTag)}
	p.next = newGroup(g.suite, p.change.Next(), g.own, g.signer, k, keys)
	p.next.mustCommit = g.mustCommit && path.update == nil
	p.Commit = g.publish(a)
	if len(step.Added) > 0 {
		welcome, err := p.next.welcome(p.change, path, k)
		if err != nil {
			return nil, err
		}
		p.Welcome = welcome
	}
	return p, nil
}

// proposals is the commit's list: what is pending and fits, by reference, then ours by value.
func (g *Group) proposals(o CommitOptions) ([]roster.ProposalOrRef, error) {
	own, err := ownProposals(o)
	if err != nil || o.IgnorePending || len(g.public.Pending()) == 0 {
		return own, err
	}
	var taken []roster.ProposalOrRef
	for _, p := range byUrgency(g.public.Pending()) {
		if p.Proposal.Type == roster.ProposalPSK {
			continue
		}
		rest := own
		if p.Proposal.Type == roster.ProposalRemove { // takes the place of our own wish for the same
			rest = slices.DeleteFunc(slices.Clone(own), func(q roster.ProposalOrRef) bool {
				return q.Proposal.Type == roster.ProposalRemove && q.Proposal.Remove == p.Proposal.Remove
			})
		}
		with := append(slices.Clip(taken), roster.ProposalOrRef{Ref: p.Ref})
		if g.fit(append(slices.Clip(with), rest...), o) {
			taken, own = with, rest
		}
	}
	return append(taken, own...), nil
}

// fit tells whether a list can be committed.
func (g *Group) fit(list []roster.ProposalOrRef, o CommitOptions) bool {
	step, err := g.public.BeginOwn(g.own, list, o.AuthenticatedData, o.Now)
	return err == nil && step.CheckMembers() == nil
}

// byUrgency puts Removes first, and otherwise the newest.
func byUrgency(list []roster.ProposalInfo) []roster.ProposalInfo {
	slices.Reverse(list)
	slices.SortStableFunc(list, func(a, b roster.ProposalInfo) int {
		return boolOrder(a.Proposal.Type == roster.ProposalRemove, b.Proposal.Type == roster.ProposalRemove)
	})
	return list
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// ownProposals is what the options ask for, by value.
func ownProposals(o CommitOptions) (list []roster.ProposalOrRef, err error) {
	if o.Extensions != nil {
		list = append(list, roster.ProposalOrRef{Proposal: &roster.Proposal{
			Type: roster.ProposalGroupContextExtensions, Extensions: *o.Extensions,
		}})
	}
	for _, leaf := range o.Remove {
		list = append(list, roster.ProposalOrRef{Proposal: &roster.Proposal{Type: roster.ProposalRemove, Remove: leaf}})
	}
	if len(o.Add) > 0 && o.Now.IsZero() {
		return nil, invalid("add without a clock")
	}
	for _, b := range o.Add {
		m, err := roster.DecodeMessage(b)
		if err != nil {
			return nil, err
		}
		if m.WireFormat != roster.WireKeyPackage {
			return nil, invalid("wire format %d is no key package", m.WireFormat)
		}
		list = append(list, roster.ProposalOrRef{Proposal: &roster.Proposal{Type: roster.ProposalAdd, Add: m.KeyPackage}})
	}
	return list, nil
}

// pendingVersion is the first byte of a stored Pending.
const pendingVersion = 1

// MarshalBinary is the pending commit with the secrets of the new epoch, for storage in encrypted state.
func (p *Pending) MarshalBinary() ([]byte, error) {
	next, err := p.next.MarshalBinary()
	if err != nil {
		return nil, err
	}
	var w roster.Writer
	w.Uint8(pendingVersion)
	w.Opaque(p.Commit)
	w.Opaque(p.Welcome)
	w.Opaque(next)
	return w.Bytes(), nil
}

// UnmarshalPending reads what MarshalBinary wrote; g is the group that the commit was made in.
func UnmarshalPending(b []byte, g *Group) (*Pending, error) {
	r := roster.NewReader(bytes.Clone(b))
	if v := r.Uint8(); r.Err() == nil && v != pendingVersion {
		return nil, unsupported("pending version %d", v)
	}
	p := &Pending{group: g, Commit: r.Opaque(), Welcome: r.Opaque()}
	next := r.Opaque()
	err := r.Done()
	if err != nil {
		return nil, err
	}
	if len(p.Welcome) == 0 {
		p.Welcome = nil
	}
	if p.change, err = g.public.Stage(p.Commit, noClock); err != nil {
		return nil, err
	}
	if p.next, err = UnmarshalGroup(next, g.signer); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.next.public.Context(), p.change.Next().Context()) {
		return nil, invalid("pending commit of another group")
	}
	return p, nil
}
