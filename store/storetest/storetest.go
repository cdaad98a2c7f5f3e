// Package storetest is the exam of package store: what the contract promises about conversations, put to any backend. A backend's
// own test calls Run with a way to open one database twice.
//
// It examines the store alone. That a batch is really synced is shown from the system calls, in e2e/durability.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"letterlock/chat"
	"letterlock/store"
)

// Open opens the same database again each time that it is called.
type Open func(t testing.TB) *store.Store

// Run puts every question to a fresh database of its own.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	for _, q := range []struct {
		name string
		ask  func(t *testing.T, open Open)
	}{
		{"Order", order(appendAll)},
		{"OrderOfEntries", order(appendEntries)},
		{"WhatABatchAcknowledgesIsThereAfterReopening", reopening(appendAll)},
		{"WhatEntriesAcknowledgeIsThereAfterReopening", reopening(appendEntries)},
		{"ABatchIsWholeOrNothing", whole},
		{"NoSequenceNumberTwice", sequenceTwice(appendAll)},
		{"NoSequenceNumberTwiceInEntries", sequenceTwice(appendEntries)},
		{"NoDedupKeyTwice", dedupTwice(appendAll)},
		{"NoDedupKeyTwiceInEntries", dedupTwice(appendEntries)},
		{"DedupKeysAreOfOneConversation", dedupApart(appendAll)},
		{"DedupKeysAreOfOneConversationInEntries", dedupApart(appendEntries)},
		{"BothWaysOfAppendingWriteTheSame", sameRows},
		{"TimesAreTheCallers", times},
		{"ListsAreInTheOrderOfBytes", byteOrder},
		{"AppendersOfOneConversationTakeTurns", racingAppends},
		{"ARefusedItemLeavesTheRestOfItsBatch", refusedItem},
		{"AnItemSeesTheBatchBeforeIt", itemSees},
		{"ExactlyOneCommitForEachEpoch", racingCommits},
		{"Tombstones", tombstones},
		{"Paging", paging},
		{"CountsOfADevice", counts},
		{"Membership", membership},
		{"WelcomesAreKeptOnce", welcomes},
		{"AFailedUpdateLeavesNothing", failedUpdate},
		{"WritersWaitForEachOther", writers},
		{"AViewSeesOneMoment", snapshot},
		{"Deadlines", deadlines}, {"Expired", expired}, {"Forgotten", forgotten}, {"MisplacedDeadlines", misplaced}, // deadlines.go
	} {
		t.Run(q.name, func(t *testing.T) {
			open := fresh(t)
			q.ask(t, open)
			check(t, open(t))
		})
	}
}

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// id makes a conversation id from a number.
func id(n byte) chat.ConversationID { return chat.ConversationID{n, 1} }

func account(n byte) chat.AccountID { return chat.AccountID{n, 2} }

// entry makes a message with a body and a dedup key of its own.
func entry(c chat.ConversationID, seq uint64) store.Entry {
	key := sha256.Sum256(fmt.Appendf(nil, "%s/%d", c, seq))
	return store.Entry{Conversation: c, Seq: seq, Kind: 3, Epoch: 0, At: int64(1000 + seq), Account: account(1), Device: chat.DeviceID{7},
		Dedup: key[:16], Body: fmt.Appendf(nil, "body %d of %s", seq, c)}
}

func found(t *testing.T, s *store.Store, c chat.ConversationID, members ...chat.AccountID) {
	t.Helper()
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		return tx.CreateConversation(store.Founding{Conversation: store.Conversation{ID: c, Created: 5}, GroupInfo: []byte("gi"),
			Roster: []byte("epoch 0"), Members: members})
	}))
}

func appendAll(s *store.Store, entries ...store.Entry) error {
	return s.AppendBatch(ctx, func(b *store.Batch) error {
		for _, e := range entries {
			if err := b.Append(e); err != nil {
				return err
			}
		}
		return nil
	})
}

// appendEntries is appendAll by the hot call.
func appendEntries(s *store.Store, entries ...store.Entry) error {
	return s.AppendEntries(ctx, entries)
}

// put is either.
type put func(s *store.Store, entries ...store.Entry) error

