package server

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/chat"
	"letterlock/store/storetest"
)

// config is a server in a new folder, with the database that LETTERLOCK_TEST_STORE names.
func config(t *testing.T) Config {
	return Config{DataDir: shortDir(t), Database: storetest.Address(t), Listen: "127.0.0.1:0", ExemptLoopback: true, Version: "test", Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// running starts a server; stop ends it in order.
func running(t *testing.T, c Config) (s *Server, stop func() error) {
	t.Helper()
	s, err := New(context.Background(), c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { stop() })
	return s, stop
}

// shortDir is a folder with a path short enough for a socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ll")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestAWholeServerFromStartToCheck(t *testing.T) {
	c := config(t)
	dir := c.DataDir
	s, stop := running(t, c)
	ctx := t.Context()
	_, err := New(ctx, c)
	if !chat.Is(err, chat.Unavailable) {
		t.Errorf("a second server on the same folder: %v", err)
	}
	if _, err := Check(ctx, dir, CheckOptions{Database: c.Database}); !chat.Is(err, chat.Unavailable) {
		t.Errorf("a check beside a running server: %v", err)
	}
	pair, err := bench.NewPair(ctx, bench.At(s.URL()))
	must(t, err)
	stream, err := pair.A.Dial(ctx)
	must(t, err)
	defer stream.Close()
	must(t, stream.Send(api.Frame{Type: api.FrameSubscribe, Conversation: pair.Conversation},
		api.Frame{Type: api.FrameSend, Request: 1, Conversation: pair.Conversation, Dedup: [16]byte{1}, Message: pair.Message(100, 0)}))
	seen := make(map[api.FrameType]int)
	for seen[api.FrameAck] < 1 || seen[api.FrameEntry] < 2 {
		f, err := stream.Recv(ctx)
		must(t, err)
		seen[f.Type]++
	}
	for path, want := range map[string]int{"/healthz": 200, "/metrics": 404, "/debug/pprof/": 404, "/.well-known/letterlock": 200} {
		answer, err := http.Get(s.URL() + path)
		must(t, err)
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, want)
		}
	}
	adminMetrics(t, dir)

	// A long poll and a live connection do not hold up the end.
	polled := make(chan error, 1)
	go func() {
		_, err := pair.B.Log(ctx, pair.Conversation, 2, 10, 60)
		polled <- err
	}()
	must(t, stop())
	<-polled
	for err = nil; err == nil; {
		_, err = stream.Recv(ctx)
	}
	if !chat.Is(err, chat.Unavailable) {
		t.Errorf("the stream ended with %v", err)
	}
	report, err := Check(ctx, dir, CheckOptions{Database: c.Database})
	if err != nil || len(report.Problems) != 0 || report.Conversations != 1 || report.Entries != 2 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// adminMetrics reads the figures where the operator does, and sees that they name nobody.
