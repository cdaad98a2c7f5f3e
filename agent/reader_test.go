package agent

import (
	"crypto/ed25519"
	"errors"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/slot"
)

func TestReaderReadsFromItsEpochOn(t *testing.T) {
	r := newRing(t)
	before, _ := r.say("bob", mimi.Text("before"))
	sender, _ := r.give("alice", chat.Send|chat.Delete)
	g, rd := r.reading("bob", chat.Read)

	hello, id := r.say("alice", mimi.Text("hello"))
	read(t, rd, before, hello)
	want(t, texts(rd), "alice hello")

	edit, _ := r.say("alice", mimi.Edit(id, "hello again"))
	card, err := mimi.Recommendation(mimi.Card{Kind: mimi.Film, Title: "Metropolis", Link: "https://flimmer.example/w/#1"})
	r.no(err)
	posted, post := r.post(sender, card, nil)
	love, err := mimi.Reaction(post, "\u2764")
	r.no(err)
	mark, _ := r.say("bob", love)
	read(t, rd, edit, posted, mark)
	list, _, _ := rd.changed(0, 10)
	if len(list) != 2 || list[0].Text != "hello again" || !list[0].Edited || list[1].Card == nil || list[1].Card.Title != "Metropolis" ||
		list[1].Sender != "alice" || list[1].Through != testPartner || len(list[1].Reactions) != 1 {
		t.Fatalf("shown: %+v", list)
	}

	// A new epoch: the slot's key and the group move on together.
	r.commit("bob", mls.CommitOptions{})
	read(t, rd, r.log[len(r.log)-1])
	again, _ := r.post(sender, mimi.Text("in the new epoch"), nil)
	read(t, rd, again, r.takeBack(sender, post))
	want(t, texts(rd), "alice hello again", "alice/flimmer in the new epoch", "alice/flimmer (deleted)")
	if g.held.Grant == sender.held.Grant {
		t.Fatal("the grants must differ for this test to say anything")
	}
}

// TestReaderPassesOver: what does not belong into the thread is not shown, and does not keep the rest from being read.
func TestReaderPassesOver(t *testing.T) {
	for name, spoil := range map[string]func(r *ring, good partnerGrant) api.Entry{
		"a post that a member signed": func(r *ring, good partnerGrant) api.Entry {
			good.key = grantKey(r.people["bob"].key)
			e, _ := r.post(good, mimi.Text("forged"), nil)
			return e
		},
		"a post of another epoch": func(r *ring, good partnerGrant) api.Entry {
			e, _ := r.post(good, mimi.Text("old"), func(h *slot.Header) { h.Epoch-- })
			return e
		},
		"a post of another thread": func(r *ring, good partnerGrant) api.Entry {
			e, _ := r.post(good, mimi.Text("other"), func(h *slot.Header) { h.Conversation = chat.NewConversationID() })
			return e
		},
		"a post of another host": func(r *ring, good partnerGrant) api.Entry {
			e, _ := r.post(good, mimi.Text("other"), func(h *slot.Header) { h.Host = "evil.example" })
			return e
		},
		"a post under another message id": func(r *ring, good partnerGrant) api.Entry {
			e, _ := r.post(good, mimi.Text("other"), func(h *slot.Header) { h.Message[5] ^= 1 })
			return e
		},
		"a post under a grant that the thread does not list": func(r *ring, good partnerGrant) api.Entry {
			good.held.Grant = chat.NewGrantID()
			e, _ := r.post(good, mimi.Text("ghost"), nil)
			return e
		},
		"a post under a grant without send": func(r *ring, _ partnerGrant) api.Entry {
			reads, _ := r.give("bob", chat.Delete)
			e, _ := r.post(reads, mimi.Text("may not"), nil)
			return e
		},
		"a damaged message": func(r *ring, _ partnerGrant) api.Entry {
			e, _ := r.say("bob", mimi.Text("damaged"))
			e.Body = flip(e.Body, len(e.Body)-1)
			return e
		},
		"what is no content": func(r *ring, _ partnerGrant) api.Entry {
			msg, _, err := r.people["bob"].group.Seal([]byte("no content"), nil)
			r.no(err)
			return r.add(api.KindMessage, r.epoch(), msg)
		},
		"an entry of a later kind": func(r *ring, _ partnerGrant) api.Entry { return r.add(99, r.epoch(), []byte("?")) },
		"a tombstone": func(r *ring, _ partnerGrant) api.Entry {
			e, _ := r.say("bob", mimi.Text("gone"))
			e.Body, e.Tombstone = make([]byte, 32), true
			return e
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRing(t)
			good, _ := r.give("alice", chat.Send|chat.Delete)
			_, rd := r.reading("bob", chat.Read)
			from := len(r.log)
			bad := spoil(r, good)
			r.log[bad.Seq-1] = bad
			r.say("alice", mimi.Text("still here"))
			read(t, rd, r.log[from:]...)
			want(t, texts(rd), "alice still here")
		})
	}
}

