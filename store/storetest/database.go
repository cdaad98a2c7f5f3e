package storetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

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

// private is the cluster of this process. It ends with the process.
var private = sync.OnceValues(func() (*cluster.Cluster, error) { return cluster.Start(context.Background(), "") })

// Postgres makes an empty database in a private cluster and returns its address. Where no PostgreSQL is installed the test is
// skipped, but fails where CI is set.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	c, err := private()
	if errors.Is(err, cluster.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if url, err = c.NewDatabase(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.DropDatabase(context.Background(), url); err != nil {
			t.Error(err)
		}
	})
	return url
}
