package cmd

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"letterlock/server"
)

func (f *adminFlags) compactCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compact", Short: "Give the room of deleted messages back to the disk", Args: args(0, 0),
		Long: `Writes the database file anew without the pages that nothing uses. The server must be stopped; the disk must have room for the file
a second time while it runs. There is no need to: a running server fills those pages with new messages by itself. It is for a disk
that should hold less than it once did. With PostgreSQL, autovacuum does the same as the running server here, and VACUUM FULL as this.`,
		Example: "  letterlock admin --data ./data compact",
		RunE: func(c *cobra.Command, _ []string) error {
			if f.data == "" {
				return fmt.Errorf("%w: name the server's data folder with --data DIR", errUsage)
			}
			got, err := server.Compact(c.Context(), f.data)
			if err != nil {
				return err
			}
			return answer(c, f.json, got, func(w io.Writer) {
				fmt.Fprintf(w, "The database had %d bytes and has %d now.\n", got.Before, got.After)
			})
		},
	}
}