func TestReaderShowsAPostOnce(t *testing.T) {
	r := newRing(t)
	good, _ := r.give("alice", chat.Send)
	_, rd := r.reading("bob", chat.Read)
	e, _ := r.post(good, mimi.Text("once"), nil)
	read(t, rd, e, e)
	want(t, texts(rd), "alice/flimmer once")
}

// TestReaderRefusesForeignTakeBack: a partner takes back what it sent for that person, nothing else.
func TestReaderRefusesForeignTakeBack(t *testing.T) {
	r := newRing(t)
	alices, _ := r.give("alice", chat.Send|chat.Delete)
	bobs, _ := r.give("bob", chat.Send|chat.Delete)
	later, _ := r.give("alice", chat.Delete)
	sendOnly, _ := r.give("alice", chat.Send)
	_, rd := r.reading("bob", chat.Read)
	said, own := r.say("alice", mimi.Text("by hand"))
	posted, post := r.post(alices, mimi.Text("by app"), nil)
	forged := r.takeBack(partnerGrant{held: alices.held, key: bobs.key}, post)
	read(t, rd, said, posted, r.takeBack(bobs, post), r.takeBack(sendOnly, post), r.takeBack(alices, own), forged)
	want(t, texts(rd), "alice by hand", "alice/flimmer by app")
	read(t, rd, r.takeBack(later, post)) // a later grant of the same person may
	want(t, texts(rd), "alice by hand", "alice/flimmer (deleted)")
}

// TestReaderRefusesInvalidCommits: what package grant calls invalid is never merged.
func TestReaderRefusesInvalidCommits(t *testing.T) {
	r := newRing(t)
	_, rd := r.reading("alice", chat.Read)
	thread, err := grant.ThreadOf(r.people["alice"].group.Roster())
	r.no(err)
	e := thread.Grants[0]
	e.Grant, e.Actions = chat.NewGrantID(), chat.Send
	x := r.withThread("alice", thread.With(e))
	r.commit("alice", mls.CommitOptions{Extensions: &x}) // without a proof
	_, err = rd.take(r.log[len(r.log)-1])
	kindIs(t, err, chat.Tampered)
	if rd.group.Epoch() == r.epoch() {
		t.Fatal("the commit was merged")
	}
	bad := r.log[len(r.log)-1]
	bad.Body = flip(bad.Body, len(bad.Body)/2)
	_, err = rd.take(bad)
	kindIs(t, err, chat.Tampered)
}

func TestReaderSeesItsRemoval(t *testing.T) {
	r := newRing(t)
	g, rd := r.reading("alice", chat.Read)
	thread, err := grant.ThreadOf(r.people["alice"].group.Roster())
	r.no(err)
	x := r.withThread("alice", thread.Without(g.held.Grant))
	r.commit("bob", mls.CommitOptions{Extensions: &x, Remove: []uint32{rd.group.OwnLeaf()}})
	if _, err = rd.take(r.log[len(r.log)-1]); !errors.Is(err, errRemoved) {
		t.Fatalf("got %v", err)
	}
	after, _ := r.say("alice", mimi.Text("after"))
	if lines, _ := rd.take(after); len(lines) != 0 {
		t.Fatal("read on after its removal")
	}
}

