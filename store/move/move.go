// Package move copies a whole database from SQLite to PostgreSQL and proves that the copy is one.
//
// It knows no table by name: which there are, with their columns and keys, it reads from the migrated schema, so that a table of
// tomorrow is moved too. A table is read in the order of its primary key and written by COPY, a chunk at a time, each chunk one
// transaction. What has arrived of a table is therefore always its beginning, and the greatest key that is there says where to go
// on: whatever ends a copy at whatever moment, the next run continues it.
//
// Neighbours: package server holds the data folder, checks what has arrived, and marks the folder as moved. This package refuses a
// database in which anything stands that was not put there by an unfinished copy of the same installation. It changes nothing in the
// SQLite file.
package move

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"letterlock/chat"
	"letterlock/store/postgres"
	"letterlock/store/sqlite"
)

// A chunk ends after so many rows or bytes: what is written again when a copy is killed.
const (
	chunkRows  = 1000
	chunkBytes = 4 << 20
)

// Origin says what is copied.
type Origin struct {
	Installation string // whose database it is
	Copy         string // of the state of that database: another one when a server has worked on it since
}

// Progress is how far a step is. Total is 0 where nobody can know.
type Progress struct {
	Step        string // "copying" or "comparing"; others' steps have other words
	Table       string
	Rows, Of    int64 // of the table
	Done, Total int64 // rows of all tables
}

// Table is a table that is the same on both sides.
type Table struct {
	Name   string `json:"table"`
	Rows   int64  `json:"rows"`
	SHA256 string `json:"sha256"` // of its rows, in hex
}

// Move is a copy under way. It holds the PostgreSQL alone.
type Move struct {
	source, target database
	tables         []table
	rows           map[string]int64 // in the source, by table
	total          int64
}

// Begin prepares a new copy of the file, or goes on with an unfinished one of the same origin. An unfinished one of another state of the
// same installation is emptied. The file is at this program's schema, and nobody writes to it.
func Begin(ctx context.Context, file, address string, o Origin) (_ *Move, err error) {
	m := &Move{source: database{sqlite.OpenReadOnly(file), sqliteSchema, ""}, rows: make(map[string]int64)}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	if m.tables, err = m.source.tables(ctx); err != nil {
		return nil, err
	}
	for _, t := range m.tables {
		if err := t.check(); err != nil {
			return nil, err
		}
		if m.rows[t.name], err = m.source.count(ctx, t); err != nil {
			return nil, err
		}
		m.total += m.rows[t.name]
	}
	held, err := postgres.Hold(ctx, address)
	if err != nil {
		return nil, err
	}
	m.target = database{held, postgresSchema, ` COLLATE "C"`}
	if err := m.prepare(ctx, address, o); err != nil {
		return nil, err
	}
	return m, nil
}

// prepare makes the target's tables, and marks it as unfinished before the first row arrives.
func (m *Move) prepare(ctx context.Context, address string, o Origin) error {
	before, marked, err := m.marked(ctx)
	if err != nil {
		return err
	}
	if marked && before.Installation != o.Installation {
		return chat.Errorf(chat.Exists, "the database holds the unfinished copy of another installation: give an empty database")
	}
	if err := m.onlyOurs(ctx, marked); err != nil {
		return err
	}
	migrated, err := postgres.Open(ctx, address)
	if err != nil {
		return err
	}
	if err := migrated.Close(); err != nil {
		return err
	}
	there, err := m.target.tables(ctx)
	if err != nil {
		return err
	}
	if !slices.EqualFunc(there, m.tables, table.equal) {
		return chat.Errorf(chat.Incompatible, "the tables of the database are not those of this program: give an empty database")
	}
	if marked && before == o {
		return nil
	}
	return m.mark(ctx, o)
}

func (t table) equal(u table) bool { return t.name == u.name && slices.Equal(t.columns, u.columns) }

// marked reads whose unfinished copy the target holds.
func (m *Move) marked(ctx context.Context) (o Origin, marked bool, err error) {
	if err := m.target.QueryRowContext(ctx, `SELECT to_regclass($1) IS NOT NULL`, postgres.Unfinished).Scan(&marked); err != nil || !marked {
		return o, false, err
	}
	err = m.target.QueryRowContext(ctx, `SELECT installation, copy FROM `+postgres.Unfinished).Scan(&o.Installation, &o.Copy)
	return o, true, err
}

