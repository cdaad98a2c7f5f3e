package delivery

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// item is one entry on its way into a log.
type item struct {
	conv  *conversation // held until the item is answered
	entry store.Entry   // but for Seq and At, which the appender gives

	ours    bool     // proposed by the server itself
	removes []uint32 // of a commit: the leaves it removes

	// apply does what the entry needs beside itself, in its transaction, and writes it by append. Its error refuses this item alone.
	// It returns what the conversation becomes: nil, as it was. A nil apply is a message: nothing but the entry.
	apply func(tx *store.Tx, at *tail, append func() error) (*head, error)
	after func() // once durable; must not block

	// The answer.
	accepted api.Accepted
	err      error

	stream  *Stream // where it goes, under this number; or
	request uint32
	done    chan struct{} // closed
}

func (it *item) kind() api.EntryKind { return api.EntryKind(it.entry.Kind) }

// Limits of an appender's queue. What does not fit is refused as Unavailable, and nothing is lost: nothing was acknowledged.
const (
	maxQueued      = 16384    // entries
	maxQueuedBytes = 64 << 20 // of bodies
	maxBatch       = 1024     // entries of one transaction
	maxBatchBytes  = 8 << 20
)

// appender writes the logs of its shard of conversations. One goroutine writes whatever is queued in one transaction, at once: while
// one batch is being synced the next one gathers by itself. Another tells everybody of what is durable, while the next is written.
type appender struct {
	service *Service

	mu     sync.Mutex // guards what follows; held over no I/O
	queue  []*item
	bytes  int
	closed bool
	wake   chan struct{} // capacity 1

	now     int64 // ms, of the last batch: time in a log does not go back
	entries []store.Entry
	next    map[*conversation]*tail // where the batch being written leaves each conversation

	durable chan []*item    // to be told of, in order
	touched []*conversation // by the batch that is being told of
	told    chan []*item    // so many batches were told of; to be filled again
}

func newAppender(s *Service) *appender {
	a := &appender{service: s, wake: make(chan struct{}, 1), next: make(map[*conversation]*tail), durable: make(chan []*item), told: make(chan []*item, batches)}
	for range batches {
		a.told <- nil
	}
	return a
}

// batches is how many there are at a time: one being written, one being told of.
const batches = 2

// put queues an item, which will be answered unless put fails.
func (a *appender) put(it *item) error {
	size := len(it.entry.Body) + len(it.entry.Extra)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return chat.Errorf(chat.Unavailable, "the server is shutting down")
	}
	if len(a.queue) >= maxQueued || a.bytes+size > maxQueuedBytes {
		return chat.Errorf(chat.Unavailable, "the server is busy: send it again with the same key")
	}
	a.queue = append(a.queue, it)
	a.bytes += size
	a.signal()
	return nil
}

func (a *appender) signal() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *appender) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	a.signal()
}

func (a *appender) queued() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue)
}

// take removes the next batch from the queue.
func (a *appender) take(batch []*item) (_ []*item, closed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, size := 0, 0
	for n < len(a.queue) && n < maxBatch && size < maxBatchBytes {
		size += len(a.queue[n].entry.Body) + len(a.queue[n].entry.Extra)
		n++
	}
	batch = append(batch, a.queue[:n]...)
	left := copy(a.queue, a.queue[n:])
	clear(a.queue[left:])
	a.queue = a.queue[:left]
	a.bytes -= size
	return batch, a.closed
}

func (a *appender) run() {
	var telling sync.WaitGroup
	telling.Go(func() {
		for batch := range a.durable {
			a.tell(batch)
			clear(batch)
			a.told <- batch[:0]
		}
	})
	defer telling.Wait()
	defer close(a.durable)
	batch := <-a.told
	for {
		var closed bool
		if batch, closed = a.take(batch); len(batch) > 0 {
			batch = a.process(batch)
		} else if closed {
			return
		} else {
			<-a.wake
		}
	}
}

// process writes a batch and has every item of it answered. It returns an empty one.
func (a *appender) process(batch []*item) []*item {
	start := time.Now()
	err := a.write(batch)
	var again []*item
	if errors.Is(err, store.ErrExists) {
		// Somebody sent something again. The batch was refused whole: answer what was there already, write the rest.
		if batch, again, err = a.apart(batch); err == nil {
			err = a.write(batch)
		}
	}
	if err != nil {
		a.fail(batch, err)
		batch = batch[:0]
	} else {
		a.advance()
		if f := a.service.ObserveBatch; f != nil {
			f(len(batch), time.Since(start))
		}
		a.durable <- batch
		batch = <-a.told
	}
	if len(again) > 0 {
		batch = a.process(append(batch, again...))
	}
	return batch
}

