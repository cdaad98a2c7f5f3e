package delivery

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// Limits of one stream.
const (
	maxWaiting       = 1 << 20   // bytes of entries that wait for a slow reader
	maxAnswers       = 256 << 10 // bytes of answers that wait: beyond that the client does not read
	maxUnanswered    = 256       // sends
	maxSubscriptions = 1024
	takeBytes        = 256 << 10 // of one Take, but for a single larger entry
)

// Stream is one device's live connection without its transport: frames in by Receive, frames out by Take (spec/frames.md).
//
// Entries reach it in two ways. A subscription that is live is offered each entry as it is published, into a bounded queue. One that is
// behind (new, or too slow) is offered nothing and reads the log page by page in Take, until it has seen all and goes live.
type Stream struct {
	service  *Service
	caller   api.Caller
	identity string
	slots    chan struct{} // one for each send without an answer
	ready    func()        // calls the taker

	mu      sync.Mutex // guards what follows; held over no I/O
	taking  bool       // the taker was called and has not found nothing yet
	queue   []event
	frames  []byte // encoded: those of the queue's events that are no entries, one after another
	waiting int    // bytes of entries in the queue
	subs    map[chat.ConversationID]*subscription
	behind  []*subscription
	all     bool
	woken   map[chat.ConversationID]uint64
	ended   *chat.Error
}

// event is one frame that waits: an entry, shared by all who get it, or so many bytes of frames.
type event struct {
	entry *api.Entry
	size  int
}

// subscription is a stream's to one conversation.
type subscription struct {
	stream   *Stream
	conv     *conversation // held until the subscription ends
	ownByAck bool
	next     atomic.Uint64 // sequence number of the next entry to hand over
}

// Open begins a stream for the calling device. End it with Close.
//
// ready is called when there is something to take and nobody takes: whoever it calls must call Take until that gives nothing or an
// error. It is called with the stream locked, so it must not block, nor take by itself; it is never called again after an error.
func (s *Service) Open(ctx context.Context, ready func()) (*Stream, error) {
	caller, err := api.CallerFrom(ctx)
	if err != nil {
		return nil, err
	}
	st := &Stream{service: s, caller: caller, identity: s.identityOf(caller), slots: make(chan struct{}, maxUnanswered), ready: ready}
	s.hub.add(st)
	if err := s.admitted(caller); err != nil {
		st.End(err)
	}
	select {
	case <-s.draining:
		st.End(chat.Errorf(chat.Unavailable, "the server is shutting down"))
	default:
	}
	return st, nil
}

// Close ends the stream and lets go of everything. Sends that are under way stay under way.
func (st *Stream) Close() {
	st.service.hub.remove(st)
	st.mu.Lock()
	subs := st.subs
	st.subs, st.behind, st.queue = nil, nil, nil
	if st.ended == nil {
		st.ended = chat.Errorf(chat.Unavailable, "closed")
	}
	st.mu.Unlock()
	for _, sub := range subs {
		st.let(sub)
	}
}

// let gives up a subscription that is no longer in subs.
func (st *Stream) let(sub *subscription) {
	sub.conv.drop(sub)
	st.service.cache.release(sub.conv)
}

// Receive takes the frames of one message from the client. Its error is a problem that ends the connection. It blocks while too many
// sends are unanswered: the transport reads no more, and the client feels it.
func (st *Stream) Receive(ctx context.Context, message []byte) error {
	for len(message) > 0 {
		f, rest, err := api.NextFrame(message)
		if err != nil {
			return err
		}
		if err := st.receive(ctx, &f); err != nil {
			return err
		}
		message = rest
	}
	return nil
}

func (st *Stream) receive(ctx context.Context, f *api.Frame) error {
	switch f.Type {
	case api.FrameSend, api.FrameSendExpiring:
		return st.send(ctx, f)
	case api.FrameSubscribe:
		return st.subscribe(ctx, f)
	case api.FrameUnsubscribe:
		st.unsubscribe(f.Conversation)
		return nil
	case api.FrameSubscribeAll:
		return st.subscribeAll(ctx)
	case api.FramePing:
		st.push(api.Frame{Type: api.FramePong, Request: f.Request})
		return nil
	}
	return chat.Errorf(chat.Invalid, "a frame of type %#02x is the server's to send", uint8(f.Type))
}

