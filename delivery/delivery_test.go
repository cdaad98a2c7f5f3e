package delivery

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/store"
)

func TestMessagesGoFromOneToTheOther(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	for n := range 20 {
		got, err := w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, fmt.Sprint("hello ", n)), DedupKey: newKey()})
		must(t, err)
		if got.Seq != uint64(n+2) || got.Epoch != 1 || got.At != w.now.UnixMilli() {
			t.Fatalf("answer %+v", got)
		}
	}
	w.restart()
	log := w.whole(bob, id)
	if len(log) != 21 || log[0].Kind != api.KindCommit {
		t.Fatalf("%d entries, the first of kind %d", len(log), log[0].Kind)
	}
	for n, e := range log[1:] {
		m, err := bob.group.Open(e.Body)
		must(t, err)
		if string(m.Plaintext) != fmt.Sprint("hello ", n) {
			t.Errorf("message %d opens as %q", n, m.Plaintext)
		}
	}
	list, err := w.ListConversations(bob.ctx())
	must(t, err)
	if len(list.Conversations) != 1 || list.Conversations[0].LastSeq != 21 || list.Conversations[0].Kind != grant.Shared || list.Conversations[0].Partner != "flimmer" {
		t.Errorf("list: %+v", list)
	}
	for p, want := range map[*person]uint64{alice: 20, bob: 0} {
		if n, err := w.OwnCount(p.ctx(), id); err != nil || n.Epoch != 1 || n.Count != want {
			t.Errorf("%s sent %+v, %v; want %d", p.caller.Handle, n, err, want)
		}
	}
}

func TestFoundingIsRefused(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	try := func(what string, kind chat.Kind, change func(*mls.CreateOptions)) {
		t.Helper()
		id := chat.NewConversationID()
		o := w.createOptions(alice, id)
		change(&o)
		g, err := mls.Create(o)
		must(t, err)
		info, err := g.GroupInfo()
		must(t, err)
		_, err = w.Found(alice.ctx(), api.NewConversation{GroupInfo: info})
		refused(t, err, kind, what)
	}
	_, other, _ := ed25519.GenerateKey(rand.Reader)
	try("somebody else's identity", chat.Forbidden, func(o *mls.CreateOptions) { o.Identity = bob.identity() })
	try("a key that is not the device's", chat.Forbidden, func(o *mls.CreateOptions) { o.Signer = other })
	try("a short group id", chat.Invalid, func(o *mls.CreateOptions) { o.GroupID = o.GroupID[:15] })
	try("no letterlock extension", chat.Invalid, func(o *mls.CreateOptions) { o.Extensions = o.Extensions[1:] })
	try("no external sender", chat.Invalid, func(o *mls.CreateOptions) { o.Extensions = o.Extensions[:1] })
	sender := roster.ExternalSender{SignatureKey: other.Public().(ed25519.PublicKey), Credential: roster.BasicCredential([]byte("x"))}
	try("another external sender", chat.Invalid, func(o *mls.CreateOptions) { o.Extensions[1] = roster.ExternalSendersExtension(sender) })
	try("two external senders", chat.Invalid, func(o *mls.CreateOptions) {
		ours := roster.ExternalSender{SignatureKey: w.ServerKey.Public().(ed25519.PublicKey), Credential: roster.BasicCredential([]byte("x"))}
		o.Extensions[1] = roster.ExternalSendersExtension(ours, sender)
	})
	w.SetHooks(Hooks{JudgeFound: func(*roster.Group, api.Caller) error { return chat.Errorf(chat.Forbidden, "no") }})
	try("what the hook refuses", chat.Forbidden, func(*mls.CreateOptions) {})
	w.SetHooks(Hooks{})

	_, err := w.Found(alice.ctx(), api.NewConversation{GroupInfo: []byte("nonsense")})
	refused(t, err, chat.Invalid, "no group info")
	_, err = w.Found(alice.ctx(), api.NewConversation{GroupInfo: make([]byte, maxFounding+1)})
	refused(t, err, chat.TooLarge, "too large")
	_, err = w.Found(context.Background(), api.NewConversation{})
	refused(t, err, chat.Unauthenticated, "nobody")

	// A group that has members already is not a founding.
	id := w.found(alice, bob)
	info, err := alice.group.GroupInfo()
	must(t, err)
	_, err = w.Found(alice.ctx(), api.NewConversation{GroupInfo: info})
	refused(t, err, chat.Invalid, "a group in epoch 1")

	// The same founding again is answered as before; another with the same id is not.
	fresh := chat.NewConversationID()
	g, err := mls.Create(w.createOptions(alice, fresh))
	must(t, err)
	info, err = g.GroupInfo()
	must(t, err)
	for range 2 {
		c, err := w.Found(alice.ctx(), api.NewConversation{GroupInfo: info})
		if err != nil || c.ID != fresh || c.LastSeq != 0 {
			t.Fatalf("got %+v, %v", c, err)
		}
	}
	g, err = mls.Create(w.createOptions(bob, id))
	must(t, err)
	info, err = g.GroupInfo()
	must(t, err)
	_, err = w.Found(bob.ctx(), api.NewConversation{GroupInfo: info})
	refused(t, err, chat.Exists, "a taken id")
}

