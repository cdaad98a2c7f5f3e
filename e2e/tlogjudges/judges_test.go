package tlogjudges

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/torchwood"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// programs are letterlock and biglog, built once.
var letterlock, biglog string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-judges-")
	if err == nil {
		letterlock, biglog = filepath.Join(dir, "letterlock"), filepath.Join(dir, "biglog")
		err = build(letterlock, ".")
	}
	if err == nil {
		err = build(biglog, "./e2e/biglog")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func build(to, pkg string) error {
	cmd := exec.Command("go", "build", "-o", to, pkg)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// server is a letterlock that runs.
type server struct {
	url string // of its log
	log note.Verifier
}

// serve starts letterlock on a data folder and stops it with the test.
func serve(t *testing.T, data string) (s server, stop func()) {
	t.Helper()
	address := freeAddress(t)
	var said bytes.Buffer
	cmd := exec.Command(letterlock, "serve", "--data", data, "--listen", address, "--public-url", "https://chat.example", "--no-limits-for-loopback")
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		cmd.Wait()
		close(ended)
	}()
	stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		<-ended
	}
	t.Cleanup(stop)
	var who struct {
		LedgerVKey string `json:"ledger_vkey"`
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if r, err := http.Get("http://" + address + "/log.json"); err == nil {
			err = json.NewDecoder(r.Body).Decode(&who)
			r.Body.Close()
			if err == nil && who.LedgerVKey != "" {
				break
			}
		}
		select {
		case <-ended:
			t.Fatalf("the server ended; it said:\n%s", &said)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not answer")
		}
	}
	v, err := note.NewVerifier(who.LedgerVKey)
	if err != nil {
		t.Fatal(err)
	}
	return server{"http://" + address + "/log", v}, stop
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

// withEntries starts a server whose log has so many entries.
func withEntries(t *testing.T, entries string) server {
	t.Helper()
	data := filepath.Join(t.TempDir(), "data")
	_, stop := serve(t, data)
	stop()
	if out, err := exec.Command(biglog, data, entries).CombinedOutput(); err != nil {
		t.Fatalf("biglog: %v\n%s", err, out)
	}
	s, _ := serve(t, data)
	return s
}

// TestJudges: a log of one level with a partial tile, of one full tile exactly, and of three levels.
func TestJudges(t *testing.T) {
	for _, entries := range []string{"2", "256", "700", "66000"} {
		t.Run(entries, func(t *testing.T) {
			s := withEntries(t, entries)
			t.Run("fsck", func(t *testing.T) {
				if err := s.fsck(t, nil); err != nil {
					t.Error(err)
				}
			})
			t.Run("torchwood", func(t *testing.T) { s.torchwood(t) })
		})
	}
}

// TestJudgesCanFail: the same judge finds a single wrong bit, in a tile or in an entry.
func TestJudgesCanFail(t *testing.T) {
	s := withEntries(t, "700")
	for _, part := range []string{"/tile/0/001", "/tile/1/000.p/2", "/tile/entries/002.p/"} {
		if err := s.fsck(t, flip{part}); err == nil {
			t.Errorf("fsck accepts a log with a wrong bit in %s", part)
		}
	}
}

// flip changes the last bit of what is fetched from addresses that hold a part.
type flip struct{ part string }

func (f flip) RoundTrip(r *http.Request) (*http.Response, error) {
	a, err := http.DefaultTransport.RoundTrip(r)
	if err != nil || !strings.Contains(r.URL.Path, f.part) {
		return a, err
	}
	body, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err == nil && len(body) > 0 {
		body[len(body)-1] ^= 1
	}
	a.Body = io.NopCloser(bytes.NewReader(body))
	return a, err
}

// fsck reads all entries, makes every tile and the root again and compares them with what the server shows.
func (s server) fsck(t *testing.T, through http.RoundTripper) error {
	t.Helper()
	root, err := url.Parse(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	fetcher, err := client.NewHTTPFetcher(root, &http.Client{Transport: through})
	if err != nil {
		t.Fatal(err)
	}
	return fsck.New(s.log.Name(), s.log, fetcher, leafHashes, fsck.Opts{N: 2}).Check(t.Context())
}

func leafHashes(bundle []byte) ([][]byte, error) {
	var b api.EntryBundle
	if err := b.UnmarshalText(bundle); err != nil {
		return nil, err
	}
	var hashes [][]byte
	for _, e := range b.Entries {
		hashes = append(hashes, rfc6962.DefaultHasher.HashLeaf(e))
	}
	return hashes, nil
}

// torchwood reads all entries with proof, then single ones, and a proof that the server made.
func (s server) torchwood(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	fetcher, err := torchwood.NewTileFetcher(s.url)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	policy := torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(s.log.Name()), torchwood.SingleVerifierPolicy(s.log))
	c, _, err := torchwood.VerifyCheckpoint(signed, policy)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for i := range reader.AllEntries(ctx, c.Tree, 0) {
		if i != n {
			t.Fatalf("entry %d came after %d", i, n-1)
		}
		n++
	}
	if err := reader.Err(); err != nil || n != c.N {
		t.Errorf("%d of %d entries: %v", n, c.N, err)
	}
	for _, index := range []int64{0, c.N / 2, c.N - 1} {
		entry, _, err := reader.Entry(ctx, c.Tree, index)
		if err != nil {
			t.Fatalf("entry %d: %v", index, err)
		}
		leaf := tlog.RecordHash(entry)
		text, err := fetcher.ReadEndpoint(ctx, fmt.Sprintf("proof/%x", leaf[:]))
		if err != nil {
			t.Fatal(err)
		}
		if err := torchwood.VerifyProof(policy, leaf, text); err != nil {
			t.Errorf("the server's proof of entry %d: %v", index, err)
		}
	}
}
