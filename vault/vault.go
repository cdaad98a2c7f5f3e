// Package vault keeps a device's or an agent's state on disk, encrypted: a folder with a key file and a small SQLite database of
// sealed values. The format is spec/vault.md.
//
// The command-line client and the agent use it for keys, group states and messages; in the browser IndexedDB does this work. It
// knows nothing of what it holds. Names lie in clear, so its users name by random ids, never by handles, hosts or content.
//
// It refuses a folder that another process uses, a key that others can read, a key or passphrase that is not the folder's, values
// that were changed or moved, and a folder of which a part is missing. It does not notice an older state put back as a whole.
package vault

import (
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"letterlock/chat"
)

// The limits, in bytes.
const (
	MaxBucket = 64
	MaxName   = 255
	MaxValue  = 16 << 20
)

// The files of the folder.
const (
	lockFile   = "lock"
	keyFile    = "key"
	newKeyFile = "key.new"
	stateFile  = "state.db"
)

// formatVersion is the database's user_version.
const formatVersion = 1

// Options say how to open a vault.
type Options struct {
	// Passphrase asks the person. In a folder that is new it is asked once, and the key is wrapped with the answer; without it the
	// key lies in the folder as it is. In an old folder it is asked if the key is wrapped. The answer is overwritten after use.
	Passphrase func() ([]byte, error)
	// Wait is how long to wait for another process that uses the folder.
	Wait time.Duration

	workFactor int // of scrypt; tests use a low one
}

// Vault is an open vault. Its methods may be called from several goroutines; transactions run one after the other.
type Vault struct {
	db   *sql.DB
	seal cipher.AEAD
	lock *os.File
}

// Open opens the vault in the folder dir, or makes one if dir is empty or missing. The errors:
//
//	unavailable      another process uses the folder
//	unauthenticated  the passphrase is wrong or missing
//	forbidden        the key file can be read by others
//	tampered         something was changed or is missing
//	incompatible     made by a later version
func Open(dir string, o Options) (*Vault, error) {
	return inFolder(dir, o, func() (*Vault, error) {
		state, err := stateOf(dir)
		if err != nil {
			return nil, err
		}
		switch state {
		case complete:
			return openFolder(dir, o)
		case empty:
			return createFolder(dir, o, nil)
		}
		return nil, chat.Errorf(chat.Tampered, "vault: the folder %s is damaged: its key or its database is missing", dir)
	})
}

// Close ends the vault's use. SQLite moves its log into the database and removes it when the last connection closes.
func (v *Vault) Close() error { return errors.Join(v.db.Close(), v.lock.Close()) }

// Update runs change in one transaction. When it returns nil, everything that change did is written and synced; when it returns an
// error, nothing is. An Update or View inside waits for ever.
func (v *Vault) Update(change func(*Tx) error) error {
	tx, err := v.begin()
	if err != nil {
		return err
	}
	defer tx.sql.Rollback() // without effect after Commit
	if err := change(tx); err != nil {
		return err
	}
	return damage(tx.sql.Commit())
}

// View runs look on a state that does not change meanwhile. Its Tx refuses changes.
func (v *Vault) View(look func(*Tx) error) error {
	tx, err := v.begin()
	if err != nil {
		return err
	}
	tx.readOnly = true
	defer tx.sql.Rollback()
	return look(tx)
}

func (v *Vault) begin() (*Tx, error) {
	t, err := v.db.Begin()
	if err != nil {
		return nil, damage(err)
	}
	return &Tx{sql: t, seal: v.seal}, nil
}

// inFolder makes the folder, locks it and calls open. The lock is let go if open fails.
func inFolder(dir string, o Options, open func() (*Vault, error)) (*Vault, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	lock, err := acquire(filepath.Join(dir, lockFile), o.Wait)
	if err != nil {
		return nil, err
	}
	v, err := open()
	if err != nil {
		lock.Close()
		return nil, err
	}
	v.lock = lock
	return v, nil
}

