package agent_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/slot"
)

// TestSubstitutedSlot: a server that announces a slot of its own, an older one, or another thread's gets no letter that it could open.
func TestSubstitutedSlot(t *testing.T) {
	f, w, g, thread := reading(t)
	_, server, err := ed25519.GenerateKey(rand.Reader)
	f.no(err)
	_, err = f.Send(f.Ctx(), g, agent.Letter{Text: "by the true slot"})
	f.no(err)
	announce := func(c chat.ConversationID, epoch uint64, signer ed25519.PrivateKey) api.InboxSlot {
		_, key, err := slot.Derive(make([]byte, slot.Length))
		f.no(err)
		data, err := slot.Announce(c, epoch, key, f.now().UnixMilli(), signer)
		f.no(err)
		return api.InboxSlot{Slot: data, Epoch: epoch}
	}
	posts := 0
	for i, lie := range []api.InboxSlot{announce(thread, 2, server), announce(thread, 3, server), announce(chat.NewConversationID(), 3, server)} {
		w.lie = func(r *http.Request) *http.Response {
			if r.URL.Path == "/inbox/v1/posts" {
				posts++
			}
			if r.URL.Path != "/inbox/v1/slot" {
				return nil
			}
			b, err := json.Marshal(lie)
			f.no(err)
			return answer(r, http.StatusOK, b)
		}
		_, err := f.Send(f.Ctx(), g, agent.Letter{Text: "secret"})
		kindIs(t, err, chat.Tampered)
		if list, _ := f.Evidence("", 10); len(list) != i+1 {
			t.Fatalf("%d pieces of evidence after %d lies", len(list), i+1)
		}
	}
	if posts != 0 {
		t.Fatal("a letter left the agent")
	}
}

// TestSubstitutedGrant: the agent takes only the grant that it asked for, over its own key, signed by a device that the grant names.
func TestSubstitutedGrant(t *testing.T) {
	f, w, _, _ := reading(t)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	f.no(err)
	for name, change := range map[string]func(g *grant.Grant){
		"another id":           func(g *grant.Grant) { g.ID = chat.NewGrantID() },
		"another key":          func(g *grant.Grant) { g.AgentKey[0] ^= 1 },
		"another partner":      func(g *grant.Grant) { g.Partner = "other" },
		"more than asked for":  func(g *grant.Grant) { g.Actions = chat.AllActions },
		"a stranger's devices": func(*grant.Grant) {},
	} {
		t.Run(name, func(t *testing.T) {
			w.lie = nil
			q, err := f.Authorize(f.Ctx(), agent.Ask{Actions: chat.Send, Pick: true, Until: f.now().Add(time.Hour)})
			f.no(err)
			back := f.allow(f.alice, q, chat.Send)
			w.lie = func(r *http.Request) *http.Response {
				if r.URL.Path != "/inbox/v1/grant" {
					return nil
				}
				real, err := w.RoundTripper.RoundTrip(r)
				f.no(err)
				var out api.InboxGrant
				f.no(json.NewDecoder(real.Body).Decode(&out))
				own, err := grant.Peek(out.Signed)
				f.no(err)
				change(own)
				if name != "a stranger's devices" { // the server may even know a slot signer's key: the grant is checked nonetheless
					own.SlotSigners = [][32]byte{[32]byte(stranger.Public().(ed25519.PublicKey))}
				}
				out.Grant, out.Signed = own.ID, must(own.Sign(stranger))
				b, err := json.Marshal(out)
				f.no(err)
				return answer(r, http.StatusOK, b)
			}
			_, err = f.Redeem(f.Ctx(), back)
			kindIs(t, err, chat.Tampered)
			stands, err := f.Look(q.ID)
			f.no(err)
			if stands.Phase != agent.Asked {
				t.Fatalf("the grant is %s", stands.Phase)
			}
		})
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

// TestCountersRise: no two letters have one counter, also after an older copy of the folder was put back.
func TestCountersRise(t *testing.T) {
	f, w, g, _ := reading(t)
	var counters []uint64
	w.lie = func(r *http.Request) *http.Response {
		if r.URL.Path == "/inbox/v1/posts" {
			b, err := io.ReadAll(r.Body)
			f.no(err)
			r.Body = io.NopCloser(strings.NewReader(string(b)))
			var in api.InboxPost
			f.no(json.Unmarshal(b, &in))
			h, err := slot.Peek(in.Post)
			f.no(err)
			counters = append(counters, h.Counter)
		}
		return nil
	}
	send := func() {
		t.Helper()
		_, err := f.Send(f.Ctx(), g, agent.Letter{Text: "one more"})
		f.no(err)
	}
	send()
	f.Agent.Close()
	old := filepath.Join(t.TempDir(), "old")
	f.no(os.CopyFS(old, os.DirFS(f.home)))
	f.open()
	send()
	send()
	f.Agent.Close()
	f.no(os.RemoveAll(f.home))
	f.no(os.CopyFS(f.home, os.DirFS(old)))
	f.no(os.Chmod(filepath.Join(f.home, "state", "key"), 0o600))
	f.ahead.Add(int64(time.Second))
	f.open()
	send()
	for i := 1; i < len(counters); i++ {
		if counters[i] <= counters[i-1] {
			t.Fatalf("counters %v", counters)
		}
	}
	if len(counters) != 4 {
		t.Fatalf("%d posts of 4", len(counters))
	}
}

// TestCounterIsStoredBeforeItLeaves: the answer to a letter was lost, the agent stopped, and its clock went back. The counter that the
// server has seen is not used again.
func TestCounterIsStoredBeforeItLeaves(t *testing.T) {
	f := newFlimmer(t)
	g := f.ask(agent.Ask{Actions: chat.Send, Pick: true}, chat.Send)
	f.Agent.Close()
	x := &faulty{RoundTripper: http.DefaultTransport, path: "/inbox/v1/posts", after: true}
	x.left.Store(1)
	f.env.Transport = x
	f.open()
	_, err := f.Send(f.Ctx(), g, agent.Letter{Text: "its answer is lost"})
	kindIs(t, err, chat.Unavailable)
	f.Agent.Close()
	f.env.Now = func() time.Time { return f.now().Add(-30 * time.Second) } // and the server's stays
	f.open()
	if _, err := f.Send(f.Ctx(), g, agent.Letter{Text: "the next one"}); err != nil {
		t.Fatalf("the next letter: %v", err)
	}
}
