package server

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/chat"
	"letterlock/store/move"
	"letterlock/store/postgres"
	"letterlock/store/storetest"
)

// stopped is the data folder of a server that has served a conversation of two people, on its own file.
func stopped(t *testing.T) Config {
	t.Helper()
	c := config(t)
	c.Database = ""
	var err error
	c.Listen, err = bench.FreeAddress() // the keys belong to one
	must(t, err)
	served(t, c)
	return c
}

// served lets two people begin a conversation on a server.
func served(t *testing.T, c Config) {
	t.Helper()
	s, stop := running(t, c)
	pair, err := bench.NewPair(t.Context(), bench.At(s.URL()))
	must(t, err)
	for i := range 5 {
		_, err = pair.A.SendMessage(t.Context(), pair.Conversation, api.Message{Message: pair.Message(100, 0), DedupKey: append(make([]byte, 15), byte(i))})
		must(t, err)
	}
	must(t, stop())
}

func migrate(t *testing.T, c Config, url string) (MigrateReport, error) {
	t.Helper()
	return Migrate(t.Context(), c.DataDir, url, func(move.Progress) {})
}

// inFile changes the folder's database behind everybody's back.
func inFile(t *testing.T, c Config, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", databaseFile(c.DataDir))
	must(t, err)
	defer db.Close()
	_, err = db.Exec(statement)
	must(t, err)
}

// TestMigrate: the folder's database is refused from the move on, the new one serves; a second move has nothing to do.
func TestMigrate(t *testing.T) {
	c, url := stopped(t), storetest.Postgres(t)
	r, err := migrate(t, c, url)
	must(t, err)
	if r.Already || len(r.Tables) < 25 || r.Check.Entries != 6 || r.LedgerSize == 0 || strings.Contains(r.Database, ":letter") {
		t.Errorf("got %+v", r)
	}
	if _, err := New(t.Context(), c); !chat.Is(err, chat.Invalid) || !strings.Contains(err.Error(), "was moved to "+r.Database) {
		t.Errorf("a server on the old database: %v", err)
	}
	secret := strings.Split(strings.Split(url, "@")[0], ":")[2]
	mark, err := os.ReadFile(filepath.Join(c.DataDir, "moved"))
	must(t, err)
	if strings.Contains(string(mark), secret) || strings.Contains(r.Database, secret) {
		t.Error("the password was written down")
	}
	c.Database = url
	served(t, c)
	again, err := migrate(t, c, url)
	must(t, err)
	if !again.Already {
		t.Errorf("a second move: %+v", again)
	}
	if _, err := migrate(t, c, storetest.Postgres(t)); !chat.Is(err, chat.Exists) {
		t.Errorf("a move to somewhere else: %v", err)
	}
	report, err := Check(t.Context(), c.DataDir, CheckOptions{Database: url})
	must(t, err)
	if len(report.Problems) != 0 || report.Conversations != 2 {
		t.Errorf("check: %+v", report)
	}

	// It never served, let us say: back to the file.
	must(t, os.Remove(filepath.Join(c.DataDir, "moved")))
	c.Database = ""
	served(t, c)
}

// TestMigrateRefusesDamage: what does not check clean is not moved, however well it was copied.
func TestMigrateRefusesDamage(t *testing.T) {
	for what, damage := range map[string]string{
		"a gap":           `DELETE FROM entries WHERE seq = 3`,
		"a ledger's leaf": `UPDATE ledger_leaves SET leaf = CAST(leaf || x'00' AS BLOB) WHERE idx = 0`,
		"a ledger's root": `UPDATE ledger_state SET root = zeroblob(32)`,
		"no ledger":       `DELETE FROM ledger_state`,
	} {
		c, url := stopped(t), storetest.Postgres(t)
		inFile(t, c, damage)
		if _, err := migrate(t, c, url); !chat.Is(err, chat.Invalid) || !strings.Contains(err.Error(), "nothing was marked as moved") {
			t.Errorf("%s: %v", what, err)
		}
		c.Database = url
		if _, err := New(t.Context(), c); err == nil {
			t.Errorf("%s: a server starts on the copy", what)
		}
		c.Database = ""
		if err := refuseMoved(c.DataDir); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestMigrateRefusesRows: a database that a server has used is not overwritten.
func TestMigrateRefusesRows(t *testing.T) {
	c, other := stopped(t), config(t)
	other.Database = storetest.Postgres(t)
	served(t, other)
	if _, err := migrate(t, c, other.Database); !chat.Is(err, chat.Exists) || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v", err)
	}
	report, err := Check(t.Context(), other.DataDir, CheckOptions{Database: other.Database})
	if err != nil || report.Conversations != 1 || len(report.Problems) != 0 {
		t.Errorf("check: %+v, %v", report, err)
	}
}

// TestServedMeanwhile: a server that works on the folder after a move was begun makes what was copied old. The next move begins anew, since
// rows that were copied may have changed.
func TestServedMeanwhile(t *testing.T) {
	c, url := stopped(t), storetest.Postgres(t)
	ctx, stop := context.WithCancel(t.Context())
	_, err := Migrate(ctx, c.DataDir, url, func(p move.Progress) {
		if p.Step == "comparing" { // all is copied
			stop()
		}
	})
	if !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "the same command goes on") {
		t.Fatalf("a move that was stopped: %v", err)
	}
	served(t, c)
	inFile(t, c, `UPDATE sessions SET expires = expires + 1`) // of rows that were there before
	_, err = migrate(t, c, url)
	must(t, err)
}

// TestMarkedAndNotFinished: killed between the folder's mark and the database's, the same command ends it.
func TestMarkedAndNotFinished(t *testing.T) {
	c, url := stopped(t), storetest.Postgres(t)
	_, err := migrate(t, c, url)
	must(t, err)
	mark, err := readMark(c.DataDir, movedFile)
	must(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	must(t, err)
	_, err = conn.Exec(t.Context(), `CREATE TABLE `+postgres.Unfinished+` AS SELECT '' AS installation, '`+mark.Copy+`' AS copy`)
	must(t, err)
	must(t, conn.Close(t.Context()))
	c.Database = url
	if _, err := New(t.Context(), c); err == nil || !strings.Contains(err.Error(), "letterlock migrate again") {
		t.Fatalf("a server on it: %v", err)
	}
	_, err = migrate(t, c, url)
	must(t, err)
	served(t, c)
}

func TestMigrateSaysWhatIsWrong(t *testing.T) {
	c, url := stopped(t), storetest.Postgres(t)
	s, stop := running(t, c)
	if _, err := migrate(t, c, url); !chat.Is(err, chat.Unavailable) {
		t.Errorf("beside the server %s: %v", s.URL(), err)
	}
	must(t, stop())
	for _, bad := range []struct{ dir, url, says string }{
		{c.DataDir, "letterlock.db", "the address of a PostgreSQL"},
		{c.DataDir, "postgres://nobody@127.0.0.1:1/x", "no answer from PostgreSQL"},
		{t.TempDir(), url, "no data folder of a server"},
	} {
		if _, err := Migrate(t.Context(), bad.dir, bad.url, func(move.Progress) {}); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s to %s: %v", bad.dir, bad.url, err)
		}
	}
	must(t, os.WriteFile(filepath.Join(c.DataDir, movedFile), []byte("{}"), 0o600))
	if _, err := New(t.Context(), c); !chat.Is(err, chat.Invalid) || !strings.Contains(err.Error(), "has the installation been moved?") {
		t.Errorf("a mark that nobody understands: %v", err)
	}
}
