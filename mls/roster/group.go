package roster

import (
	"bytes"
	"time"
)

// Group is the public state of one epoch. It is immutable: proposals and commits make another one.
type Group struct {
	suite   *Suite
	context GroupContext
	encoded []byte // context
	tree    *Tree
	tag     []byte // the epoch's confirmation tag
	interim []byte // the epoch's interim transcript hash
	pending []pending
}

// pending is a proposal that was sent in this epoch and may be referred to by its commit.
type pending struct {
	ref     []byte
	content *AuthenticatedContent
}

func (p pending) info() ProposalInfo {
	c := &p.content.Content
	return ProposalInfo{Ref: p.ref, Sender: c.Sender, AuthenticatedData: c.AuthenticatedData, Proposal: c.Proposal}
}

// Member is one leaf that is not blank. Its slices belong to the group and must not be written to.
type Member struct {
	Leaf          uint32
	Identity      []byte
	SignatureKey  []byte // Ed25519
	EncryptionKey []byte
	Capabilities  Capabilities
	Extensions    Extensions
}

func member(leaf uint32, l *LeafNode) Member {
	return Member{leaf, l.Credential.Identity, l.SignatureKey, l.EncryptionKey, l.Capabilities, l.Extensions}
}

// Open reads an MLSMessage that carries a GroupInfo with its ratchet tree, and verifies all of it that needs no secret:
// the tree against its hash, every leaf and parent hash, what all members must support, and the signature. It opens any
// epoch; that it is the right one is for the caller to know. A zero now skips the lifetimes of leaves.
func Open(groupInfo []byte, now time.Time) (*Group, error) {
	m, err := DecodeMessage(groupInfo)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != WireGroupInfo {
		return nil, malformed("wire format %d is no group info", m.WireFormat)
	}
	return OpenGroupInfo(m.GroupInfo, nil, now)
}

// OpenGroupInfo is Open for a decoded GroupInfo. tree is the encoded tree where it travels apart; nil: it is in the
// GroupInfo's ratchet_tree extension.
func OpenGroupInfo(info *GroupInfo, tree []byte, now time.Time) (*Group, error) {
	s, err := SuiteByID(info.Context.Suite)
	if err != nil {
		return nil, err
	}
	if err := info.Extensions.checkDistinct(); err != nil {
		return nil, err
	}
	if err := checkContextExtensions(info.Context.Extensions); err != nil {
		return nil, err
	}
	if tree == nil {
		tree, _ = info.Extensions.Lookup(ExtRatchetTree)
	}
	t, err := openTree(s, tree, info.Context.TreeHash)
	if err != nil {
		return nil, err
	}
	if err := t.check(info.Context.GroupID, info.Context.Extensions, now); err != nil {
		return nil, err
	}
	signer := t.Leaf(info.Signer)
	if signer == nil {
		return nil, invalid("group info signed by blank leaf %d", info.Signer)
	}
	if err := info.Verify(s, signer.SignatureKey); err != nil {
		return nil, err
	}
	return newGroup(s, info.Context, t, info.ConfirmationTag), nil
}

// openTree decodes a tree that is safe to walk and has the right hash. Its signatures are not checked.
func openTree(s *Suite, b, hash []byte) (*Tree, error) {
	r := NewReader(b)
	t := DecodeTree(s, r)
	if err := r.Done(); err != nil {
		return nil, err
	}
	if !equal(t.Hash(), hash) {
		return nil, invalid("tree hash")
	}
	return t, t.checkUnmerged()
}

func newGroup(s *Suite, context GroupContext, t *Tree, tag []byte) *Group {
	return &Group{
		suite: s, context: context, encoded: Marshal(&context), tree: t, tag: tag,
		interim: InterimHash(s, context.ConfirmedHash, tag),
	}
}

// TrustedGroup is the group of a context and a tree that the caller made itself or checked before: nothing is verified.
func TrustedGroup(s *Suite, context GroupContext, t *Tree, tag []byte) *Group {
	return newGroup(s, context, t, tag)
}

// NewGroup is epoch 0 with its only member (RFC 9420, section 11). tag is the confirmation tag over the empty confirmed
// transcript hash.
func NewGroup(s *Suite, groupID []byte, leaf *LeafNode, extensions Extensions, tag []byte) (*Group, error) {
	if err := checkContextExtensions(extensions); err != nil {
		return nil, err
	}
	t := NewTree(s, leaf)
	if err := t.check(groupID, extensions, time.Time{}); err != nil {
		return nil, err
	}
	context := GroupContext{Suite: s.ID, GroupID: bytes.Clone(groupID), TreeHash: t.Hash(), Extensions: extensions}
	return newGroup(s, context, t, tag), nil
}