// check is what must hold at the end of every question: no log has a gap, its newest number is its length, and each dedup key finds the
// entry that has it.
func check(t *testing.T, s *store.Store) {
	t.Helper()
	for n := byte(1); n <= 9; n++ {
		entries := log(t, s, id(n))
		must(t, s.View(ctx, func(tx *store.Tx) error {
			if last, err := tx.LastSeq(id(n)); err != nil || last != uint64(len(entries)) {
				t.Errorf("conversation %d has %d entries, the last is %d, %v", n, len(entries), last, err)
			}
			for _, e := range entries {
				if e.Dedup == nil {
					continue
				}
				if found, err := tx.EntryByDedup(id(n), e.Dedup); err != nil || found.Seq != e.Seq {
					t.Errorf("the key of entry %d finds %d, %v", e.Seq, found.Seq, err)
				}
			}
			return nil
		}))
	}
}

// log reads a whole log page by page and checks that it is gapless and says what entry wrote.
func log(t *testing.T, s *store.Store, c chat.ConversationID) []store.Entry {
	t.Helper()
	var all []store.Entry
	for {
		var page []store.Entry
		must(t, s.View(ctx, func(tx *store.Tx) (err error) {
			page, err = tx.Entries(c, uint64(len(all)), 7, 1<<20)
			return err
		}))
		if len(page) == 0 {
			break
		}
		all = append(all, page...)
	}
	for i, e := range all {
		if e.Seq != uint64(i+1) || e.Conversation != c {
			t.Fatalf("entry %d of the log is %s/%d", i+1, e.Conversation, e.Seq)
		}
	}
	return all
}

func order(put put) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		s := open(t)
		var want []store.Entry
		var mixed []store.Entry
		for seq := uint64(1); seq <= 41; seq++ {
			mixed = append(mixed, entry(id(1), seq), entry(id(2), seq))
			want = append(want, entry(id(1), seq))
		}
		must(t, put(s, mixed[:33]...))
		must(t, put(s, mixed[33:]...))
		got := log(t, s, id(1))
		if len(got) != len(want) {
			t.Fatalf("%d entries, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i].Body, want[i].Body) || got[i].At != want[i].At || got[i].Account != want[i].Account ||
				got[i].Device != want[i].Device || !bytes.Equal(got[i].Dedup, want[i].Dedup) || got[i].Kind != 3 {
				t.Fatalf("entry %d: got %+v, want %+v", i+1, got[i], want[i])
			}
		}
		must(t, s.View(ctx, func(tx *store.Tx) error {
			for n, want := range map[byte]uint64{1: 41, 2: 41, 3: 0} {
				if got, err := tx.LastSeq(id(n)); err != nil || got != want {
					t.Errorf("last of %d: %d, %v; want %d", n, got, err, want)
				}
			}
			return nil
		}))
	}
}

func reopening(put put) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		s := open(t)
		for seq := uint64(1); seq <= 20; seq++ {
			must(t, put(s, entry(id(1), seq)))
		}
		must(t, s.Close())
		if got := log(t, open(t), id(1)); len(got) != 20 {
			t.Fatalf("%d entries after reopening, want 20", len(got))
		}
	}
}

func whole(t *testing.T, open Open) {
	s := open(t)
	cause := errors.New("the disk said no")
	err := s.AppendBatch(ctx, func(b *store.Batch) error {
		for seq := uint64(1); seq <= 40; seq++ {
			if err := b.Append(entry(id(1), seq)); err != nil {
				return err
			}
		}
		return cause
	})
	if !errors.Is(err, cause) {
		t.Fatalf("got %v", err)
	}
	if got := log(t, s, id(1)); len(got) != 0 {
		t.Fatalf("%d entries of a failed batch", len(got))
	}
}

func sequenceTwice(put put) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		s := open(t)
		must(t, put(s, entry(id(1), 1)))
		again := entry(id(1), 1)
		again.Dedup, again.Body = []byte("another key 16 b"), []byte("another body")
		if err := put(s, entry(id(2), 1), again); !errors.Is(err, store.ErrExists) {
			t.Fatalf("the same sequence number twice: %v", err)
		}
		if got := log(t, s, id(1)); len(got) != 1 || !bytes.Equal(got[0].Body, entry(id(1), 1).Body) {
			t.Fatal("the first entry did not stay")
		}
		if got := log(t, s, id(2)); len(got) != 0 {
			t.Fatal("half of a refused batch stayed")
		}
	}
}

