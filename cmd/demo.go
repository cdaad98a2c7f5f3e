package cmd

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"letterlock/demo"
)

func demoCommand() *cobra.Command {
	var keep, hostile bool
	var dir string
	c := &cobra.Command{
		Use:   "demo",
		Short: "Play the whole story on this machine: server, Alice, Bob and a film app, each a process of its own",
		Long: `Starts a server, Alice's and Bob's clients and the agent of Flimmer, a film app, each as a process of its own with its own
folder, and plays the story from the README. One line a step, with what was checked; exit code 0 only if all held.`,
		Example: "  letterlock demo\n  letterlock demo --keep\n  letterlock demo --hostile",
		Args:    args(0, 0),
		RunE: func(c *cobra.Command, _ []string) (err error) {
			binary, err := os.Executable()
			if err != nil {
				return err
			}
			if dir == "" {
				if dir, err = os.MkdirTemp("", "letterlock-demo-"); err != nil {
					return err
				}
				if !keep {
					defer os.RemoveAll(dir)
				}
			}
			s, err := demo.NewStage(binary, dir)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, s.Close()) }()
			if hostile {
				return demo.PlayHostile(c.Context(), s, c.OutOrStdout())
			}
			if err := demo.Play(c.Context(), s, c.OutOrStdout()); err != nil {
				return err
			}
			if keep {
				fmt.Fprintf(c.OutOrStdout(), keepText, s.URL(), binary, s.Home("alice"), binary, s.Home("bob"), binary, s.Home("server"))
				<-c.Context().Done()
			}
			return nil
		},
	}
	c.Flags().BoolVar(&keep, "keep", false, "leave everything running afterwards, until interrupted")
	c.Flags().BoolVar(&hostile, "hostile", false, "run a server that lies instead, and show how each lie is caught")
	c.MarkFlagsMutuallyExclusive("keep", "hostile")
	c.Flags().StringVar(&dir, "dir", "", "play in this folder instead of a temporary one")
	return c
}

const keepText = `
Everything is still running at %s. Try, in another terminal:
  %s client --home %s conversations
  %s client --home %s read alice/flimmer
  %s admin --data %s partner list
Press Ctrl-C to end it.
`