// folder is the state of a folder.
type folder int

const (
	empty    folder = iota // or its making was interrupted
	complete               // key and database are there
	partial                // one is missing
)

func stateOf(dir string) (folder, error) {
	var there [3]bool
	for i, name := range []string{keyFile, stateFile, newKeyFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return partial, fmt.Errorf("vault: %w", err)
		}
		there[i] = err == nil && (info.Size() > 0 || name == newKeyFile)
	}
	key, db, begun := there[0], there[1], there[2]
	switch {
	case key && db:
		return complete, nil
	case !key && (begun || !db):
		return empty, nil
	}
	return partial, nil
}

// createFolder makes key and database; the folder counts once the key file has its name. fill, which may be nil, adds values in
// the transaction that makes the table.
//
// An interruption leaves key.new and no key: the next one starts over.
func createFolder(dir string, o Options, fill func(*Tx) error) (*Vault, error) {
	if err := clearFolder(dir); err != nil {
		return nil, err
	}
	key := newKey()
	defer clear(key[:])
	if err := writeKey(filepath.Join(dir, newKeyFile), key, o); err != nil {
		return nil, err
	}
	v, err := openDatabase(dir, key)
	if err != nil {
		return nil, err
	}
	err = v.Update(func(tx *Tx) error {
		if err := tx.createTable(); err != nil {
			return err
		}
		if fill == nil {
			return nil
		}
		return fill(tx)
	})
	if err == nil {
		err = os.Rename(filepath.Join(dir, newKeyFile), filepath.Join(dir, keyFile))
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		v.db.Close()
		return nil, err
	}
	return v, nil
}

// clearFolder removes what an interrupted createFolder left. It is called only where there is no key.
func clearFolder(dir string) error {
	for _, name := range []string{stateFile, stateFile + "-wal", stateFile + "-shm", newKeyFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("vault: %w", err)
		}
	}
	return nil
}

func openFolder(dir string, o Options) (*Vault, error) {
	key, err := readKey(filepath.Join(dir, keyFile), o)
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	v, err := openDatabase(dir, key)
	if err != nil {
		return nil, err
	}
	if err := v.View((*Tx).check); err != nil {
		v.db.Close()
		return nil, err
	}
	if err := v.truncate(); err != nil { // what a crash left in the log
		v.db.Close()
		return nil, err
	}
	return v, nil
}

// openDatabase opens the file, or creates it with the right mode, which SQLite hands on to its log.
func openDatabase(dir string, key key) (*Vault, error) {
	seal, err := newSeal(key)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	q := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"journal_mode(WAL)", "synchronous(FULL)", "secure_delete(ON)", "temp_store(MEMORY)", "busy_timeout(2000)",
	}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	db.SetMaxOpenConns(1)
	return &Vault{db: db, seal: seal}, nil
}

// truncate moves the write-ahead log into the database and cuts it to nothing.
func (v *Vault) truncate() error {
	var busy, log, moved int
	if err := v.db.QueryRow("PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved); err != nil {
		return damage(err)
	}
	if busy != 0 {
		return chat.Errorf(chat.Unavailable, "vault: the database is busy")
	}
	return nil
}

// damage gives SQLite's findings about a broken file their kind: SQLITE_CORRUPT (11) and SQLITE_NOTADB (26), and also SQLITE_ERROR
// (1), which a table gives that is not there.
func damage(err error) error {
	if err == nil {
		return nil
	}
	var se *sqlite.Error
	if errors.As(err, &se) {
		switch se.Code() & 0xff {
		case 1, 11, 26:
			return chat.Wrap(chat.Tampered, err, "vault: the database is damaged")
		case 13:
			return chat.Wrap(chat.Unavailable, err, "vault: the disk is full")
		}
	}
	return fmt.Errorf("vault: %w", err)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	return nil
}