func dedupTwice(put put) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		s := open(t)
		must(t, put(s, entry(id(1), 1)))
		again := entry(id(1), 2)
		again.Dedup = entry(id(1), 1).Dedup
		if err := put(s, again); !errors.Is(err, store.ErrExists) {
			t.Fatalf("the same dedup key twice: %v", err)
		}
		must(t, s.View(ctx, func(tx *store.Tx) error {
			if e, err := tx.EntryByDedup(id(1), again.Dedup); err != nil || e.Seq != 1 {
				t.Errorf("the key finds %d, %v", e.Seq, err)
			}
			if _, err := tx.EntryByDedup(id(1), []byte("no such key 16 b")); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("unknown key: %v", err)
			}
			return nil
		}))
		// The server's own entries have no key, and any number of them.
		own := []store.Entry{entry(id(1), 2), entry(id(1), 3)}
		own[0].Dedup, own[1].Dedup = nil, nil
		must(t, put(s, own...))
	}
}

func dedupApart(put put) func(*testing.T, Open) {
	return func(t *testing.T, open Open) {
		s := open(t)
		other := entry(id(2), 1)
		other.Dedup = entry(id(1), 1).Dedup
		must(t, put(s, entry(id(1), 1), other))
	}
}

func refusedItem(t *testing.T, open Open) {
	s := open(t)
	found(t, s, id(1), account(1))
	refusal := errors.New("not allowed")
	must(t, s.AppendBatch(ctx, func(b *store.Batch) error {
		must(t, b.Append(entry(id(1), 1)))
		refused, err := b.Try(func(tx *store.Tx) error {
			must(t, tx.AppendEntry(entry(id(1), 2)))
			must(t, tx.JoinConversation(id(1), account(9)))
			return refusal
		})
		if refused != refusal || err != nil {
			t.Errorf("got %v, %v", refused, err)
		}
		return b.Append(entry(id(1), 2))
	}))
	if got := log(t, s, id(1)); len(got) != 2 {
		t.Fatalf("%d entries, want 2", len(got))
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.Membership(id(1), account(9)); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("what a refused item wrote is there: %v", err)
		}
		return nil
	}))
}

func itemSees(t *testing.T, open Open) {
	s := open(t)
	must(t, s.AppendBatch(ctx, func(b *store.Batch) error {
		for seq := uint64(1); seq <= 3; seq++ {
			must(t, b.Append(entry(id(1), seq)))
		}
		refused, err := b.Try(func(tx *store.Tx) error {
			if last, err := tx.LastSeq(id(1)); err != nil || last != 3 {
				t.Errorf("an item sees %d, %v; want 3", last, err)
			}
			return nil
		})
		return errors.Join(refused, err)
	}))
}

func racingCommits(t *testing.T, open Open) {
	s := open(t)
	found(t, s, id(1), account(1))
	var won, lost int
	var mu sync.Mutex
	var racers sync.WaitGroup
	for n := range 8 {
		racers.Go(func() {
			err := s.Update(ctx, func(tx *store.Tx) error {
				return tx.NextEpoch(id(1), 0, 1, fmt.Appendf(nil, "epoch 1 by %d", n))
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, store.ErrNotFound):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	racers.Wait()
	if won != 1 || lost != 7 {
		t.Fatalf("%d commits won and %d lost, want 1 and 7", won, lost)
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if c, err := tx.Conversation(id(1)); err != nil || c.Epoch != 1 || c.EpochSeq != 1 {
			t.Errorf("got %+v, %v", c, err)
		}
		return nil
	}))
	// What a conversation waits for is of one epoch and ends with it.
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.Await(id(1), 1, []uint32{3, 70000}, []byte("proposed")) }))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		c, roster, err := tx.ConversationRoster(id(1))
		if err != nil || len(c.Waiting) != 2 || c.Waiting[1] != 70000 || string(roster) != "proposed" {
			t.Errorf("got %+v, %q, %v", c, roster, err)
		}
		return nil
	}))
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Await(id(1), 0, nil, nil) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a proposal of an old epoch: %v", err)
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.NextEpoch(id(1), 1, 2, []byte("epoch 2")) }))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if c, err := tx.Conversation(id(1)); err != nil || c.Epoch != 2 || len(c.Waiting) != 0 {
			t.Errorf("got %+v, %v", c, err)
		}
		return nil
	}))
}

func tombstones(t *testing.T, open Open) {
	s := open(t)
	first := entry(id(1), 1)
	first.Extra = []byte("extra")
	must(t, appendAll(s, first, entry(id(1), 2)))
	for range 2 {
		must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.Tombstone(id(1), 1) }))
	}
	hash := sha256.Sum256(first.Body)
	got := log(t, s, id(1))
	if !got[0].Tombstone || !bytes.Equal(got[0].Body, hash[:]) || len(got[0].Extra) != 0 {
		t.Fatalf("got %+v", got[0])
	}
	if got[1].Tombstone || len(got) != 2 {
		t.Fatal("more than one entry changed")
	}
	if !bytes.Equal(got[0].Dedup, first.Dedup) {
		t.Fatal("the dedup key went with the body")
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Tombstone(id(1), 3) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a tombstone for nothing: %v", err)
	}
}

