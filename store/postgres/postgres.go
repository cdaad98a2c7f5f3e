// Package postgres is the PostgreSQL engine of package store, for installations that outgrow one file or have a database already
// looked after. Version 15 or later; by pgx.
//
// Write transactions run under SERIALIZABLE, so that PostgreSQL aborts (40001) what would not fit any order, and the store runs it
// again. A batch of entries is one statement: one round trip, one transaction of its own, one sync. Views are READ ONLY REPEATABLE READ:
// that is one snapshot of committed transactions, taken at the first statement, and never aborted itself nor a reason to abort a
// writer. What SERIALIZABLE would add to a reader is an order among transactions that it saw half of, and nobody here decides by a view.
//
// It refuses a server with fsync off, a replica, a database that is not in UTF-8, and never prints the address with its password.
package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"letterlock/chat"
	"letterlock/store"
)

// Connections of one server. With the dedup index two that append are faster than one, and more no faster than that.
const (
	maxAppending = 4
	maxWriting   = 4
	maxReading   = 8
)

type engine struct {
	name           []byte        // of the server that is alone here; nil: anybody may be beside us
	hot            *pgxpool.Pool // of AppendEntries
	writer, reader *sql.DB
}

// IsURL reports whether an address is one of PostgreSQL, and not a file's.
func IsURL(address string) bool {
	return strings.HasPrefix(address, "postgres://") || strings.HasPrefix(address, "postgresql://")
}

// Open opens the database at postgres://user:password@host:port/name, beside whoever else uses it. Servers call OpenAlone.
func Open(ctx context.Context, address string) (*store.Store, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	e := &engine{}
	if err := e.connect(ctx, config); err != nil {
		return nil, err
	}
	return e.store(ctx)
}

// store opens the store on a connected engine.
func (e *engine) store(ctx context.Context) (*store.Store, error) {
	s, err := store.Open(ctx, e)
	if err != nil {
		e.Close()
		return nil, err
	}
	return s, nil
}

func (e *engine) connect(ctx context.Context, config *pgxpool.Config) (err error) {
	if err := inspect(ctx, config.ConnConfig); err != nil {
		return err
	}
	config.AfterConnect = e.prepare
	if e.hot, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return unreachable(config.ConnConfig, err)
	}
	if err := e.hot.Ping(ctx); err != nil {
		e.hot.Close()
		return unreachable(config.ConnConfig, err)
	}
	e.writer, e.reader = e.open(config, maxWriting), e.open(config, maxReading)
	return nil
}

// open makes the database/sql half for so many connections.
func (e *engine) open(config *pgxpool.Config, connections int) *sql.DB {
	db := stdlib.OpenDB(*config.ConnConfig.Copy(), stdlib.OptionAfterConnect(e.prepare))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// parse reads an address. Its error says nothing of what stands in it: there may be a password.
func parse(address string) (*pgxpool.Config, error) {
	u, err := url.Parse(address)
	config, parseErr := pgxpool.ParseConfig(address)
	if err != nil || parseErr != nil || !IsURL(address) || strings.Trim(u.Path, "/") == "" {
		return nil, chat.Errorf(chat.Invalid, "the database's address must look like postgres://user:password@host:5432/name, with special characters "+
			"of the password written as %%XX")
	}
	config.MaxConns, config.MinConns = maxAppending, 1
	config.MaxConnLifetime = 365 * 24 * time.Hour // one is always there, and holds the lock of alone.go
	c := config.ConnConfig
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 10 * time.Second
	}
	c.RuntimeParams["application_name"] = "letterlock"
	// A server that lost its power must not hold what is its own for two hours, which is what systems take to notice.
	c.RuntimeParams["tcp_keepalives_idle"], c.RuntimeParams["tcp_keepalives_interval"], c.RuntimeParams["tcp_keepalives_count"] = "15", "5", "3"
	return config, nil
}

// prepare makes a new connection ours: a commit is durable when it returns, whatever the database's default is. remote_apply promises
// more and stays.
func (e *engine) prepare(ctx context.Context, c *pgx.Conn) error {
	_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') <> 'remote_apply'`)
	if err == nil && e.name != nil {
		err = e.belongs(ctx, c)
	}
	if err != nil {
		c.Close(ctx) // not every caller does, and it may hold the lock
	}
	return err
}

