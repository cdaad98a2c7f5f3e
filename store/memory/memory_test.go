package memory_test

import (
	"context"
	"errors"
	"testing"

	"letterlock/chat"
	"letterlock/store"
	"letterlock/store/memory"
	"letterlock/store/storetest"
)

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open { return storetest.Opener(t, storetest.NewDisk(t).Open) })
}

// TestExamWithRetries has every third commit fail as if another process held the database.
func TestExamWithRetries(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		d := storetest.NewDisk(t)
		s, err := d.Open(t.Context()) // migrations are not tried again
		must(t, err)
		must(t, s.Close())
		commits := 0
		d.Faults(func(s memory.Step) memory.Fault {
			if s == memory.Commit {
				if commits++; commits%3 == 1 {
					return memory.Busy
				}
			}
			return memory.None
		})
		return storetest.Opener(t, d.Open)
	})
}

// TestFaults: what is there after each fault of a commit, for the store that goes on and for the one that opens the disk after it.
func TestFaults(t *testing.T) {
	ctx := context.Background()
	entry := func(seq uint64) []store.Entry {
		return []store.Entry{{Conversation: chat.ConversationID{1}, Seq: seq, Kind: 3, Body: []byte("x")}}
	}
	for how, put := range map[string]func(*store.Store, uint64) error{
		"AppendEntries": func(s *store.Store, seq uint64) error { return s.AppendEntries(ctx, entry(seq)) },
		"AppendBatch": func(s *store.Store, seq uint64) error {
			return s.AppendBatch(ctx, func(b *store.Batch) error { return b.Append(entry(seq)[0]) })
		},
		"Update": func(s *store.Store, seq uint64) error {
			return s.Update(ctx, func(tx *store.Tx) error { return tx.AppendEntry(entry(seq)[0]) })
		},
	} {
		for _, c := range []struct {
			name        string
			step        memory.Step
			fault       memory.Fault
			saved, dead bool
		}{
			{"begin fails", memory.Begin, memory.Fail, false, false},
			{"statement fails", memory.Statement, memory.Fail, false, false},
			{"statement fails though done", memory.Statement, memory.FailSaved, false, false},
			{"commit fails", memory.Commit, memory.Fail, false, false},
			{"commit fails though saved", memory.Commit, memory.FailSaved, true, false},
			{"dies before", memory.Begin, memory.Die, false, true},
			{"dies in between", memory.Statement, memory.DieSaved, false, true},
			{"dies at the commit", memory.Commit, memory.Die, false, true},
			{"dies after the commit", memory.Commit, memory.DieSaved, true, true},
		} {
			t.Run(how+": "+c.name, func(t *testing.T) {
				d := storetest.NewDisk(t)
				open := storetest.Opener(t, d.Open)
				s := open(t)
				must(t, put(s, 1))
				struck := false
				d.Faults(func(step memory.Step) memory.Fault {
					if step != c.step || struck {
						return memory.None
					}
					struck = true
					return c.fault
				})
				if err := put(s, 2); !errors.Is(err, memory.ErrFault) {
					t.Fatalf("the fault was hidden: %v", err)
				}
				want := uint64(1)
				if c.saved {
					want++
				}
				var last uint64
				err := s.View(ctx, func(tx *store.Tx) (err error) {
					last, err = tx.LastSeq(chat.ConversationID{1})
					return err
				})
				if c.dead && (!errors.Is(err, memory.ErrFault) || !errors.Is(put(s, 3), memory.ErrFault)) {
					t.Fatal("a dead store answers")
				}
				if !c.dead && (err != nil || last != want) {
					t.Errorf("it goes on after %d, %v; want %d", last, err, want)
				}
				again := open(t)
				must(t, again.View(ctx, func(tx *store.Tx) (err error) {
					last, err = tx.LastSeq(chat.ConversationID{1})
					return err
				}))
				if last != want {
					t.Errorf("the next one finds %d entries, want %d", last, want)
				}
				must(t, put(again, want+1))
			})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
