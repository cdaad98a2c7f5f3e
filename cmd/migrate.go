package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"letterlock/server"
	"letterlock/store/move"
)

func migrateCommand() *cobra.Command {
	var data, database string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Move a server's database from its data folder to PostgreSQL",
		Long: `Move the database of a server that is not running from its data folder to an empty PostgreSQL. Stopped or killed, the
same command goes on where it was. At the end both sides are read whole and compared, and the copy is checked as
letterlock check does, ledger included; only then is the folder marked as moved, and letterlock serve refuses to
start on it without --database. The database file in the folder stays as it was. Keys and admin socket stay in the
folder for good.`,
		Example: `  createdb letterlock
  LETTERLOCK_DATABASE=postgres://letterlock:secret@db.example/letterlock letterlock migrate --data ./data
  LETTERLOCK_DATABASE=postgres://letterlock:secret@db.example/letterlock letterlock serve --data ./data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			address := databaseAddress(database)
			if address == "" {
				return fmt.Errorf("%w: --database or LETTERLOCK_DATABASE must say where to", errUsage)
			}
			progress := &migrateProgress{w: cmd.ErrOrStderr()}
			report, err := server.Migrate(cmd.Context(), data, address, progress.tell)
			if err != nil {
				return err
			}
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(report)
			}
			printMigrated(cmd.OutOrStdout(), data, report)
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the server's data folder")
	databaseFlag(cmd, &database)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagDirname("data")
	return cmd
}

func printMigrated(w io.Writer, data string, r server.MigrateReport) {
	if r.Already {
		fmt.Fprintf(w, "moved to %s before; nothing is left to do\n", r.Database)
		return
	}
	var rows int64
	for _, t := range r.Tables {
		rows += t.Rows
	}
	fmt.Fprintf(w, "moved to %s: %d tables with %d rows, the same on both sides\n", r.Database, len(r.Tables), rows)
	fmt.Fprintf(w, "the copy is clean: %d conversations with %d entries, a ledger of %d entries with root %s\n", r.Check.Conversations, r.Check.Entries,
		r.LedgerSize, r.LedgerRoot)
	fmt.Fprintf(w, "the keys stay in %s: from now on start with letterlock serve --data %s and --database or LETTERLOCK_DATABASE\n", data, data)
}

// migrateProgress prints a line at each step and, while one takes long, every second.
type migrateProgress struct {
	w       io.Writer
	step    string
	begun   time.Time // the step
	before  int64     // rows that were done by then
	printed time.Time
}

func (m *migrateProgress) tell(p move.Progress) {
	now := time.Now()
	if p.Step != m.step {
		m.step, m.begun, m.before, m.printed = p.Step, now, p.Done, time.Time{}
	}
	if p.Total == 0 {
		fmt.Fprintf(m.w, "%s\n", p.Step)
		return
	}
	if now.Sub(m.printed) < time.Second && p.Done < p.Total {
		return
	}
	m.printed = now
	line := fmt.Sprintf("%s %s: %d of %d rows, %.0f %% of all", p.Step, p.Table, p.Rows, p.Of, 100*float64(p.Done)/float64(p.Total))
	if seconds := now.Sub(m.begun).Seconds(); seconds > 1 && p.Done > m.before {
		rate := float64(p.Done-m.before) / seconds
		left := time.Duration(float64(p.Total-p.Done) / rate * float64(time.Second))
		line += fmt.Sprintf(", %.0f rows/s, %s left", rate, left.Round(time.Second))
	}
	fmt.Fprintln(m.w, line)
}
