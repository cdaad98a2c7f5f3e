package move

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"
	"strings"

	"letterlock/chat"
	"letterlock/store/postgres"
)

// database is one of the two sides.
type database struct {
	*sql.DB
	schema  string // query of its tables' columns: table, column, type, place in the primary key from 1 (0: not of it)
	collate string // puts TEXT into the order of its bytes
}

// Neither side shows the migrations' own table, which says the same of both once their tables are the same.
const (
	sqliteSchema = `SELECT t.name, c.name, c.type, c.pk FROM sqlite_schema t, pragma_table_info(t.name) c
		WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite@_%' ESCAPE '@' AND t.name <> 'goose_db_version' ORDER BY t.name, c.cid`

	postgresSchema = `SELECT t.relname, c.attname, upper(format_type(c.atttypid, NULL)), coalesce(array_position(k.indkey::int2[], c.attnum) + 1, 0)
		FROM pg_class t LEFT JOIN pg_attribute c ON c.attrelid = t.oid AND c.attnum > 0 AND NOT c.attisdropped
		LEFT JOIN pg_index k ON k.indrelid = t.oid AND k.indisprimary
		WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind NOT IN ('i', 'I', 'S', 't', 'c')
		AND t.relname NOT IN ('goose_db_version', '` + postgres.Unfinished + `') ORDER BY t.relname COLLATE "C", c.attnum`
)

// table is one of the schema.
type table struct {
	name    string
	columns []column
}

type column struct {
	name string
	kind string // BIGINT, BYTEA or TEXT
	key  int    // place in the primary key, from 1; 0: not of it
}

// tables reads the schema, by name.
func (d database) tables(ctx context.Context) (all []table, err error) {
	rows, err := d.QueryContext(ctx, d.schema)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t string
		var name, kind sql.NullString // a table may have no columns
		var key int
		if err := rows.Scan(&t, &name, &kind, &key); err != nil {
			return nil, err
		}
		if len(all) == 0 || all[len(all)-1].name != t {
			all = append(all, table{name: t})
		}
		last := &all[len(all)-1]
		last.columns = append(last.columns, column{name.String, kind.String, key})
	}
	return all, rows.Err()
}

// check refuses a table that this package cannot move.
func (t table) check() error {
	if len(t.key()) == 0 {
		return fmt.Errorf("move: table %s has no primary key", t.name)
	}
	for _, c := range t.columns {
		if c.kind != "BIGINT" && c.kind != "BYTEA" && c.kind != "TEXT" {
			return fmt.Errorf("move: column %s.%s is of type %s", t.name, c.name, c.kind)
		}
	}
	return nil
}

// key is the primary key's columns in their order.
func (t table) key() []column {
	key := slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return c.key == 0 })
	slices.SortFunc(key, func(a, b column) int { return a.key - b.key })
	return key
}

