package httpd

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
)

// TestExempt: no limits for callers from this machine, where the operator says so, and for nobody else.
func TestExempt(t *testing.T) {
	for _, c := range []struct {
		remote string
		said   bool
		want   bool
	}{
		{"127.0.0.1:1000", true, true}, {"[::1]:1000", true, true}, {"127.0.0.1:1000", false, false}, {"192.0.2.1:1000", true, false}, {"@", true, false},
	} {
		b := newBench()
		b.Sessions, b.ExemptLoopback = &sessions{}, c.said
		var got api.Caller
		h := b.authenticated(func(_ http.ResponseWriter, r *http.Request) (err error) {
			got, err = api.CallerFrom(r.Context())
			return err
		})
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		r.Header.Set("Authorization", "DPoP good")
		r.Header.Set("DPoP", "proof")
		if w, _ := b.serve(h, r); w.Code != 200 || got.Unlimited != c.want {
			t.Errorf("%s, %v: %d, unlimited %v", c.remote, c.said, w.Code, got.Unlimited)
		}
	}
}

// TestRetryAfter: a refusal that knows when trying again helps says so.
func TestRetryAfter(t *testing.T) {
	for retry, want := range map[time.Duration]string{0: "30", time.Millisecond: "1", 90 * time.Second: "90"} {
		b := newBench()
		e := chat.Errorf(chat.TooMany, "slower")
		e.Retry = retry
		w, _ := b.serve(b.open(func(http.ResponseWriter, *http.Request) error { return errors.Join(e) }), httptest.NewRequest("GET", "/", nil))
		if got := w.Header().Get("Retry-After"); w.Code != 429 || got != want {
			t.Errorf("%v: %d, %s", retry, w.Code, got)
		}
	}
}
