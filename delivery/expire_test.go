package delivery

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
	"letterlock/store"
	"letterlock/store/storetest"
)

// expiring sends a message that is to go after so long.
func (w *world) expiring(p *person, id chat.ConversationID, text string, life time.Duration) (body []byte, seq uint64) {
	w.t.Helper()
	body = w.seal(p, text)
	sent, err := w.SendMessage(p.ctx(), id, api.Message{Message: body, DedupKey: newKey(), Expires: w.now.Add(life).UnixMilli()})
	must(w.t, err)
	return body, sent.Seq
}

func (w *world) sweep() {
	w.t.Helper()
	must(w.t, w.Sweep(context.Background()))
}

// gone checks that an entry of a log is a tombstone by time.
func gone(t *testing.T, e api.Entry, body []byte) {
	t.Helper()
	if hash := sha256.Sum256(body); !e.Tombstone || !e.Expired || !bytes.Equal(e.Body, hash[:]) {
		t.Errorf("entry %d is served although its time is over: %+v", e.Seq, e)
	}
}

func stands(t *testing.T, e api.Entry, body []byte) {
	t.Helper()
	if e.Tombstone || e.Expired || !bytes.Equal(e.Body, body) {
		t.Errorf("entry %d is not served although its time is not over: %+v", e.Seq, e)
	}
}

// TestOnlyWhatIsDueGoes: the sweep takes what is over and nothing else, and who fetches later sees why.
func TestOnlyWhatIsDueGoes(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	short, _ := w.expiring(alice, id, "for an hour", time.Hour)
	long, _ := w.expiring(alice, id, "for a day", 24*time.Hour)
	kept := w.seal(alice, "for good")
	_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: kept, DedupKey: newKey()})
	must(t, err)
	w.sweep()
	w.now = w.now.Add(time.Hour - time.Millisecond)
	w.sweep()
	log := w.whole(bob, id)
	stands(t, log[1], short)
	w.now = w.now.Add(time.Millisecond)
	w.sweep()
	log = w.whole(bob, id)
	gone(t, log[1], short)
	stands(t, log[2], long)
	stands(t, log[3], kept)
	must(t, w.Store.View(context.Background(), func(tx *store.Tx) error {
		for seq, want := range map[uint64]bool{2: true, 3: false, 4: false} {
			if e, err := tx.Entry(id, seq); err != nil || e.Tombstone != want || e.Expired != want {
				t.Errorf("entry %d in the store: %+v, %v", seq, e, err)
			}
		}
		return nil
	}))
}

// TestWhatIsOverIsNotServed: however late the sweep is, by HTTP, to streams that catch up, to agents, and after the clock went back.
func TestWhatIsOverIsNotServed(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	body, seq := w.expiring(alice, id, "soon over", time.Minute)
	stays := w.seal(alice, "stays")
	_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: stays, DedupKey: newKey()})
	must(t, err)
	early := w.listen(bob)
	early.subscribe(id, false)
	for early.take() {
	}
	if got := early.bodies[id]; len(got) != 3 || !bytes.Equal(got[1], body) {
		t.Fatal("it is not served in time")
	}

	w.now = w.now.Add(time.Minute)
	gone(t, w.whole(bob, id)[1], body)
	page, err := w.Log(bob.ctx(), id, seq-1, 1, 0) // a page that begins with it
	must(t, err)
	gone(t, page.Entries[0], body)
	agents, err := w.LogFor(context.Background(), id, 0, 10)
	must(t, err)
	gone(t, agents.Entries[1], body)
	late := w.listen(bob)
	late.subscribe(id, false)
	for late.take() {
	}
	hash := sha256.Sum256(body)
	if got := late.bodies[id]; len(got) != 3 || !bytes.Equal(got[1], hash[:]) || !bytes.Equal(got[2], stays) {
		t.Errorf("a stream that catches up gets %d entries, the second of %d bytes", len(got), len(got[1]))
	}

	w.now = w.now.Add(-time.Hour)
	gone(t, w.whole(bob, id)[1], body)
	w.sweep()
	gone(t, w.whole(bob, id)[1], body)
}

// TestAnExpiryOnAStream: the frame carries it, it is pushed at once to who listens, and answered and repeated like any other.
func TestAnExpiryOnAStream(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	from, to := w.listen(alice), w.listen(bob)
	to.subscribe(id, false)
	for to.take() {
	}
	body, key := w.seal(alice, "soon over"), [16]byte(newKey())
	for request := range uint32(2) { // the second sends it again, with another time: the first stands
		from.sent[request] = id
		from.frame(api.Frame{Type: api.FrameSendExpiring, Request: request, Conversation: id, Dedup: key, Message: body,
			Expires: w.now.Add(time.Duration(request+1) * time.Minute).UnixMilli()})
		for len(from.acks) <= int(request) {
			<-from.ready
			for from.take() {
			}
		}
	}
	if from.acks[0] != 2 || from.acks[1] != 2 {
		t.Fatalf("acks: %v", from.acks)
	}
	for to.cursor[id] < 2 {
		<-to.ready
		for to.take() {
		}
	}
	if got := to.bodies[id]; !bytes.Equal(got[len(got)-1], body) {
		t.Error("it was not pushed as it is")
	}
	w.now = w.now.Add(time.Minute)
	w.sweep()
	gone(t, w.whole(bob, id)[1], body)
}

