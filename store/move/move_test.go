package move

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	_ "github.com/jackc/pgx/v5/stdlib"

	"letterlock/chat"
	"letterlock/store/postgres"
	"letterlock/store/sqlite"
	"letterlock/store/storetest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var origin = Origin{Installation: "example/letterlock", Copy: "1"}

// filled makes a database file with rows in every table of the schema, whatever tables there are.
func filled(t *testing.T, rows int) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "letterlock.db")
	s, err := sqlite.Open(t.Context(), file)
	must(t, err)
	must(t, s.Close())
	db := openFile(t, file)
	all, err := database{db, sqliteSchema, ""}.tables(t.Context())
	must(t, err)
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	for _, table := range all {
		for range rows {
			var values []any
			for i, c := range table.columns {
				values = append(values, someValue(c, i))
			}
			_, err := tx.Exec(fmt.Sprintf(`INSERT OR IGNORE INTO %s VALUES (%s)`, table.name, strings.TrimSuffix(strings.Repeat("?, ", len(values)), ", ")), values...)
			must(t, err)
		}
	}
	must(t, tx.Commit())
	return file
}

func openFile(t *testing.T, file string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// words sort otherwise in a dictionary than by their bytes.
var words = []string{"", "a", "B", "ä", "Z", "z", "_", "a b", "a-b", "ab", "A", "é", "日本", "1", "10", "2", "\U0001F600"}

func someValue(c column, i int) any {
	n := rand.Int64N(6)
	switch c.kind {
	case "BIGINT":
		return []int64{0, 1, -1, 1 << 62, -1 << 63, rand.Int64()}[n]
	case "TEXT":
		return words[rand.IntN(len(words))] + words[rand.IntN(len(words))]
	}
	switch {
	case c.name == "dedup" && n == 0:
		return nil
	case n == 0 && i > 0:
		return []byte{}
	case n == 1 && i > 2:
		return make([]byte, 3000)
	}
	b := make([]byte, 1+rand.IntN(20))
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func execute(t *testing.T, url, statement string) {
	t.Helper()
	c, err := pgx.Connect(context.Background(), url)
	must(t, err)
	defer c.Close(context.Background())
	_, err = c.Exec(context.Background(), statement)
	must(t, err)
}

// run copies and compares.
func run(t *testing.T, file, url string, o Origin) ([]Table, error) {
	t.Helper()
	m, err := Begin(t.Context(), file, url, o)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := m.Copy(t.Context(), func(Progress) {}); err != nil {
		return nil, err
	}
	return m.Compare(t.Context(), func(Progress) {})
}

// contents reads a table in no order, to be compared by other means than the package's own.
func contents(t *testing.T, driver, address, table string) (rows []string) {
	t.Helper()
	db, err := sql.Open(driver, address)
	must(t, err)
	defer db.Close()
	r, err := db.Query(`SELECT * FROM ` + table)
	must(t, err)
	defer r.Close()
	columns, err := r.Columns()
	must(t, err)
	for r.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		must(t, r.Scan(into...))
		line := ""
		for _, v := range values {
			line += fmt.Sprintf("%T %x, ", v, v)
		}
		rows = append(rows, line)
	}
	must(t, r.Err())
	slices.Sort(rows)
	return rows
}

// TestEveryTable: what the migrations make is moved, all of it, and nothing else.
func TestEveryTable(t *testing.T) {
	file, url := filled(t, 300), storetest.Postgres(t)
	got, err := run(t, file, url, origin)
	must(t, err)
	var moved []string
	for _, table := range got {
		moved = append(moved, table.Name)
		if table.Rows == 0 || len(table.SHA256) != 64 {
			t.Errorf("%+v", table)
		}
		if a, b := contents(t, "sqlite", file, table.Name), contents(t, "pgx", url, table.Name); !slices.Equal(a, b) || int64(len(a)) != table.Rows {
			t.Errorf("%s: %d rows became %d, or others", table.Name, len(a), len(b))
		}
	}
	if want := migrated(t); !slices.Equal(moved, want) {
		t.Errorf("moved %v, the migrations make %v", moved, want)
	}
}

// migrated are the tables that the migrations make, read from their text.
func migrated(t *testing.T) (tables []string) {
	files, err := fs.Glob(os.DirFS("../migrations"), "*.sql")
	must(t, err)
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join("../migrations", f))
		must(t, err)
		for _, m := range regexp.MustCompile(`CREATE TABLE (\w+)`).FindAllStringSubmatch(string(text), -1) {
			tables = append(tables, m[1])
		}
	}
	if len(tables) < 25 {
		t.Fatalf("the migrations make %d tables only", len(tables))
	}
	slices.Sort(tables)
	return tables
}

