// Package sqlite is the embedded engine of package store: one file, one writer, a few readers, every transaction synced before
// it is acknowledged (WAL, synchronous=FULL). It is the default of `letterlock serve`.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"runtime"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"

	"letterlock/store"
)

type engine struct {
	writer, reader *sql.DB
	checkpointer   *checkpointer
}

// Open opens or creates the database file at path.
func Open(ctx context.Context, path string) (*store.Store, error) {
	return OpenAround(ctx, path, plain)
}

func plain(c Conn) Conn { return c }

// Conn is all that database/sql and this package ask of a connection.
type Conn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// OpenAround is Open with something around every connection, for package memory.
func OpenAround(ctx context.Context, path string, around func(Conn) Conn) (*store.Store, error) {
	writer := func(c Conn) Conn { return &writerConn{Conn: around(c)} }
	e := &engine{writer: open(path, "immediate", writer), reader: open(path, "deferred", around)}
	e.writer.SetMaxOpenConns(1)
	// Unlimited readers starve the writer.
	e.reader.SetMaxOpenConns(max(1, runtime.NumCPU()-1))
	// A commit needs its data and the file's size on the disk, not the time of the change: fdatasync does, in half the time of fsync.
	sqlite.Fdatasync(true)
	e.checkpointer = startCheckpointer(path, e.writer)
	s, err := store.Open(ctx, e)
	if err != nil {
		e.Close()
		return nil, err
	}
	return s, nil
}

func open(path, lock string, around func(Conn) Conn) *sql.DB {
	q := url.Values{"_txlock": {lock}, "_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "wal_autocheckpoint(0)", "cache_size(-16384)", "busy_timeout(10000)", "foreign_keys(ON)", "secure_delete(ON)", "temp_store(MEMORY)",
	}}
	return sql.OpenDB(connector{uri(path, q), around})
}

func uri(path string, q url.Values) string {
	return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + q.Encode()
}

// connector makes the connections of a pool.
type connector struct {
	name   string
	around func(Conn) Conn
}

func (c connector) Driver() driver.Driver { return &sqlite.Driver{} }

func (c connector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.Driver().Open(c.name)
	if err != nil {
		return nil, err
	}
	return c.around(conn.(Conn)), nil
}

func (e *engine) Writer() *sql.DB { return e.writer }
func (e *engine) Reader() *sql.DB { return e.reader }

// Migrations relies on the data folder's lock: one process at a time opens the file.
func (e *engine) Migrations(files fs.FS) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectSQLite3, e.writer, files)
}

func (e *engine) Close() error {
	var err error
	if e.checkpointer != nil { // a copy that nobody writes has none
		err = e.checkpointer.close()
	}
	return errors.Join(err, closeDB(e.reader), closeDB(e.writer))
}

// Retryable is true for SQLITE_BUSY (5) and SQLITE_LOCKED (6) and their extended codes.
func (e *engine) Retryable(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && (se.Code()&0xff == 5 || se.Code()&0xff == 6)
}

// Duplicate is true for SQLITE_CONSTRAINT_PRIMARYKEY (1555) and SQLITE_CONSTRAINT_UNIQUE (2067).
func (e *engine) Duplicate(err error) bool {
	var se *sqlite.Error
	return errors.As(err, &se) && (se.Code() == 1555 || se.Code() == 2067)
}

// Away is never true: the file is here.
func (e *engine) Away(error) bool { return false }

// Compact writes the file at path anew without the pages that nothing uses, and says how large it was and is (bytes). Nobody else may have it
// open. It needs as much free room again as the file is large at most; a crash in between leaves the file as it was.
func Compact(ctx context.Context, path string) (before, after int64, err error) {
	size := func() int64 {
		if err != nil {
			return 0
		}
		var info os.FileInfo
		if info, err = os.Stat(path); err != nil {
			return 0
		}
		return info.Size()
	}
	db := open(path, "immediate", plain)
	db.SetMaxOpenConns(1)
	for _, statement := range []string{"PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"} {
		if _, err = db.ExecContext(ctx, statement); err != nil {
			break
		}
		if before == 0 {
			before = size()
		}
	}
	err = errors.Join(err, db.Close())
	return before, size(), err
}
