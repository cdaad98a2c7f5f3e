package delivery

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
)

// listener is a client of a stream: it follows spec/frames.md and keeps a cursor for each conversation.
type listener struct {
	t       *testing.T
	st      *Stream
	ready   chan struct{}
	cursor  map[chat.ConversationID]uint64
	live    map[chat.ConversationID]bool
	sent    map[uint32]chat.ConversationID
	bodies  map[chat.ConversationID][][]byte
	acks    map[uint32]uint64
	nacks   map[uint32]chat.Kind
	woken   map[chat.ConversationID]uint64
	ended   map[chat.ConversationID]chat.Kind
	problem chat.Kind
	entries int // that moved a cursor
	below   int // that were below it
}

func newListener(t *testing.T, st *Stream) *listener {
	return &listener{t: t, st: st, cursor: make(map[chat.ConversationID]uint64), live: make(map[chat.ConversationID]bool),
		sent: make(map[uint32]chat.ConversationID), bodies: make(map[chat.ConversationID][][]byte), acks: make(map[uint32]uint64),
		nacks: make(map[uint32]chat.Kind), woken: make(map[chat.ConversationID]uint64), ended: make(map[chat.ConversationID]chat.Kind)}
}

func (w *world) listen(p *person) *listener {
	w.t.Helper()
	ready := make(chan struct{}, 1)
	st, err := w.Open(p.ctx(), func() {
		select {
		case ready <- struct{}{}:
		default:
		}
	})
	must(w.t, err)
	w.t.Cleanup(st.Close)
	l := newListener(w.t, st)
	l.ready = ready
	return l
}

func (l *listener) frame(f api.Frame) {
	l.t.Helper()
	must(l.t, l.st.Receive(context.Background(), f.Append(nil)))
}

func (l *listener) subscribe(id chat.ConversationID, ownByAck bool) {
	l.t.Helper()
	l.frame(api.Frame{Type: api.FrameSubscribe, Conversation: id, Seq: l.cursor[id], OwnByAck: ownByAck})
}

func (l *listener) send(request uint32, id chat.ConversationID, message []byte) {
	l.t.Helper()
	l.sent[request] = id
	l.frame(api.Frame{Type: api.FrameSend, Request: request, Conversation: id, Dedup: [16]byte(newKey()), Message: message})
}

// take reads what one Take gives; false: nothing.
func (l *listener) take() bool {
	l.t.Helper()
	b, err := l.st.Take(context.Background(), nil)
	some := len(b) > 0
	for len(b) > 0 {
		f, rest, ferr := api.NextFrame(b)
		must(l.t, ferr)
		b = rest
		l.one(&f)
	}
	return some && err == nil
}

func (l *listener) one(f *api.Frame) {
	l.t.Helper()
	switch f.Type {
	case api.FrameEntry:
		e := f.Entry
		if e.Seq <= l.cursor[e.Conversation] {
			l.below++
			return
		}
		if e.Seq != l.cursor[e.Conversation]+1 {
			l.t.Fatalf("entry %d after %d", e.Seq, l.cursor[e.Conversation])
		}
		l.entries++
		l.cursor[e.Conversation] = e.Seq
		l.bodies[e.Conversation] = append(l.bodies[e.Conversation], bytes.Clone(e.Body))
	case api.FrameAck:
		l.acks[f.Request] = f.Seq
		if id := l.sent[f.Request]; f.Seq == l.cursor[id]+1 {
			l.cursor[id] = f.Seq
			l.bodies[id] = append(l.bodies[id], nil)
		}
	case api.FrameNack:
		l.nacks[f.Request] = f.Kind
	case api.FrameWoken:
		l.woken[f.Conversation] = f.Seq
	case api.FrameLive:
		l.live[f.Conversation] = true
		if l.cursor[f.Conversation] != f.Seq {
			l.t.Fatalf("live at %d, but the cursor is at %d", f.Seq, l.cursor[f.Conversation])
		}
	case api.FrameEnded:
		l.ended[f.Conversation] = f.Kind
	case api.FrameProblem:
		l.problem = f.Kind
	case api.FramePong:
		l.acks[f.Request] = 0
	}
}

// wait takes until done, or fails after ten seconds without anything.
func (l *listener) wait(what string, done func() bool) {
	l.t.Helper()
	for !done() {
		if l.take() {
			continue
		}
		select {
		case <-l.ready:
		case <-time.After(10 * time.Second):
			l.t.Fatalf("still waiting for %s; cursors %v", what, l.cursor)
		}
	}
}

// until waits until the only conversation's cursor stands at seq.
func (l *listener) until(seq uint64) {
	l.t.Helper()
	l.wait(fmt.Sprintf("entry %d", seq), func() bool {
		for _, at := range l.cursor {
			if at >= seq {
				return true
			}
		}
		return false
	})
}

