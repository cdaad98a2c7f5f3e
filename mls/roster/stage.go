package roster

import (
	"bytes"
	"slices"
	"time"
)

// ProposalInfo is a proposal with the circumstances in which it was made.
type ProposalInfo struct {
	Ref               []byte // nil: by value, in the commit itself
	Sender            Sender
	AuthenticatedData []byte // of the message that carried it: the proposal's own, or the commit's if by value
	Proposal          *Proposal
}

// MemberUpdate is a member whose leaf was replaced.
type MemberUpdate struct{ Before, After Member }

// KeyPackageInfo is a verified KeyPackage.
type KeyPackageInfo struct {
	Ref           []byte
	Identity      []byte
	SignatureKey  []byte
	InitKey       []byte
	EncryptionKey []byte
	NotBefore     time.Time
	NotAfter      time.Time
	LastResort    bool
	Capabilities  Capabilities
	Extensions    Extensions // of the KeyPackage
	LeafExts      Extensions // of its leaf
}

// Change is what one valid commit does. The caller judges it before anything is kept: all that a policy needs stands here,
// and server and devices get the same Change from the same commit.
type Change struct {
	Epoch             uint64 // of the new epoch
	Committer         Member // before the commit
	HasPath           bool   // the commit renews its committer's keys
	AuthenticatedData []byte // of the commit
	Added             []Member
	AddedKeyPackages  []KeyPackageInfo // in the order of Added
	Removed           []Member         // as they were
	Updated           []MemberUpdate   // by Update proposals, and the committer by its path
	ExtensionsBefore  Extensions
	ExtensionsAfter   Extensions
	Proposals         []ProposalInfo // in the commit's order
	External          []ProposalInfo // those of them that external senders made
	Dropped           []ProposalInfo // were pending and are not in the commit: lost with the old epoch

	before, next *Group
}

// Before is the group that the commit was made in.
func (c *Change) Before() *Group { return c.before }

// Next is the group of the new epoch.
func (c *Change) Next() *Group { return c.next }

// Stage judges an MLSMessage that carries a commit as a PublicMessage: group, epoch, signature, every proposal by value or
// staged before, their list as a whole, the new tree, its parent hashes. External commits are refused. It cannot check the
// membership tag, the confirmation tag, nor whether the path's secrets open. A zero now skips the lifetimes of added leaves.
func (g *Group) Stage(msg []byte, now time.Time) (*Change, error) {
	a, err := decodePublic(msg, ContentCommit)
	if err != nil {
		return nil, err
	}
	step, err := g.Begin(a, now)
	if err != nil {
		return nil, err
	}
	step.Confirm(a)
	return step.Finish(a.ConfirmationTag), nil
}

// StageProposal verifies an MLSMessage that carries a proposal as a PublicMessage, from a member or an external sender, and
// returns the group that remembers it, so that a commit may refer to it. It cannot check the membership tag.
func (g *Group) StageProposal(msg []byte, now time.Time) (*Group, *ProposalInfo, error) {
	a, err := decodePublic(msg, ContentProposal)
	if err != nil {
		return nil, nil, err
	}
	return g.StageProposalContent(a, now)
}

// StageProposalContent is StageProposal for decoded content.
func (g *Group) StageProposalContent(a *AuthenticatedContent, now time.Time) (*Group, *ProposalInfo, error) {
	if a.Content.Type != ContentProposal {
		return nil, nil, invalid("content of type %d is no proposal", a.Content.Type)
	}
	if err := g.VerifyContent(a); err != nil {
		return nil, nil, err
	}
	if err := g.checkProposal(a.Content.Proposal, a.Content.Sender, now); err != nil {
		return nil, nil, err
	}
	p := pending{a.Ref(g.suite), a}
	info := p.info()
	if g.findPending(p.ref) != nil {
		return g, &info, nil
	}
	if len(g.pending) >= MaxPending {
		return nil, nil, invalid("more than %d pending proposals", MaxPending)
	}
	next := *g
	next.pending = append(slices.Clip(g.pending), p)
	return &next, &info, nil
}

func decodePublic(msg []byte, typ ContentType) (*AuthenticatedContent, error) {
	m, err := DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != WirePublicMessage || m.Public.Content.Type != typ {
		return nil, malformed("not a public message with content of type %d", typ)
	}
	return &m.Public.AuthenticatedContent, nil
}