func TestSendingIsRefused(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	id, other := w.found(alice, bob), w.found(carol)
	before := len(w.whole(alice, id))
	good := w.seal(bob, "x")
	send := func(what string, p *person, c chat.ConversationID, message, key []byte, kind chat.Kind) {
		t.Helper()
		_, err := w.SendMessage(p.ctx(), c, api.Message{Message: message, DedupKey: key})
		refused(t, err, kind, what)
	}
	send("a stranger", carol, id, good, newKey(), chat.NotFound)
	send("no such conversation", bob, chat.NewConversationID(), good, newKey(), chat.Invalid)
	send("a message for another group", carol, other, good, newKey(), chat.Invalid)
	send("no key", bob, id, good, nil, chat.Invalid)
	send("a long key", bob, id, good, make([]byte, 17), chat.Invalid)
	send("nonsense", bob, id, []byte("nonsense"), newKey(), chat.Invalid)
	send("too large", bob, id, make([]byte, api.MaxMessage+1), newKey(), chat.TooLarge)
	_, err := w.SendMessage(context.Background(), id, api.Message{Message: good, DedupKey: newKey()})
	refused(t, err, chat.Unauthenticated, "nobody")

	handshake, err := roster.InspectMessage(good)
	must(t, err)
	private := roster.Message{WireFormat: roster.WirePrivateMessage, Private: &roster.PrivateMessage{GroupID: id[:], Epoch: handshake.Epoch,
		ContentType: roster.ContentCommit, EncryptedSenderData: make([]byte, 28), Ciphertext: make([]byte, 100)}}
	send("a handshake as PrivateMessage", bob, id, roster.Marshal(&private), newKey(), chat.Invalid)
	pending := w.prepare(alice, mls.CommitOptions{})
	send("a commit as a message", alice, id, pending.Commit, newKey(), chat.Invalid)
	pending.Discard()

	// A second device of Alice's that is in no leaf may not send either.
	tablet := w.device("alice", alice.caller.Account)
	send("a device without a leaf", tablet, id, good, newKey(), chat.NotFound)

	// bob is in epoch 1; alice moves on.
	pending = w.prepare(alice, mls.CommitOptions{})
	_, err = w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, DedupKey: newKey()})
	must(t, err)
	send("an old epoch", bob, id, good, newKey(), chat.StaleEpoch)
	if got := len(w.whole(alice, id)); got != before+1 {
		t.Errorf("%d entries, want %d", got, before+1)
	}
}

