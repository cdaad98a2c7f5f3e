package sqlite

import (
	"errors"

	"modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"

	"letterlock/store"
)

// DiskError tells a disk that is full or read only from one that takes no writes for another reason: a quota, a limit on the size of
// files, a fault. SQLite reports ENOSPC as SQLITE_FULL, and all else that stops a write as one of several input/output errors.
func (e *engine) DiskError(err error) error {
	var se *sqlite.Error
	if !errors.As(err, &se) {
		return nil
	}
	switch code := se.Code(); {
	case code&0xff == lib.SQLITE_FULL:
		return store.ErrDiskFull
	case code&0xff == lib.SQLITE_READONLY:
		return store.ErrReadOnly
	case code == lib.SQLITE_IOERR_WRITE, code == lib.SQLITE_IOERR_FSYNC, code == lib.SQLITE_IOERR_TRUNCATE, code == lib.SQLITE_IOERR_SHMSIZE:
		return store.ErrDiskFailed
	}
	return nil
}
