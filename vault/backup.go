package vault

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"letterlock/chat"
)

const (
	backupHeader = "letterlock vault backup v1\n"
	backupPage   = 256 // names listed at a time
)

// Backup writes all values, encrypted with the passphrase. The answer of o.Passphrase is asked for; the rest of o is not used.
func (v *Vault) Backup(w io.Writer, o Options) error {
	if o.Passphrase == nil {
		return chat.Errorf(chat.Invalid, "vault: a backup needs a passphrase")
	}
	passphrase, err := o.ask()
	if err != nil {
		return err
	}
	sealed, err := wrapTo(w, passphrase, o.workFactor)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriter(sealed)
	if err := v.View(func(tx *Tx) error { return writeBackup(buffered, tx) }); err != nil {
		return err
	}
	if err := errors.Join(buffered.Flush(), sealed.Close()); err != nil {
		return fmt.Errorf("vault: backup: %w", err)
	}
	return nil
}

// Restore makes a vault of a backup in a folder that has none. passphrase opens the backup; o is for the new vault, as in Open. The
// vault is marked: see Tx.Restored.
func Restore(dir string, r io.Reader, passphrase func() ([]byte, error), o Options) (*Vault, error) {
	return inFolder(dir, o, func() (*Vault, error) {
		state, err := stateOf(dir)
		if err != nil {
			return nil, err
		}
		if state != empty {
			return nil, chat.Errorf(chat.Exists, "vault: the folder %s is in use already", dir)
		}
		answer, err := Options{Passphrase: passphrase}.ask()
		if err != nil {
			return nil, err
		}
		plain, err := unwrap(bufio.NewReader(r), answer)
		if err != nil {
			return nil, err
		}
		return createFolder(dir, o, func(tx *Tx) error {
			if err := tx.put(ownBucket, restoredName, nil); err != nil {
				return err
			}
			return readBackup(bufio.NewReader(plain), tx.Put)
		})
	})
}

func writeBackup(w *bufio.Writer, tx *Tx) error {
	if _, err := w.WriteString(backupHeader); err != nil {
		return fmt.Errorf("vault: backup: %w", err)
	}
	buckets, err := tx.buckets()
	if err != nil {
		return err
	}
	for _, bucket := range buckets {
		if err := writeBucket(w, tx, bucket); err != nil {
			return err
		}
	}
	return nil
}

func writeBucket(w *bufio.Writer, tx *Tx, bucket string) error {
	for after := ""; ; {
		names, err := tx.List(bucket, after, backupPage)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			value, _, err := tx.Get(bucket, name)
			if err != nil {
				return err
			}
			err = writeRow(w, bucket, name, value)
			clear(value)
			if err != nil {
				return fmt.Errorf("vault: backup: %w", err)
			}
		}
		after = names[len(names)-1]
	}
}

// buckets lists the buckets but the vault's own.
func (tx *Tx) buckets() ([]string, error) {
	rows, err := tx.sql.Query("SELECT DISTINCT bucket FROM sealed WHERE bucket > $1 ORDER BY bucket", ownBucket)
	if err != nil {
		return nil, damage(err)
	}
	defer rows.Close()
	var buckets []string
	for rows.Next() {
		var b string
		if err := rows.Scan(&b); err != nil {
			return nil, damage(err)
		}
		buckets = append(buckets, b)
	}
	return buckets, damage(rows.Err())
}

func writeRow(w io.Writer, bucket, name string, value []byte) error {
	head := binary.BigEndian.AppendUint16(nil, uint16(len(bucket)))
	head = append(head, bucket...)
	head = binary.BigEndian.AppendUint16(head, uint16(len(name)))
	head = append(head, name...)
	head = binary.BigEndian.AppendUint32(head, uint32(len(value)))
	if _, err := w.Write(head); err != nil {
		return err
	}
	_, err := w.Write(value)
	return err
}

// readBackup hands every row to put. What it reads was encrypted by somebody who knows the passphrase.
func readBackup(r *bufio.Reader, put func(bucket, name string, value []byte) error) error {
	header := make([]byte, len(backupHeader))
	if _, err := io.ReadFull(r, header); err != nil || string(header) != backupHeader {
		return damagedBackup(err)
	}
	for {
		if _, err := r.Peek(1); errors.Is(err, io.EOF) {
			return nil // age has checked that this is the end
		}
		if err := readRow(r, put); err != nil {
			return err
		}
	}
}

func readRow(r io.Reader, put func(bucket, name string, value []byte) error) error {
	bucket, err := readField(r, 2, MaxBucket)
	if err != nil {
		return err
	}
	name, err := readField(r, 2, MaxName)
	if err != nil {
		return err
	}
	value, err := readField(r, 4, MaxValue)
	if err != nil {
		return err
	}
	defer clear(value)
	return put(string(bucket), string(name), value)
}

// readField reads a length of width bytes and that many bytes, at most most.
func readField(r io.Reader, width, most int) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[4-width:]); err != nil {
		return nil, damagedBackup(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if n > uint32(most) {
		return nil, damagedBackup(nil)
	}
	field, err := io.ReadAll(io.LimitReader(r, int64(n))) // grows with what is there, not with what was claimed
	if err != nil || len(field) != int(n) {
		return nil, damagedBackup(err)
	}
	return field, nil
}

func damagedBackup(err error) error {
	return chat.Wrap(chat.Tampered, err, "vault: the backup is damaged")
}
