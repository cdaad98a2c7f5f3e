package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"letterlock/api"
)

// CatchUpOptions say what a device missed.
type CatchUpOptions struct {
	Messages int
	Size     int      // content of a message, bytes
	Server   *Process // nil: somebody else's
	Progress Progress
}

// CatchUp is what came of it: the same messages fetched twice, over the live connection and by HTTP.
type CatchUp struct {
	Messages    int     `json:"messages"`
	FillSeconds float64 `json:"fill_s"`
	Live        Fetched `json:"live"` // a new connection, its sign-in and upgrade included
	Pages       Fetched `json:"pages"`
}

// Fetched is one way of catching up.
type Fetched struct {
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"messages_per_second"`
	Megabytes float64 `json:"mb_per_second"` // of message bodies, 1,000,000 bytes each
	CPU       CPU     `json:"cpu_of_messages"`
}

// fillWindow is how many messages one conversation has under way while it is being filled: what a connection may have.
const fillWindow = 256

// MeasureCatchUp fills a conversation while one of its two devices is away, and lets that one come back.
func MeasureCatchUp(ctx context.Context, at Target, o CatchUpOptions) (result CatchUp, err error) {
	pair, err := NewPair(ctx, at)
	if err != nil {
		return result, err
	}
	result.Messages = o.Messages
	start := time.Now()
	if err := fill(ctx, at, []*Pair{pair}, o.Messages, o.Size, fillWindow, o.Progress); err != nil {
		return result, err
	}
	result.FillSeconds = time.Since(start).Seconds()
	o.Progress.say("catching up over the live connection")
	if result.Live, err = fetched(o, func(each func(*api.Entry) error) error { return catchUpLive(ctx, at, pair, each) }); err != nil {
		return result, err
	}
	o.Progress.say("catching up by HTTP")
	result.Pages, err = fetched(o, func(each func(*api.Entry) error) error { return catchUpPages(ctx, pair, each) })
	return result, err
}

// fetched measures one way, and refuses a log with a gap or an end that comes too early.
func fetched(o CatchUpOptions, fetch func(each func(*api.Entry) error) error) (f Fetched, err error) {
	var seq, bytes uint64
	messages := 0
	start, cost := time.Now(), startCost(o.Server)
	err = fetch(func(e *api.Entry) error {
		if e.Seq != seq+1 {
			return fmt.Errorf("bench: entry %d follows %d: the server broke its promise of order", e.Seq, seq)
		}
		seq = e.Seq
		bytes += uint64(len(e.Body))
		if e.Kind == api.KindMessage {
			messages++
		}
		return nil
	})
	f.Seconds = time.Since(start).Seconds()
	if err == nil && messages != o.Messages {
		err = fmt.Errorf("bench: the device got %d of %d messages", messages, o.Messages)
	}
	f.PerSecond, f.Megabytes, f.CPU = float64(messages)/f.Seconds, float64(bytes)/1e6/f.Seconds, cost.per(int64(messages))
	return f, err
}

func catchUpLive(ctx context.Context, at Target, p *Pair, each func(*api.Entry) error) error {
	l, err := dial(ctx, at, p.B, nil)
	if err != nil {
		return err
	}
	defer l.close()
	defer context.AfterFunc(ctx, l.close)()
	return l.subscribe(p.Conversation, 0, each)
}

func catchUpPages(ctx context.Context, p *Pair, each func(*api.Entry) error) error {
	for after := uint64(0); ; {
		page, err := p.B.Log(ctx, p.Conversation, after, 1000, 0)
		if err != nil {
			return err
		}
		for i := range page.Entries {
			if err := each(&page.Entries[i]); err != nil {
				return err
			}
			after = page.Entries[i].Seq
		}
		if after >= page.LastSeq {
			return nil
		}
	}
}

// fill stores so many messages, in equal parts for each pair, as fast as the server takes them. Nobody listens.
func fill(ctx context.Context, at Target, pairs []*Pair, n, size, window int, progress Progress) error {
	var left, stored atomic.Int64
	left.Store(int64(n))
	start := time.Now()
	return parallel(ctx, len(pairs), len(pairs), nil, func(ctx context.Context, i int) error {
		p := pairs[i]
		l, err := dial(ctx, at, p.A, nil)
		if err != nil {
			return err
		}
		defer l.close()
		defer context.AfterFunc(ctx, l.close)()
		return l.feed(p.Conversation, window, func() ([]byte, bool) {
			if left.Add(-1) < 0 {
				return nil, false
			}
			if done := int(stored.Add(1)); done == n || done%max(n/10, 1) == 0 {
				progress.say("%d of %d messages, %.0f/s", done, n, float64(done)/time.Since(start).Seconds())
			}
			return p.Message(size, 0), true
		})
	})
}
