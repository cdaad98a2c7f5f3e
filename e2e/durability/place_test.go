package durability

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"letterlock/bench"
	"letterlock/store/postgres/cluster"
)

// place is where a server keeps its data, and the server that runs there.
type place struct {
	t       *testing.T
	dir     string
	address string           // that the server listens on
	url     string           // of its database; empty: the file in dir
	cluster *cluster.Cluster // of that database
	server  *bench.Process
}

// onFile makes a place with SQLite.
func onFile(t *testing.T) *place {
	t.Helper()
	address, err := bench.FreeAddress()
	must(t, err)
	return &place{t: t, dir: filepath.Join(t.TempDir(), "data"), address: address}
}

// onPostgres makes a place with a new database of a cluster.
func onPostgres(t *testing.T, c *cluster.Cluster) *place {
	t.Helper()
	p := onFile(t)
	p.cluster = c
	var err error
	p.url, err = c.NewDatabase(t.Context())
	must(t, err)
	return p
}

// database are the arguments that name the database.
func (p *place) database() []string {
	if p.url == "" {
		return nil
	}
	return []string{"--database", p.url}
}

// start starts the server, behind what wrap says. It does not outlive the test.
func (p *place) start(ctx context.Context, wrap ...string) {
	p.t.Helper()
	server, err := bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: p.dir, Address: p.address, Args: p.database(), Wrap: wrap})
	must(p.t, err)
	p.server = server
	p.t.Cleanup(server.Kill)
}

// check has `letterlock check` look at everything. The server must have ended.
func (p *place) check(ctx context.Context) {
	p.t.Helper()
	args := append([]string{"check", "--data", p.dir}, p.database()...)
	if out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput(); err != nil {
		p.t.Fatalf("check: %v\n%s", err, out)
	}
}
