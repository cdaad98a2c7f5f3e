package mls

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"letterlock/mls/roster"
)

func wantErr(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want %v", err, kind)
	}
}

// snapshot is a group's whole state, to see that nothing changed.
func snapshot(t testing.TB, g *Group) []byte {
	t.Helper()
	b, err := g.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// restore makes the group of a snapshot.
func restore(t testing.TB, g *Group) *Group {
	t.Helper()
	again, err := UnmarshalGroup(snapshot(t, g), g.signer)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func process(t testing.TB, g *Group, msg []byte) *Processed {
	t.Helper()
	p, err := g.Process(msg, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// forge changes a public message as a member could: tags and signature are made anew by its group.
func forge(t testing.TB, by *Group, msg []byte, sign bool, edit func(a *roster.AuthenticatedContent)) []byte {
	t.Helper()
	a := &must(roster.DecodeMessage(msg)).Public.AuthenticatedContent
	edit(a)
	if sign {
		if err := a.Sign(by.suite.Suite, by.signer, by.public.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return by.publish(a)
}

// TestFirstEpochIsRandom: another implementation began with secrets of zeros, which everybody knows.
func TestFirstEpochIsRandom(t *testing.T) {
	a, b := newPerson("a").create(t), newPerson("a").create(t)
	if bytes.Equal(a.epoch.init, b.epoch.init) || bytes.Equal(a.EpochAuthenticator(), b.EpochAuthenticator()) {
		t.Error("two groups begin alike")
	}
	zeros := a.suite.epochSecrets(make(secret, a.suite.HashSize))
	if bytes.Equal(a.epoch.init, zeros.init) || bytes.Equal(a.epoch.init, make([]byte, len(a.epoch.init))) {
		t.Error("epoch 0 comes from zeros")
	}
}

// TestTagsBeforeAnything: a commit whose membership or confirmation tag is wrong leaves no trace, whoever made it.
func TestTagsBeforeAnything(t *testing.T) {
	groups := newGroupOf(t, 3)
	k := newPerson("x").keyPackage(t)
	good := commit(t, groups[0], CommitOptions{Add: [][]byte{k.Public}}).Commit
	membership := func(edit func(tag []byte) []byte) []byte {
		m := must(roster.DecodeMessage(good))
		m.Public.MembershipTag = edit(m.Public.MembershipTag)
		return roster.Marshal(m)
	}
	confirmation := func(edit func(tag []byte) []byte) []byte {
		return forge(t, groups[0], good, false, func(a *roster.AuthenticatedContent) { a.ConfirmationTag = edit(a.ConfirmationTag) })
	}
	flip := func(tag []byte) []byte { tag[0] ^= 1; return tag }
	short := func(tag []byte) []byte { return tag[:len(tag)-1] }
	long := func(tag []byte) []byte { return append(tag, 0) }
	none := func([]byte) []byte { return nil }
	for name, edit := range map[string]func([]byte) []byte{"flipped": flip, "short": short, "long": long, "none": none} {
		for kind, msg := range map[string][]byte{"membership": membership(edit), "confirmation": confirmation(edit)} {
			t.Run(kind+" "+name, func(t *testing.T) {
				before := snapshot(t, groups[1])
				_, err := groups[1].Process(msg, time.Time{})
				wantErr(t, err, ErrTag)
				same(t, "state", snapshot(t, groups[1]), before)
			})
		}
	}
	process(t, groups[1], good)
}

// TestRefusedPathSecrets: a path whose secrets do not fit its public keys, or do not open, leaves no trace.
func TestRefusedPathSecrets(t *testing.T) {
	groups := newGroupOf(t, 4)
	good := commit(t, groups[0], CommitOptions{}).Commit
	for _, c := range []struct {
		name string
		edit func(p *roster.UpdatePath)
		kind error
	}{
		{"spoiled", func(p *roster.UpdatePath) { p.Nodes[0].Secrets[0].Ciphertext[0] ^= 1 }, ErrDecrypt},
		{"spoiled KEM output", func(p *roster.UpdatePath) { p.Nodes[0].Secrets[0].KEMOutput[0] ^= 1 }, ErrDecrypt},
		{"short KEM output", func(p *roster.UpdatePath) { p.Nodes[0].Secrets[0].KEMOutput = nil }, ErrDecrypt},
		{"of another recipient", func(p *roster.UpdatePath) { p.Nodes[0].Secrets[0] = p.Nodes[1].Secrets[0] }, ErrDecrypt},
	} {
		t.Run(c.name, func(t *testing.T) {
			msg := forge(t, groups[0], good, true, func(a *roster.AuthenticatedContent) { c.edit(a.Content.Commit.Path) })
			before := snapshot(t, groups[1])
			_, err := groups[1].Process(msg, time.Time{})
			wantErr(t, err, c.kind)
			same(t, "state", snapshot(t, groups[1]), before)
		})
	}
	t.Run("secret of another node", func(t *testing.T) {
		g := groups[0]
		step := must(g.public.BeginOwn(0, nil, nil, noClock))
		path := must(g.suite.makePath(step, g.ID(), g.signer, nil))
		other := must(random(nil, g.suite.HashSize))
		path.update.Nodes[0].Secrets[0] = must(g.suite.encryptTo(step.Tree.EncryptionKey(2), "UpdatePathNode", step.PathContext(), other))
		msg := forge(t, g, good, true, func(a *roster.AuthenticatedContent) { a.Content.Commit.Path = path.update })
		_, err := groups[1].Process(msg, time.Time{})
		wantErr(t, err, roster.ErrInvalid)
	})
	t.Run("under the old tree hash", func(t *testing.T) { // one commit has two contexts; the path's has the new tree
		g := groups[0]
		step := must(g.public.BeginOwn(0, nil, nil, noClock))
		path := must(g.suite.makePath(step, g.ID(), g.signer, nil))
		path.update.Nodes[0].Secrets[0] = must(g.suite.encryptTo(step.Tree.EncryptionKey(2), "UpdatePathNode", g.public.Context(), path.secrets[1]))
		msg := forge(t, g, good, true, func(a *roster.AuthenticatedContent) { a.Content.Commit.Path = path.update })
		_, err := groups[1].Process(msg, time.Time{})
		wantErr(t, err, ErrDecrypt)
	})
}

// TestRename: a member that commits itself another name is refused.
func TestRename(t *testing.T) {
	groups := newGroupOf(t, 2)
	good := commit(t, groups[0], CommitOptions{}).Commit
	msg := forge(t, groups[0], good, true, func(a *roster.AuthenticatedContent) {
		leaf := a.Content.Commit.Path.Leaf
		leaf.Credential = roster.BasicCredential([]byte("mallory"))
		leaf.Sign(groups[0].suite.Suite, groups[0].signer, groups[0].ID(), 0)
	})
	_, err := groups[1].Process(msg, time.Time{})
	wantErr(t, err, roster.ErrInvalid)
}

// TestRatchetMovesAfterAuthentication: forged messages use up nothing.
func TestRatchetMovesAfterAuthentication(t *testing.T) {
	groups := newGroupOf(t, 3)
	msg := must2(groups[0].Seal([]byte("hello"), []byte("aad")))
	before := snapshot(t, groups[1])
	spoil := func(edit func(m *roster.PrivateMessage)) []byte {
		m := must(roster.DecodeMessage(msg))
		edit(m.Private)
		return roster.Marshal(m)
	}
	for name, c := range map[string]struct {
		msg  []byte
		kind error
	}{
		"ciphertext end":  {spoil(func(m *roster.PrivateMessage) { m.Ciphertext[len(m.Ciphertext)-1] ^= 1 }), ErrDecrypt},
		"ciphertext head": {spoil(func(m *roster.PrivateMessage) { m.Ciphertext[0] ^= 1 }), ErrDecrypt},
		"no ciphertext":   {spoil(func(m *roster.PrivateMessage) { m.Ciphertext = nil }), ErrDecrypt},
		"aad":             {spoil(func(m *roster.PrivateMessage) { m.AuthenticatedData = []byte("other") }), ErrDecrypt},
		"sender data":     {spoil(func(m *roster.PrivateMessage) { m.EncryptedSenderData[0] ^= 1 }), ErrDecrypt},
		"group":           {spoil(func(m *roster.PrivateMessage) { m.GroupID = []byte("other") }), roster.ErrWrongGroup},
		"epoch":           {spoil(func(m *roster.PrivateMessage) { m.Epoch++ }), roster.ErrWrongEpoch},
		"kind":            {spoil(func(m *roster.PrivateMessage) { m.ContentType = roster.ContentCommit }), roster.ErrUnsupported},
	} {
		_, err := groups[1].Process(c.msg, time.Time{})
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: error %v, want %v", name, err, c.kind)
		}
	}

	// A member that knows all symmetric keys but not the signing key of another.
	for _, leaf := range []uint32{0, 3, 1 << 31} {
		g := restore(t, groups[2])
		a := g.content(roster.WirePrivateMessage, roster.ContentApplication, nil)
		a.Content.Sender.Index = leaf
		if err := a.Sign(g.suite.Suite, g.signer, g.public.Context()); err != nil {
			t.Fatal(err)
		}
		k, err := g.epoch.tree.of(0).application.take(g.suite)
		if err != nil {
			t.Fatal(err)
		}
		m := must(g.suite.sealContent(a, g.epoch.senderData, k, nil))
		_, err = groups[1].Open(roster.Marshal(&roster.Message{WireFormat: roster.WirePrivateMessage, Private: m}))
		if leaf == 0 {
			wantErr(t, err, roster.ErrSignature)
		} else {
			wantErr(t, err, roster.ErrInvalid)
		}
	}
	if groups[1].epoch.tree.of(0).application.next != 0 {
		t.Error("a forged message moved the ratchet")
	}
	if _, err := groups[1].Open(msg); err != nil {
		t.Error(err)
	}
	if bytes.Equal(snapshot(t, groups[1]), before) {
		t.Error("an opened message did not move the ratchet")
	}
}

// TestReplay: a message opens once, also after the group was stored and restored.
func TestReplay(t *testing.T) {
	groups := newGroupOf(t, 2)
	var messages [][]byte
	for i := range 4 {
		messages = append(messages, must2(groups[0].Seal([]byte{byte(i)}, nil)))
	}
	for _, i := range []int{2, 0} {
		must(groups[1].Open(messages[i]))
	}
	g := restore(t, groups[1])
	for _, i := range []int{2, 0} {
		_, err := g.Open(messages[i])
		wantErr(t, err, ErrReplayed)
	}
	for _, i := range []int{1, 3} { // skipped and new ones open
		if a, err := g.Open(messages[i]); err != nil || a.Plaintext[0] != byte(i) || a.Generation != uint32(i) {
			t.Error(a, err)
		}
	}
}

// TestForwardJump: one message cannot cost more than maxForward steps, and the refused jump costs none.
func TestForwardJump(t *testing.T) {
	groups := newGroupOf(t, 2)
	g := restore(t, groups[0])
	at := func(generation uint32) []byte {
		r := &g.epoch.tree.of(0).application
		for r.next < generation {
			if _, err := r.take(g.suite); err != nil {
				t.Fatal(err)
			}
		}
		return must2(g.Seal([]byte("far"), nil))
	}
	limit, over := at(maxForward), at(maxForward+1)
	_, err := groups[1].Open(over)
	wantErr(t, err, ErrTooFar)
	if groups[1].epoch.tree.of(0).application.next != 0 {
		t.Error("a refused jump moved the ratchet")
	}
	must(groups[1].Open(limit))
	must(groups[1].Open(over))

	// The far end of the range is refused without work.
	r := ratchet{secret: make(secret, 32)}
	for _, generation := range []uint32{1 << 31, math.MaxUint32} {
		_, _, err := r.at(g.suite, generation)
		wantErr(t, err, ErrTooFar)
	}
	r.next = math.MaxUint32
	_, err = r.take(g.suite)
	wantErr(t, err, roster.ErrInvalid)
}

// TestSkippedKeysAreBounded: beyond maxSkipped the oldest are given up.
func TestSkippedKeysAreBounded(t *testing.T) {
	groups := newGroupOf(t, 2)
	var messages [][]byte
	for range maxSkipped + 500 {
		messages = append(messages, must2(groups[0].Seal(nil, nil)))
	}
	must(groups[1].Open(messages[900]))
	must(groups[1].Open(messages[1400]))
	if n := len(groups[1].epoch.tree.of(0).application.skipped); n != maxSkipped {
		t.Errorf("%d skipped keys", n)
	}
	_, err := groups[1].Open(messages[0])
	wantErr(t, err, ErrReplayed)
	must(restore(t, groups[1]).Open(messages[500]))
}

// TestRestored: a copy that may be old seals nothing until it has committed itself a fresh leaf; others' commits do not lift
// that, nor do its own without a path.
func TestRestored(t *testing.T) {
	groups := newGroupOf(t, 3)
	old := restore(t, groups[1])
	must2(groups[1].Seal([]byte("sent before the crash"), nil))
	if old.Generation() == groups[1].Generation() {
		t.Fatal("the generations do not tell")
	}
	groups[1] = restore(t, old.Restored())
	refuse := func() {
		t.Helper()
		_, _, err := groups[1].Seal([]byte("x"), nil)
		wantErr(t, err, ErrMustCommit)
		if !groups[1].MustCommit() {
			t.Error("mark is gone")
		}
	}
	refuse()
	groups = deliver(t, groups, 0, commit(t, groups[0], CommitOptions{}))
	refuse()
	k := newPerson("x").keyPackage(t)
	groups = deliver(t, groups, 1, commit(t, groups[1], CommitOptions{NoPath: true, Add: [][]byte{k.Public}}))
	refuse()
	p := commit(t, groups[1], CommitOptions{})
	if _, _, err := p.Next().Seal(nil, nil); err != nil {
		t.Error(err)
	}
	p.Discard()
	groups = deliver(t, groups, 1, commit(t, groups[1], CommitOptions{}))
	must(groups[0].Open(must2(groups[1].Seal([]byte("again"), nil))))
}

// TestDeletion: what was used is overwritten, not merely forgotten.
func TestDeletion(t *testing.T) {
	zero := func(what string, b []byte) {
		t.Helper()
		if len(b) == 0 || !bytes.Equal(b, make([]byte, len(b))) {
			t.Errorf("%s is still there", what)
		}
	}
	g := newPerson("0").create(t)
	bob := newPerson("bob")
	k := bob.keyPackage(t)
	initKey, leafKey := k.initKey.private, k.leafKey.private
	p := commit(t, g, CommitOptions{Add: [][]byte{k.Public}})
	old := g.epoch
	root, init, exporter := old.tree.nodes[0], old.init, old.exporter
	var own secret
	for _, private := range old.keys {
		own = private
	}
	a := must(p.Merge())
	zero("tree secret", root)
	zero("init secret", init)
	zero("exporter secret", exporter)
	zero("old leaf key", own)
	b := bob.join(t, p.Welcome, k)
	zero("init key", initKey)
	zero("key package's leaf key", leafKey)
	_, err := Join(p.Welcome, k, JoinOptions{Signer: bob.signer})
	wantErr(t, err, ErrKeyUsed)
	_, err = k.MarshalBinary()
	wantErr(t, err, ErrKeyUsed)

	chain := a.epoch.tree.of(0).application.secret
	msg := must2(a.Seal([]byte("x"), nil))
	zero("chain secret of the sender", chain)
	chain = b.epoch.tree.of(0).application.secret
	must(b.Open(msg))
	zero("chain secret of the reader", chain)

	p = commit(t, a, CommitOptions{})
	next := p.next.epoch
	p.Discard()
	zero("discarded epoch", next.init)
	if _, err := p.Merge(); !errors.Is(err, ErrEpochOver) {
		t.Errorf("merged what was discarded: %v", err)
	}
}

// TestOverIsOver: an old epoch's group does nothing more.
func TestOverIsOver(t *testing.T) {
	groups := newGroupOf(t, 2)
	old := groups[0]
	p, lost := commit(t, old, CommitOptions{}), commit(t, old, CommitOptions{})
	must(p.Merge())
	_, err := lost.Merge()
	wantErr(t, err, ErrEpochOver)
	_, _, err = old.Seal(nil, nil)
	wantErr(t, err, ErrEpochOver)
	_, err = old.Process(p.Commit, time.Time{})
	wantErr(t, err, ErrEpochOver)
	_, err = old.Commit(CommitOptions{})
	wantErr(t, err, ErrEpochOver)
	_, err = old.Export("x", nil, 32)
	wantErr(t, err, ErrEpochOver)
	_, err = old.MarshalBinary()
	wantErr(t, err, ErrEpochOver)
	_, _, err = old.ProposeUpdate(nil)
	wantErr(t, err, ErrEpochOver)
	if old.Generation() != 0 || old.Roster().Epoch() != old.Epoch() {
		t.Error("public view is gone")
	}
}

// TestRace: of two commits in one epoch the loser discards, follows the winner, and commits again; it learns which pending
// proposals the winner left out.
func TestRace(t *testing.T) {
	groups := newGroupOf(t, 3)
	msg, next, err := groups[2].ProposeUpdate([]byte("mine"))
	if err != nil {
		t.Fatal(err)
	}
	groups[2] = next
	winner := commit(t, groups[0], CommitOptions{}) // has not seen the proposal
	for i := range 2 {
		groups[i] = process(t, groups[i], msg).Group
	}
	loser := commit(t, groups[1], CommitOptions{})
	if len(loser.Change().Updated) != 2 {
		t.Error("pending proposal not taken up")
	}
	loser.Discard()
	staged := process(t, groups[2], winner.Commit).Commit
	if d := staged.Change().Dropped; len(d) != 1 || string(d[0].AuthenticatedData) != "mine" {
		t.Errorf("dropped %+v", d)
	}
	staged.Discard()
	groups = deliver(t, groups, 0, winner)
	_, err = groups[0].Process(loser.Commit, time.Time{})
	wantErr(t, err, roster.ErrWrongEpoch)
	deliver(t, groups, 1, commit(t, groups[1], CommitOptions{}))
}

// TestFork: if a server shows two commits of one epoch to two members, their trees may be alike but the authenticators are
// not, and neither reads the other.
func TestFork(t *testing.T) {
	groups := newGroupOf(t, 3)
	left, right := commit(t, groups[0], CommitOptions{}), commit(t, groups[0], CommitOptions{})
	one := must(process(t, groups[1], left.Commit).Commit.Merge())
	two := must(process(t, groups[2], right.Commit).Commit.Merge())
	if bytes.Equal(one.EpochAuthenticator(), two.EpochAuthenticator()) {
		t.Error("the fork does not show")
	}
	_, err := two.Open(must2(one.Seal([]byte("x"), nil)))
	wantErr(t, err, ErrDecrypt)

	// The same tree with other secrets, as after NoPath commits that differ in their authenticated data alone.
	groups = newGroupOf(t, 3)
	k := newPerson("x").keyPackage(t)
	o := CommitOptions{NoPath: true, Add: [][]byte{k.Public}, AuthenticatedData: []byte("left")}
	left = commit(t, groups[0], o)
	o.AuthenticatedData = []byte("right")
	right = commit(t, groups[0], o)
	same(t, "tree hash", left.Next().Roster().TreeHash(), right.Next().Roster().TreeHash())
	if bytes.Equal(left.Next().EpochAuthenticator(), right.Next().EpochAuthenticator()) {
		t.Error("the fork does not show")
	}
}

// TestPendingSurvivesCrash: a commit that left the device before a crash is merged after it.
func TestPendingSurvivesCrash(t *testing.T) {
	groups := newGroupOf(t, 2)
	k := newPerson("x").keyPackage(t)
	p := commit(t, groups[0], CommitOptions{Add: [][]byte{k.Public}})
	state, pending := snapshot(t, groups[0]), must(p.MarshalBinary())

	g := must(UnmarshalGroup(state, groups[0].signer))
	again, err := UnmarshalPending(pending, g)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "commit", again.Commit, p.Commit)
	same(t, "welcome", again.Welcome, p.Welcome)
	if len(again.Change().Added) != 1 {
		t.Error("change is gone")
	}
	x := newPerson("x").join(t, again.Welcome, k)
	deliver(t, []*Group{g, groups[1]}, 0, again)
	same(t, "authenticator", x.EpochAuthenticator(), again.next.EpochAuthenticator())
	_, err = UnmarshalPending(pending, newGroupOf(t, 2)[0])
	if err == nil {
		t.Error("accepted for another group")
	}
	for i := range pending {
		if _, err := UnmarshalPending(pending[:i], groups[0]); err == nil {
			t.Fatalf("accepted %d of %d bytes", i, len(pending))
		}
	}
}

// TestPendingProposals: what a commit takes up and what it leaves.
func TestPendingProposals(t *testing.T) {
	groups := newGroupOf(t, 5)
	send := func(from int, msg []byte, next *Group, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		groups[from] = next
		for i := range groups {
			if i != from {
				groups[i] = process(t, groups[i], msg).Group
			}
		}
	}
	update := func(from int) {
		t.Helper()
		msg, next, err := groups[from].ProposeUpdate(nil)
		send(from, msg, next, err)
	}
	remove := func(from int, leaf uint32) {
		t.Helper()
		msg, next, err := groups[from].ProposeRemove(leaf, nil)
		send(from, msg, next, err)
	}
	update(0)    // the committer's own
	update(1)    // superseded
	update(1)    // taken
	update(2)    // yields to the removal
	remove(3, 2) // taken
	remove(4, 2) // the same again
	remove(4, 0) // of the committer
	groups[0] = restore(t, groups[0])
	groups[1] = restore(t, groups[1])
	p := commit(t, groups[0], CommitOptions{Remove: []uint32{2}})
	c := p.Change()
	if len(c.Proposals) != 2 || len(c.Removed) != 1 || c.Removed[0].Leaf != 2 || len(c.Updated) != 2 || len(c.Dropped) != 5 {
		t.Errorf("%d proposals, %d removed, %d updated, %d dropped", len(c.Proposals), len(c.Removed), len(c.Updated), len(c.Dropped))
	}
	ignoring := commit(t, groups[0], CommitOptions{IgnorePending: true})
	if len(ignoring.Change().Proposals) != 0 {
		t.Error("took up what it should ignore")
	}
	groups = deliver(t, groups, 0, p)
	must(groups[1].Open(must2(groups[0].Seal([]byte("with a fresh key"), nil))))
	deliver(t, groups, 1, commit(t, groups[1], CommitOptions{}))
}

// TestRemovedReadsNothing: who is removed learns of it and can open nothing more.
func TestRemovedReadsNothing(t *testing.T) {
	groups := newGroupOf(t, 3)
	spy := restore(t, groups[2])
	p := commit(t, groups[0], CommitOptions{Remove: []uint32{2}})
	staged := process(t, groups[2], p.Commit).Commit
	if !staged.Removed() || staged.Next() != nil || len(staged.Change().Removed) != 1 {
		t.Error("removal not told")
	}
	_, err := staged.Merge()
	wantErr(t, err, ErrRemoved)
	groups = deliver(t, groups[:2], 0, p)
	_, err = spy.Open(must2(groups[0].Seal([]byte("x"), nil)))
	wantErr(t, err, roster.ErrWrongEpoch)
	// Even with the frame of its own epoch the ciphertext does not open.
	m := must(roster.DecodeMessage(must2(groups[0].Seal([]byte("x"), nil))))
	m.Private.Epoch = spy.Epoch()
	_, err = spy.Open(roster.Marshal(m))
	wantErr(t, err, ErrDecrypt)
}

// TestEarlierStaysClosed: who joins reads nothing of before.
func TestEarlierStaysClosed(t *testing.T) {
	groups := newGroupOf(t, 2)
	earlier := must2(groups[0].Seal([]byte("before"), nil))
	x := newPerson("x")
	k := x.keyPackage(t)
	p := commit(t, groups[0], CommitOptions{Add: [][]byte{k.Public}})
	g := x.join(t, p.Welcome, k)
	_, err := g.Open(earlier)
	wantErr(t, err, roster.ErrWrongEpoch)
	m := must(roster.DecodeMessage(earlier))
	m.Private.Epoch = g.Epoch()
	_, err = g.Open(roster.Marshal(m))
	wantErr(t, err, ErrDecrypt)
}

// TestRefusedMessages: messages that are well formed and not for Process or Open.
func TestRefusedMessages(t *testing.T) {
	groups := newGroupOf(t, 2)
	k := newPerson("x").keyPackage(t)
	p := commit(t, groups[0], CommitOptions{Add: [][]byte{k.Public}})
	sealed := must2(groups[0].Seal([]byte("x"), nil))
	private := func() []byte { // a commit as PrivateMessage
		g := restore(t, groups[0])
		a := g.content(roster.WirePrivateMessage, roster.ContentCommit, nil)
		a.Content.Commit = &roster.Commit{}
		a.Sign(g.suite.Suite, g.signer, g.public.Context())
		k := must(g.epoch.tree.of(0).handshake.take(g.suite))
		m := must(g.suite.sealContent(a, g.epoch.senderData, k, nil))
		return roster.Marshal(&roster.Message{WireFormat: roster.WirePrivateMessage, Private: m})
	}()
	application := func() []byte { // application data as PublicMessage
		a := groups[0].content(roster.WirePublicMessage, roster.ContentApplication, nil)
		a.Content.Application = []byte("x")
		a.Sign(groups[0].suite.Suite, groups[0].signer, groups[0].public.Context())
		return groups[0].publish(a)
	}()
	for _, c := range []struct {
		name string
		g    *Group
		msg  []byte
		kind error
	}{
		{"welcome", groups[1], p.Welcome, roster.ErrInvalid},
		{"key package", groups[1], k.Public, roster.ErrInvalid},
		{"own commit", groups[0], p.Commit, ErrOwnMessage},
		{"own message", groups[0], sealed, ErrOwnMessage},
		{"private commit", groups[1], private, roster.ErrUnsupported},
		{"public application data", groups[1], application, roster.ErrInvalid},
		{"nothing", groups[1], nil, roster.ErrMalformed},
	} {
		_, err := c.g.Process(c.msg, time.Time{})
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.kind)
		}
	}
	_, err := groups[1].Open(p.Commit)
	wantErr(t, err, roster.ErrInvalid)
	_, err = groups[1].ProcessWith(private, ProcessOptions{PrivateHandshakes: true})
	wantErr(t, err, roster.ErrInvalid) // opened, and then refused for want of a path
	_, _, err = groups[0].Seal(make([]byte, MaxPlaintext+1), nil)
	wantErr(t, err, roster.ErrInvalid)
	for _, n := range []int{-1, 0, 255*32 + 1} {
		_, err = groups[0].Export("x", nil, n)
		wantErr(t, err, roster.ErrInvalid)
	}
	_, err = groups[0].Commit(CommitOptions{Add: [][]byte{k.Public}})
	wantErr(t, err, roster.ErrInvalid) // no clock
	_, err = groups[0].Commit(CommitOptions{Add: [][]byte{k.Public}, Now: testNow.Add(365 * 24 * time.Hour)})
	wantErr(t, err, roster.ErrInvalid) // outdated
	_, err = groups[0].Commit(CommitOptions{Add: [][]byte{p.Welcome}, Now: testNow})
	wantErr(t, err, roster.ErrInvalid)
}

// TestRefusedWelcomes: a Welcome that is not for us, altered, or does not fit its group.
func TestRefusedWelcomes(t *testing.T) {
	g := newGroupOf(t, 3)[0]
	x, y := newPerson("x"), newPerson("y")
	k := x.keyPackage(t)
	stored := must(k.MarshalBinary())
	p := commit(t, g, CommitOptions{Add: [][]byte{k.Public}})
	signer := JoinOptions{Signer: x.signer}
	edit := func(f func(m *roster.Welcome)) []byte {
		m := must(roster.DecodeMessage(p.Welcome))
		f(m.Welcome)
		return roster.Marshal(m)
	}
	// rewelcome makes a Welcome for x around another GroupInfo and other secrets, as the adder could.
	rewelcome := func(info func(*roster.GroupInfo), told func(*groupSecrets)) []byte {
		return edit(func(m *roster.Welcome) {
			k := must(UnmarshalKeyPackage(stored))
			s := must(k.openSecrets(m))
			i := must(g.suite.openGroupInfo(m, s.joiner, make(secret, 32)))
			if info != nil {
				info(i)
				i.Sign(g.suite.Suite, g.signer)
			}
			if told != nil {
				told(&s)
			}
			member := g.suite.extract(s.joiner, make(secret, 32))
			welcome := g.suite.derive(member, "welcome")
			m.EncryptedGroupInfo = must(g.suite.seal(g.suite.welcomeKey(welcome), g.suite.welcomeNonce(welcome), roster.Marshal(i), nil))
			m.Secrets[0].Secrets = must(g.suite.encryptTo(k.initKey.public, "Welcome", m.EncryptedGroupInfo, roster.Marshal(&s)))
		})
	}
	for _, c := range []struct {
		name    string
		welcome []byte
		o       JoinOptions
		kind    error
	}{
		{"a commit", p.Commit, signer, roster.ErrInvalid},
		{"other suite", edit(func(m *roster.Welcome) { m.Suite = 2 }), signer, roster.ErrUnsupported},
		{"for nobody", edit(func(m *roster.Welcome) { m.Secrets = nil }), signer, ErrNotForUs},
		{"other reference", edit(func(m *roster.Welcome) { m.Secrets[0].NewMember[0] ^= 1 }), signer, ErrNotForUs},
		{"spoiled secrets", edit(func(m *roster.Welcome) { m.Secrets[0].Secrets.Ciphertext[0] ^= 1 }), signer, ErrDecrypt},
		{"spoiled group info", edit(func(m *roster.Welcome) { m.EncryptedGroupInfo[0] ^= 1 }), signer, ErrDecrypt},
		{"signer of another", p.Welcome, JoinOptions{Signer: y.signer}, roster.ErrInvalid},
		{"no signer", p.Welcome, JoinOptions{}, roster.ErrInvalid},
		{"other tree", p.Welcome, JoinOptions{Signer: x.signer, RatchetTree: roster.Marshal(g.public.Tree())}, roster.ErrInvalid},
		{"confirmation tag", rewelcome(func(i *roster.GroupInfo) { i.ConfirmationTag[0] ^= 1 }, nil), signer, ErrTag},
		{"short confirmation tag", rewelcome(func(i *roster.GroupInfo) { i.ConfirmationTag = i.ConfirmationTag[:31] }, nil), signer, ErrTag},
		{"other epoch", rewelcome(func(i *roster.GroupInfo) { i.Context.Epoch++ }, nil), signer, ErrTag},
		{"signed by another", rewelcome(func(i *roster.GroupInfo) { i.Signer = 1 }, nil), signer, roster.ErrSignature},
		{"path secret", rewelcome(nil, func(s *groupSecrets) { s.path[0] ^= 1 }), signer, roster.ErrInvalid},
		{"short path secret", rewelcome(nil, func(s *groupSecrets) { s.path = s.path[1:] }), signer, roster.ErrInvalid},
		{"other joiner secret", rewelcome(nil, func(s *groupSecrets) { s.joiner[0] ^= 1 }), signer, ErrTag},
		{"short joiner secret", rewelcome(nil, func(s *groupSecrets) { s.joiner = s.joiner[1:] }), signer, roster.ErrInvalid},
		{"unknown pre-shared key", rewelcome(nil, func(s *groupSecrets) {
			s.psks = []roster.PreSharedKeyID{{Type: roster.PSKExternal, ID: []byte("x"), Nonce: make([]byte, 32)}}
		}), signer, ErrUnknownPSK},
		{"branch", rewelcome(nil, func(s *groupSecrets) {
			s.psks = []roster.PreSharedKeyID{{Type: roster.PSKResumption, Usage: 3, Nonce: make([]byte, 32)}}
		}), signer, roster.ErrUnsupported},
	} {
		k := must(UnmarshalKeyPackage(stored))
		_, err := Join(c.welcome, k, c.o)
		if !errors.Is(err, c.kind) {
			t.Errorf("%s: error %v, want %v", c.name, err, c.kind)
		}
		if k.initKey.private == nil {
			t.Errorf("%s: a failed join used up the key package", c.name)
		}
	}
	same(t, "authenticator", must(Join(p.Welcome, must(UnmarshalKeyPackage(stored)), signer)).EpochAuthenticator(), p.Next().EpochAuthenticator())
}

// TestLastResort: such a KeyPackage serves twice.
func TestLastResort(t *testing.T) {
	x := newPerson("x")
	o := x.options()
	o.LastResort = true
	k := must(NewKeyPackage(o))
	if info := must(roster.InspectKeyPackage(k.Public, testNow)); !info.LastResort || !k.LastResort() {
		t.Error("mark is missing")
	}
	for range 2 {
		p := commit(t, newPerson("0").create(t), CommitOptions{Add: [][]byte{k.Public}})
		x.join(t, p.Welcome, k)
	}
}

// TestNoSecretInPrint: neither errors nor printed structures hold key material.
func TestNoSecretInPrint(t *testing.T) {
	groups := newGroupOf(t, 2)
	s := secret{0xde, 0xad, 0xbe, 0xef}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		if text := fmt.Sprintf(verb, s); text != "secret" {
			t.Errorf("a secret prints as %q", text)
		}
	}
	if text := string(must(json.Marshal(s))); text != `"secret"` || s.String() != "secret" {
		t.Errorf("a secret marshals as %s", text)
	}
	e := groups[0].epoch
	k := newPerson("x").keyPackage(t)
	p := commit(t, groups[0], CommitOptions{})
	staged := process(t, groups[1], p.Commit).Commit
	known := []secret{k.initKey.private, k.leafKey.private, p.next.epoch.init, staged.next.epoch.init}
	for _, s := range e.all() {
		known = append(known, *s)
	}
	for _, private := range e.keys {
		known = append(known, private)
	}
	leaks := func(text string) bool {
		for _, s := range known {
			if strings.Contains(strings.ToLower(text), hex.EncodeToString(s)) || strings.Contains(text, string(s)) ||
				strings.Contains(text, strings.Trim(fmt.Sprint([]byte(s)), "[]")) {
				return true
			}
		}
		return false
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, x := range []any{groups[0], *groups[0], k, *k, p, *p, staged, *staged, e.keys, struct{ G *Group }{groups[0]}} {
			if leaks(fmt.Sprintf(verb, x)) {
				t.Errorf("%s of %T prints secrets", verb, x)
			}
		}
	}
	// Errors from the inside: of a spoiled message and a spoiled snapshot.
	b := snapshot(t, groups[0])
	for i := range b {
		_, err := UnmarshalGroup(b[:i], groups[0].signer)
		if err == nil {
			t.Fatalf("accepted %d of %d bytes", i, len(b))
		}
		if leaks(err.Error()) {
			t.Fatal("an error holds a secret")
		}
	}
}

// TestRefusedSnapshots: a stored group that was altered is refused or harmless.
func TestRefusedSnapshots(t *testing.T) {
	groups := newGroupOf(t, 4)
	must(groups[0].Open(must2(groups[1].Seal([]byte("x"), nil))))
	b := snapshot(t, groups[0])
	_, err := UnmarshalGroup(b, groups[1].signer)
	wantErr(t, err, roster.ErrInvalid)
	_, err = UnmarshalGroup(b, ed25519.PrivateKey{})
	wantErr(t, err, roster.ErrInvalid)
	for i := range b {
		spoiled := bytes.Clone(b)
		spoiled[i] ^= 0x41
		if g, err := UnmarshalGroup(spoiled, groups[0].signer); err == nil {
			g.Seal([]byte("x"), nil)
			g.Generation()
			g.Open(must2(restore(t, groups[2]).Seal([]byte("x"), nil)))
		}
	}
}
