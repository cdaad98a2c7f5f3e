package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// BackupOptions say what is backed up, and where to.
type BackupOptions struct {
	DataDir  string
	Out      string // a folder that is not there yet
	Version  string
	Now      func() time.Time
	Progress Progress // nil: nobody is told
}

// BackupReport is what a backup holds.
type BackupReport struct {
	Backup        string    `json:"backup"`
	Host          string    `json:"host"`
	Made          time.Time `json:"made"`
	Bytes         int64     `json:"bytes"`
	LedgerEntries int64     `json:"ledger_entries"`
}

// Backup copies database and keys of a data folder, whether a server runs on it or not, into a new folder: as they were at one moment,
// verified (pages, ledger against its checkpoint), with a manifest, synced. It is written under another name beside Out and gets
// its name last, so that what is called Out is whole.
func Backup(ctx context.Context, o BackupOptions) (report BackupReport, err error) {
	out := filepath.Clean(o.Out)
	if _, err := os.Lstat(out); err == nil {
		return report, chat.Errorf(chat.Exists, "%s is there already: choose another name, a backup replaces nothing", out)
	}
	if err := hasDatabase(o.DataDir); err != nil {
		return report, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(out), "."+filepath.Base(out)+".incomplete-") // mode 0700
	if err != nil {
		return report, chat.Wrap(chat.Invalid, err, "the backup cannot be written there")
	}
	defer os.RemoveAll(dir) // after the rename there is nothing
	m, report, err := gather(ctx, o, dir)
	if err != nil {
		return report, err
	}
	if err := writeManifest(m, dir); err != nil {
		return report, err
	}
	if err := os.Rename(dir, out); err != nil {
		return report, chat.Wrap(chat.Exists, err, "the backup cannot get its name")
	}
	report.Backup = out
	return report, syncPath(filepath.Dir(out))
}

// hasDatabase refuses a folder without an embedded database.
func hasDatabase(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, databaseName)); err == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(dir, keysName)); err == nil {
		return chat.Errorf(chat.NotFound, "%s holds keys and no database: if its server keeps the database in PostgreSQL, back that up with pg_dump or "+
			"pg_basebackup, and the keys folder with it (doc/operate-backup.md, \"Backup with PostgreSQL\")", dir)
	}
	return chat.Errorf(chat.NotFound, "there is no data folder of a server at %s", dir)
}

// gather fills the backup's folder and verifies what it wrote.
func gather(ctx context.Context, o BackupOptions, dir string) (m *manifest, report BackupReport, err error) {
	database := filepath.Join(dir, databaseName)
	if err := sqlite.Backup(ctx, filepath.Join(o.DataDir, databaseName), database, func(done, total int64) {
		o.Progress.tell("copying the database", done, total, "pages")
	}); err != nil {
		return nil, report, fmt.Errorf("backup: %w", err)
	}
	m = &manifest{Format: manifestFormat, Made: o.Now().UTC().Truncate(time.Second), Version: o.Version}
	if m.Files, err = copyKeys(filepath.Join(o.DataDir, keysName), filepath.Join(dir, keysName)); err != nil {
		return nil, report, fmt.Errorf("backup: keys: %w", err)
	}
	state, keys, err := verify(ctx, dir, o.Progress)
	if err != nil {
		return nil, report, err
	}
	m.Host, m.Checkpoint = keys.Host(), string(state.Checkpoint)
	f, err := sumFile(database, func(n int64) { o.Progress.tell("reading it for its checksum", n>>20, 0, "MiB") })
	if err != nil {
		return nil, report, err
	}
	f.Name = databaseName
	m.Files = append([]manifestFile{f}, m.Files...)
	for _, f := range m.Files {
		report.Bytes += f.Bytes
	}
	report.Host, report.Made, report.LedgerEntries = m.Host, m.Made, state.Size
	return m, report, nil
}

// copyKeys copies the files of the keys folder.
func copyKeys(from, to string) (files []manifestFile, err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, err
	}
	list, err := os.ReadDir(from)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue // of a key that was being written
		}
		f, err := copyFile(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), nil)
		if err != nil {
			return nil, err
		}
		f.Name = keysName + "/" + e.Name()
		files = append(files, f)
	}
	return files, syncPath(to)
}

// verify reads a copy: every page, the ledger's head with its checkpoint, and that the keys are those that the ledger announces.
func verify(ctx context.Context, dir string, progress Progress) (state store.LedgerState, keys *ledger.Keys, err error) {
	progress.tell("verifying the copy", 0, 0, "")
	path := filepath.Join(dir, databaseName)
	problems, err := sqlite.CheckFrozen(ctx, path)
	if err != nil {
		return state, nil, err
	}
	if len(problems) > 0 {
		return state, nil, chat.Errorf(chat.Invalid, "the copy is not whole, so there is no backup: %s; run letterlock check on the server's folder", problems[0])
	}
	if keys, err = ledger.ReadKeys(filepath.Join(dir, keysName)); err != nil {
		return state, nil, err
	}
	s := sqlite.OpenFrozen(path)
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, err := ledger.CheckQuick(ctx, s, keys); err != nil {
		return state, nil, chat.Wrap(chat.Tampered, err, "the ledger in the copy does not hold, so there is no backup; run letterlock check on the server's folder")
	}
	return state, keys, s.View(ctx, func(tx *store.Tx) error {
		state, err = tx.LedgerState(keys.Ledger.Name())
		return err
	})
}

// writeManifest completes the folder. The manifest is its last file: without one there is no backup.
func writeManifest(m *manifest, dir string) error {
	if err := m.checkFiles(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if len(data) > maxManifest {
		return chat.Errorf(chat.TooLarge, "the manifest is larger than %d bytes: is everything in the keys folder a key?", maxManifest)
	}
	path := filepath.Join(dir, manifestName)
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return err
	}
	return errors.Join(syncPath(path), syncPath(filepath.Join(dir, databaseName)), syncPath(dir))
}
