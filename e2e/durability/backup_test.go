package durability

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/bench"
)

// house is a folder with everything that one test's processes keep, and the server's address.
type house struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	address string
}

func newHouse(t *testing.T) *house {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "ll") // short enough for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	address, err := bench.FreeAddress()
	must(t, err)
	return &house{t, ctx, dir, address}
}

func (h *house) path(name string) string { return filepath.Join(h.dir, name) }

// run runs letterlock in the house and returns what it printed and its exit code.
func (h *house) run(args ...string) (string, int) {
	h.t.Helper()
	cmd := exec.CommandContext(h.ctx, binary, args...)
	cmd.Dir = h.dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// does asserts that a command works.
func (h *house) does(args ...string) string {
	h.t.Helper()
	out, code := h.run(args...)
	if code != 0 {
		h.t.Fatalf("%s: code %d: %s", strings.Join(args, " "), code, out)
	}
	return out
}

// refuses asserts that a command ends with a code and says why.
func (h *house) refuses(code int, says string, args ...string) {
	h.t.Helper()
	out, got := h.run(args...)
	if got != code || !strings.Contains(out, says) {
		h.t.Errorf("%s: code %d, want %d and %q: %s", strings.Join(args, " "), got, code, says, out)
	}
}

func (h *house) serve(data string) *bench.Process {
	h.t.Helper()
	p, err := bench.Start(h.ctx, bench.ServerOptions{Executable: binary, DataDir: h.path(data), Address: h.address})
	must(h.t, err)
	h.t.Cleanup(p.Kill)
	return p
}

// cannotServe asserts that a server does not start on a folder.
func (h *house) cannotServe(data, says string) {
	h.t.Helper()
	p, err := bench.Start(h.ctx, bench.ServerOptions{Executable: binary, DataDir: h.path(data), Address: h.address})
	if err == nil {
		p.Kill()
	}
	if err == nil || !strings.Contains(err.Error(), says) {
		h.t.Errorf("a server on %s: %v; want %q", data, err, says)
	}
}

// partner lets a partner in: its agreement is an entry of the ledger.
func (h *house) partner(data, name string) {
	h.t.Helper()
	h.does("agent", "--home", name, "init", name, "--name", name, "--server", "http://"+h.address)
	h.does("admin", "--data", data, "partner", "add", name+"/registration.json", "--yes")
}

// looks has Alice's device look at the partners, each proven against the ledger that it remembers.
func (h *house) looks() string { return h.does("client", "--home", "alice", "partners") }

// TestARestoredLedgerIsNotSmaller backs a running server up, lets its ledger grow, kills it, and tries to put the old backup in its
// place in every way that an operator might.
func TestARestoredLedgerIsNotSmaller(t *testing.T) {
	h := newHouse(t)
	server := h.serve("data")
	h.does("client", "--home", "alice", "signup", "alice", "--server", server.URL)
	h.partner("data", "flimmer")
	h.looks()
	var made struct {
		Backup  string
		Entries int64 `json:"ledger_entries"`
	}
	must(t, json.Unmarshal([]byte(h.does("backup", "--data", "data", "--out", "old", "--json")), &made))
	if made.Entries != 6 {
		t.Fatalf("the backup holds %d entries of the ledger, want the server's keys, Alice's, the agreement, and a map root after each", made.Entries)
	}
	h.partner("data", "tuner")
	if out := h.looks(); !strings.Contains(out, "tuner") || strings.Contains(out, "contradicts") {
		t.Fatalf("Alice sees: %s", out)
	}
	h.does("backup", "--data", "data", "--out", "new")
	answer, err := http.Get(server.URL + "/log/checkpoint")
	must(t, err)
	seen, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	must(t, err)
	must(t, os.WriteFile(h.path("seen"), seen, 0o600))
	server.Kill()

	// Another folder, held against the old one's memory, or what somebody saw.
	const older = "the database is older"
	h.refuses(4, older, "restore", "old", "--data", "restored", "--witnessed", "data/published")
	h.refuses(4, older, "restore", "old", "--data", "restored", "--witnessed", "seen")
	if _, err := os.Stat(h.path("restored")); !os.IsNotExist(err) {
		t.Errorf("a refused restore left a folder: %v", err)
	}
	// The old folder.
	h.refuses(1, "holds a database already", "restore", "old", "--data", "data")
	must(t, os.Mkdir(h.path("away"), 0o700))
	for _, name := range []string{"letterlock.db", "letterlock.db-wal", "letterlock.db-shm"} {
		if err := os.Rename(h.path("data/"+name), h.path("away/"+name)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	h.cannotServe("data", "the database of this server is gone")
	h.refuses(4, older, "restore", "old", "--data", "data")
	// By hand, around the command.
	must(t, exec.Command("cp", h.path("old/letterlock.db"), h.path("data/")).Run())
	h.cannotServe("data", older)
	h.refuses(1, older, "check", "--data", "data")
	h.refuses(1, older, "check", "--data", "data", "--quick")
	must(t, os.Remove(h.path("data/letterlock.db")))
	// The newer backup may take its place, since nothing was published after it.
	h.does("restore", "new", "--data", "data")
	server = h.serve("data")
	if out := h.looks(); !strings.Contains(out, "tuner") || strings.Contains(out, "contradicts") {
		t.Errorf("after the newer backup Alice sees: %s", out)
	}
	server.Kill()
	h.does("check", "--data", "data")

	// Whoever tells nothing of what was seen gets a server, and its people find out.
	if out := h.does("restore", "old", "--data", "forgetful"); !strings.Contains(out, "will refuse this server") {
		t.Errorf("restored without a warning: %s", out)
	}
	server = h.serve("forgetful")
	if out := h.looks(); !strings.Contains(out, "contradicts what this device remembers") {
		t.Errorf("with an older ledger Alice sees: %s", out)
	}
	if out := h.does("client", "--home", "alice", "evidence"); !strings.Contains(out, "the ledger contradicts") {
		t.Errorf("Alice kept no evidence: %s", out)
	}
	server.Kill()
}

// TestRestoreLooksFirst damages backups: nothing comes into place that its manifest does not vouch for.
func TestRestoreLooksFirst(t *testing.T) {
	h := newHouse(t)
	server := h.serve("data")
	h.does("client", "--home", "alice", "signup", "alice", "--server", server.URL)
	must(t, server.Stop())
	h.does("backup", "--data", "data", "--out", "good") // of a server that stands still
	h.refuses(1, "is there already", "backup", "--data", "data", "--out", "good")
	h.refuses(1, "no data folder", "backup", "--data", "good/keys", "--out", "x")
	must(t, os.MkdirAll(h.path("postgres/keys"), 0o700))
	h.refuses(1, "pg_dump", "backup", "--data", "postgres", "--out", "x")
	must(t, filepath.WalkDir(h.path("good"), func(path string, d os.DirEntry, err error) error {
		must(t, err)
		info, err := d.Info()
		must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s can be read by others: %v", path, info.Mode())
		}
		return nil
	}))
	for what, c := range map[string]struct {
		damage func(dir string) error
		says   string
	}{
		"a byte of the database": {func(d string) error { return flip(filepath.Join(d, "letterlock.db"), 30_000) }, "letterlock.db is not what its manifest says"},
		"a byte of a key":        {func(d string) error { return flip(filepath.Join(d, "keys/vrf.key"), 7) }, "keys/vrf.key is not what its manifest says"},
		"the end":                {func(d string) error { return os.Truncate(filepath.Join(d, "letterlock.db"), 40_000) }, "letterlock.db is not what its manifest says"},
		"a key":                  {func(d string) error { return os.Remove(filepath.Join(d, "keys/server.key")) }, "keys/server.key is missing"},
		"the manifest":           {func(d string) error { return os.Remove(filepath.Join(d, "manifest.json")) }, "there is no backup"},
		"half the manifest":      {func(d string) error { return os.Truncate(filepath.Join(d, "manifest.json"), 300) }, "its manifest is not the JSON"},
	} {
		must(t, os.RemoveAll(h.path("bad")))
		must(t, exec.Command("cp", "-r", h.path("good"), h.path("bad")).Run())
		must(t, c.damage(h.path("bad")))
		if out, code := h.run("restore", "bad", "--data", "restored"); code != 1 || !strings.Contains(out, c.says) {
			t.Errorf("%s: code %d: %s", what, code, out)
		}
	}
	// A folder with another server's keys, or with anything else, is left as it is.
	must(t, os.MkdirAll(h.path("others/keys"), 0o700))
	must(t, os.WriteFile(h.path("others/keys/server.key"), []byte("x"), 0o600))
	h.refuses(1, "other keys than the backup", "restore", "good", "--data", "others")
	must(t, os.MkdirAll(h.path("full"), 0o700))
	must(t, os.WriteFile(h.path("full/diary"), []byte("x"), 0o600))
	h.refuses(1, "holds diary", "restore", "good", "--data", "full")
	if list, err := os.ReadDir(h.path("full")); err != nil || len(list) != 1 {
		t.Errorf("the folder holds %v, %v", list, err)
	}
	// An interrupted restore is run again.
	must(t, os.MkdirAll(h.path("restored/.restore/keys"), 0o700))
	must(t, os.WriteFile(h.path("restored/.restore/letterlock.db"), []byte("x"), 0o600))
	h.does("restore", "good", "--data", "restored", "--quick", "--json")
	h.refuses(2, "data", "restore", "good")
	h.refuses(2, "out", "backup", "--data", "data")
}

// flip changes one byte of a file.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 0x40
	_, err = f.WriteAt(b, at)
	return errors.Join(err, f.Close())
}
