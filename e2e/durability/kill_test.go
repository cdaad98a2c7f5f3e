package durability

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/chat"
)

const (
	pairs       = 4
	window      = 8 // messages in flight for each sender
	messageSize = 600
)

// rounds is how often the server is killed: 30, or what LETTERLOCK_KILL_ROUNDS says.
func rounds(t *testing.T) int {
	v := os.Getenv("LETTERLOCK_KILL_ROUNDS")
	if v == "" {
		return 30
	}
	n, err := strconv.Atoi(v)
	must(t, err)
	return n
}

// TestKill kills the server with SIGKILL at random moments while four senders keep it busy and one of them ends epochs. After each
// kill the folder must check clean; after each start every sender sends again what was not answered, with the same keys. In the end
// each log must hold every acknowledged message at its acknowledged place, everything sent exactly once, and nothing that was refused.
func TestKill(t *testing.T) {
	for done := 0; done < rounds(t); done += roundsOfAFolder {
		n := min(roundsOfAFolder, rounds(t)-done)
		t.Run(fmt.Sprintf("rounds %d to %d", done+1, done+n), func(t *testing.T) { torment(t, n) })
	}
}

// roundsOfAFolder is after how many rounds a new folder is begun: a check replays everything, so it takes longer as a folder grows.
const roundsOfAFolder = 30

// torment kills one server n times.
func torment(t *testing.T, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "data")
	address, err := bench.FreeAddress()
	must(t, err)
	server, err := bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: dir, Address: address})
	must(t, err)
	defer func() { server.Kill() }()
	people, err := bench.NewPairs(ctx, server.Target, pairs, nil)
	must(t, err)
	senders := make([]*sender, pairs)
	for i, p := range people {
		senders[i] = &sender{t: t, pair: p, log: make(map[uint64]string), open: make(map[string]message), refused: make(map[string]bool)}
	}
	for round := range n {
		load, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		for _, s := range senders {
			all.Go(func() { s.send(load) })
		}
		all.Go(func() { commits(load, people[0]) })
		time.Sleep(time.Duration(20+rand.IntN(250)) * time.Millisecond) // the random moment; nothing is asserted about time
		server.Kill()
		stop()
		all.Wait()
		if out, err := exec.CommandContext(ctx, binary, "check", "--data", dir).CombinedOutput(); err != nil {
			t.Fatalf("round %d: check: %v\n%s", round, err, out)
		}
		if server, err = bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: dir, Address: address}); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if people[0].Unfinished() {
			must(t, people[0].Commit(ctx))
		}
		for _, s := range senders {
			s.sendOpenAgain(ctx)
		}
	}
	acknowledged := 0
	for _, s := range senders {
		s.verify(ctx)
		acknowledged += len(s.log)
	}
	must(t, server.Stop())
	if acknowledged < 10*n {
		t.Errorf("%d messages were acknowledged in %d rounds: that is no load", acknowledged, n)
	}
	t.Logf("%d rounds, %d messages acknowledged", n, acknowledged)
}