func TestAStreamGivesEverythingOnceInOrder(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	for n := range 2500 { // more than two pages
		if n%500 == 0 {
			_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "x"), DedupKey: newKey()})
			must(t, err)
			continue
		}
		it, err := w.message(context.Background(), id, bob.caller, string(bob.identity()), newKey(), w.seal(bob, "x"))
		must(t, err)
		it.done = make(chan struct{})
		must(t, w.appender(id).put(it))
	}
	l := w.listen(alice)
	l.subscribe(id, false)
	l.until(2501)
	l.wait("live", func() bool { return l.live[id] })
	_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "now"), DedupKey: newKey()})
	must(t, err)
	l.until(2502)
}

func TestSendingOnAStream(t *testing.T) {
	w := newWorld(t)
	alice, bob, carol := w.person("alice"), w.person("bob"), w.person("carol")
	id := w.found(alice, bob)
	a, b := w.listen(alice), w.listen(bob)
	a.subscribe(id, false)
	b.subscribe(id, true)
	a.wait("live", func() bool { return a.live[id] })
	b.wait("live", func() bool { return b.live[id] })
	b.send(1, id, w.seal(bob, "one"))
	b.send(2, id, w.seal(bob, "two"))
	b.wait("acks", func() bool { return len(b.acks) == 2 })
	if b.acks[1] != 2 || b.acks[2] != 3 || b.cursor[id] != 3 || b.entries != 1 {
		t.Errorf("acks %v, cursor %d, %d entries: own messages were to come as acks alone", b.acks, b.cursor[id], b.entries)
	}
	a.until(3)
	a.send(7, id, w.seal(alice, "three"))
	a.until(4) // without own-by-ack it comes back
	if len(a.bodies[id]) != 4 {
		t.Errorf("%d bodies", len(a.bodies[id]))
	}
	b.until(4)

	b.send(3, id, []byte("nonsense"))
	b.send(4, chat.NewConversationID(), w.seal(bob, "x"))
	b.wait("nacks", func() bool { return len(b.nacks) == 2 })
	if b.nacks[3] != chat.Invalid || b.nacks[4] != chat.Invalid {
		t.Errorf("nacks %v", b.nacks)
	}
	c := w.listen(carol)
	c.subscribe(id, false)
	c.wait("the end", func() bool { return c.ended[id] == chat.NotFound })
	c.subscribe(chat.NewConversationID(), false)
	c.wait("the end", func() bool { return len(c.ended) == 2 })
	c.frame(api.Frame{Type: api.FramePing, Request: 44})
	c.wait("pong", func() bool { _, ok := c.acks[44]; return ok })
	if c.entries != 0 {
		t.Errorf("a stranger got %d entries", c.entries)
	}
	f := api.Frame{Type: api.FramePong}
	refused(t, c.st.Receive(context.Background(), f.Append(nil)), chat.Invalid, "a server's frame")
	refused(t, c.st.Receive(context.Background(), []byte{1, 2, 3}), chat.Invalid, "a cut frame")
	b.frame(api.Frame{Type: api.FrameUnsubscribe, Conversation: id})
	b.frame(api.Frame{Type: api.FrameUnsubscribe, Conversation: id})
}

func TestStreamsAreWoken(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	first, second := w.found(alice, bob), w.found(alice, bob)
	l := w.listen(bob)
	l.frame(api.Frame{Type: api.FrameSubscribeAll})
	l.wait("all", func() bool { return len(l.woken) == 2 })
	if l.woken[first] != 1 || l.woken[second] != 1 {
		t.Errorf("woken %v", l.woken)
	}
	l.subscribe(second, false)
	l.until(1)
	alice.group = nil
	third := w.found(alice)
	kp := w.keyPackage(bob.identity(), bob.key)
	pending := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	_, err := w.Commit(alice.ctx(), third, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	must(t, err)
	l.wait("a Welcome", func() bool { _, ok := l.woken[chat.ConversationID{}]; return ok && l.woken[third] == 1 })
	again := w.listen(bob)
	again.frame(api.Frame{Type: api.FrameSubscribeAll})
	again.wait("all and a Welcome", func() bool { return len(again.woken) == 4 })
}

func TestAStreamEndsForWhoIsRemoved(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	l := w.listen(bob)
	l.subscribe(id, false)
	l.wait("live", func() bool { return l.live[id] })
	m, _ := alice.group.Roster().MemberByIdentity(bob.identity())
	pending := w.prepare(alice, mls.CommitOptions{Remove: []uint32{m.Leaf}})
	_, err := w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, DedupKey: newKey()})
	must(t, err)
	alice.group, err = pending.Merge()
	must(t, err)
	_, err = w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "alone"), DedupKey: newKey()})
	must(t, err)
	l.wait("the end", func() bool { return l.ended[id] == chat.NotFound })
	if l.cursor[id] != 2 {
		t.Errorf("the last entry was %d, want the removing commit, 2", l.cursor[id])
	}
	must(t, w.KeyChainChanged(context.Background(), bob.caller.Account))
	if l.take(); l.problem != "" {
		t.Fatal("a device that is in its key chain was sent away")
	}
	bob.gone = true
	must(t, w.KeyChainChanged(context.Background(), bob.caller.Account))
	l.wait("the session's end", func() bool { return l.problem == chat.Unauthenticated })
}

