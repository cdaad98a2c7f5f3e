package sqlite

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// CheckFile asks SQLite whether the file at path is whole, which no server may hold, and says what is not: header and length, pages and
// their order; and, unless quick, that each index entry has its row. SQLite keeps no checksums: a byte that changed inside a value is
// for others to find.
func CheckFile(ctx context.Context, path string, quick bool) (problems []string, err error) {
	return checkFile(ctx, path, quick, func() *sql.DB { return open(path, "deferred", plain) })
}

// CheckFrozen is a quick CheckFile of a copy that nobody writes: nothing is made beside it.
func CheckFrozen(ctx context.Context, path string) (problems []string, err error) {
	return checkFile(ctx, path, true, func() *sql.DB { return frozen(path) })
}

func checkFile(ctx context.Context, path string, quick bool, open func() *sql.DB) ([]string, error) {
	problem, err := checkHeader(path)
	if err != nil {
		return nil, err
	}
	if problem != "" {
		return []string{problem}, nil
	}
	db := open()
	defer db.Close()
	pragma := "PRAGMA integrity_check(20)"
	if quick {
		pragma = "PRAGMA quick_check(20)"
	}
	problems, err := lines(ctx, db, pragma)
	var se *sqlite.Error
	if errors.As(err, &se) && (se.Code()&0xff == lib.SQLITE_CORRUPT || se.Code()&0xff == lib.SQLITE_NOTADB) {
		return append(problems, "the database file is damaged: "+se.Error()), nil
	}
	return problems, err
}

// lines are what a check prints, but for its "ok".
func lines(ctx context.Context, db *sql.DB, pragma string) (problems []string, err error) {
	rows, err := db.QueryContext(ctx, pragma)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line string
		if err := rows.Scan(&line); err != nil {
			return problems, err
		}
		if line != "ok" {
			problems = append(problems, line)
		}
	}
	return problems, rows.Err()
}

// checkHeader compares the file's length with what its header says (sqlite.org/fileformat.html section 1.3). A file whose newest pages
// are in the log beside it may be shorter: that is for SQLite to judge.
func checkHeader(path string) (problem string, err error) {
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	header := make([]byte, 100)
	if _, err := io.ReadFull(f, header); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Sprintf("the database file has %d bytes: it is cut off", info.Size()), nil
	} else if err != nil {
		return "", err
	}
	if string(header[:16]) != "SQLite format 3\x00" {
		return "the database file does not begin like one of SQLite", nil
	}
	size := int64(binary.BigEndian.Uint16(header[16:]))
	if size == 1 {
		size = 65536
	}
	if pages := int64(binary.BigEndian.Uint32(header[28:])); info.Size() < pages*size {
		return fmt.Sprintf("the database file has %d bytes, and %d pages of %d belong to it: it is cut off", info.Size(), pages, size), nil
	}
	return "", nil
}
