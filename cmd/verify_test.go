package cmd

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestVerify checks a file that was kept: later builds must still understand it.
func TestVerify(t *testing.T) {
	const file, policy = "testdata/bundle/never.json", "testdata/bundle/policy.txt"
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	altered := write("altered.json", bytes.Replace(data, []byte(`"handle": "alice"`), []byte(`"handle": "alicf"`), 1))
	before := write("before.json", bytes.Replace(data, []byte("bundle/2"), []byte("bundle/1"), 1))
	pinned, err := os.ReadFile(policy)
	if err != nil {
		t.Fatal(err)
	}
	other := write("other.txt", bytes.Replace(pinned, []byte("group g 2"), []byte("group g 3"), 1))
	for _, test := range []struct {
		args      []string
		code      int
		out, says string
	}{
		{[]string{file}, exitOK, "flimmer was never allowed anything by alice@chat.example:8080 and could never read anything of theirs", ""},
		{[]string{file, "--policy", policy, "--expect", "never"}, exitOK, "flimmer was never allowed anything", ""},
		{[]string{file, "--lang", "de"}, exitOK, "flimmer hatte nie eine Erlaubnis von alice@chat.example:8080", ""},
		{[]string{file, "--expect", "access"}, exitTampered, "flimmer was never allowed", `it proves "never", not "access"`},
		{[]string{file, "--policy", other}, exitTampered, "", "the pinned policy was never in force"},
		{[]string{file, "--ledger-key", "chat.example+00000000+AA"}, exitTampered, "", "this file proves nothing: the bundle is about another ledger"},
		{[]string{altered}, exitTampered, "", "the key chain is another account's"},
		{[]string{altered, "--lang", "de"}, exitTampered, "", "diese Datei beweist nichts"},
		{[]string{before}, exitTampered, "", "have it made anew"},
		{[]string{filepath.Join(dir, "nosuch")}, exitFailed, "", "the file cannot be opened"},
		{[]string{file, "--policy", file}, exitFailed, "", "policy, line 1"},
		{[]string{file, "--expect", "nothing"}, exitUsage, "", "--expect wants"},
		{[]string{file, "--lang", "xx"}, exitUsage, "", "the languages are en and de"},
	} {
		code, stdout, stderr := run(append([]string{"verify"}, test.args...)...)
		if code != test.code || !strings.HasPrefix(stdout, test.out) || !strings.Contains(stderr, test.says) || (test.out == "") != (stdout == "") {
			t.Errorf("verify %q: exit code %d\n%s%s", test.args, code, stdout, stderr)
		}
	}
	_, stdout, _ := run("verify", file, "--json", "--lang", "de")
	var v struct {
		Kind      string
		Headline  string
		Complete  bool
		Witnesses []struct {
			Name           string
			NotIndependent bool `json:"not_independent"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || v.Kind != "never" || !v.Complete || len(v.Witnesses) != 3 || !v.Witnesses[2].NotIndependent || !strings.Contains(v.Headline, "hatte nie") {
		t.Errorf("as JSON: %s, %v", stdout, err)
	}
}
