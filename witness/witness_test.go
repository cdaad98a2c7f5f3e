package witness

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

// testLog is a log in memory. fork copies it, so that the copy can go on differently.
type testLog struct {
	t      testing.TB
	signer note.Signer
	vkey   string
	size   int64
	hashes []tlog.Hash
}

func newLog(t testing.TB) *testLog {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, proof.Origin("chat.example"))
	if err != nil {
		t.Fatal(err)
	}
	l := &testLog{t: t, vkey: vkey}
	if l.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *testLog) fork() *testLog {
	f := *l
	f.hashes = append([]tlog.Hash{}, l.hashes...)
	return &f
}

func (l *testLog) ReadHashes(indexes []int64) (list []tlog.Hash, err error) {
	for _, i := range indexes {
		list = append(list, l.hashes[i])
	}
	return list, nil
}

// grow appends entries that say what, until the log has that size.
func (l *testLog) grow(size int64, what string) *testLog {
	l.t.Helper()
	for ; l.size < size; l.size++ {
		more, err := tlog.StoredHashes(l.size, []byte(fmt.Sprint(what, l.size)), l)
		if err != nil {
			l.t.Fatal(err)
		}
		l.hashes = append(l.hashes, more...)
	}
	return l
}

func (l *testLog) checkpoint(size int64) []byte {
	l.t.Helper()
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		l.t.Fatal(err)
	}
	signed, err := proof.SignCheckpoint(l.signer, size, root)
	if err != nil {
		l.t.Fatal(err)
	}
	return signed
}

