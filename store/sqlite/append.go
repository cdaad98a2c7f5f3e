package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"strings"

	"letterlock/store"
)

// rowsPerInsert is how many entries one statement writes. More are no faster; one by one a batch takes a third longer.
const rowsPerInsert = 16

// appender holds the statements of the hot path on the writer's connection. It goes below database/sql, which converts and checks
// every one of a batch's ten thousand values.
type appender struct {
	begin, commit, rollback driver.Stmt
	insert                  [2]driver.Stmt // of rowsPerInsert rows, of one
	args                    []driver.NamedValue
}

// AppendEntries writes the batch by statements of many rows.
func (e *engine) AppendEntries(ctx context.Context, entries []store.Entry) error {
	conn, err := e.writer.Conn(ctx) // waits for its turn: there is one
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Raw(func(c any) error { return c.(*writerConn).append(ctx, entries) })
}

// writerConn is the writer's connection with the statements of the hot path. They end with it: statements that outlive their
// connection keep SQLite's log beside the database, and ending them later is a crash.
type writerConn struct {
	Conn
	hot *appender // nil: not yet prepared
}

func (c *writerConn) append(ctx context.Context, entries []store.Entry) (err error) {
	if c.hot == nil {
		if c.hot, err = prepare(ctx, c); err != nil {
			return err
		}
	}
	return c.hot.append(entries)
}

// Close ends the statements and the connection. database/sql calls it once, when nobody uses the connection.
func (c *writerConn) Close() error {
	if c.hot != nil {
		c.hot.close()
		c.hot = nil
	}
	return c.Conn.Close()
}

func prepare(ctx context.Context, c Conn) (_ *appender, err error) {
	a := &appender{args: make([]driver.NamedValue, rowsPerInsert*entryValues)}
	for i := range a.args {
		a.args[i].Ordinal = i + 1
	}
	for _, s := range []struct {
		to  *driver.Stmt
		sql string
	}{
		{&a.begin, "BEGIN IMMEDIATE"}, {&a.commit, "COMMIT"}, {&a.rollback, "ROLLBACK"},
		{&a.insert[0], insertEntries(rowsPerInsert)}, {&a.insert[1], insertEntries(1)},
	} {
		if *s.to, err = c.PrepareContext(ctx, s.sql); err != nil {
			a.close()
			return nil, err
		}
	}
	return a, nil
}

func (a *appender) close() {
	for _, s := range []driver.Stmt{a.begin, a.commit, a.rollback, a.insert[0], a.insert[1]} {
		if s != nil {
			s.Close()
		}
	}
}

// append is the transaction. It takes no context: what has begun is carried through.
func (a *appender) append(entries []store.Entry) error {
	if err := run(a.begin, nil); err != nil {
		return err
	}
	err := a.insertAll(entries)
	if err == nil {
		err = run(a.commit, nil)
	}
	if err != nil {
		// SQLite has rolled some failures back by itself; then there is no transaction, and this says so.
		if undone := run(a.rollback, nil); undone != nil && !strings.Contains(undone.Error(), "no transaction is active") {
			return errors.Join(driver.ErrBadConn, err, undone) // the connection is given up, and with it the transaction
		}
	}
	return err
}

func (a *appender) insertAll(entries []store.Entry) error {
	defer a.forget()
	for len(entries) > 0 {
		n, insert := rowsPerInsert, a.insert[0]
		if len(entries) < n {
			n, insert = 1, a.insert[1]
		}
		for i := range n {
			a.set(i, &entries[i])
		}
		if err := run(insert, a.args[:n*entryValues]); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

// entryValues is how many values an entry has in the statement.
const entryValues = 11

// set fills row i of the next statement.
func (a *appender) set(i int, e *store.Entry) {
	for j, v := range store.EntryValues(e) {
		a.args[i*entryValues+j].Value = v
	}
}

// forget lets go of what the arguments hold.
func (a *appender) forget() {
	for i := range a.args {
		a.args[i].Value = nil
	}
}

// insertEntries has anonymous parameters: SQLite looks names up one by one, which for the last of 176 means passing the 175 before it.
// OR ROLLBACK, since a batch stands or falls whole: to undo one statement alone SQLite would keep a journal of it.
func insertEntries(rows int) string {
	row := "(?" + strings.Repeat(", ?", entryValues-1) + ")"
	return "INSERT OR ROLLBACK INTO entries (" + store.EntryColumns + ") VALUES " + row + strings.Repeat(", "+row, rows-1)
}

func run(s driver.Stmt, args []driver.NamedValue) error {
	_, err := s.(driver.StmtExecContext).ExecContext(context.Background(), args)
	return err
}
