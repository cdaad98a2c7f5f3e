package cmd

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/proof"
)

func (f *clientFlags) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Check that the public ledger holds nothing about you that you were not shown", Args: args(0, 0),
		Long: `Follows the public ledger and its witnesses, reads every agreement in it, and has the server prove for each partner that
your history ends where this device says, and that everybody is shown the keys that you see. The client does that by itself
once a day and whenever you allow or end something; this does it now. A lie is kept as evidence.`,
		Example: "  letterlock client --home ./alice check\n  letterlock client --home ./alice check --json\n  letterlock client --home ./alice evidence --out lies.json",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			r, failed := d.Check(ctx)
			err := f.answer(c, r, func(w io.Writer) {
				for _, l := range r.Lines {
					if l.OK {
						fmt.Fprintln(w, l.Sentence)
					}
				}
			})
			if failed != nil {
				return failed
			}
			return err
		}),
	}
}

// verifyEvidence says what a file of evidence shows to others. Where nothing in it convicts the ledger, that is an error: exit code 4.
func verifyEvidence(c *cobra.Command, asJSON bool, data []byte, vkey string) error {
	v, err := proof.VerifyEvidence(data, vkey)
	if err != nil {
		return chat.Wrap(chat.Unproven, err, "this file proves nothing")
	}
	if err := answer(c, asJSON, v, func(w io.Writer) { fmt.Fprint(w, v.Text()) }); err != nil || v.Convicted {
		return err
	}
	return chat.Errorf(chat.Unproven, "nothing in this file convicts the ledger by itself")
}
