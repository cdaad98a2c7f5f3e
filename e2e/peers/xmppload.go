package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"letterlock/bench"
)

// xmppPair is two accounts, of which a sends and b is there to receive.
type xmppPair struct {
	a, b *conn
	to   string // b's bare address: what a chat client writes to
	size int

	mu      sync.Mutex // also holds a's writes in order
	out     []byte
	random  []byte
	window  int    // to keep in flight, that is, not yet acknowledged or not yet arrived; 0: none by itself
	sent    uint32 // since stream management began, as the server counts
	acked   uint32
	got     uint32
	measure bool
	took    []int64 // ns, while measure
}

// began is when stamps count from, in ns.
var began = time.Now()

// stampSize and countSize are the hexadecimal digits that a body begins with: when the message was due, and which one it is.
const (
	stampSize = 16
	countSize = 8
	minBody   = stampSize + countSize
)

func newXMPPPair(ctx context.Context, address string, number, size int) (*xmppPair, error) {
	sender, receiver := fmt.Sprintf("a%d", number), fmt.Sprintf("b%d", number)
	p := &xmppPair{to: receiver + "@" + domain, size: size, random: make([]byte, (size-minBody)*3/4+3)}
	var err error
	if p.a, err = dial(ctx, address, sender); err != nil {
		return nil, err
	}
	if p.b, err = dial(ctx, address, receiver); err != nil {
		p.a.Close()
		return nil, err
	}
	// Only the sender manages its stream: a receiver's acknowledgements would cost the peer and have no match in letterlock.
	if _, err = p.a.ask("<enable xmlns='urn:xmpp:sm:3'/>", "enabled"); err == nil {
		_, err = p.b.ask("<presence/>", "presence")
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *xmppPair) close() {
	p.a.Close()
	p.b.Close()
}

// send writes n messages, each with a request to acknowledge it (XEP-0198), in one write.
func (p *xmppPair) send(n int, due time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.write(n, due)
}

func (p *xmppPair) write(n int, due time.Time) error {
	p.out = p.out[:0]
	for range n {
		p.sent++
		rand.Read(p.random)
		p.out = fmt.Appendf(p.out, "<message to='%s' type='chat' id='%d'><body>%016x%08x", p.to, p.sent, int64(due.Sub(began)), p.sent)
		text := len(p.out)
		p.out = base64.StdEncoding.AppendEncode(p.out, p.random)
		p.out = append(p.out[:text+p.size-minBody], "</body></message><r xmlns='urn:xmpp:sm:3'/>"...)
	}
	_, err := p.a.Write(p.out)
	return err
}

// keep sets the window and fills it; 0 lets it run empty.
func (p *xmppPair) keep(window int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.window = window
	return p.fill()
}

func (p *xmppPair) fill() error {
	if free := p.window - int(p.sent-min(p.acked, p.got)); p.window > 0 && free > 0 {
		return p.write(free, time.Now())
	}
	return nil
}

// acknowledgements reads what the server says to the sender. What came together is answered together, in one write.
func (p *xmppPair) acknowledgements() error {
	for {
		element, err := p.a.in.next()
		if err != nil {
			return err
		}
		if err := refused(element); err != nil {
			return err
		}
		if name(element) != "a" {
			continue
		}
		if err := p.acknowledged(element); err != nil {
			return err
		}
	}
}

func (p *xmppPair) acknowledged(element []byte) error {
	count, err := strconv.ParseUint(attribute(element, "h"), 10, 32)
	if err != nil {
		return fmt.Errorf("an acknowledgement without a count: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if uint32(count) < p.acked || uint32(count) > p.sent {
		return fmt.Errorf("the server acknowledged %d messages; %d were sent and %d acknowledged before", count, p.sent, p.acked)
	}
	p.acked = uint32(count)
	if p.a.in.waiting() {
		return nil
	}
	return p.fill()
}

// deliveries reads what arrives at the receiver, and checks that nothing is missing, doubled or out of order.
func (p *xmppPair) deliveries() error {
	for {
		element, err := p.b.in.next()
		if err != nil {
			return err
		}
		if err := refused(element); err != nil {
			return err
		}
		if name(element) != "message" {
			continue
		}
		stamp, count, err := readBody(element)
		if err != nil {
			return err
		}
		if err := p.arrived(stamp, count); err != nil {
			return err
		}
	}
}

func (p *xmppPair) arrived(stamp int64, count uint32) error {
	now := int64(time.Since(began))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got++
	if count != p.got {
		return fmt.Errorf("message %d arrived as number %d", count, p.got)
	}
	if p.measure {
		p.took = append(p.took, now-stamp)
	}
	if p.b.in.waiting() {
		return nil
	}
	return p.fill()
}

// readBody reads the stamp and the count that a message's body begins with.
func readBody(message []byte) (stamp int64, count uint32, err error) {
	_, body, found := strings.Cut(string(message), "<body>")
	if !found || len(body) < minBody {
		return 0, 0, fmt.Errorf("a message without our body")
	}
	if stamp, err = strconv.ParseInt(body[:stampSize], 16, 64); err != nil {
		return 0, 0, err
	}
	n, err := strconv.ParseUint(body[stampSize:minBody], 16, 32)
	return stamp, uint32(n), err
}

// xmppLoad is the load on one XMPP server. Its connections stay from the first run to the last.
type xmppLoad struct {
	pairs  []*xmppPair
	o      bench.SendOptions
	failed chan error
	ended  sync.WaitGroup
}

func newXMPPLoad(ctx context.Context, address string, pairs int, o bench.SendOptions) (*xmppLoad, error) {
	l := &xmppLoad{o: o, failed: make(chan error, 2*pairs)}
	for n := range pairs {
		p, err := newXMPPPair(ctx, address, n, o.Size)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.pairs = append(l.pairs, p)
		for _, read := range []func() error{p.acknowledgements, p.deliveries} {
			l.ended.Go(func() { l.failed <- read() })
		}
	}
	if err := l.warm(ctx); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// warm sends one message through each pair: servers connect to their database and load people's settings when they first need them.
func (l *xmppLoad) warm(ctx context.Context) error {
	for _, p := range l.pairs {
		if err := p.send(1, time.Now()); err != nil {
			return err
		}
	}
	return l.drain(ctx)
}

func (l *xmppLoad) Close() {
	for _, p := range l.pairs {
		p.close()
	}
	l.ended.Wait()
}

// Window is bench.Window on the XMPP server: the same load, measured in the same way.
func (l *xmppLoad) Window(ctx context.Context, window int) (t bench.Throughput, err error) {
	for _, p := range l.pairs {
		if err := p.keep(window); err != nil {
			return t, err
		}
	}
	if err := l.wait(ctx, l.o.Warmup); err != nil {
		return t, err
	}
	l.measure(true)
	start, own, server, before := time.Now(), ownCPU(), l.o.CPU(), l.counts().got
	if err := l.wait(ctx, l.o.Duration); err != nil {
		return t, err
	}
	t = bench.Throughput{Window: window, Seconds: time.Since(start).Seconds(), Delivered: l.counts().got - before}
	if t.Delivered == 0 {
		return t, fmt.Errorf("nothing was delivered in %v", l.o.Duration)
	}
	thousands := float64(t.Delivered) / 1000
	t.GeneratorCPU, t.ServerCPU = (ownCPU()-own).Seconds()/thousands, (l.o.CPU()-server).Seconds()/thousands
	t.PerSecond = float64(t.Delivered) / t.Seconds
	took := l.measure(false)
	t.P50, t.P99 = quantile(took, 0.50), quantile(took, 0.99)
	for _, p := range l.pairs {
		if err := p.keep(0); err != nil {
			return t, err
		}
	}
	return t, l.drain(ctx)
}

// Rate is bench.Rate on the XMPP server.
func (l *xmppLoad) Rate(ctx context.Context, rate int) (lat bench.Latency, err error) {
	l.measure(true)
	start := time.Now()
	for n := range int(max(l.o.Duration, rateTime).Seconds() * float64(rate)) {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if err := l.wait(ctx, time.Until(due)); err != nil {
			return lat, err
		}
		if err := l.pairs[n%len(l.pairs)].send(1, due); err != nil {
			return lat, err
		}
	}
	if err := l.drain(ctx); err != nil {
		return lat, err
	}
	took := l.measure(false)
	return bench.Latency{Rate: rate, Samples: len(took), P50: quantile(took, 0.50), P90: quantile(took, 0.90), P99: quantile(took, 0.99), Max: quantile(took, 1)}, nil
}

// One sends one message and waits for its acknowledgement and its arrival; each time is nil until it has come.
func (l *xmppLoad) One(ctx context.Context, acknowledged, arrived func()) error {
	before := l.counts()
	if err := l.pairs[0].send(1, time.Now()); err != nil {
		return err
	}
	for wasAcked, wasGot := false, false; !wasAcked || !wasGot; {
		if err := l.wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
		now := l.counts()
		if !wasAcked && now.acked > before.acked {
			wasAcked = true
			acknowledged()
		}
		if !wasGot && now.got > before.got {
			wasGot = true
			arrived()
		}
	}
	return nil
}

// Sent is how many messages were sent in all.
func (l *xmppLoad) Sent() int64 { return l.counts().sent }

type counts struct{ sent, acked, got int64 }

func (l *xmppLoad) counts() (c counts) {
	for _, p := range l.pairs {
		p.mu.Lock()
		c.sent, c.acked, c.got = c.sent+int64(p.sent), c.acked+int64(p.acked), c.got+int64(p.got)
		p.mu.Unlock()
	}
	return c
}

// drain waits until everything that was sent is acknowledged and has arrived.
func (l *xmppLoad) drain(ctx context.Context) error {
	for limit := time.Now().Add(patient); ; {
		c := l.counts()
		if c.acked == c.sent && c.got == c.sent {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("of %d messages %d were acknowledged and %d arrived", c.sent, c.acked, c.got)
		}
		if err := l.wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
}

// measure begins to keep times, or ends it and gives all that were kept, sorted.
func (l *xmppLoad) measure(on bool) (took []int64) {
	for _, p := range l.pairs {
		p.mu.Lock()
		took = append(took, p.took...)
		p.measure, p.took = on, nil
		p.mu.Unlock()
	}
	slices.Sort(took)
	return took
}

// wait waits, or returns the first failure.
func (l *xmppLoad) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-l.failed:
		return fmt.Errorf("a connection ended: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// quantile is in ms; sorted holds ns.
func quantile(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]) / 1e6
}
