package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"letterlock/api"
)

// Throughput is one run at a window: how many messages each sender has without an answer at any time.
type Throughput struct {
	Window       int     `json:"window"`
	Seconds      float64 `json:"seconds"`
	Delivered    int64   `json:"delivered"`  // entries that reached their listener, each acknowledged after its sync
	PerSecond    float64 `json:"per_second"` // of them
	P50          float64 `json:"p50_ms"`     // from send to listener
	P99          float64 `json:"p99_ms"`
	ServerCPU    float64 `json:"server_cpu_s_per_1000,omitempty"` // 0: not our process
	GeneratorCPU float64 `json:"generator_cpu_s_per_1000"`
}

// Latency is a run at a fixed rate: from the moment a message was due, whether or not the sender was free then.
type Latency struct {
	Rate    int     `json:"rate"` // messages a second over all pairs
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P90     float64 `json:"p90_ms"`
	P99     float64 `json:"p99_ms"`
	Max     float64 `json:"max_ms"`
}

// SendOptions are what a measurement of sending needs.
type SendOptions struct {
	Size     int                  // content of a message, bytes
	Warmup   time.Duration        // before each measured time
	Duration time.Duration        // measured
	Server   *Process             // nil: somebody else's
	CPU      func() time.Duration // what the server has used, where it is more than one process; nil: ask Server
}

// link is a pair with both live connections.
type link struct {
	*Pair
	a, b  *live
	since int64 // stamps below are of a run before

	window  int // to keep in flight; 0: none by itself
	request uint32
	out     []api.Frame
	acked   atomic.Int64
	got     atomic.Int64
	measure atomic.Bool
	took    []int64 // ns, while measure; read when the link has ended
	cursor  [2]uint64
}

// began is when stamps count from, in ns.
var began = time.Now()

