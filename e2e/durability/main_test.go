// Package durability torments real server processes, on SQLite and on a real PostgreSQL, and shows that "acknowledged" means written and
// synced: either is killed, frozen or cut off at random moments under load, and the system calls of both are watched.
package durability

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is letterlock, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-durability-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "letterlock")
	if out, err := exec.Command("go", "build", "-o", binary, "letterlock").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
