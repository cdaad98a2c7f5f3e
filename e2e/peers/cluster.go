package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// cluster is a private PostgreSQL with Debian's settings but for where it is: fsync and synchronous_commit are on.
type cluster struct {
	*machine
	*service
	bin, dir, port string
}

// startCluster makes a cluster with a database named after its owner, bench.
func startCluster(ctx context.Context, m *machine, name string) (*cluster, error) {
	c := &cluster{machine: m}
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		return nil, errors.New("PostgreSQL is missing: apt-get install postgresql")
	}
	c.bin = bins[len(bins)-1]
	address, port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.port = port
	if c.dir, err = m.folder(name); err != nil {
		return nil, err
	}
	data := filepath.Join(c.dir, "data")
	if _, err := do(m.command(ctx, c.dir, filepath.Join(c.bin, "initdb"), "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-sync")); err != nil {
		return nil, err
	}
	server := m.command(context.Background(), c.dir, filepath.Join(c.bin, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", c.port, "-k", "")
	// SIGINT is the fast shutdown, which does not wait for clients.
	if c.service, err = start(ctx, server, address, syscall.SIGINT); err != nil {
		return nil, err
	}
	if err := c.create(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// create waits until the cluster takes commands and makes the database.
func (c *cluster) create(ctx context.Context) (err error) {
	for limit := time.Now().Add(patient); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		if _, err = do(c.psql(ctx, "postgres", "-c", "CREATE DATABASE bench")); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (c *cluster) psql(ctx context.Context, database string, args ...string) *exec.Cmd {
	args = append([]string{"-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", c.port, "-U", "bench", "-d", database}, args...)
	return c.command(ctx, c.dir, filepath.Join(c.bin, "psql"), args...)
}

func (c *cluster) query(ctx context.Context, sql string) (string, error) {
	return do(c.psql(ctx, "bench", "-c", sql))
}

// URL is the database's address.
func (c *cluster) URL() string {
	return "postgres://bench@127.0.0.1:" + c.port + "/bench?sslmode=disable"
}

// held is how long commits are held to see what waits for them.
const held = 1500 * time.Millisecond

// hold makes every commit wait, written but unanswered, as for a standby that does not exist; release lets them all go. It has made sure
// that a commit does wait.
func (c *cluster) hold(ctx context.Context) (release func() error, err error) {
	release = func() error {
		_, err := do(c.psql(context.WithoutCancel(ctx), "postgres", "-c", "ALTER SYSTEM RESET synchronous_standby_names", "-c", "SELECT pg_reload_conf()"))
		return err
	}
	if _, err := do(c.psql(ctx, "postgres", "-c", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "-c", "SELECT pg_reload_conf()")); err != nil {
		return nil, err
	}
	time.Sleep(held / 5)
	short, cancel := context.WithTimeout(ctx, held/3)
	defer cancel()
	if _, err := do(c.psql(short, "postgres", "-c", fmt.Sprintf("CREATE TABLE held_%d()", time.Now().UnixNano()))); short.Err() == nil {
		return nil, errors.Join(fmt.Errorf("PostgreSQL did not hold a commit: %v", err), release())
	}
	return release, nil
}
