package cmd

import (
	"os"

	"github.com/spf13/cobra"
)

// databaseFlag adds --database. Its default stays out of the help text, where a password would show.
func databaseFlag(cmd *cobra.Command, address *string) {
	cmd.Flags().StringVar(address, "database", "", "address of a PostgreSQL to use in place of the file in --data, like postgres://user@host/name; "+
		"with a password rather give it in the environment, as LETTERLOCK_DATABASE")
}

// databaseAddress is what the flag says, or else the environment.
func databaseAddress(flag string) string {
	if flag == "" {
		return os.Getenv("LETTERLOCK_DATABASE")
	}
	return flag
}
