package people

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/cmd"
	"letterlock/device"
	"letterlock/e2e/world"
)

// counted counts the bytes of a connection, both ways.
type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.n.Add(int64(n))
	return n, err
}

// metered opens a person's device once more, on a line that counts.
func metered(t *testing.T, p *world.Person) (*device.Client, *atomic.Int64) {
	t.Helper()
	var n atomic.Int64
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return counted{c, &n}, err
	}}}
	c, err := device.Open(device.Config{State: cmd.DeviceState(p.Vault()), Dial: func(url string, a chat.AccountID, d chat.DeviceID, key ed25519.PrivateKey) (device.Server, error) {
		return httpclient.NewDevice(httpclient.Options{BaseURL: url, HTTP: client, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{Account: a, Device: d}, "")
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c, &n
}

// TestDailyCheckIsSmall: fifty registered partners. The first check reads their agreements; every one after that takes less than 200 kB.
func TestDailyCheckIsSmall(t *testing.T) {
	w := world.New(t)
	alice := w.SignUp("alice")
	const partners = 50
	for i := range partners {
		w.Flimmer(func(o *agent.Options) { o.Partner, o.Name = fmt.Sprintf("app-%02d", i), fmt.Sprintf("App %02d", i) })
	}
	if list, err := alice.Partners(w.Ctx()); err != nil || len(list) != partners { // it waits for the ledger
		t.Fatalf("%d partners, %v", len(list), err)
	}
	for _, what := range []string{"first", "next"} {
		c, n := metered(t, alice) // a run of its own: it signs in again
		begun := time.Now()
		r, err := c.Check(w.Ctx())
		if err != nil || !r.OK {
			t.Fatalf("%v %+v", err, r)
		}
		t.Logf("%s check of %d partners: %d bytes, %v", what, partners, n.Load(), time.Since(begun).Round(time.Millisecond))
		if what == "next" && n.Load() >= 200_000 {
			t.Errorf("a daily check takes %d bytes", n.Load())
		}
	}
}
