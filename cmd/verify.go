package cmd

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/proof"
)

func verifyCommand() *cobra.Command {
	var asJSON bool
	var vkey string
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a person's history with a partner from a file, offline",
		Long: `Checks a bundle that somebody gave you: every signature, every record's place in the person's history, and that the
public ledger holds each of them. It needs no network and trusts nobody but the ledger's key. Compare that key
with one from another source than the file, and give it with --ledger-key; without it the answer says so.

Exit code 0: it holds. 4: it does not. 1: the file cannot be read.`,
		Example: "  letterlock verify alice-flimmer.json\n  letterlock verify alice-flimmer.json --ledger-key 'example.org/letterlock+1a2b3c4d+Aa...' --json",
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			data, err := readBounded(a[0], proof.MaxBundle)
			if err != nil {
				return err
			}
			v, err := proof.Verify(data, proof.Pins{LedgerVKey: vkey})
			if err != nil {
				return chat.Wrap(chat.Unproven, err, "this file proves nothing")
			}
			return answer(c, asJSON, v, func(w io.Writer) { fmt.Fprint(w, v.Text()) })
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	c.Flags().StringVar(&vkey, "ledger-key", "", "the ledger's key, from a source you trust")
	return c
}

// readBounded reads a file of at most so many bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, chat.Wrap(chat.NotFound, err, "the file cannot be opened")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the file cannot be read")
	}
	if int64(len(data)) > most {
		return nil, chat.Errorf(chat.TooLarge, "the file is larger than %d bytes", most)
	}
	return data, nil
}