func (l *testLog) prove(_ context.Context, from, to int64) (list []proof.Hash, err error) {
	p, err := tlog.ProveTree(to, from, l)
	for _, h := range p {
		list = append(list, h)
	}
	return list, err
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// running is a witness with its folder that listens.
type running struct {
	*Witness
	t    testing.TB
	home string
	url  string
	stop func()
}

func run(t testing.TB, home string, logs ...*testLog) *running {
	t.Helper()
	c := Config{Home: home, Name: "w.example/witness", Logger: quiet()}
	for _, l := range logs {
		c.Logs = append(c.Logs, l.vkey)
	}
	w, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(w.Handler())
	r := &running{Witness: w, t: t, home: home, url: s.URL}
	var once sync.Once
	r.stop = func() { once.Do(func() { s.Close(); w.Close() }) }
	t.Cleanup(r.stop)
	return r
}

func (r *running) cosign(l *testLog, size, known int64) (string, error) {
	return new(Client).Cosign(r.t.Context(), r.url, l.checkpoint(size), size, known, l.prove)
}

// must has a tree signed, and checks what came with torchwood.
func (r *running) must(l *testLog, size, known int64) {
	r.t.Helper()
	line, err := r.cosign(l, size, known)
	if err != nil {
		r.t.Fatal(err)
	}
	policy, err := torchwood.ParsePolicy([]byte("log " + l.vkey + "\nwitness w " + r.VKey() + "\nquorum w\n"))
	if err != nil {
		r.t.Fatal(err)
	}
	if _, _, err := torchwood.VerifyCheckpoint(append(l.checkpoint(size), line...), policy); err != nil {
		r.t.Fatal(err)
	}
}

func (r *running) post(body string) (int, string) {
	r.t.Helper()
	resp, err := http.Post(r.url+"/add-checkpoint", "text/plain", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(answer)
}

// TestFollows: a growing log is signed on and on, the same tree again, and by a log that does not know where the witness stands.
func TestFollows(t *testing.T) {
	l := newLog(t).grow(300, "a")
	r := run(t, t.TempDir(), l)
	r.must(l, 3, 0)
	r.must(l, 3, 3)
	r.must(l, 257, 3)
	r.must(l, 300, 0)
	r.must(l, 300, 7)
}

// TestFork: a tree that does not contain the one that was signed last is not signed, whatever proof comes with it.
func TestFork(t *testing.T) {
	l := newLog(t).grow(5, "a")
	other := newLog(t)
	other.signer, other.vkey = l.signer, l.vkey
	other.grow(9, "b")
	r := run(t, t.TempDir(), l)
	r.must(l, 5, 0)
	if _, err := r.cosign(other, 9, 5); !chat.Is(err, chat.Tampered) {
		t.Fatalf("a fork: %v", err)
	}
	old := request{old: 5, signed: other.checkpoint(9)}
	if status, body := r.post(string(old.format())); status != http.StatusUnprocessableEntity {
		t.Fatal(status, body)
	}
	last, err := r.Last(t.Context(), l.signer.Name())
	if err != nil || last.Size != 5 {
		t.Fatal(last, err)
	}
}

// TestBack: a smaller tree than the one that was signed last is not signed, not even one that it contains.
func TestBack(t *testing.T) {
	l := newLog(t).grow(9, "a")
	r := run(t, t.TempDir(), l)
	r.must(l, 9, 0)
	if _, err := r.cosign(l, 5, 0); !chat.Is(err, chat.Tampered) {
		t.Fatalf("back to 5: %v", err)
	}
	for _, old := range []int64{0, 5} {
		req := request{old: old, signed: l.checkpoint(5)}
		if status, body := r.post(string(req.format())); status != http.StatusConflict || body != "9\n" {
			t.Fatalf("old %d: %d %q", old, status, body)
		}
	}
	r.must(l, 9, 9)
}

// TestOneTreeOfASize: of two trees of one size the second is not signed, and both are kept, since they convict the log.
func TestOneTreeOfASize(t *testing.T) {
	l := newLog(t).grow(4, "a")
	r := run(t, t.TempDir(), l)
	other := l.fork().grow(5, "b")
	l.grow(5, "a")
	r.must(l, 5, 0)
	for _, old := range []int64{0, 5} {
		req := request{old: old, signed: other.checkpoint(5)}
		if status, body := r.post(string(req.format())); status != http.StatusConflict || body != "5\n" {
			t.Fatalf("old %d: %d %q", old, status, body)
		}
	}
	if _, err := r.cosign(other, 5, 5); !chat.Is(err, chat.Tampered) {
		t.Fatal(err)
	}
	kept, err := filepath.Glob(filepath.Join(r.home, evidenceDir, "5-*"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	text, err := os.ReadFile(kept[0])
	if err != nil || string(text) != string(l.checkpoint(5))+string(other.checkpoint(5)) {
		t.Fatalf("%v: %s", err, text)
	}
}

// TestRemembers: what was signed before a restart counts after it.
func TestRemembers(t *testing.T) {
	l := newLog(t).grow(5, "a")
	other := newLog(t)
	other.signer, other.vkey = l.signer, l.vkey
	other.grow(9, "b")
	home := t.TempDir()
	r := run(t, home, l)
	r.must(l, 5, 0)
	vkey := r.VKey()
	r.stop()
	r = run(t, home, l)
	if r.VKey() != vkey {
		t.Fatal("another key")
	}
	if _, err := r.cosign(other, 9, 0); !chat.Is(err, chat.Tampered) {
		t.Fatalf("a fork after a restart: %v", err)
	}
	r.must(l.grow(7, "a"), 7, 5)
	r.stop()
	if err := os.WriteFile(r.Witness.home.lastPath(l.signer.Name()), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{Home: home, Logs: []string{l.vkey}, Logger: quiet()}); !chat.Is(err, chat.Tampered) {
		t.Fatalf("a damaged memory: %v", err)
	}
}

// TestWrittenFirst: where the last checkpoint cannot be written, nothing is signed.
func TestWrittenFirst(t *testing.T) {
	l := newLog(t).grow(5, "a")
	r := run(t, t.TempDir(), l)
	if err := os.RemoveAll(filepath.Join(r.home, lastDir)); err != nil {
		t.Fatal(err)
	}
	if line, err := r.cosign(l, 5, 0); !chat.Is(err, chat.Unavailable) || line != "" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := os.Mkdir(filepath.Join(r.home, lastDir), 0o700); err != nil {
		t.Fatal(err)
	}
	r.must(l, 5, 0)
}

// TestOneProcess: two witnesses on one folder could sign two trees.
func TestOneProcess(t *testing.T) {
	r := run(t, t.TempDir())
	if _, err := Open(Config{Home: r.home, Logger: quiet()}); !chat.Is(err, chat.Unavailable) {
		t.Fatal(err)
	}
}

// TestRaces: many forks at once; one history is signed.
func TestRaces(t *testing.T) {
	l := newLog(t).grow(4, "a")
	r := run(t, t.TempDir(), l)
	r.must(l, 4, 0)
	var signed sync.Map
	var all sync.WaitGroup
	for i := range 16 {
		fork := l.fork().grow(5+int64(i%2), fmt.Sprint("fork", i))
		all.Go(func() {
			if _, err := r.cosign(fork, fork.size, 4); err == nil {
				signed.Store(i, true)
			}
		})
	}
	all.Wait()
	n := 0
	signed.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Fatalf("%d of 16 forks were signed", n)
	}
}

// TestCheck: what stands before the signature can refuse it, sees both trees, and is not asked for the same tree again.
func TestCheck(t *testing.T) {
	l := newLog(t).grow(9, "a")
	r := run(t, t.TempDir(), l)
	var seen []string
	var refusal error
	r.Check = func(_ context.Context, old, new proof.Checkpoint) error {
		seen = append(seen, fmt.Sprintf("%d>%d", old.Size, new.Size))
		return refusal
	}
	r.must(l, 5, 0)
	r.must(l, 5, 5)
	refusal = chat.Errorf(chat.Tampered, "entry 7 is no leaf")
	if _, err := r.cosign(l, 9, 5); !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "entry 7 is no leaf") {
		t.Fatal(err)
	}
	refusal = nil
	r.must(l, 9, 5)
	if got := strings.Join(seen, " "); got != "0>5 5>9 5>9" {
		t.Fatal(got)
	}
}

// TestAnswers: the statuses of c2sp.org/tlog-witness.
func TestAnswers(t *testing.T) {
	l, stranger := newLog(t).grow(9, "a"), newLog(t).grow(9, "a")
	foreign := *l
	skey, _, err := note.GenerateKey(rand.Reader, "other.example/log")
	if err != nil {
		t.Fatal(err)
	}
	if foreign.signer, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	r := run(t, t.TempDir(), l)
	cp := string(l.checkpoint(5))
	r.must(l, 5, 0)
	for what, c := range map[string]struct {
		body   string
		status int
	}{
		"nothing":            {"", 400},
		"no empty line":      {"old 5\n" + cp[:20], 400},
		"no old size":        {"\n\n" + cp, 400},
		"old +5":             {"old +5\n\n" + cp, 400},
		"old 05":             {"old 05\n\n" + cp, 400},
		"old -1":             {"old -1\n\n" + cp, 400},
		"old above":          {"old 6\n\n" + cp, 400},
		"no hash":            {"old 5\nAAAA\n\n" + cp, 400},
		"too many hashes":    {"old 5\n" + strings.Repeat("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 64) + "\n" + cp, 400},
		"a proof of nothing": {"old 5\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n" + cp, 422},
		"an unknown log":     {"old 5\n\n" + string(foreign.checkpoint(5)), 404},
		"an unknown key":     {"old 5\n\n" + string(stranger.checkpoint(5)), 403},
		"no signature":       {"old 5\n\n" + cp[:strings.Index(cp, "\n\n")+2], 403},
		"too large":          {"old 5\n\n" + cp + strings.Repeat("x", maxBody), 413},
		"another old size":   {"old 4\n\n" + cp, 409},
		"the same tree":      {"old 5\n\n" + cp, 200},
	} {
		if status, body := r.post(c.body); status != c.status {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
}

// TestKey: the folder has one key under one name; a file that others can read is refused.
func TestKey(t *testing.T) {
	home := t.TempDir()
	if _, err := Key(home); !chat.Is(err, chat.NotFound) {
		t.Fatal(err)
	}
	if _, err := Open(Config{Home: home, Logger: quiet()}); !chat.Is(err, chat.Invalid) {
		t.Fatal("a key without a name: ", err)
	}
	r := run(t, home)
	r.stop()
	if vkey, err := Key(home); err != nil || vkey != r.VKey() {
		t.Fatal(vkey, err)
	}
	if _, err := Open(Config{Home: home, Name: "other.example", Logger: quiet()}); !chat.Is(err, chat.Exists) {
		t.Fatal(err)
	}
	path := filepath.Join(home, keyFile)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Key(home); !chat.Is(err, chat.Invalid) {
		t.Fatal(err)
	}
}

// TestClient: what a witness may answer that is none of the protocol.
func TestClient(t *testing.T) {
	l := newLog(t).grow(5, "a")
	for what, answer := range map[string]http.HandlerFunc{
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		},
		"a conflict of none": func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusConflict) },
		"endless":            func(w http.ResponseWriter, r *http.Request) { io.CopyN(w, rand.Reader, 1<<20) },
		"busy":               func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
	} {
		s := httptest.NewServer(answer)
		_, err := new(Client).Cosign(t.Context(), s.URL, l.checkpoint(5), 5, 0, l.prove)
		s.Close()
		if !chat.Is(err, chat.Unavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := new(Client).Cosign(t.Context(), "http://127.0.0.1:1/", l.checkpoint(5), 5, 0, l.prove)
	if !chat.Is(err, chat.Unavailable) {
		t.Error(err)
	}
	var conflict *Conflict
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", sizeType)
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintln(w, 9)
	}))
	defer s.Close()
	_, err = new(Client).Cosign(t.Context(), s.URL, l.checkpoint(5), 5, 0, l.prove)
	if !chat.Is(err, chat.Tampered) || !errors.As(err, &conflict) || conflict.Size != 9 {
		t.Error(err)
	}
}

// FuzzParseRequest: what is accepted is written back as it was.
func FuzzParseRequest(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err == nil && string(r.format()) != string(body) {
			t.Fatalf("%q", body)
		}
		if err != nil && chat.KindOf(err) == chat.Internal {
			t.Fatal(err)
		}
	})
}

// TestFuzzSeeds: without seeds the fuzz test would test nothing in a plain go test.
func TestFuzzSeeds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzParseRequest", "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
}
