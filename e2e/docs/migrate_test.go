package docs

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"letterlock/store/storetest"
)

var postgresFence = regexp.MustCompile("(?ms)^```sh postgres\n(.*?)^```$")

// TestCommandsWithPostgres runs the blocks that need a PostgreSQL, one document's as one script, in a folder with the data of a server on
// which Alice and Bob have met.
func TestCommandsWithPostgres(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(root, "doc", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var script strings.Builder
		for _, m := range postgresFence.FindAllStringSubmatch(string(text), -1) {
			script.WriteString(m[1])
			ran++
		}
		if script.Len() > 0 {
			t.Run(filepath.Base(page), func(t *testing.T) { followWithPostgres(t, root, script.String()) })
		}
	}
	if ran == 0 {
		t.Fatal("found no blocks of commands")
	}
}

const met = `
make build
bin/letterlock serve --data ./data --listen 127.0.0.1:8080 & server=$!
up http://127.0.0.1:8080/healthz
bin/letterlock client --home ./alice signup alice --server http://127.0.0.1:8080
bin/letterlock client --home ./bob   signup bob   --server http://127.0.0.1:8080
bin/letterlock client --home ./alice friends add bob
bin/letterlock client --home ./bob   friends accept alice
bin/letterlock client --home ./alice send bob "Have you seen it?"
kill $server
wait $server
`

const goesOn = `
up http://127.0.0.1:8080/healthz
bin/letterlock client --home ./bob   read alice
bin/letterlock client --home ./bob   send alice "Twice."
bin/letterlock client --home ./alice read bob
`

func followWithPostgres(t *testing.T, root, script string) {
	url := storetest.Postgres(t)
	script = met + strings.ReplaceAll(script, "postgres://letterlock:secret@db.example/letterlock", url) + goesOn
	script = strings.ReplaceAll(script, "127.0.0.1:8080", "127.0.0.1:"+freePort(t))
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "bin"), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", prelude+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ROOT="+root, "LETTERLOCK_DATABASE=")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"the same on both sides", "the copy is clean: 1 conversations", "alice: Have you seen it?", "bob: Twice."} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("a reader would not see %q:\n%s", want, out.String())
		}
	}
}