func TestExpiriesAreRefused(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	id := w.found(alice)
	for _, at := range []int64{-1, api.MaxExpires + 1} {
		_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: w.seal(alice, "x"), DedupKey: newKey(), Expires: at})
		refused(t, err, chat.Invalid, "expires")
	}
	// A time that has passed on the way is no mistake: it is over at once.
	body, _ := w.expiring(alice, id, "late", -time.Hour)
	gone(t, w.whole(alice, id)[0], body)
}

// TestTenThousandAtOnce: all of them go, other writers get their turn in between, and nobody else's messages are touched.
func TestTenThousandAtOnce(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	id := w.found(alice)
	const n = 10_000
	old := w.seal(alice, "long ago")
	must(t, w.Store.AppendBatch(context.Background(), func(b *store.Batch) error {
		for seq := uint64(1); seq <= n; seq++ {
			refused, err := b.Try(func(tx *store.Tx) error {
				return errors.Join(tx.AppendEntry(store.Entry{Conversation: id, Seq: seq, Kind: uint8(api.KindMessage), At: 1, Body: old}),
					tx.SetDeadline(store.Deadline{Conversation: id, Seq: seq, Due: w.now.UnixMilli(), Step: store.StepTombstone}))
			})
			if err := errors.Join(refused, err); err != nil {
				return err
			}
		}
		return nil
	}))
	w.restart() // the conversation in memory does not know of them
	var others atomic.Int64
	stop, done := make(chan struct{}), make(chan struct{})
	sealed := make([][]byte, 50)
	for i := range sealed {
		sealed[i] = w.seal(alice, "meanwhile")
	}
	go func() {
		defer close(done)
		for _, body := range sealed {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := w.SendMessage(alice.ctx(), id, api.Message{Message: body, DedupKey: newKey()}); err != nil {
				t.Error(err)
			}
			others.Add(1)
		}
	}()
	w.sweep()
	close(stop)
	<-done
	if others.Load() == 0 {
		t.Error("nobody else could write meanwhile")
	}
	tombstones := 0
	for _, e := range w.whole(alice, id) {
		if e.Tombstone != (e.Seq <= n) {
			t.Fatalf("entry %d: %+v", e.Seq, e)
		}
		if e.Tombstone {
			tombstones++
		}
	}
	if tombstones != n {
		t.Errorf("%d tombstones, want %d", tombstones, n)
	}
}

// TestASweepGoesOn: what one sweep did not get to, because the process ended, the next one does; and what two do at once is done once.
func TestASweepGoesOn(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	var bodies [][]byte
	for range 3*sweepBatch + 5 {
		body, _ := w.expiring(alice, id, "x", time.Minute)
		bodies = append(bodies, body)
	}
	w.now = w.now.Add(time.Hour)
	must(t, w.Store.Update(context.Background(), func(tx *store.Tx) error { return sweep(tx, w.now.UnixMilli()) })) // and no more
	w.restart()
	errs := make(chan error, 2)
	for range 2 {
		go func() { errs <- w.Sweep(context.Background()) }()
	}
	must(t, errors.Join(<-errs, <-errs))
	for i, e := range w.whole(bob, id)[1:] {
		gone(t, e, bodies[i])
	}
}

