// Package store is the one durable truth of a letterlock server: accounts, conversations, grants, the ledger and its outbox.
//
// The contract, which every backend keeps and package storetest examines (the whole of it: spec/store.md):
//
//   - Update runs its function in one serialisable write transaction. When Update returns nil, everything the function did is
//     written and synced; when it returns an error, nothing is. The function may run more than once (a busy or serialisation
//     failure is retried, at most maxTries times), so it must have no effect but through its Tx.
//   - An error of the commit itself leaves open whether it was saved. It is never tried again here: the caller reads what is there.
//   - View runs its function on one consistent snapshot. Views never wait for the writer.
//   - AppendEntries (batch.go) is the hot call: many messages of many conversations, one transaction, one sync. AppendBatch is the same
//     for entries with more beside them.
//   - Order is promised within a conversation only: its sequence has no gaps and never goes back. Who appends gives the numbers.
//   - A dedup key stands once in a conversation. A tombstone keeps everything but the body. Times are the caller's: there is no clock here.
//
// The SQL stands here once for all engines (SQLite in store/sqlite, PostgreSQL in store/postgres): BIGINT, BYTEA and TEXT, ids made by the
// program, times in milliseconds since 1970. Every key begins with its shard key. An engine brings a connection, the
// classification of its errors, and the batch append where its own form is faster.
//
// It stores bytes that others have checked; it knows no keys, verifies no signatures and decides no permission.
package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"letterlock/chat"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Engine is what differs between databases.
type Engine interface {
	// Writer is for write transactions. On SQLite it holds a single connection.
	Writer() *sql.DB
	// Reader is for snapshots; its connections are bounded.
	Reader() *sql.DB
	// Migrations makes the migration tool ready to bring the schema up to date from files. It must be safe while other processes do the same.
	Migrations(files fs.FS) (*goose.Provider, error)
	// Retryable reports whether a transaction that failed with err may succeed when run again.
	Retryable(err error) bool
	// Duplicate reports whether err is a primary or unique key that was there already.
	Duplicate(err error) bool
	// Away reports whether err means that the database cannot be reached now, or that the connection to it broke.
	Away(err error) bool
	// DiskError names what the disk did to a write that failed with err: ErrDiskFull, ErrReadOnly, ErrDiskFailed, or nil.
	DiskError(err error) error
	// AppendEntries writes entries in one transaction of its own, in the engine's fastest form: all of them durable when it returns
	// nil. After an error nothing is there, unless the error came from the commit itself, which may have been saved.
	AppendEntries(ctx context.Context, entries []Entry) error
	// Close releases everything; what was acknowledged stays.
	Close() error
}

// Store is an open database.
type Store struct {
	engine  Engine
	inserts [len(rowsPerInsert)]*sql.Stmt // of the hot path
	disk    atomic.Pointer[error]         // what the last write met; nil: nothing
	onDisk  func(error)
}

// ErrNotFound means that a row that was asked for by its key does not exist.
var ErrNotFound = errors.New("store: not found")

// ErrExists means that a row with that key is there already.
var ErrExists = errors.New("store: exists")

const maxTries = 12

// Open brings the schema up to date and returns the store.
func Open(ctx context.Context, e Engine) (*Store, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := e.Migrations(files)
	if err != nil {
		return nil, fmt.Errorf("store: migrations: %w", err)
	}
	if err := refuseNewer(ctx, p); err != nil {
		return nil, err
	}
	s := &Store{engine: e}
	if _, err := p.Up(ctx); err != nil {
		return nil, s.written(fmt.Errorf("store: migrate: %w", err))
	}
	if err := s.prepareBatch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// refuseNewer stops before a database that a newer program has changed: what stands in it may mean something else by now.
func refuseNewer(ctx context.Context, p *goose.Provider) error {
	there, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("store: schema version: %w", err)
	}
	known := p.ListSources()
	if newest := known[len(known)-1].Version; there > newest {
		return chat.Errorf(chat.Incompatible, "this database was made by a newer letterlock (schema %d, this one knows %d): run that version or a newer one, or restore the backup from before the upgrade", there, newest)
	}
	return nil
}

// Frozen is the store over a database that nobody writes, with the schema that it has: for looking alone, View and Close.
func Frozen(e Engine) *Store { return &Store{engine: e} }

// Close closes the engine.
func (s *Store) Close() error { return s.engine.Close() }

// Tx is one transaction. Its methods stand in one file for each noun.
type Tx struct {
	ctx   context.Context
	store *Store
	tx    *sql.Tx
}

// Update runs fn in one write transaction; see the contract above.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	return s.retry(ctx, func() error { return s.once(ctx, s.engine.Writer(), sql.LevelSerializable, fn) })
}

// retry runs a transaction again while it fails for no fault of its own.
func (s *Store) retry(ctx context.Context, transaction func() error) error {
	for try := 1; ; try++ {
		err := transaction()
		if err == nil || !s.engine.Retryable(err) || try == maxTries {
			return s.reached(s.written(err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try*try) * time.Millisecond):
		}
	}
}

// View runs fn on one snapshot.
func (s *Store) View(ctx context.Context, fn func(*Tx) error) error {
	return s.reached(s.once(ctx, s.engine.Reader(), sql.LevelSnapshot, fn))
}

func (s *Store) once(ctx context.Context, db *sql.DB, level sql.IsolationLevel, fn func(*Tx) error) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level, ReadOnly: level == sql.LevelSnapshot})
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit this does nothing
	if err := fn(&Tx{ctx: ctx, store: s, tx: tx}); err != nil {
		return err
	}
	return tx.Commit()
}

// exec runs a statement and returns how many rows it changed.
func (tx *Tx) exec(query string, args ...any) (int64, error) {
	r, err := tx.tx.ExecContext(tx.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// insert runs an INSERT ... ON CONFLICT DO NOTHING and turns "nothing inserted" into ErrExists.
func (tx *Tx) insert(query string, args ...any) error {
	n, err := tx.exec(query, args...)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// change runs an UPDATE or DELETE of a row that must be there.
func (tx *Tx) change(query string, args ...any) error {
	n, err := tx.exec(query, args...)
	if err == nil && n == 0 {
		return ErrNotFound
	}
	return err
}

// one reads a single row into dst; no row is ErrNotFound.
func (tx *Tx) one(dst []any, query string, args ...any) error {
	err := tx.tx.QueryRowContext(tx.ctx, query, args...).Scan(dst...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNotFound
	}
	return err
}

// list reads rows one by one; scan is called with the row's Scan.
func (tx *Tx) list(scan func(func(...any) error) error, query string, args ...any) error {
	rows, err := tx.tx.QueryContext(tx.ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