func paging(t *testing.T, open Open) {
	s := open(t)
	for seq := uint64(1); seq <= 30; seq++ {
		e := entry(id(1), seq)
		e.Body = make([]byte, 100)
		must(t, appendAll(s, e))
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		for _, c := range []struct {
			after             uint64
			limit, size       int
			wantFirst, wantNo int
		}{
			{0, 10, 1 << 20, 1, 10}, {10, 10, 1 << 20, 11, 10}, {25, 10, 1 << 20, 26, 5}, {30, 10, 1 << 20, 0, 0}, {1 << 40, 10, 1 << 20, 0, 0},
			{0, 10, 250, 1, 3}, {0, 10, 1, 1, 1}, {0, 10, 200, 1, 2},
		} {
			page, err := tx.Entries(id(1), c.after, c.limit, c.size)
			if err != nil || len(page) != c.wantNo || c.wantNo > 0 && page[0].Seq != uint64(c.wantFirst) {
				t.Errorf("after %d, limit %d, size %d: %d entries, %v", c.after, c.limit, c.size, len(page), err)
			}
		}
		return nil
	}))
	var ids []chat.ConversationID
	for n := byte(1); n <= 5; n++ {
		found(t, s, id(n))
	}
	must(t, s.View(ctx, func(tx *store.Tx) (err error) {
		ids, err = tx.ConversationIDs(id(2), 2)
		return err
	}))
	if len(ids) != 2 || ids[0] != id(3) || ids[1] != id(4) {
		t.Errorf("ids after 2: %v", ids)
	}
}

func counts(t *testing.T, open Open) {
	s := open(t)
	entries := []store.Entry{entry(id(1), 1), entry(id(1), 2), entry(id(1), 3), entry(id(1), 4), entry(id(1), 5), entry(id(2), 1)}
	entries[1].Device[0] = 8     // another device
	entries[2].Kind = 1          // a commit
	entries[3].Epoch = 1         // another epoch
	entries[4].Account[0] = 0xee // another account with the same device id
	must(t, appendAll(s, entries...))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if n, err := tx.CountSent(id(1), 0, 0, 3, account(1), chat.DeviceID{7}); err != nil || n != 1 {
			t.Errorf("epoch 0: %d, %v; want 1", n, err)
		}
		if n, err := tx.CountSent(id(1), 3, 1, 3, account(1), chat.DeviceID{7}); err != nil || n != 1 {
			t.Errorf("epoch 1: %d, %v; want 1", n, err)
		}
		return nil
	}))
}

func membership(t *testing.T, open Open) {
	s := open(t)
	found(t, s, id(1), account(1), account(2))
	found(t, s, id(2), account(2), account(3))
	check := func(a, b byte, want bool) {
		t.Helper()
		must(t, s.View(ctx, func(tx *store.Tx) error {
			if got, err := tx.HaveCommonConversation(account(a), account(b)); err != nil || got != want {
				t.Errorf("%d and %d: %v, %v; want %v", a, b, got, err, want)
			}
			return nil
		}))
	}
	check(1, 2, true)
	check(2, 3, true)
	check(1, 3, false)
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.LeaveConversation(id(1), account(2), 44) }))
	check(1, 2, false)
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if left, err := tx.Membership(id(1), account(2)); err != nil || left != 44 {
			t.Errorf("left at %d, %v; want 44", left, err)
		}
		if members, err := tx.MemberAccounts(id(1)); err != nil || len(members) != 1 || members[0] != account(1) {
			t.Errorf("members %v, %v", members, err)
		}
		if n, err := tx.CountConversations(account(2)); err != nil || n != 1 {
			t.Errorf("%d conversations, %v; want 1", n, err)
		}
		return nil
	}))
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.JoinConversation(id(1), account(2)) }))
	check(1, 2, true)
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if left, err := tx.Membership(id(1), account(2)); err != nil || left != 0 {
			t.Errorf("back again, but left at %d, %v", left, err)
		}
		return nil
	}))
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.LeaveConversation(id(1), account(3), 1) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a stranger left: %v", err)
	}
	err := s.Update(ctx, func(tx *store.Tx) error {
		return tx.CreateConversation(store.Founding{Conversation: store.Conversation{ID: id(1)}, GroupInfo: []byte("x"), Roster: []byte("x")})
	})
	if !errors.Is(err, store.ErrExists) {
		t.Errorf("a conversation founded twice: %v", err)
	}
}

