package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"letterlock/store"
)

// deadline is of entry seq of conversation 1.
func deadline(seq uint64, due int64, step store.Step) store.Deadline {
	return store.Deadline{Conversation: id(1), Seq: seq, Due: due, Step: step}
}

func deadlines(t *testing.T, open Open) {
	s := open(t)
	must(t, s.AppendBatch(ctx, func(b *store.Batch) error {
		for seq := uint64(1); seq <= 5; seq++ {
			refused, err := b.Try(func(tx *store.Tx) error {
				return errors.Join(tx.AppendEntry(entry(id(1), seq)), tx.SetDeadline(deadline(seq, int64(100-seq), store.StepTombstone)))
			})
			must(t, errors.Join(refused, err))
		}
		return nil
	}))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		for _, c := range []struct {
			now   int64
			limit int
			want  []uint64
		}{{94, 10, nil}, {95, 10, []uint64{5}}, {97, 10, []uint64{5, 4, 3}}, {200, 2, []uint64{5, 4}}} {
			due, err := tx.Due(c.now, c.limit)
			must(t, err)
			if len(due) != len(c.want) {
				t.Fatalf("%d are due at %d, want %v", len(due), c.now, c.want)
			}
			for i, d := range due {
				if d != deadline(c.want[i], int64(100-c.want[i]), store.StepTombstone) {
					t.Errorf("due at %d: %+v", c.now, d)
				}
			}
		}
		over, err := tx.Over(id(1), 1, 4, 97)
		if err != nil || len(over) != 2 || over[0].Seq != 3 || over[1].Seq != 4 {
			t.Errorf("over between 1 and 4: %+v, %v", over, err)
		}
		if over, err := tx.Over(id(2), 0, 10, 200); err != nil || len(over) != 0 {
			t.Errorf("another conversation: %+v, %v", over, err)
		}
		n, err := tx.CountDue(97)
		if n != 3 {
			t.Errorf("%d are due at 97, want 3", n)
		}
		return err
	}))
	// One entry has one deadline: the next takes the place of the one before. A forgetting is no reason to serve nothing.
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.SetDeadline(deadline(3, 50, store.StepForget)), tx.DropDeadline(id(1), 4), tx.DropDeadline(id(1), 77))
	}))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		due, err := tx.Due(96, 10)
		if len(due) != 2 || due[0] != deadline(3, 50, store.StepForget) || due[1].Seq != 5 {
			t.Errorf("after the change: %+v", due)
		}
		if over, err := tx.Over(id(1), 0, 10, 97); err != nil || len(over) != 1 || over[0].Seq != 5 {
			t.Errorf("over after the change: %+v, %v", over, err)
		}
		return err
	}))
}

func expired(t *testing.T, open Open) {
	s := open(t)
	first := entry(id(1), 1)
	first.Extra = []byte("extra")
	must(t, appendAll(s, first, entry(id(1), 2), entry(id(1), 3)))
	for range 2 {
		must(t, s.Update(ctx, func(tx *store.Tx) error { return errors.Join(tx.Expire(id(1), 1), tx.Tombstone(id(1), 2)) }))
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error { return errors.Join(tx.Tombstone(id(1), 1), tx.Expire(id(1), 2)) })) // it stays what it was
	got := log(t, s, id(1))
	hash := sha256.Sum256(first.Body)
	if e := got[0]; !e.Tombstone || !e.Expired || !bytes.Equal(e.Body, hash[:]) || len(e.Extra) != 0 || !bytes.Equal(e.Dedup, first.Dedup) ||
		e.Account != first.Account || e.Device != first.Device || e.At != first.At {
		t.Errorf("expired: %+v", e)
	}
	if e := got[1]; !e.Tombstone || e.Expired {
		t.Errorf("deleted: %+v", e)
	}
	if e := got[2]; e.Tombstone || e.Expired {
		t.Errorf("untouched: %+v", e)
	}
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Expire(id(1), 9) }); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nothing expires: %v", err)
	}
}

func forgotten(t *testing.T, open Open) {
	s := open(t)
	must(t, appendAll(s, entry(id(1), 1), entry(id(1), 2), entry(id(1), 3)))
	if err := s.Update(ctx, func(tx *store.Tx) error { return tx.Forget(id(1), 1) }); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a message that stands is no tombstone: %v", err)
	}
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.Expire(id(1), 1), tx.Expire(id(1), 2), tx.Forget(id(1), 1), tx.Forget(id(1), 2))
	}))
	got := log(t, s, id(1))
	hash := sha256.Sum256(entry(id(1), 1).Body)
	if e := got[0]; !e.Tombstone || !e.Expired || !bytes.Equal(e.Body, hash[:]) || e.Dedup != nil || !e.Account.IsZero() || e.Device != (store.Entry{}).Device {
		t.Errorf("forgotten: %+v", e)
	}
	if len(got) != 3 || got[2].Tombstone || got[2].Account != account(1) {
		t.Errorf("the rest: %+v", got[2:])
	}
	must(t, s.View(ctx, func(tx *store.Tx) error {
		if _, err := tx.EntryByDedup(id(1), entry(id(1), 1).Dedup); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a forgotten key is found: %v", err)
		}
		return nil
	}))
}

func misplaced(t *testing.T, open Open) {
	s := open(t)
	must(t, appendAll(s, entry(id(1), 1), entry(id(1), 2), entry(id(1), 3), entry(id(1), 4)))
	must(t, s.Update(ctx, func(tx *store.Tx) error {
		return errors.Join(tx.Tombstone(id(1), 1), tx.Tombstone(id(1), 2),
			tx.SetDeadline(deadline(1, 5, store.StepForget)), tx.SetDeadline(deadline(2, 5, store.StepTombstone)), // 2: a tombstone already
			tx.SetDeadline(deadline(3, 5, store.StepTombstone)), tx.SetDeadline(deadline(4, 5, store.StepForget)), // 4: no tombstone
			tx.SetDeadline(deadline(9, 5, store.StepTombstone))) // 9: no entry
	}))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		wrong, err := tx.MisplacedDeadlines(10)
		if len(wrong) != 3 || wrong[0].Seq != 2 || wrong[1].Seq != 4 || wrong[2].Seq != 9 {
			t.Errorf("misplaced: %+v", wrong)
		}
		return err
	}))
}
