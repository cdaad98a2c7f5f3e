package dpop

import (
	"crypto/sha256"
	"sync"
	"time"
)

const (
	shards = 32
	// shardLimit bounds a shard's memory: proofs remembered in one generation. 32 shards of 2 x 65,536 proofs of about 40 bytes are
	// 168 MB at the very worst, reached at 11,600 requests/s.
	shardLimit = 65536
)

type verdict int

const (
	fresh verdict = iota
	repeated
	full // refuse: forgetting a proof early would let it be sent again
)

// seen remembers proofs for at least keep: two generations a shard, of which the older is dropped whole.
type seen struct {
	keep   time.Duration
	shards [shards]shard
}

type shard struct {
	mu       sync.Mutex
	since    time.Time // when the younger generation began
	old, new map[[16]byte]struct{}
}

func newSeen(keep time.Duration) *seen { return &seen{keep: keep} }

// add remembers a proof under its key, and says whether it was new.
func (s *seen) add(now time.Time, key Thumbprint, jti string) verdict {
	h := sha256.New()
	h.Write(key[:])
	h.Write([]byte(jti))
	sum := h.Sum(nil)
	id := [16]byte(sum)
	sh := &s.shards[sum[16]%shards]

	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.turn(now, s.keep)
	if _, ok := sh.new[id]; ok {
		return repeated
	}
	if _, ok := sh.old[id]; ok {
		return repeated
	}
	if len(sh.new) >= shardLimit {
		return full
	}
	sh.new[id] = struct{}{}
	return fresh
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
