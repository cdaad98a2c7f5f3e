package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"letterlock/chat"
	"letterlock/store"
)

// One server at a time writes to a database, since it keeps in memory where each log ends. Two things hold that, without a clock and
// without a watcher:
//
//   - every connection of a server holds one advisory lock of its session, shared, and a server that starts must get it exclusively
//     first: it is refused for as long as any connection of another server lives, with whatever transaction runs on it;
//   - a server that starts puts its name into the row 'server' of ledger_leases, and every connection looks, once it holds the lock,
//     whether its server's name still stands there. So a server that lost all its connections, as when PostgreSQL restarts, goes on
//     by itself; but if another one started in between it never writes again.

// serverLock is the advisory lock's key: "letter".
const serverLock = 0x6c6574746572

// OpenAlone opens a database for a server, or for who must not work beside one.
func OpenAlone(ctx context.Context, address string) (*store.Store, error) {
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	first, err := pgx.ConnectConfig(ctx, config.ConnConfig)
	if err != nil {
		return nil, unreachable(config.ConnConfig, err)
	}
	defer first.Close(context.WithoutCancel(ctx)) // and with it its lock: by then other connections hold it
	if err := claim(ctx, first); err != nil {
		return nil, err
	}
	if err := complete(ctx, first); err != nil {
		return nil, err
	}
	migrated, err := Open(ctx, address)
	if err != nil {
		return nil, err
	}
	if err := migrated.Close(); err != nil {
		return nil, err
	}
	e := &engine{name: make([]byte, 16)}
	rand.Read(e.name)
	if err := e.take(ctx, first); err != nil {
		return nil, err
	}
	if err := e.connect(ctx, config); err != nil {
		return nil, err
	}
	return e.store(ctx)
}

// patience is how long a new server waits for the connections of the one before, which PostgreSQL ends a moment after it.
const patience = 3 * time.Second

// claim gets the lock exclusively. It asks again rather than wait in the queue, where it would hold up the server that has it.
func claim(ctx context.Context, c *pgx.Conn) error {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var free bool
		if err := c.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(serverLock)).Scan(&free); err != nil || free {
			return err
		}
		if time.Since(start) > patience {
			return chat.Errorf(chat.Unavailable, "another letterlock works on this database: stop it first, or choose another --database")
		}
	}
}

// take puts the server's name into the row and lets its connections share the lock.
func (e *engine) take(ctx context.Context, c *pgx.Conn) error {
	var err error
	for range 5 {
		if _, err = c.Exec(ctx, `INSERT INTO ledger_leases (origin, owner, token, until) VALUES ('server', $1, 1, 0)
			ON CONFLICT (origin) DO UPDATE SET owner = excluded.owner, token = ledger_leases.token + 1`, e.name); err == nil || !e.Retryable(err) {
			break
		}
	}
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, `SELECT pg_advisory_lock_shared($1), pg_advisory_unlock($1)`, int64(serverLock))
	return err
}

// belongs takes the lock for a new connection and refuses the connection if the database is another server's.
func (e *engine) belongs(ctx context.Context, c *pgx.Conn) error {
	if _, err := c.Exec(ctx, `SELECT pg_advisory_lock_shared($1)`, int64(serverLock)); err != nil {
		return err
	}
	var owner []byte
	err := c.QueryRow(ctx, `SELECT owner FROM ledger_leases WHERE origin = 'server'`).Scan(&owner)
	if err == nil && !bytes.Equal(owner, e.name) || errors.Is(err, pgx.ErrNoRows) {
		return chat.Errorf(chat.Unavailable, "another letterlock has taken this database over: this one writes no more, stop it")
	}
	return err
}
