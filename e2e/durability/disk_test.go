package durability

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	kernel "syscall" // the package has a type of that name
	"testing"
	"time"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/chat"
)

// TestDiskFull fills the disk of a running server: what it acknowledged is there, what it could not write is refused with a sentence
// and never acknowledged, reading goes on, and when there is space again it goes on by itself. Twice, with limits that are really the
// kernel's: a file system of a few megabytes, and a limit on the size of files. A machine must allow at least one of them.
func TestDiskFull(t *testing.T) {
	possible := 0
	t.Run("small file system", func(t *testing.T) {
		if !inMountNamespace(t) {
			return
		}
		possible++
		if os.Getenv(insideNamespace) == "" {
			return // it ran in a process of its own
		}
		h := smallDisk(t)
		ballast := h.path("ballast")
		tormentDisk(h, "the server's disk is full", func(*bench.Process) {
			fillDisk(t, ballast, 600<<10)
		}, func(*bench.Process) {
			must(t, os.Remove(ballast))
		})
	})
	if os.Getenv(insideNamespace) != "" {
		return
	}
	t.Run("limit on the size of files", func(t *testing.T) {
		prlimit, err := exec.LookPath("prlimit")
		if err != nil {
			t.Skip("prlimit is missing (Debian: util-linux)")
		}
		possible++
		limit := func(p *bench.Process, soft string) {
			must(t, exec.Command(prlimit, "--pid", fmt.Sprint(p.PID()), "--fsize="+soft+":unlimited").Run())
		}
		h := newHouse(t)
		tormentDisk(h, "the server's disk takes no writes", func(p *bench.Process) { limit(p, "1500000") }, func(p *bench.Process) { limit(p, "unlimited") })
	})
	if possible == 0 && os.Getenv("CI") != "" {
		t.Error("neither a small file system nor a limit could be had")
	}
}

// tormentDisk runs a server under load, fills its disk, looks at what it says, makes space, and counts.
func tormentDisk(h *house, sentence string, full, free func(*bench.Process)) {
	t := h.t
	server := h.serve("data")
	people, err := bench.NewPairs(h.ctx, server.Target, pairs, nil)
	must(t, err)
	senders := make([]*sender, pairs)
	for i, p := range people {
		senders[i] = newSender(t, p)
	}
	for _, s := range senders {
		s.readsWhatWasAcknowledged(h) // which signs the reader in: a session is written
	}
	full(server)
	var all sync.WaitGroup
	for _, s := range senders {
		all.Go(func() { s.sendUntilRefused(h, sentence, 25) })
	}
	all.Wait()
	if t.Failed() {
		t.Fatalf("the server said:\n%s", server.Said())
	}
	h.status(server, "/healthz", http.StatusOK, sentence)
	if strings.Contains(sentence, "full") { // a probe file may be within a limit on the size of files
		h.status(server, "/readyz", http.StatusServiceUnavailable, sentence)
	}
	if err := people[0].Commit(h.ctx); err != nil && (!chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), sentence)) {
		t.Errorf("a commit, which may be small enough for what is left: %v", err)
	}
	for _, s := range senders {
		s.readsWhatWasAcknowledged(h)
	}
	free(server)
	h.status(server, "/readyz", http.StatusOK, "ready")
	if people[0].Unfinished() {
		must(t, people[0].Commit(h.ctx))
	}
	for _, s := range senders {
		s.sendOpenAgain(h.ctx)
		s.verify(h.ctx)
	}
	h.status(server, "/healthz", http.StatusOK, "ok")
	said := server.Said()
	if n := strings.Count(said, "level=ERROR"); n != 1 || strings.Count(said, "level=WARN") != 0 || !strings.Contains(said, "the disk takes writes again") {
		t.Errorf("%d lines of error for one full disk:\n%s", n, said)
	}
	must(t, server.Stop())
	h.does("check", "--data", "data")
}

// sendUntilRefused sends one message after another until so many were refused, each with the sentence.
func (s *sender) sendUntilRefused(h *house, sentence string, refusals int) {
	for sent := 0; refusals > 0; sent++ {
		m := &message{key: [16]byte(newKey()), body: s.pair.Message(8<<10, int64(sent))}
		s.open[string(m.body)] = m
		got, err := s.pair.A.SendMessage(h.ctx, s.pair.Conversation, api.Message{Message: m.body, DedupKey: m.key[:]})
		switch {
		case err == nil && sent < 20_000:
			s.acknowledged(m, got.Seq)
		case chat.Is(err, chat.Unavailable) && strings.Contains(err.Error(), sentence):
			refusals--
		default:
			s.t.Errorf("message %d: %v", sent, err)
			return
		}
	}
}