// advance moves every conversation to where the written batch left it.
func (a *appender) advance() {
	for c, t := range a.next {
		if t.lost {
			continue
		}
		c.tail = *t
		if c.head.Load() != t.head {
			c.head.Store(t.head)
		}
	}
	clear(a.next)
}

// tell answers a batch that was written, and tells who listens.
func (a *appender) tell(batch []*item) {
	var refused []*item
	for _, it := range batch {
		if it.err != nil {
			refused = append(refused, it)
			continue
		}
		if !it.conv.touched {
			it.conv.touched = true
			a.touched = append(a.touched, it.conv)
		}
		a.finish(it)
	}
	for _, c := range a.touched {
		c.touched = false
		a.service.hub.woken(c)
	}
	clear(a.touched)
	a.touched = a.touched[:0]
	if len(refused) > 0 {
		a.service.running.Go(func() { a.service.settle(refused) })
	}
}

// quiet waits until everything that is durable has been told.
func (a *appender) quiet() {
	batch := <-a.told // the one that is not being written
	a.told <- batch
}

// write runs one transaction over the batch. Items that a rule refuses have their err set; the others get their place in the log.
func (a *appender) write(batch []*item) error {
	a.reload(batch)
	a.now = max(a.now, a.service.Now().UnixMilli())
	if !slices.ContainsFunc(batch, func(it *item) bool { return it.apply != nil }) {
		return a.writeMessages(batch)
	}
	return a.service.Store.AppendBatch(context.Background(), func(b *store.Batch) error {
		clear(a.next)
		for _, it := range batch {
			if err := a.writeOne(b, it, a.tailOf(it.conv)); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeMessages writes a batch of messages alone, which is nearly every batch.
func (a *appender) writeMessages(batch []*item) error {
	clear(a.next)
	a.entries = a.entries[:0]
	for _, it := range batch {
		if t := a.tailOf(it.conv); a.place(it, t) {
			t.seq++
			a.entries = append(a.entries, it.entry)
		}
	}
	defer clear(a.entries)
	if len(a.entries) == 0 {
		return nil
	}
	return a.service.Store.AppendEntries(context.Background(), a.entries)
}

// tailOf is where the batch being written leaves a conversation.
func (a *appender) tailOf(c *conversation) *tail {
	t := a.next[c]
	if t == nil {
		t = &tail{}
		*t = c.tail
		a.next[c] = t
	}
	return t
}

// place gives an item its place in the log, or sets its err.
func (a *appender) place(it *item, t *tail) bool {
	if t.lost {
		it.err = chat.Errorf(chat.Unavailable, "the server could not read the conversation: send it again with the same key")
		return false
	}
	if it.err = t.head.admit(it); it.err != nil {
		return false
	}
	it.entry.Seq, it.entry.At = t.seq+1, a.now
	return true
}

// writeOne adds one item to the batch, or sets its err. The error that it returns is the transaction's.
func (a *appender) writeOne(b *store.Batch, it *item, t *tail) error {
	if !a.place(it, t) {
		return nil
	}
	if it.apply == nil {
		t.seq++
		return b.Append(it.entry)
	}
	var next *head
	written := false
	refused, err := b.Try(func(tx *store.Tx) (err error) {
		answer, found, err := repeated(tx, it)
		if found || err != nil {
			it.accepted = answer
			return err
		}
		next, err = it.apply(tx, t, func() error { written = true; return tx.AppendEntry(it.entry) })
		return err
	})
	switch {
	case err != nil:
		return err
	case refused != nil:
		it.err = failed(refused)
	case !written: // answered from before, or there was nothing to do
		it.entry.Seq = 0
	default:
		t.seq++
		if next != nil {
			t.head = next
		}
	}
	return nil
}

// finish tells everybody of an entry that is durable: first who listens, then who sent it (a stream that asked for the ack alone
// relies on this order).
func (a *appender) finish(it *item) {
	if it.entry.Seq != 0 {
		it.accepted = acceptedAs(&it.entry)
		it.conv.publish(wireEntry(&it.entry), it.stream)
		if it.after != nil {
			it.after()
		}
	}
	a.service.answer(it)
}

// fail answers a batch whose transaction failed. Whether it was saved after all is not known: what is in memory is read again
// before more is written, and a client that sends again with the same key learns the truth.
func (a *appender) fail(batch []*item, err error) {
	if store.DiskError(err) == nil { // else the store's watcher says so, once
		a.service.Logger.Error("batch not written", slog.Int("entries", len(batch)), slog.Any("error", err))
	}
	clear(a.next)
	a.quiet() // the listeners that reload sends back to the store must not be told of less than they find there
	for _, it := range batch {
		it.conv.tail.lost = true
		it.err = unwritten(err)
		a.service.answer(it)
	}
}

// reload reads conversations again whose last transaction failed. One that cannot be read stays lost.
func (a *appender) reload(batch []*item) {
	for _, it := range batch {
		c := it.conv
		if !c.tail.lost {
			continue
		}
		t, err := c.read(context.Background(), a.service.Store)
		if err != nil {
			continue
		}
		c.tail = t
		c.head.Store(t.head)
		c.resume(t.seq)
	}
}

// apart answers the items of a refused batch whose dedup key is in the log, and puts those aside that repeat another item of the
// same batch: their turn is after it.
func (a *appender) apart(batch []*item) (rest, again []*item, err error) {
	type key struct {
		c     chat.ConversationID
		dedup string
	}
	seen := make(map[key]bool)
	left := batch // not looked at yet
	err = a.service.Store.View(context.Background(), func(tx *store.Tx) error {
		for i, it := range batch {
			answer, found, err := repeated(tx, it)
			if err != nil && !found {
				return err
			}
			left = batch[i+1:]
			if found {
				it.accepted, it.err = answer, err
				a.service.answer(it)
				continue
			}
			k := key{it.entry.Conversation, string(it.entry.Dedup)}
			if it.entry.Dedup != nil && seen[k] {
				again = append(again, it)
				continue
			}
			seen[k] = true
			rest = append(rest, it)
		}
		return nil
	})
	if err == nil && len(rest) == len(batch) {
		err = errors.New("delivery: a sequence number was taken: another process writes here")
	}
	return append(rest, left...), again, err
}

// settle answers items that the rules refused. One that is in the log already was sent again after a commit that it did not see:
// it is answered as the first time, or the sender would send it twice.
func (s *Service) settle(refused []*item) {
	for _, it := range refused {
		s.settleOne(context.Background(), it)
		s.answer(it)
	}
}

func (s *Service) settleOne(ctx context.Context, it *item) {
	if kind := chat.KindOf(it.err); kind != chat.StaleEpoch && kind != chat.Blocked {
		return
	}
	err := s.view(ctx, func(tx *store.Tx) error {
		answer, found, err := repeated(tx, it)
		if found {
			it.accepted, it.err = answer, err
			return nil
		}
		return err
	})
	if err != nil {
		it.err = err
	}
}

// answer gives an item's outcome to whoever waits for it and lets go of the conversation.
func (s *Service) answer(it *item) {
	s.cache.release(it.conv)
	if it.stream != nil {
		it.stream.answer(it)
	} else {
		close(it.done)
	}
}

// submit queues an item and waits for its outcome. The item's reference to the conversation is used up. When ctx ends first, the
// outcome is open: the caller sends again with the same key.
func (s *Service) submit(ctx context.Context, it *item) (api.Accepted, error) {
	it.done = make(chan struct{})
	if it.err = it.conv.head.Load().admit(it); it.err != nil {
		s.settleOne(ctx, it)
		s.cache.release(it.conv)
		return it.accepted, it.err
	}
	if err := s.appender(it.conv.id).put(it); err != nil {
		s.cache.release(it.conv)
		return api.Accepted{}, err
	}
	select {
	case <-it.done:
		return it.accepted, it.err
	case <-ctx.Done():
		return api.Accepted{}, chat.Wrap(chat.Unavailable, ctx.Err(), "the call ended before its outcome was known: send it again with the same key")
	}
}

// wireEntry is an entry as members see it.
func wireEntry(e *store.Entry) *api.Entry {
	return &api.Entry{Conversation: e.Conversation, Seq: e.Seq, Kind: api.EntryKind(e.Kind), Epoch: e.Epoch, At: e.At, Body: e.Body,
		Extra: e.Extra, Tombstone: e.Tombstone, Expired: e.Expired}
}
