package sqlite

import (
	"context"
	"database/sql"
	"time"
)

// checkpointer carries what is in SQLite's log over into the database file, on a connection of its own, so that no writer waits for it.
//
// Left to itself it would never be done: while it copies, writers append, and only a log that is copied whole begins again from its
// start. So once the bulk is copied, what came meanwhile is copied on the writer's connection, between two transactions; the next one
// overwrites the log from its beginning. A log that is overwritten is also synced faster than one that grows.
type checkpointer struct {
	db     *sql.DB // one connection
	writer *sql.DB
	stop   context.CancelFunc
	done   chan struct{}
}

const (
	checkpointAt    = 8192                   // pages in the log that are worth a checkpoint: the longer it is, the more often a page in it is copied once for many writes
	checkpointEvery = 250 * time.Millisecond // how often the log is looked at
	checkpointIdle  = 10 * time.Second       // after so long without a write, a short log is carried over too
)

func startCheckpointer(path string, writer *sql.DB) *checkpointer {
	db := open(path, "deferred", plain)
	db.SetMaxOpenConns(1)
	ctx, stop := context.WithCancel(context.Background())
	c := &checkpointer{db: db, writer: writer, stop: stop, done: make(chan struct{})}
	go c.run(ctx)
	return c
}

func (c *checkpointer) close() error {
	c.stop()
	<-c.done
	return closeDB(c.db)
}

func (c *checkpointer) run(ctx context.Context) {
	defer close(c.done)
	tick := time.NewTicker(checkpointEvery)
	defer tick.Stop()
	seen, quiet := 0, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		pages, carried := checkpoint(ctx, c.db, "NOOP")
		if quiet += checkpointEvery; pages != seen {
			seen, quiet = pages, 0
		}
		switch {
		case pages-carried >= checkpointAt:
			checkpoint(ctx, c.db, "PASSIVE")
			checkpoint(ctx, c.writer, "PASSIVE")
		case pages > carried && quiet >= checkpointIdle:
			checkpoint(ctx, c.db, "PASSIVE")
		}
	}
}

// checkpoint says how many pages are in the log and how many of them the file has. One that fails loses nothing, since the log stays,
// and is tried again: what stands in its way, like a full disk, the next writer reports.
func checkpoint(ctx context.Context, db *sql.DB, mode string) (pages, carried int) {
	var busy int
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &carried); err != nil {
		return 0, 0
	}
	return pages, carried
}
