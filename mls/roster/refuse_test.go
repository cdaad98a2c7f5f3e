package roster

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"
	"time"
)

// TestRefusedKeyPackages has a case for each rule of RFC 9420, sections 7.3 and 10.1.
func TestRefusedKeyPackages(t *testing.T) {
	leafRule := func(edit func(*LeafNode)) *KeyPackage { return newPackage("x", edit, nil) }
	rule := func(edit func(*KeyPackage)) *KeyPackage { return newPackage("x", nil, edit) }
	cases := []struct {
		name string
		k    *KeyPackage
		kind error
		rule string
	}{
		{"other suite", rule(func(k *KeyPackage) { k.Suite = 2 }), ErrUnsupported, "cipher suite"},
		{"update leaf", leafRule(func(l *LeafNode) { l.Source = LeafUpdate }), ErrInvalid, "source"},
		{"commit leaf", leafRule(func(l *LeafNode) { l.Source = LeafCommit }), ErrInvalid, "source"},
		{"one key twice", rule(func(k *KeyPackage) { k.InitKey = k.Leaf.EncryptionKey }), ErrInvalid, "two purposes"},
		{"short init key", rule(func(k *KeyPackage) { k.InitKey = k.InitKey[:31] }), ErrInvalid, "31 bytes"},
		{"zero init key", rule(func(k *KeyPackage) { k.InitKey = make([]byte, 32) }), ErrInvalid, "small order"},
		{"short encryption key", leafRule(func(l *LeafNode) { l.EncryptionKey = l.EncryptionKey[:31] }), ErrInvalid, "31 bytes"},
		{"small order", leafRule(func(l *LeafNode) { l.EncryptionKey = smallOrderPoints[2][:] }), ErrInvalid, "small order"},
		{"small order, top bit", leafRule(func(l *LeafNode) { l.EncryptionKey = append(bytes.Clone(smallOrderPoints[3][:31]), 0xd7) }), ErrInvalid, "small order"},
		{"extension twice", rule(func(k *KeyPackage) { k.Extensions = Extensions{{9, nil}, {9, nil}} }), ErrInvalid, "twice"},
		{"leaf extension twice", leafRule(func(l *LeafNode) { l.Extensions = Extensions{{1, nil}, {1, nil}} }), ErrInvalid, "twice"},
		{"leaf extension unsupported", leafRule(func(l *LeafNode) { l.Extensions = Extensions{{9, nil}} }), ErrInvalid, "without supporting"},
		{"X.509", leafRule(func(l *LeafNode) { l.Credential = Credential{Type: credentialX509} }), ErrUnsupported, "credential"},
		{"own credential unsupported", leafRule(func(l *LeafNode) { l.Capabilities.Credentials = nil }), ErrInvalid, "own credential"},
		{"not yet valid", leafRule(func(l *LeafNode) { l.NotBefore = l.NotAfter }), ErrInvalid, "outside its lifetime"},
		{"no longer valid", leafRule(func(l *LeafNode) { l.NotAfter = l.NotBefore }), ErrInvalid, "outside its lifetime"},
		{"lives too long", leafRule(func(l *LeafNode) { l.NotBefore = 0 }), ErrInvalid, "above"},
		{"spoiled leaf", rule(func(k *KeyPackage) { k.Leaf.NotAfter++ }), ErrSignature, "LeafNodeTBS"},
		{"other signature key", leafRule(func(l *LeafNode) { l.SignatureKey = signerOf("y").Public().(ed25519.PublicKey) }), ErrSignature, "LeafNodeTBS"},
		{"short signature key", leafRule(func(l *LeafNode) { l.SignatureKey = l.SignatureKey[:31] }), ErrSignature, "LeafNodeTBS"},
	}
	spoiled := newPackage("x", nil, nil)
	spoiled.InitKey = freshKey()
	cases = append(cases, struct {
		name string
		k    *KeyPackage
		kind error
		rule string
	}{"spoiled package", spoiled, ErrSignature, "KeyPackageTBS"})
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := InspectKeyPackage(Marshal(&Message{WireFormat: WireKeyPackage, KeyPackage: c.k}), testNow)
			refused(t, err, c.kind, c.rule)
			if c.rule == "outside its lifetime" || c.rule == "above" || c.rule == "cipher suite" {
				return // these need a clock, or stand elsewhere
			}
			g := newTestGroup(t, 2)
			_, err = g.Stage(public(bare(g, 0, byValue(&Proposal{Type: ProposalAdd, Add: c.k})...)), noTime)
			refused(t, err, c.kind, c.rule)
		})
	}
	info, err := InspectKeyPackage(Marshal(&Message{WireFormat: WireKeyPackage, KeyPackage: newPackage("x", nil, func(k *KeyPackage) {
		k.Extensions = Extensions{{ExtLastResort, nil}}
	})}), testNow)
	if err != nil || !info.LastResort || string(info.Identity) != "x" {
		t.Errorf("a good key package: %+v, %v", info, err)
	}
}

