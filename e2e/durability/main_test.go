// Package durability torments a real server process and shows that "acknowledged" means written and synced: it is killed at random
// moments under load, and its system calls are watched.
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
