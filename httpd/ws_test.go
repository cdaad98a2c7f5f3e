package httpd_test

import (
	"context"
	"crypto/ed25519"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/dpop"
	"letterlock/httpd"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// oneSession knows one token.
type oneSession struct{ caller api.Caller }

func (s oneSession) Authenticate(_ context.Context, r dpop.Request) (api.Caller, error) {
	if r.Token != "good" {
		return api.Caller{}, chat.Errorf(chat.Unauthenticated, "unknown session")
	}
	return s.caller, nil
}

// nobody has no accounts.
type nobody struct{}

func (nobody) Device(*store.Tx, string, chat.DeviceID) (chat.AccountID, ed25519.PublicKey, error) {
	return chat.AccountID{}, nil, chat.Errorf(chat.NotFound, "nobody")
}

func (nobody) Account(*store.Tx, string) (chat.AccountID, error) {
	return chat.AccountID{}, chat.Errorf(chat.NotFound, "nobody")
}

func (nobody) Chain(*store.Tx, string) ([][]byte, error) {
	return nil, chat.Errorf(chat.NotFound, "nobody")
}

// conversations serves them over HTTP.
func conversations(t *testing.T) (*httptest.Server, *delivery.Service) {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(t.TempDir(), "letterlock.db"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	d := delivery.New(delivery.Config{Store: s, People: nobody{}, Host: "chat.example", Now: time.Now, Logger: quiet,
		ServerKey: ed25519.NewKeyFromSeed(make([]byte, 32))})
	web := httptest.NewServer(httpd.New(httpd.Config{PublicURL: "http://chat.example", Conversations: d, Live: d.Open, Logger: quiet, Now: time.Now,
		Sessions: oneSession{api.Caller{Account: chat.AccountID{1}, Handle: "alice", Device: chat.DeviceID{2}}}}))
	t.Cleanup(func() {
		d.Close()
		web.Close()
		s.Close()
	})
	return web, d
}

func headers(token string) http.Header {
	return http.Header{"Authorization": {"DPoP " + token}, "Dpop": {"proof"}}
}

func dial(t *testing.T, web *httptest.Server) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), web.URL+"/v1/ws", &websocket.DialOptions{HTTPHeader: headers("good")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.CloseNow() })
	return c
}

// next reads the next frame.
func next(t *testing.T, c *websocket.Conn) (api.Frame, error) {
	t.Helper()
	kind, b, err := c.Read(t.Context())
	if err != nil {
		return api.Frame{}, err
	}
	if kind != websocket.MessageBinary {
		t.Fatal("a text message")
	}
	f, _, err := api.NextFrame(b)
	if err != nil {
		t.Fatal(err)
	}
	return f, nil
}

func TestLiveConnectionNeedsASession(t *testing.T) {
	web, _ := conversations(t)
	for what, h := range map[string]http.Header{
		"no token":         {},
		"another token":    headers("bad"),
		"a foreign origin": {"Authorization": {"DPoP good"}, "Dpop": {"proof"}, "Origin": {"https://elsewhere.example"}},
	} {
		c, answer, err := websocket.Dial(t.Context(), web.URL+"/v1/ws", &websocket.DialOptions{HTTPHeader: h})
		if err == nil {
			c.CloseNow()
			t.Errorf("%s: connected", what)
		} else if answer == nil || answer.StatusCode != http.StatusUnauthorized && answer.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestLiveConnectionEndsForWhoBreaksTheRules(t *testing.T) {
	web, _ := conversations(t)
	pong := api.Frame{Type: api.FramePong}
	for what, b := range map[string][]byte{"garbage": []byte("garbage"), "a cut frame": {4, 0, 0, 0, 4, 1}, "a server's frame": pong.Append(nil)} {
		c := dial(t, web)
		if err := c.Write(t.Context(), websocket.MessageBinary, b); err != nil {
			t.Fatal(err)
		}
		if f, err := next(t, c); err != nil || f.Type != api.FrameProblem || f.Kind != chat.Invalid {
			t.Errorf("%s: got %+v, %v", what, f, err)
		}
		if _, err := next(t, c); websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
			t.Errorf("%s: ended with %v", what, err)
		}
	}
	c := dial(t, web)
	if err := c.Write(t.Context(), websocket.MessageText, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if f, err := next(t, c); err != nil || f.Type != api.FrameProblem {
		t.Errorf("text: got %+v, %v", f, err)
	}
	c = dial(t, web)
	c.Write(t.Context(), websocket.MessageBinary, make([]byte, api.MaxClientFrames+1)) // may fail: the server stops reading
	for {
		f, err := next(t, c)
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusMessageTooBig && websocket.CloseStatus(err) != -1 {
				t.Errorf("too large: %v", err)
			}
			break
		}
		t.Errorf("too large: got %+v", f)
	}
}

func TestLiveConnectionAnswers(t *testing.T) {
	web, d := conversations(t)
	c := dial(t, web)
	ping := api.Frame{Type: api.FramePing, Request: 7}
	send := api.Frame{Type: api.FrameSend, Request: 8, Message: []byte("nonsense")}
	subscribe := api.Frame{Type: api.FrameSubscribe, Conversation: chat.ConversationID{9}}
	if err := c.Write(t.Context(), websocket.MessageBinary, subscribe.Append(send.Append(ping.Append(nil)))); err != nil {
		t.Fatal(err)
	}
	var got []api.Frame
	for len(got) < 3 {
		_, b, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			var f api.Frame
			if f, b, err = api.NextFrame(b); err != nil {
				t.Fatal(err)
			}
			got = append(got, f)
		}
	}
	if got[0].Type != api.FramePong || got[0].Request != 7 || got[1].Type != api.FrameNack || got[1].Kind != chat.Invalid ||
		got[2].Type != api.FrameEnded || got[2].Kind != chat.NotFound {
		t.Errorf("got %+v", got)
	}
	d.Drain()
	if f, err := next(t, c); err != nil || f.Type != api.FrameProblem || f.Kind != chat.Unavailable {
		t.Errorf("when the server leaves: %+v, %v", f, err)
	}
}

