package mls

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"testing"
	"time"

	"letterlock/mls/roster"
)

var testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// person is somebody with a signing key, who can join groups.
type person struct {
	identity []byte
	signer   ed25519.PrivateKey
}

func newPerson(name string) person {
	seed := [32]byte{}
	copy(seed[:], name)
	return person{[]byte("mimi://example.org/u/" + name), ed25519.NewKeyFromSeed(seed[:])}
}

func (p person) options() KeyPackageOptions {
	return KeyPackageOptions{
		Identity: p.identity, Signer: p.signer, SupportedExtensions: []uint16{roster.ExtLetterlock},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(90 * 24 * time.Hour),
	}
}

func (p person) keyPackage(t testing.TB) *KeyPackage {
	t.Helper()
	k, err := NewKeyPackage(p.options())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (p person) create(t testing.TB, extensions ...roster.Extension) *Group {
	t.Helper()
	g, err := Create(CreateOptions{
		GroupID: []byte("conversation"), Identity: p.identity, Signer: p.signer, Extensions: extensions,
		SupportedExtensions: []uint16{roster.ExtLetterlock}, Now: testNow,
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func (p person) join(t testing.TB, welcome []byte, k *KeyPackage) *Group {
	t.Helper()
	g, err := Join(welcome, k, JoinOptions{Signer: p.signer})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// newGroupOf makes a group whose members all joined in one commit of the first; by[i] sits at leaf i.
func newGroupOf(t testing.TB, n int, extensions ...roster.Extension) []*Group {
	t.Helper()
	first := newPerson("0")
	g := first.create(t, extensions...)
	var packages []*KeyPackage
	o := CommitOptions{Now: testNow}
	for i := 1; i < n; i++ {
		k := newPerson(fmt.Sprint(i)).keyPackage(t)
		packages, o.Add = append(packages, k), append(o.Add, k.Public)
	}
	p, err := g.Commit(o)
	if err != nil {
		t.Fatal(err)
	}
	groups := []*Group{must(p.Merge())}
	for i, k := range packages {
		groups = append(groups, newPerson(fmt.Sprint(i+1)).join(t, p.Welcome, k))
	}
	return groups
}

// deliver has everybody but the committer, who merges its own, take over a commit.
func deliver(t testing.TB, groups []*Group, from int, p *Pending) []*Group {
	t.Helper()
	next := make([]*Group, len(groups))
	for i, g := range groups {
		if i == from || g == nil {
			continue
		}
		processed, err := g.Process(p.Commit, time.Time{})
		if err != nil {
			t.Fatalf("member %d: %v", i, err)
		}
		if processed.Commit.Removed() {
			continue
		}
		next[i] = must(processed.Commit.Merge())
	}
	next[from] = must(p.Merge())
	checkAgree(t, next)
	return next
}

// checkAgree: all members are in the same epoch with the same secrets and the same tree.
func checkAgree(t testing.TB, groups []*Group) {
	t.Helper()
	var first *Group
	for i, g := range groups {
		switch {
		case g == nil:
		case first == nil:
			first = g
		case !bytes.Equal(g.EpochAuthenticator(), first.EpochAuthenticator()) || !bytes.Equal(g.public.Context(), first.public.Context()):
			t.Fatalf("member %d has forked", i)
		}
	}
}

func commit(t testing.TB, g *Group, o CommitOptions) *Pending {
	t.Helper()
	o.Now = testNow
	p, err := g.Commit(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStory(t *testing.T) {
	groups := newGroupOf(t, 3, roster.Extension{Type: roster.ExtLetterlock, Data: []byte("grants")})
	checkAgree(t, groups)

	msg, generation, err := groups[0].Seal([]byte("hello"), []byte("aad"))
	if err != nil || generation != 0 || groups[0].Generation() != 1 {
		t.Fatal(generation, err)
	}
	for _, g := range groups[1:] {
		a, err := g.Open(msg)
		if err != nil {
			t.Fatal(err)
		}
		if string(a.Plaintext) != "hello" || string(a.AuthenticatedData) != "aad" || a.Sender.Leaf != 0 {
			t.Fatalf("opened %+v", a)
		}
	}

	// A server follows with public messages alone.
	server := must(roster.Open(must(groups[0].GroupInfo()), testNow))
	for from := range groups {
		p := commit(t, groups[from], CommitOptions{AuthenticatedData: []byte("why")})
		change := must(server.Stage(p.Commit, testNow))
		if !change.HasPath || len(change.Updated) != 1 || change.Committer.Leaf != uint32(from) {
			t.Fatalf("change %+v", change)
		}
		groups = deliver(t, groups, from, p)
		server = change.Next()
		same(t, "server's context", server.Context(), groups[0].Roster().Context())
	}

	dave := newPerson("dave")
	k := dave.keyPackage(t)
	p := commit(t, groups[1], CommitOptions{Add: [][]byte{k.Public}})
	server = must(server.Stage(p.Commit, testNow)).Next()
	groups = deliver(t, groups, 1, p)
	groups = append(groups, dave.join(t, p.Welcome, k))
	checkAgree(t, groups)

	p = commit(t, groups[3], CommitOptions{Remove: []uint32{0}})
	server = must(server.Stage(p.Commit, testNow)).Next()
	groups = deliver(t, groups, 3, p)
	if groups[0] != nil {
		t.Fatal("removed member went on")
	}
	same(t, "server's context", server.Context(), groups[1].Roster().Context())
}