// readsWhatWasAcknowledged reads the log as the other person, while nothing can be written.
func (s *sender) readsWhatWasAcknowledged(h *house) {
	s.t.Helper()
	seen := make(map[uint64]string)
	for after := uint64(0); ; {
		page, err := s.pair.B.Log(h.ctx, s.pair.Conversation, after, 1000, 0)
		must(s.t, err)
		if len(page.Entries) == 0 {
			break
		}
		for _, e := range page.Entries {
			after, seen[e.Seq] = e.Seq, string(e.Body)
		}
	}
	for seq, body := range s.log {
		if seen[seq] != body {
			s.t.Errorf("the message acknowledged as %d cannot be read", seq)
		}
	}
}

// status asks the server how it is until the answer comes: it looks at its disk once a second.
func (h *house) status(p *bench.Process, path string, code int, says string) {
	h.t.Helper()
	var last string
	for range 600 {
		r, err := http.NewRequestWithContext(h.ctx, http.MethodGet, p.URL+path, nil)
		must(h.t, err)
		answer, err := http.DefaultClient.Do(r)
		must(h.t, err)
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		must(h.t, err)
		last = fmt.Sprint(answer.StatusCode, " ", string(body))
		if answer.StatusCode == code && strings.Contains(string(body), says) {
			if code == http.StatusServiceUnavailable && answer.Header.Get("Retry-After") == "" {
				h.t.Errorf("%s says not when to ask again", path)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	h.t.Errorf("%s: %s; want %d and %q", path, last, code, says)
}

// TestReadOnlyDisk starts a server on a disk that takes nothing, and backs it up all the same.
func TestReadOnlyDisk(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	if os.Getenv(insideNamespace) == "" {
		return
	}
	h := smallDisk(t)
	server := h.serve("data")
	h.does("client", "--home", "alice", "signup", "alice", "--server", server.URL)
	must(t, server.Stop())
	must(t, kernel.Mount("", h.dir, "", kernel.MS_REMOUNT|kernel.MS_RDONLY, ""))
	h.refuses(1, "read only", "serve", "--data", "data", "--listen", h.address)
	h.refuses(1, "read-only file system", "serve", "--data", "new", "--listen", h.address)
	h.refuses(1, "read only", "check", "--data", "data")
	out := filepath.Join(t.TempDir(), "backup")
	h.does("backup", "--data", "data", "--out", out)
	must(t, kernel.Mount("", h.dir, "", kernel.MS_REMOUNT, ""))
	server = h.serve("data")
	must(t, server.Stop())
}

// insideNamespace is set where a test runs in a mount namespace of its own.
const insideNamespace = "LETTERLOCK_TEST_MOUNTS"

// inMountNamespace runs the test again in a mount namespace of its own and judges it by that; inside, it returns true. Where no
// namespace can be had it skips the test, and fails it where CI is set.
func inMountNamespace(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideNamespace) != "" {
		return true
	}
	unshare := []string{"unshare", "--mount"}
	if os.Getuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	if out, err := exec.Command(unshare[0], append(unshare[1:], "mount", "-t", "tmpfs", "tmpfs", t.TempDir())...).CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" && !strings.Contains(t.Name(), "/") {
			t.Fatalf("no file system can be mounted here: %v: %s", err, out)
		}
		t.Skipf("no file system can be mounted here: %v: %s", err, out)
	}
	var pattern []string
	for _, part := range strings.Split(t.Name(), "/") {
		pattern = append(pattern, "^"+part+"$")
	}
	cmd := exec.Command(unshare[0], append(unshare[1:], os.Args[0], "-test.run", strings.Join(pattern, "/"), "-test.count=1", "-test.v")...)
	cmd.Env = append(os.Environ(), insideNamespace+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a mount namespace: %v\n%s", err, out)
	} else if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in a mount namespace it did not run:\n%s", out)
	}
	return true
}

// smallDisk is a house on a file system of 24 MiB.
func smallDisk(t *testing.T) *house {
	h := newHouse(t)
	must(t, kernel.Mount("tmpfs", h.dir, "tmpfs", 0, "size=24m,mode=700"))
	t.Cleanup(func() { kernel.Unmount(h.dir, kernel.MNT_DETACH) })
	return h
}

// fillDisk writes a file until so many bytes are left.
func fillDisk(t *testing.T, path string, leave int64) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, kernel.ENOSPC) {
		t.Fatal(err)
	}
	info, err := f.Stat()
	must(t, err)
	must(t, errors.Join(f.Truncate(info.Size()-leave), f.Close()))
}
