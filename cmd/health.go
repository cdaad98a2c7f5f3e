package cmd

import (
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"letterlock/chat"
)

func healthCommand() *cobra.Command {
	var data string
	var asJSON bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Say whether the server on a data folder answers",
		Long: `Ask the server that holds a data folder, over its admin socket, whether it takes requests. Exit code 0 if it does, 5 if not.
It is what a container's health check runs.`,
		Example: `  letterlock health --data ./data`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if data == "" {
				return fmt.Errorf("%w: name the server's data folder with --data DIR or LETTERLOCK_DATA", errUsage)
			}
			req, err := http.NewRequestWithContext(c.Context(), http.MethodGet, "http://admin/healthz", nil)
			if err != nil {
				return err
			}
			resp, err := adminClient(data).Do(req)
			if err != nil {
				return chat.Wrap(chat.Unavailable, err, "no server answers on %s", data)
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return chat.Errorf(chat.Unavailable, "the server on %s answers %s", data, resp.Status)
			}
			return answer(c, asJSON, map[string]bool{"healthy": true}, func(w io.Writer) { fmt.Fprintln(w, "ok") })
		},
	}
	c.Flags().StringVar(&data, "data", os.Getenv("LETTERLOCK_DATA"), "the server's data folder (LETTERLOCK_DATA)")
	c.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	c.MarkFlagDirname("data")
	return c
}