// TestASlowReaderCatchesUp lets readers be slow at random, so that subscriptions fall behind and go live again, and senders send on
// the same streams. Everyone must end with the whole log, in order, own messages as acks included.
func TestASlowReaderCatchesUp(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	r := rand.New(rand.NewPCG(1, 2))
	a, b := w.listen(alice), w.listen(bob)
	a.subscribe(id, true)
	b.subscribe(id, true)
	big := string(make([]byte, 60<<10)) // eighteen of them fill a queue
	const messages = 240
	sent := 0
	for sent < messages {
		l, p := a, alice
		if r.IntN(3) == 0 {
			l, p = b, bob
		}
		for range 1 + r.IntN(30) {
			if sent == messages {
				break
			}
			sent++
			text := "small"
			if r.IntN(2) == 0 {
				text = big
			}
			l.send(uint32(sent), id, w.seal(p, text))
		}
		for range r.IntN(4) {
			a.take()
		}
		if r.IntN(6) == 0 {
			b.take()
		}
	}
	for _, l := range []*listener{a, b} {
		l.wait("all", func() bool { return l.cursor[id] == messages+1 })
		if len(l.nacks) != 0 {
			t.Errorf("nacks %v", l.nacks)
		}
		if n := len(l.bodies[id]); n != messages+1 {
			t.Errorf("%d bodies", n)
		}
	}
}

func TestLongPolls(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice)
	type answer struct {
		page api.Page
		err  error
	}
	log, box := make(chan answer), make(chan api.Mailbox)
	go func() {
		p, err := w.Log(alice.ctx(), id, 0, 10, 30)
		log <- answer{p, err}
	}()
	go func() {
		m, err := w.Welcomes(bob.ctx(), 30)
		if err != nil {
			t.Error(err)
		}
		box <- m
	}()
	kp := w.keyPackage(bob.identity(), bob.key)
	pending := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	_, err := w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	must(t, err)
	if got := <-log; got.err != nil || len(got.page.Entries) != 1 || got.page.LastSeq != 1 {
		t.Errorf("log: %+v", got)
	}
	if got := <-box; len(got.Welcomes) != 1 || got.Welcomes[0].Seq != 1 {
		t.Errorf("mailbox: %+v", got)
	}
	gone, cancel := context.WithCancel(alice.ctx())
	cancel()
	if p, err := w.Log(gone, id, 1, 10, 30); chat.KindOf(err) == chat.Internal && err == nil || len(p.Entries) != 0 {
		t.Errorf("a caller that left: %+v, %v", p, err)
	}
}

// TestPublishedLateIsNotRepeated: an entry is in the store a moment before it is published. Who subscribes in that moment reads it there
// and goes live ahead of the publisher.
func TestPublishedLateIsNotRepeated(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	c, err := w.cache.get(context.Background(), id)
	must(t, err)
	defer w.cache.release(c)
	for range 2 {
		_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "x"), DedupKey: newKey()})
		must(t, err)
	}
	c.mu.Lock()
	c.published = 1 // the moment before entries 2 and 3 are published
	c.mu.Unlock()
	early := w.listen(alice)
	early.subscribe(id, false)
	early.wait("live", func() bool { return early.live[id] })
	for seq := uint64(2); seq <= 4; seq++ {
		c.publish(&api.Entry{Conversation: id, Seq: seq, Kind: api.KindMessage, Body: []byte("x")}, nil)
	}
	early.wait("entry 4", func() bool { return early.cursor[id] == 4 })
	if early.entries != 4 || early.below != 0 {
		t.Errorf("%d entries, and %d again", early.entries, early.below)
	}
}

func TestACursorBeyondTheLogIsNoticed(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	l := w.listen(bob)
	l.cursor[id] = 2 // the log has one entry: a server that lost one
	l.subscribe(id, false)
	l.wait("the end", func() bool { return l.ended[id] == chat.Invalid })
	l.cursor[id] = 1
	l.subscribe(id, false)
	l.wait("live", func() bool { return l.live[id] })
}

// TestWhoDoesNotReadCostsNothing floods a stream with frames whose answers nobody takes.
func TestWhoDoesNotReadCostsNothing(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	l := w.listen(bob)
	bad := api.Frame{Type: api.FrameSend, Conversation: id, Message: []byte("nonsense")}
	subscribe := api.Frame{Type: api.FrameSubscribe, Conversation: id}
	ping := api.Frame{Type: api.FramePing}
	flood := ping.Append(subscribe.Append(bad.Append(nil)))
	for range 10_000 {
		must(t, l.st.Receive(context.Background(), flood))
	}
	l.st.mu.Lock()
	if len(l.st.frames) > maxAnswers+1024 || len(l.st.behind) > 1 {
		t.Errorf("%d bytes of answers and %d subscriptions wait", len(l.st.frames), len(l.st.behind))
	}
	l.st.mu.Unlock()
	l.wait("the end", func() bool { l.take(); return l.problem == chat.TooMany })
}
