package vault

import (
	"crypto/cipher"
	"database/sql"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"letterlock/canon"
	"letterlock/chat"
)

// The vault's own bucket and what is in it.
const (
	ownBucket    = ""
	checkName    = "check"
	checkText    = "letterlock vault"
	restoredName = "restored"
)

// Tx is a transaction on the vault's values. A value has a bucket and a name; both lie in clear on the disk.
type Tx struct {
	sql      *sql.Tx
	seal     cipher.AEAD
	readOnly bool
}

// Put sets a value of at most MaxValue bytes.
func (tx *Tx) Put(bucket, name string, value []byte) error {
	if err := checkPlace(bucket, name); err != nil {
		return err
	}
	return tx.put(bucket, name, value)
}

// Get returns a value, which belongs to the caller, and whether there is one. A value that was changed or moved is chat.Tampered.
func (tx *Tx) Get(bucket, name string) (value []byte, ok bool, err error) {
	if err := checkPlace(bucket, name); err != nil {
		return nil, false, err
	}
	return tx.get(bucket, name)
}

// Delete drops a value, also from the disk. There need not be one.
func (tx *Tx) Delete(bucket, name string) error {
	if err := checkPlace(bucket, name); err != nil {
		return err
	}
	return tx.delete(bucket, name)
}

// List returns at most limit names of a bucket in the order of their bytes, those after the given one; after "" from the first.
func (tx *Tx) List(bucket, after string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, chat.Errorf(chat.Invalid, "vault: a list has a limit of 1 at least")
	}
	rows, err := tx.sql.Query("SELECT name FROM sealed WHERE bucket = $1 AND name > $2 ORDER BY name LIMIT $3", bucket, after, limit)
	if err != nil {
		return nil, damage(err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, damage(err)
		}
		names = append(names, name)
	}
	return names, damage(rows.Err())
}

// Restored reports whether the vault comes from a backup and nobody has said ClearRestored since. What moves on, as message
// ratchets do, must not be used before.
func (tx *Tx) Restored() (bool, error) {
	_, ok, err := tx.get(ownBucket, restoredName)
	return ok, err
}

// ClearRestored says that whatever had to be done after a restore was done.
func (tx *Tx) ClearRestored() error { return tx.delete(ownBucket, restoredName) }

func (tx *Tx) put(bucket, name string, value []byte) error {
	if err := tx.mayChange(); err != nil {
		return err
	}
	if len(value) > MaxValue {
		return chat.Errorf(chat.TooLarge, "vault: a value has at most %d bytes", MaxValue)
	}
	sealed := tx.seal.Seal(nil, nil, value, aad(bucket, name))
	_, err := tx.sql.Exec(`INSERT INTO sealed (bucket, name, value) VALUES ($1, $2, $3)
		ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value`, bucket, name, sealed)
	return damage(err)
}

func (tx *Tx) get(bucket, name string) ([]byte, bool, error) {
	var sealed []byte
	err := tx.sql.QueryRow("SELECT value FROM sealed WHERE bucket = $1 AND name = $2", bucket, name).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, damage(err)
	}
	value, err := tx.seal.Open(nil, nil, sealed, aad(bucket, name))
	if err != nil {
		return nil, false, chat.Wrap(chat.Tampered, err, "vault: a value was changed or moved, or sealed with another key")
	}
	return value, true, nil
}

func (tx *Tx) delete(bucket, name string) error {
	if err := tx.mayChange(); err != nil {
		return err
	}
	_, err := tx.sql.Exec("DELETE FROM sealed WHERE bucket = $1 AND name = $2", bucket, name)
	return damage(err)
}

func (tx *Tx) mayChange() error {
	if tx.readOnly {
		return chat.Errorf(chat.Internal, "vault: a change inside View")
	}
	return nil
}

// createTable makes an empty vault of the database.
func (tx *Tx) createTable() error {
	for _, statement := range []string{
		"CREATE TABLE sealed (bucket TEXT NOT NULL, name TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (bucket, name))",
		"PRAGMA user_version = 1",
	} {
		if _, err := tx.sql.Exec(statement); err != nil {
			return damage(err)
		}
	}
	return tx.put(ownBucket, checkName, []byte(checkText))
}

// check makes sure that the database has the format and that the key is its own.
func (tx *Tx) check() error {
	var version int
	if err := tx.sql.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		return damage(err)
	}
	if version > formatVersion {
		return chat.Errorf(chat.Incompatible, "vault: format %d is of a later version of this program", version)
	}
	text, ok, err := tx.get(ownBucket, checkName)
	if err != nil {
		return err
	}
	if !ok || string(text) != checkText {
		return chat.Errorf(chat.Tampered, "vault: the database is damaged")
	}
	return nil
}

// place is what a sealed value is tied to.
type place struct {
	_      struct{} `cbor:",toarray"`
	Domain string
	Bucket string
	Name   string
}

func aad(bucket, name string) []byte {
	return canon.MustMarshal(place{Domain: "letterlock/vault/v1", Bucket: bucket, Name: name})
}

func checkPlace(bucket, name string) error {
	if !soundName(bucket, MaxBucket) || !soundName(name, MaxName) {
		return chat.Errorf(chat.Invalid, "vault: a bucket has 1 to %d bytes, a name 1 to %d, without control characters", MaxBucket, MaxName)
	}
	return nil
}

func soundName(s string, most int) bool {
	return len(s) >= 1 && len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
