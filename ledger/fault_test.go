package ledger

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/memory"
)

// faults lets a chosen step of a disk fail: it is not carried out, or it is and is reported as failed.
type faults struct {
	disk *memory.Disk

	left  int // steps until the fault; negative: none
	saved bool
}

func (f *faults) arm(steps int, saved bool) {
	f.left, f.saved = steps, saved
	f.disk.Faults(f.judge)
}

func (f *faults) judge(memory.Step) memory.Fault {
	f.left--
	switch {
	case f.left != -1:
		return memory.None
	case f.saved:
		return memory.FailSaved
	default:
		return memory.Fail
	}
}

// disarm reports whether the fault came.
func (f *faults) disarm() bool {
	f.disk.Faults(nil)
	return f.left < 0
}

// pause lets fn run without faults.
func (f *faults) pause(fn func()) {
	f.disk.Faults(nil)
	fn()
	f.disk.Faults(f.judge)
}

// TestEveryStepMayFail lets each step of recording and of appending fail in turn, once not carried out and once carried out and
// reported as failed, restarts, and goes on: nothing is lost, doubled or half-written.
func TestEveryStepMayFail(t *testing.T) {
	for _, saved := range []bool{false, true} {
		t.Run(fmt.Sprintf("saved=%t", saved), func(t *testing.T) {
			disk, err := memory.NewDisk()
			if err != nil {
				t.Fatal(err)
			}
			defer disk.Close()
			f := &faults{disk: disk}
			s, err := disk.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			keys, err := NewKeys("chat.example")
			if err != nil {
				t.Fatal(err)
			}
			now := func() time.Time { return time.UnixMilli(1_800_000_000_000) }
			w := &faultyWorld{t: t, f: f, store: s, keys: keys, now: now, saved: saved}
			w.everyStep("open", func() error { _, err := Open(ctx, s, keys, now, rand.Reader); return err })
			w.ledger, err = Open(ctx, s, keys, now, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			w.writer = NewWriter(w.ledger, silent())
			w.everyStep("record", w.deed)
			w.everyStep("append", func() error {
				w.f.pause(w.something)
				_, err := w.writer.Step(ctx)
				return err
			})
			w.check()
		})
	}
}

type faultyWorld struct {
	t      *testing.T
	f      *faults
	store  *store.Store
	keys   *Keys
	now    func() time.Time
	saved  bool
	ledger *Ledger
	writer *Writer
}

// everyStep runs a deed with a fault at its first step, its second, and so on until it has no more steps.
func (w *faultyWorld) everyStep(name string, deed func() error) {
	for step := 0; ; step++ {
		w.f.arm(step, w.saved)
		err := deed()
		if !w.f.disarm() {
			if err != nil {
				w.t.Fatalf("%s: %v", name, err)
			}
			if step < 3 {
				w.t.Fatalf("%s: only %d steps", name, step)
			}
			return
		}
		if !errors.Is(err, memory.ErrFault) {
			w.t.Fatalf("%s, step %d: the fault was hidden: %v", name, step, err)
		}
		if _, err := Open(ctx, w.store, w.keys, w.now, rand.Reader); err != nil {
			w.t.Fatalf("%s, step %d: does not open again: %v", name, step, err)
		}
		if _, err := Check(ctx, w.store, w.keys); err != nil {
			w.t.Fatalf("%s, step %d: %v", name, step, err)
		}
	}
}

var faultyAccount = chat.AccountID{1}

func (w *faultyWorld) deed() error {
	return w.store.Update(ctx, func(tx *store.Tx) error {
		_, err := w.ledger.Access(tx, faultyAccount, "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}})
		return err
	})
}

// something makes sure that the outbox holds a leaf: a fault that came after the commit left it empty.
func (w *faultyWorld) something() {
	var waiting int64
	err := w.store.View(ctx, func(tx *store.Tx) (err error) {
		waiting, err = tx.LedgerOutboxSize()
		return err
	})
	if err == nil && waiting == 0 {
		err = w.deed()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// check drains what is left and compares chain, log and outbox.
func (w *faultyWorld) check() {
	for {
		n, err := w.writer.Step(ctx)
		if err != nil {
			w.t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	report, err := Check(ctx, w.store, w.keys)
	if err != nil {
		w.t.Fatal(err)
	}
	heads, err := w.ledger.Heads(ctx, faultyAccount)
	if err != nil {
		w.t.Fatal(err)
	}
	if report.Waiting != 0 || len(heads) != 1 || report.Records != int64(heads[0].Next) || report.Entries-report.Roots != report.Records+1 {
		w.t.Errorf("report %+v, heads %+v", report, heads)
	}
}