// TestNoSorting: a table of any size is read along its key.
func TestNoSorting(t *testing.T) {
	db := openFile(t, filled(t, 1))
	d := database{db, sqliteSchema, ""}
	all, err := d.tables(t.Context())
	must(t, err)
	for _, table := range all {
		columns := strings.Join(names(table.columns), ", ")
		for _, q := range []string{"SELECT " + columns + " FROM " + table.name + " ORDER BY " + d.order(table, ""),
			"SELECT " + columns + " FROM " + table.name + " ORDER BY " + d.order(table, " DESC") + " LIMIT 1"} {
			rows, err := db.Query("EXPLAIN QUERY PLAN " + q)
			must(t, err)
			for rows.Next() {
				var id, parent, unused int
				var detail string
				must(t, rows.Scan(&id, &parent, &unused, &detail))
				if strings.Contains(detail, "TEMP B-TREE") {
					t.Errorf("%s: %s", q, detail)
				}
			}
			must(t, rows.Err())
		}
	}
}

// TestInterrupted stops a copy after every few chunks, and goes on with a new one each time.
func TestInterrupted(t *testing.T) {
	file, url := filled(t, 3500), storetest.Postgres(t)
	stopped, furthest := 0, int64(0)
	for ; ; stopped++ {
		if stopped == 50 {
			t.Fatal("it never ends")
		}
		ctx, stop := context.WithCancel(t.Context())
		m, err := Begin(ctx, file, url, origin)
		must(t, err)
		chunks, first := 0, true
		err = m.Copy(ctx, func(p Progress) {
			if first && p.Done < furthest {
				t.Errorf("it had copied %d rows and begins at %d", furthest, p.Done)
			}
			first, furthest = false, p.Done
			if chunks++; chunks == 17 {
				stop()
			}
		})
		m.Close()
		stop()
		if err == nil {
			break
		}
	}
	if stopped < 3 {
		t.Fatalf("stopped %d times only", stopped)
	}
	_, err := run(t, file, url, origin)
	must(t, err)
}

