package durability

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"letterlock/bench"
	"letterlock/demo"
	"letterlock/server"
	"letterlock/store/storetest"
)

// migrate runs the command to its end.
func migrate(ctx context.Context, dir, url string) (r server.MigrateReport, err error) {
	cmd := exec.CommandContext(ctx, binary, "migrate", "--data", dir, "--json")
	cmd.Env = append(os.Environ(), "LETTERLOCK_DATABASE="+url)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return r, fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(out, &r)
}

// TestMigrateTheStory plays the whole story on a file, moves it, and lets everybody go on: conversations, grants, posts, histories
// and proofs are all there, and grow.
func TestMigrateTheStory(t *testing.T) {
	ctx, url := t.Context(), storetest.Postgres(t)
	t.Setenv("LETTERLOCK_DATABASE", "")
	before, err := demo.NewStage(binary, t.TempDir())
	must(t, err)
	err = demo.Play(ctx, before, t.Output())
	must(t, errors.Join(err, before.Close()))
	r, err := migrate(ctx, before.Home("server"), url)
	must(t, err)
	rows := make(map[string]int64)
	for _, table := range r.Tables {
		rows[table.Name] = table.Rows
	}
	for _, table := range []string{"accounts", "friends", "entries", "grants", "posts", "access_opens", "links", "reports", "ledger_records", "ledger_tiles"} {
		if rows[table] == 0 {
			t.Errorf("the story left nothing in %s", table)
		}
	}
	if r.LedgerSize < 10 || r.Check.Ledger.Entries != r.LedgerSize || r.Check.Conversations < 2 {
		t.Errorf("got %+v", r)
	}
	s, err := demo.NewStage(binary, before.Dir)
	must(t, err)
	s.Port, s.AgentPort = before.Port, before.AgentPort
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.ResumeWatched(ctx, before))
	if _, err := s.StartServer(ctx); err == nil || !strings.Contains(err.Error(), "start it with --database") {
		t.Fatalf("a server on the old database: %v", err)
	}
	_, err = s.StartServer(ctx, "--database", url)
	must(t, err)
	goOn(t, s)
}

// goOn lets people and partner of the story do more of what they did.
func goOn(t *testing.T, s *demo.Stage) {
	ctx := t.Context()
	run := func(args ...string) string {
		t.Helper()
		out, err := s.Run(ctx, args...)
		must(t, err)
		return strings.TrimSpace(out)
	}
	alice, bob := s.Home("alice"), s.Home("bob")
	run("client", "--home", alice, "send", "bob", "Still here after the move?")
	if read := run("client", "--home", bob, "read", "alice"); !strings.Contains(read, "Still here after the move?") {
		t.Errorf("Bob reads %s", read)
	}
	home := s.Home("flimmer")
	_, err := s.StartAgent(ctx, "flimmer-again", home, s.AgentPort)
	must(t, err)
	consent := run("agent", "--home", home, "authorize", "--pick", "--actions", "send,delete")
	run("client", "--home", alice, "authorize", consent, "--friend", "bob", "--actions", "send", "--yes")
	var grants []struct{ Grant string }
	must(t, s.Client(ctx, "alice", &grants, "grants"))
	if len(grants) != 1 {
		t.Fatalf("grants that live: %+v", grants)
	}
	run("agent", "--home", home, "send", grants[0].Grant, "--card", "film", "--title", "Sunrise", "--url", "https://flimmer.example/film#sunrise")
	if read := run("client", "--home", bob, "read", "alice/flimmer"); !strings.Contains(read, "Sunrise") {
		t.Errorf("Bob reads %s", read)
	}
	var history []struct {
		Proven bool `json:"proven"`
	}
	must(t, s.Client(ctx, "alice", &history, "history", "flimmer"))
	for _, h := range history {
		if !h.Proven {
			t.Errorf("a record is not in the ledger: %+v", history)
			break
		}
	}
	file := filepath.Join(s.Dir, "after.json")
	run("client", "--home", alice, "proof", "flimmer", "--out", file)
	if said := run("verify", file); !strings.Contains(said, "For alice, Flimmer put 2 posts through the slot and took back 1 post.") {
		t.Errorf("verify says %s", said)
	}
}

