package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"letterlock/store/postgres/cluster"
)

func TestCluster(t *testing.T) {
	dir, err := os.MkdirTemp("", "cluster-test-")
	must(t, err)
	must(t, os.Chmod(dir, 0o755))
	defer os.RemoveAll(dir)
	c, err := cluster.Start(t.Context(), dir)
	if errors.Is(err, cluster.ErrMissing) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	must(t, err)
	defer c.Stop()
	url, err := c.NewDatabase(t.Context())
	must(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	_, err = conn.Exec(t.Context(), "CREATE TABLE t AS SELECT 1 AS n")
	must(t, err)

	// A crash, and the same folder again.
	must(t, c.Kill())
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Fatal("a killed server answers")
	}
	must(t, c.Restart(t.Context()))
	conn, err = pgx.Connect(t.Context(), url)
	must(t, err)
	var n int
	must(t, conn.QueryRow(t.Context(), "SELECT n FROM t").Scan(&n))
	if n != 1 {
		t.Errorf("got %d", n)
	}

	must(t, c.Stop())
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := pgx.Connect(t.Context(), url); err == nil {
		t.Error("a stopped server answers")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