func (st *Stream) send(ctx context.Context, f *api.Frame) error {
	select {
	case st.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	// The frame's bytes are the transport's buffer: what is kept is copied, in one piece.
	kept := make([]byte, 0, dedupKeySize+len(f.Message))
	kept = append(append(kept, f.Dedup[:]...), f.Message...)
	it, err := st.service.message(ctx, f.Conversation, st.caller, st.identity, kept[:dedupKeySize:dedupKeySize], kept[dedupKeySize:])
	if err != nil {
		st.nack(f.Request, err)
		return nil
	}
	it.stream, it.request = st, f.Request
	it.expires(f.Expires)
	if err := st.service.appender(f.Conversation).put(it); err != nil {
		st.service.cache.release(it.conv)
		st.nack(f.Request, err)
	}
	return nil
}

// answer is the outcome of a send.
func (st *Stream) answer(it *item) {
	if it.err != nil {
		st.nack(it.request, it.err)
		return
	}
	st.push(api.Frame{Type: api.FrameAck, Request: it.request, Seq: it.accepted.Seq, Epoch: it.accepted.Epoch, At: it.accepted.At})
	<-st.slots
}

func (st *Stream) nack(request uint32, err error) {
	kind, detail := problem(err)
	if kind == chat.Internal {
		st.service.Logger.Error("send failed", slog.Any("error", err))
	}
	st.push(api.Frame{Type: api.FrameNack, Request: request, Kind: kind, Detail: detail})
	<-st.slots
}

// problem is what of an error crosses the wire.
func problem(err error) (chat.Kind, string) {
	var e *chat.Error
	if !errors.As(err, &e) || e.Kind == chat.Internal {
		return chat.Internal, "something went wrong here; it was logged"
	}
	return e.Kind, e.Detail
}

func (st *Stream) subscribe(ctx context.Context, f *api.Frame) error {
	st.unsubscribe(f.Conversation)
	c, err := st.service.cache.get(ctx, f.Conversation)
	if err != nil {
		return st.refuse(f.Conversation, err)
	}
	sub := &subscription{stream: st, conv: c, ownByAck: f.OwnByAck}
	sub.next.Store(f.Seq + 1)
	st.mu.Lock()
	if st.ended != nil || len(st.subs) >= maxSubscriptions {
		st.mu.Unlock()
		st.service.cache.release(c)
		return st.refuse(f.Conversation, chat.Errorf(chat.TooMany, "a connection has at most %d subscriptions", maxSubscriptions))
	}
	if st.subs == nil {
		st.subs = make(map[chat.ConversationID]*subscription)
	}
	st.subs[f.Conversation] = sub
	delete(st.woken, f.Conversation)
	st.behind = append(st.behind, sub)
	st.signal()
	st.mu.Unlock()
	return nil
}

// refuse answers a subscription that cannot be; the connection stays.
func (st *Stream) refuse(c chat.ConversationID, err error) error {
	kind, detail := problem(err)
	st.push(api.Frame{Type: api.FrameEnded, Conversation: c, Kind: kind, Detail: detail})
	return nil
}

func (st *Stream) unsubscribe(c chat.ConversationID) {
	st.mu.Lock()
	sub := st.subs[c]
	delete(st.subs, c)
	st.behind = slices.DeleteFunc(st.behind, func(b *subscription) bool { return b == sub })
	st.mu.Unlock()
	if sub != nil {
		st.let(sub)
	}
}

func (st *Stream) subscribeAll(ctx context.Context) error {
	st.mu.Lock()
	st.all = true
	st.mu.Unlock()
	// News between these two is sent twice, not lost.
	return st.service.view(ctx, func(tx *store.Tx) error {
		ids, err := tx.AccountConversations(st.caller.Account)
		if err != nil {
			return err
		}
		for _, id := range ids {
			seq, err := tx.LastSeq(id)
			if err != nil {
				return err
			}
			st.wakeFor(id, seq)
		}
		waiting, err := tx.HasWelcome(store.DeviceMailbox(st.caller.Account, st.caller.Device))
		if waiting {
			st.wakeFor(chat.ConversationID{}, 0)
		}
		return err
	})
}

// wakeFor notes news of a conversation; many become one frame.
func (st *Stream) wakeFor(c chat.ConversationID, seq uint64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.all || st.ended != nil {
		return
	}
	if _, subscribed := st.subs[c]; subscribed {
		return
	}
	if st.woken == nil {
		st.woken = make(map[chat.ConversationID]uint64)
	}
	st.woken[c] = max(st.woken[c], seq)
	st.signal()
}

// offer gives a live subscription its next entry; false when too much waits already, and the subscription is behind. Called with the
// conversation locked.
func (st *Stream) offer(sub *subscription, e *api.Entry) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended != nil {
		return false
	}
	if st.waiting > maxWaiting {
		st.behind = append(st.behind, sub)
		return false
	}
	st.queue = append(st.queue, event{entry: e})
	st.waiting += api.EntryFrameSize(e)
	sub.next.Store(e.Seq + 1)
	st.signal()
	return true
}

// fallBehind sends a subscription back to the store. Called with the conversation locked.
func (st *Stream) fallBehind(sub *subscription) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.behind = append(st.behind, sub)
	st.signal()
}

