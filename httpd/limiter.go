package httpd

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"letterlock/chat"
)

const (
	openPerMinute = 20   // calls without a session from one address, on average
	openBurst     = 40   // and at once
	maxAddresses  = 8192 // remembered at once
)

// limiter is a token bucket for each address.
type limiter struct {
	now       func() time.Time
	perMinute float64
	burst     float64

	mu      sync.Mutex
	buckets map[netip.Addr]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(now func() time.Time, perMinute, burst float64) *limiter {
	return &limiter{now: now, perMinute: perMinute, burst: burst, buckets: map[netip.Addr]bucket{}}
}

// allow takes one token of the address.
func (l *limiter) allow(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, ok := l.buckets[a]
	if !ok {
		if len(l.buckets) >= maxAddresses {
			l.forget(now)
		}
		b = bucket{tokens: l.burst, at: now}
	}
	b.tokens = min(l.burst, b.tokens+now.Sub(b.at).Minutes()*l.perMinute)
	b.at = now
	if b.tokens < 1 {
		l.buckets[a] = b
		return false
	}
	b.tokens--
	l.buckets[a] = b
	return true
}

// forget drops the buckets that are full again; where none is, all of them: memory is bounded, fairness is best effort.
func (l *limiter) forget(now time.Time) {
	for a, b := range l.buckets {
		if b.tokens+now.Sub(b.at).Minutes()*l.perMinute >= l.burst {
			delete(l.buckets, a)
		}
	}
	if len(l.buckets) >= maxAddresses {
		clear(l.buckets)
	}
}

// addressOf is where a request comes from.
func addressOf(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		a = netip.IPv6Unspecified() // a unix socket: one bucket for all of it
	}
	return a.Unmap()
}

// exempt reports whether the operator wants no limits for a request.
func (s *server) exempt(r *http.Request) bool { return s.ExemptLoopback && addressOf(r).IsLoopback() }

// limited refuses a call when its address made too many of them. IPv6 addresses count by their /64.
func (s *server) limited(h handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		if s.exempt(r) {
			return h(w, r)
		}
		a := addressOf(r)
		if a.Is6() {
			p, _ := a.WithZone("").Prefix(64)
			a = p.Addr()
		}
		if !s.openCalls.allow(a) {
			return chat.Errorf(chat.TooMany, "too many calls without a session from this address: wait a minute")
		}
		return h(w, r)
	}
}