func welcomes(t *testing.T, open Open) {
	s := open(t)
	a, b := store.DeviceMailbox(account(1), chat.DeviceID{1}), store.AgentMailbox(chat.GrantID{9})
	body := []byte("welcome")
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.PutWelcome(id(1), 4, body, []store.Mailbox{a, b}) }))
	list := func(box store.Mailbox) (w []store.WaitingWelcome) {
		must(t, s.View(ctx, func(tx *store.Tx) (err error) {
			w, err = tx.Welcomes(box, 10, 1)
			return err
		}))
		return w
	}
	hash := sha256.Sum256(body)
	for _, box := range []store.Mailbox{a, b} {
		got := list(box)
		if len(got) != 1 || got[0].ID != hash || got[0].Seq != 4 || got[0].Conversation != id(1) || !bytes.Equal(got[0].Welcome, body) {
			t.Fatalf("got %+v", got)
		}
	}
	if got := list(store.DeviceMailbox(account(1), chat.DeviceID{2})); len(got) != 0 {
		t.Error("another device's mailbox holds it")
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.DeleteWelcome(a, hash) }))
	if len(list(a)) != 0 || len(list(b)) != 1 {
		t.Error("deleted from the wrong box")
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.DeleteWelcome(a, hash) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.EmptyMailbox(b) }))
	// The bytes went with the last box, so that the place is free.
	must(t, s.Update(ctx, func(tx *store.Tx) error { return tx.PutWelcome(id(1), 4, body, []store.Mailbox{a}) }))
}

func failedUpdate(t *testing.T, open Open) {
	s := open(t)
	cause := errors.New("changed its mind")
	if err := s.Update(ctx, func(tx *store.Tx) error {
		must(t, tx.AppendEntry(entry(id(1), 1)))
		return cause
	}); !errors.Is(err, cause) {
		t.Fatal(err)
	}
	if got := log(t, s, id(1)); len(got) != 0 {
		t.Fatal("a failed update left something")
	}
}

// writers has many transactions read the newest entry and write the next one: each must see all before it.
func writers(t *testing.T, open Open) {
	s, other := open(t), open(t)
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			for range 5 {
				mine := s
				if n%2 == 1 {
					mine = other
				}
				if err := mine.Update(ctx, func(tx *store.Tx) error {
					last, err := tx.LastSeq(id(1))
					if err != nil {
						return err
					}
					return tx.AppendEntry(entry(id(1), last+1))
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if got := log(t, s, id(1)); len(got) != 40 {
		t.Fatalf("%d entries, want 40", len(got))
	}
}

func snapshot(t *testing.T, open Open) {
	s := open(t)
	must(t, appendAll(s, entry(id(1), 1)))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if last, err := tx.LastSeq(id(1)); err != nil || last != 1 {
			t.Errorf("got %d, %v", last, err)
		}
		must(t, appendAll(s, entry(id(1), 2)))
		if last, err := tx.LastSeq(id(1)); err != nil || last != 1 {
			t.Errorf("a view moved on while it was open: %d, %v", last, err)
		}
		return nil
	}))
}

// sameRows appends what is unusual in an entry in both ways: no account, no device, no key, empty bodies, great numbers.
func sameRows(t *testing.T, open Open) {
	s := open(t)
	var entries [2][]store.Entry
	for n := range entries {
		c := id(byte(n + 1))
		plain := entry(c, 1)
		bare := store.Entry{Conversation: c, Seq: 2, Kind: 2, Body: []byte{}}
		great := entry(c, 3)
		great.Epoch, great.At, great.Kind, great.Tombstone, great.Extra = 1<<62, 1<<62, 255, true, []byte("extra")
		great.Body, great.Dedup = bytes.Repeat([]byte{0, 255}, 40_000), bytes.Repeat([]byte{0}, 64)
		entries[n] = []store.Entry{plain, bare, great}
	}
	must(t, appendAll(s, entries[0]...))
	must(t, appendEntries(s, entries[1]...))
	for n := range entries {
		for i, got := range log(t, s, id(byte(n+1))) {
			want := entries[n][i]
			for _, b := range []*[]byte{&got.Body, &got.Extra, &want.Body, &want.Extra} { // no bytes and empty bytes are the same
				*b = append([]byte{}, *b...)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("way %d, entry %d: got %+v, want %+v", n, i+1, got, want)
			}
		}
	}
	must(t, s.AppendEntries(ctx, nil))
}