// inspect looks at the server before anything else touches it, and refuses one that cannot keep the store's promises.
func inspect(ctx context.Context, config *pgx.ConnConfig) error {
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return unreachable(config, err)
	}
	defer c.Close(ctx)
	var version int
	var fsync, encoding string
	var replica bool
	if err := c.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('server_encoding'), pg_is_in_recovery()`).
		Scan(&version, &fsync, &encoding, &replica); err != nil {
		return unreachable(config, err)
	}
	switch {
	case version < 150000:
		return chat.Errorf(chat.Invalid, "the database's server is PostgreSQL %d: 15 or later is needed", version/10000)
	case fsync != "on":
		return chat.Errorf(chat.Invalid, "the database's server runs with fsync off: what it acknowledges may be lost. Set fsync = on in its postgresql.conf")
	case encoding != "UTF8":
		return chat.Errorf(chat.Invalid, "the database is encoded in %s: make one with ENCODING 'UTF8'", encoding)
	case replica:
		return chat.Errorf(chat.Invalid, "the database is a replica, which takes no writes: give the address of its primary")
	}
	return nil
}

// unreachable says in an operator's words why there is no connection.
func unreachable(config *pgx.ConnConfig, err error) error {
	where := config.Host + ":" + strconv.Itoa(int(config.Port))
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "28P01", "28000":
			return chat.Wrap(chat.Invalid, err, "PostgreSQL at %s lets user %q not in: check the name and the password (in the address, or in PGPASSWORD), and its pg_hba.conf", where, config.User)
		case "3D000":
			return chat.Wrap(chat.Invalid, err, "PostgreSQL at %s has no database %q: make it with createdb %s", where, config.Database, config.Database)
		case "42501":
			return chat.Wrap(chat.Invalid, err, "PostgreSQL at %s lets user %q not use database %q: make the user its owner", where, config.User, config.Database)
		}
	}
	return chat.Wrap(chat.Unavailable, err, "no answer from PostgreSQL at %s: is it running, and is the address right?", where)
}

func (e *engine) Writer() *sql.DB { return e.writer }
func (e *engine) Reader() *sql.DB { return e.reader }

// Migrations holds a lock of the session while it works: several servers may start at once.
func (e *engine) Migrations(files fs.FS) (*goose.Provider, error) {
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300), lock.WithUnlockTimeout(1, 10))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, e.writer, files, goose.WithSessionLocker(locker))
}

func (e *engine) Close() error {
	e.hot.Close()
	return errors.Join(e.reader.Close(), e.writer.Close())
}

// Retryable is true for serialization failures (40001) and deadlocks (40P01), which undo the transaction, and where nothing was
// sent yet. A connection that broke later may have carried a commit.
func (e *engine) Retryable(err error) bool {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code == "40001" || pe.Code == "40P01"
	}
	return pgconn.SafeToRetry(err)
}

// DiskError knows disk_full (53100) and read_only_sql_transaction (25006), which a standby answers.
func (e *engine) DiskError(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch pe.Code {
		case "53100":
			return store.ErrDiskFull
		case "25006":
			return store.ErrReadOnly
		}
	}
	return nil
}

// Duplicate is true for unique_violation (23505).
func (e *engine) Duplicate(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "23505"
}

// Away is true where no connection could be made, where one broke, and where PostgreSQL said that it goes or is not ready yet.
func (e *engine) Away(err error) bool {
	var pe *pgconn.PgError
	var connect *pgconn.ConnectError
	var network net.Error
	switch {
	case errors.As(err, &connect):
		return true
	case errors.As(err, &pe):
		switch pe.Code {
		case "57P01", "57P02", "57P03", "53300": // admin_shutdown, crash_shutdown, cannot_connect_now, too_many_connections
			return true
		}
		return strings.HasPrefix(pe.Code, "08") // connection exceptions
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded): // whoever asked has gone
		return false
	}
	return errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, driver.ErrBadConn)
}
