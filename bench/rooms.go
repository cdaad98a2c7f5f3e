package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"letterlock/api"
	"letterlock/chat"
)

// RoomsOptions say who is in which conversations and how much is said there.
type RoomsOptions struct {
	People        int     // each with one live connection, subscribed to all that is theirs
	Conversations int     //
	Members       int     // of each conversation
	Senders       int     // of its members, in turn
	Skew          float64 // above 1: the conversation of rank k gets a share of 1/k^Skew (Zipf); 0: all the same
	Window        int     // messages over all that have not reached their last listener yet
	Rate          int     // messages a second over all, when latency is measured; 0 leaves it out
	Size          int     // content of a message, bytes
	Warmup        time.Duration
	Duration      time.Duration
	Server        *Process // nil: somebody else's
	Progress      Progress
}

// Rooms is what came of it. A message is delivered once for every member but its sender.
type Rooms struct {
	People        int         `json:"people"`
	Conversations int         `json:"conversations"`
	Members       int         `json:"members"`
	SetupSeconds  float64     `json:"setup_s"` // signing up, founding, connecting
	Full          RoomsFlow   `json:"full"`    // the window always full
	Paced         *RoomsPaced `json:"paced,omitempty"`
}

// RoomsFlow is one measured time.
type RoomsFlow struct {
	Window    int     `json:"window"`
	Seconds   float64 `json:"seconds"`
	Messages  int64   `json:"messages"`   // that reached their last listener
	Delivered int64   `json:"deliveries"` // received
	In        float64 `json:"messages_per_second"`
	Out       float64 `json:"deliveries_per_second"`
	Delays
	CPU CPU `json:"cpu_of_deliveries"`
}

// RoomsPaced is latency at a fixed rate, from when each message was due.
type RoomsPaced struct {
	Rate    int `json:"rate"`
	Samples int `json:"samples"` // deliveries
	Delays
}

// Delays are from sending, or from when it was due, to a listener, and to the last of them.
type Delays struct {
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	LastP50 float64 `json:"last_p50_ms"`
	LastP99 float64 `json:"last_p99_ms"`
}

// MeasureRooms founds the conversations and measures throughput, then latency.
func MeasureRooms(ctx context.Context, at Target, o RoomsOptions) (result Rooms, err error) {
	began := time.Now()
	people, err := NewPeers(ctx, at, o.People, o.Progress)
	if err != nil {
		return result, err
	}
	rooms, err := newRooms(ctx, o.Conversations, o.Progress, func(i int) []*Peer {
		members := make([]*Peer, o.Members)
		for k := range members { // neighbours in a ring that begins somewhere else for each
			members[k] = people[(i*7919+k)%len(people)]
		}
		return members
	})
	if err != nil {
		return result, err
	}
	h := newHall(rooms, o)
	defer h.end()
	if err := h.connect(ctx, at, people); err != nil {
		return result, err
	}
	result = Rooms{People: o.People, Conversations: o.Conversations, Members: o.Members, SetupSeconds: time.Since(began).Seconds()}
	o.Progress.say("set up in %.1f s; measuring", result.SetupSeconds)
	if result.Full, err = h.full(ctx); err != nil {
		return result, err
	}
	if o.Rate > 0 {
		o.Progress.say("latency at %d/s", o.Rate)
		result.Paced, err = h.paced(ctx)
	}
	return result, err
}

// hall is the running measurement.
type hall struct {
	RoomsOptions
	rooms     []*room
	listeners []*listener
	of        map[*Peer]*listener
	turn      []int // by room: whose turn it is to send

	// A message that is under way holds a slot; its number stands in the message.
	slots  []slot
	free   chan int64
	record atomic.Bool

	messages, delivered atomic.Int64
	ended               sync.WaitGroup
	failed              chan error
}

type slot struct {
	since atomic.Int64 // ns since began
	left  atomic.Int64 // listeners that do not have it yet
}

// maxSlots is how many messages may be under way when they are sent at a fixed rate.
const maxSlots = 1 << 14

// listener is one person's connection.
type listener struct {
	*live
	at    []position // by number in mine
	mine  map[chat.ConversationID]int
	took  []int64 // ns to here, while record; read when the measured time is over
	lasts []int64 // ns, of the messages that were here last
	mu    sync.Mutex
}