// TestTheSameKeyAnswersTheSame is what lets a client that lost an answer send again.
func TestTheSameKeyAnswersTheSame(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	m := api.Message{Message: w.seal(bob, "once"), DedupKey: newKey()}
	first, err := w.SendMessage(bob.ctx(), id, m)
	must(t, err)
	again := func(when string) {
		t.Helper()
		got, err := w.SendMessage(bob.ctx(), id, m)
		if err != nil || got != first {
			t.Errorf("%s: %+v, %v; want %+v", when, got, err, first)
		}
	}
	again("at once")
	w.restart()
	again("after a restart")
	_, err = w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "twice"), DedupKey: m.DedupKey})
	refused(t, err, chat.Mismatch, "other bytes under the same key")
	_, err = w.SendMessage(alice.ctx(), id, api.Message{Message: m.Message, DedupKey: m.DedupKey})
	refused(t, err, chat.Mismatch, "another sender under the same key")

	commit := api.Commit{DedupKey: newKey()}
	pending := w.prepare(alice, mls.CommitOptions{})
	commit.Commit = pending.Commit
	won, err := w.Commit(alice.ctx(), id, commit)
	must(t, err)
	if won.Epoch != 2 {
		t.Fatalf("the commit led to epoch %d", won.Epoch)
	}
	if got, err := w.Commit(alice.ctx(), id, commit); err != nil || got != won {
		t.Errorf("the commit again: %+v, %v; want %+v", got, err, won)
	}
	again("in the next epoch")
	must(t, w.DeleteMessage(bob.ctx(), id, first.Seq))
	again("after it was deleted")
	_, err = w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "twice"), DedupKey: m.DedupKey})
	refused(t, err, chat.Mismatch, "other bytes, deleted and of an old epoch")
	if got := len(w.whole(alice, id)); got != 3 {
		t.Errorf("%d entries, want 3", got)
	}
}

func TestTheSameKeyManyTimesAtOnce(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	m := api.Message{Message: w.seal(bob, "once"), DedupKey: newKey()}
	var all sync.WaitGroup
	seqs := make([]uint64, 32)
	for n := range seqs {
		message := m
		if n%4 == 3 { // among others
			message = api.Message{Message: w.seal(bob, "other"), DedupKey: newKey()}
		}
		all.Go(func() {
			got, err := w.SendMessage(bob.ctx(), id, message)
			if err != nil {
				t.Error(err)
			}
			seqs[n] = got.Seq
		})
	}
	all.Wait()
	for n := range seqs {
		if n%4 != 3 && seqs[n] != seqs[0] {
			t.Errorf("answers %d and %d for one key", seqs[n], seqs[0])
		}
	}
	if got := len(w.whole(alice, id)); got != 1+1+8 {
		t.Errorf("%d entries, want 10", got)
	}
}

func TestOneCommitForEachEpoch(t *testing.T) {
	w := newWorld(t)
	people := []*person{w.person("alice"), w.person("bob"), w.person("carol"), w.person("dan")}
	id := w.found(people...)
	founder := people[0]
	for range 5 {
		// All race from the same epoch; who joined earlier catches up first.
		epoch := founder.group.Epoch()
		var all sync.WaitGroup
		errs := make([]error, len(people))
		pendings := make([]*mls.Pending, len(people))
		for n, p := range people {
			w.catchUp(id, p)
			if p.group.Epoch() != epoch {
				t.Fatalf("%s is in epoch %d", p.caller.Handle, p.group.Epoch())
			}
			pendings[n] = w.prepare(p, mls.CommitOptions{})
		}
		for n, p := range people {
			all.Go(func() {
				_, errs[n] = w.Commit(p.ctx(), id, api.Commit{Commit: pendings[n].Commit, DedupKey: newKey()})
			})
		}
		all.Wait()
		winner := -1
		for n, err := range errs {
			switch {
			case err == nil && winner >= 0:
				t.Fatal("two commits were taken in one epoch")
			case err == nil:
				winner = n
			default:
				refused(t, err, chat.StaleEpoch, "a loser")
				pendings[n].Discard()
			}
		}
		if winner < 0 {
			t.Fatal("no commit was taken")
		}
		var err error
		people[winner].group, err = pendings[winner].Merge()
		must(t, err)
		for _, p := range people {
			w.catchUp(id, p)
		}
		for _, p := range people[1:] {
			if !bytes.Equal(p.group.EpochAuthenticator(), founder.group.EpochAuthenticator()) {
				t.Fatal("the group forked")
			}
		}
	}
}

// catchUp processes the commits of the log from the person's epoch on.
func (w *world) catchUp(id chat.ConversationID, p *person) {
	w.t.Helper()
	for _, e := range w.whole(p, id) {
		if e.Epoch < p.group.Epoch() || e.Kind != api.KindCommit && e.Kind != api.KindProposal {
			continue
		}
		got, err := p.group.Process(e.Body, w.now)
		must(w.t, err)
		if got.Commit == nil {
			p.group = got.Group
			continue
		}
		p.group, err = got.Commit.Merge()
		must(w.t, err)
	}
}

