// Package memory is the engine of package store for tests that break things: SQLite whose files lie in memory, and whose every step
// can be made to fail, to be saved and yet reported as failed, or to be the last one.
//
// It is SQLite itself, so what it promises holds here as it does on a disk; only the sync costs nothing and means nothing. No server
// uses it.
package memory

import (
	"context"
	"database/sql/driver"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"

	modernc "modernc.org/sqlite"

	"letterlock/store"
	"letterlock/store/sqlite"
)

// Step is something that a store asks of its disk.
type Step uint8

// The steps. What Commit does lasts; the others matter only if a Commit follows.
const (
	Begin Step = iota
	Statement
	Commit
)

// Fault is what becomes of a step.
type Fault uint8

// The faults. After Die and DieSaved the store answers nothing any more, as if its process had been killed; who opens the disk again finds
// what had been committed.
const (
	None      Fault = iota
	Fail            // it is not carried out
	FailSaved       // it is carried out, and reported as failed
	Die             // it is not carried out, and nothing after it
	DieSaved        // it is carried out, and nothing after it
	Busy            // it is not carried out, by SQLite's own word that another process holds the database: the store tries again
)

// ErrFault is what a step that fails says, and every one after the store's death.
var ErrFault = errors.New("memory: fault")

// Disk is where one database lies.
type Disk struct {
	dir string

	mu    sync.Mutex
	fault func(Step) Fault // nil: none
}

// NewDisk makes an empty disk, in /dev/shm where there is one.
func NewDisk() (*Disk, error) {
	where := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		where = "/dev/shm"
	}
	dir, err := os.MkdirTemp(where, "letterlock-")
	return &Disk{dir: dir}, err
}

// Close removes everything.
func (d *Disk) Close() error { return os.RemoveAll(d.dir) }

// Faults has judge decide from now on what becomes of each step; nil: none fails. It is called by one step at a time.
func (d *Disk) Faults(judge func(Step) Fault) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fault = judge
}

// Open opens the database. A store that died may still be open.
func (d *Disk) Open(ctx context.Context) (*store.Store, error) {
	l := &life{disk: d}
	return sqlite.OpenAround(ctx, filepath.Join(d.dir, "letterlock.db"), func(c sqlite.Conn) sqlite.Conn { return &conn{c, l} })
}

// busy is SQLITE_BUSY as SQLite says it: nobody else can make such an error.
var busy = sync.OnceValue(func() error {
	dir, err := os.MkdirTemp("", "letterlock-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for range 2 { // the second cannot begin
		var c driver.Conn
		if c, err = (&modernc.Driver{}).Open("file:" + filepath.Join(dir, "busy.db")); err != nil {
			return err
		}
		defer c.Close()
		if _, err = c.(driver.ExecerContext).ExecContext(context.Background(), "BEGIN IMMEDIATE", nil); err != nil {
			return err
		}
	}
	return errors.New("memory: SQLite let two write at once")
})

// life is that of an open store.
type life struct {
	disk *Disk
	over bool // guarded by disk.mu
}

func (l *life) judge(s Step) Fault {
	l.disk.mu.Lock()
	defer l.disk.mu.Unlock()
	if l.over {
		return Die
	}
	if l.disk.fault == nil {
		return None
	}
	f := l.disk.fault(s)
	l.over = f == Die || f == DieSaved
	return f
}

// step carries a step out, or not. instead is done in the place of a step that is not carried out; nil: nothing.
func (l *life) step(s Step, do, instead func() error) error {
	switch l.judge(s) {
	case None:
		return do()
	case Busy:
		err := busy()
		if instead != nil {
			err = errors.Join(err, instead())
		}
		return err
	case FailSaved, DieSaved:
		return errors.Join(ErrFault, do())
	default:
		if instead != nil {
			return errors.Join(ErrFault, instead())
		}
		return ErrFault
	}
}

// conn is a connection of SQLite with faults. Transactions are begun and ended by it or by statements; what ends one without a commit
// is let through always, for a killed process leaves none open.
type conn struct {
	sqlite.Conn
	life *life
}

// run is a statement's step, by what the statement says.
func (c *conn) run(query string, do func() error) error {
	word, rest, _ := strings.Cut(strings.ToUpper(strings.TrimSpace(query)), " ")
	switch {
	case word == "ROLLBACK" && !strings.HasPrefix(rest, "TO"):
		return do()
	case word == "BEGIN":
		return c.life.step(Begin, do, nil)
	case word == "COMMIT":
		return c.life.step(Commit, do, c.rollback)
	default:
		return c.life.step(Statement, do, nil)
	}
}

func (c *conn) rollback() error {
	_, err := c.Conn.ExecContext(context.Background(), "ROLLBACK", nil)
	return err
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (r driver.Result, err error) {
	err = c.run(query, func() (err error) {
		r, err = c.Conn.ExecContext(ctx, query, args)
		return err
	})
	return r, err
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	var rows driver.Rows
	return read(c.run(query, func() (err error) {
		rows, err = c.Conn.QueryContext(ctx, query, args)
		return err
	}), &rows)
}

// read closes rows that are reported as failed.
func read(err error, rows *driver.Rows) (driver.Rows, error) {
	if err != nil && *rows != nil {
		return nil, errors.Join(err, (*rows).Close())
	}
	return *rows, err
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	s, err := c.Conn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	return &stmt{s, c, query}, nil
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (tx driver.Tx, err error) {
	err = c.life.step(Begin, func() (err error) {
		tx, err = c.Conn.BeginTx(ctx, o)
		return err
	}, nil)
	if err != nil && tx != nil {
		return nil, errors.Join(err, tx.Rollback())
	}
	end := Commit
	if o.ReadOnly {
		end = Statement
	}
	return &transaction{tx, c, end}, err
}

type transaction struct {
	driver.Tx
	conn *conn
	end  Step // what its commit is
}

func (t *transaction) Commit() error { return t.conn.life.step(t.end, t.Tx.Commit, t.Tx.Rollback) }

type stmt struct {
	driver.Stmt
	conn  *conn
	query string
}

func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (r driver.Result, err error) {
	err = s.conn.run(s.query, func() (err error) {
		r, err = s.Stmt.(driver.StmtExecContext).ExecContext(ctx, args)
		return err
	})
	return r, err
}

func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	var rows driver.Rows
	return read(s.conn.run(s.query, func() (err error) {
		rows, err = s.Stmt.(driver.StmtQueryContext).QueryContext(ctx, args)
		return err
	}), &rows)
}