// Suite is the group's row.
func (g *Group) Suite() *Suite { return g.suite }

// ID is the group's identifier.
func (g *Group) ID() []byte { return g.context.GroupID }

// Epoch is the number of commits so far.
func (g *Group) Epoch() uint64 { return g.context.Epoch }

// Context is the encoded GroupContext of this epoch. It must not be written to.
func (g *Group) Context() []byte { return g.encoded }

// TreeHash is the hash of the ratchet tree.
func (g *Group) TreeHash() []byte { return g.context.TreeHash }

// ConfirmedTranscriptHash covers all commits so far.
func (g *Group) ConfirmedTranscriptHash() []byte { return g.context.ConfirmedHash }

// ConfirmationTag is the tag of the commit that began this epoch; without secrets it can only be repeated.
func (g *Group) ConfirmationTag() []byte { return g.tag }

// Extensions is the GroupContext's extensions.
func (g *Group) Extensions() Extensions { return g.context.Extensions }

// Extension is the GroupContext's extension of one type.
func (g *Group) Extension(typ uint16) ([]byte, bool) { return g.context.Extensions.Lookup(typ) }

// Tree is the ratchet tree, which must not be changed.
func (g *Group) Tree() *Tree { return g.tree }

// Members is everybody, by rising leaf.
func (g *Group) Members() []Member {
	var members []Member
	for leaf := range g.tree.Width() {
		if l := g.tree.Leaf(leaf); l != nil {
			members = append(members, member(leaf, l))
		}
	}
	return members
}

// Member is the member at a leaf.
func (g *Group) Member(leaf uint32) (Member, bool) {
	l := g.tree.Leaf(leaf)
	if l == nil {
		return Member{}, false
	}
	return member(leaf, l), true
}

// MemberByIdentity is the member of that identity; there is at most one.
func (g *Group) MemberByIdentity(identity []byte) (Member, bool) {
	for leaf := range g.tree.Width() {
		if l := g.tree.Leaf(leaf); l != nil && bytes.Equal(l.Credential.Identity, identity) {
			return member(leaf, l), true
		}
	}
	return Member{}, false
}

// Pending is the proposals of this epoch that no commit has taken up yet, oldest first.
func (g *Group) Pending() []ProposalInfo {
	list := make([]ProposalInfo, len(g.pending))
	for i, p := range g.pending {
		list[i] = p.info()
	}
	return list
}

// ExternalSenders is who may propose from outside, by index.
func (g *Group) ExternalSenders() []ExternalSender {
	data, _ := g.Extension(ExtExternalSenders)
	if data == nil {
		return nil
	}
	senders, _ := decodeExternalSenders(data) // readable, or the group would not exist
	return senders
}

// checkFrame refuses content for another group or epoch.
func (g *Group) checkFrame(groupID []byte, epoch uint64) error {
	if !bytes.Equal(groupID, g.context.GroupID) {
		return ErrWrongGroup
	}
	if epoch != g.context.Epoch {
		return refuse(ErrWrongEpoch, "%d, not %d", []any{epoch, g.context.Epoch})
	}
	return nil
}

// CheckFrame refuses content for another group or epoch.
func (g *Group) CheckFrame(groupID []byte, epoch uint64) error { return g.checkFrame(groupID, epoch) }

// signatureKey is the key under which a sender's content must verify (RFC 9420, section 6.1).
func (g *Group) signatureKey(c *Content) ([]byte, error) {
	switch c.Sender.Type {
	case SenderMember:
		if l := g.tree.Leaf(c.Sender.Index); l != nil {
			return l.SignatureKey, nil
		}
		return nil, invalid("sender at blank leaf %d", c.Sender.Index)
	case SenderExternal:
		if senders := g.ExternalSenders(); uint64(c.Sender.Index) < uint64(len(senders)) {
			return senders[c.Sender.Index].SignatureKey, nil
		}
		return nil, invalid("external sender %d is not listed", c.Sender.Index)
	}
	return nil, invalid("content from a sender of type %d", c.Sender.Type)
}

// VerifyContent checks that content is for this group and epoch and signed by its sender.
func (g *Group) VerifyContent(a *AuthenticatedContent) error {
	if err := g.checkFrame(a.Content.GroupID, a.Content.Epoch); err != nil {
		return err
	}
	key, err := g.signatureKey(&a.Content)
	if err != nil {
		return err
	}
	return g.suite.VerifyWithLabel(key, "FramedContentTBS", a.TBS(g.Context()), a.Signature)
}