// commits ends epochs until the server is gone.
func commits(ctx context.Context, p *bench.Pair) {
	for ctx.Err() == nil {
		if err := p.Commit(ctx); err != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// message is one that was sent, under its key.
type message struct {
	key  [16]byte
	body []byte
}

// sender is the sending half of a pair and what it may expect of the server.
type sender struct {
	t       *testing.T
	pair    *bench.Pair
	log     map[uint64]string  // acknowledged: sequence number -> body
	open    map[string]message // sent, no answer yet, by body
	refused map[string]bool    // bodies: answered with a refusal
}

// send keeps a window of messages in flight until the connection breaks.
func (s *sender) send(ctx context.Context) {
	stream, err := s.pair.A.Dial(ctx)
	if err != nil {
		return
	}
	defer stream.Close()
	inFlight := make(map[uint32]message)
	next, ackRequest, ackSeq := uint32(0), uint32(0), uint64(0)
	one := func() error {
		next++
		m := message{[16]byte(newKey()), s.pair.Message(messageSize, int64(next))}
		inFlight[next], s.open[string(m.body)] = m, m
		return stream.Send(api.Frame{Type: api.FrameSend, Request: next, Conversation: s.pair.Conversation, Dedup: m.key, Message: m.body})
	}
	for range window {
		if one() != nil {
			return
		}
	}
	for {
		f, err := stream.Recv(ctx)
		if err != nil {
			return
		}
		m, ok := inFlight[f.Request]
		if !ok || f.Type != api.FrameAck && f.Type != api.FrameNack {
			s.t.Errorf("unexpected frame %#x for request %d", f.Type, f.Request)
			return
		}
		delete(inFlight, f.Request)
		if f.Type == api.FrameAck {
			if (f.Request > ackRequest) != (f.Seq > ackSeq) {
				s.t.Errorf("request %d became entry %d, request %d entry %d: out of order", ackRequest, ackSeq, f.Request, f.Seq)
			}
			ackRequest, ackSeq = f.Request, f.Seq
			s.acknowledged(m, f.Seq)
		} else {
			s.refusedAs(m, f.Kind)
		}
		if one() != nil {
			return
		}
	}
}

func newKey() []byte { t := chat.NewToken(); return t[:16] }

func (s *sender) acknowledged(m message, seq uint64) {
	delete(s.open, string(m.body))
	if before, ok := s.log[seq]; ok && before != string(m.body) {
		s.t.Errorf("two messages were acknowledged as %d", seq)
	}
	s.log[seq] = string(m.body)
}

func (s *sender) refusedAs(m message, kind chat.Kind) {
	if kind == chat.Unavailable {
		return // no verdict
	}
	if kind != chat.StaleEpoch {
		s.t.Errorf("refused as %s", kind)
	}
	delete(s.open, string(m.body))
	s.refused[string(m.body)] = true
}

// sendOpenAgain sends every message without an answer once more, by the other way, HTTP.
func (s *sender) sendOpenAgain(ctx context.Context) {
	for _, m := range s.open {
		got, err := s.pair.A.SendMessage(ctx, s.pair.Conversation, api.Message{Message: m.body, DedupKey: m.key[:]})
		var refusal *chat.Error
		switch {
		case err == nil:
			s.acknowledged(m, got.Seq)
		case errors.As(err, &refusal):
			s.refusedAs(m, refusal.Kind)
		default:
			s.t.Fatal(err)
		}
	}
	if len(s.open) != 0 {
		s.t.Fatalf("%d messages have no answer from a server that is up", len(s.open))
	}
}

// verify reads the whole log as the other person sees it.
func (s *sender) verify(ctx context.Context) {
	s.t.Helper()
	seen := make(map[string]uint64)
	for after := uint64(0); ; {
		page, err := s.pair.B.Log(ctx, s.pair.Conversation, after, 1000, 0)
		must(s.t, err)
		if len(page.Entries) == 0 {
			break
		}
		for _, e := range page.Entries {
			if e.Seq != after+1 {
				s.t.Fatalf("entry %d follows entry %d", e.Seq, after)
			}
			after = e.Seq
			if e.Kind != api.KindMessage {
				continue
			}
			body := string(e.Body)
			if at, twice := seen[body]; twice {
				s.t.Errorf("entries %d and %d are one message", at, e.Seq)
			}
			seen[body] = e.Seq
			if s.refused[body] {
				s.t.Errorf("entry %d was refused", e.Seq)
			}
			if want, ok := s.log[e.Seq]; !ok || !bytes.Equal([]byte(want), e.Body) {
				s.t.Errorf("entry %d is not what was acknowledged under this number", e.Seq)
			}
		}
	}
	for seq, body := range s.log {
		if seen[body] != seq {
			s.t.Errorf("message acknowledged as %d is at %d", seq, seen[body])
		}
	}
}
