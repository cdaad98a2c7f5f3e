package durability

import (
	"context"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"letterlock/store/storetest"
)

// TestFrozen stops the server where it stands, again and again (SIGSTOP), while senders lose patience after a moment, connect anew and
// send again what has no answer. When it goes on it finds everything twice: once in its sockets, once from the new connections.
func TestFrozen(t *testing.T) {
	p := onFile(t)
	underLoad(t, p, func(context.Context) { freeze(t, p.freezeServer, p.thawServer) })
}

// TestFrozenPostgres does the same to the server or to PostgreSQL with all its processes.
func TestFrozenPostgres(t *testing.T) {
	p := onPostgres(t, storetest.Cluster(t))
	underLoad(t, p, func(context.Context) {
		if rand.IntN(2) == 0 {
			freeze(t, p.freezeServer, p.thawServer)
		} else {
			freeze(t, p.cluster.Freeze, p.cluster.Thaw)
		}
	})
}

func (p *place) freezeServer() error { return p.server.Signal(syscall.SIGSTOP) }
func (p *place) thawServer() error   { return p.server.Signal(syscall.SIGCONT) }

// freeze lets something stand for longer than the senders have patience.
func freeze(t *testing.T, stop, goOn func() error) {
	must(t, stop())
	time.Sleep(time.Duration(200+rand.IntN(300)) * time.Millisecond)
	must(t, goOn())
}

// TestConnectionsEnd has PostgreSQL end every connection of the server, again and again. What a connection had sent may be committed or
// not, and only the log says.
func TestConnectionsEnd(t *testing.T) {
	c := storetest.Cluster(t)
	p := onPostgres(t, c)
	ended := 0
	underLoad(t, p, func(ctx context.Context) {
		operator, err := pgx.Connect(ctx, c.URL("postgres"))
		must(t, err)
		defer operator.Close(ctx)
		var n int
		must(t, operator.QueryRow(ctx, `SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'letterlock') AS ended`).Scan(&n))
		ended += n
	})
	if ended == 0 {
		t.Error("no connection was ended")
	}
	t.Logf("%d connections ended", ended)
}

// faults is how often something happens under load.
const faults = 12

// underLoad does something to a place again and again while senders send. After each time the load runs on for a moment: no restart
// helps the server. In the end everything must be as it was answered.
func underLoad(t *testing.T, p *place, do func(ctx context.Context)) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	p.start(ctx)
	l := newLoad(ctx, p)
	for _, s := range l.senders {
		s.patience = 150 * time.Millisecond
	}
	load, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	all.Go(func() { l.run(load) })
	for range faults {
		aMoment()
		do(ctx)
	}
	aMoment()
	stop()
	all.Wait()
	l.settle(ctx)
	l.verify(ctx, 10*faults)
	must(t, p.server.Stop())
	p.check(ctx)
}