func TestCommitsAreRefused(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	id := w.found(alice, bob)
	before := len(w.whole(alice, id))
	commit := func(what string, p *person, r api.Commit, kind chat.Kind) {
		t.Helper()
		if r.DedupKey == nil {
			r.DedupKey = newKey()
		}
		_, err := w.Commit(p.ctx(), id, r)
		refused(t, err, kind, what)
	}
	plain := w.prepare(alice, mls.CommitOptions{})
	commit("a stranger's", carol, api.Commit{Commit: plain.Commit}, chat.NotFound)
	commit("somebody else's", bob, api.Commit{Commit: plain.Commit}, chat.Forbidden)
	commit("a Welcome for nobody", alice, api.Commit{Commit: plain.Commit, Welcome: []byte("x")}, chat.Invalid)
	commit("nonsense", alice, api.Commit{Commit: []byte("nonsense")}, chat.Invalid)
	commit("a message", alice, api.Commit{Commit: w.seal(alice, "x")}, chat.Invalid)
	commit("too large", alice, api.Commit{Commit: make([]byte, api.MaxCommit+1)}, chat.TooLarge)
	commit("a Welcome too large", alice, api.Commit{Commit: plain.Commit, Welcome: make([]byte, api.MaxWelcome+1)}, chat.TooLarge)
	commit("an announcement too large", alice, api.Commit{Commit: plain.Commit, Slot: make([]byte, maxSlotAnnounce+1)}, chat.TooLarge)
	commit("too many revocations", alice, api.Commit{Commit: plain.Commit, Revocations: make([][]byte, maxRevocations+1)}, chat.TooMany)
	commit("no key", alice, api.Commit{Commit: plain.Commit, DedupKey: []byte{1}}, chat.Invalid)
	bad := bytes.Clone(plain.Commit)
	bad[len(bad)/2] ^= 1
	commit("a byte changed", alice, api.Commit{Commit: bad}, chat.Invalid)
	plain.Discard()

	kp := w.keyPackage(carol.identity(), carol.key)
	add := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	commit("no Welcome", alice, api.Commit{Commit: add.Commit}, chat.Invalid)
	another := w.prepare(alice, mls.CommitOptions{Add: [][]byte{w.keyPackage(carol.identity(), carol.key).Public}})
	commit("a Welcome for another KeyPackage", alice, api.Commit{Commit: add.Commit, Welcome: another.Welcome}, chat.Invalid)
	another.Discard()
	carol.gone = true
	commit("a device that is in no key chain", alice, api.Commit{Commit: add.Commit, Welcome: add.Welcome}, chat.NotFound)
	carol.gone = false
	add.Discard()

	_, stolen, _ := ed25519.GenerateKey(rand.Reader)
	add = w.prepare(alice, mls.CommitOptions{Add: [][]byte{w.keyPackage(carol.identity(), stolen).Public}})
	commit("a leaf with another key than the chain's", alice, api.Commit{Commit: add.Commit, Welcome: add.Welcome}, chat.Forbidden)
	add.Discard()
	foreign := []byte(chat.DeviceURI("elsewhere.example", "carol", carol.caller.Device))
	add = w.prepare(alice, mls.CommitOptions{Add: [][]byte{w.keyPackage(foreign, carol.key).Public}})
	commit("a person of another server", alice, api.Commit{Commit: add.Commit, Welcome: add.Welcome}, chat.Invalid)
	add.Discard()

	// Nobody may change who speaks from outside.
	none := w.extensions(grant.NewThread(host, "flimmer"))[:1]
	swap := w.prepare(alice, mls.CommitOptions{Extensions: &none})
	commit("without the server's key", alice, api.Commit{Commit: swap.Commit}, chat.Invalid)
	swap.Discard()

	if got := len(w.whole(alice, id)); got != before {
		t.Errorf("%d entries, want %d", got, before)
	}
	box, err := w.Welcomes(carol.ctx(), 0)
	if err != nil || len(box.Welcomes) != 0 {
		t.Errorf("refused commits left %d Welcomes, %v", len(box.Welcomes), err)
	}
	w.add(id, alice, carol) // and a good one is still taken
}

