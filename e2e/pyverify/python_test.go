package pyverify

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// installed is the folder with the Python package that the verifier needs.
var installed = sync.OnceValues(func() (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "install.sh")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
})

// TestMain opens what other processes read, so that `go test` knows when its remembered answers are old.
func TestMain(m *testing.M) {
	for _, pattern := range []string{"../../verifier/*", "../../proof/*.go", "parts.py", "install.sh"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			panic("nothing matches " + pattern)
		}
		for _, name := range names {
			os.ReadFile(name)
		}
	}
	os.Exit(m.Run())
}

// python runs Python 3 with the verifier and its package to import, and returns what it printed. An exit code other than 0 is an error.
func python(t testing.TB, stdin []byte, args ...string) (string, error) {
	t.Helper()
	packages, err := installed()
	if err != nil {
		t.Fatalf("install.sh: %v", err)
	}
	verifier, err := filepath.Abs("../../verifier")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "python3", args...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+packages+":"+verifier, "PYTHONDONTWRITEBYTECODE=1")
	cmd.Stdin = bytes.NewReader(stdin)
	var errors bytes.Buffer
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if strings.Contains(errors.String(), "Traceback") {
		t.Fatalf("the Python verifier broke: %s", errors.String())
	}
	return string(out) + errors.String(), err
}

// TestPythonParts runs the unit tests of the Python verifier.
func TestPythonParts(t *testing.T) {
	out, err := python(t, nil, "-m", "unittest", "letterlock_verify_test")
	if err != nil || !strings.Contains(out, "\nOK") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// question is a part of a bundle that both judge: Go has judged.
type question struct {
	name string
	ours error
	part string
	args [][]byte
}

// agree asks the Python verifier and compares.
func agree(t *testing.T, questions []question) {
	t.Helper()
	var in bytes.Buffer
	for _, q := range questions {
		line := []any{q.part}
		for _, a := range q.args {
			line = append(line, append([]byte{}, a...)) // nil would be null
		}
		if err := json.NewEncoder(&in).Encode(line); err != nil {
			t.Fatal(err)
		}
	}
	out, err := python(t, in.Bytes(), "parts.py")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	answers := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	if len(answers) != len(questions) {
		t.Fatalf("%d answers to %d questions", len(answers), len(questions))
	}
	good := 0
	for i, q := range questions {
		if (answers[i] == "ok") != (q.ours == nil) {
			t.Errorf("%s: Python says %q, Go says %v\n%s %x", q.name, answers[i], q.ours, q.part, q.args)
		}
		if q.ours == nil {
			good++
		}
	}
	t.Logf("%d parts, of which %d hold", len(questions), good)
	if good == 0 || good == len(questions) {
		t.Errorf("the parts are not of both sorts: %d of %d hold", good, len(questions))
	}
}
