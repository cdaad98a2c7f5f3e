// Command biglog fills the ledger in the data folder of a server that does not run with made-up public entries, so that outside judges
// have a log of several levels to read: biglog FOLDER ENTRIES. It knows files and folders of a server and measures nothing.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"letterlock/bench"
	"letterlock/ledger"
	"letterlock/store/sqlite"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "biglog:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("say: biglog FOLDER ENTRIES")
	}
	size, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil || size < 1 {
		return errors.New("ENTRIES must be a positive number")
	}
	keys, err := ledger.ReadKeys(filepath.Join(args[0], "keys"))
	if err != nil {
		return err
	}
	s, err := sqlite.Open(ctx, filepath.Join(args[0], "letterlock.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return bench.FillLedger(ctx, s, keys, size, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
}