// position is where a listener is in a conversation.
type position struct {
	room *room
	seq  uint64
}

func newHall(rooms []*room, o RoomsOptions) *hall {
	h := &hall{RoomsOptions: o, rooms: rooms, of: make(map[*Peer]*listener), turn: make([]int, len(rooms)), slots: make([]slot, maxSlots),
		free: make(chan int64, maxSlots), failed: make(chan error, o.People+1)}
	return h
}

// connect gives everybody who is in a conversation a connection, subscribed to all of theirs.
func (h *hall) connect(ctx context.Context, at Target, people []*Peer) error {
	for _, p := range people {
		h.of[p] = &listener{mine: make(map[chat.ConversationID]int)}
		h.listeners = append(h.listeners, h.of[p])
	}
	for _, r := range h.rooms {
		for _, p := range r.members {
			l := h.of[p]
			l.mine[r.id] = len(l.at)
			l.at = append(l.at, position{r, r.seq})
		}
	}
	done := func(n int) { h.Progress.step("connections", n, len(people)) }
	return parallel(ctx, len(people), workers(), done, func(ctx context.Context, i int) (err error) {
		l := h.listeners[i]
		if l.live, err = dial(ctx, at, people[i], sourceOf(at, i)); err != nil {
			return err
		}
		defer context.AfterFunc(ctx, l.close)()
		for _, p := range l.at {
			if err := l.subscribe(p.room.id, p.seq, nil); err != nil {
				return err
			}
		}
		h.ended.Go(func() {
			for {
				if err := l.receive(func(f *api.Frame) error { return h.heard(l, f) }); err != nil {
					h.failed <- err
					return
				}
			}
		})
		return nil
	})
}

// heard moves a listener on. An ack stands for the sender's own entry where it follows what the sender has; if not, the entry comes.
func (h *hall) heard(l *listener, f *api.Frame) error {
	switch f.Type {
	case api.FrameAck:
		if at := &l.at[f.Request]; f.Seq == at.seq+1 {
			at.seq++
		}
	case api.FrameEntry:
		at := &l.at[l.mine[f.Entry.Conversation]]
		if f.Entry.Seq <= at.seq {
			return nil
		}
		if f.Entry.Seq != at.seq+1 {
			return fmt.Errorf("bench: entry %d follows %d: the server broke its promise of order", f.Entry.Seq, at.seq)
		}
		at.seq++
		return h.arrived(l, f.Entry.Body)
	}
	return nil
}

func (h *hall) arrived(l *listener, body []byte) error {
	number, err := Stamp(body)
	if err != nil || number < 0 || number >= maxSlots {
		return fmt.Errorf("bench: a message that was not sent in this measurement: %v", err)
	}
	s := &h.slots[number]
	took := int64(time.Since(began)) - s.since.Load()
	last := s.left.Add(-1) == 0
	h.delivered.Add(1)
	if h.record.Load() {
		l.mu.Lock()
		l.took = append(l.took, took)
		if last {
			l.lasts = append(l.lasts, took)
		}
		l.mu.Unlock()
	}
	if last {
		h.messages.Add(1)
		h.free <- number
	}
	return nil
}

// send sends messages with these slots, which were due at a time. Those of one connection leave together.
func (h *hall) send(draw func() int, due time.Time, numbers ...int64) error {
	frames := make(map[*listener][]api.Frame, len(numbers))
	for _, n := range numbers {
		i := draw()
		r := h.rooms[i]
		l := h.of[r.members[h.turn[i]]]
		h.turn[i] = (h.turn[i] + 1) % min(h.Senders, len(r.members))
		h.slots[n].since.Store(int64(due.Sub(began)))
		h.slots[n].left.Store(int64(len(r.members) - 1))
		frames[l] = append(frames[l], api.Frame{Type: api.FrameSend, Request: uint32(l.mine[r.id]), Conversation: r.id, Dedup: dedupKey(),
			Message: r.message(h.Size, n)})
	}
	for l, list := range frames {
		for part := range inMessages(list) {
			if err := l.send(part...); err != nil {
				return err
			}
		}
	}
	return nil
}

// draw chooses conversations: the first is the busiest.
func (h *hall) draw() func() int {
	r := rand.New(rand.NewPCG(1, 2)) // the same traffic each time
	if h.Skew <= 1 {
		return func() int { return r.IntN(len(h.rooms)) }
	}
	z := rand.NewZipf(r, h.Skew, 1, uint64(len(h.rooms)-1))
	return func() int { return int(z.Uint64()) }
}

