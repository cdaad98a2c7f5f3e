package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"syscall"
	"time"

	"modernc.org/sqlite"

	"letterlock/store"
)

// backupStep is how many pages are copied before the copier rests for as long as that took: 1 MiB, so that whoever else wants the disk
// waits for a few milliseconds at most.
const backupStep = 256

// Backup copies the database at path, which may be in use, into the new file to: all of it as it was at one moment. It writes nothing
// to the source and never holds its lock against the writer: it reads one snapshot. What is committed meanwhile stays in the source's
// log until the copy ends, so that the log grows by that much. progress is told of pages; nil: nobody is. The copy is synced.
func Backup(ctx context.Context, path, to string, progress func(done, total int64)) (err error) {
	if _, err := os.Stat(path); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // SQLite would let others read it
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	q := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(10000)"}}
	if standsStill(path) {
		q.Set("immutable", "1") // else SQLite wants to make files beside it
	}
	db := sql.OpenDB(connector{uri(path, q), plain})
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	// The transaction holds the snapshot. Without it the copy would begin again after each commit of the server.
	if _, err := c.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	var tables int
	if err := c.QueryRowContext(ctx, "SELECT COUNT(*) FROM sqlite_schema").Scan(&tables); err != nil {
		return err
	}
	if err := c.Raw(func(driver any) error { return copyPages(ctx, driver, to, progress) }); err != nil {
		return fmt.Errorf("store: backup: %w", err)
	}
	_, err = c.ExecContext(ctx, "ROLLBACK")
	return err
}

// standsStill says that nobody can write a database: its disk is read only, and nothing waits in a log beside it.
func standsStill(path string) bool {
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		return false
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
	}
	return errors.Is(err, syscall.EROFS)
}

func copyPages(ctx context.Context, driver any, to string, progress func(done, total int64)) (err error) {
	b, err := driver.(interface {
		NewBackup(string) (*sqlite.Backup, error)
	}).NewBackup(uri(to, nil))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Finish()) }()
	for {
		begun := time.Now()
		more, err := b.Step(backupStep)
		if err != nil {
			return err
		}
		if progress != nil {
			progress(int64(b.PageCount()-b.Remaining()), int64(b.PageCount()))
		}
		if !more {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Since(begun)):
		}
	}
}

// frozen opens a file that nobody writes. Nothing is made beside it.
func frozen(path string) *sql.DB {
	return sql.OpenDB(connector{uri(path, url.Values{"mode": {"ro"}, "immutable": {"1"}}), plain})
}

// OpenFrozen opens a copy that nobody writes, like a backup, for looking: nothing is changed, made beside it or brought up to date.
func OpenFrozen(path string) *store.Store {
	db := frozen(path)
	db.SetMaxOpenConns(max(1, runtime.NumCPU()-1))
	return store.Frozen(&engine{writer: db, reader: db})
}
