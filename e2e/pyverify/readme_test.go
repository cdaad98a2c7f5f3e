package pyverify

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

var fence = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestReadme runs what verifier/README.md tells people to type, in a copy of its folder.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../verifier/README.md")
	if err != nil {
		t.Fatal(err)
	}
	script := "set -eu\n"
	blocks := fence.FindAllStringSubmatch(string(text), -1)
	for _, block := range blocks {
		script += block[1]
	}
	if len(blocks) < 3 {
		t.Fatalf("%d blocks of commands only", len(blocks))
	}
	dir := filepath.Join(t.TempDir(), "verifier")
	if err := os.CopyFS(dir, os.DirFS("../../verifier")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"was never allowed anything by alice@chat.example:8080", "could read what alice@chat.example:8080 wrote", "not independent",
		"This file proves nothing: the key chain is another account's.", "exit code 4", "\nOK"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("a reader would not see %q:\n%s", want, out)
		}
	}
}

// TestExamples: the files beside the README hold for both.
func TestExamples(t *testing.T) {
	policy, err := os.ReadFile("../../verifier/example/policy.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []fixture
	for _, name := range []string{"never", "access"} {
		data, err := os.ReadFile("../../verifier/example/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fixture{Name: name, Policy: string(policy), data: data})
	}
	if holds := compare(t, list); holds != len(list) {
		t.Errorf("%d of %d examples hold", holds, len(list))
	}
}

// TestCommand: exit codes, and files that are none.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	never, err := os.ReadFile("../../verifier/example/never.json")
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name, want string
		code       int
		args       []string
	}{
		{"good", "was never allowed anything", 0, []string{"../../verifier/example/never.json"}},
		{"good, JSON", `"kind": "never"`, 0, []string{"--json", "../../verifier/example/never.json"}},
		{"unpinned", "own claim", 0, []string{"../../verifier/example/never.json"}},
		{"another ledger", "another ledger", 4, []string{"--ledger-key", "chat.example:8080/letterlock+00000000+AAAA", "../../verifier/example/never.json"}},
		{"another policy", "never in force", 4, []string{"--policy", file("policy", "log "+vkeyOf(t, never)+"\nquorum none\n"), "../../verifier/example/never.json"}},
		{"no file", "cannot be read", 1, []string{filepath.Join(dir, "gone")}},
		{"a folder", "cannot be read", 1, []string{dir}},
		{"empty", "proves nothing", 4, []string{file("empty", "")}},
		{"not UTF-8", "proves nothing", 4, []string{file("latin", "{\"\xe4\"}")}},
		{"deep", "proves nothing", 4, []string{file("deep", strings.Repeat("[", 1<<20))}},
		{"long number", "proves nothing", 4, []string{file("number", strings.Repeat("1", 1<<20))}},
		{"half a surrogate", "proves nothing", 4, []string{file("surrogate", `{"format": "letterlock-bundle/2", "host": "\ud800"}`)}},
		{"another format", "of a version that is not known", 4, []string{file("one", strings.Replace(string(never), "bundle/2", "bundle/1", 1))}},
	} {
		out, err := python(t, nil, append([]string{"../../verifier/letterlock_verify.py"}, test.args...)...)
		code := 0
		if exit, ok := err.(*exec.ExitError); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != test.code || !strings.Contains(out, test.want) {
			t.Errorf("%s: exit code %d\n%s", test.name, code, out)
		}
	}
}

// vkeyOf is the ledger's key in a bundle.
func vkeyOf(t *testing.T, bundle []byte) string {
	m := regexp.MustCompile(`"ledger_vkey": "([^"]+)"`).FindSubmatch(bundle)
	if m == nil {
		t.Fatal("the bundle names no ledger key")
	}
	return string(m[1])
}
