package sqlite_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/store"
	"letterlock/store/sqlite"
	"letterlock/store/storetest"
)

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		return storetest.File(t, filepath.Join(t.TempDir(), "exam.db"))
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

// TestAConnectionThatWasGivenUp: a context that ends inside a transaction may cost the writer its connection, and nobody more than that.
func TestAConnectionThatWasGivenUp(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "given-up.db"))
	id := chat.NewConversationID()
	for seq := uint64(1); seq <= 3; seq++ {
		e := store.Entry{Conversation: id, Seq: seq, Kind: 3, Body: []byte("body")}
		if err := s.AppendEntries(t.Context(), []store.Entry{e}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Update(ctx, func(*store.Tx) error { cancel(); time.Sleep(20 * time.Millisecond); return nil }); err == nil {
			t.Fatal("a transaction was committed after its context had ended")
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *store.Store {
	t.Helper()
	s, err := sqlite.Open(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestRoomComesBack: what tombstones leave is used again while the database is open, and goes back to the disk when it is compacted.
func TestRoomComesBack(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "room.db")
	s := open(t, path)
	const n = 4000
	fill := func(id chat.ConversationID) {
		t.Helper()
		var entries []store.Entry
		for seq := uint64(1); seq <= n; seq++ {
			body := make([]byte, 1000)
			rand.Read(body)
			entries = append(entries, store.Entry{Conversation: id, Seq: seq, Kind: 3, Dedup: body[:16], Body: body})
		}
		if err := s.AppendEntries(ctx, entries); err != nil {
			t.Fatal(err)
		}
	}
	pages := func() (n int64) {
		t.Helper()
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.QueryRow("PRAGMA page_count").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	first := chat.NewConversationID()
	each := func(do func(tx *store.Tx, id chat.ConversationID, seq uint64) error) {
		t.Helper()
		for seq := uint64(1); seq <= n; seq += 100 {
			if err := s.Update(ctx, func(tx *store.Tx) (err error) {
				for i := range uint64(100) {
					err = errors.Join(err, do(tx, first, seq+i))
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(first)
	full := pages()
	each((*store.Tx).Expire)
	fill(chat.NewConversationID())
	if again := pages(); again > full*5/4 {
		t.Errorf("%d pages with as many messages as before and their tombstones, %d before: the room was not used again", again, full)
	}
	each((*store.Tx).Forget)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, after, err := sqlite.Compact(ctx, path)
	if err != nil || after >= before {
		t.Errorf("compacted from %d to %d bytes, %v", before, after, err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != after {
		t.Errorf("it says %d bytes: %v, %v", after, info.Size(), err)
	}
	if problems, err := sqlite.CheckFile(ctx, path, false); err != nil || len(problems) > 0 {
		t.Errorf("after compacting: %q, %v", problems, err)
	}
	if err := open(t, path).View(ctx, func(tx *store.Tx) error {
		last, err := tx.LastSeq(first)
		if last != n {
			t.Errorf("%d entries of %d are there", last, n)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
