// Package docs runs what the documents tell people to type.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"letterlock/store"
	"letterlock/store/postgres"
	"letterlock/store/storetest"
)

var fence = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestCommandsOfTheDocuments runs every sh block of README.md and of the pages in doc/, each document's blocks as one script in an empty
// folder, as a reader who follows it from top to bottom. Ports are replaced by free ones.
func TestCommandsOfTheDocuments(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pages := []string{filepath.Join(root, "README.md")}
	more, err := filepath.Glob(filepath.Join(root, "doc", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range append(pages, more...) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var script strings.Builder
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			script.WriteString(m[1])
			ran++
		}
		if script.Len() == 0 {
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) { follow(t, root, script.String(), seen[filepath.Base(page)]) })
	}
	if ran < 4 {
		t.Fatalf("found %d blocks of commands only", ran)
	}
}

// waitBefore are commands that need what the line before started in the background; a person reads for a second, a script does not.
const prelude = `
set -eu
trap 'kill $(jobs -p) 2>/dev/null || true; wait 2>/dev/null || true' EXIT
make() { command make -s -C "$ROOT" "$@"; }
up() { for i in $(seq 200); do curl -sf "$1" >/dev/null && return; sleep 0.05; done; echo "$1 does not answer" >&2; return 1; }
`

// seen is what a reader of a page must see on the way.
var seen = map[string][]string{
	"README.md":         {"alice: Have you seen it?", "alice, through Flimmer: [film] Metropolis", "could never read anything of alice@", "All 10 lies were caught."},
	"operate.md":        {"LETTERLOCK_REGISTRATION)", "0 of 20 used", "BLOCKED", "letterlock_batch_seconds_count", "clean: "},
	"operate-backup.md": {"with its secret keys", "restored: 127.0.0.1", "clean, by a quick look"},
}

func follow(t *testing.T, root, script string, seen []string) {
	server, agent := freePort(t), freePort(t)
	script = strings.ReplaceAll(script, "127.0.0.1:8080", "127.0.0.1:"+server)
	script = strings.ReplaceAll(script, "127.0.0.1:8091", "127.0.0.1:"+freePort(t)) // a witness
	// The agent's own port is a default that the text does not name.
	script = strings.ReplaceAll(script, "--link-base", "--redirect http://127.0.0.1:"+agent+"/callback --link-base")
	script = strings.ReplaceAll(script, "./flimmer run &", "./flimmer run --listen 127.0.0.1:"+agent+" &\nup http://127.0.0.1:"+agent+"/healthz")
	script = strings.ReplaceAll(script, "--listen 127.0.0.1:"+server+" &", "--listen 127.0.0.1:"+server+" &\nup http://127.0.0.1:"+server+"/healthz")
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "bin"), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ROOT="+root)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range seen {
		if !strings.Contains(out.String(), want) {
			t.Errorf("a reader would not see %q:\n%s", want, out.String())
		}
	}
}

func freePort(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// TestMakeDemo runs the README's first command.
func TestMakeDemo(t *testing.T) { makeDemo(t) }

// TestMakeDemoOnPostgres plays the same story on a PostgreSQL, and looks whether it was played there.
func TestMakeDemoOnPostgres(t *testing.T) {
	url := storetest.Postgres(t)
	makeDemo(t, "LETTERLOCK_DATABASE="+url)
	s, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.View(t.Context(), func(tx *store.Tx) error { _, err := tx.AccountOf("alice"); return err }); err != nil {
		t.Errorf("Alice is not in the database: %v", err)
	}
}

func makeDemo(t *testing.T, environment ...string) {
	t.Helper()
	cmd := exec.Command("make", "-s", "-C", "../..", "demo")
	cmd.Env = append(os.Environ(), environment...)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("All checks held")) {
		t.Fatalf("make demo: %v\n%s", err, out)
	}
}