func (g *Group) findPending(ref []byte) *pending {
	for i := range g.pending {
		if bytes.Equal(g.pending[i].ref, ref) {
			return &g.pending[i]
		}
	}
	return nil
}

// checkProposal judges one proposal by itself (RFC 9420, section 12.1).
func (g *Group) checkProposal(p *Proposal, sender Sender, now time.Time) error {
	if sender.Type == SenderExternal && p.Type != ProposalRemove {
		return invalid("external sender proposes something other than Remove")
	}
	switch p.Type {
	case ProposalAdd:
		return p.Add.check(g.suite, now)
	case ProposalUpdate:
		if sender.Type != SenderMember {
			return invalid("update from a sender of type %d", sender.Type)
		}
		return g.checkNewLeaf(p.Update, sender.Index, LeafUpdate)
	case ProposalRemove:
		if g.tree.Leaf(p.Remove) == nil {
			return invalid("remove of blank leaf %d", p.Remove)
		}
	case ProposalPSK:
		if len(p.PSK.Nonce) != g.suite.HashSize {
			return invalid("pre-shared key nonce of %d bytes", len(p.PSK.Nonce))
		}
		if p.PSK.Type == PSKResumption && p.PSK.Usage != 1 {
			return unsupported("pre-shared key for reinitialisation or branching")
		}
	case ProposalReInit:
		return unsupported("reinitialisation")
	case ProposalExternalInit:
		return unsupported("external init")
	case ProposalGroupContextExtensions:
		return checkContextExtensions(p.Extensions)
	}
	return nil
}

// checkNewLeaf judges a leaf that replaces a member's own (RFC 9420, sections 7.3 and 12.1.2). The identity stays: a member
// cannot rename itself.
func (g *Group) checkNewLeaf(l *LeafNode, at uint32, source LeafSource) error {
	old := g.tree.Leaf(at)
	if old == nil {
		return invalid("update of blank leaf %d", at)
	}
	if l.Source != source {
		return invalid("leaf of source %d where %d belongs", l.Source, source)
	}
	if l.Credential.Type != old.Credential.Type || !bytes.Equal(l.Credential.Identity, old.Credential.Identity) {
		return invalid("leaf %d changes its identity", at)
	}
	if bytes.Equal(l.EncryptionKey, old.EncryptionKey) {
		return invalid("leaf %d keeps its encryption key", at)
	}
	if err := l.check(g.suite, time.Time{}); err != nil {
		return err
	}
	return l.verify(g.suite, g.context.GroupID, at)
}

// Step is a commit half way: the proposals, and later the path, are in a tree of its own; the group is untouched. Package
// mls builds and opens commits with it; the server only needs Stage.
type Step struct {
	Tree       *Tree      // of the new epoch
	Extensions Extensions // of the new epoch
	Committer  uint32     // leaf
	Proposals  []ProposalInfo
	Added      []uint32 // leaves, rising

	group   *Group
	path    bool
	aad     []byte
	updated []uint32
	removed []Member
	context GroupContext
}

// Begin verifies a received commit and applies it to a new tree. Tags and secrets are not looked at.
func (g *Group) Begin(a *AuthenticatedContent, now time.Time) (*Step, error) {
	c := &a.Content
	if c.Type != ContentCommit {
		return nil, invalid("content of type %d is no commit", c.Type)
	}
	if c.Sender.Type != SenderMember {
		return nil, invalid("commit from outside the group")
	}
	if err := g.VerifyContent(a); err != nil {
		return nil, err
	}
	s, err := g.BeginOwn(c.Sender.Index, c.Commit.Proposals, c.AuthenticatedData, now)
	if err != nil {
		return nil, err
	}
	if c.Commit.Path != nil {
		if err := s.ApplyPath(c.Commit.Path); err != nil {
			return nil, err
		}
	}
	if err := s.Check(); err != nil {
		return nil, err
	}
	return s, nil
}