// TestHooksDecideInTheTransaction: what a hook refuses leaves nothing behind, whatever was written before.
func TestHooksDecideInTheTransaction(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice)
	refusal := chat.Errorf(chat.Unproven, "no proof")
	var judged, committed, after int
	var fail error
	w.SetHooks(Hooks{
		JudgeCommit: func(_ *store.Tx, c chat.ConversationID, change *roster.Change, r api.Commit, caller api.Caller) error {
			judged++
			if c != id || change.Epoch != 1 || caller != alice.caller || len(change.Added) != 1 {
				t.Errorf("judged %s, epoch %d, by %v", c, change.Epoch, caller)
			}
			if judged == 1 {
				return refusal
			}
			return nil
		},
		Committed: func(tx *store.Tx, c chat.ConversationID, _ *roster.Change, _ api.Commit, seq uint64) error {
			committed++
			if seq != 1 {
				t.Errorf("committed as %d", seq)
			}
			return fail
		},
		After: func(chat.ConversationID, *roster.Change) { after++ },
	})
	kp := w.keyPackage(bob.identity(), bob.key)
	pending := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	r := api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()}
	_, err := w.Commit(alice.ctx(), id, r)
	refused(t, err, chat.Unproven, "what JudgeCommit refuses")
	fail = errors.New("the ledger said no")
	_, err = w.Commit(alice.ctx(), id, r)
	refused(t, err, chat.Internal, "what Committed fails")
	if got := len(w.whole(alice, id)); got != 0 {
		t.Fatalf("%d entries of refused commits", got)
	}
	_, err = w.GetConversation(bob.ctx(), id)
	refused(t, err, chat.NotFound, "a member by a refused commit")
	fail = nil
	_, err = w.Commit(alice.ctx(), id, r)
	must(t, err)
	if judged != 3 || committed != 2 || after != 1 {
		t.Errorf("judged %d, committed %d, after %d", judged, committed, after)
	}
}

func TestAProposedRemovalBlocks(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	_, agentKey, _ := ed25519.GenerateKey(rand.Reader)
	agent := chat.AgentURI(host, "flimmer", chat.NewGrantID())
	kp := w.keyPackage([]byte(agent), agentKey)
	pending := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	_, err := w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	must(t, err)
	alice.group, err = pending.Merge()
	must(t, err)
	w.catchUp(id, bob)

	refused(t, w.Propose(context.Background(), id, []string{string(bob.identity())}, nil), chat.Forbidden, "the removal of a person")
	sent := api.Message{Message: w.seal(alice, "before"), DedupKey: newKey()}
	first, err := w.SendMessage(alice.ctx(), id, sent)
	must(t, err)
	must(t, w.Propose(context.Background(), id, []string{agent, "mimi://chat.example/a/other/00000000000000000000000000000000"}, []byte("expired")))
	must(t, w.Propose(context.Background(), id, []string{agent}, []byte("expired"))) // once is enough
	w.restart()
	if c, err := w.GetConversation(alice.ctx(), id); err != nil || !c.Blocked || c.LastSeq != 4 {
		t.Fatalf("got %+v, %v", c, err)
	}
	_, err = w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "x"), DedupKey: newKey()})
	refused(t, err, chat.Blocked, "a message")
	if got, err := w.SendMessage(alice.ctx(), id, sent); err != nil || got != first {
		t.Errorf("what was taken before, sent again: %+v, %v", got, err)
	}
	_, err = w.Append(context.Background(), id, Item{Kind: api.KindPost, Epoch: 2, Body: []byte("post"), DedupKey: []byte("k")})
	refused(t, err, chat.Blocked, "a post")
	_, err = w.Append(context.Background(), id, Item{Kind: api.KindTakeBack, Body: []byte("take back"), DedupKey: []byte("k")})
	refused(t, err, chat.Blocked, "a take-back")

	// bob has not seen the proposal: his commit is refused. alice's takes it up.
	without := w.prepare(bob, mls.CommitOptions{})
	_, err = w.Commit(bob.ctx(), id, api.Commit{Commit: without.Commit, DedupKey: newKey()})
	refused(t, err, chat.Blocked, "a commit without the removal")
	without.Discard()
	w.catchUp(id, alice)
	with := w.prepare(alice, mls.CommitOptions{})
	if len(with.Change().External) != 1 || string(with.Change().External[0].AuthenticatedData) != "expired" {
		t.Fatalf("the commit takes up %+v", with.Change().External)
	}
	_, err = w.Commit(alice.ctx(), id, api.Commit{Commit: with.Commit, DedupKey: newKey()})
	must(t, err)
	alice.group, err = with.Merge()
	must(t, err)
	_, err = w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "after"), DedupKey: newKey()})
	must(t, err)
	g, last, err := w.Roster(context.Background(), id)
	if err != nil || last != 6 || len(g.Members()) != 2 {
		t.Errorf("roster of %d at %d, %v", len(g.Members()), last, err)
	}

	// A device that is gone from its key chain may be proposed.
	must(t, w.KeyChainChanged(context.Background(), bob.caller.Account))
	if c, err := w.GetConversation(alice.ctx(), id); err != nil || c.Blocked {
		t.Fatalf("got %+v, %v", c, err)
	}
	bob.gone = true
	must(t, w.KeyChainChanged(context.Background(), bob.caller.Account))
	if c, err := w.GetConversation(alice.ctx(), id); err != nil || !c.Blocked {
		t.Fatalf("got %+v, %v", c, err)
	}
}