// TestRefusedProposalLists has a case for each rule of RFC 9420, sections 12.1 and 12.2, and for ours.
func TestRefusedProposalLists(t *testing.T) {
	psk := func(edit func(*PreSharedKeyID)) *Proposal {
		p := &Proposal{Type: ProposalPSK, PSK: PreSharedKeyID{Type: PSKExternal, ID: []byte("id"), Nonce: make([]byte, 32)}}
		if edit != nil {
			edit(&p.PSK)
		}
		return p
	}
	cases := []struct {
		name string
		list func(g *Group) []*Proposal
		kind error
		rule string
	}{
		{"empty without path", func(g *Group) []*Proposal { return nil }, ErrInvalid, "without the path"},
		{"remove without path", func(g *Group) []*Proposal { return []*Proposal{remove(1)} }, ErrInvalid, "without the path"},
		{"extensions without path", func(g *Group) []*Proposal { return []*Proposal{replaceExtensions()} }, ErrInvalid, "without the path"},
		{"own update", func(g *Group) []*Proposal { return []*Proposal{updateOf(g, 0, nil)} }, ErrInvalid, "own update"},
		{"own removal", func(g *Group) []*Proposal { return []*Proposal{remove(0)} }, ErrInvalid, "removes itself"},
		{"remove twice", func(g *Group) []*Proposal { return []*Proposal{remove(1), remove(1)} }, ErrInvalid, "changed twice"},
		{"remove of a blank leaf", func(g *Group) []*Proposal { return []*Proposal{remove(3)} }, ErrInvalid, "blank leaf"},
		{"remove far outside", func(g *Group) []*Proposal { return []*Proposal{remove(1<<32 - 1)} }, ErrInvalid, "blank leaf"},
		{"extensions twice", func(g *Group) []*Proposal { return []*Proposal{replaceExtensions(), replaceExtensions()} }, ErrInvalid, "replaced twice"},
		{"add of a member", func(g *Group) []*Proposal { return []*Proposal{add("1")} }, ErrInvalid, "stands twice"},
		{"add twice", func(g *Group) []*Proposal { return []*Proposal{add("x"), add("x")} }, ErrInvalid, "stands twice"},
		{"add of a known identity under a new key", func(g *Group) []*Proposal {
			k := newPackage("x", func(l *LeafNode) { l.Credential = BasicCredential([]byte("1")) }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "identity of leaf"},
		{"add of a known signature key under a new identity", func(g *Group) []*Proposal {
			k := newPackage("1", func(l *LeafNode) { l.Credential = BasicCredential([]byte("x")) }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "signature key of leaf"},
		{"add of a known encryption key", func(g *Group) []*Proposal {
			k := newPackage("x", func(l *LeafNode) { l.EncryptionKey = g.tree.Leaf(1).EncryptionKey }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "encryption key of node"},
		{"add without our extension", func(g *Group) []*Proposal {
			k := newPackage("x", func(l *LeafNode) { l.Capabilities.Extensions = nil }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "extension 0xf1a0"},
		{"add without the suite", func(g *Group) []*Proposal {
			k := newPackage("x", func(l *LeafNode) { l.Capabilities.Suites = []uint16{2} }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "version and suite"},
		{"add without the version", func(g *Group) []*Proposal {
			k := newPackage("x", func(l *LeafNode) { l.Capabilities.Versions = nil }, nil)
			return []*Proposal{{Type: ProposalAdd, Add: k}}
		}, ErrInvalid, "version and suite"},
		{"psk twice", func(g *Group) []*Proposal { return []*Proposal{psk(nil), psk(nil)} }, ErrInvalid, "named twice"},
		{"psk nonce", func(g *Group) []*Proposal {
			return []*Proposal{psk(func(p *PreSharedKeyID) { p.Nonce = p.Nonce[:31] })}
		}, ErrInvalid, "31 bytes"},
		{"psk of a branch", func(g *Group) []*Proposal {
			return []*Proposal{psk(func(p *PreSharedKeyID) { p.Type, p.Usage = PSKResumption, 3 })}
		}, ErrUnsupported, "branching"},
		{"reinit", func(g *Group) []*Proposal { return []*Proposal{{Type: ProposalReInit}} }, ErrUnsupported, "reinit"},
		{"external init", func(g *Group) []*Proposal { return []*Proposal{{Type: ProposalExternalInit}} }, ErrUnsupported, "external init"},
		{"context extension twice", func(g *Group) []*Proposal {
			return []*Proposal{replaceExtensions(Extension{ExtLetterlock, nil}, Extension{ExtLetterlock, nil})}
		}, ErrInvalid, "twice"},
		{"ratchet tree in the context", func(g *Group) []*Proposal { return []*Proposal{replaceExtensions(Extension{ExtRatchetTree, nil})} }, ErrInvalid, "in a group context"},
		{"unreadable required capabilities", func(g *Group) []*Proposal {
			return []*Proposal{replaceExtensions(Extension{ExtRequiredCapabilities, []byte{9}})}
		}, ErrMalformed, "truncated"},
		{"unreadable external senders", func(g *Group) []*Proposal {
			return []*Proposal{replaceExtensions(Extension{ExtExternalSenders, []byte{9}})}
		}, ErrMalformed, "truncated"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGroup(t, 3, RequiredCapabilities{Extensions: []uint16{ExtLetterlock}}.Extension())
			before := must(g.MarshalBinary())
			_, err := g.Stage(public(bare(g, 0, byValue(c.list(g)...)...)), noTime)
			refused(t, err, c.kind, c.rule)
			if !bytes.Equal(must(g.MarshalBinary()), before) {
				t.Error("a refused commit changed the group")
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestRefusedRequirements: what a commit newly requires, every member must support.
func TestRefusedRequirements(t *testing.T) {
	for _, c := range []struct {
		name string
		ext  Extension
		rule string
	}{
		{"extension in use", Extension{0xF1B0, nil}, "does not support extension"},
		{"extension", RequiredCapabilities{Extensions: []uint16{0xF1B0}}.Extension(), "required extension"},
		{"proposal", RequiredCapabilities{Proposals: []uint16{0xF1B0}}.Extension(), "required proposal"},
		{"credential", RequiredCapabilities{Credentials: []uint16{2}}.Extension(), "required credential"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGroup(t, 3)
			_, err := g.Stage(public(commitOf(t, g, 0, replaceExtensions(c.ext))), noTime)
			refused(t, err, ErrInvalid, c.rule)
		})
	}
}

// TestRefusedByReference: rules that only proposals by reference can break.
func TestRefusedByReference(t *testing.T) {
	t.Run("unknown", func(t *testing.T) {
		g := newTestGroup(t, 3)
		_, err := g.Stage(public(bare(g, 0, ProposalOrRef{Ref: make([]byte, 32)})), noTime)
		refused(t, err, ErrInvalid, "unknown proposal")
	})
	t.Run("of the last epoch", func(t *testing.T) {
		g := newTestGroup(t, 3)
		g, refs := staged(t, g, proposalFrom(g, 1, remove(2)))
		g = mustStage(t, g, commitOf(t, g, 0)).Next()
		_, err := g.Stage(public(bare(g, 0, refs...)), noTime)
		refused(t, err, ErrInvalid, "unknown proposal")
	})
	t.Run("update and remove", func(t *testing.T) {
		g := newTestGroup(t, 3)
		g, refs := staged(t, g, proposalFrom(g, 1, updateOf(g, 1, nil)), proposalFrom(g, 2, remove(1)))
		_, err := g.Stage(public(bare(g, 0, refs...)), noTime)
		refused(t, err, ErrInvalid, "changed twice")
	})
	t.Run("update twice", func(t *testing.T) {
		g := newTestGroup(t, 3)
		g, refs := staged(t, g, proposalFrom(g, 1, updateOf(g, 1, nil)), proposalFrom(g, 1, updateOf(g, 1, nil)))
		_, err := g.Stage(public(bare(g, 0, refs...)), noTime)
		refused(t, err, ErrInvalid, "changed twice")
	})
	t.Run("update without path", func(t *testing.T) {
		g := newTestGroup(t, 3)
		g, refs := staged(t, g, proposalFrom(g, 1, updateOf(g, 1, nil)))
		_, err := g.Stage(public(bare(g, 0, refs...)), noTime)
		refused(t, err, ErrInvalid, "without the path")
	})
	t.Run("own update", func(t *testing.T) {
		g := newTestGroup(t, 3)
		g, refs := staged(t, g, proposalFrom(g, 0, updateOf(g, 0, nil)))
		_, err := g.Stage(public(bare(g, 0, refs...)), noTime)
		refused(t, err, ErrInvalid, "own update")
	})
	t.Run("a good one", func(t *testing.T) {
		g := newTestGroup(t, 4)
		g, refs := staged(t, g, proposalFrom(g, 1, updateOf(g, 1, nil)), proposalFrom(g, 2, remove(3)), proposalFrom(g, 2, add("x")))
		c := mustStage(t, g, commitWith(t, g, 0, refs[:2], nil))
		if len(c.Updated) != 2 || len(c.Removed) != 1 || len(c.Dropped) != 1 || c.Dropped[0].Proposal.Type != ProposalAdd {
			t.Errorf("change %+v", c)
		}
	})
}

// TestRefusedUpdates: what a leaf may not become (RFC 9420, section 7.3), in an Update and in a path.
func TestRefusedUpdates(t *testing.T) {
	cases := []struct {
		name string
		edit func(g *Group, l *LeafNode)
		kind error
		rule string
	}{
		{"another identity", func(g *Group, l *LeafNode) { l.Credential = BasicCredential([]byte("mallory")) }, ErrInvalid, "identity"},
		{"the same key", func(g *Group, l *LeafNode) { l.EncryptionKey = g.tree.Leaf(1).EncryptionKey }, ErrInvalid, "keeps its encryption key"},
		{"another's key", func(g *Group, l *LeafNode) { l.EncryptionKey = g.tree.Leaf(2).EncryptionKey }, ErrInvalid, "stands twice"},
		{"a key package's leaf", func(g *Group, l *LeafNode) { l.Source = LeafKeyPackage }, ErrInvalid, "source"},
		{"small order", func(g *Group, l *LeafNode) { l.EncryptionKey = make([]byte, 32) }, ErrInvalid, "small order"},
		{"no longer our extension", func(g *Group, l *LeafNode) { l.Capabilities.Extensions = nil }, ErrInvalid, "0xf1a0"},
	}
	for _, c := range cases {
		t.Run("update to "+c.name, func(t *testing.T) {
			g := newTestGroup(t, 3, Extension{ExtLetterlock, nil})
			a := proposalFrom(g, 1, updateOf(g, 1, func(l *LeafNode) { c.edit(g, l) }))
			next, info, err := g.StageProposal(public(a), noTime)
			if err == nil { // shows only together with the others
				_, err = next.Stage(public(commitWith(t, next, 0, []ProposalOrRef{{Ref: info.Ref}}, nil)), noTime)
			}
			refused(t, err, c.kind, c.rule)
		})
		t.Run("path to "+c.name, func(t *testing.T) {
			g := newTestGroup(t, 3, Extension{ExtLetterlock, nil})
			a := commitWith(t, g, 1, nil, func(p *UpdatePath) { c.edit(g, p.Leaf) })
			_, err := g.Stage(public(a), noTime)
			refused(t, err, c.kind, c.rule)
		})
	}
	t.Run("signed for another leaf", func(t *testing.T) {
		g := newTestGroup(t, 3)
		p := updateOf(g, 1, nil)
		p.Update.Sign(suite1, signerOf("1"), g.ID(), 2)
		_, _, err := g.StageProposal(public(proposalFrom(g, 1, p)), noTime)
		refused(t, err, ErrSignature, "LeafNodeTBS")
	})
	t.Run("signed for another group", func(t *testing.T) {
		g := newTestGroup(t, 3)
		p := updateOf(g, 1, nil)
		p.Update.Sign(suite1, signerOf("1"), []byte("other"), 1)
		_, _, err := g.StageProposal(public(proposalFrom(g, 1, p)), noTime)
		refused(t, err, ErrSignature, "LeafNodeTBS")
	})
}

// TestRefusedPaths: the rest of a path (RFC 9420, section 7.5).
func TestRefusedPaths(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(g *Group, p *UpdatePath)
		rule string
	}{
		{"too short", func(g *Group, p *UpdatePath) { p.Nodes = p.Nodes[1:] }, "path of"},
		{"too long", func(g *Group, p *UpdatePath) { p.Nodes = append(p.Nodes, p.Nodes[0]) }, "path of"},
		{"ciphertext missing", func(g *Group, p *UpdatePath) { p.Nodes[0].Secrets = nil }, "ciphertexts"},
		{"ciphertext too many", func(g *Group, p *UpdatePath) { p.Nodes[0].Secrets = make([]HPKECiphertext, 9) }, "ciphertexts"},
		{"short node key", func(g *Group, p *UpdatePath) { p.Nodes[0].EncryptionKey = []byte{1} }, "1 bytes"},
		{"small order node key", func(g *Group, p *UpdatePath) { p.Nodes[0].EncryptionKey = make([]byte, 32) }, "small order"},
		{"parent hash", func(g *Group, p *UpdatePath) { p.Leaf.ParentHash = make([]byte, 32) }, "parent hash"},
		{"other node key", func(g *Group, p *UpdatePath) { p.Nodes[1].EncryptionKey = freshKey() }, "parent hash"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newTestGroup(t, 4)
			_, err := g.Stage(public(commitWith(t, g, 1, nil, func(p *UpdatePath) { c.edit(g, p) })), noTime)
			refused(t, err, ErrInvalid, c.rule)
		})
	}
	t.Run("node key known", func(t *testing.T) {
		g := newTestGroup(t, 4)
		known := g.tree.Leaf(3).EncryptionKey
		// The parent hashes must fit the known key, so the path is built with it.
		step := must(g.BeginOwn(1, nil, nil, noTime))
		filtered := step.Tree.FilteredDirectPath(1)
		keys := [][]byte{freshKey(), known}
		a := commitWith(t, g, 1, nil, func(p *UpdatePath) {
			p.Leaf.ParentHash = step.SetPath(keys)
			for i := range filtered {
				p.Nodes[i].EncryptionKey = keys[i]
			}
		})
		_, err := g.Stage(public(a), noTime)
		refused(t, err, ErrInvalid, "stands twice")
	})
}

// TestRefusedFrames: group, epoch, sender and signature of framed content.
func TestRefusedFrames(t *testing.T) {
	g := newTestGroup(t, 3)
	other := func(edit func(c *Content)) []byte {
		a := content(g, 1, ContentProposal)
		a.Content.Proposal = remove(2)
		edit(&a.Content)
		return public(sign(g, a))
	}
	for _, c := range []struct {
		name string
		msg  []byte
		kind error
	}{
		{"other group", other(func(c *Content) { c.GroupID = []byte("other") }), ErrWrongGroup},
		{"epoch before", other(func(c *Content) { c.Epoch-- }), ErrWrongEpoch},
		{"epoch after", other(func(c *Content) { c.Epoch++ }), ErrWrongEpoch},
		{"blank sender", other(func(c *Content) { c.Sender.Index = 3 }), ErrInvalid},
		{"sender far outside", other(func(c *Content) { c.Sender.Index = 1<<32 - 1 }), ErrInvalid},
		{"unlisted external sender", other(func(c *Content) { c.Sender.Type = SenderExternal }), ErrInvalid},
		{"new member", other(func(c *Content) { c.Sender = Sender{Type: SenderNewMemberProposal} }), ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := g.StageProposal(c.msg, noTime)
			refused(t, err, c.kind, "")
		})
	}
	t.Run("signature", func(t *testing.T) {
		a := proposalFrom(g, 1, remove(2))
		a.Signature[3] ^= 1
		_, _, err := g.StageProposal(public(a), noTime)
		refused(t, err, ErrSignature, "FramedContentTBS")
		a.Signature = a.Signature[:63]
		_, _, err = g.StageProposal(public(a), noTime)
		refused(t, err, ErrSignature, "FramedContentTBS")
	})
	t.Run("another's signature", func(t *testing.T) {
		a := proposalFrom(g, 1, remove(2))
		a.Content.Sender.Index = 0
		_, _, err := g.StageProposal(public(a), noTime)
		refused(t, err, ErrSignature, "FramedContentTBS")
	})
	t.Run("commit from outside", func(t *testing.T) {
		a := commitOf(t, g, 0)
		a.Content.Sender = Sender{Type: SenderNewMemberCommit}
		_, err := g.Stage(public(a), noTime)
		refused(t, err, ErrInvalid, "outside the group")
	})
	t.Run("too many proposals", func(t *testing.T) {
		g := g
		for i := range MaxPending + 1 {
			a := content(g, 1, ContentProposal)
			a.Content.Proposal, a.ConfirmationTag = remove(2), nil
			a.Content.AuthenticatedData = []byte{byte(i), byte(i >> 8)}
			next, _, err := g.StageProposal(public(sign(g, a)), noTime)
			if i == MaxPending {
				refused(t, err, ErrInvalid, "pending proposals")
			} else if err != nil {
				t.Fatal(err)
			} else {
				g = next
			}
		}
	})
}

// TestExternalSender: the server may propose Remove, under its listed key, and nothing else.
func TestExternalSender(t *testing.T) {
	server := signerOf("server")
	listed := ExternalSendersExtension(ExternalSender{server.Public().(ed25519.PublicKey), BasicCredential([]byte("server"))})
	g := newTestGroup(t, 3, listed)
	msg, err := ExternalRemove(g, server, 0, 2, []byte("expired"))
	if err != nil {
		t.Fatal(err)
	}
	g, info, err := g.StageProposal(msg, noTime)
	if err != nil {
		t.Fatal(err)
	}
	c := mustStage(t, g, commitWith(t, g, 0, []ProposalOrRef{{Ref: info.Ref}}, nil))
	if len(c.External) != 1 || string(c.External[0].AuthenticatedData) != "expired" || len(c.Removed) != 1 || c.Removed[0].Leaf != 2 {
		t.Errorf("change %+v", c)
	}
	_, _, err = c.Next().StageProposal(msg, noTime)
	refused(t, err, ErrWrongEpoch, "")

	_, err = ExternalRemove(g, server, 1, 2, nil)
	refused(t, err, ErrInvalid, "not listed")
	_, err = ExternalRemove(g, signerOf("mallory"), 0, 2, nil)
	refused(t, err, ErrSignature, "")
	_, err = ExternalRemove(g, server, 0, 3, nil)
	refused(t, err, ErrInvalid, "blank leaf")

	for _, p := range []*Proposal{add("x"), updateOf(g, 1, nil), replaceExtensions(listed), {Type: ProposalPSK, PSK: PreSharedKeyID{Type: PSKExternal}}, {Type: ProposalReInit}, {Type: ProposalExternalInit}} {
		a := content(g, 0, ContentProposal)
		a.Content.Sender, a.Content.Proposal, a.ConfirmationTag = Sender{SenderExternal, 0}, p, nil
		a.Sign(suite1, server, nil)
		_, _, err := g.StageProposal(public(a), noTime)
		refused(t, err, ErrInvalid, "other than Remove")
	}
}

// TestLifetimeNeedsClock: with a clock an outdated KeyPackage is refused, without one it is not, so that all who read the
// same log judge it alike.
func TestLifetimeNeedsClock(t *testing.T) {
	g := newTestGroup(t, 2)
	a := public(commitOf(t, g, 0, add("x")))
	if _, err := g.Stage(a, noTime); err != nil {
		t.Error(err)
	}
	if _, err := g.Stage(a, testNow); err != nil {
		t.Error(err)
	}
	_, err := g.Stage(a, testNow.Add(24*time.Hour))
	refused(t, err, ErrInvalid, "lifetime")
}

// infoOf signs a GroupInfo as a member; edit may spoil it first.
func infoOf(g *Group, signer uint32, edit func(*GroupInfo)) []byte {
	info := &GroupInfo{Context: g.context, Extensions: Extensions{g.tree.Extension()}, ConfirmationTag: g.tag, Signer: signer}
	if edit != nil {
		edit(info)
	}
	info.Sign(suite1, signerOf(nameAt(signer)))
	return Marshal(&Message{WireFormat: WireGroupInfo, GroupInfo: info})
}

// withTree replaces the tree, hash included.
func withTree(edit func(t *Tree)) func(*GroupInfo) {
	return func(info *GroupInfo) {
		data, _ := info.Extensions.Lookup(ExtRatchetTree)
		t := DecodeTree(suite1, NewReader(data))
		edit(t)
		t.hashes = make([][]byte, len(t.nodes))
		info.Context.TreeHash = t.Hash()
		info.Extensions = Extensions{t.Extension()}
	}
}

// TestRefusedGroupInfos: everything in a GroupInfo that can be checked (RFC 9420, section 12.4.3.1).
func TestRefusedGroupInfos(t *testing.T) {
	// Four members with full paths, then a fifth that is unmerged at the root.
	g := newTestGroup(t, 4)
	for from := range uint32(4) {
		g = mustStage(t, g, commitOf(t, g, from)).Next()
	}
	g = mustStage(t, g, commitOf(t, g, 0, remove(3))).Next()
	g = mustStage(t, g, commitOf(t, g, 2)).Next()
	g = mustStage(t, g, bare(g, 0, byValue(add("3"))...)).Next()
	if _, err := Open(infoOf(g, 0, nil), noTime); err != nil {
		t.Fatal(err)
	}
	if p := g.tree.nodes[3].parent; p == nil || !slices.Equal(p.UnmergedLeaves, []uint32{3}) {
		t.Fatal("test group without an unmerged leaf")
	}
	parent := func(x NodeIndex, edit func(*ParentNode)) func(*GroupInfo) {
		return withTree(func(t *Tree) { p := *t.nodes[x].parent; edit(&p); t.nodes[x].parent = &p })
	}
	leaf := func(i uint32, edit func(*LeafNode)) func(*GroupInfo) {
		return withTree(func(t *Tree) { l := *t.Leaf(i); edit(&l); t.nodes[NodeOf(i)].leaf = &l })
	}
	for _, c := range []struct {
		name string
		edit func(*GroupInfo)
		kind error
		rule string
	}{
		{"tree hash", func(i *GroupInfo) { i.Context.TreeHash = make([]byte, 32) }, ErrInvalid, "tree hash"},
		{"short tree hash", func(i *GroupInfo) { i.Context.TreeHash = i.Context.TreeHash[:31] }, ErrInvalid, "tree hash"},
		{"no tree", func(i *GroupInfo) { i.Extensions = nil }, ErrMalformed, "truncated"},
		{"suite", func(i *GroupInfo) { i.Context.Suite = 2 }, ErrUnsupported, "suite"},
		{"blank signer", func(i *GroupInfo) { i.Signer = 1 << 31 }, ErrInvalid, "blank leaf"},
		{"info extension twice", func(i *GroupInfo) { i.Extensions = append(i.Extensions, i.Extensions[0]) }, ErrInvalid, "twice"},
		{"context extension twice", func(i *GroupInfo) { i.Context.Extensions = Extensions{{9, nil}, {9, nil}} }, ErrInvalid, "twice"},
		{"unsupported extension", func(i *GroupInfo) { i.Context.Extensions = Extensions{{9, nil}} }, ErrInvalid, "does not support"},
		{"other group", func(i *GroupInfo) { i.Context.GroupID = []byte("other") }, ErrSignature, "LeafNodeTBS"},
		{"spoiled leaf", leaf(3, func(l *LeafNode) { l.Extensions = Extensions{{ExtLetterlock, nil}} }), ErrSignature, "LeafNodeTBS"},
		{"signature key twice", leaf(3, func(l *LeafNode) { l.SignatureKey = signerOf("0").Public().(ed25519.PublicKey) }), ErrInvalid, "signature key"},
		{"identity twice", leaf(3, func(l *LeafNode) { l.Credential = BasicCredential([]byte("0")) }), ErrInvalid, "identity"},
		{"encryption key twice", leaf(3, func(l *LeafNode) { l.EncryptionKey = g.tree.Leaf(0).EncryptionKey }), ErrInvalid, "encryption key"},
		{"parent's key twice", leaf(3, func(l *LeafNode) { l.EncryptionKey = g.tree.EncryptionKey(3) }), ErrInvalid, "encryption key"},
		{"parent hash of a leaf", leaf(2, func(l *LeafNode) { l.ParentHash = make([]byte, 32) }), ErrInvalid, "parent hash of node"},
		{"parent's key", parent(3, func(p *ParentNode) { p.EncryptionKey = freshKey() }), ErrInvalid, "parent hash of node"},
		{"parent's key of small order", parent(3, func(p *ParentNode) { p.EncryptionKey = make([]byte, 32) }), ErrInvalid, "small order"},
		{"unmerged leaf hidden", parent(3, func(p *ParentNode) { p.UnmergedLeaves = nil }), ErrInvalid, "parent hash of node"},
		{"unmerged leaf elsewhere", parent(1, func(p *ParentNode) { p.UnmergedLeaves = []uint32{3} }), ErrInvalid, "not below"},
		{"unmerged leaf far outside", parent(3, func(p *ParentNode) { p.UnmergedLeaves = []uint32{1<<32 - 1} }), ErrInvalid, "not below"},
		{"unmerged leaves twice", parent(3, func(p *ParentNode) { p.UnmergedLeaves = []uint32{3, 3} }), ErrInvalid, "out of order"},
		{"unmerged leaves falling", parent(3, func(p *ParentNode) { p.UnmergedLeaves = []uint32{3, 2} }), ErrInvalid, "out of order"},
		{"unmerged only above", parent(3, func(p *ParentNode) { p.UnmergedLeaves = []uint32{0, 3} }), ErrInvalid, "but not at node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(infoOf(g, 0, c.edit), noTime)
			refused(t, err, c.kind, c.rule)
		})
	}
	t.Run("signature", func(t *testing.T) {
		b := infoOf(g, 0, nil)
		b[len(b)-1] ^= 1
		_, err := Open(b, noTime)
		refused(t, err, ErrSignature, "GroupInfoTBS")
	})
}

// TestRefusedBytes: decoding stops at what is too large, too long or no such thing, before it spends memory.
func TestRefusedBytes(t *testing.T) {
	var wide Writer // blank nodes, and a leaf that ends them
	wide.Vector(func(w *Writer) {
		w.Fixed(make([]byte, 2*MaxLeaves))
		w.Optional(true)
		w.Uint8(1)
		newLeaf("x").Encode(w)
	})
	for _, c := range []struct {
		name string
		b    []byte
		kind error
	}{
		{"nothing", nil, ErrMalformed},
		{"version", []byte{0, 2, 0, 1}, ErrUnsupported},
		{"wire format", []byte{0, 1, 0, 9}, ErrMalformed},
		{"left over", append(infoOf(newTestGroup(t, 2), 0, nil), 0), ErrMalformed},
		{"too large", make([]byte, MaxMessageSize+1), ErrMalformed},
	} {
		_, err := DecodeMessage(c.b)
		refused(t, err, c.kind, "")
	}
	for _, c := range []struct {
		name string
		b    []byte
		rule string
	}{
		{"empty", []byte{0}, "blank node"},
		{"ends blank", []byte{1, 0}, "blank node"},
		{"too wide", wide.b, "leaves"},
		{"length of a gigabyte", []byte{0xbf, 0xff, 0xff, 0xff, 0}, "truncated"},
		{"length of eight bytes", []byte{0xc0, 0, 0, 0, 0, 0, 0, 1}, "8 bytes"},
		{"length not shortest", []byte{0x40, 0x01, 0}, "shortest"},
		{"presence", []byte{1, 2}, "presence"},
		{"parent at a leaf's place", []byte{6, 1, 2, 0, 0, 0, 0}, "node of type"},
	} {
		r := NewReader(c.b)
		DecodeTree(suite1, r)
		refused(t, r.Done(), ErrMalformed, c.rule)
	}
}

// TestSmallTreeStaysSmall: 464 bytes once brought another implementation down, by an index that made it lay out a tree of
// four billion leaves. Here the number of nodes is what was sent, and indices only ever point into it.
func TestSmallTreeStaysSmall(t *testing.T) {
	g := newTestGroup(t, 4)
	b := infoOf(g, 0, withTree(func(t *Tree) {
		p := *t.nodes[3].parent
		p.UnmergedLeaves = []uint32{1<<31 - 1, 1<<32 - 1}
		t.nodes[3].parent = &p
	}))
	allocated := testing.AllocsPerRun(1, func() {
		_, err := Open(b, noTime)
		refused(t, err, ErrInvalid, "not below")
	})
	if allocated > 10000 {
		t.Errorf("%v allocations for %d bytes", allocated, len(b))
	}
	_, err := g.Stage(public(bare(g, 0, byValue(remove(1<<31))...)), noTime)
	refused(t, err, ErrInvalid, "blank leaf")
}

// TestSnapshot: what is stored comes back, pending proposals too, and nothing that was spoiled does.
func TestSnapshot(t *testing.T) {
	g := newTestGroup(t, 5, Extension{ExtLetterlock, []byte("x")})
	g, refs := staged(t, g, proposalFrom(g, 1, remove(2)), proposalFrom(g, 3, updateOf(g, 3, nil)))
	b := must(g.MarshalBinary())
	again, err := UnmarshalGroup(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(must(again.MarshalBinary()), b) || len(again.Pending()) != 2 {
		t.Error("snapshot differs after a round")
	}
	a := commitWith(t, g, 0, refs, nil)
	if !bytes.Equal(mustStage(t, again, a).Next().Context(), mustStage(t, g, a).Next().Context()) {
		t.Error("restored group goes another way")
	}
	for i := range b {
		if _, err := UnmarshalGroup(b[:i]); err == nil {
			t.Fatalf("accepted %d of %d bytes", i, len(b))
		}
	}
	b[0]++
	_, err = UnmarshalGroup(b)
	refused(t, err, ErrUnsupported, "snapshot version")
}

// TestChange: the change says all that a policy needs.
func TestChange(t *testing.T) {
	g := newTestGroup(t, 4, Extension{ExtLetterlock, []byte("before")})
	a := commitOf(t, g, 1, replaceExtensions(Extension{ExtLetterlock, []byte("after")}), remove(2), add("x"))
	c := mustStage(t, g, a)
	before, _ := c.ExtensionsBefore.Lookup(ExtLetterlock)
	after, _ := c.ExtensionsAfter.Lookup(ExtLetterlock)
	if string(before) != "before" || string(after) != "after" || c.Committer.Leaf != 1 || !c.HasPath || c.Epoch != g.Epoch()+1 {
		t.Errorf("change %+v", c)
	}
	if len(c.Added) != 1 || c.Added[0].Leaf != 2 || string(c.Added[0].Identity) != "x" || len(c.AddedKeyPackages) != 1 {
		t.Errorf("added %+v", c.Added)
	}
	if len(c.Removed) != 1 || string(c.Removed[0].Identity) != "2" {
		t.Errorf("removed %+v", c.Removed)
	}
	if len(c.Updated) != 1 || bytes.Equal(c.Updated[0].Before.EncryptionKey, c.Updated[0].After.EncryptionKey) {
		t.Errorf("updated %+v", c.Updated)
	}
	if c.Before() != g || c.Next().Epoch() != c.Epoch {
		t.Error("before or next")
	}
}
