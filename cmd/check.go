package cmd

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"letterlock/server"
)

func checkCommand() *cobra.Command {
	var data, database string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Verify a server's data folder",
		Long: `Verify the data folder of a server that is not running: the database file; every conversation, replayed from
its founding (no gaps, one commit for each epoch, the roster, members, mailboxes); the whole ledger (every hash,
every record, the root against the signed checkpoint). It changes nothing. Exit code 1 if anything is wrong.`,
		Example: `  letterlock check --data ./data
  LETTERLOCK_DATABASE=postgres://letterlock:secret@db.example/letterlock letterlock check --data ./data`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := server.Check(cmd.Context(), data, databaseAddress(database))
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
				verdict := "clean"
				if len(report.Problems) > 0 {
					verdict = "NOT CLEAN"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %d conversations with %d entries, %d ledger entries, %d records\n", verdict, report.Conversations,
					report.Entries, report.Ledger.Entries, report.Ledger.Records)
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
	databaseFlag(cmd, &database)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagDirname("data")
	return cmd
}
