package delivery

import (
	"context"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
	"letterlock/store"
)

// TestAFloodCostsItsSender: above its limits an account is refused before anything is queued, read or written; others feel nothing.
func TestAFloodCostsItsSender(t *testing.T) {
	w := newWorld(t)
	w.Limits = Limits{MessagesPerSecond: 10, MessageBurst: 40}
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	w.now = w.now.Add(time.Hour) // founding and adding count too
	flood := w.listen(bob)
	flood.subscribe(id, false)
	last := w.whole(alice, id)[0].Seq
	const sends = 200
	for i := range uint32(sends) {
		flood.send(i, id, w.seal(bob, "flood"))
		if i%20 == 0 {
			_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "hello"), DedupKey: newKey()})
			must(t, err)
		}
	}
	flood.wait("an answer to each send", func() bool { return len(flood.acks)+len(flood.nacks) == sends })
	if len(flood.acks) != 40 {
		t.Errorf("%d sends of the flood were taken, want the burst", len(flood.acks))
	}
	for _, kind := range flood.nacks {
		if kind != chat.TooMany {
			t.Errorf("refused as %s", kind)
		}
	}
	if all := w.whole(alice, id); uint64(len(all)) != last+40+sends/20 {
		t.Errorf("the log has %d entries", len(all))
	}
	_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "more"), DedupKey: newKey()})
	refused(t, err, chat.TooMany, "by the other way")
	w.now = w.now.Add(time.Second)
	for i := range 11 {
		_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "slower"), DedupKey: newKey()})
		if (err == nil) != (i < 10) {
			t.Errorf("send %d a second later: %v", i, err)
		}
	}
	spared := bob.caller
	spared.Unlimited = true
	_, err = w.SendMessage(api.WithCaller(context.Background(), spared), id, api.Message{Message: w.seal(bob, "exempt"), DedupKey: newKey()})
	must(t, err)
}

func TestBytesOfADay(t *testing.T) {
	l := Limits{BytesPerDay: 24_000}
	var m meters
	a, now := chat.NewAccountID(), time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	take := func(size int) error { return m.take(&l, a, size, now) }
	must(t, take(20_000))
	err := take(5_000)
	refused(t, err, chat.TooMany, "more than is left of the day")
	if e := err.(*chat.Error); e.Retry != time.Hour {
		t.Errorf("try again in %v", e.Retry)
	}
	must(t, m.take(&l, chat.NewAccountID(), 24_000, now)) // another's day
	now = now.Add(time.Hour)
	must(t, take(5_000))
	now = now.Add(-time.Minute) // a clock that goes back gives nothing and takes nothing
	refused(t, take(1), chat.TooMany, "after the clock went back")
	now = now.Add(48 * time.Hour)
	must(t, take(24_000))
	refused(t, take(1), chat.TooMany, "more than a day's")
	for range 3 * maxMeters {
		b := chat.NewAccountID()
		b[0] = 0
		must(t, m.take(&l, b, 1, now))
	}
	if n := len(m[0].counts); n > maxMeters {
		t.Errorf("%d accounts are remembered", n)
	}
}

func TestConversationsOfAnAccount(t *testing.T) {
	w := newWorld(t)
	w.Limits = Limits{Conversations: 2}
	alice, bob := w.person("alice"), w.person("bob")
	w.found(alice)
	w.found(alice)
	group, err := mls.Create(w.createOptions(alice, chat.NewConversationID()))
	must(t, err)
	info, err := group.GroupInfo()
	must(t, err)
	_, err = w.Found(alice.ctx(), api.NewConversation{GroupInfo: info})
	refused(t, err, chat.TooMany, "a third conversation")
	w.found(bob)
}

// block does what package account does when the operator blocks somebody.
func (w *world) block(p *person, blocked bool) {
	w.t.Helper()
	must(w.t, w.Store.Update(context.Background(), func(tx *store.Tx) error {
		if !blocked {
			return tx.UnblockAccount(p.caller.Account)
		}
		return tx.BlockAccount(store.Block{Account: p.caller.Account, Since: 1})
	}))
	w.AccountBlocked(p.caller.Account, blocked)
}

// TestBlockedIsOutAtOnce: what was authenticated before the block serves no more after it.
func TestBlockedIsOutAtOnce(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	stream := w.listen(bob)
	stream.subscribe(id, false)
	stream.until(1)
	polled := make(chan error, 1)
	go func() {
		_, err := w.Log(bob.ctx(), id, 1, 0, 60)
		polled <- err
	}()
	w.block(bob, true)
	stream.wait("the end of the stream", func() bool { return stream.problem == chat.Forbidden })
	stream.send(1, id, w.seal(bob, "on the old connection"))
	_, err := w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "by a call"), DedupKey: newKey()})
	refused(t, err, chat.Forbidden, "a send")
	late, err := w.Open(bob.ctx(), func() {})
	must(t, err)
	defer late.Close()
	if _, err := late.Take(context.Background(), nil); !chat.Is(err, chat.Forbidden) {
		t.Errorf("a stream opened after the block ends with %v", err)
	}

	// Alice writes on; Bob's long poll, begun before the block, hands nothing of it out.
	_, err = w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "is Bob here?"), DedupKey: newKey()})
	must(t, err)
	refused(t, <-polled, chat.Forbidden, "a long poll")
	_, err = w.Log(bob.ctx(), id, 0, 0, 0)
	refused(t, err, chat.Forbidden, "the log")
	if all := w.whole(alice, id); len(all) != 2 {
		t.Errorf("the log has %d entries", len(all))
	}

	w.block(bob, false)
	_, err = w.SendMessage(bob.ctx(), id, api.Message{Message: w.seal(bob, "back"), DedupKey: newKey()})
	must(t, err)
	if all := w.whole(bob, id); len(all) != 3 {
		t.Errorf("Bob reads %d entries, want what was sent meanwhile too", len(all))
	}
}

// TestBlockedIsNotAdded: a KeyPackage that was claimed before the block is of no use.
func TestBlockedIsNotAdded(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice)
	kp := w.keyPackage(bob.identity(), bob.key)
	w.block(bob, true)
	pending := w.prepare(alice, mls.CommitOptions{Add: [][]byte{kp.Public}})
	_, err := w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	refused(t, err, chat.Forbidden, "adding somebody who is blocked")
}