// BeginOwn resolves, judges and applies the proposals of a commit that is about to be made; SetPath and Check follow.
func (g *Group) BeginOwn(committer uint32, list []ProposalOrRef, aad []byte, now time.Time) (*Step, error) {
	s := &Step{Tree: g.tree.clone(), Extensions: g.context.Extensions, Committer: committer, group: g, aad: aad}
	if err := s.resolve(list); err != nil {
		return nil, err
	}
	for _, p := range s.Proposals {
		if err := g.checkProposal(p.Proposal, p.Sender, now); err != nil {
			return nil, err
		}
	}
	if err := checkList(s.Proposals, Sender{SenderMember, committer}); err != nil {
		return nil, err
	}
	if err := s.applyProposals(); err != nil {
		return nil, err
	}
	return s, nil
}

// resolve finds what the commit refers to.
func (s *Step) resolve(list []ProposalOrRef) error {
	for _, p := range list {
		info := ProposalInfo{Sender: Sender{SenderMember, s.Committer}, AuthenticatedData: s.aad, Proposal: p.Proposal}
		if p.Proposal == nil {
			found := s.group.findPending(p.Ref)
			if found == nil {
				return invalid("commit refers to an unknown proposal")
			}
			info = found.info()
		}
		s.Proposals = append(s.Proposals, info)
	}
	return nil
}

// checkList judges the proposals of one commit together (RFC 9420, section 12.2). Duplicate clients show in the new tree.
func checkList(list []ProposalInfo, committer Sender) error {
	touched := map[uint32]bool{}
	var psks []PreSharedKeyID
	extensions := 0
	for _, p := range list {
		switch p.Proposal.Type {
		case ProposalUpdate:
			if p.Sender == committer {
				return invalid("committer commits its own update")
			}
			if touched[p.Sender.Index] {
				return invalid("leaf %d changed twice", p.Sender.Index)
			}
			touched[p.Sender.Index] = true
		case ProposalRemove:
			if p.Proposal.Remove == committer.Index {
				return invalid("committer removes itself")
			}
			if touched[p.Proposal.Remove] {
				return invalid("leaf %d changed twice", p.Proposal.Remove)
			}
			touched[p.Proposal.Remove] = true
		case ProposalPSK:
			psks = append(psks, p.Proposal.PSK)
		case ProposalGroupContextExtensions:
			extensions++
		}
	}
	if extensions > 1 {
		return invalid("group context extensions replaced twice")
	}
	return checkPSKs(psks)
}

func checkPSKs(psks []PreSharedKeyID) error {
	seen := map[string]bool{}
	for i := range psks {
		if !insert(seen, Marshal(&psks[i])) {
			return invalid("pre-shared key named twice")
		}
	}
	return nil
}

// applyProposals changes the tree: extensions, updates, removes, adds, in this order (RFC 9420, section 12.3).
func (s *Step) applyProposals() error {
	for _, p := range s.Proposals {
		switch p.Proposal.Type {
		case ProposalGroupContextExtensions:
			s.Extensions = p.Proposal.Extensions
		case ProposalUpdate:
			s.Tree.update(p.Sender.Index, p.Proposal.Update)
			s.updated = append(s.updated, p.Sender.Index)
		}
	}
	for _, p := range s.Proposals {
		if p.Proposal.Type == ProposalRemove {
			m, _ := s.group.Member(p.Proposal.Remove)
			s.removed = append(s.removed, m)
			s.Tree.remove(p.Proposal.Remove)
		}
	}
	from := uint32(0)
	for _, p := range s.Proposals {
		if p.Proposal.Type != ProposalAdd {
			continue
		}
		at, err := s.Tree.add(p.Proposal.Add.Leaf, from)
		if err != nil {
			return err
		}
		s.Added = append(s.Added, at)
		from = at + 1
	}
	return nil
}

// PathRequired tells whether the commit must renew its committer's keys (RFC 9420, section 12.4).
func (s *Step) PathRequired() bool {
	for _, p := range s.Proposals {
		if p.Proposal.Type != ProposalAdd && p.Proposal.Type != ProposalPSK {
			return true
		}
	}
	return len(s.Proposals) == 0
}

// SetPath puts a new path of the committer's into the tree: keys for the nodes of the filtered direct path. It returns the
// parent hash that the committer's new leaf must carry; SetLeaf puts that in.
func (s *Step) SetPath(keys [][]byte) (parentHash []byte) {
	return s.Tree.setPath(s.Committer, s.Tree.FilteredDirectPath(s.Committer), keys)
}

// SetLeaf puts the committer's new leaf into the tree.
func (s *Step) SetLeaf(l *LeafNode) {
	s.path = true
	s.Tree.set(NodeOf(s.Committer), node{leaf: l})
}

