package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
)

// erasure is how `client erase` was called.
type erasure struct {
	flags   *clientFlags
	device  *device.Client
	before  time.Time // zero: everything
	out     string    // of the final proof; empty: HANDLE-PARTNER-final.json
	noProof bool
	yes     bool
}

// erasedPartner is what came of it.
type erasedPartner struct {
	device.Erased
	File string `json:"file,omitempty"` // the final proof
}

func (f *clientFlags) eraseCommand() *cobra.Command {
	e := &erasure{flags: f}
	var before string
	var all bool
	c := &cobra.Command{
		Use:   "erase PARTNER | --all",
		Short: "Have the contents of your history with a partner deleted; first it writes the final proof",
		Long: `The server deletes what the records of your history with a partner say, and the salts without which nobody can open
their seals in the ledger. The seals stay: how many records there were, and that none is missing, can still be
proven; what they said cannot be proven by anybody any more, you included.

So a final proof is written to a file first, as letterlock client proof does. It opens what it holds for whoever has
it: keep it safe, or delete it as well. Records of permissions that still stand stay; end them first.
Copies that others have (proofs that you gave away, backups of the server until they are deleted, what the partner's
app has) are out of reach. What a permission said also stays in the thread that it let the app into, for its members.`,
		Example: `  letterlock client --home ./alice erase flimmer
  letterlock client --home ./alice erase flimmer --before 2026-06-01 --yes
  letterlock client --home ./alice erase --all --no-proof`,
		Args: args(0, 1),
		RunE: func(c *cobra.Command, a []string) error {
			if all == (len(a) == 1) {
				return fmt.Errorf("%w: name a partner, or --all", errUsage)
			}
			if all && e.out != "" {
				return fmt.Errorf("%w: --out is for one partner", errUsage)
			}
			if before != "" {
				day, err := time.Parse("2006-01-02", before)
				if err != nil {
					return fmt.Errorf("%w: --before wants a day like 2026-06-01", errUsage)
				}
				e.before = day
			}
			return f.with(e.run)(c, a)
		},
	}
	c.Flags().StringVar(&before, "before", "", "only what is from before this day (UTC)")
	c.Flags().BoolVar(&all, "all", false, "the history with every partner")
	c.Flags().StringVar(&e.out, "out", "", "the file of the final proof (default HANDLE-PARTNER-final.json); it must not exist")
	c.Flags().BoolVar(&e.noProof, "no-proof", false, "write no final proof")
	c.Flags().BoolVar(&e.yes, "yes", false, "do not ask")
	return c
}

func (e *erasure) run(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
	e.device = d
	partners, err := partnersOf(ctx, d, a)
	if err != nil {
		return err
	}
	done := []erasedPartner{}
	for _, p := range partners {
		one, err := e.partner(ctx, c, p)
		if err != nil {
			return err
		}
		if one != nil {
			done = append(done, *one)
		}
	}
	return e.flags.answer(c, done, func(w io.Writer) {
		if len(done) == 0 {
			fmt.Fprintln(w, "Nothing was erased.")
		}
		for _, one := range done {
			one.print(w)
		}
	})
}

func (p *erasedPartner) print(w io.Writer) {
	fmt.Fprintf(w, "%s: %d records erased.", p.Partner, p.Erased.Erased)
	if p.Erased.Erased > 0 {
		fmt.Fprint(w, " Their seals stay in the ledger; nobody can open them.")
	}
	fmt.Fprintln(w)
	if p.Kept > 0 {
		fmt.Fprintf(w, "%d records stay, because they are about permissions that still stand: %s. End them first: letterlock client revoke GRANT\n", p.Kept, strings.Join(p.Standing, ", "))
	}
	if p.File != "" {
		fmt.Fprintf(w, "The final proof is in %s.\n", p.File)
	}
}

// partner erases the history with one partner; nil: there was nothing, or the person said no.
func (e *erasure) partner(ctx context.Context, c *cobra.Command, partner string) (*erasedPartner, error) {
	n, err := e.device.Erasable(ctx, partner, e.before)
	if err != nil || n == 0 {
		return nil, err
	}
	if !e.yes {
		fmt.Fprintf(c.ErrOrStderr(), "%d records of your history with %s lose what they say, for good. What was granted, read and posted there can then not be proven any more.\n", n, partner)
		if !e.noProof {
			fmt.Fprintf(c.ErrOrStderr(), "Before that a final proof is written to %s.\n", e.file(partner))
		}
		if ok, err := askYes(c, "Erase? [y/N] "); err != nil || !ok {
			return nil, err
		}
	}
	done := &erasedPartner{}
	if !e.noProof {
		if done.File, err = e.proof(ctx, partner); err != nil {
			return nil, err
		}
	}
	done.Erased, err = e.device.EraseHistory(ctx, partner, e.before)
	if err == nil && done.Erased.Erased == 0 && done.File != "" { // all of it stays: nothing ended
		err, done.File = os.Remove(done.File), ""
	}
	return done, err
}

func (e *erasure) file(partner string) string {
	if e.out != "" {
		return e.out
	}
	return fmt.Sprintf("%s-%s-final.json", e.device.Self().Handle, partner)
}

// proof writes the final proof into a new file, and returns when it is on disk.
func (e *erasure) proof(ctx context.Context, partner string) (file string, err error) {
	data, _, err := e.device.Proof(ctx, partner)
	if err != nil {
		return "", chat.Wrap(chat.KindOf(err), err, "the final proof cannot be made, and nothing was erased (--no-proof erases without one)")
	}
	file = e.file(partner)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", chat.Errorf(chat.Exists, "there is a file %s already, and nothing was erased: name another with --out, or move that one away", file)
	}
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return "", chat.Wrap(chat.Invalid, err, "the final proof cannot be written, and nothing was erased")
	}
	return file, nil
}