// TestMigrateKilled kills the move with SIGKILL again and again, at random moments and while rows arrive, until one gets to the end. The copy
// must be what an undisturbed move makes, and hold every message that was ever acknowledged at its place.
func TestMigrateKilled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	t.Setenv("LETTERLOCK_DATABASE", "")
	dir := filepath.Join(t.TempDir(), "data")
	address, err := bench.FreeAddress()
	must(t, err)
	start := func(args ...string) *bench.Process {
		p, err := bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: dir, Address: address, Args: args})
		must(t, err)
		return p
	}
	p := start()
	defer func() { p.Kill() }()
	senders := fill(ctx, t, p.URL, 12000)
	must(t, p.Stop())
	twin := filepath.Join(t.TempDir(), "twin")
	must(t, exec.CommandContext(ctx, "cp", "-a", dir, twin).Run())
	want, err := migrate(ctx, twin, storetest.Postgres(t))
	must(t, err)

	url := storetest.Postgres(t)
	got, kills, halfway := tormentMove(ctx, t, dir, url)
	t.Logf("%d kills, %d of them while messages were copied", kills, halfway)
	if halfway == 0 {
		t.Errorf("none of %d kills came while messages were copied: that is no torment", kills)
	}
	if !got.Already && (!reflect.DeepEqual(got.Tables, want.Tables) || got.LedgerRoot != want.LedgerRoot || got.Check.Entries != want.Check.Entries) {
		t.Errorf("the tormented copy is\n%+v\nan undisturbed one\n%+v", got, want)
	}
	again, err := migrate(ctx, dir, url)
	if err != nil || !again.Already {
		t.Errorf("a move after the last: %+v, %v", again, err)
	}
	p = start("--database", url)
	for _, s := range senders {
		s.verify(ctx)
	}
	must(t, p.Stop())
}

// fill lets pairs send so many messages.
func fill(ctx context.Context, t *testing.T, url string, messages int) (senders []*sender) {
	people, err := bench.NewPairs(ctx, bench.At(url), pairs, nil)
	must(t, err)
	for _, p := range people {
		senders = append(senders, newSender(t, p))
	}
	for sent := 0; sent < messages; {
		load, stop := context.WithTimeout(ctx, time.Second)
		var all sync.WaitGroup
		for _, s := range senders {
			all.Go(func() { s.send(load) })
		}
		all.Wait()
		stop()
		sent = 0
		for _, s := range senders {
			s.sendOpenAgain(ctx)
			sent += len(s.log)
		}
	}
	return senders
}

// tormentMove kills moves, first while messages arrive, then at any moment, until one gets to the end, which the last may. What that one
// says is that it was done already if the one before was killed when all was done but the saying.
func tormentMove(ctx context.Context, t *testing.T, dir, url string) (r server.MigrateReport, kills, halfway int) {
	c, err := pgx.Connect(ctx, url)
	must(t, err)
	defer c.Close(ctx)
	arrived := func() (rows int) {
		c.QueryRow(ctx, `SELECT count(*) FROM entries`).Scan(&rows) // the table may not be there yet
		return rows
	}
	const rounds, arriving = 10, 4
	for round := range rounds {
		before, ended := arrived(), make(chan error, 1)
		running, kill := context.WithCancel(ctx)
		go func() {
			var err error
			r, err = migrate(running, dir, url)
			ended <- err
		}()
		if round >= arriving {
			time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond) // the random moment; nothing is asserted about time
		}
		for round < arriving && arrived() <= before && len(ended) == 0 {
			time.Sleep(time.Millisecond)
		}
		kill()
		err := <-ended
		if err == nil { // it was done before
			return r, kills, halfway
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) && exit.ExitCode() >= 0 {
			t.Fatalf("round %d ended by itself: %v", round, err)
		}
		kills++
		if arrived() > before {
			halfway++
		}
	}
	r, err = migrate(ctx, dir, url)
	must(t, err)
	return r, kills, halfway
}
