package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"letterlock/store"
	"letterlock/store/sqlite"
	"letterlock/store/storetest"
)

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "exam.db")
		return func(t *testing.T) *store.Store { return open(t, path) }
	})
}

func BenchmarkAppend(b *testing.B) {
	s, err := sqlite.Open(context.Background(), filepath.Join(b.TempDir(), "bench.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	storetest.BenchmarkAppend(b, s)
}

func TestAnyPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%?#.db")
	for range 2 {
		s := open(t, path)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if m, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.db")); len(m) != 1 || m[0] != path {
		t.Fatalf("the folder holds %q", m)
	}
}

func open(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
