package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/ledger"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// CheckReport is what a check of a data folder has verified, and what it found wrong.
type CheckReport struct {
	delivery.CheckReport
	Ledger ledger.CheckReport `json:"ledger"`
}

// Check verifies a data folder that no server holds, with its database (as in Config): the file, every conversation replayed from its
// founding, the whole ledger. What is wrong stands in the report's Problems; an error means that it could not be checked.
func Check(ctx context.Context, dataDir, database string) (report CheckReport, err error) {
	needed := filepath.Join(dataDir, "keys")
	if database == "" {
		needed = databaseFile(dataDir)
	}
	if _, err := os.Stat(needed); err != nil {
		return report, chat.Wrap(chat.NotFound, err, "there is no data folder of a server at %s", dataDir)
	}
	lock, err := takeLock(filepath.Join(dataDir, "lock"))
	if err != nil {
		return report, err
	}
	defer lock.Close()
	if database == "" {
		broken, err := sqlite.CheckFile(ctx, databaseFile(dataDir))
		if err != nil {
			return report, fmt.Errorf("check: database: %w", err)
		}
		if len(broken) > 0 { // what follows would be read from a broken file
			report.Problems = broken
			return report, nil
		}
	}
	s, err := openStore(ctx, dataDir, database)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	keys, err := presentKeys(filepath.Join(dataDir, "keys"))
	if err != nil {
		return report, err
	}
	return report, report.read(ctx, s, keys)
}

// read checks what a store holds.
func (r *CheckReport) read(ctx context.Context, s *store.Store, keys *ledger.Keys) (err error) {
	if r.CheckReport, err = delivery.Check(ctx, s); err != nil {
		return err
	}
	if r.Ledger, err = ledger.Check(ctx, s, keys); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	return nil
}

// presentKeys reads the keys of a server that was started before. Its host stands in the name of the log's key.
func presentKeys(dir string) (*ledger.Keys, error) {
	text, err := os.ReadFile(filepath.Join(dir, "ledger.key"))
	if err != nil {
		return nil, chat.Wrap(chat.NotFound, err, "the folder holds no keys of a server")
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, chat.Errorf(chat.Invalid, "ledger.key is malformed")
	}
	host, ok := strings.CutSuffix(signer.Name(), "/letterlock")
	if !ok {
		return nil, chat.Errorf(chat.Invalid, "ledger.key is not of a letterlock server")
	}
	return ledger.LoadKeys(dir, host)
}
