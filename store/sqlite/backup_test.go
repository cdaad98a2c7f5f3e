package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"letterlock/chat"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// TestBackupBesideAWriter copies a database that never stands still: the copy ends, holds one moment, and cost the writer nothing.
func TestBackupBesideAWriter(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "a b%?#.db"), filepath.Join(dir, "copy ?.db")
	s := open(t, path)
	conversations := [2]chat.ConversationID{chat.NewConversationID(), chat.NewConversationID()}
	var seq atomic.Uint64
	write := func() error { // the same number into both, in one transaction
		n := seq.Add(1)
		var entries []store.Entry
		for _, c := range conversations {
			entries = append(entries, store.Entry{Conversation: c, Seq: n, Kind: 3, Dedup: fmt.Appendf(nil, "%16d", n), Body: make([]byte, 1000)})
		}
		return s.AppendEntries(context.Background(), entries)
	}
	for range 2000 {
		must(t, write())
	}
	during := 0
	bounded, giveUp := context.WithCancel(t.Context())
	defer giveUp()
	must(t, sqlite.Backup(bounded, path, to, func(done, total int64) {
		if during++; during > 100 {
			giveUp() // a copy without a snapshot begins again after each commit, for ever
		}
		if err := write(); err != nil {
			t.Error(err)
		}
	}))
	if during < 3 {
		t.Fatalf("only %d steps", during)
	}
	if info, err := os.Stat(to); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the copy has %v, %v", info.Mode(), err)
	}
	problems, err := sqlite.CheckFrozen(t.Context(), to)
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	copied := sqlite.OpenFrozen(to)
	defer copied.Close()
	must(t, copied.View(t.Context(), func(tx *store.Tx) error {
		for _, c := range conversations {
			if last, err := tx.LastSeq(c); err != nil || last != 2000 {
				t.Errorf("the copy ends at %d, %v: want the moment when it began", last, err)
			}
		}
		return nil
	}))
	if beside, _ := filepath.Glob(filepath.Join(dir, "copy*")); len(beside) != 1 {
		t.Errorf("beside the copy there is %q", beside)
	}
	if err := sqlite.Backup(t.Context(), path, to, nil); !os.IsExist(err) {
		t.Errorf("over a file that is there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = sqlite.Backup(ctx, path, to+"2", func(_, _ int64) { cancel() })
	if err == nil {
		t.Error("a backup that was called off ended well")
	}
	must(t, write())
}

// TestAReadOnlyStoreSaysSo writes where SQLite may not: each writer hears what it is, the watcher once.
func TestAReadOnlyStoreSaysSo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	s := open(t, path)
	must(t, s.Close())
	s = sqlite.OpenFrozen(path)
	defer s.Close()
	told := 0
	s.WatchDisk(func(error) { told++ })
	for range 3 {
		err := s.Update(t.Context(), func(tx *store.Tx) error {
			return tx.QueueLedgerLeaf(store.LedgerQueued{Shard: []byte{1}, Deed: []byte{1}, Leaf: []byte{1}})
		})
		if !errors.Is(err, store.ErrReadOnly) || !chat.Is(err, chat.Unavailable) || store.DiskError(err) != store.ErrReadOnly {
			t.Errorf("a write: %v", err)
		}
	}
	if told != 1 || s.Disk() != store.ErrReadOnly {
		t.Errorf("told %d times, %v", told, s.Disk())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
