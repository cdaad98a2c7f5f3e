package durability

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"letterlock/bench"
	"letterlock/store/storetest"
)

// rounds is how often something is killed: 30 times, or what LETTERLOCK_KILL_ROUNDS says.
func rounds(t *testing.T) int {
	v := os.Getenv("LETTERLOCK_KILL_ROUNDS")
	if v == "" {
		return 30
	}
	n, err := strconv.Atoi(v)
	must(t, err)
	return n
}

// TestKill kills the server with SIGKILL at random moments while four senders keep it busy and one of them ends epochs. After each
// kill its data must check clean; after each start every sender sends again what was not answered, with the same keys. In the end
// each log must hold every acknowledged message at its acknowledged place, everything sent exactly once, and nothing that was refused.
func TestKill(t *testing.T) {
	inFolders(t, func(t *testing.T, n int) { torment(t, onFile(t), n) })
}

// TestKillPostgres does the same to the server, to PostgreSQL with every process of it, or to both at once, at random. A server whose
// PostgreSQL died says so, and takes messages again by itself when PostgreSQL is back.
func TestKillPostgres(t *testing.T) {
	c := storetest.Cluster(t)
	inFolders(t, func(t *testing.T, n int) { torment(t, onPostgres(t, c), n) })
}

// roundsOfAFolder is after how many rounds a new folder is begun: a check replays everything, so it takes longer as a folder grows.
const roundsOfAFolder = 10

func inFolders(t *testing.T, torment func(t *testing.T, n int)) {
	for done := 0; done < rounds(t); done += roundsOfAFolder {
		n := min(roundsOfAFolder, rounds(t)-done)
		t.Run(fmt.Sprintf("rounds %d to %d", done+1, done+n), func(t *testing.T) { torment(t, n) })
	}
}

// torment kills n times at one place.
func torment(t *testing.T, p *place, n int) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	p.start(ctx)
	l := newLoad(ctx, p)
	killed := make(map[string]int)
	for range n {
		load, stop := context.WithCancel(ctx)
		var all sync.WaitGroup
		all.Go(func() { l.run(load) })
		aMoment()
		what := "server"
		if p.cluster != nil {
			what = []string{"server", "database", "both"}[rand.IntN(3)]
		}
		killed[what]++
		p.kill(ctx, what, l)
		stop()
		all.Wait()
		if what != "database" {
			p.check(ctx)
			p.start(ctx)
		}
		l.settle(ctx)
		if t.Failed() {
			t.Fatalf("after killing %s; the server said:\n%s", what, p.server.Said())
		}
	}
	_, err := bench.NewPair(ctx, p.server.Target)
	must(t, err)
	l.verify(ctx, 10*n)
	must(t, p.server.Stop())
	p.check(ctx)
	t.Logf("killed: %v", killed)
}

// aMoment is how long the load runs before something is done to it: nothing is asserted about time.
func aMoment() { time.Sleep(time.Duration(20+rand.IntN(250)) * time.Millisecond) }

// kill kills. A PostgreSQL that was killed runs again when it returns.
func (p *place) kill(ctx context.Context, what string, l *load) {
	var dying sync.WaitGroup
	if what != "database" {
		dying.Go(p.server.Kill)
	}
	if what != "server" {
		dying.Go(func() {
			if err := p.cluster.Kill(); err != nil {
				p.t.Error(err)
			}
		})
	}
	dying.Wait()
	if what == "server" {
		return
	}
	if what == "database" {
		l.away(ctx, p)
	}
	must(p.t, p.cluster.Restart(ctx))
	if what == "database" {
		aMoment() // with load again
	}
}