func TestAppendForAgents(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	refusal := chat.Errorf(chat.Forbidden, "the grant has ended")
	checks := 0
	post := Item{Kind: api.KindPost, Epoch: 1, Account: alice.caller.Account, Body: []byte("post"), DedupKey: []byte("key of the agent"),
		Check: func(tx *store.Tx, seq uint64, at int64) error {
			checks++
			if seq != 2 || at != w.now.UnixMilli() {
				t.Errorf("checked as %d at %d", seq, at)
			}
			if checks == 1 {
				return refusal
			}
			return nil
		}}
	_, err := w.Append(context.Background(), id, post)
	refused(t, err, chat.Forbidden, "what Check refuses")
	first, err := w.Append(context.Background(), id, post)
	must(t, err)
	if got, err := w.Append(context.Background(), id, post); err != nil || got != first || checks != 2 {
		t.Errorf("again: %+v, %v, %d checks", got, err, checks)
	}
	other := post
	other.Body = []byte("another")
	_, err = w.Append(context.Background(), id, other)
	refused(t, err, chat.Mismatch, "another body")
	stale := post
	stale.Epoch, stale.DedupKey = 0, []byte("new")
	_, err = w.Append(context.Background(), id, stale)
	refused(t, err, chat.StaleEpoch, "a post for another epoch")
	for what, bad := range map[string]Item{
		"a commit":    {Kind: api.KindCommit, Body: []byte("x"), DedupKey: []byte("k")},
		"a message":   {Kind: api.KindMessage, Body: []byte("x"), DedupKey: []byte("k")},
		"no key":      {Kind: api.KindPost, Body: []byte("x")},
		"a long key":  {Kind: api.KindPost, Body: []byte("x"), DedupKey: make([]byte, 65)},
		"not a thing": {Kind: api.KindProposal, Body: []byte("x"), DedupKey: []byte("k")},
	} {
		_, err = w.Append(context.Background(), id, bad)
		refused(t, err, chat.Invalid, what)
	}
	_, err = w.Append(context.Background(), id, Item{Kind: api.KindPost, DedupKey: []byte("k"), Body: make([]byte, api.MaxMessage+1)})
	refused(t, err, chat.TooLarge, "too large")
	back, err := w.Append(context.Background(), id, Item{Kind: api.KindTakeBack, Account: alice.caller.Account, Body: []byte("back"), DedupKey: []byte("k2"),
		Check: func(tx *store.Tx, seq uint64, at int64) error { return tx.Tombstone(id, first.Seq) }})
	must(t, err)
	log := w.whole(bob, id)
	if hash := sha256.Sum256([]byte("post")); len(log) != 3 || back.Seq != 3 || !log[1].Tombstone || !bytes.Equal(log[1].Body, hash[:]) {
		t.Errorf("log: %+v", log)
	}
}

