package ledger

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// faults is a database engine that fails at a chosen step: a statement that is not carried out, a commit that fails, or a commit
// that is carried out and reported as failed.
type faults struct {
	db *sql.DB

	mu    sync.Mutex
	left  int // steps until the fault; negative: none
	saved bool
	hit   bool
}

var errFault = errors.New("fault")

func (f *faults) arm(steps int, saved bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left, f.saved, f.hit = steps, saved, false
}

// disarm reports whether the fault came.
func (f *faults) disarm() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.left = -1
	return f.hit
}

// strike counts a step down and reports whether it fails.
func (f *faults) strike() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left < 0 {
		return false
	}
	f.left--
	if f.left < 0 {
		f.hit = true
		return true
	}
	return false
}

func (f *faults) Writer() *sql.DB          { return f.db }
func (f *faults) Reader() *sql.DB          { return f.db }
func (f *faults) Dialect() goose.Dialect   { return goose.DialectSQLite3 }
func (f *faults) Retryable(err error) bool { return false }
func (f *faults) Close() error             { return f.db.Close() }
func (f *faults) Duplicate(err error) bool { return false }
func (f *faults) DiskError(error) error    { return nil }
func (f *faults) AppendEntries(context.Context, []store.Entry) error {
	return errors.New("the ledger appends no entries")
}

type connector struct {
	f    *faults
	path string
}

func (c connector) Driver() driver.Driver { return &sqlite.Driver{} }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(fmt.Sprintf("file:%s?_txlock=immediate&_pragma=journal_mode(WAL)", c.path))
	return faultyConn{conn, c.f}, err
}

type faultyConn struct {
	driver.Conn
	f *faults
}

func (c faultyConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	if c.f.strike() {
		return nil, errFault
	}
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, q, args)
}

func (c faultyConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	if c.f.strike() {
		return nil, errFault
	}
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, q, args)
}

// BeginTx opens every transaction alike: the driver knows no read-only ones.
func (c faultyConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if c.f.strike() {
		return nil, errFault
	}
	tx, err := c.Conn.(driver.ConnBeginTx).BeginTx(ctx, driver.TxOptions{})
	return faultyTx{tx, c.f}, err
}

type faultyTx struct {
	driver.Tx
	f *faults
}

func (t faultyTx) Commit() error {
	if !t.f.strike() {
		return t.Tx.Commit()
	}
	if t.f.saved {
		return errors.Join(errFault, t.Tx.Commit())
	}
	return errors.Join(errFault, t.Tx.Rollback())
}

// TestEveryStepMayFail lets each step of recording and of appending fail in turn, once not carried out and once carried out and
// reported as failed, restarts, and goes on: nothing is lost, doubled or half-written.
func TestEveryStepMayFail(t *testing.T) {
	for _, saved := range []bool{false, true} {
		t.Run(fmt.Sprintf("saved=%t", saved), func(t *testing.T) {
			f := &faults{left: -1}
			path := filepath.Join(t.TempDir(), "l.db")
			f.db = sql.OpenDB(connector{f, path})
			f.db.SetMaxOpenConns(1)
			s, err := store.Open(ctx, f)
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

// pause lets fn run without faults.
func (f *faults) pause(fn func()) {
	f.mu.Lock()
	left := f.left
	f.left = -1
	f.mu.Unlock()
	fn()
	f.mu.Lock()
	f.left = left
	f.mu.Unlock()
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
		if !errors.Is(err, errFault) {
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
	if report.Waiting != 0 || len(heads) != 1 || report.Records != int64(heads[0].Next) || report.Entries != report.Records+1 {
		w.t.Errorf("report %+v, heads %+v", report, heads)
	}
}
