package roster

import (
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// noTime skips lifetimes.
var noTime time.Time

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var suite1 = &Suites[0]

// counter makes keys that differ. HPKE public keys of the tests are hashes: nobody decrypts here.
var counter int

func freshKey() []byte {
	counter++
	k := sha256.Sum256([]byte(fmt.Sprint("key ", counter)))
	return k[:]
}

func signerOf(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// newLeaf is an unsigned leaf as it stands in a KeyPackage.
func newLeaf(name string) *LeafNode {
	return &LeafNode{
		EncryptionKey: freshKey(), SignatureKey: signerOf(name).Public().(ed25519.PublicKey),
		Credential: BasicCredential([]byte(name)),
		Capabilities: Capabilities{
			Versions: []uint16{Version, 0x0a0a}, Suites: []uint16{1, 0x1a1a}, Extensions: []uint16{ExtLetterlock, 0x2a2a},
			Proposals: []uint16{0x3a3a}, Credentials: []uint16{CredentialBasic, 0x4a4a}, // GREASE, to be ignored
		},
		Source:    LeafKeyPackage,
		NotBefore: uint64(testNow.Add(-time.Hour).Unix()), NotAfter: uint64(testNow.Add(time.Hour).Unix()),
	}
}

// newPackage is a signed KeyPackage; edit may spoil its leaf or itself before each is signed.
func newPackage(name string, editLeaf func(*LeafNode), edit func(*KeyPackage)) *KeyPackage {
	leaf := newLeaf(name)
	if editLeaf != nil {
		editLeaf(leaf)
	}
	leaf.Sign(suite1, signerOf(name), nil, 0)
	k := &KeyPackage{Suite: 1, InitKey: freshKey(), Leaf: leaf}
	if edit != nil {
		edit(k)
	}
	k.Sign(suite1, signerOf(name))
	return k
}

func add(name string) *Proposal {
	return &Proposal{Type: ProposalAdd, Add: newPackage(name, nil, nil)}
}

func remove(leaf uint32) *Proposal { return &Proposal{Type: ProposalRemove, Remove: leaf} }

func replaceExtensions(list ...Extension) *Proposal {
	return &Proposal{Type: ProposalGroupContextExtensions, Extensions: list}
}

func byValue(list ...*Proposal) (out []ProposalOrRef) {
	for _, p := range list {
		out = append(out, ProposalOrRef{Proposal: p})
	}
	return out
}

// names are members "0", "1", ... by leaf, as newTestGroup makes them.
func nameAt(leaf uint32) string { return fmt.Sprint(leaf) }

// newTestGroup has n members, added by the first in one commit with a path.
func newTestGroup(t testing.TB, n int, extensions ...Extension) *Group {
	t.Helper()
	leaf := newLeaf("0")
	leaf.Sign(suite1, signerOf("0"), nil, 0)
	g, err := NewGroup(suite1, []byte("group"), leaf, extensions, []byte("tag"))
	if err != nil {
		t.Fatal(err)
	}
	var adds []*Proposal
	for i := 1; i < n; i++ {
		adds = append(adds, add(nameAt(uint32(i))))
	}
	return mustStage(t, g, commitOf(t, g, 0, adds...)).Next()
}

func mustStage(t testing.TB, g *Group, a *AuthenticatedContent) *Change {
	t.Helper()
	c, err := g.Stage(public(a), noTime)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func public(a *AuthenticatedContent) []byte {
	return Marshal(&Message{WireFormat: WirePublicMessage, Public: &PublicMessage{AuthenticatedContent: *a}})
}

func content(g *Group, from uint32, typ ContentType) *AuthenticatedContent {
	return &AuthenticatedContent{WireFormat: WirePublicMessage, Content: Content{
		GroupID: g.ID(), Epoch: g.Epoch(), Sender: Sender{SenderMember, from}, Type: typ,
	}, ConfirmationTag: []byte("tag")}
}

// commitOf is a valid commit with a path.
func commitOf(t testing.TB, g *Group, from uint32, list ...*Proposal) *AuthenticatedContent {
	t.Helper()
	return commitWith(t, g, from, byValue(list...), nil)
}

// commitWith is a commit whose path edit may spoil before all is signed.
func commitWith(t testing.TB, g *Group, from uint32, list []ProposalOrRef, edit func(*UpdatePath)) *AuthenticatedContent {
	t.Helper()
	a := content(g, from, ContentCommit)
	a.Content.Commit = &Commit{Proposals: list}
	step, err := g.BeginOwn(from, list, nil, noTime)
	if err != nil {
		t.Fatal(err)
	}
	path := &UpdatePath{}
	var keys [][]byte
	for _, at := range step.Tree.FilteredDirectPath(from) {
		n := PathNode{EncryptionKey: freshKey()}
		n.Secrets = make([]HPKECiphertext, len(step.Tree.Recipients(at.Copath, step.Added)))
		path.Nodes, keys = append(path.Nodes, n), append(keys, n.EncryptionKey)
	}
	leaf := *g.tree.Leaf(from)
	leaf.Source, leaf.EncryptionKey, leaf.ParentHash = LeafCommit, freshKey(), step.SetPath(keys)
	path.Leaf = &leaf
	if edit != nil {
		edit(path)
	}
	leaf.Sign(suite1, signerOf(nameAt(from)), g.ID(), from)
	a.Content.Commit.Path = path
	return sign(g, a)
}

// bare is a commit without a path, which nobody has judged.
func bare(g *Group, from uint32, list ...ProposalOrRef) *AuthenticatedContent {
	a := content(g, from, ContentCommit)
	a.Content.Commit = &Commit{Proposals: list}
	return sign(g, a)
}

func sign(g *Group, a *AuthenticatedContent) *AuthenticatedContent {
	a.Sign(suite1, signerOf(nameAt(a.Content.Sender.Index)), g.Context())
	return a
}

// proposalFrom is a signed proposal of a member's.
func proposalFrom(g *Group, from uint32, p *Proposal) *AuthenticatedContent {
	a := content(g, from, ContentProposal)
	a.Content.Proposal, a.ConfirmationTag = p, nil
	return sign(g, a)
}

func updateOf(g *Group, leaf uint32, edit func(*LeafNode)) *Proposal {
	l := *g.tree.Leaf(leaf)
	l.Source, l.EncryptionKey, l.ParentHash = LeafUpdate, freshKey(), nil
	if edit != nil {
		edit(&l)
	}
	l.Sign(suite1, signerOf(nameAt(leaf)), g.ID(), leaf)
	return &Proposal{Type: ProposalUpdate, Update: &l}
}

// staged is the group that remembers proposals, and their references.
func staged(t testing.TB, g *Group, list ...*AuthenticatedContent) (*Group, []ProposalOrRef) {
	t.Helper()
	var refs []ProposalOrRef
	for _, a := range list {
		next, info, err := g.StageProposal(public(a), noTime)
		if err != nil {
			t.Fatal(err)
		}
		g, refs = next, append(refs, ProposalOrRef{Ref: info.Ref})
	}
	return g, refs
}

// refused checks the kind of an error and the rule that it names.
func refused(t testing.TB, err, kind error, rule string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), rule) {
		t.Errorf("error %v; want %v with %q", err, kind, rule)
	}
}
