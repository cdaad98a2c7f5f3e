package delivery

import (
	"sync"

	"letterlock/chat"
)

// hub knows who is connected, to tell of news in what they are not subscribed to.
type hub struct {
	mu       sync.RWMutex
	n        int // streams
	accounts map[chat.AccountID]map[*Stream]bool
	waiting  map[string]map[chan struct{}]bool // by identity: long polls for a Welcome
}

func (h *hub) init() {
	h.accounts = make(map[chat.AccountID]map[*Stream]bool)
	h.waiting = make(map[string]map[chan struct{}]bool)
}

func (h *hub) count() int {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.n
}

func (h *hub) add(st *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n++
	of := h.accounts[st.caller.Account]
	if of == nil {
		of = make(map[*Stream]bool)
		h.accounts[st.caller.Account] = of
	}
	of[st] = true
}

func (h *hub) remove(st *Stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.n--
	of := h.accounts[st.caller.Account]
	if delete(of, st); len(of) == 0 {
		delete(h.accounts, st.caller.Account)
	}
}

// woken tells the people of a conversation that it has news. A stream that is subscribed to it knows.
func (h *hub) woken(c *conversation) {
	c.mu.Lock()
	seq := c.published
	c.mu.Unlock()
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, a := range c.head.Load().accounts {
		for st := range h.accounts[a] {
			st.wakeFor(c.id, seq)
		}
	}
}

func (h *hub) wake(a chat.AccountID, c chat.ConversationID, seq uint64) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for st := range h.accounts[a] {
		st.wakeFor(c, seq)
	}
}

// welcomed tells a device of an account that a Welcome waits.
func (h *hub) welcomed(a chat.AccountID, identity string) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for ch := range h.waiting[identity] {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
	for st := range h.accounts[a] {
		if st.identity == identity {
			st.wakeFor(chat.ConversationID{}, 0)
		}
	}
}

// await returns a channel that has a value when a Welcome came for the identity, until leave is called.
func (h *hub) await(identity string) (news <-chan struct{}, leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := make(chan struct{}, 1)
	if h.waiting[identity] == nil {
		h.waiting[identity] = make(map[chan struct{}]bool)
	}
	h.waiting[identity][ch] = true
	return ch, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if delete(h.waiting[identity], ch); len(h.waiting[identity]) == 0 {
			delete(h.waiting, identity)
		}
	}
}

func (h *hub) streamsOf(a chat.AccountID) (streams []*Stream) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for st := range h.accounts[a] {
		streams = append(streams, st)
	}
	return streams
}

func (h *hub) closeAll(why *chat.Error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	for _, of := range h.accounts {
		for st := range of {
			st.End(why)
		}
	}
}
