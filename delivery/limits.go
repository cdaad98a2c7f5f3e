package delivery

import (
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/store"
)

// Limits are what one account may do, so that a flood costs its sender alone. They are counted in memory, where a send is looked at
// before it is queued: a refusal costs no place in the queue, no read and no write. A zero field means: no limit.
type Limits struct {
	MessagesPerSecond int   // messages, commits and foundings, on average
	MessageBurst      int   // and at once; 0: one second's
	BytesPerDay       int64 // of ciphertext; a day's at once, then refilled steadily
	Conversations     int   // 0: MaxConversations
}

func (l *Limits) conversations() int {
	if l.Conversations == 0 {
		return MaxConversations
	}
	return l.Conversations
}

func (l *Limits) burst() float64 {
	if l.MessageBurst == 0 {
		return float64(l.MessagesPerSecond)
	}
	return float64(l.MessageBurst)
}

// meters count what accounts send. Shards keep senders from waiting for each other.
type meters [64]struct {
	mu     sync.Mutex
	counts map[chat.AccountID]meter
}

// meter is what an account has left.
type meter struct {
	messages, bytes float64
	at              time.Time
}

const maxMeters = 4096 // of one shard

// admit refuses what a blocked account sends, and what is above the account's limits.
func (s *Service) admit(c api.Caller, size int) error {
	if err := s.admitted(c); err != nil {
		return err
	}
	l := &s.Limits
	if c.Unlimited || l.MessagesPerSecond == 0 && l.BytesPerDay == 0 {
		return nil
	}
	return s.meters.take(l, c.Account, size, s.Now())
}

// admitted refuses an account that was blocked while this process runs.
func (s *Service) admitted(c api.Caller) *chat.Error {
	if _, shut := s.shut.Load(c.Account); shut {
		return errBlocked
	}
	return nil
}

// take counts one send of so many bytes.
func (m *meters) take(l *Limits, a chat.AccountID, size int, now time.Time) error {
	shard := &m[a[0]%byte(len(m))]
	shard.mu.Lock()
	defer shard.mu.Unlock()
	left := l.refilled(shard.counts[a], now)
	switch {
	case l.MessagesPerSecond > 0 && left.messages < 1:
		e := chat.Errorf(chat.TooMany, "an account may send %d messages a second: wait a moment, then send it again", l.MessagesPerSecond)
		e.Retry = time.Second
		return e
	case l.BytesPerDay > 0 && left.bytes < float64(size):
		e := chat.Errorf(chat.TooMany, "an account may send %d bytes a day, and this one has: try again later", l.BytesPerDay)
		e.Retry = time.Duration((float64(size) - left.bytes) / float64(l.BytesPerDay) * float64(day))
		return e
	}
	left.messages--
	left.bytes -= float64(size)
	if shard.counts == nil || len(shard.counts) >= maxMeters {
		shard.counts = l.forget(shard.counts, now)
	}
	shard.counts[a] = left
	return nil
}

const day = 24 * time.Hour

// refilled is a meter with what time has given back; one of an account that was not seen is full.
func (l *Limits) refilled(m meter, now time.Time) meter {
	if m.at.IsZero() {
		return meter{l.burst(), float64(l.BytesPerDay), now}
	}
	passed := max(0, now.Sub(m.at).Seconds())
	m.messages = min(l.burst(), m.messages+passed*float64(l.MessagesPerSecond))
	m.bytes = min(float64(l.BytesPerDay), m.bytes+passed*float64(l.BytesPerDay)/day.Seconds())
	m.at = now
	return m
}

// forget keeps the meters that are not full again; where all of them count, none: memory is bounded, fairness is best effort.
func (l *Limits) forget(counts map[chat.AccountID]meter, now time.Time) map[chat.AccountID]meter {
	kept := make(map[chat.AccountID]meter)
	for a, m := range counts {
		if r := l.refilled(m, now); r.messages < l.burst() || r.bytes < float64(l.BytesPerDay) {
			kept[a] = m
		}
	}
	if len(kept) >= maxMeters {
		clear(kept)
	}
	return kept
}

var errBlocked = chat.Errorf(chat.Forbidden, "this account is blocked by the operator of the server")

// AccountBlocked shuts an account out of this process, at once, or lets it in again: its streams end, and what it still sends on
// connections that were authenticated before is refused. What the store says refuses the rest: see membership and mayJoin.
func (s *Service) AccountBlocked(a chat.AccountID, blocked bool) {
	if !blocked {
		s.shut.Delete(a)
		return
	}
	s.shut.Store(a, nil)
	for _, st := range s.hub.streamsOf(a) {
		st.End(errBlocked)
	}
}

// notBlocked refuses to serve a blocked account, in the transaction that serves.
func notBlocked(tx *store.Tx, a chat.AccountID) error {
	blocked, err := tx.Blocked(a)
	if err == nil && blocked {
		err = errBlocked
	}
	return err
}

// mayJoin refuses to bring a blocked account's device into a conversation. Others hear no more than that.
func mayJoin(tx *store.Tx, a chat.AccountID) error {
	blocked, err := tx.Blocked(a)
	if err == nil && blocked {
		err = chat.Errorf(chat.Forbidden, "this person cannot be reached now")
	}
	return err
}
