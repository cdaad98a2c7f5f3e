package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls"
	"letterlock/store/memory"
	"letterlock/store/storetest"
)

// TestFaultsUnderLoad lets steps of the store fail at random under load, before they are carried out or after, until one is the last.
// A new service on what is left goes on, again and again. In the end each log holds what was acknowledged, each at its place and
// once, and nothing else.
func TestFaultsUnderLoad(t *testing.T) {
	disk := storetest.NewDisk(t)
	w := worldOn(t, storetest.Opener(t, disk.Open))
	var senders []*stubborn
	for n := range 6 {
		p := w.person(fmt.Sprint("alice", n))
		id := w.found(p)
		senders = append(senders, &stubborn{w: w, p: p, id: id, acknowledged: [][]byte{}})
	}
	var failed, saved, deaths int
	for round := range 12 {
		random := rand.New(rand.NewPCG(uint64(round), 1))
		left := 100 + random.IntN(300)
		var dead atomic.Bool
		disk.Faults(func(s memory.Step) memory.Fault { // called by one step at a time
			left--
			switch n := random.IntN(30); {
			case left == 0:
				dead.Store(true)
				deaths++
				return []memory.Fault{memory.Die, memory.DieSaved}[random.IntN(2)]
			case n == 0:
				failed++
				return memory.Fail
			case n <= 3 && s == memory.Commit:
				saved++
				return memory.FailSaved
			default:
				return memory.None
			}
		})
		var all sync.WaitGroup
		for _, s := range senders {
			all.Go(func() {
				for !dead.Load() && s.step() {
				}
			})
		}
		all.Wait()
		w.Service.Close()
		must(t, w.Store.Close())
		disk.Faults(nil)
		w.open(w.ServerKey)
		for _, s := range senders {
			s.settle()
		}
	}
	if failed == 0 || saved == 0 || deaths != 12 {
		t.Errorf("%d failures, %d of them saved, %d deaths", failed, saved, deaths)
	}
	for _, s := range senders {
		s.compare()
	}
}

// stubborn is a device alone in its conversation. It does one thing after the other and repeats each until it has learned its outcome.
type stubborn struct {
	w  *world
	p  *person
	id chat.ConversationID

	open         *attempt
	key          []byte   // of the last message that was acknowledged
	old          []byte   // a message of an epoch that is over
	acknowledged [][]byte // body at seq-1
	refused      int
}

// attempt is something whose outcome is not known yet.
type attempt struct {
	message *api.Message
	commit  *mls.Pending
	key     []byte
	want    chat.Kind // of the refusal that it must meet; empty: it must be taken
}

// step does the next thing, or the last one again. False: something is wrong.
func (s *stubborn) step() bool {
	if s.open == nil {
		s.open = s.next()
	}
	a := s.open
	body, got, err := s.try(a)
	if chat.Is(err, chat.Unavailable) || errors.Is(err, memory.ErrFault) {
		return true
	}
	s.open = nil
	if a.want != "" {
		s.refused++
		if !chat.Is(err, a.want) {
			s.w.t.Errorf("answered with %v, %v; want %s", got, err, a.want)
		}
		return err != nil
	}
	if err != nil || got.Seq != uint64(len(s.acknowledged)+1) {
		s.w.t.Errorf("acknowledged as %d, %v; want %d", got.Seq, err, len(s.acknowledged)+1)
		return false
	}
	s.acknowledged = append(s.acknowledged, body)
	if a.commit != nil {
		s.p.group, err = a.commit.Merge()
		return err == nil
	}
	s.key = a.key
	return true
}

// next takes turns: messages, one by two calls at once, a commit, a message of the epoch before, another message under a key that was used.
func (s *stubborn) next() *attempt {
	text := fmt.Sprint(len(s.acknowledged), s.refused)
	switch n := (len(s.acknowledged) + s.refused) % 8; {
	case n == 5:
		s.old = s.w.seal(s.p, text)
		return &attempt{commit: s.w.prepare(s.p, mls.CommitOptions{}), key: newKey()}
	case n == 6 && s.old != nil:
		return &attempt{message: &api.Message{Message: s.old, DedupKey: newKey()}, want: chat.StaleEpoch}
	case n == 7 && s.key != nil:
		return &attempt{message: &api.Message{Message: s.w.seal(s.p, text), DedupKey: s.key}, want: chat.Mismatch}
	default:
		m := &api.Message{Message: s.w.seal(s.p, text), DedupKey: newKey()}
		return &attempt{message: m, key: m.DedupKey}
	}
}

func (s *stubborn) try(a *attempt) (body []byte, got api.Accepted, err error) {
	ctx, cancel := context.WithTimeout(s.p.ctx(), 10*time.Second)
	defer cancel()
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("nobody answered")
		}
	}()
	if a.commit != nil {
		got, err = s.w.Commit(ctx, s.id, api.Commit{Commit: a.commit.Commit, DedupKey: a.key})
		return a.commit.Commit, got, err
	}
	other := make(chan api.Accepted, 1)
	go func() {
		got, _ := s.w.SendMessage(ctx, s.id, *a.message)
		other <- got
	}()
	got, err = s.w.SendMessage(ctx, s.id, *a.message)
	if twin := <-other; err == nil && twin.Seq != 0 && twin.Seq != got.Seq {
		s.w.t.Errorf("one message at %d and at %d", twin.Seq, got.Seq)
	}
	return a.message.Message, got, err
}

// settle learns the outcome of what was open, now that nothing fails.
func (s *stubborn) settle() {
	if s.open != nil && (!s.step() || s.open != nil) {
		s.w.t.Error("no outcome though nothing fails")
	}
}

func (s *stubborn) compare() {
	log := s.w.whole(s.p, s.id)
	if len(log) != len(s.acknowledged) || len(log) < 12 || s.refused < 2 {
		s.w.t.Fatalf("%d entries, %d acknowledged, %d refused", len(log), len(s.acknowledged), s.refused)
	}
	for i, e := range log {
		if !bytes.Equal(e.Body, s.acknowledged[i]) {
			s.w.t.Errorf("entry %d is not what was acknowledged", i+1)
		}
	}
	report, err := Check(context.Background(), s.w.Store, nil)
	if err != nil || len(report.Problems) != 0 {
		s.w.t.Errorf("check: %v, %v", report.Problems, err)
	}
}