// onlyOurs refuses a target with tables that are not of the schema, or, unless the rows are a copy's, with any row.
func (m *Move) onlyOurs(ctx context.Context, copied bool) error {
	there, err := m.target.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range there {
		if !slices.ContainsFunc(m.tables, func(own table) bool { return own.name == t.name }) {
			return chat.Errorf(chat.Exists, "the database is used by something else: it has a table %s. Give an empty database, made with createdb", t.name)
		}
		if copied {
			continue
		}
		var rows bool
		if err := m.target.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM `+quote(t.name)+`)`).Scan(&rows); err != nil {
			return err
		}
		if rows {
			return chat.Errorf(chat.Exists, "the database is not empty: its table %s has rows, which nobody may overwrite. Give an empty database, made with createdb", t.name)
		}
	}
	return nil
}

// mark empties the target and says whose copy it is from now on.
func (m *Move) mark(ctx context.Context, o Origin) error {
	tx, err := m.target.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit this does nothing
	var all []string
	for _, t := range m.tables {
		all = append(all, quote(t.name))
	}
	for _, s := range []string{`TRUNCATE ` + strings.Join(all, ", "), `DROP TABLE IF EXISTS ` + postgres.Unfinished,
		`CREATE TABLE ` + postgres.Unfinished + ` (installation TEXT NOT NULL, copy TEXT NOT NULL)`} {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO `+postgres.Unfinished+` VALUES ($1, $2)`, o.Installation, o.Copy); err != nil {
		return err
	}
	return tx.Commit()
}

// Copy copies what is not in the target yet.
func (m *Move) Copy(ctx context.Context, tell func(Progress)) error {
	p := Progress{Step: "copying", Total: m.total}
	for _, t := range m.tables {
		there, err := m.target.count(ctx, t)
		if err != nil {
			return err
		}
		p.Table, p.Rows, p.Of = t.name, there, m.rows[t.name]
		p.Done += there
		if err := m.copy(ctx, t, func(rows int64) {
			p.Rows += rows
			p.Done += rows
			tell(p)
		}); err != nil {
			return err
		}
	}
	_, err := m.target.ExecContext(ctx, `ANALYZE`) // the next reader should find a plan for tables of this size
	return err
}

// copy copies the rest of a table. wrote is called after each chunk.
func (m *Move) copy(ctx context.Context, t table, wrote func(rows int64)) error {
	after, err := m.target.last(ctx, t)
	if err != nil {
		return err
	}
	rest, err := m.source.from(ctx, t, after)
	if err != nil {
		return err
	}
	defer rest.rows.Close()
	c, err := m.target.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		part := &chunk{cursor: rest}
		if err := c.Raw(func(driver any) error {
			_, err := driver.(*stdlib.Conn).Conn().CopyFrom(ctx, pgx.Identifier{t.name}, names(t.columns), part)
			return err
		}); err != nil {
			if rest.Err() != nil { // what COPY says then is only that its source failed
				return rest.Err()
			}
			return fmt.Errorf("move: table %s: %w", t.name, err)
		}
		if part.rows > 0 {
			wrote(part.rows)
		}
		if !part.full() {
			return nil
		}
	}
}

// chunk is the next part of a table, as the source of one COPY.
type chunk struct {
	*cursor
	rows, bytes int64
}

func (c *chunk) full() bool { return c.rows >= chunkRows || c.bytes >= chunkBytes }

func (c *chunk) Next() bool {
	if c.full() || !c.cursor.Next() {
		return false
	}
	c.rows++
	for _, v := range c.cursor.values {
		switch v := v.(type) {
		case []byte:
			c.bytes += int64(len(v))
		case string:
			c.bytes += int64(len(v))
		}
	}
	return true
}

func (c *chunk) Values() ([]any, error) { return c.cursor.values, nil }

// Compare reads both sides whole and says what every table holds, or which of them differ.
func (m *Move) Compare(ctx context.Context, tell func(Progress)) (same []Table, err error) {
	// A table has its rows in the order of its key here, so to walk along the index is cheaper than to sort.
	if _, err := m.target.ExecContext(ctx, `SET enable_sort = off`); err != nil {
		return nil, err
	}
	p := Progress{Step: "comparing", Total: m.total}
	var differ []string
	for _, t := range m.tables {
		p.Table, p.Rows, p.Of = t.name, 0, m.rows[t.name]
		got, equal, err := m.compare(ctx, t, func() {
			p.Rows++
			p.Done++
			if p.Rows%chunkRows == 0 || p.Rows == p.Of {
				tell(p)
			}
		})
		if err != nil {
			return nil, err
		}
		if !equal {
			differ = append(differ, t.name)
		}
		same = append(same, got)
	}
	if len(differ) > 0 {
		return nil, chat.Errorf(chat.Mismatch, "the copy is not what the data folder holds: %s. Something else wrote to one of them; make the database anew "+
			"(dropdb, createdb) and move again", strings.Join(differ, ", "))
	}
	return same, nil
}

// compare reads a table on both sides at once.
func (m *Move) compare(ctx context.Context, t table, row func()) (of Table, equal bool, err error) {
	var both sync.WaitGroup
	var copied int64
	var copySum []byte
	var copyErr error
	both.Go(func() { copied, copySum, copyErr = m.target.digest(ctx, t, func() {}) })
	rows, sum, err := m.source.digest(ctx, t, row)
	both.Wait()
	return Table{t.name, rows, hex.EncodeToString(sum)}, rows == copied && bytes.Equal(sum, copySum), errors.Join(err, copyErr)
}

// Close lets go of both sides. What has been copied stays.
func (m *Move) Close() error {
	err := m.source.Close()
	if m.target.DB != nil {
		err = errors.Join(err, m.target.Close())
	}
	return err
}
