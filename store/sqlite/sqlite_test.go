package sqlite_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"testing"

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
	appendOne(t, s, chat.NewConversationID(), 1)
	closeWhole(t, s, path)
}

func appendOne(t *testing.T, s *store.Store, id chat.ConversationID, seq uint64) {
	t.Helper()
	e := store.Entry{Conversation: id, Seq: seq, Kind: 3, Body: []byte("body")}
	if err := s.AppendEntries(t.Context(), []store.Entry{e}); err != nil {
		t.Fatal(err)
	}
}

func closeWhole(t *testing.T, s *store.Store, path string) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) != 0 {
		t.Errorf("beside it stand %q", left)
	}
}

// TestAConnectionThatWasGivenUp: the writer may lose its connection at any time, as to a context that ends inside a transaction, and
// what had been prepared on it goes with it.
func TestAConnectionThatWasGivenUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "given-up.db")
	opened := 0
	s, err := sqlite.OpenAround(t.Context(), path, func(c sqlite.Conn) sqlite.Conn {
		opened++
		return &fickle{c, context.Background()}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const rounds = 3
	id, before := chat.NewConversationID(), opened
	for seq := uint64(1); seq <= rounds; seq++ {
		appendOne(t, s, id, seq)
		ctx, cancel := context.WithCancel(t.Context())
		if err := s.Update(ctx, func(*store.Tx) error { cancel(); return nil }); err == nil {
			t.Fatal("a transaction was committed after its context had ended")
		}
	}
	appendOne(t, s, id, rounds+1)
	if opened-before < rounds {
		t.Errorf("%d connections were made anew, and %d were given up", opened-before, rounds)
	}
	closeWhole(t, s, path)
}

// fickle is a connection that is of no use after the context of its transaction has ended, as SQLite's is if that interrupts a statement.
type fickle struct {
	sqlite.Conn
	ctx context.Context
}

func (f *fickle) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	f.ctx = ctx
	return f.Conn.BeginTx(ctx, o)
}

func (f *fickle) IsValid() bool { return f.ctx.Err() == nil && f.Conn.IsValid() }

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
