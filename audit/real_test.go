package audit

import (
	"crypto/rand"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/storetest"
	"letterlock/witness"
)

// server is package ledger on SQLite behind HTTP: the real log.
type server struct {
	t      testing.TB
	keys   *ledger.Keys
	store  *store.Store
	ledger *ledger.Ledger
	writer *ledger.Writer
	url    string
	logged uint64
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newServer(t testing.TB) *server {
	t.Helper()
	keys, err := ledger.NewKeys("chat.example")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, keys: keys, store: storetest.File(t, filepath.Join(t.TempDir(), "l.db"))(t)}
	t.Cleanup(func() { s.store.Close() })
	if s.ledger, err = ledger.Open(ctx, s.store, keys, time.Now, rand.Reader); err != nil {
		t.Fatal(err)
	}
	s.writer = ledger.NewWriter(s.ledger, silent())
	web := httptest.NewServer(ledger.Handler(s.ledger, func(w http.ResponseWriter, _ *http.Request, err error) {
		http.Error(w, err.Error(), http.StatusNotFound)
	}))
	t.Cleanup(web.Close)
	s.url = web.URL
	return s
}

// personal logs n personal leaves, in batches as the writer makes them.
func (s *server) personal(n int) {
	s.t.Helper()
	for n > 0 {
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			for range min(n, 1000) {
				s.logged++
				leaf := &proof.Personal{Label: tlog.RecordHash(binary.BigEndian.AppendUint64(nil, s.logged)), Commit: [32]byte{1}}
				if err := tx.QueueLedgerLeaf(store.LedgerQueued{Shard: make([]byte, 16), Deed: leaf.Label[:], Leaf: leaf.Bytes()}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.t.Fatal(err)
		}
		n -= min(n, 1000)
		s.drain()
	}
}

func (s *server) drain() {
	s.t.Helper()
	for {
		n, err := s.writer.Step(ctx)
		if err != nil {
			s.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

func (s *server) auditor(home string) *Auditor {
	s.t.Helper()
	a, err := Open(ctx, Config{Home: home, Log: s.keys.LedgerVKey(), Server: s.url, Now: time.Now})
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

// TestTheRealLog: what package ledger writes is in order, batch after batch.
func TestTheRealLog(t *testing.T) {
	s := newServer(t)
	a := s.auditor(t.TempDir())
	defer a.Close()
	for _, n := range []int{0, 1, 300, 2100} {
		s.personal(n)
		err := s.store.Update(ctx, func(tx *store.Tx) error {
			_, err := s.ledger.Public(tx, &proof.Report{Partner: "flimmer", Start: int64(n)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		s.drain()
		if r, err := a.Published(ctx); err != nil || r.Stale || r.Labels != int(s.logged)+r.Public {
			t.Fatalf("%+v, %v", r, err)
		}
	}
}

// TestCosignsWhatIsInOrder: as a witness the auditor signs a tree that it has replayed, and not one that holds a lie, however well it
// continues the last one.
func TestCosignsWhatIsInOrder(t *testing.T) {
	l := newLog(t)
	l.personal(10)
	l.root()
	good := l.checkpoint(len(l.leaves))
	home := t.TempDir()
	a := l.auditor(home)
	w, err := witness.Open(witness.Config{Home: filepath.Join(home, "witness"), Logs: []string{l.keys.LedgerVKey()}, Name: "auditor.example/letterlock", Logger: silent()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Check = a.Check
	web := httptest.NewServer(w.Handler())
	defer web.Close()
	ask := func(c proof.Checkpoint, known int64) ([]byte, error) {
		lines, err := new(witness.Client).Cosign(ctx, web.URL, c.Signed, c.Size, known, l.prove)
		return []byte(lines), err
	}
	policy, err := proof.ParsePolicy([]byte("log " + l.keys.LedgerVKey() + "\nwitness auditor " + w.VKey() + "\nquorum auditor\n"))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := ask(good, 0)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := policy.Cosigned(good.Signed, string(lines))
	if err == nil {
		_, _, err = policy.Check(signed)
	}
	if err != nil {
		t.Errorf("the cosignature does not count: %v", err)
	}

	watching := make(chan error, 1)
	l.publish()
	go func() { watching <- NewWatcher(a, silent(), prometheus.NewRegistry()).Run(ctx) }()
	l.personal(1)
	lie := l.honest()
	lie.Root[0] ^= 1
	l.add(lie)
	if lines, err := ask(l.checkpoint(len(l.leaves)), good.Size); err == nil {
		t.Errorf("a tree with a wrong map root was signed: %s", lines)
	}
	if last, err := w.Last(ctx, l.keys.Ledger.Name()); err != nil || last.Size != good.Size {
		t.Errorf("the witness stands at %d: %v", last.Size, err)
	}
	if err := <-watching; !chat.Is(err, chat.Tampered) {
		t.Errorf("the watcher goes on: %v", err)
	}
}

const benchLeaves = 100_000

// BenchmarkReplay audits a log of package ledger on SQLite, whose batches are of 1,000 leaves: over HTTP, with the server on the same
// cores, and out of the auditor's own copy, as at a start.
func BenchmarkReplay(b *testing.B) {
	s := newServer(b)
	s.personal(benchLeaves)
	var before time.Duration
	rate := func(b *testing.B) {
		b.ReportMetric(float64(b.N)*benchLeaves/b.Elapsed().Seconds(), "leaves/s")
		b.ReportMetric(float64((used(b)-before).Nanoseconds())/float64(b.N)/benchLeaves, "cpu-ns/leaf")
	}
	b.Run("network", func(b *testing.B) {
		before = used(b)
		for b.Loop() {
			a := s.auditor(b.TempDir())
			if r, err := a.Published(ctx); err != nil || r.Labels != benchLeaves {
				b.Fatalf("%+v, %v", r, err)
			}
			a.Close()
		}
		rate(b)
	})
	b.Run("copy", func(b *testing.B) {
		home := b.TempDir()
		a := s.auditor(home)
		if _, err := a.Published(ctx); err != nil {
			b.Fatal(err)
		}
		a.Close()
		before = used(b)
		for b.Loop() {
			a := s.auditor(home)
			if a.judged() != a.audited.Size {
				b.Fatal("the copy was not taken up")
			}
			a.Close()
		}
		rate(b)
	})
}

// used is the processor time of this process, server and auditor: what a replay costs whoever else works on the machine.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
