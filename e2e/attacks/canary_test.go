package attacks

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"letterlock/e2e/world"
	"letterlock/mimi"
	"letterlock/server"
)

// wire is a TCP proxy before a server. It keeps every byte of both directions.
type wire struct {
	listener net.Listener
	target   string
	open     sync.WaitGroup
	mu       sync.Mutex
	seen     bytes.Buffer
}

func newWire(t *testing.T) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &wire{listener: l}
}

func (p *wire) url() string { return "http://" + p.listener.Addr().String() }

func (p *wire) serve(target string) {
	p.target = target
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.target)
		if err != nil {
			c.Close()
			continue
		}
		p.open.Go(func() { p.pass(s, c) })
		p.open.Go(func() { p.pass(c, s) })
	}
}

// pass carries one direction. Each piece is kept as it came, so that a secret is not torn between two others.
func (p *wire) pass(to, from net.Conn) {
	defer to.Close()
	var all bytes.Buffer
	io.Copy(to, io.TeeReader(from, &all))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.Write(all.Bytes())
}

// stop ends every connection and returns what was said.
func (p *wire) stop() []byte {
	p.listener.Close()
	p.open.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.Bytes()
}

// canary is something that nobody but its owners may ever hold.
type canary struct {
	name   string
	secret []byte
}

// forms are the ways in which a secret would be written: as it is, in hex, and in base64 wherever in a longer text it begins.
func (c canary) forms() (list [][]byte) {
	list = append(list, c.secret, []byte(hex.EncodeToString(c.secret)), bytes.ToUpper([]byte(hex.EncodeToString(c.secret))))
	for shift := range 3 {
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := e.EncodeToString(append(make([]byte, shift), c.secret...))
			begin := (shift*8 + 5) / 6             // the first digit that holds bits of the secret alone
			end := (shift + len(c.secret)) * 8 / 6 // behind the last one
			list = append(list, []byte(text[begin:end]))
		}
	}
	return list
}

// haul is everything that a thief of the server and its wire would have, by name.
type haul map[string][]byte

// finds lists where canaries are, "canary in place".
func (h haul) finds(canaries []canary) (found []string) {
	for place, data := range h {
		for _, c := range canaries {
			if slices.ContainsFunc(c.forms(), func(form []byte) bool { return bytes.Contains(data, form) }) {
				found = append(found, c.name+" in "+place)
			}
		}
	}
	slices.Sort(found)
	return found
}

// words are pieces of a phrase of four words each: half of it would be bad enough.
func words(phrase string) (list []canary) {
	all := strings.Fields(phrase)
	for i := 0; i+4 <= len(all); i++ {
		list = append(list, canary{"recovery phrase", []byte(strings.Join(all[i:i+4], " "))})
	}
	return list
}

