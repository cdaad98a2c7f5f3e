package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// letterlock runs the binary that the documents' first commands build.
func letterlock(t *testing.T, args ...string) string {
	t.Helper()
	if out, err := exec.Command("make", "-s", "-C", "../..", "build").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command("../../bin/letterlock", args...).Output()
	if err != nil {
		t.Fatalf("letterlock %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}

// TestSettingsTable: the table of doc/operate.md is the flags that there are, with their variables and defaults, and no other.
func TestSettingsTable(t *testing.T) {
	page, err := os.ReadFile("../../doc/operate.md")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct{ Name, Value, Variable string }
	if err := json.Unmarshal([]byte(letterlock(t, "serve", "--json", "--print-config")), &list); err != nil || len(list) < 10 {
		t.Fatalf("%d settings: %v", len(list), err)
	}
	rows := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| ([a-z-]+) \| (LETTERLOCK_[A-Z_]+) \| ?(.*?) ?\| .+ \|$`).FindAllStringSubmatch(string(page), -1) {
		rows[m[1]] = m[2:]
	}
	for _, s := range list {
		row, ok := rows[s.Name]
		if s.Name == "json" { // which was given to ask
			s.Value = "false"
		}
		if !ok || row[0] != s.Variable || row[1] != s.Value {
			t.Errorf("%s is %s, default %q; the table says %q", s.Name, s.Variable, s.Value, row)
		}
		delete(rows, s.Name)
	}
	for name := range rows {
		t.Errorf("the table has %s, the program has not", name)
	}
}

// TestRootBlocks: what only root can type on a server is not run, but what it names must exist.
func TestRootBlocks(t *testing.T) {
	n := 0
	pages, _ := filepath.Glob("../../doc/*.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?ms)^```root\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
			for _, line := range strings.Split(strings.TrimSpace(m[1]), "\n") {
				n++
				for _, file := range regexp.MustCompile(`contrib/\S+`).FindAllString(line, -1) {
					if _, err := os.Stat("../../" + file); err != nil {
						t.Error(err)
					}
				}
				if args, ok := strings.CutPrefix(line, "letterlock "); ok {
					commandExists(t, strings.Fields(args))
				}
			}
		}
	}
	if n < 5 {
		t.Fatalf("%d lines for root only", n)
	}
}

// commandExists looks a command's flags up in its own help.
func commandExists(t *testing.T, args []string) {
	t.Helper()
	var words []string
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			break
		}
		words = append(words, a)
	}
	help := letterlock(t, append(words, "--help")...)
	for _, a := range args {
		if strings.HasPrefix(a, "--") && !strings.Contains(help, a+" ") {
			t.Errorf("letterlock %s has no %s", strings.Join(words, " "), a)
		}
	}
}
