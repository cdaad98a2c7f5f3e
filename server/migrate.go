package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/move"
	"letterlock/store/postgres"
	"letterlock/store/sqlite"
)

// MigrateReport says what was moved, and that it is the same on both sides.
type MigrateReport struct {
	Database   string       `json:"database"` // where to, without a password
	Already    bool         `json:"already"`  // it had been moved before; nothing was done, and the rest is empty
	Tables     []move.Table `json:"tables"`
	Check      CheckReport  `json:"check"` // of the copy
	LedgerSize int64        `json:"ledger_size"`
	LedgerRoot string       `json:"ledger_root"` // hex
}

// Migrate moves the database of a data folder that no server holds into a PostgreSQL, checks what has arrived, and marks the folder
// as moved. Until then it changes nothing in the folder's database but to bring its schema up to date. Interrupted at any moment, it goes
// on where it stopped when it is called again.
func Migrate(ctx context.Context, dataDir, address string, tell func(move.Progress)) (r MigrateReport, err error) {
	if !postgres.IsURL(address) {
		return r, chat.Errorf(chat.Invalid, "--database takes the address of a PostgreSQL to move to, postgres://user:password@host:5432/name")
	}
	if _, err := os.Stat(databaseFile(dataDir)); err != nil {
		return r, chat.Wrap(chat.NotFound, err, "there is no data folder of a server at %s", dataDir)
	}
	lock, err := takeLock(filepath.Join(dataDir, lockName))
	if err != nil {
		return r, err
	}
	defer lock.Close()
	r.Database = withoutPassword(address)
	mark, err := readMark(dataDir, movedFile)
	if err == nil {
		if mark.To != r.Database {
			return r, chat.Errorf(chat.Exists, "this installation was moved to %s already, which is the truth from then on", mark.To)
		}
		r.Already = true
		return r, postgres.Finish(ctx, address, mark.Copy)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	err = r.move(ctx, dataDir, address, tell)
	if err != nil && ctx.Err() != nil {
		return r, chat.Wrap(chat.Unavailable, ctx.Err(), "stopped; the same command goes on from here")
	}
	return r, err
}

// move is Migrate on a folder that was not moved yet.
func (r *MigrateReport) move(ctx context.Context, dataDir, address string, tell func(move.Progress)) (err error) {
	keys, err := ledger.ReadKeys(filepath.Join(dataDir, keysName))
	if err != nil {
		return err
	}
	tell(move.Progress{Step: "checking the file"})
	broken, err := sqlite.CheckFile(ctx, databaseFile(dataDir), false)
	if err != nil {
		return fmt.Errorf("migrate: database: %w", err)
	}
	if err := sound(broken, "the database in the data folder"); err != nil {
		return err
	}
	source, err := sqlite.Open(ctx, databaseFile(dataDir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	mark, err := beginMark(dataDir, r.Database)
	if err != nil {
		return err
	}
	m, err := move.Begin(ctx, databaseFile(dataDir), address, move.Origin{Installation: keys.LedgerVKey(), Copy: mark.Copy})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	if err := m.Copy(ctx, tell); err != nil {
		return err
	}
	if r.Tables, err = m.Compare(ctx, tell); err != nil {
		return err
	}
	tell(move.Progress{Step: "checking the copy"})
	if err := r.verify(ctx, source, dataDir, address, keys); err != nil {
		return err
	}
	if err := endMark(dataDir); err != nil {
		return err
	}
	return postgres.Finish(ctx, address, mark.Copy)
}

// verify checks the copy as letterlock check does, and that both sides publish the same ledger.
func (r *MigrateReport) verify(ctx context.Context, source *store.Store, dataDir, address string, keys *ledger.Keys) (err error) {
	copied, err := postgres.Open(ctx, address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, copied.Close()) }()
	if err := r.Check.read(ctx, copied, dataDir, CheckOptions{}); err != nil {
		return err
	}
	if err := sound(r.Check.Problems, "what the data folder holds"); err != nil {
		return err
	}
	was, err := ledgerState(ctx, source, keys)
	if err != nil {
		return err
	}
	is, err := ledgerState(ctx, copied, keys)
	if err != nil {
		return err
	}
	if is.Size != was.Size || is.Root != was.Root {
		return chat.Errorf(chat.Mismatch, "the copy's ledger has %d entries and root %x, the data folder's %d and %x", is.Size, is.Root, was.Size, was.Root)
	}
	r.LedgerSize, r.LedgerRoot = is.Size, hex.EncodeToString(is.Root[:])
	return nil
}

func ledgerState(ctx context.Context, s *store.Store, keys *ledger.Keys) (state store.LedgerState, err error) {
	err = s.View(ctx, func(tx *store.Tx) error {
		state, err = tx.LedgerState(keys.Ledger.Name())
		return err
	})
	return state, err
}

func sound(problems []string, what string) error {
	if len(problems) == 0 {
		return nil
	}
	return chat.Errorf(chat.Invalid, "%s is damaged, so that nothing was marked as moved: %s (%d problems). Run letterlock check, restore a backup", what, problems[0], len(problems))
}

// movedMark is a file of the data folder (spec/migrate.md): "moving" since a copy was begun, for as long as it is one of what the folder
// holds; "moved" when the copy is complete and has taken the folder's place.
type movedMark struct {
	To   string `json:"to"`   // address without password
	Copy string `json:"copy"` // random; stands in the copy too
}

const (
	movingFile = "moving"
	movedFile  = "moved"
	maxMark    = 64 << 10
)

// refuseMoved is for a server that starts on the folder's own database: there is none where it was moved away, and what it writes makes
// a copy that was begun worthless.
func refuseMoved(dataDir string) error {
	mark, err := readMark(dataDir, movedFile)
	if err == nil {
		return chat.Errorf(chat.Invalid, "this installation was moved to %s: start it with --database and that address. The database in %s is what it was before", mark.To, dataDir)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err = os.Remove(filepath.Join(dataDir, movingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return chat.Wrap(chat.Invalid, err, "the data folder cannot be used")
	}
	return syncFolder(dataDir)
}

func readMark(dataDir, name string) (mark movedMark, err error) {
	path := filepath.Join(dataDir, name)
	info, err := os.Stat(path)
	if err != nil {
		return mark, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return mark, err
	}
	if info.Size() > maxMark || json.Unmarshal(text, &mark) != nil || mark.To == "" || mark.Copy == "" {
		return mark, chat.Errorf(chat.Invalid, "%s is not what letterlock migrate wrote: has the installation been moved? If you are sure that it has not, delete that file", path)
	}
	return mark, nil
}

// beginMark finds the copy that was begun to an address, or begins one.
func beginMark(dataDir, to string) (mark movedMark, err error) {
	mark, err = readMark(dataDir, movingFile)
	if err == nil && mark.To == to {
		return mark, nil
	}
	random := chat.NewToken()
	mark = movedMark{To: to, Copy: hex.EncodeToString(random[:])}
	text, err := json.Marshal(mark)
	if err != nil {
		return mark, err
	}
	f, err := os.CreateTemp(dataDir, ".new-*") // mode 0600
	if err != nil {
		return mark, chat.Wrap(chat.Invalid, err, "the data folder cannot be written to")
	}
	defer os.Remove(f.Name()) // after the rename there is nothing
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return mark, err
	}
	if err := os.Rename(f.Name(), filepath.Join(dataDir, movingFile)); err != nil {
		return mark, err
	}
	return mark, syncFolder(dataDir)
}

// endMark is the moment at which the folder has moved.
func endMark(dataDir string) error {
	if err := os.Rename(filepath.Join(dataDir, movingFile), filepath.Join(dataDir, movedFile)); err != nil {
		return err
	}
	return syncFolder(dataDir)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// withoutPassword is an address that may be shown and kept: scheme, user, host, name.
func withoutPassword(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "a PostgreSQL" // opening it will say what is wrong
	}
	shown := url.URL{Scheme: "postgres", Host: u.Host, Path: u.Path}
	if name := u.User.Username(); name != "" {
		shown.User = url.User(name)
	}
	return shown.String()
}
