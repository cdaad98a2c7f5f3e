package mls

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"letterlock/mls/roster"

	"pgregory.net/rapid"
)

// world is a group of people and a server that orders commits. Every step is drawn by rapid.
type world struct {
	t       *rapid.T
	members map[string]*Group // by name
	server  *roster.Group
	next    int // number of the next person
	sent    []sentMessage
}

// sentMessage is on its way: to each of its readers it may come late, twice or never.
type sentMessage struct {
	msg, plaintext []byte
	from           string
	epoch          uint64
	read           map[string]bool
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// names is who is in, in a stable order.
func (w *world) names() []string {
	var names []string
	for name := range w.members {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (w *world) draw(what string) string { return rapid.SampledFrom(w.names()).Draw(w.t, what) }

// newPackages makes n new people's KeyPackages.
func (w *world) newPackages(n int) (packages map[string]*KeyPackage, public [][]byte) {
	packages = map[string]*KeyPackage{}
	for range n {
		name := fmt.Sprint("p", w.next)
		w.next++
		k, err := NewKeyPackage(newPerson(name).options())
		w.check(err)
		packages[name], public = k, append(public, k.Public)
	}
	return packages, public
}

func (w *world) commitAs(name string, o CommitOptions) *Pending {
	w.t.Helper()
	o.Now = testNow
	p, err := w.members[name].Commit(o)
	w.check(err)
	return p
}

// order is the server taking a commit, and all members following.
func (w *world) order(by string, p *Pending, joining map[string]*KeyPackage) {
	w.t.Helper()
	change, err := w.server.Stage(p.Commit, testNow)
	w.check(err)
	w.server = change.Next()
	for _, name := range w.names() {
		g := w.members[name]
		if name == by {
			w.members[name], err = p.Merge()
			w.check(err)
			continue
		}
		processed, err := g.Process(p.Commit, time.Time{})
		w.check(err)
		g, err = processed.Commit.Merge()
		if errors.Is(err, ErrRemoved) {
			delete(w.members, name)
			continue
		}
		w.check(err)
		w.members[name] = g
	}
	for name, k := range joining {
		g, err := Join(p.Welcome, k, JoinOptions{Signer: newPerson(name).signer})
		w.check(err)
		w.members[name] = g
	}
	w.agree()
}

// agree: one context for all and the server, one authenticator, and nobody there who is not on the roster.
func (w *world) agree() {
	w.t.Helper()
	var authenticator []byte
	for _, name := range w.names() {
		g := w.members[name]
		if !bytes.Equal(g.public.Context(), w.server.Context()) {
			w.t.Fatalf("%s and the server differ", name)
		}
		if authenticator == nil {
			authenticator = g.EpochAuthenticator()
		}
		if !bytes.Equal(g.EpochAuthenticator(), authenticator) {
			w.t.Fatalf("%s has forked", name)
		}
	}
	if len(w.server.Members()) != len(w.members) {
		w.t.Fatalf("%d on the roster, %d in the group", len(w.server.Members()), len(w.members))
	}
}

func (w *world) opAdd() {
	if len(w.members) >= 64 {
		return
	}
	by := w.draw("adder")
	packages, public := w.newPackages(rapid.IntRange(1, 3).Draw(w.t, "added"))
	w.order(by, w.commitAs(by, CommitOptions{Add: public, NoPath: rapid.Bool().Draw(w.t, "no path")}), packages)
}

func (w *world) opRemove() {
	if len(w.members) < 3 {
		return
	}
	by, whom := w.draw("remover"), w.draw("removed")
	if by == whom {
		return
	}
	w.order(by, w.commitAs(by, CommitOptions{Remove: []uint32{w.members[whom].OwnLeaf()}}), nil)
}

// opRace: two commit in one epoch; the server takes one, the other discards.
func (w *world) opRace() {
	a, b := w.draw("winner"), w.draw("loser")
	packages, public := w.newPackages(min(1, 64-len(w.members)))
	winner := w.commitAs(a, CommitOptions{Add: public})
	if a == b {
		w.order(a, winner, packages)
		return
	}
	loser := w.commitAs(b, CommitOptions{AuthenticatedData: []byte("lost")})
	loser.Discard()
	w.order(a, winner, packages)
	if _, err := w.server.Stage(loser.Commit, testNow); !errors.Is(err, roster.ErrWrongEpoch) {
		w.t.Fatalf("the server takes a second commit: %v", err)
	}
	if w.members[b] != nil { // the winner may have removed it
		w.order(b, w.commitAs(b, CommitOptions{}), nil)
	}
}

// opPropose: somebody proposes to renew its leaf or to remove another, and all hear of it.
func (w *world) opPropose() {
	from := w.draw("proposer")
	g := w.members[from]
	var msg []byte
	var next *Group
	var err error
	if whom := w.draw("subject"); rapid.Bool().Draw(w.t, "update") || whom == from || len(w.members) < 4 {
		msg, next, err = g.ProposeUpdate(nil)
	} else {
		msg, next, err = g.ProposeRemove(w.members[whom].OwnLeaf(), nil)
	}
	w.check(err)
	w.members[from] = next
	w.server, _, err = w.server.StageProposal(msg, testNow)
	w.check(err)
	for _, name := range w.names() {
		if name != from {
			p, err := w.members[name].Process(msg, time.Time{})
			w.check(err)
			w.members[name] = p.Group
		}
	}
}

func (w *world) opCommit() {
	by := w.draw("committer")
	w.order(by, w.commitAs(by, CommitOptions{}), nil)
}

func (w *world) opSend() {
	from := w.draw("sender")
	for i := range rapid.IntRange(1, 4).Draw(w.t, "messages") {
		plaintext := fmt.Appendf(nil, "%s says %d", from, i)
		msg, _, err := w.members[from].Seal(plaintext, nil)
		w.check(err)
		w.sent = append(w.sent, sentMessage{msg, plaintext, from, w.server.Epoch(), map[string]bool{}})
	}
}

// opDeliver hands some messages to some readers, in any order, some of them again.
func (w *world) opDeliver() {
	if len(w.sent) == 0 {
		return
	}
	for range rapid.IntRange(1, 8).Draw(w.t, "deliveries") {
		m := w.sent[rapid.IntRange(0, len(w.sent)-1).Draw(w.t, "message")]
		to := w.draw("reader")
		a, err := w.members[to].Open(m.msg)
		switch {
		case m.epoch != w.server.Epoch():
			if !errors.Is(err, roster.ErrWrongEpoch) {
				w.t.Fatalf("a message of another epoch: %v", err)
			}
		case to == m.from:
			if !errors.Is(err, ErrOwnMessage) {
				w.t.Fatalf("own message: %v", err)
			}
		case m.read[to]:
			if !errors.Is(err, ErrReplayed) {
				w.t.Fatalf("message read twice: %v", err)
			}
		default:
			w.check(err)
			m.read[to] = true
			sender, _ := w.server.MemberByIdentity(newPerson(m.from).identity)
			if !bytes.Equal(a.Plaintext, m.plaintext) || a.Sender.Leaf != sender.Leaf {
				w.t.Fatal("another message than was sent")
			}
		}
	}
}

// opRestart stores and restores somebody and the server.
func (w *world) opRestart() {
	name := w.draw("restarted")
	b, err := w.members[name].MarshalBinary()
	w.check(err)
	w.members[name], err = UnmarshalGroup(b, w.members[name].signer)
	w.check(err)
	again, err := w.members[name].MarshalBinary()
	w.check(err)
	if !bytes.Equal(b, again) {
		w.t.Fatal("a snapshot changes by being read")
	}
	b, err = w.server.MarshalBinary()
	w.check(err)
	w.server, err = roster.UnmarshalGroup(b)
	w.check(err)
}

// TestProperties: whatever happens, in groups of 2 to 64, all who are in agree with each other and the server, each message
// is read exactly once by each, and nobody else reads it. Under the race detector the groups stay small.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{t: rt, members: map[string]*Group{}}
		size := rapid.SampledFrom([]int{2, 2, 3, 3, 4, 5, 7, 8, 9, 12, 16, 17, 33, 64}).Draw(rt, "size")
		size = min(size, largestDrawn)
		packages, public := w.newPackages(size - 1)
		creator := newPerson("creator")
		g, err := Create(CreateOptions{
			GroupID: []byte("g"), Identity: creator.identity, Signer: creator.signer, SupportedExtensions: []uint16{roster.ExtLetterlock}, Now: testNow,
		})
		w.check(err)
		w.members["creator"] = g
		info, err := g.GroupInfo()
		w.check(err)
		w.server, err = roster.Open(info, testNow)
		w.check(err)
		w.order("creator", w.commitAs("creator", CommitOptions{Add: public}), packages)

		steps := []func(){w.opAdd, w.opRemove, w.opRace, w.opPropose, w.opCommit, w.opSend, w.opSend, w.opDeliver, w.opDeliver, w.opRestart}
		for range max(4, mostSteps-size/2) {
			steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")]()
		}
	})
}
