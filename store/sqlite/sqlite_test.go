package sqlite_test

import (
	"context"
	"path/filepath"
	"testing"

	"letterlock/chat"
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

// TestClosedWhole: a database that was closed is one file, so that a copy of it is a copy of everything.
func TestClosedWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "whole.db")
	s := open(t, path)
	e := store.Entry{Conversation: chat.NewConversationID(), Seq: 1, Kind: 3, Body: []byte("body")}
	if err := s.AppendEntries(t.Context(), []store.Entry{e}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) != 0 {
		t.Errorf("beside it stand %q", left)
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