func names(columns []column) []string {
	n := make([]string, len(columns))
	for i, c := range columns {
		n[i] = c.name
	}
	return n
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// order is a table's primary key for ORDER BY, and for comparison with a key: bytes before what they begin, TEXT by its bytes in UTF-8.
func (d database) order(t table, suffix string) string {
	var s []string
	for _, c := range t.key() {
		term := quote(c.name)
		if c.kind == "TEXT" {
			term += d.collate
		}
		s = append(s, term+suffix)
	}
	return strings.Join(s, ", ")
}

func (d database) count(ctx context.Context, t table) (n int64, err error) {
	err = d.QueryRowContext(ctx, `SELECT count(*) FROM `+quote(t.name)).Scan(&n)
	return n, err
}

// last is the greatest key of a table; nil if it is empty.
func (d database) last(ctx context.Context, t table) ([]any, error) {
	key := table{t.name, t.key()}
	c, err := d.query(ctx, key, ` ORDER BY `+d.order(t, " DESC")+` LIMIT 1`)
	if err != nil {
		return nil, err
	}
	defer c.rows.Close()
	if !c.Next() {
		return nil, c.Err()
	}
	return c.values, nil
}

// from reads a table's rows after a key (nil: all) in the order of the key.
func (d database) from(ctx context.Context, t table, after []any) (*cursor, error) {
	order := d.order(t, "")
	if after == nil {
		return d.query(ctx, t, ` ORDER BY `+order)
	}
	var values []string
	for i := range after {
		values = append(values, fmt.Sprintf("$%d", i+1))
	}
	return d.query(ctx, t, fmt.Sprintf(` WHERE (%s) > (%s) ORDER BY %s`, order, strings.Join(values, ", "), order), after...)
}

func (d database) query(ctx context.Context, t table, rest string, args ...any) (*cursor, error) {
	var columns []string
	for _, c := range t.columns {
		columns = append(columns, quote(c.name))
	}
	rows, err := d.QueryContext(ctx, `SELECT `+strings.Join(columns, ", ")+` FROM `+quote(t.name)+rest, args...)
	if err != nil {
		return nil, fmt.Errorf("move: table %s: %w", t.name, err)
	}
	return &cursor{rows: rows, table: t}, nil
}

// cursor reads rows one by one.
type cursor struct {
	rows   *sql.Rows
	table  table
	values []any // of the row: int64, []byte, string or nil
	err    error
}

func (c *cursor) Next() bool {
	if c.err != nil || !c.rows.Next() {
		return false
	}
	c.values = make([]any, len(c.table.columns))
	into := make([]any, len(c.values))
	for i := range c.values {
		into[i] = &c.values[i]
	}
	if c.err = c.rows.Scan(into...); c.err != nil {
		return false
	}
	for i, column := range c.table.columns {
		if c.values[i], c.err = column.value(c.values[i]); c.err != nil {
			return false
		}
	}
	return true
}

func (c *cursor) Err() error {
	err := c.err
	if err == nil {
		err = c.rows.Err()
	}
	if err != nil {
		return fmt.Errorf("move: table %s: %w", c.table.name, err)
	}
	return nil
}

// value makes a value the one of its column's kind that it is. SQLite would keep any.
func (c column) value(v any) (any, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case int64:
		if c.kind == "BIGINT" {
			return x, nil
		}
	case string:
		if c.kind == "TEXT" {
			return x, nil
		}
	case []byte:
		if c.kind == "BYTEA" && x == nil { // not NULL
			return []byte{}, nil
		}
		if c.kind == "BYTEA" {
			return x, nil
		}
	}
	return nil, chat.Errorf(chat.Invalid, "a row is damaged: column %s, which is %s, holds a %T: run letterlock check, restore a backup", c.name, c.kind, v)
}

// digest counts a table's rows and hashes them in the order of the primary key (spec/migrate.md); row is called for each.
func (d database) digest(ctx context.Context, t table, row func()) (rows int64, sum []byte, err error) {
	c, err := d.from(ctx, t, nil)
	if err != nil {
		return 0, nil, err
	}
	defer c.rows.Close()
	h := sha256.New()
	for ; c.Next(); rows++ {
		for _, v := range c.values {
			hashValue(h, v)
		}
		row()
	}
	return rows, h.Sum(nil), c.Err()
}

// hashValue writes what a value is hashed as: its kind, and for bytes their length.
func hashValue(h hash.Hash, v any) {
	var head [9]byte
	switch v := v.(type) {
	case nil:
		h.Write(head[:1])
	case int64:
		head[0] = 1
		binary.BigEndian.PutUint64(head[1:], uint64(v))
		h.Write(head[:])
	case string:
		head[0] = 2
		binary.BigEndian.PutUint64(head[1:], uint64(len(v)))
		h.Write(head[:])
		h.Write([]byte(v))
	case []byte:
		head[0] = 3
		binary.BigEndian.PutUint64(head[1:], uint64(len(v)))
		h.Write(head[:])
		h.Write(v)
	}
}
