package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func everyMutant(t *testing.T) (root string, all []mutant) {
	t.Helper()
	root, err := findRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	if all, err = readMutants(root); err != nil {
		t.Fatal(err)
	}
	return root, all
}

// TestPatchesApply keeps the patches in step with the code: `make mutants` takes long, this does not.
func TestPatchesApply(t *testing.T) {
	root, all := everyMutant(t)
	for _, m := range all {
		c := exec.Command("git", "apply", "--check", "-")
		c.Dir, c.Stdin = root, strings.NewReader(string(m.patch))
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s does not apply: %s", m.name, out)
		}
	}
}

func TestPatchesNameTests(t *testing.T) {
	root, all := everyMutant(t)
	for _, m := range all {
		if !hasTest(t, filepath.Join(root, m.pkg), strings.Trim(m.test, "^$")) {
			t.Errorf("%s: there is no %s in %s", m.name, m.test, m.pkg)
		}
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "\nfunc "+name+"(t *testing.T)") {
			return true
		}
	}
	return false
}

// TestThreatsTable holds spec/threats.md against the attacks and the mutants, in both directions.
func TestThreatsTable(t *testing.T) {
	root, all := everyMutant(t)
	data, err := os.ReadFile(filepath.Join(root, "spec/threats.md"))
	if err != nil {
		t.Fatal(err)
	}
	table := string(data)
	patches := map[string]bool{}
	for _, m := range all {
		patches[m.name] = true
		if !strings.Contains(table, "`"+m.name+"`") {
			t.Errorf("spec/threats.md does not name the mutant %s", m.name)
		}
		if test := strings.Trim(m.test, "^$"); !strings.Contains(table, test) {
			t.Errorf("spec/threats.md does not name %s, the test of %s", test, m.name)
		}
	}
	for _, name := range attacks(t, root) {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(table) {
			t.Errorf("spec/threats.md does not name the attack %s", name)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\|.*\\| ([^|]+) \\|$").FindAllStringSubmatch(table, -1) {
		for _, name := range regexp.MustCompile("`([a-z0-9-]+)`").FindAllStringSubmatch(row[1], -1) {
			if !patches[name[1]] {
				t.Errorf("spec/threats.md names a mutant that is not there: %s", name[1])
			}
		}
	}
	for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(table, -1) {
		if !namedAnywhere(t, root, name) {
			t.Errorf("spec/threats.md names a test that is not there: %s", name)
		}
	}
}

// attacks lists the tests of e2e/attacks.
func attacks(t *testing.T, root string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "e2e/attacks/*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(t \*testing\.T\)`).FindAllStringSubmatch(string(data), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// namedAnywhere looks for a test in the packages.
func namedAnywhere(t *testing.T, root, name string) bool {
	t.Helper()
	dirs := map[string]bool{}
	for _, pattern := range []string{"*/*_test.go", "*/*/*_test.go"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			dirs[filepath.Dir(f)] = true
		}
	}
	for dir := range dirs {
		if hasTest(t, dir, name) {
			return true
		}
	}
	return false
}

func TestParseMutantRefuses(t *testing.T) {
	for _, data := range []string{
		"", "--- a/x\n+++ b/x\n",
		"# defence: it holds\n--- a/x\n",
		"# test: ./e2e/attacks -run '^TestX$'\n# defence: it holds\n",
		"# defence: it holds\n# test: ./e2e/attacks -run 'TestX'\n",
	} {
		if _, err := parseMutant("x.patch", []byte(data)); err == nil {
			t.Errorf("%q was taken", data)
		}
	}
	m, err := parseMutant("x.patch", []byte("# defence: it holds\n# test: ./e2e/attacks -run '^TestX$'\n--- a/x\n"))
	if err != nil || m.name != "x" || m.defence != "it holds" || m.pkg != "./e2e/attacks" || m.test != "^TestX$" || string(m.patch) != "--- a/x\n" {
		t.Errorf("got %+v, %v", m, err)
	}
}
