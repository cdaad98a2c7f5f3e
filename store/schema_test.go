package store_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"letterlock/store/sqlite"
	"letterlock/store/storetest"
)

// shardKeys says by which column each table would be spread over several databases: what one transaction of a conversation, an account
// or a grant touches then lies on one of them. log marks tables of the public log, which is one shard as a whole: it is one tree with one
// root and one signer, so that its rows can be unique in any column of theirs without looking anywhere else.
var shardKeys = map[string]string{
	"accounts": "account", "handles": "handle", "chain_entries": "account", "sessions": "account", "key_packages": "account", "friends": "account",
	"conversations": "conversation", "entries": "conversation", "members": "conversation", "welcomes": "conversation",
	"account_conversations": "account", "mailboxes": "owner",
	"ledger_heads": "account_id", "ledger_records": "account_id", "ledger_outbox": "shard",
	"ledger_leaves": log, "ledger_tiles": log, "ledger_state": log, "ledger_leases": log,
	"ledger_published": log, "ledger_policies": log,
	"oauth_clients": "client", "oauth_requests": "request_hash", "oauth_authorizations": "grant_id", "oauth_tokens": "grant_id",
	"partners": "partner", "agreements": "partner", "grants": "account", "grant_index": "grant_id", "posts": "conversation",
	"access_periods": "conversation", "access_opens": "conversation", "friend_handles": "account",
	"deadlines": "conversation", "blocked_accounts": "account", "invites": "code_hash",
	"links": "link", "report_counts": "partner", "report_figures": "partner", "reports": "partner",
}

const log = "the log"

// migrationTable is goose's own record of what has been done. It is read at the start alone.
const migrationTable = "goose_db_version"

// key is a primary or unique key of a table.
type key struct {
	table   string
	columns []string
}

// checkKeys holds keys, as they are after all migrations, to the rule.
func checkKeys(t *testing.T, tables []string, keys []key) {
	t.Helper()
	if len(tables) < len(shardKeys) {
		t.Errorf("there are %d tables, but %d with a shard key", len(tables), len(shardKeys))
	}
	for _, table := range tables {
		if shardKeys[table] == "" {
			t.Errorf("table %s: say in shardKeys by which column it is spread", table)
		}
		if !slices.ContainsFunc(keys, func(k key) bool { return k.table == table }) {
			t.Errorf("table %s has no key", table)
		}
	}
	for _, k := range keys {
		if want := shardKeys[k.table]; want != log && want != k.columns[0] {
			t.Errorf("table %s: the key (%s) does not begin with %s", k.table, strings.Join(k.columns, ", "), want)
		}
	}
}

// texts reads rows of strings.
func texts(t *testing.T, db *sql.DB, query string, args ...any) (rows [][]string) {
	t.Helper()
	r, err := db.Query(query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	columns, _ := r.Columns()
	for r.Next() {
		row, dst := make([]string, len(columns)), make([]any, len(columns))
		for i := range row {
			dst[i] = &row[i]
		}
		if err := r.Scan(dst...); err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
	if err := r.Err(); err != nil {
		t.Fatal(err)
	}
	return rows
}

func first(rows [][]string) (column []string) {
	for _, r := range rows {
		column = append(column, r[0])
	}
	return column
}

// TestSchemaOnPostgres asks the catalog of a migrated PostgreSQL.
func TestSchemaOnPostgres(t *testing.T) {
	url := storetest.Migrated(t)
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const ours = `'public' AND c.relname NOT LIKE '` + migrationTable + `%'`
	tables := first(texts(t, db, `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = `+ours))
	var keys []key
	for _, r := range texts(t, db, `SELECT c.relname, string_agg(a.attname, ',' ORDER BY k.place)
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		CROSS JOIN unnest(i.indkey::smallint[]) WITH ORDINALITY AS k (attnum, place) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.attnum
		WHERE i.indisunique AND n.nspname = `+ours+` GROUP BY c.relname, i.indexrelid`) {
		keys = append(keys, key{r[0], strings.Split(r[1], ",")})
	}
	checkKeys(t, tables, keys)
	for what, query := range map[string]string{
		"a sequence":        `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'S' AND n.nspname = ` + ours,
		"a foreign key":     `SELECT c.relname || '.' || x.conname FROM pg_constraint x JOIN pg_class c ON c.oid = x.conrelid WHERE x.contype = 'f'`,
		"a trigger":         `SELECT tgname FROM pg_trigger WHERE NOT tgisinternal`,
		"a function":        `SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'`,
		"a view":            `SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm', 'f', 'p') AND n.nspname = ` + ours,
		"a default":         `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '` + migrationTable + `' AND (column_default IS NOT NULL OR is_identity = 'YES' OR is_generated <> 'NEVER')`,
		"a type of its own": `SELECT table_name || '.' || column_name || ' ' || data_type FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> '` + migrationTable + `' AND data_type NOT IN ('bigint', 'bytea', 'text')`,
	} {
		for _, r := range texts(t, db, query) {
			t.Errorf("%s: %s", what, r[0])
		}
	}
}

// TestSchemaOnSQLite asks SQLite the same, as far as it knows it.
func TestSchemaOnSQLite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "schema.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tables := first(texts(t, db, `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> $1`, migrationTable))
	var keys []key
	for _, table := range tables {
		for _, index := range first(texts(t, db, `SELECT name FROM pragma_index_list($1) WHERE "unique" = 1`, table)) {
			keys = append(keys, key{table, first(texts(t, db, `SELECT name FROM pragma_index_info($1) ORDER BY seqno`, index))})
		}
		// An INTEGER PRIMARY KEY has no index of its own: it would be a number that SQLite gives.
		for _, r := range texts(t, db, `SELECT name, type FROM pragma_table_info($1) WHERE type NOT IN ('BIGINT', 'BYTEA', 'TEXT') OR dflt_value IS NOT NULL`, table) {
			t.Errorf("%s.%s is of type %s, or has a default", table, r[0], r[1])
		}
		for _, r := range texts(t, db, `SELECT "table" FROM pragma_foreign_key_list($1)`, table) {
			t.Errorf("a foreign key of %s to %s", table, r[0])
		}
	}
	checkKeys(t, tables, keys)
	for _, r := range texts(t, db, `SELECT type, name FROM sqlite_master WHERE type NOT IN ('table', 'index')`) {
		t.Errorf("there is a %s: %s", r[0], r[1])
	}
}

// TestSchemasAreOne: both engines end with the same tables and columns.
func TestSchemasAreOne(t *testing.T) {
	pg, err := sql.Open("pgx", storetest.Migrated(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close()
	path := filepath.Join(t.TempDir(), "schema.db")
	s, err := sqlite.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	lite, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer lite.Close()
	var of [2][]string
	for _, r := range texts(t, pg, `SELECT table_name, column_name, upper(data_type), is_nullable FROM information_schema.columns WHERE table_schema = 'public'`) {
		of[0] = append(of[0], strings.Join(r, " "))
	}
	for _, r := range texts(t, lite, `SELECT m.name, c.name, c.type, CASE c."notnull" WHEN 1 THEN 'NO' ELSE 'YES' END
		FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'`) {
		of[1] = append(of[1], strings.Join(r, " "))
	}
	for i := range of {
		of[i] = slices.DeleteFunc(of[i], func(s string) bool { return strings.HasPrefix(s, migrationTable) })
		slices.Sort(of[i])
	}
	if fmt.Sprint(of[0]) != fmt.Sprint(of[1]) {
		t.Errorf("PostgreSQL: %q\nSQLite: %q", of[0], of[1])
	}
}
