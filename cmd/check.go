package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"letterlock/server"
)

func checkCommand() *cobra.Command {
	var data string
	var asJSON, progress bool
	var o server.CheckOptions
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify a server's data folder",
		Long: `Verify the data folder of a server that is not running: the database file; every conversation, replayed from
its founding (no gaps, one commit for each epoch, the roster, members, mailboxes); the whole ledger (every hash,
every record, the root against the signed checkpoint, and that it leads to what was published). The time it takes
grows with what is stored.

--quick looks at the pages of the file, the newest entries of each conversation against its register, and the head
of the ledger against its checkpoint. It does not see a gap in the middle of a log, a record that was changed, or a
roster that its commits do not give.

It changes nothing but the form of a database of an older version. Exit code 1 if anything is wrong, with a list.`,
		Example: `  letterlock check --data ./data
  letterlock check --data ./data --quick --json
  LETTERLOCK_DATABASE=postgres://letterlock:secret@db.example/letterlock letterlock check --data ./data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Database = databaseAddress(o.Database)
			o.Progress = progressOf(cmd, progress)
			report, err := server.Check(cmd.Context(), data, o)
			if err != nil {
				return err
			}
			if asJSON {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(report); err != nil {
					return err
				}
			} else {
				for _, p := range report.Problems {
					fmt.Fprintln(cmd.OutOrStdout(), p)
				}
				fmt.Fprintln(cmd.OutOrStdout(), verdict(report))
				if report.Overdue > 0 {
					fmt.Fprintf(cmd.OutOrStdout(), "%d entries wait to be deleted or emptied: the server does it when it runs\n", report.Overdue)
				}
			}
			if n := len(report.Problems); n > 0 {
				return fmt.Errorf("%d problems found: restore a backup, or ask for help with this list", n)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the server's data folder")
	databaseFlag(cmd, &o.Database)
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "look at heads and ends alone")
	cmd.Flags().BoolVar(&progress, "progress", false, "say how far it is, also where nobody looks (a terminal sees it anyway)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagDirname("data")
	return cmd
}

func verdict(r server.CheckReport) string {
	v := "clean"
	if len(r.Problems) > 0 {
		v = "NOT CLEAN"
	}
	if r.Quick {
		return fmt.Sprintf("%s, by a quick look: %d conversations with %d entries, %d ledger entries", v, r.Conversations, r.Entries, r.Ledger.Entries)
	}
	return fmt.Sprintf("%s: %d conversations with %d entries, %d ledger entries, %d records", v, r.Conversations, r.Entries, r.Ledger.Entries, r.Ledger.Records)
}
