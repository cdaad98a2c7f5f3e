package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"letterlock/api"
	"letterlock/mls"
)

// Sealed is a run with messages that were really encrypted, before the clock started: a fixed number, all of which must arrive and,
// afterwards, open.
type Sealed struct {
	Throughput
	Bytes       int     `json:"message_bytes"` // of one message, as sent
	SealSeconds float64 `json:"seal_s"`        // before
	OpenSeconds float64 `json:"open_s"`        // after: fetched by HTTP and opened by B
	Opened      int     `json:"opened"`
}

// MeasureSealed has A of every pair seal n messages and send them in order, once for each window.
//
// What limits n: all messages are in memory, about 1.2 kB each for 1 KiB of content, and sealing and opening cost the generator tens
// of microseconds each.
func MeasureSealed(ctx context.Context, at Target, pairs []*Pair, windows []int, n int, o SendOptions, progress Progress) (runs []Sealed, err error) {
	joined := make([]*mls.Group, len(pairs)) // B's
	err = parallel(ctx, len(pairs), runtime.GOMAXPROCS(0), nil, func(_ context.Context, i int) (err error) {
		joined[i], err = mls.Join(pairs[i].welcome, pairs[i].joining, mls.JoinOptions{Signer: pairs[i].B.key})
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, window := range windows {
		progress.say("sealing %d messages", n*len(pairs))
		s, err := sealed(ctx, at, pairs, joined, window, n, o)
		if err != nil {
			return nil, err
		}
		runs = append(runs, s)
	}
	return runs, nil
}

// sealedPair is one pair's share of a run.
type sealedPair struct {
	*Pair
	joined   *mls.Group
	messages [][]byte
	since    []atomic.Int64 // when each was sent, ns since began
	took     []int64        // ns to B
	a, b     *live
	seq      uint64   // the last entry that B has
	at       []uint64 // sequence numbers of the messages
}

func sealed(ctx context.Context, at Target, pairs []*Pair, joined []*mls.Group, window, n int, o SendOptions) (s Sealed, err error) {
	run := make([]*sealedPair, len(pairs))
	start := time.Now()
	err = parallel(ctx, len(run), runtime.GOMAXPROCS(0), nil, func(ctx context.Context, i int) error {
		run[i] = &sealedPair{Pair: pairs[i], joined: joined[i], since: make([]atomic.Int64, n)}
		return run[i].seal(n, o.Size)
	})
	if err != nil {
		return s, err
	}
	s.SealSeconds, s.Bytes = time.Since(start).Seconds(), len(run[0].messages[0])
	if err := each(ctx, run, func(ctx context.Context, p *sealedPair) error { return p.connect(ctx, at) }); err != nil {
		return s, err
	}
	start, cost := time.Now(), startCost(o.Server)
	err = each(ctx, run, func(ctx context.Context, p *sealedPair) error { return p.run(ctx, window) })
	if err != nil {
		return s, err
	}
	total := int64(n * len(run))
	cpu := cost.per(total)
	s.Throughput = Throughput{Window: window, Seconds: time.Since(start).Seconds(), Delivered: total, ServerCPU: cpu.Server, GeneratorCPU: cpu.Generator}
	s.PerSecond = float64(total) / s.Seconds
	var took []int64
	for _, p := range run {
		took = append(took, p.took...)
	}
	slices.Sort(took)
	s.P50, s.P99 = quantile(took, 0.50), quantile(took, 0.99)
	start = time.Now()
	var opened atomic.Int64
	err = parallel(ctx, len(run), runtime.GOMAXPROCS(0), nil, func(ctx context.Context, i int) error { return run[i].open(ctx, o.Size, &opened) })
	s.OpenSeconds, s.Opened = time.Since(start).Seconds(), int(opened.Load())
	return s, err
}

// each does something for all pairs at once.
func each(ctx context.Context, run []*sealedPair, do func(context.Context, *sealedPair) error) error {
	return parallel(ctx, len(run), len(run), nil, func(ctx context.Context, i int) error { return do(ctx, run[i]) })
}

func (p *sealedPair) seal(n, size int) error {
	content := make([]byte, size)
	for range n {
		rand.Read(content)
		m, _, err := p.group.Seal(content, nil)
		if err != nil {
			return err
		}
		p.messages = append(p.messages, m)
	}
	return nil
}

func (p *sealedPair) connect(ctx context.Context, at Target) error {
	c, err := p.A.GetConversation(ctx, p.Conversation)
	if err != nil {
		return err
	}
	p.seq = c.LastSeq
	if p.a, err = dial(ctx, at, p.A, nil); err != nil {
		return err
	}
	if p.b, err = dial(ctx, at, p.B, nil); err != nil {
		return err
	}
	return p.b.subscribe(p.Conversation, c.LastSeq, func(e *api.Entry) error {
		p.seq = e.Seq
		return nil
	})
}

// run sends and receives until everything has arrived.
func (p *sealedPair) run(ctx context.Context, window int) error {
	defer p.a.close()
	defer p.b.close()
	defer context.AfterFunc(ctx, func() { p.a.close(); p.b.close() })()
	sent := make(chan error, 1)
	go func() {
		n := 0
		err := p.a.feed(p.Conversation, window, func() ([]byte, bool) {
			if n == len(p.messages) {
				return nil, false
			}
			p.since[n].Store(int64(time.Since(began)))
			n++
			return p.messages[n-1], true
		})
		if err != nil {
			p.b.close() // nobody waits for what will not come
		}
		sent <- err
	}()
	for len(p.took) < len(p.messages) {
		if err := p.b.receive(p.arrived); err != nil {
			p.a.close()
			return errors.Join(<-sent, err)
		}
	}
	return <-sent
}

// arrived takes the time. Messages arrive in the order in which they were sent; in between there may be some of a run before, which
// ended with them under way.
func (p *sealedPair) arrived(f *api.Frame) error {
	if f.Type != api.FrameEntry {
		return nil
	}
	if f.Entry.Seq != p.seq+1 {
		return fmt.Errorf("bench: entry %d follows %d: the server broke its promise of order", f.Entry.Seq, p.seq)
	}
	p.seq++
	if n := len(p.took); n < len(p.messages) && bytes.Equal(f.Entry.Body, p.messages[n]) {
		p.took, p.at = append(p.took, int64(time.Since(began))-p.since[n].Load()), append(p.at, f.Entry.Seq)
	}
	return nil
}

// open proves that what the server stored is what A sealed for B.
func (p *sealedPair) open(ctx context.Context, size int, opened *atomic.Int64) error {
	for left := p.at; len(left) > 0; {
		page, err := p.B.Log(ctx, p.Conversation, left[0]-1, 1000, 0)
		if err != nil {
			return err
		}
		if len(page.Entries) == 0 {
			return fmt.Errorf("bench: %d sealed messages are missing from the log", len(left))
		}
		for i := range page.Entries {
			e := &page.Entries[i]
			if len(left) == 0 || e.Seq != left[0] {
				continue
			}
			m, err := p.joined.Open(e.Body)
			if err != nil {
				return fmt.Errorf("bench: sealed message at %d does not open: %w", e.Seq, err)
			}
			if len(m.Plaintext) != size {
				return fmt.Errorf("bench: sealed message at %d opened to %d bytes", e.Seq, len(m.Plaintext))
			}
			left = left[1:]
			opened.Add(1)
		}
	}
	return nil
}