// times: the store has no clock. What it is given it keeps, and it orders nothing by it.
func times(t *testing.T, open Open) {
	s := open(t)
	var entries []store.Entry
	for i, at := range []int64{5000, 1, 1 << 60, 0, -1} {
		e := entry(id(1), uint64(i+1))
		e.At = at
		entries = append(entries, e)
	}
	must(t, appendEntries(s, entries...))
	for i, e := range log(t, s, id(1)) {
		if e.At != entries[i].At {
			t.Errorf("entry %d is of %d, want %d", i+1, e.At, entries[i].At)
		}
	}
	// A lease runs out by the caller's clock alone.
	take := func(owner string, now int64) (l store.LedgerLease, err error) {
		err = s.Update(ctx, func(tx *store.Tx) (err error) {
			l, err = tx.TakeLedgerLease("log", []byte(owner), now, now+10)
			return err
		})
		return l, err
	}
	if l, err := take("a", 100); err != nil || l.Token != 1 {
		t.Errorf("the first: %+v, %v", l, err)
	}
	if _, err := take("b", 109); !errors.Is(err, store.ErrExists) {
		t.Errorf("while it is held: %v", err)
	}
	if l, err := take("b", 110); err != nil || l.Token != 2 {
		t.Errorf("once it has run out: %+v, %v", l, err)
	}
}

// byteOrder: whatever language a database sorts by, reports are made of these lists and must come out the same everywhere.
func byteOrder(t *testing.T, open Open) {
	s := open(t)
	names := []string{"-b", "B", "a", "a-c", "ab", "b", "\u00e4"} // in the order of bytes
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		for _, n := range []int{3, 6, 0, 5, 2, 4, 1} {
			must(t, tx.PutPartner(store.Partner{ID: names[n]}))
			must(t, tx.PutFigure(store.Count{Partner: "p", Labels: store.Labels{Surface: names[n]}, Sends: 1}))
			must(t, tx.AddCount(store.Count{Partner: "p", Labels: store.Labels{Surface: names[n]}, Sends: 1}))
			must(t, tx.AddLedgerRecord(store.LedgerRecord{LedgerChain: store.LedgerChain{Account: account(1), Partner: names[n]}, Payload: []byte{}, Salt: []byte{},
				Leaf: []byte{}, VRFProof: []byte{}}, 1))
		}
		return nil
	}))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		lists := map[string][]string{}
		partners, err := tx.Partners()
		must(t, err)
		for _, p := range partners {
			lists["partners"] = append(lists["partners"], p.ID)
		}
		for name, read := range map[string]func(string, int64, int64) ([]store.Count, error){"counts": tx.Counts, "figures": tx.Figures} {
			counts, err := read("p", 0, 0)
			must(t, err)
			for _, c := range counts {
				lists[name] = append(lists[name], c.Surface)
			}
		}
		heads, err := tx.LedgerHeads(account(1))
		must(t, err)
		for _, h := range heads {
			lists["heads"] = append(lists["heads"], h.Partner)
		}
		for name, list := range lists {
			if !slices.Equal(list, names) {
				t.Errorf("%s come as %q, want %q", name, list, names)
			}
		}
		// Paging may follow the database's own order, but it passes nothing by.
		var paged int
		for after := (store.LedgerChain{}); ; paged++ {
			page, err := tx.LedgerHeadsAfter(after, 1)
			must(t, err)
			if len(page) == 0 {
				break
			}
			after = page[0].LedgerChain
		}
		if paged != len(names) {
			t.Errorf("%d heads page by page, want %d", paged, len(names))
		}
		return nil
	}))
}

// racingAppends: of two who give the same number to different entries one is refused whole, and tries the next number.
func racingAppends(t *testing.T, open Open) {
	s, other := open(t), open(t)
	var all sync.WaitGroup
	for n, mine := range []*store.Store{s, other, s, other} {
		all.Go(func() {
			for i := range 10 {
				e := entry(id(1), 0)
				e.Dedup = fmt.Appendf(nil, "%d of %d", i, n)
				for e.Seq = 1; ; e.Seq++ {
					err := mine.AppendEntries(ctx, []store.Entry{e})
					if err == nil {
						break
					}
					if !errors.Is(err, store.ErrExists) {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	all.Wait()
	if got := log(t, s, id(1)); len(got) != 40 {
		t.Errorf("%d entries, want 40", len(got))
	}
}
