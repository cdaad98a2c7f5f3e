package dpop

import (
	"crypto/sha256"
	"sync"
	"time"

	"letterlock/chat"
)

const (
	shards = 32
	// shardLimit bounds a shard's memory: proofs remembered in one generation. 32 shards of 2 x 65,536 proofs of about 40 bytes are
	// 168 MB at the very worst, reached at 11,600 requests/s.
	shardLimit = 65536
)

// Replay remembers what may be used once, in memory: two generations a shard, of which the older is dropped whole. It is safe for
// concurrent use.
type Replay struct {
	keep   time.Duration
	limit  int // of a shard's younger generation
	shards [shards]shard
}

type shard struct {
	mu       sync.Mutex
	since    time.Time // when the younger generation began
	old, new map[[16]byte]struct{}
}

// NewReplay makes a memory that keeps everything for at least the given time.
func NewReplay(keep time.Duration) *Replay { return &Replay{keep: keep, limit: shardLimit} }

// Use takes an identifier under a key, and refuses it as unauthenticated when it was used before. A full memory refuses as too-many:
// forgetting early would let something be used again.
func (r *Replay) Use(now time.Time, key Thumbprint, id string) error {
	h := sha256.New()
	h.Write(key[:])
	h.Write([]byte(id))
	sum := h.Sum(nil)
	short := [16]byte(sum)
	sh := &r.shards[sum[16]%shards]

	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.turn(now, r.keep)
	_, young := sh.new[short]
	_, old := sh.old[short]
	if young || old {
		return unauthenticated("this was used before (jti): make a new proof for each request")
	}
	if len(sh.new) >= r.limit {
		return chat.Errorf(chat.TooMany, "too many requests: try again in a minute")
	}
	sh.new[short] = struct{}{}
	return nil
}

// turn starts a new generation when the younger one is as old as proofs are kept.
func (sh *shard) turn(now time.Time, keep time.Duration) {
	age := now.Sub(sh.since)
	if sh.new != nil && age < keep {
		return
	}
	sh.old = sh.new
	if age >= 2*keep {
		sh.old = nil
	}
	sh.new, sh.since = map[[16]byte]struct{}{}, now
}
