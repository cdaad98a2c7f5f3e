package durability

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
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

// load is what keeps a server busy, and what may be expected of it.
type load struct {
	t       *testing.T
	people  []*bench.Pair
	senders []*sender
}

func newLoad(ctx context.Context, p *place) *load {
	people, err := bench.NewPairs(ctx, p.server.Target, pairs, nil)
	must(p.t, err)
	l := &load{t: p.t, people: people}
	for _, pair := range people {
		l.senders = append(l.senders, newSender(p.t, pair))
	}
	return l
}

// run sends, and ends epochs of one conversation, until ctx ends.
func (l *load) run(ctx context.Context) {
	var all sync.WaitGroup
	for _, s := range l.senders {
		all.Go(func() { s.send(ctx) })
	}
	all.Go(func() { l.commits(ctx) })
	all.Wait()
}

// commits ends epochs. One whose outcome is open is sent again as it was.
func (l *load) commits(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.people[0].Commit(ctx); err != nil && ctx.Err() == nil && !chat.Is(err, chat.Unavailable) {
			l.t.Errorf("a commit was refused: %v", err)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// settle gets an answer for everything that has none. The load must have ended.
func (l *load) settle(ctx context.Context) {
	l.t.Helper()
	if l.people[0].Unfinished() {
		must(l.t, eventually(ctx, func() error { return l.people[0].Commit(ctx) }))
	}
	for _, s := range l.senders {
		s.sendOpenAgain(ctx)
	}
}

// verify reads every log. So many messages must have been acknowledged, or it was no load.
func (l *load) verify(ctx context.Context, least int) {
	l.t.Helper()
	acknowledged := 0
	for _, s := range l.senders {
		s.verify(ctx)
		acknowledged += len(s.log)
	}
	if acknowledged < least {
		l.t.Errorf("%d messages were acknowledged: that is no load", acknowledged)
	}
	l.t.Logf("%d messages acknowledged", acknowledged)
}

// away asks a server whose database is gone. It lives, and says to everybody that this is not the time.
func (l *load) away(ctx context.Context, p *place) {
	l.t.Helper()
	health, err := http.Get(p.server.URL + "/healthz")
	must(l.t, err)
	health.Body.Close()
	if health.StatusCode != http.StatusOK {
		l.t.Errorf("/healthz answers %s while the database is away", health.Status)
	}
	answer, err := http.Get(p.server.URL + "/v1/partners")
	must(l.t, err)
	defer answer.Body.Close()
	var problem struct{ Type string }
	must(l.t, json.NewDecoder(answer.Body).Decode(&problem))
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" || problem.Type != "urn:letterlock:unavailable" {
		l.t.Errorf("while the database is away a read is answered %s, %s, Retry-After %q", answer.Status, problem.Type, answer.Header.Get("Retry-After"))
	}
	_, err = l.people[1].B.Log(ctx, l.people[1].Conversation, 0, 10, 0)
	if !chat.Is(err, chat.Unavailable) {
		l.t.Errorf("while the database is away the log is answered %v", err)
	}
}

// eventually does again what is unavailable now, as clients do.
func eventually(ctx context.Context, try func() error) (err error) {
	for range 600 {
		if err = try(); !chat.Is(err, chat.Unavailable) {
			return err
		}
		pause(ctx, 50*time.Millisecond)
	}
	return err
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// message is one that was sent, under its key.
type message struct {
	key   [16]byte
	body  []byte
	again bool // it was sent before, and is open since
}

// sender is the sending half of a pair and what it may expect of the server.
type sender struct {
	t        *testing.T
	pair     *bench.Pair
	patience time.Duration       // without a word from the server it connects anew
	log      map[uint64]string   // acknowledged: sequence number -> body
	open     map[string]*message // sent, no verdict yet, by body
	refused  map[string]bool     // bodies: answered with a refusal
}

func newSender(t *testing.T, pair *bench.Pair) *sender {
	return &sender{t: t, pair: pair, patience: 10 * time.Second, log: make(map[uint64]string), open: make(map[string]*message), refused: make(map[string]bool)}
}

// send keeps a window of messages in flight, over one connection after another.
func (s *sender) send(ctx context.Context) {
	for ctx.Err() == nil {
		s.connect(ctx)
		pause(ctx, 10*time.Millisecond)
	}
}

// connect sends over one connection: first again what is open, then new messages, until the connection breaks or is silent.
func (s *sender) connect(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(s.patience, cancel)
	defer silent.Stop()
	stream, err := s.pair.A.Dial(ctx)
	if err != nil {
		if ctx.Err() == nil && !chat.Is(err, chat.Unavailable) {
			s.t.Errorf("a connection was refused: %v", err)
		}
		return
	}
	defer stream.Close()
	c := &connection{sender: s, stream: stream, inFlight: make(map[uint32]*message)}
	for _, m := range s.open {
		m.again = true
		if c.put(m) != nil {
			return
		}
	}
	for len(c.inFlight) < window {
		if c.put(s.message()) != nil {
			return
		}
	}
	for {
		f, err := stream.Recv(ctx)
		if err != nil {
			return
		}
		silent.Reset(s.patience)
		if c.answered(ctx, f) != nil {
			return
		}
	}
}

// message makes a new one.
func (s *sender) message() *message {
	m := &message{key: [16]byte(newKey()), body: s.pair.Message(messageSize, 0)}
	s.open[string(m.body)] = m
	return m
}

func newKey() []byte { t := chat.NewToken(); return t[:16] }

// connection is one of a sender's.
type connection struct {
	*sender
	stream interface{ Send(...api.Frame) error }

	inFlight map[uint32]*message
	next     uint32 // request
	last     struct {
		request uint32
		seq     uint64
	} // of messages that were sent once only
}

func (c *connection) put(m *message) error {
	c.next++
	c.inFlight[c.next] = m
	return c.stream.Send(api.Frame{Type: api.FrameSend, Request: c.next, Conversation: c.pair.Conversation, Dedup: m.key, Message: m.body})
}

// answered takes an answer and sends the next message, or the same one again where there was no verdict.
func (c *connection) answered(ctx context.Context, f api.Frame) error {
	m, ok := c.inFlight[f.Request]
	if !ok || f.Type != api.FrameAck && f.Type != api.FrameNack {
		c.t.Errorf("unexpected frame %#x for request %d", f.Type, f.Request)
		return errors.New("broken")
	}
	delete(c.inFlight, f.Request)
	switch {
	case f.Type == api.FrameAck:
		if !m.again {
			if (f.Request > c.last.request) != (f.Seq > c.last.seq) {
				c.t.Errorf("request %d became entry %d, request %d entry %d: out of order", c.last.request, c.last.seq, f.Request, f.Seq)
			}
			c.last.request, c.last.seq = f.Request, f.Seq
		}
		c.acknowledged(m, f.Seq)
	case f.Kind == chat.Unavailable:
		m.again = true
		pause(ctx, 10*time.Millisecond)
		return c.put(m)
	default:
		c.refusedAs(m, f.Kind)
	}
	return c.put(c.message())
}

func (s *sender) acknowledged(m *message, seq uint64) {
	delete(s.open, string(m.body))
	if before, ok := s.log[seq]; ok && before != string(m.body) {
		s.t.Errorf("two messages were acknowledged as %d", seq)
	}
	s.log[seq] = string(m.body)
}

func (s *sender) refusedAs(m *message, kind chat.Kind) {
	if kind != chat.StaleEpoch {
		s.t.Errorf("refused as %s", kind)
	}
	delete(s.open, string(m.body))
	s.refused[string(m.body)] = true
}

// sendOpenAgain sends every message without a verdict once more, by the other way, HTTP.
func (s *sender) sendOpenAgain(ctx context.Context) {
	s.t.Helper()
	for _, m := range s.open {
		var got api.Accepted
		err := eventually(ctx, func() (err error) {
			got, err = s.pair.A.SendMessage(ctx, s.pair.Conversation, api.Message{Message: m.body, DedupKey: m.key[:]})
			return err
		})
		var refusal *chat.Error
		switch {
		case err == nil:
			s.acknowledged(m, got.Seq)
		case errors.As(err, &refusal) && refusal.Kind != chat.Unavailable:
			s.refusedAs(m, refusal.Kind)
		default:
			s.t.Fatalf("no verdict from a server that is up: %v", err)
		}
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
