package dpop

import (
	"sync"
	"time"
)

const maxHolders = 65536

// Holder is who holds a token: a caller, and the key that the token is bound to.
type Holder[C any] struct {
	Caller C
	Key    Thumbprint
	Until  int64 // ms: read it again after this
}

// Holders remembers for a short time what was read about tokens, by the tokens' hashes, in bounded memory. A drop also voids what was
// read before it and comes to be remembered after it. It is safe for concurrent use.
type Holders[C any] struct {
	mu         sync.Mutex
	byHash     map[[32]byte]Holder[C]
	generation uint64
}

// Find finds a holder. Where there is none, the caller reads and remembers with the generation given here.
func (c *Holders[C]) Find(hash [32]byte, now time.Time) (h Holder[C], generation uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h, ok = c.byHash[hash]
	if ok && h.Until <= now.UnixMilli() {
		delete(c.byHash, hash)
		ok = false
	}
	return h, c.generation, ok
}

// Remember keeps a holder, unless something was dropped since Find.
func (c *Holders[C]) Remember(hash [32]byte, h Holder[C], generation uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if generation != c.generation {
		return
	}
	if c.byHash == nil || len(c.byHash) >= maxHolders {
		c.byHash = map[[32]byte]Holder[C]{}
	}
	c.byHash[hash] = h
}

// Drop forgets everything. Whoever ends a token calls it.
func (c *Holders[C]) Drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	clear(c.byHash)
}
