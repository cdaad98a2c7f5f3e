package cmd

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"letterlock/server"
)

func backupCommand() *cobra.Command {
	o := server.BackupOptions{Version: version(), Now: time.Now}
	var asJSON, progress bool
	cmd := &cobra.Command{
		Use:   "backup --data DIR --out BACKUP",
		Short: "Copy a server's database and keys, while it runs",
		Long: `Copy the database and the keys of a server, as they are at one moment, into a new folder. The server may run: it is not
stopped and not locked out; while the copy is made its write-ahead log grows by what is written meanwhile. The copy is
verified (every page, the ledger against its checkpoint) and synced before it gets its name. A backup replaces nothing.

THE BACKUP HOLDS THE SERVER'S SECRET KEYS. Whoever has it can speak as this server. Folder and files can be read by
their owner alone; keep it encrypted where you carry it to. What it does not hold: what people wrote, which no
server can read.

A server that keeps its database in PostgreSQL is backed up with pg_dump or pg_basebackup and a copy of the keys folder.`,
		Example: `  letterlock backup --data ./data --out ./backup-1
  letterlock backup --data /var/lib/letterlock --out /mnt/backup/letterlock-2026-11-02 --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Progress = progressOf(cmd, progress)
			report, err := server.Backup(cmd.Context(), o)
			if err != nil {
				return err
			}
			return answer(cmd, asJSON, report, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %d bytes of %s, with its secret keys and %d ledger entries. Verified.\n", report.Backup, report.Bytes, report.Host, report.LedgerEntries)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.DataDir, "data", "", "the server's data folder")
	f.StringVar(&o.Out, "out", "", "the folder to make; it must not be there")
	f.BoolVar(&progress, "progress", false, "say how far it is, also where nobody looks (a terminal sees it anyway)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	for _, name := range []string{"data", "out"} {
		cmd.MarkFlagRequired(name)
		cmd.MarkFlagDirname(name)
	}
	return cmd
}

// maxWitnessed is the most that is read of a checkpoint, in bytes.
const maxWitnessed = 64 << 10

func restoreCommand() *cobra.Command {
	var o server.RestoreOptions
	var witnessed []string
	var asJSON, progress bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP --data DIR",
		Short: "Make a server's data folder from a backup",
		Long: `Make a data folder from a backup, in a folder that is empty or not there, or that lost its database and nothing else.
The backup is held against its manifest and checked as letterlock check does, before anything is in its place.

A restored ledger never publishes a smaller tree than was seen. Give the newest checkpoint that anybody has with
--witnessed: the file "published" of the old data folder, or what a client or a witness kept. A backup that is older
than that is refused, and so is one that leads elsewhere. Without one, the backup is taken at its word; people whose
devices saw a newer checkpoint will then be told that the server contradicts itself, and stop.`,
		Example: `  letterlock restore ./backup-1 --data ./restored --witnessed ./data/published
  letterlock restore ./backup-1 --data ./restored --quick`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			o.Backup, o.Progress = a[0], progressOf(cmd, progress)
			for _, path := range witnessed {
				c, err := readBounded(path, maxWitnessed)
				if err != nil {
					return err
				}
				o.Witnessed = append(o.Witnessed, c)
			}
			report, err := server.Restore(cmd.Context(), o)
			if err != nil {
				return err
			}
			return answer(cmd, asJSON, report, func(w io.Writer) {
				fmt.Fprintf(w, "%s: %s, %s\n", report.Data, report.Host, verdict(report.Check))
				if report.Compared == 0 {
					fmt.Fprintf(w, "No checkpoint was given to compare with: whoever saw a ledger of %s with more than %d entries will refuse this server.\n", report.Host, report.LedgerEntries)
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.DataDir, "data", "", "the folder to make")
	f.StringArrayVar(&witnessed, "witnessed", nil, "file with a checkpoint that was seen, as often as you have some")
	f.BoolVar(&o.Quick, "quick", false, "check quickly")
	f.BoolVar(&progress, "progress", false, "say how far it is, also where nobody looks (a terminal sees it anyway)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagDirname("data")
	return cmd
}

// progressOf prints on standard error how far a long work is, once a second with the rate, for a terminal or where it is asked for.
func progressOf(cmd *cobra.Command, asked bool) server.Progress {
	w := cmd.ErrOrStderr()
	if f, ok := w.(*os.File); !asked && !(ok && term.IsTerminal(int(f.Fd()))) {
		return nil
	}
	var said time.Time
	var before int64
	var stage string
	return func(what string, done, total int64, unit string) {
		now := time.Now()
		if unit == "" {
			fmt.Fprintln(w, what)
			return
		}
		if now.Sub(said) < time.Second {
			return
		}
		text := fmt.Sprintf("%s: %d", what, done)
		if total > 0 {
			text += fmt.Sprintf(" of %d", total)
		}
		text += " " + unit
		if what == stage {
			text += fmt.Sprintf(", %.0f/s", float64(done-before)/now.Sub(said).Seconds())
		}
		fmt.Fprintln(w, text)
		said, before, stage = now, done, what
	}
}