func (st *Stream) push(f api.Frame) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.frames) > maxAnswers && st.ended == nil {
		st.ended = chat.Errorf(chat.TooMany, "the answers on this connection are not being read")
	}
	if st.ended == nil {
		before := len(st.frames)
		st.frames = f.Append(st.frames)
		st.queue = append(st.queue, event{size: len(st.frames) - before})
		st.signal()
	}
}

// signal calls the taker, unless it is at it. Called with the stream locked.
func (st *Stream) signal() {
	if !st.taking {
		st.taking = true
		st.ready()
	}
}

// End lets the transport send what waits and one problem, and close.
func (st *Stream) End(why *chat.Error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.ended == nil {
		st.ended = why
		st.signal()
	}
}

// Take writes the frames of one message after buf: what waits, or else a page for a subscription that is behind. Nothing added means
// that nothing waits: ready is called when something does. An error ends the connection after what was added was sent.
func (st *Stream) Take(ctx context.Context, buf []byte) ([]byte, error) {
	start := len(buf)
	for {
		st.mu.Lock()
		buf = st.drain(buf)
		sub, ended := st.nextBehind(len(buf) > start), st.ended
		st.taking = sub != nil || ended != nil || len(buf) > start
		st.mu.Unlock()
		switch {
		case len(buf) > start || sub == nil && ended == nil:
			return buf, nil
		case sub == nil:
			f := api.Frame{Type: api.FrameProblem, Kind: ended.Kind, Detail: ended.Detail}
			return f.Append(buf), ended
		}
		var err error
		if buf, err = st.catchUp(ctx, sub, buf); err != nil || len(buf) > start {
			return buf, err
		}
	}
}

// drain takes frames from the queue up to takeBytes.
func (st *Stream) drain(buf []byte) []byte {
	start, n, taken := len(buf), 0, 0
	for ; n < len(st.queue); n++ {
		ev := &st.queue[n]
		if ev.entry == nil {
			buf = append(buf, st.frames[taken:taken+ev.size]...)
			taken += ev.size
		} else {
			size := api.EntryFrameSize(ev.entry)
			if len(buf) > start && len(buf)-start+size > takeBytes {
				break
			}
			buf = api.AppendEntryFrame(buf, ev.entry)
			st.waiting -= size
		}
	}
	left := copy(st.queue, st.queue[n:])
	clear(st.queue[left:])
	st.queue = st.queue[:left]
	st.frames = append(st.frames[:0], st.frames[taken:]...)
	for c, seq := range st.woken {
		f := api.Frame{Type: api.FrameWoken, Conversation: c, Seq: seq}
		buf = f.Append(buf)
	}
	clear(st.woken)
	return buf
}

// nextBehind takes a subscription that is behind, if nothing else waits to be sent first.
func (st *Stream) nextBehind(busy bool) *subscription {
	for !busy && st.ended == nil && len(st.behind) > 0 {
		sub := st.behind[0]
		st.behind = st.behind[1:]
		if st.subs[sub.conv.id] == sub { // not given up since
			st.service.cache.retain(sub.conv)
			return sub
		}
	}
	return nil
}

// catchUp adds a page of the log. At its end the subscription goes live; or it ends, where the account is no longer a member.
func (st *Stream) catchUp(ctx context.Context, sub *subscription, buf []byte) ([]byte, error) {
	c := sub.conv
	defer st.service.cache.release(c)
	page, last, end, err := st.service.page(ctx, c.id, st.caller.Account, sub.next.Load()-1, maxPage, takeBytes-4096)
	if err != nil && !chat.Is(err, chat.NotFound) {
		return buf, err
	}
	for i := range page {
		buf = api.AppendEntryFrame(buf, wireEntry(&page[i]))
		sub.next.Store(page[i].Seq + 1)
	}
	switch {
	case err != nil || last != 0 && sub.next.Load() > last:
		return st.endSubscription(sub, errNoConversation, buf), nil
	case len(page) == 0 && sub.next.Load() > end+1:
		return st.endSubscription(sub, chat.Errorf(chat.Invalid, "the log ends at entry %d, below this cursor: the cursor is wrong, or the server lost entries", end), buf), nil
	case last == 0 && c.goLive(sub):
		f := api.Frame{Type: api.FrameLive, Conversation: c.id, Seq: sub.next.Load() - 1}
		return f.Append(buf), nil
	}
	st.mu.Lock()
	st.behind = append(st.behind, sub)
	st.mu.Unlock()
	return buf, nil
}

// endSubscription gives a subscription up and says why.
func (st *Stream) endSubscription(sub *subscription, why *chat.Error, buf []byte) []byte {
	st.unsubscribe(sub.conv.id)
	f := api.Frame{Type: api.FrameEnded, Conversation: sub.conv.id, Kind: why.Kind, Detail: why.Detail}
	return f.Append(buf)
}