// TestAQuietConnectionIsPutAside: it has no goroutine then, answers at once when something comes, and goes when either side goes.
func TestAQuietConnectionIsPutAside(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("connections are put aside on Linux only")
	}
	defer httpd.SetQuietTime(20 * time.Millisecond)()
	web, d := conversations(t)
	parked := func(want int) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); httpd.Parked() != want; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d connections are put aside, want %d", httpd.Parked(), want)
			}
		}
	}
	first, second := dial(t, web), dial(t, web)
	for request := uint32(1); request <= 3; request++ {
		parked(2)
		ping := api.Frame{Type: api.FramePing, Request: request}
		if err := first.Write(t.Context(), websocket.MessageBinary, ping.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if f, err := next(t, first); err != nil || f.Type != api.FramePong || f.Request != request {
			t.Fatalf("got %+v, %v", f, err)
		}
	}
	parked(2)
	first.CloseNow()
	parked(1)
	for limit := time.Now().Add(10 * time.Second); d.Stats().Streams != 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d streams are open, want 1", d.Stats().Streams)
		}
	}
	d.Drain() // the server goes
	if f, err := next(t, second); err != nil || f.Type != api.FrameProblem {
		t.Fatalf("got %+v, %v", f, err)
	}
	if _, err := next(t, second); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("ended with %v", err)
	}
	parked(0)
	for limit := time.Now().Add(10 * time.Second); d.Stats().Streams != 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d streams are open, want none", d.Stats().Streams)
		}
	}
}

func TestConversationRoutesRefuse(t *testing.T) {
	web, _ := conversations(t)
	id := strings.Repeat("0", 31) + "1"
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", "/v1/conversations", "", 200},
		{"GET", "/v1/conversations/" + id, "", 404},
		{"GET", "/v1/conversations/xyz", "", 400},
		{"GET", "/v1/conversations/" + id + "/log?after=-1", "", 400},
		{"GET", "/v1/conversations/" + id + "/log?limit=1001", "", 400},
		{"GET", "/v1/conversations/" + id + "/log?wait=61", "", 400},
		{"GET", "/v1/conversations/" + id + "/log", "", 404},
		{"GET", "/v1/conversations/" + id + "/own-count", "", 404},
		{"DELETE", "/v1/conversations/" + id + "/log/x", "", 400},
		{"DELETE", "/v1/conversations/" + id + "/log/1", "", 404},
		{"GET", "/v1/welcomes", "", 200},
		{"DELETE", "/v1/welcomes/" + strings.Repeat("0", 64), "", 404},
		{"DELETE", "/v1/welcomes/00", "", 400},
		{"POST", "/v1/conversations", `{"group_info":"AAAA"}`, 400},
		{"POST", "/v1/conversations", `{"group_info":"AAAA","x":1}`, 400},
		{"POST", "/v1/conversations", `{"group_info":"` + strings.Repeat("A", 200<<10) + `"}`, 413},
		{"POST", "/v1/conversations/" + id + "/messages", `{"message":"AAAA","dedup_key":"AAAA"}`, 400},
		{"POST", "/v1/conversations/" + id + "/messages", `{"message":"` + strings.Repeat("A", 100<<10) + `"}`, 413},
		{"POST", "/v1/conversations/" + id + "/commits", `{"commit":"AAAA","dedup_key":"AAAAAAAAAAAAAAAAAAAAAA=="}`, 404},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, web.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = headers("good")
		r.Header.Set("Content-Type", "application/json")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.want {
			t.Errorf("%s %s: %d, want %d: %s", c.method, c.path, answer.StatusCode, c.want, body)
		}
		if c.want >= 400 && answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: no problem: %s", c.method, c.path, body)
		}
	}
}
