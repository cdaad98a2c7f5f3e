// Package upgrade opens the data folders that earlier versions left: testdata holds one archive for each release, made by fixture.sh.
// The server's folder must pass the present check and be served, and the old clients' folders must read and send on.
package upgrade

import (
	"bytes"
	"context"
	"database/sql"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// address is where the fixtures' server was, and must be again: it is part of every key chain.
const address = "127.84.76.1:8473"

// binary is letterlock as it is now, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-upgrade-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "letterlock")
	if out, err := exec.Command("go", "build", "-o", binary, "letterlock").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func TestEveryReleaseOpensInThisOne(t *testing.T) {
	archives, err := filepath.Glob("testdata/*.tar.gz")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no data folders of earlier versions: %v", err)
	}
	for _, a := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(a), ".tar.gz"), func(t *testing.T) { opens(t, extract(t, a)) })
	}
}

func extract(t *testing.T, archive string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.Command("tar", "-xzf", archive, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

func opens(t *testing.T, dir string) {
	f := folder{t, dir}
	if out := f.run("check", "--data", "server"); !strings.HasPrefix(out, "clean: 2 conversations") {
		t.Fatalf("check: %s", out)
	}
	stop := f.serve()
	f.says(f.run("client", "--home", "bob", "read", "alice"), "alice: Have you seen it?", "Not yet.")
	f.says(f.run("client", "--home", "alice", "read", "bob"), "Have you seen it?", "bob: Not yet.")
	f.says(f.run("client", "--home", "bob", "read", "alice/flimmer"), "alice, through Flimmer: [film] Metropolis", "alice, through Flimmer: [film] Nosferatu")
	f.run("client", "--home", "alice", "send", "bob", "Still there?")
	f.says(f.run("client", "--home", "bob", "read", "alice"), "alice: Still there?")
	f.run("client", "--home", "bob", "send", "alice", "Of course.")
	f.says(f.run("client", "--home", "alice", "read", "bob"), "bob: Of course.")

	// Somebody new comes, and the old ones can befriend and write to them.
	f.run("client", "--home", "dora", "signup", "dora", "--server", "http://"+address)
	f.run("client", "--home", "alice", "friends", "add", "dora")
	f.run("client", "--home", "dora", "friends", "accept", "alice")
	f.run("client", "--home", "alice", "send", "dora", "Welcome.")
	f.says(f.run("client", "--home", "dora", "read", "alice"), "alice: Welcome.")

	f.says(f.run("client", "--home", "alice", "history", "flimmer"), "you allowed Flimmer to send, delete", "Flimmer sent a message", "you ended Flimmer's permission")
	f.run("client", "--home", "alice", "proof", "flimmer", "--out", "proof.json")
	f.says(f.run("verify", "proof.json"), "alice granted Flimmer: send, delete", "revoked")
	f.run("client", "--home", "alice", "revoke", f.grant())
	stop()
	if out := f.run("check", "--data", "server"); !strings.HasPrefix(out, "clean: 3 conversations") {
		t.Fatalf("check after the story went on: %s", out)
	}
}

// folder is an extracted archive.
type folder struct {
	t   *testing.T
	dir string
}

// run runs a command that must succeed, and returns what it printed.
func (f folder) run(args ...string) string {
	f.t.Helper()
	out, err := f.try(args...)
	if err != nil {
		f.t.Fatalf("letterlock %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (f folder) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = f.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func (f folder) says(out string, want ...string) {
	f.t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			f.t.Errorf("%q is missing in:\n%s", w, out)
		}
	}
}

// grant is the id of the one that still lived.
func (f folder) grant() string {
	id, err := os.ReadFile(filepath.Join(f.dir, "grant"))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(id))
}

// serve starts the server where it was.
func (f folder) serve() (stop func()) {
	f.t.Helper()
	cmd := exec.Command(binary, "serve", "--data", "server", "--listen", address)
	cmd.Dir = f.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	f.t.Cleanup(func() { cmd.Process.Kill() })
	for range 200 {
		if answer, err := http.Get("http://" + address + "/healthz"); err == nil {
			answer.Body.Close()
			return func() {
				cmd.Process.Signal(syscall.SIGTERM)
				if err := <-ended; err != nil {
					f.t.Errorf("the server ended with %v\n%s", err, log.String())
				}
			}
		}
		select {
		case err := <-ended:
			f.t.Fatalf("the server ended with %v\n%s", err, log.String())
		case <-time.After(50 * time.Millisecond):
		}
	}
	f.t.Fatal("the server does not answer")
	return nil
}

// TestANewerDatabaseIsRefused: who goes back to an older version hears so, and nothing is touched.
func TestANewerDatabaseIsRefused(t *testing.T) {
	archives, _ := filepath.Glob("testdata/*.tar.gz")
	if len(archives) == 0 {
		t.Fatal("no data folders of earlier versions")
	}
	f := folder{t, extract(t, archives[0])}
	db, err := sql.Open("sqlite", filepath.Join(f.dir, "server", "letterlock.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO goose_db_version (version_id, is_applied) VALUES (9000, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "--data", "server"}, {"serve", "--data", "server", "--listen", address}} {
		out, err := f.try(args...)
		if err == nil || !strings.Contains(out, "this database was made by a newer letterlock") {
			t.Errorf("%s: %v\n%s", args[0], err, out)
		}
	}
}