func TestDeletingAMessage(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	id := w.found(alice, bob)
	body := w.seal(bob, "x")
	sent, err := w.SendMessage(bob.ctx(), id, api.Message{Message: body, DedupKey: newKey()})
	must(t, err)
	refused(t, w.DeleteMessage(alice.ctx(), id, sent.Seq), chat.Forbidden, "somebody else's message")
	refused(t, w.DeleteMessage(carol.ctx(), id, sent.Seq), chat.NotFound, "by a stranger")
	refused(t, w.DeleteMessage(alice.ctx(), id, 1), chat.Forbidden, "a commit")
	refused(t, w.DeleteMessage(bob.ctx(), id, 99), chat.NotFound, "nothing")
	for range 2 {
		must(t, w.DeleteMessage(bob.ctx(), id, sent.Seq))
	}
	hash := sha256.Sum256(body)
	if e := w.whole(alice, id)[1]; !e.Tombstone || !bytes.Equal(e.Body, hash[:]) {
		t.Errorf("got %+v", e)
	}
}

// TestWhoLeftReadsToTheEnd: a person who was removed learns it from the log, and nothing after it.
func TestWhoLeftReadsToTheEnd(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	id := w.found(alice, bob)
	phone := w.device("bob", bob.caller.Account)
	w.add(id, alice, phone)
	leaf := func(p *person) uint32 {
		m, ok := alice.group.Roster().MemberByIdentity(p.identity())
		if !ok {
			t.Fatal("no such member")
		}
		return m.Leaf
	}
	remove := func(p *person) {
		pending := w.prepare(alice, mls.CommitOptions{Remove: []uint32{leaf(p)}})
		_, err := w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, DedupKey: newKey()})
		must(t, err)
		alice.group, err = pending.Merge()
		must(t, err)
	}
	remove(bob) // his phone stays, and so does he
	if got := len(w.whole(bob, id)); got != 3 {
		t.Fatalf("%d entries", got)
	}
	remove(phone)
	_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "alone"), DedupKey: newKey()})
	must(t, err)
	if got := len(w.whole(phone, id)); got != 4 {
		t.Errorf("who left reads %d entries, want 4", got)
	}
	if list, err := w.ListConversations(bob.ctx()); err != nil || len(list.Conversations) != 0 {
		t.Errorf("still in the list: %+v, %v", list, err)
	}
	_, err = w.Log(carol.ctx(), id, 0, 0, 0)
	refused(t, err, chat.NotFound, "a stranger")
	w.add(id, alice, bob)
	if got := len(w.whole(bob, id)); got != 6 {
		t.Errorf("who is back reads %d entries, want 6", got)
	}
}

// TestAFailedBatchIsReadAgain has another process take a sequence number, as if a transaction had failed and was saved after all.
func TestAFailedBatchIsReadAgain(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	listener := w.listen(alice)
	listener.subscribe(id, false)
	listener.until(1)

	hidden := store.Entry{Conversation: id, Seq: 2, Kind: uint8(api.KindPost), Epoch: 1, At: 1, Body: []byte("saved after all")}
	must(t, w.Store.AppendBatch(context.Background(), func(b *store.Batch) error { return b.Append(hidden) }))
	m := api.Message{Message: w.seal(bob, "x"), DedupKey: newKey()}
	_, err := w.SendMessage(bob.ctx(), id, m)
	refused(t, err, chat.Unavailable, "a batch that cannot be written")
	got, err := w.SendMessage(bob.ctx(), id, m)
	if err != nil || got.Seq != 3 {
		t.Fatalf("again: %+v, %v", got, err)
	}
	listener.until(3)
}

func TestManySendersAndCommitsAtOnce(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	var ids []chat.ConversationID
	var bobs []*person
	for n := range 4 {
		bob := w.person(fmt.Sprint("bob", n))
		ids = append(ids, w.found(alice, bob))
		bobs = append(bobs, bob)
	}
	var all sync.WaitGroup
	for n, bob := range bobs {
		for range 4 {
			messages := make([][]byte, 25)
			for i := range messages {
				messages[i] = w.seal(bob, "x")
			}
			all.Go(func() {
				last := uint64(0)
				for _, m := range messages {
					got, err := w.SendMessage(bob.ctx(), ids[n], api.Message{Message: m, DedupKey: newKey()})
					if err != nil || got.Seq <= last {
						t.Errorf("got %+v, %v after %d", got, err, last)
					}
					last = got.Seq
				}
			})
		}
	}
	all.Wait()
	for n := range ids {
		if got := len(w.whole(bobs[n], ids[n])); got != 101 {
			t.Errorf("%d entries, want 101", got)
		}
	}
}