// batch is how many messages are made before they are sent.
const batch = 64

// full keeps the window full for the measured time and then waits until everything has arrived.
func (h *hall) full(ctx context.Context) (f RoomsFlow, err error) {
	for n := range h.Window {
		h.free <- int64(n)
	}
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for draw := h.draw(); ; {
			numbers := h.take(stop)
			if numbers == nil {
				return
			}
			if err := h.send(draw, time.Now(), numbers...); err != nil {
				h.failed <- err
				return
			}
		}
	})
	err = h.wait(ctx, h.Warmup)
	h.record.Store(true)
	start, messages, delivered, cost := time.Now(), h.messages.Load(), h.delivered.Load(), startCost(h.Server)
	if err == nil {
		err = h.wait(ctx, h.Duration)
	}
	f = RoomsFlow{Window: h.Window, Seconds: time.Since(start).Seconds(), Messages: h.messages.Load() - messages, Delivered: h.delivered.Load() - delivered}
	f.CPU = cost.per(f.Delivered)
	h.record.Store(false)
	close(stop)
	sending.Wait()
	if err != nil {
		return f, err
	}
	f.In, f.Out = float64(f.Messages)/f.Seconds, float64(f.Delivered)/f.Seconds
	f.Delays = h.delays(&f.Delivered)
	return f, h.drain(ctx, h.Window)
}

// take waits for a free slot and takes those that are free as well; nil at the end.
func (h *hall) take(stop chan struct{}) (numbers []int64) {
	select {
	case <-stop:
		return nil
	case n := <-h.free:
		numbers = append(numbers, n)
	}
	for len(numbers) < batch {
		select {
		case n := <-h.free:
			numbers = append(numbers, n)
		default:
			return numbers
		}
	}
	return numbers
}

// drain waits until the messages of all slots have reached everybody, and takes the slots.
func (h *hall) drain(ctx context.Context, slots int) error {
	limit := time.Now().Add(time.Minute)
	for len(h.free) < slots {
		if time.Now().After(limit) {
			return fmt.Errorf("bench: %d messages did not reach everybody within a minute", slots-len(h.free))
		}
		if err := h.wait(ctx, 5*time.Millisecond); err != nil {
			return err
		}
	}
	for range slots {
		<-h.free
	}
	return nil
}

// paced sends at a fixed rate. A message's time begins when it was due, whether or not the sender was free (coordinated omission).
func (h *hall) paced(ctx context.Context) (*RoomsPaced, error) {
	for n := range int64(maxSlots) {
		h.free <- n
	}
	h.record.Store(true)
	start, draw := time.Now(), h.draw()
	for n := range int(h.Duration.Seconds() * float64(h.Rate)) {
		due := start.Add(time.Duration(n) * time.Second / time.Duration(h.Rate))
		if err := h.wait(ctx, time.Until(due)); err != nil {
			return nil, err
		}
		select {
		case number := <-h.free:
			if err := h.send(draw, due, number); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("bench: %d messages are under way: %d/s is more than the server delivers", maxSlots, h.Rate)
		}
	}
	if err := h.drain(ctx, maxSlots); err != nil {
		return nil, err
	}
	h.record.Store(false)
	var n int64
	p := &RoomsPaced{Rate: h.Rate, Delays: h.delays(&n)}
	p.Samples = int(n)
	return p, nil
}

// delays sums up what was recorded and forgets it.
func (h *hall) delays(samples *int64) Delays {
	var took, lasts []int64
	for _, l := range h.listeners {
		l.mu.Lock()
		took, lasts = append(took, l.took...), append(lasts, l.lasts...)
		l.took, l.lasts = nil, nil
		l.mu.Unlock()
	}
	slices.Sort(took)
	slices.Sort(lasts)
	*samples = int64(len(took))
	return Delays{P50: quantile(took, 0.50), P99: quantile(took, 0.99), LastP50: quantile(lasts, 0.50), LastP99: quantile(lasts, 0.99)}
}

// wait waits, or returns the first failure.
func (h *hall) wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case err := <-h.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *hall) end() {
	for _, l := range h.listeners {
		if l.live != nil {
			l.close()
		}
	}
	h.ended.Wait()
}
