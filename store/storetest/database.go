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
	"letterlock/store/postgres"
	"letterlock/store/postgres/cluster"
	"letterlock/store/sqlite"
)

// NewDatabase makes an empty database on the backend that LETTERLOCK_TEST_STORE names: sqlite (if it names none) or postgres.
// What it returns opens that database, as often as it is called.
func NewDatabase(t testing.TB) Open {
	t.Helper()
	switch name := os.Getenv("LETTERLOCK_TEST_STORE"); name {
	case "", "sqlite":
		path := filepath.Join(t.TempDir(), "letterlock.db")
		return opener(func(ctx context.Context) (*store.Store, error) { return sqlite.Open(ctx, path) })
	case "postgres":
		url := Postgres(t)
		return opener(func(ctx context.Context) (*store.Store, error) { return postgres.Open(ctx, url) })
	default:
		t.Fatalf("LETTERLOCK_TEST_STORE=%s: want sqlite or postgres", name)
		return nil
	}
}

// opener closes what is opened at the test's end; closing twice does no harm.
func opener(open func(context.Context) (*store.Store, error)) Open {
	return func(t testing.TB) *store.Store {
		t.Helper()
		s, err := open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
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

// empty deletes every row but the migrations' own. It does not wait for a test that left a transaction open.
func empty(ctx context.Context, url string) error {
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, `SELECT 'DELETE FROM ' || tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'goose_db_version'`)
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
