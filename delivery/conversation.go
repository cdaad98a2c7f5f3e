package delivery

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mls/roster"
	"letterlock/store"
)

// conversation is an active conversation in memory: one object for all that touch it, loaded from the store and written through.
type conversation struct {
	id      chat.ConversationID
	kind    uint8
	partner string
	created int64

	head atomic.Pointer[head] // durable and current

	tail    tail // of the appender's writing half alone
	touched bool // of its telling half alone: stands in its list

	mu        sync.Mutex // guards what follows; held over no I/O
	published uint64     // the last entry that listeners were told of
	live      map[*Stream]*subscription
	news      chan struct{} // closed with the next entry; nil: nobody waits

	// The cache's.
	refs    int
	idle    *list.Element // while refs is 0
	loaded  chan struct{}
	loadErr error
}

// head is what a conversation is in one epoch, its waiting removals included. It never changes: another takes its place.
type head struct {
	group    *roster.Group
	epoch    uint64
	epochSeq uint64
	waiting  []uint32          // leaves that a commit must remove before anything else is taken
	leaves   map[string]uint32 // by identity
	accounts []chat.AccountID  // of the people in it
}

// tail is where an appender stands in a conversation's log.
type tail struct {
	seq  uint64
	head *head
	lost bool // a transaction failed: read both again before writing more
}

func newHead(c store.Conversation, g *roster.Group, accounts []chat.AccountID) *head {
	members := g.Members()
	h := &head{group: g, epoch: c.Epoch, epochSeq: c.EpochSeq, waiting: c.Waiting, accounts: accounts, leaves: make(map[string]uint32, len(members))}
	for _, m := range members {
		h.leaves[string(m.Identity)] = m.Leaf
	}
	return h
}

// read loads head and last sequence number from the store.
func (c *conversation) read(ctx context.Context, s *store.Store) (t tail, err error) {
	return t, s.View(ctx, func(tx *store.Tx) error {
		row, snapshot, err := tx.ConversationRoster(c.id)
		if err != nil {
			return err
		}
		g, err := roster.UnmarshalGroup(snapshot)
		if err != nil {
			return err
		}
		accounts, err := tx.MemberAccounts(c.id)
		if err != nil {
			return err
		}
		c.kind, c.partner, c.created = row.Kind, row.Partner, row.Created
		t.head = newHead(row, g, accounts)
		t.seq, err = tx.LastSeq(c.id)
		return err
	})
}

// publish hands an entry that is durable to everybody who listens. The stream that sent it may have asked for the ack alone.
func (c *conversation) publish(e *api.Entry, origin *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = e.Seq
	for st, sub := range c.live {
		if e.Seq < sub.next.Load() {
			continue // it read the entry from the store between its sync and now
		}
		if st == origin && sub.ownByAck {
			sub.next.Store(e.Seq + 1)
		} else if !st.offer(sub, e) {
			delete(c.live, st) // too slow: it catches up from the store
		}
	}
	c.wake()
}

// resume follows a reload: listeners find in the store whatever a failed transaction saved after all.
func (c *conversation) resume(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = seq
	for st, sub := range c.live {
		delete(c.live, st)
		st.fallBehind(sub)
	}
	c.wake()
}

func (c *conversation) wake() {
	if c.news != nil {
		close(c.news)
		c.news = nil
	}
}

// after returns a channel that is closed when there are entries above seq.
func (c *conversation) after(seq uint64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.news == nil {
		c.news = make(chan struct{})
	}
	news := c.news
	if c.published > seq {
		c.wake()
	}
	return news
}

// goLive makes a subscription that has seen everything live; false if there is more to read first.
func (c *conversation) goLive(sub *subscription) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.published >= sub.next.Load() {
		return false
	}
	c.live[sub.stream] = sub
	return true
}

func (c *conversation) drop(sub *subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live[sub.stream] == sub {
		delete(c.live, sub.stream)
	}
}

// end takes the live subscriptions of an account away: it is no longer a member.
func (c *conversation) end(a chat.AccountID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for st, sub := range c.live {
		if st.caller.Account == a {
			delete(c.live, st)
			st.fallBehind(sub) // it reads up to the removing commit, and is told
		}
	}
}

// cache holds active conversations. One that is referred to stays; of the others, the longest unused goes first.
type cache struct {
	service *Service
	mu      sync.Mutex
	all     map[chat.ConversationID]*conversation
	unused  list.List
}

// maxUnused is how many conversations stay in memory that nobody refers to.
const maxUnused = 4096

func (k *cache) init(s *Service) {
	k.service = s
	k.all = make(map[chat.ConversationID]*conversation)
}

func (k *cache) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}

// get finds a conversation, from the store if need be. The caller must release it. Unknown ids are errNoConversation.
func (k *cache) get(ctx context.Context, id chat.ConversationID) (*conversation, error) {
	k.mu.Lock()
	c, ok := k.all[id]
	if !ok {
		c = &conversation{id: id, loaded: make(chan struct{}), live: make(map[*Stream]*subscription)}
		k.all[id] = c
	}
	c.refs++
	if c.idle != nil {
		k.unused.Remove(c.idle)
		c.idle = nil
	}
	k.mu.Unlock()
	if !ok {
		go k.load(c) // reading the store takes a deep stack, which the goroutine of a live connection would keep
	}
	select {
	case <-c.loaded:
	case <-ctx.Done():
		k.release(c)
		return nil, ctx.Err()
	}
	if c.loadErr != nil {
		k.release(c)
		return nil, c.loadErr
	}
	return c, nil
}

// load reads the conversation, without the context of the one caller that happened to come first.
func (k *cache) load(c *conversation) {
	t, err := c.read(context.Background(), k.service.Store)
	switch {
	case errors.Is(err, store.ErrNotFound):
		c.loadErr = errNoConversation
	case err != nil:
		c.loadErr = failed(err)
	default:
		c.tail, c.published = t, t.seq
		c.head.Store(t.head)
	}
	if c.loadErr != nil {
		k.mu.Lock()
		delete(k.all, c.id)
		k.mu.Unlock()
	}
	close(c.loaded)
}

// release gives back what get returned.
func (k *cache) release(c *conversation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.refs--; c.refs > 0 || k.all[c.id] != c {
		return
	}
	c.idle = k.unused.PushBack(c)
	if k.unused.Len() > maxUnused {
		oldest := k.unused.Remove(k.unused.Front()).(*conversation)
		oldest.idle = nil
		delete(k.all, oldest.id)
	}
}

// retain adds a reference to a conversation that the caller holds already.
func (k *cache) retain(c *conversation) *conversation {
	k.mu.Lock()
	defer k.mu.Unlock()
	c.refs++
	return c
}
