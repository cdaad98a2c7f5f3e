package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// The names of what a data folder holds.
const (
	databaseName  = "letterlock.db"
	keysName      = "keys"
	publishedName = "published" // the newest checkpoint that was shown to anybody (spec/ledger.md section 9)
	lockName      = "lock"
	socketName    = "admin.sock"
)

// Progress is told how far a long work is: what is being done, how much of how much (total 0: not known), and of what.
type Progress func(what string, done, total int64, unit string)

// CheckOptions say how much Check reads.
type CheckOptions struct {
	Database string   // as in Config
	Quick    bool     // heads and ends alone
	Progress Progress // nil: nobody is told
}

// CheckReport is what a check of a data folder has verified, and what it found wrong.
type CheckReport struct {
	delivery.CheckReport
	Quick  bool               `json:"quick"`
	Ledger ledger.CheckReport `json:"ledger"`
}

// Check verifies a data folder that no server holds, with its database: the file, every conversation replayed from its founding, the
// whole ledger, and that it leads to the checkpoint that was published. Quick, it looks at the file's pages, the ends of the
// conversations and the head of the ledger. What is wrong stands in the report's Problems; an error means that it could not be checked.
func Check(ctx context.Context, dataDir string, o CheckOptions) (report CheckReport, err error) {
	needed := databaseName
	if o.Database != "" {
		needed = keysName
	}
	if _, err := os.Stat(filepath.Join(dataDir, needed)); err != nil {
		return report, chat.Wrap(chat.NotFound, err, "there is no data folder of a server at %s", dataDir)
	}
	lock, err := takeLock(filepath.Join(dataDir, lockName))
	if err != nil {
		return report, err
	}
	defer lock.Close()
	return check(ctx, dataDir, o)
}

// check is Check for whoever holds the folder.
func check(ctx context.Context, dir string, o CheckOptions) (report CheckReport, err error) {
	report.Quick = o.Quick
	if o.Database == "" {
		o.tell("reading the pages of the database", 0, 0, "")
		broken, err := sqlite.CheckFile(ctx, databaseFile(dir), o.Quick)
		if err != nil {
			return report, fmt.Errorf("check: database: %w", err)
		}
		if len(broken) > 0 { // what follows would be read from a broken file
			report.Problems = broken
			return report, nil
		}
	}
	s, err := openStore(ctx, dir, o.Database)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return report, report.read(ctx, s, dir, o)
}

// read checks what a store holds, by the keys and the published checkpoint in dir.
func (r *CheckReport) read(ctx context.Context, s *store.Store, dir string, o CheckOptions) (err error) {
	conversations := delivery.Check
	if o.Quick {
		conversations = delivery.CheckQuick
	}
	r.CheckReport, err = conversations(ctx, s, func(r delivery.CheckReport) {
		o.tell("reading conversations", int64(r.Entries), 0, "entries")
	})
	if err != nil {
		return err
	}
	return r.checkLedger(ctx, s, dir, o)
}

func (r *CheckReport) checkLedger(ctx context.Context, s *store.Store, dir string, o CheckOptions) error {
	keys, err := ledger.ReadKeys(filepath.Join(dir, keysName))
	if err != nil {
		return err
	}
	o.tell("the ledger", 0, 0, "")
	of := ledger.Check
	if o.Quick {
		of = ledger.CheckQuick
	}
	if r.Ledger, err = of(ctx, s, keys); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	published, err := os.ReadFile(filepath.Join(dir, publishedName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = ledger.Covers(ctx, s, keys, published)
	}
	if err != nil {
		r.Problems = append(r.Problems, "ledger check: "+err.Error())
	}
	return nil
}

func (o CheckOptions) tell(what string, done, total int64, unit string) {
	o.Progress.tell(what, done, total, unit)
}

func (p Progress) tell(what string, done, total int64, unit string) {
	if p != nil {
		p(what, done, total, unit)
	}
}