func adminMetrics(t *testing.T, dir string) {
	t.Helper()
	socket := filepath.Join(dir, "admin.sock")
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the admin socket is %v, %v", info.Mode(), err)
	}
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	answer, err := c.Get("http://admin/metrics")
	must(t, err)
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	must(t, err)
	for _, want := range []string{"letterlock_batch_entries_count", "letterlock_streams 1", `letterlock_requests_total{code="200",route="POST /v1/accounts"} 2`} {
		if !strings.Contains(string(b), want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
}

// dedupMark begins the keys of TestCheckFindsWhatIsWrong.
var dedupMark = []byte("dedupkeyofatest")

// TestOneServerOnADatabase: another data folder does not make it another database.
func TestOneServerOnADatabase(t *testing.T) {
	c := config(t)
	c.Database = storetest.Postgres(t)
	s, stop := running(t, c)
	_, err := bench.NewPair(t.Context(), bench.At(s.URL()))
	must(t, err)
	other := c
	other.DataDir = shortDir(t)
	if _, err := New(t.Context(), other); !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "another letterlock works on this database") {
		t.Errorf("a second server on the same database: %v", err)
	}
	must(t, stop())
	if report, err := Check(t.Context(), c.DataDir, CheckOptions{Database: c.Database}); err != nil || len(report.Problems) != 0 || report.Conversations != 1 {
		t.Errorf("check: %+v, %v", report, err)
	}
	other.DataDir, other.Database = shortDir(t), "letterlock.db"
	if _, err := New(t.Context(), other); !chat.Is(err, chat.Invalid) {
		t.Errorf("a file for an address: %v", err)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	c := config(t)
	c.Database = "" // the file is what is damaged
	dir := c.DataDir
	s, stop := running(t, c)
	pair, err := bench.NewPair(t.Context(), bench.At(s.URL()))
	must(t, err)
	for i := range 3 {
		key := append(bytes.Clone(dedupMark), byte(i))
		_, err := pair.A.SendMessage(t.Context(), pair.Conversation, api.Message{Message: pair.Message(50, 0), DedupKey: key})
		must(t, err)
	}
	must(t, pair.Commit(t.Context()))
	must(t, stop())
	whole, err := os.ReadFile(filepath.Join(dir, "letterlock.db"))
	must(t, err)
	// What each damage needs to be found: a quick look, or everything replayed.
	for what, c := range map[string]struct {
		damage string
		quick  bool
	}{
		"an entry is gone":          {`DELETE FROM entries WHERE seq = 3`, false},
		"the last but one is gone":  {`DELETE FROM entries WHERE seq = 4`, true},
		"the last entry is gone":    {`DELETE FROM entries WHERE seq = 5`, true},
		"every entry is gone":       {`DELETE FROM entries`, true},
		"an entry twice":            {`INSERT INTO entries SELECT conversation, 6, kind, epoch, at, account, device, NULL, tombstone, body, extra FROM entries WHERE seq = 3`, true},
		"an entry of another epoch": {`UPDATE entries SET epoch = 7 WHERE seq = 3`, false},
		"an unknown kind":           {`UPDATE entries SET kind = 9 WHERE seq = 3`, false},
		"another's message":         {`UPDATE entries SET body = x'00' || body WHERE seq = 3`, false},
		"a commit that is another":  {`UPDATE entries SET body = x'00' WHERE seq = 5`, false},
		"a commit as a tombstone":   {`UPDATE entries SET tombstone = 1 WHERE seq = 1`, false},
		"the register's epoch":      {`UPDATE conversations SET epoch = 1`, true},
		"when the epoch began":      {`UPDATE conversations SET epoch_seq = 1`, true},
		"half the roster":           {`UPDATE conversations SET roster = (SELECT substr(roster, 1, 200) FROM conversations)`, true},
		"the founding":              {`UPDATE conversations SET founding = x'0001'`, false},
		"a removal of nobody":       {`UPDATE conversations SET waiting = x'00000040'`, false},
		"a member is gone":          {`DELETE FROM members WHERE account = (SELECT MIN(account) FROM members)`, false},
		"a member's list":           {`DELETE FROM account_conversations WHERE account = (SELECT MIN(account) FROM account_conversations)`, false},
		"a mailbox":                 {`DELETE FROM mailboxes`, false},
		"a Welcome of no commit":    {`UPDATE welcomes SET seq = 99`, false},
		"the ledger's records":      {`DELETE FROM ledger_leaves WHERE 1=1`, true},
		"the ledger's root":         {`UPDATE ledger_state SET root = zeroblob(32)`, true},
		"the ledger's checkpoint":   {`UPDATE ledger_state SET checkpoint = substr(checkpoint, 2)`, true},
		"the ledger's tiles":        {`UPDATE ledger_tiles SET data = zeroblob(32)`, true},
		"a leaf that is another":    {`UPDATE ledger_leaves SET leaf = leaf || x'00'`, true},
	} {
		must(t, os.WriteFile(filepath.Join(dir, "letterlock.db"), whole, 0o600))
		db, err := sql.Open("sqlite", filepath.Join(dir, "letterlock.db"))
		must(t, err)
		_, err = db.Exec(c.damage)
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		found(t, dir, what, c.quick)
	}
	for what, c := range map[string]struct {
		damage func(file []byte) []byte
		quick  bool
	}{
		"one bit of a page's head": {func(b []byte) []byte { b[2*4096] ^= 0x40; return b }, true},
		"one bit of a free count":  {func(b []byte) []byte { b[39] ^= 0x01; return b }, true},
		"a whole page":             {func(b []byte) []byte { clear(b[2*4096 : 3*4096]); return b }, true},
		"a page that is another": {func(b []byte) []byte {
			at := bytes.Index(b, dedupMark) / 4096 * 4096
			copy(b[at:at+4096], b[2*4096:])
			return b
		}, true},
		"the last page cut off":  {func(b []byte) []byte { return b[:len(b)-4096] }, true},
		"cut in the middle":      {func(b []byte) []byte { return b[:len(b)/2+100] }, true},
		"cut in its header":      {func(b []byte) []byte { return b[:60] }, true},
		"nothing left":           {func(b []byte) []byte { return nil }, true},
		"another file":           {func(b []byte) []byte { return bytes.Repeat([]byte("not a database\n"), 1000) }, true},
		"an index without a row": {withoutRow, false},
	} {
		must(t, os.WriteFile(filepath.Join(dir, "letterlock.db"), c.damage(bytes.Clone(whole)), 0o600))
		found(t, dir, what, c.quick)
	}
	if _, err := Check(t.Context(), t.TempDir(), CheckOptions{}); !chat.Is(err, chat.NotFound) {
		t.Errorf("an empty folder: %v", err)
	}
}

// found asserts that a full check finds a damage, and that a quick one does if it can.
func found(t *testing.T, dir, what string, quick bool) {
	t.Helper()
	for _, o := range []CheckOptions{{Quick: true}, {}} {
		report, err := Check(t.Context(), dir, o)
		if err != nil {
			t.Errorf("%s (quick %t): could not be checked: %v", what, o.Quick, err)
		} else if got := len(report.Problems) > 0; got != (quick || !o.Quick) {
			t.Errorf("%s (quick %t): found %q", what, o.Quick, report.Problems)
		}
	}
}

// withoutRow changes one bit of a dedup key in the table alone, so that its index entry leads to another row.
func withoutRow(file []byte) []byte {
	at := bytes.Index(file, dedupMark)
	file[at] ^= 1
	return file
}

func TestPlainHTTPIsForThisMachineAlone(t *testing.T) {
	tcp := func(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 8080} }
	for _, c := range []struct {
		what string
		c    Config
		addr net.Addr
		want string // public URL, or empty: refused
	}{
		{"loopback", Config{}, tcp("127.0.0.1"), "http://127.0.0.1:8080"},
		{"loopback 6", Config{}, tcp("::1"), ""}, // a MIMI authority has no brackets: say --public-url http://localhost:8080
		{"loopback 6 with a name", Config{PublicURL: "http://localhost:8080"}, tcp("::1"), "http://localhost:8080"},
		{"everywhere", Config{}, tcp("0.0.0.0"), ""},
		{"another address", Config{}, tcp("192.0.2.1"), ""},
		{"public plain HTTP", Config{PublicURL: "http://chat.example"}, tcp("127.0.0.1"), ""},
		{"behind a proxy here", Config{PublicURL: "https://chat.example"}, tcp("127.0.0.1"), "https://chat.example"},
		{"behind a proxy elsewhere", Config{PublicURL: "https://chat.example"}, tcp("0.0.0.0"), "https://chat.example"},
		{"TLS without a name", Config{TLSCert: "c", TLSKey: "k"}, tcp("192.0.2.1"), ""},
		{"TLS here", Config{TLSCert: "c", TLSKey: "k", PublicURL: "https://chat.example"}, tcp("192.0.2.1"), "https://chat.example"},
		{"half of TLS", Config{TLSCert: "c"}, tcp("127.0.0.1"), ""},
		{"a path", Config{PublicURL: "https://chat.example/x"}, tcp("127.0.0.1"), ""},
		{"another scheme", Config{PublicURL: "ftp://chat.example"}, tcp("127.0.0.1"), ""},
	} {
		u, err := publicURL(c.c, c.addr)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: accepted as %s", c.what, u)
			}
		} else if err != nil || u.String() != c.want {
			t.Errorf("%s: %v, %v; want %s", c.what, u, err, c.want)
		}
	}
}