// ApplyPath judges a received path and puts it into the tree (RFC 9420, section 7.5).
func (s *Step) ApplyPath(p *UpdatePath) error {
	if err := s.group.checkNewLeaf(p.Leaf, s.Committer, LeafCommit); err != nil {
		return err
	}
	filtered := s.Tree.FilteredDirectPath(s.Committer)
	if len(p.Nodes) != len(filtered) {
		return invalid("path of %d nodes, not %d", len(p.Nodes), len(filtered))
	}
	keys := make([][]byte, len(filtered))
	for i, n := range p.Nodes {
		if err := checkPublicKey(s.group.suite, n.EncryptionKey); err != nil {
			return err
		}
		if want := len(s.Tree.Recipients(filtered[i].Copath, s.Added)); len(n.Secrets) != want {
			return invalid("path node with %d ciphertexts, not %d", len(n.Secrets), want)
		}
		keys[i] = n.EncryptionKey
	}
	if !equal(s.SetPath(keys), p.Leaf.ParentHash) {
		return invalid("parent hash of the committer's leaf")
	}
	s.SetLeaf(p.Leaf)
	return nil
}

// Check judges the new epoch as a whole: the committer's path is there if it must be, and the members go together.
func (s *Step) Check() error {
	if s.PathRequired() && !s.path {
		return invalid("commit without the path that its proposals require")
	}
	return s.CheckMembers()
}

// CheckMembers judges the new epoch's members together.
func (s *Step) CheckMembers() error { return s.Tree.checkMembers(s.Extensions) }

// PathContext is the encoded GroupContext under which path secrets are encrypted: the new epoch and tree hash with the old
// confirmed transcript hash (RFC 9420, section 12.4.1).
func (s *Step) PathContext() []byte {
	c := s.newContext()
	return Marshal(&c)
}

func (s *Step) newContext() GroupContext {
	old := &s.group.context
	return GroupContext{old.Suite, old.GroupID, old.Epoch + 1, s.Tree.Hash(), old.ConfirmedHash, s.Extensions}
}

// Confirm fixes the new GroupContext from the signed commit and returns its encoding, which the key schedule takes.
func (s *Step) Confirm(a *AuthenticatedContent) []byte {
	s.context = s.newContext()
	s.context.ConfirmedHash = a.ConfirmedHash(s.group.suite, s.group.interim)
	return Marshal(&s.context)
}

// ConfirmedHash is the new confirmed transcript hash, over which the confirmation tag is made. Confirm comes first.
func (s *Step) ConfirmedHash() []byte { return s.context.ConfirmedHash }

// Finish is the change with its confirmation tag. Check and Confirm come first.
func (s *Step) Finish(tag []byte) *Change {
	g := s.group
	c := &Change{
		Epoch: s.context.Epoch, HasPath: s.path, AuthenticatedData: s.aad,
		Removed: s.removed, ExtensionsBefore: g.context.Extensions, ExtensionsAfter: s.Extensions, Proposals: s.Proposals,
		before: g, next: newGroup(g.suite, s.context, s.Tree, tag),
	}
	c.Committer, _ = g.Member(s.Committer)
	if s.path {
		s.updated = append(s.updated, s.Committer)
	}
	for _, leaf := range s.updated {
		before, _ := g.Member(leaf)
		after, _ := c.next.Member(leaf)
		c.Updated = append(c.Updated, MemberUpdate{before, after})
	}
	for _, leaf := range s.Added {
		m, _ := c.next.Member(leaf)
		c.Added = append(c.Added, m)
	}
	for _, p := range s.Proposals {
		if p.Sender.Type == SenderExternal {
			c.External = append(c.External, p)
		}
		if p.Proposal.Type == ProposalAdd {
			c.AddedKeyPackages = append(c.AddedKeyPackages, keyPackageInfo(g.suite, p.Proposal.Add))
		}
	}
	c.Dropped = s.dropped()
	return c
}

// dropped is the pending proposals that the commit does not refer to.
func (s *Step) dropped() []ProposalInfo {
	return slices.DeleteFunc(s.group.Pending(), func(p ProposalInfo) bool {
		return slices.ContainsFunc(s.Proposals, func(q ProposalInfo) bool { return bytes.Equal(p.Ref, q.Ref) })
	})
}