// TestOldTombstonesForget: sender and key go after thirty days, but never while the epoch runs in which devices count their messages.
func TestOldTombstonesForget(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	expired, first := w.expiring(alice, id, "for a minute", time.Minute)
	deleted := w.seal(alice, "deleted")
	sent, err := w.SendMessage(alice.ctx(), id, api.Message{Message: deleted, DedupKey: newKey()})
	must(t, err)
	must(t, w.DeleteMessage(alice.ctx(), id, sent.Seq))
	w.now = w.now.Add(time.Minute)
	w.sweep()

	w.now = w.now.Add(40 * 24 * time.Hour)
	w.sweep()
	count, err := w.OwnCount(alice.ctx(), id)
	must(t, err)
	if count.Count != 2 {
		t.Fatalf("the server counts %d messages of the epoch, alice has sent 2: an old copy of her device would not be noticed", count.Count)
	}

	pending := w.prepare(alice, mls.CommitOptions{})
	_, err = w.Commit(alice.ctx(), id, api.Commit{Commit: pending.Commit, DedupKey: newKey()})
	must(t, err)
	w.now = w.now.Add(29 * 24 * time.Hour)
	w.sweep()
	of := func(seq uint64) (e store.Entry) {
		must(t, w.Store.View(context.Background(), func(tx *store.Tx) (err error) { e, err = tx.Entry(id, seq); return err }))
		return e
	}
	if of(first).Dedup == nil {
		t.Error("it forgot before its time")
	}
	w.now = w.now.Add(2 * 24 * time.Hour)
	w.sweep()
	for seq, body := range map[uint64][]byte{first: expired, sent.Seq: deleted} {
		hash := sha256.Sum256(body)
		if e := of(seq); e.Dedup != nil || !e.Account.IsZero() || e.Device != (chat.DeviceID{}) || !bytes.Equal(e.Body, hash[:]) {
			t.Errorf("entry %d still knows: %+v", seq, e)
		}
	}
	log := w.whole(bob, id) // gapless
	gone(t, log[1], expired)
	if !log[2].Tombstone || log[2].Expired {
		t.Errorf("the deleted one: %+v", log[2])
	}
	must(t, w.Store.View(context.Background(), func(tx *store.Tx) error {
		if left, err := tx.Due(w.now.Add(1000*24*time.Hour).UnixMilli(), 10); err != nil || len(left) != 0 {
			t.Errorf("deadlines left: %+v, %v", left, err)
		}
		return nil
	}))
}

// TestDeletingBeforeItsTime: a delete comes first, and the deadline does not turn it into something else.
func TestDeletingBeforeItsTime(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	_, seq := w.expiring(alice, id, "x", time.Minute)
	must(t, w.DeleteMessage(alice.ctx(), id, seq))
	w.now = w.now.Add(time.Hour)
	w.sweep()
	if e := w.whole(bob, id)[1]; !e.Tombstone || e.Expired {
		t.Errorf("got %+v", e)
	}
	// The other way round the time was first.
	_, seq = w.expiring(alice, id, "y", time.Minute)
	w.now = w.now.Add(time.Hour)
	w.sweep()
	must(t, w.DeleteMessage(alice.ctx(), id, seq))
	if e := w.whole(bob, id)[2]; !e.Tombstone || !e.Expired {
		t.Errorf("got %+v", e)
	}
}

// TestCheckKnowsDeadlines: what waits is a note, what fits no entry a problem.
func TestCheckKnowsDeadlines(t *testing.T) {
	w := newWorld(t)
	alice := w.person("alice")
	id := w.found(alice)
	_, seq := w.expiring(alice, id, "x", time.Minute)
	report, err := Check(context.Background(), w.Store, nil)
	must(t, err)
	if len(report.Problems) != 0 || report.Overdue != 1 { // the test's clock stands in the past
		t.Errorf("got %+v", report)
	}
	set := func(d store.Deadline) {
		must(t, w.Store.Update(context.Background(), func(tx *store.Tx) error { return tx.SetDeadline(d) }))
	}
	set(store.Deadline{Conversation: id, Seq: 99, Due: 1, Step: store.StepTombstone})
	if report, err = Check(context.Background(), w.Store, nil); err != nil || len(report.Problems) != 1 {
		t.Errorf("a deadline without its entry: %+v, %v", report, err)
	}
	w.sweep() // does not fall over it, and clears it away
	w.now = w.now.Add(time.Hour)
	w.sweep()
	if e := w.whole(alice, id)[seq-1]; !e.Expired {
		t.Errorf("the sweep stopped at it: %+v", e)
	}
}

// TestNoTraceInTheFile: after the checkpoint no byte of the ciphertext is left in the database.
func TestNoTraceInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "letterlock.db")
	w := worldOn(t, storetest.File(t, path))
	alice, bob := w.person("alice"), w.person("bob")
	id := w.found(alice, bob)
	small, _ := w.expiring(alice, id, "small", time.Minute)
	large, _ := w.expiring(alice, id, string(bytes.Repeat([]byte("large "), 10_000)), time.Minute)
	stays := w.seal(alice, "stays")
	_, err := w.SendMessage(alice.ctx(), id, api.Message{Message: stays, DedupKey: newKey()})
	must(t, err)
	has := func(body []byte) bool {
		file, err := os.ReadFile(path)
		must(t, err)
		for at := 100; at+24 <= len(body); at += 1000 { // behind the header; pieces, since a long value lies on many pages
			if bytes.Contains(file, body[at:at+24]) {
				return true
			}
		}
		return bytes.Contains(file, body[len(body)-24:])
	}
	w.restart() // closing writes the log into the file
	if !has(small) || !has(large) || !has(stays) {
		t.Fatal("the search finds nothing where something is")
	}
	w.now = w.now.Add(time.Hour)
	w.sweep()
	w.restart()
	if has(small) || has(large) {
		t.Error("ciphertext is left in the file")
	}
	if !has(stays) {
		t.Error("the search finds nothing any more")
	}
}
