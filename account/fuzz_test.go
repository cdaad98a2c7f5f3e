package account

import (
	"os"
	"path/filepath"
	"testing"
)

// filesOf is every byte that the database has written.
func filesOf(t *testing.T, dir string) (all []byte) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in %s: %v", dir, err)
	}
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	return all
}

func FuzzToken(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := parseToken(s); err == nil && tok.String() != s {
			t.Fatalf("%q reads back as %q", s, tok)
		}
	})
}

func FuzzAccountOf(f *testing.F) {
	f.Fuzz(func(t *testing.T, entry []byte) { accountOf(entry) })
}

func TestFuzzSeeds(t *testing.T) {
	for _, name := range []string{"FuzzToken", "FuzzAccountOf"} {
		if seeds, err := os.ReadDir("testdata/fuzz/" + name); err != nil || len(seeds) == 0 {
			t.Errorf("%s: no seeds: %v", name, err)
		}
	}
}