// connect opens both connections and subscribes both devices from the log's end.
func connect(ctx context.Context, p *Pair, since int64) (*link, error) {
	l := &link{Pair: p, since: since}
	at, err := p.A.GetConversation(ctx, p.Conversation)
	if err != nil {
		return nil, err
	}
	for i, s := range []**live{&l.a, &l.b} {
		peer := []*Peer{p.A, p.B}[i]
		if *s, err = dial(ctx, peer.at, peer, nil); err != nil {
			return nil, err
		}
		// What a run before left in flight comes first.
		l.cursor[i] = at.LastSeq
		if err := (*s).subscribe(p.Conversation, at.LastSeq, func(e *api.Entry) error {
			l.cursor[i] = e.Seq
			return nil
		}); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// prepare adds a message to those that leave together.
func (l *link) prepare(size int, due time.Time) {
	l.request++
	l.out = append(l.out, api.Frame{Type: api.FrameSend, Request: l.request, Conversation: l.Conversation, Dedup: dedupKey(),
		Message: l.Message(size, int64(due.Sub(began)))})
}

// flush sends them together.
func (l *link) flush() error {
	for part := range inMessages(l.out) {
		if err := l.a.send(part...); err != nil {
			return err
		}
	}
	l.out = l.out[:0]
	return nil
}

// listen receives on both connections until ctx ends, checks order, and keeps the window full.
func (l *link) listen(ctx context.Context, size int) error {
	stop := context.AfterFunc(ctx, l.close)
	defer stop()
	sides := make(chan error, 2)
	go func() { sides <- l.receive(ctx, l.a, 0, size) }()
	go func() { sides <- l.receive(ctx, l.b, 1, size) }()
	return errors.Join(<-sides, <-sides)
}

func (l *link) close() {
	l.a.close()
	l.b.close()
}

func (l *link) receive(ctx context.Context, s *live, side, size int) error {
	if side == 0 { // the sender fills its window; each ack brings the next message
		for range l.window {
			l.prepare(size, time.Now())
		}
	}
	for {
		if side == 0 && len(l.out) > 0 && l.window > 0 {
			if err := l.flush(); err != nil && ctx.Err() == nil {
				return err
			}
		}
		err := s.receive(func(f *api.Frame) error { return l.one(f, side, size) })
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// one takes a frame. Acks come to the sender and stand for its own entries.
func (l *link) one(f *api.Frame, side, size int) error {
	if f.Type != api.FrameAck && f.Type != api.FrameEntry {
		return nil
	}
	seq := max(f.Seq, f.Entry.Seq)
	if seq != l.cursor[side]+1 {
		return fmt.Errorf("bench: entry %d follows %d: the server broke its promise of order", seq, l.cursor[side])
	}
	l.cursor[side] = seq
	if f.Type == api.FrameAck {
		l.acked.Add(1)
		if l.window > 0 {
			l.prepare(size, time.Now())
		}
		return nil
	}
	stamp, err := Stamp(f.Entry.Body)
	if err != nil || stamp < l.since {
		return err
	}
	if l.measure.Load() {
		l.took = append(l.took, int64(time.Since(began))-stamp)
	}
	l.got.Add(1)
	return nil
}

// run holds the connections of one measurement.
type run struct {
	links  []*link
	cancel context.CancelFunc
	ended  sync.WaitGroup
	failed chan error
}

func newRun(ctx context.Context, pairs []*Pair, size, window int) (*run, error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &run{cancel: cancel, failed: make(chan error, len(pairs))}
	since := int64(time.Since(began))
	for _, p := range pairs {
		l, err := connect(ctx, p, since)
		if err != nil {
			cancel()
			return nil, err
		}
		l.window = window
		r.links = append(r.links, l)
	}
	for _, l := range r.links {
		r.ended.Go(func() {
			if err := l.listen(ctx, size); err != nil {
				r.failed <- err
			}
		})
	}
	return r, nil
}

func (r *run) end() {
	r.cancel()
	r.ended.Wait()
	for _, l := range r.links {
		l.close()
	}
}

func (r *run) got() (n int64) {
	for _, l := range r.links {
		n += l.got.Load()
	}
	return n
}

func (r *run) measure(on bool) {
	for _, l := range r.links {
		l.measure.Store(on)
	}
}

// took is every measured time, sorted. Only after end.
func (r *run) took() (all []int64) {
	for _, l := range r.links {
		all = append(all, l.took...)
	}
	slices.Sort(all)
	return all
}

// wait waits, or returns the first failure.
func (r *run) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-r.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Window measures how many messages a second get through when every pair keeps so many in flight.
func Window(ctx context.Context, pairs []*Pair, window int, o SendOptions) (t Throughput, err error) {
	r, err := newRun(ctx, pairs, o.Size, window)
	if err != nil {
		return t, err
	}
	defer r.end()
	if err := r.wait(ctx, o.Warmup); err != nil {
		return t, err
	}
	r.measure(true)
	start, own, before := time.Now(), ownCPU(), r.got()
	server := o.serverCPU()
	if err := r.wait(ctx, o.Duration); err != nil {
		return t, err
	}
	t = Throughput{Window: window, Seconds: time.Since(start).Seconds(), Delivered: r.got() - before}
	thousands := float64(t.Delivered) / 1000
	t.GeneratorCPU, t.ServerCPU = (ownCPU()-own).Seconds()/thousands, (o.serverCPU()-server).Seconds()/thousands
	t.PerSecond = float64(t.Delivered) / t.Seconds
	r.measure(false)
	r.end()
	all := r.took()
	t.P50, t.P99 = quantile(all, 0.50), quantile(all, 0.99)
	return t, nil
}

func (o *SendOptions) serverCPU() time.Duration {
	if o.CPU != nil {
		return o.CPU()
	}
	if o.Server == nil {
		return 0
	}
	used, err := o.Server.CPU()
	if err != nil {
		return 0
	}
	return used
}

// Rate measures latency at a fixed rate. A message's time begins when it was due: a sender that is late, because the machine was busy
// or a call before it stalled, does not shorten it (coordinated omission).
func Rate(ctx context.Context, pairs []*Pair, rate int, o SendOptions) (lat Latency, err error) {
	r, err := newRun(ctx, pairs, o.Size, 0)
	if err != nil {
		return lat, err
	}
	defer r.end()
	r.measure(true)
	start := time.Now()
	total := int(o.Duration.Seconds() * float64(rate))
	for n := range total {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if err := r.wait(ctx, time.Until(due)); err != nil {
			return lat, err
		}
		l := r.links[n%len(r.links)]
		l.prepare(o.Size, due)
		if err := l.flush(); err != nil {
			return lat, err
		}
	}
	for limit := time.Now().Add(30 * time.Second); r.got() < int64(total); {
		if time.Now().After(limit) {
			return lat, fmt.Errorf("bench: %d of %d messages arrived", r.got(), total)
		}
		if err := r.wait(ctx, 10*time.Millisecond); err != nil {
			return lat, err
		}
	}
	r.end()
	all := r.took()
	return Latency{Rate: rate, Samples: len(all), P50: quantile(all, 0.50), P90: quantile(all, 0.90), P99: quantile(all, 0.99), Max: quantile(all, 1)}, nil
}

// quantile is in ms; sorted holds ns.
func quantile(sorted []int64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := min(int(q*float64(len(sorted))), len(sorted)-1)
	return float64(sorted[i]) / 1e6
}
