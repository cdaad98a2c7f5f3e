package storetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"letterlock/store"
	"letterlock/store/memory"
	"letterlock/store/postgres"
	"letterlock/store/postgres/cluster"
	"letterlock/store/sqlite"
)

// NewDatabase makes an empty database on the backend that LETTERLOCK_TEST_STORE names: sqlite, which is meant if it names none, postgres,
// memory, or unlucky (see Unlucky). What it returns opens that database, as often as it is called.
func NewDatabase(t testing.TB) Open {
	t.Helper()
	if url := Address(t); url != "" {
		return Opener(t, func(ctx context.Context) (*store.Store, error) { return postgres.Open(ctx, url) })
	}
	if os.Getenv(variable) == "memory" {
		return Opener(t, NewDisk(t).Open)
	}
	return File(t, filepath.Join(t.TempDir(), "letterlock.db"))
}

const variable = "LETTERLOCK_TEST_STORE"

// NewDisk makes a disk in memory, which goes with the test.
func NewDisk(t testing.TB) *memory.Disk {
	t.Helper()
	d, err := memory.NewDisk()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// File opens a file of SQLite.
func File(t testing.TB, path string) Open {
	return Opener(t, func(ctx context.Context) (*store.Store, error) { return sqlite.Open(ctx, path) })
}

// Address is what a server is to be told of its database: on postgres the URL of an empty one, else nothing.
func Address(t testing.TB) string {
	t.Helper()
	switch name := os.Getenv(variable); name {
	case "", "sqlite", "memory":
		return ""
	case "postgres":
		return Postgres(t)
	case "unlucky":
		return Unlucky(t)
	default:
		t.Fatalf("LETTERLOCK_TEST_STORE=%s: want sqlite, postgres, unlucky or memory", name)
		return ""
	}
}

// Opener closes at the end of t whatever it opened, after everything else that t cleans up. Closing twice does no harm.
func Opener(t testing.TB, open func(context.Context) (*store.Store, error)) Open {
	var opened []*store.Store
	t.Cleanup(func() {
		for _, s := range opened {
			s.Close()
		}
	})
	return func(t testing.TB) *store.Store {
		t.Helper()
		s, err := open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		opened = append(opened, s)
		return s
	}
}

// private is the cluster of this process, which ends with it, and the databases in it that no test uses now: making one takes half a
// second, emptying one is quick.
var private struct {
	sync.Mutex
	cluster *cluster.Cluster
	free    []string
}

// Postgres gives the test a database without rows in a private cluster, by its address; the tables may be there. Where no PostgreSQL
// is installed the test is skipped, but fails where CI is set.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	url, err := postgresDatabase(context.Background())
	if errors.Is(err, cluster.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := empty(context.Background(), url); err != nil {
			t.Errorf("emptying the database: %v", err)
			return
		}
		private.Lock()
		defer private.Unlock()
		private.free = append(private.free, url)
	})
	return url
}

// Migrated is Postgres with all tables there.
func Migrated(t testing.TB) (url string) {
	t.Helper()
	url = Postgres(t)
	s, err := postgres.Open(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return url
}

// Cluster starts a private PostgreSQL for one test, which may do with it what it likes: it is skipped or fails like Postgres.
func Cluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), "")
	if errors.Is(err, cluster.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	return c
}

func postgresDatabase(ctx context.Context) (url string, err error) {
	private.Lock()
	defer private.Unlock()
	if n := len(private.free); n > 0 {
		url, private.free = private.free[n-1], private.free[:n-1]
		return url, nil
	}
	if private.cluster == nil {
		if private.cluster, err = cluster.Start(ctx, ""); err != nil {
			return "", err
		}
	}
	return private.cluster.NewDatabase(ctx)
}

// empty deletes every row but the migrations' own, and the mark of a move. It does not wait for a test that left a transaction open.
func empty(ctx context.Context, url string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, `SELECT CASE tablename WHEN $1 THEN 'DROP TABLE ' ELSE 'DELETE FROM ' END || tablename
		FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'`, postgres.Unfinished)
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	_, err = c.Exec(ctx, strings.Join(append([]string{"SET lock_timeout = '10s'"}, statements...), "; "), pgx.QueryExecModeSimpleProtocol)
	return err
}
