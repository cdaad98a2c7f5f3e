package mls

import (
	"bytes"

	"letterlock/mls/roster"
)

// MaxPlaintext bounds what Seal takes, in bytes.
const MaxPlaintext = 1 << 20

// Application is an opened application message.
type Application struct {
	Sender            roster.Member
	Plaintext         []byte
	AuthenticatedData []byte
	Generation        uint32 // counts the sender's messages in this epoch
}

// Seal encrypts and signs an application message for the members of this epoch. aad is readable to everybody and covered by
// the signature. The ratchet moves: store the group before the message leaves.
func (g *Group) Seal(plaintext, aad []byte) (msg []byte, generation uint32, err error) {
	if err := g.alive(); err != nil {
		return nil, 0, err
	}
	if g.mustCommit {
		return nil, 0, ErrMustCommit
	}
	if len(plaintext) > MaxPlaintext || len(aad) > MaxPlaintext {
		return nil, 0, invalid("message above %d bytes", MaxPlaintext)
	}
	a := g.content(roster.WirePrivateMessage, roster.ContentApplication, aad)
	a.Content.Application = plaintext
	if err := a.Sign(g.suite.Suite, g.signer, g.public.Context()); err != nil {
		return nil, 0, err
	}
	k, err := g.epoch.tree.of(g.own).application.take(g.suite)
	if err != nil {
		return nil, 0, err
	}
	defer k.wipe()
	m, err := g.suite.sealContent(a, g.epoch.senderData, k, nil)
	if err != nil {
		return nil, 0, err
	}
	return roster.Marshal(&roster.Message{WireFormat: roster.WirePrivateMessage, Private: m}), k.generation, nil
}

// content is framed content from us in this epoch.
func (g *Group) content(format roster.WireFormat, typ roster.ContentType, aad []byte) *roster.AuthenticatedContent {
	return &roster.AuthenticatedContent{WireFormat: format, Content: roster.Content{
		GroupID: g.ID(), Epoch: g.Epoch(), Sender: roster.Sender{Type: roster.SenderMember, Index: g.own},
		AuthenticatedData: bytes.Clone(aad), Type: typ,
	}}
}

// Open opens an application message of this epoch, once.
func (g *Group) Open(msg []byte) (*Application, error) {
	m, err := roster.DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != roster.WirePrivateMessage || m.Private.ContentType != roster.ContentApplication {
		return nil, invalid("not an application message")
	}
	return g.openApplication(m.Private)
}

func (g *Group) openApplication(m *roster.PrivateMessage) (*Application, error) {
	a, generation, err := g.openPrivate(m)
	if err != nil {
		return nil, err
	}
	sender, _ := g.public.Member(a.Content.Sender.Index)
	return &Application{sender, a.Content.Application, a.Content.AuthenticatedData, generation}, nil
}

// openPrivate decrypts a PrivateMessage and verifies its signature; only then the sender's ratchet moves.
func (g *Group) openPrivate(m *roster.PrivateMessage) (*roster.AuthenticatedContent, uint32, error) {
	if err := g.alive(); err != nil {
		return nil, 0, err
	}
	if err := g.public.CheckFrame(m.GroupID, m.Epoch); err != nil {
		return nil, 0, err
	}
	d, err := g.suite.openSenderData(g.epoch.senderData, m)
	if err != nil {
		return nil, 0, err
	}
	if d.leaf == g.own {
		return nil, 0, ErrOwnMessage
	}
	if g.public.Tree().Leaf(d.leaf) == nil {
		return nil, 0, invalid("sender at blank leaf %d", d.leaf)
	}
	r := &g.epoch.tree.of(d.leaf).handshake
	if m.ContentType == roster.ContentApplication {
		r = &g.epoch.tree.of(d.leaf).application
	}
	k, advance, err := r.at(g.suite, d.generation)
	if err != nil {
		return nil, 0, err
	}
	a, err := g.suite.openContent(m, d, k)
	if err != nil {
		return nil, 0, err
	}
	if err := g.public.VerifyContent(a); err != nil {
		return nil, 0, err
	}
	advance()
	return a, d.generation, nil
}

// publish signs content and tags it as a PublicMessage.
func (g *Group) publish(a *roster.AuthenticatedContent) []byte {
	tag := g.suite.membershipTag(g.epoch.membership, a, g.public.Context())
	return roster.Marshal(&roster.Message{WireFormat: roster.WirePublicMessage, Public: &roster.PublicMessage{
		AuthenticatedContent: *a, MembershipTag: tag,
	}})
}

// ProposeRemove asks the others to remove a leaf, or ourselves. It returns the PublicMessage and the group that remembers it.
func (g *Group) ProposeRemove(leaf uint32, aad []byte) (msg []byte, next *Group, err error) {
	return g.propose(&roster.Proposal{Type: roster.ProposalRemove, Remove: leaf}, aad)
}

// ProposeUpdate asks the others to take a fresh key into our leaf. It returns the PublicMessage and the group that remembers
// it and the new private key: store that group before the message leaves.
func (g *Group) ProposeUpdate(aad []byte) (msg []byte, next *Group, err error) {
	if err := g.alive(); err != nil {
		return nil, nil, err
	}
	pair, err := g.suite.newKeyPair(nil)
	if err != nil {
		return nil, nil, err
	}
	leaf := *g.public.Tree().Leaf(g.own)
	leaf.Source, leaf.NotBefore, leaf.NotAfter, leaf.ParentHash = roster.LeafUpdate, 0, 0, nil
	leaf.EncryptionKey = pair.public
	if err := leaf.Sign(g.suite.Suite, g.signer, g.ID(), g.own); err != nil {
		return nil, nil, err
	}
	msg, next, err = g.propose(&roster.Proposal{Type: roster.ProposalUpdate, Update: &leaf}, aad)
	if err == nil {
		g.epoch.keys.add(pair)
	}
	return msg, next, err
}

func (g *Group) propose(p *roster.Proposal, aad []byte) ([]byte, *Group, error) {
	if err := g.alive(); err != nil {
		return nil, nil, err
	}
	a := g.content(roster.WirePublicMessage, roster.ContentProposal, aad)
	a.Content.Proposal = p
	if err := a.Sign(g.suite.Suite, g.signer, g.public.Context()); err != nil {
		return nil, nil, err
	}
	public, _, err := g.public.StageProposalContent(a, noClock)
	if err != nil {
		return nil, nil, err
	}
	next := *g
	next.public = public
	return g.publish(a), &next, nil
}
