package sqlite

import (
	"context"
	"path/filepath"
	"testing"

	"letterlock/store"
)

func TestOpenTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%.db")
	for range 2 {
		s, err := Open(context.Background(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.View(context.Background(), func(*store.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
