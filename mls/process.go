package mls

import (
	"time"

	"letterlock/mls/roster"
)

// Processed is what a message was; exactly one field but Group is set.
type Processed struct {
	Commit      *Staged
	Proposal    *roster.ProposalInfo
	Group       *Group // with Proposal: the group that remembers it, to be used from here on
	Application *Application
}

// ProcessOptions say what else to accept.
type ProcessOptions struct {
	Now               time.Time // zero: lifetimes of KeyPackages are not judged
	PSK               PSKSource
	PrivateHandshakes bool // accept proposals and commits as PrivateMessage
}

// Process takes a message that another sent in this epoch: a commit or proposal as PublicMessage, or an application message.
// Tags and signatures are checked before anything else is done with it. Devices give a zero now: what the server ordered is
// judged without a clock, so that all judge alike.
func (g *Group) Process(msg []byte, now time.Time) (*Processed, error) {
	return g.ProcessWith(msg, ProcessOptions{Now: now})
}

// ProcessWith is Process with options.
func (g *Group) ProcessWith(msg []byte, o ProcessOptions) (*Processed, error) {
	m, err := roster.DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	switch m.WireFormat {
	case roster.WirePublicMessage:
		if err := g.openPublic(m.Public); err != nil {
			return nil, err
		}
		return g.processHandshake(&m.Public.AuthenticatedContent, o)
	case roster.WirePrivateMessage:
		if m.Private.ContentType == roster.ContentApplication {
			a, err := g.openApplication(m.Private)
			return &Processed{Application: a}, err
		}
		if !o.PrivateHandshakes {
			return nil, unsupported("handshake as a private message")
		}
		a, _, err := g.openPrivate(m.Private)
		if err != nil {
			return nil, err
		}
		return g.processHandshake(a, o)
	}
	return nil, invalid("wire format %d is not framed", m.WireFormat)
}

// openPublic checks a PublicMessage's frame, membership tag and signature (RFC 9420, section 6.2).
func (g *Group) openPublic(m *roster.PublicMessage) error {
	if err := g.alive(); err != nil {
		return err
	}
	if err := g.public.CheckFrame(m.Content.GroupID, m.Content.Epoch); err != nil {
		return err
	}
	if m.Content.Type == roster.ContentApplication {
		return invalid("application data as a public message")
	}
	if m.Content.Sender.Type == roster.SenderMember {
		input := membershipInput(&m.AuthenticatedContent, g.public.Context())
		if err := g.suite.checkMAC(g.epoch.membership, input, m.MembershipTag); err != nil {
			return err
		}
		if m.Content.Sender.Index == g.own {
			return ErrOwnMessage
		}
	}
	return g.public.VerifyContent(&m.AuthenticatedContent)
}

// processHandshake takes authenticated content further.
func (g *Group) processHandshake(a *roster.AuthenticatedContent, o ProcessOptions) (*Processed, error) {
	if a.Content.Type == roster.ContentCommit {
		staged, err := g.stage(a, o)
		if err != nil {
			return nil, err
		}
		return &Processed{Commit: staged}, nil
	}
	public, info, err := g.public.StageProposalContent(a, o.Now)
	if err != nil {
		return nil, err
	}
	next := *g
	next.public = public
	return &Processed{Proposal: info, Group: &next}, nil
}

// Staged is another's commit, verified to the last tag and not yet taken over. The group is as it was.
type Staged struct {
	group  *Group
	next   *Group // nil: we are removed
	change *roster.Change
}

// Change is what the commit does.
func (s *Staged) Change() *roster.Change { return s.change }

// Next is the group of the new epoch, nil if the commit removes us. It must not seal before Merge.
func (s *Staged) Next() *Group { return s.next }

// Removed tells that the commit removes us. We cannot verify such a commit's confirmation tag; its membership tag and
// signature we did.
func (s *Staged) Removed() bool { return s.next == nil }

// Merge takes the new epoch into use and forgets the old one's secrets. Where the commit removes us, these are forgotten and
// the error is ErrRemoved.
func (s *Staged) Merge() (*Group, error) {
	if err := s.group.alive(); err != nil {
		return nil, err
	}
	if s.next == nil {
		s.group.epoch.end()
		return nil, ErrRemoved
	}
	if err := s.next.alive(); err != nil {
		return nil, err
	}
	s.group.epoch.end()
	return s.next, nil
}

// Discard forgets the new epoch.
func (s *Staged) Discard() {
	if s.next != nil {
		s.next.epoch.end()
	}
}

// stage applies an authenticated commit beside the group: public tree, path secret, key schedule, confirmation tag.
func (g *Group) stage(a *roster.AuthenticatedContent, o ProcessOptions) (*Staged, error) {
	step, err := g.public.Begin(a, o.Now)
	if err != nil {
		return nil, err
	}
	if removes(step, g.own) {
		step.Confirm(a)
		return &Staged{group: g, change: step.Finish(a.ConfirmationTag)}, nil
	}
	keys := g.epoch.keys.clone()
	commit := make(secret, g.suite.HashSize)
	if path := a.Content.Commit.Path; path != nil {
		if commit, err = g.suite.openPath(step, path, g.own, keys); err != nil {
			keys.wipe()
			return nil, err
		}
	}
	defer commit.wipe()
	psk, err := g.suite.pskSecret(proposedPSKs(step.Proposals), o.PSK)
	if err != nil {
		keys.wipe()
		return nil, err
	}
	context := step.Confirm(a)
	k := g.suite.scheduleFrom(g.suite.joinerSecret(g.epoch.init, commit, context), psk, context)
	defer k.wipe()
	if err := g.suite.checkMAC(k.confirmation, step.ConfirmedHash(), a.ConfirmationTag); err != nil {
		keys.wipe()
		return nil, err
	}
	change := step.Finish(a.ConfirmationTag)
	next := newGroup(g.suite, change.Next(), g.own, g.signer, k, keys)
	next.mustCommit = g.mustCommit
	return &Staged{group: g, next: next, change: change}, nil
}

func removes(step *roster.Step, leaf uint32) bool {
	for _, p := range step.Proposals {
		if p.Proposal.Type == roster.ProposalRemove && p.Proposal.Remove == leaf {
			return true
		}
	}
	return false
}
