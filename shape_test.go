package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestServerCannotDecrypt is the guard: what the server links holds no code that opens a message.
func TestServerCannotDecrypt(t *testing.T) {
	deps := goList(t, "-deps", "./server")
	for _, secret := range []string{"letterlock/mls", "letterlock/slot", "letterlock/device", "letterlock/agent", "letterlock/vault"} {
		for _, dep := range deps {
			if dep == secret {
				t.Errorf("the server links %s", secret)
			}
		}
	}
	if len(deps) < 20 {
		t.Fatalf("go list found %d packages only", len(deps))
	}
}

// TestImportsPointDown holds the layers of the README: a package imports only what stands below it.
func TestImportsPointDown(t *testing.T) {
	never := map[string][]string{ // package -> prefixes that it must not import
		"letterlock/chat":     {"letterlock/"},
		"letterlock/canon":    {"letterlock/"},
		"letterlock/mls":      {"letterlock/store", "letterlock/api", "letterlock/device", "letterlock/grant"},
		"letterlock/grant":    {"letterlock/store", "letterlock/api", "letterlock/proof", "net/http"},
		"letterlock/proof":    {"letterlock/store", "letterlock/ledger", "net/http"},
		"letterlock/labelmap": {"letterlock/store", "letterlock/proof", "letterlock/ledger"},
		"letterlock/logpage":  {"letterlock/store", "letterlock/ledger", "letterlock/httpd", "letterlock/inbox"},
		"letterlock/api":      {"net/http", "letterlock/store", "letterlock/device"},
		"letterlock/device":   {"letterlock/store", "letterlock/server", "letterlock/httpd", "letterlock/vault", "net/http"},
		"letterlock/agent":    {"letterlock/store", "letterlock/server", "letterlock/httpd", "letterlock/device"},
		"letterlock/store":    {"letterlock/delivery", "letterlock/inbox", "letterlock/grant", "letterlock/proof", "letterlock/mls"},
		"letterlock/delivery": {"letterlock/httpd", "letterlock/inbox", "net/http"},
		"letterlock/inbox":    {"letterlock/httpd", "net/http"},
	}
	for pkg, bad := range never {
		for _, imp := range goList(t, "-f", `{{join .Imports "\n"}}`, pkg) {
			for _, prefix := range bad {
				if strings.HasPrefix(imp, prefix) {
					t.Errorf("%s imports %s", pkg, imp)
				}
			}
		}
	}
	for _, pkg := range goList(t, "./...") {
		joins := pkg == "letterlock" || pkg == "letterlock/cmd" || strings.HasPrefix(pkg, "letterlock/e2e")
		imports := goList(t, "-f", `{{join .Imports "\n"}}`, pkg)
		if !joins && contains(imports, "letterlock/server") && contains(imports, "letterlock/device") {
			t.Errorf("%s joins the server's half and the clients' half; only main and cmd do", pkg)
		}
	}
}

// TestPackageComments: a package begins by saying what it is for.
func TestPackageComments(t *testing.T) {
	commented := map[string]bool{}
	eachGoFile(t, func(path string, f *ast.File) {
		if strings.HasSuffix(path, "_test.go") {
			return
		}
		dir := filepath.Dir(path)
		commented[dir] = commented[dir] || f.Doc != nil
	})
	for dir, ok := range commented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// TestFuzzSeeds: every fuzz test has committed seeds; a missing folder would let it pass on nothing.
func TestFuzzSeeds(t *testing.T) {
	n := 0
	eachGoFile(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") || !strings.HasSuffix(path, "_test.go") {
				continue
			}
			n++
			seeds, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "testdata", "fuzz", fn.Name.Name, "*"))
			if len(seeds) == 0 {
				t.Errorf("%s: %s has no seeds under testdata/fuzz", path, fn.Name.Name)
			}
		}
	})
	if n == 0 {
		t.Fatal("found no fuzz tests at all")
	}
}

func eachGoFile(t *testing.T, fn func(path string, f *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata" || d.Name() == "bin") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		fn(path, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func goList(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.Command("go", append([]string{"list"}, args...)...).Output()
	if err != nil {
		t.Fatalf("go list %v: %v", args, err)
	}
	return strings.Fields(string(out))
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
