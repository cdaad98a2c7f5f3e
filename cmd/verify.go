package cmd

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/proof"
)

func verifyCommand() *cobra.Command {
	var asJSON bool
	var vkey, policy string
	var told telling
	c := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a person's history with a partner from a file, offline",
		Long: `Checks a bundle that somebody gave you: every signature, every record's place in the person's history, that the
public ledger holds each of them, and that it holds no others. It needs no network and trusts nobody but the ledger's
key and the witnesses that you name. Take both from another source than the file, and give them with --ledger-key
and --policy; without them the answer says so. The first line says what the file proves:

  never        nothing was ever granted, and nothing could be read
  never-read   something was granted, and nothing could be read
  exposed      the partner could read, by a grant of somebody else in the thread
  access       the partner could read, by this person's own grant
  keys         these were the keys of the person's devices
  erased       what would tell was erased or is withheld

Exit code 0: it holds. 4: it does not, or it proves something else than --expect names. 1: the file cannot be read.`,
		Example: "  letterlock verify alice-flimmer.json\n  letterlock verify alice-flimmer.json --policy witnesses.txt --expect never --json",
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, a []string) error {
			if err := told.check(); err != nil {
				return err
			}
			pins := proof.Pins{LedgerVKey: vkey}
			data, err := readBounded(a[0], proof.MaxBundle)
			if err != nil {
				return err
			}
			if proof.IsEvidence(data) {
				return verifyEvidence(c, asJSON, data, vkey)
			}
			if pins.Policy, err = readPolicy(policy); err != nil {
				return err
			}
			if pins.Policy != nil {
				if _, err := proof.ParsePolicy(pins.Policy); err != nil {
					return err
				}
			}
			v, err := proof.Verify(data, pins)
			if err != nil {
				return chat.Wrap(chat.Unproven, err, "%s", told.nothing())
			}
			v.Speak(told.lang)
			if err := answer(c, asJSON, v, func(w io.Writer) { fmt.Fprint(w, v.Text()) }); err != nil {
				return err
			}
			return told.expected(v)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	c.Flags().StringVar(&vkey, "ledger-key", "", "the ledger's key, from a source you trust")
	c.Flags().StringVar(&policy, "policy", "", "file with the witness policy, from a source you trust")
	told.flags(c)
	return orBinary(c, &asJSON, &vkey)
}

// telling is how a verdict is to be told, and what it should be.
type telling struct {
	inLang, expect string
	lang           proof.Lang
}

func (t *telling) flags(c *cobra.Command) {
	c.Flags().StringVar(&t.inLang, "lang", "en", "language of the answer: en or de")
	c.Flags().StringVar(&t.expect, "expect", "", "what it should prove: never, never-read, exposed, access or keys")
}

func (t *telling) check() (err error) {
	if t.lang, err = proof.ParseLang(t.inLang); err != nil {
		return fmt.Errorf("%w: --lang: %v", errUsage, err)
	}
	if t.expect != "" && !slices.Contains(proof.VerdictKinds, proof.VerdictKind(t.expect)) {
		return fmt.Errorf("%w: --expect wants never, never-read, exposed, access or keys", errUsage)
	}
	return nil
}

// expected refuses a verdict of another kind than the expected one.
func (t *telling) expected(v *proof.Verdict) error {
	if t.expect == "" || v.Kind == proof.VerdictKind(t.expect) {
		return nil
	}
	return chat.Errorf(chat.Unproven, "the file holds, but it proves %q, not %q", v.Kind, t.expect)
}

func (t *telling) nothing() string {
	if t.lang == proof.German {
		return "diese Datei beweist nichts"
	}
	return "this file proves nothing"
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