// story lets two people live on a server behind a wire, and returns what a thief of both would have, and the canaries. leak, if any, is done as Alice.
func story(t *testing.T, leak func(w *world.World, alice *stolen, canaries []canary)) (haul, []canary) {
	t.Helper()
	dir, tap := t.TempDir(), newWire(t)
	data := filepath.Join(dir, "server")
	var log syncBuffer
	ctx, cancel := context.WithCancel(context.Background())
	target := freeAddress(t)
	s, err := server.New(ctx, server.Config{DataDir: data, Listen: target, PublicURL: tap.url(), Version: "test", Now: time.Now, ExemptLoopback: true,
		Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	go tap.serve(target)

	w := &world.World{T: t, Dir: dir, URL: tap.url()}
	alice, bob := w.SignUp("alice-canary"), w.SignUp("bob-canary")
	w.Befriend(alice, bob)
	id := meet(w, alice, bob, "")
	const text, title = "the canary's message 7Q2x", "the canary's film 5Zr9"
	first := says(w, alice, id, text)
	card, err := mimi.Recommendation(mimi.Card{Kind: mimi.Film, Title: title, Link: "https://flimmer.example/watch#canary"})
	w.Must(err)
	_, err = alice.Send(w.Ctx(), id, card)
	w.Must(err)
	w.Must(bob.Sync(w.Ctx()))
	_, err = bob.Send(w.Ctx(), id, mimi.Reply(first, "an answer"))
	w.Must(err)
	w.Recover("alice-canary", alice.Phrase, "phone")
	w.Must(alice.Sync(w.Ctx()))
	shared := meet(w, alice, bob, "flimmer")
	says(w, alice, shared, text)
	_, err = alice.DeleteMessage(w.Ctx(), id, first)
	w.Must(err)
	_, err = alice.SafetyNumber(w.Ctx(), "nobody-canary") // a refusal
	if err == nil {
		t.Fatal("there is nobody of that name")
	}
	w.Must(alice.CheckLedger(w.Ctx()))
	thief := steal(t, alice)
	canaries := append(words(alice.Phrase), canary{"message text", []byte(text)}, canary{"card title", []byte(title)}, canary{"device seed", thief.seed})
	if leak != nil {
		leak(w, thief, canaries)
	}
	all := haul{"ledger": publicLog(t, tap.url())}
	running := dataFolder(t, data) // with the write-ahead log as it is while the server runs
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for name, content := range dataFolder(t, data) {
		all[name] = append(running[name], content...)
		delete(running, name)
	}
	for name, content := range running {
		all[name] = content
	}
	http.DefaultClient.CloseIdleConnections()
	all["traffic"] = tap.stop()
	all["log"] = log.Bytes()
	return all, canaries
}

// syncBuffer is a buffer that several goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.b.Bytes())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// dataFolder is every file of the server's folder.
func dataFolder(t *testing.T, dir string) haul {
	t.Helper()
	all := haul{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		all["data "+strings.TrimPrefix(path, dir+"/")] = content
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// publicLog is what the ledger shows to everybody.
func publicLog(t *testing.T, url string) (all []byte) {
	t.Helper()
	for _, path := range []string{"checkpoint", "tile/entries/000.p/1", "tile/0/000.p/1"} {
		r, err := http.Get(url + "/log/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		r.Body.Close()
		if err != nil || r.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", path, r.Status, err)
		}
		all = append(all, body...)
	}
	return all
}

// TestCanariesAreNowhere: nothing that was said, no title, phrase or seed lies on the server, in the ledger or on the wire, in any form.
func TestCanariesAreNowhere(t *testing.T) {
	all, canaries := story(t, nil)
	for _, place := range []string{"traffic", "log", "ledger", "data letterlock.db", "data letterlock.db-wal", "data keys/server.key"} {
		if len(all[place]) == 0 {
			t.Errorf("there is nothing to search in %s", place)
		}
	}
	if found := all.finds(canaries); len(found) > 0 {
		t.Errorf("found: %q", found)
	}
}

// TestCanarySearchFindsALeak: the same search, after a client that puts all of it where messages carry what the server may read.
func TestCanarySearchFindsALeak(t *testing.T) {
	all, canaries := story(t, func(w *world.World, alice *stolen, canaries []canary) {
		list, err := alice.calls.ListConversations(w.Ctx())
		w.Must(err)
		id := list.Conversations[0].ID
		var in []byte
		for _, c := range canaries {
			in = append(append(in, c.secret...), '|')
		}
		m, _, err := alice.group(id).Seal([]byte("x"), in)
		w.Must(err)
		w.Must(alice.sends(w.Ctx(), id, m))
	})
	found := strings.Join(all.finds(canaries), "; ")
	for _, c := range canaries {
		if !strings.Contains(found, c.name+" in traffic") || !strings.Contains(found, c.name+" in data letterlock.db") {
			t.Errorf("the search did not find %s in traffic and database; it found %s", c.name, found)
		}
	}
}

// TestLogNamesNobody: the server's own log, at its most talkative, holds no handle, no account and no address of a conversation.
func TestLogNamesNobody(t *testing.T) {
	all, _ := story(t, nil)
	if len(all["log"]) == 0 {
		t.Fatal("there is no log")
	}
	if bytes.Contains(all["log"], []byte("canary")) {
		t.Errorf("the log names somebody:\n%s", all["log"])
	}
}