// TestWideRows: a chunk ends by its bytes too.
func TestWideRows(t *testing.T) {
	file, url := filled(t, 0), storetest.Postgres(t)
	_, err := openFile(t, file).Exec(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10)
		INSERT INTO welcomes SELECT x'01', i, 1, randomblob(1500000) FROM n`)
	must(t, err)
	m, err := Begin(t.Context(), file, url, origin)
	must(t, err)
	defer m.Close()
	var chunks []int64
	must(t, m.Copy(t.Context(), func(p Progress) {
		if p.Table == "welcomes" {
			chunks = append(chunks, p.Rows)
		}
	}))
	if !slices.Equal(chunks, []int64{3, 6, 9, 10}) {
		t.Errorf("rows after each chunk: %v", chunks)
	}
	_, err = m.Compare(t.Context(), func(Progress) {})
	must(t, err)
}

// TestAChangedCopy: one bit, one row, one row more.
func TestAChangedCopy(t *testing.T) {
	file := filled(t, 150)
	for _, change := range []string{
		`UPDATE ledger_leaves SET leaf = leaf || '\x00' WHERE idx = (SELECT min(idx) FROM ledger_leaves)`,
		`UPDATE entries SET dedup = '\x' WHERE ctid = (SELECT min(ctid) FROM entries WHERE dedup IS NULL)`,
		`UPDATE report_counts SET clicks = clicks - 1 WHERE ctid = (SELECT min(ctid) FROM report_counts WHERE clicks = 1)`,
		`DELETE FROM handles WHERE handle = (SELECT max(handle) FROM handles)`,
		`INSERT INTO grant_index VALUES ('\xff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff', '')`,
	} {
		t.Run(strings.Fields(change)[1], func(t *testing.T) {
			url := storetest.Postgres(t)
			_, err := run(t, file, url, origin)
			must(t, err)
			execute(t, url, change)
			_, err = run(t, file, url, origin)
			if !chat.Is(err, chat.Mismatch) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestRefusedTargets: whatever is not the copy's own stays as it is.
func TestRefusedTargets(t *testing.T) {
	file := filled(t, 5)
	for _, c := range []struct{ what, before, says string }{
		{"another program's table", `CREATE TABLE invoices (n int)`, "table invoices"},
		{"another program's view", `CREATE VIEW overview AS SELECT 1`, "table overview"},
		{"rows of a server", `INSERT INTO ledger_leases VALUES ('server', '', 1, 0)`, "ledger_leases has rows"},
		{"an unfinished copy of another installation", `CREATE TABLE letterlock_move AS SELECT 'other/letterlock' AS installation, '1' AS copy`, "another installation"},
	} {
		url := storetest.Postgres(t)
		s, err := postgres.Open(t.Context(), url)
		must(t, err)
		must(t, s.Close())
		execute(t, url, c.before)
		before := contents(t, "pgx", url, "pg_stat_user_tables")
		_, err = run(t, file, url, origin)
		if !chat.Is(err, chat.Exists) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.what, err)
		}
		if n := len(contents(t, "pgx", url, "entries")); n != 0 || len(before) == 0 {
			t.Errorf("%s: %d rows were written", c.what, n)
		}
		execute(t, url, `DROP TABLE IF EXISTS invoices; DROP VIEW IF EXISTS overview`)
	}
	url := storetest.Postgres(t)
	s, err := postgres.OpenAlone(t.Context(), url)
	must(t, err)
	defer s.Close()
	if _, err := run(t, file, url, origin); !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("a server works on it: %v", err)
	}
}

// TestAnotherState: a copy that was begun of what the installation held before begins anew.
func TestAnotherState(t *testing.T) {
	file, url := filled(t, 50), storetest.Postgres(t)
	_, err := run(t, file, url, origin)
	must(t, err)
	_, err = openFile(t, file).Exec(`DELETE FROM entries WHERE rowid % 2 = 0; UPDATE posts SET at = 7`)
	must(t, err)
	_, err = run(t, file, url, Origin{origin.Installation, "2"})
	must(t, err)
}

// TestNoServerMeanwhile: until everything is there no server may start on the copy, whether or not the move still runs.
func TestNoServerMeanwhile(t *testing.T) {
	file, url := filled(t, 5), storetest.Postgres(t)
	m, err := Begin(t.Context(), file, url, origin)
	must(t, err)
	if _, err := postgres.OpenAlone(t.Context(), url); !chat.Is(err, chat.Unavailable) {
		t.Errorf("beside a move: %v", err)
	}
	must(t, m.Close())
	if _, err := postgres.OpenAlone(t.Context(), url); err == nil || !strings.Contains(err.Error(), "run letterlock migrate again") {
		t.Errorf("after half a move: %v", err)
	}
	if err := postgres.Finish(t.Context(), url, "another copy"); !chat.Is(err, chat.Exists) {
		t.Errorf("finished by somebody else: %v", err)
	}
	must(t, postgres.Finish(t.Context(), url, origin.Copy))
	must(t, postgres.Finish(t.Context(), url, origin.Copy)) // as often as one likes
	s, err := postgres.OpenAlone(t.Context(), url)
	must(t, err)
	must(t, s.Close())
}

// TestDamagedValue: SQLite keeps any value in any column, PostgreSQL must not get what the column is not for.
func TestDamagedValue(t *testing.T) {
	file, url := filled(t, 5), storetest.Postgres(t)
	_, err := openFile(t, file).Exec(`UPDATE entries SET body = 'text' WHERE rowid = 1`)
	must(t, err)
	if _, err := run(t, file, url, origin); !chat.Is(err, chat.Invalid) || !strings.Contains(err.Error(), "column body") {
		t.Errorf("got %v", err)
	}
}