// TestJoinJudgesTheThread: a Welcome into a thread that lists another grant, or into another thread, is refused.
func TestJoinJudgesTheThread(t *testing.T) {
	r := newRing(t)
	g, welcome := r.give("alice", chat.Read)
	other := g.held
	other.Signed = flip(other.Signed, 10)
	_, err := join(r.trust(), other, g.key, welcome)
	kindIs(t, err, chat.Tampered)
	other = g.held
	other.Conversation = chat.NewConversationID()
	_, err = join(r.trust(), other, g.key, welcome)
	kindIs(t, err, chat.Tampered)
	trust := r.trust()
	trust.Operator = r.people["bob"].key.Public().(ed25519.PublicKey)
	if _, err = join(trust, g.held, g.key, welcome); err == nil {
		t.Fatal("joined a thread whose external sender is not the server")
	}
	_, err = join(r.trust(), g.held, g.key, welcome)
	r.no(err)
}

// TestSlotMustBeTheThreads: an agent that reads derives the slot itself, and takes no other.
func TestSlotMustBeTheThreads(t *testing.T) {
	r := newRing(t)
	_, rd := r.reading("alice", chat.Read|chat.Send)
	p := slot.Pinned{Conversation: r.id, Epoch: r.epoch(), Key: r.slots[r.epoch()]}
	r.no(rd.checkSlot(p))
	p.Key[3] ^= 1
	kindIs(t, rd.checkSlot(p), chat.Tampered)
	p.Epoch++ // of an epoch that the reader is not in yet: nothing to compare
	r.no(rd.checkSlot(p))
}

// TestForgetting: what was taken back is named for deletion, its edits too, and a replay shows the same.
func TestForgetting(t *testing.T) {
	r := newRing(t)
	_, rd := r.reading("alice", chat.Read)
	first, id := r.say("bob", mimi.Text("secret"))
	edit, _ := r.say("bob", mimi.Edit(id, "secret two"))
	gone, _ := r.say("bob", mimi.Delete(id))
	rest, _ := r.say("alice", mimi.Text("rest"))
	kept := map[uint64]line{}
	n := uint64(0)
	for _, e := range []api.Entry{first, edit, gone, rest} {
		lines, err := rd.take(e)
		r.no(err)
		for _, l := range lines {
			n++
			forget, keep := rd.fold(n, l)
			if !keep {
				t.Fatal("a line was not kept")
			}
			kept[n] = l
			for i, old := range forget {
				if i > 0 {
					delete(kept, old)
					continue
				}
				l := kept[old]
				l.Content = nil
				kept[old] = l
			}
		}
	}
	if len(kept) != 3 || len(kept[1].Content) != 0 {
		t.Fatalf("kept %d lines, the first with %d bytes", len(kept), len(kept[1].Content))
	}
	again := &reader{group: rd.group, thread: rd.thread, about: map[chat.MessageID]*about{}}
	for i := uint64(1); i <= n; i++ {
		if l, ok := kept[i]; ok {
			again.fold(i, l)
		}
	}
	want(t, texts(again), texts(rd)...)
	want(t, texts(again), "bob (deleted)", "alice rest")
}

// TestChangedPages: changes come in the order in which they happened, each once, over any page size.
func TestChangedPages(t *testing.T) {
	r := newRing(t)
	_, rd := r.reading("alice", chat.Read)
	var ids []chat.MessageID
	for range 5 {
		e, id := r.say("bob", mimi.Text("one of five"))
		ids = append(ids, id)
		read(t, rd, e)
	}
	seen := map[chat.MessageID]bool{}
	state, more := uint64(0), true
	for more {
		var list []Message
		list, state, more = rd.changed(state, 2)
		for _, m := range list {
			if seen[m.ID] {
				t.Fatal("a message came twice")
			}
			seen[m.ID] = true
		}
	}
	if len(seen) != 5 {
		t.Fatalf("%d of 5 came", len(seen))
	}
	e, _ := r.say("bob", mimi.Edit(ids[0], "changed"))
	read(t, rd, e)
	list, _, more := rd.changed(state, 2)
	if len(list) != 1 || list[0].ID != ids[0] || more {
		t.Fatalf("after an edit: %+v", list)
	}
}

func TestPeopleCountsPersons(t *testing.T) {
	r := newRing(t)
	_, rd := r.reading("alice", chat.Read)
	if n := people(rd.group.Roster()); n != 2 {
		t.Fatalf("%d people; an agent is nobody", n)
	}
}
