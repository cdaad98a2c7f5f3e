package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// RestoreOptions say which backup becomes which data folder.
type RestoreOptions struct {
	Backup    string
	DataDir   string
	Witnessed [][]byte // checkpoints that were seen: signed notes
	Quick     bool     // check quickly
	Progress  Progress // nil: nobody is told
}

// RestoreReport is what was restored.
type RestoreReport struct {
	Data          string      `json:"data"`
	Host          string      `json:"host"`
	LedgerEntries int64       `json:"ledger_entries"`
	Compared      int         `json:"compared"` // checkpoints that the ledger was held against
	Check         CheckReport `json:"check"`
}

// stageName is the folder, inside the data folder, in which a backup is put together and checked.
const stageName = ".restore"

// Restore makes a data folder from a backup: in a folder that holds no database, checked against its manifest, against the checkpoints
// that were seen (those given, and the one that the folder's own server published), and by Check. Nothing is in its place before all
// that held; the database comes last, so that a restore that was cut off leaves a folder that no server starts on, and can be run again.
func Restore(ctx context.Context, o RestoreOptions) (report RestoreReport, err error) {
	m, err := readManifest(o.Backup)
	if err != nil {
		return report, err
	}
	if err := vacant(o.DataDir); err != nil {
		return report, err
	}
	made := os.Mkdir(o.DataDir, 0o700) == nil
	lock, err := takeLock(filepath.Join(o.DataDir, lockName))
	if err != nil {
		return report, err
	}
	defer lock.Close()
	stage := filepath.Join(o.DataDir, stageName)
	defer func() {
		err = errors.Join(err, os.RemoveAll(stage))
		if err != nil && made {
			os.Remove(filepath.Join(o.DataDir, lockName))
			os.Remove(o.DataDir)
		}
	}()
	if err := vacant(o.DataDir); err != nil { // once more: now nobody else works on it
		return report, err
	}
	if err := unpack(m, o, stage); err != nil {
		return report, err
	}
	newest, err := compare(ctx, o, m, stage, &report)
	if err != nil {
		return report, err
	}
	if report.Check, err = check(ctx, stage, CheckOptions{Quick: o.Quick, Progress: o.Progress}); err != nil {
		return report, err
	}
	if n := len(report.Check.Problems); n > 0 {
		return report, chat.Errorf(chat.Invalid, "not restored: the check of the backup found %d problems, the first: %s", n, report.Check.Problems[0])
	}
	report.Data = o.DataDir
	return report, settle(m, o.DataDir, stage, newest)
}

// vacant refuses a folder that holds more than what a lost database leaves behind.
func vacant(dir string) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return chat.Wrap(chat.Invalid, err, "the folder cannot be used")
	}
	for _, e := range list {
		switch name := e.Name(); {
		case strings.HasPrefix(name, databaseName):
			return chat.Errorf(chat.Exists, "%s holds a database already: restore into another folder, with --witnessed %s; or, if this database is lost, move "+
				"letterlock.db, -wal and -shm out of it and leave the rest", dir, filepath.Join(dir, publishedName))
		case name == stageName || name == publishedName || name == lockName || name == socketName || name == keysName || name == "lost+found":
		default:
			return chat.Errorf(chat.Exists, "%s holds %s: restore into an empty folder", dir, name)
		}
	}
	return nil
}

// unpack copies the backup into the stage and holds each file against the manifest; keys that the data folder has must be the same.
func unpack(m *manifest, o RestoreOptions, stage string) error {
	if err := os.RemoveAll(stage); err != nil { // of a restore that was cut off
		return err
	}
	if err := os.MkdirAll(filepath.Join(stage, keysName), 0o700); err != nil {
		return err
	}
	for _, f := range m.Files {
		got, err := copyFile(filepath.Join(o.Backup, f.Name), filepath.Join(stage, f.Name), func(n int64) {
			o.Progress.tell("copying "+f.Name, n>>20, f.Bytes>>20, "MiB")
		})
		if errors.Is(err, fs.ErrNotExist) {
			return damaged("%s is missing", f.Name)
		}
		if err != nil {
			return fmt.Errorf("restore: %w", err)
		}
		if got.Bytes != f.Bytes || got.SHA256 != f.SHA256 {
			return damaged("%s is not what its manifest says", f.Name)
		}
	}
	return sameKeys(filepath.Join(o.DataDir, keysName), filepath.Join(stage, keysName))
}

// sameKeys refuses to mix the keys of two servers.
func sameKeys(have, restored string) error {
	list, err := os.ReadDir(have)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") {
			continue // of a key that was being written
		}
		mine, err := os.ReadFile(filepath.Join(have, e.Name()))
		theirs, err2 := os.ReadFile(filepath.Join(restored, e.Name()))
		if err != nil || err2 != nil || !bytes.Equal(mine, theirs) {
			return chat.Errorf(chat.Exists, "the folder holds other keys than the backup (%s): restore into an empty folder", e.Name())
		}
	}
	return nil
}

// compare holds the ledger of the stage against every checkpoint that was seen, and returns its own, which is the newest.
func compare(ctx context.Context, o RestoreOptions, m *manifest, stage string, report *RestoreReport) (newest []byte, err error) {
	seen := o.Witnessed
	own, err := os.ReadFile(filepath.Join(o.DataDir, publishedName))
	if err == nil {
		seen = append(seen, own)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	state, keys, err := verify(ctx, stage, o.Progress)
	if err != nil {
		return nil, err
	}
	if keys.Host() != m.Host || string(state.Checkpoint) != m.Checkpoint {
		return nil, damaged("its manifest is of another database")
	}
	s := sqlite.OpenFrozen(filepath.Join(stage, databaseName))
	defer func() { err = errors.Join(err, s.Close()) }()
	report.Host, report.LedgerEntries, report.Compared = m.Host, state.Size, len(seen)
	return state.Checkpoint, covered(ctx, s, keys, seen)
}

func covered(ctx context.Context, s *store.Store, keys *ledger.Keys, seen [][]byte) error {
	for _, c := range seen {
		err := ledger.Covers(ctx, s, keys, c)
		if chat.Is(err, chat.Tampered) {
			return chat.Wrap(chat.Tampered, err, "not restored: whoever saw that checkpoint would rightly take the server for a liar. Find the newest database "+
				"or a newer backup; if there is none, the log of %s cannot go on, and a server begins anew under another public URL: "+
				"doc/operate-backup.md, \"When the newest database is lost\"", keys.Ledger.Name())
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settle moves everything into its place: first what forbids a smaller ledger, last the database.
func settle(m *manifest, dir, stage string, newest []byte) error {
	if err := ledger.WritePublished(filepath.Join(dir, publishedName), newest); err != nil {
		return err
	}
	keys := filepath.Join(dir, keysName)
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	for _, f := range m.Files {
		if f.Name == databaseName {
			continue
		}
		if err := os.Rename(filepath.Join(stage, f.Name), filepath.Join(dir, f.Name)); err != nil {
			return err
		}
	}
	if err := errors.Join(syncPath(keys), syncPath(dir)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(stage, databaseName), filepath.Join(dir, databaseName)); err != nil {
		return err
	}
	return syncPath(dir)
}
