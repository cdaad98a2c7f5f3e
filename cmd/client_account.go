package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"rsc.io/qr"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/keychain"
	"letterlock/proof"
	"letterlock/vault"
)

func (f *clientFlags) accountCommands() []*cobra.Command {
	return []*cobra.Command{
		f.signupCommand(), f.recoverCommand(), f.whoamiCommand(), f.friendsCommand(), f.safetyNumberCommand(), f.devicesCommand(),
		f.backupCommand(), f.restoreCommand(),
	}
}

func hostname() string {
	if name, err := os.Hostname(); err == nil && name != "" && len(name) <= 64 {
		return name
	}
	return "command line"
}

func (f *clientFlags) signupCommand() *cobra.Command {
	var server, name, invite, policyFile string
	c := &cobra.Command{
		Use:   "signup HANDLE --server URL",
		Short: "Take a handle on a server; shows the recovery phrase, once",
		Example: `  letterlock client --home ./alice signup alice --server http://127.0.0.1:8080
  letterlock client --home ./alice signup alice --server https://chat.example --invite CODE
  letterlock client --home ./alice signup alice --server https://chat.example --policy chat.example.policy`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.inFolder(func(v *vault.Vault, l *line) error {
				policy, err := readPolicy(policyFile)
				if err != nil {
					return err
				}
				d, phrase, err := device.SignUp(c.Context(), device.Config{State: DeviceState(v), Dial: l.dial, Invite: invite, Policy: policy}, server, args[0], name)
				if err != nil {
					return err
				}
				out := struct {
					device.Self
					Recovery string `json:"recovery_phrase"`
					Policy   string `json:"witness_policy"`
				}{d.Self(), phrase, d.WitnessPolicy()}
				err = f.answer(c, out, func(w io.Writer) {
					fmt.Fprintf(w, "You are %s on %s.\n\nYour recovery phrase. It is shown once and kept nowhere: write it down.\nWho has it can take over the account; without it a lost device cannot be replaced.\n\n%s\n\n%s\n", args[0], out.Host, wrapWords(phrase, 6), policySentence(policy, out.Policy))
				})
				if err != nil {
					return err
				}
				return d.PhraseShown()
			})
		},
	}
	c.Flags().StringVar(&server, "server", os.Getenv("LETTERLOCK_SERVER"), "the server's URL (LETTERLOCK_SERVER)")
	c.Flags().StringVar(&name, "device-name", hostname(), "what this device is called; your friends can see it")
	c.Flags().StringVar(&policyFile, "policy", "", "a file with the witness policy to hold the ledger against, from a source you trust; without it, what the server shows now")
	c.Flags().StringVar(&invite, "invite", "", "the code of an invitation, where the server asks for one")
	return c
}

// readPolicy reads a witness policy; nil where no file is named.
func readPolicy(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	return readBounded(path, proof.MaxPolicy)
}

// policySentence says whose word the ledger is held against from here on.
func policySentence(given []byte, policy string) string {
	switch {
	case given != nil:
		return "The ledger is held against the witness policy that you gave."
	case policy == "":
		return "The ledger has no witnesses yet: that it is the same for everybody, your friends' messages show."
	}
	return "The ledger is held against the witness policy that the server showed just now; give one from another source with --policy."
}

// wrapWords breaks a phrase into lines of n words.
func wrapWords(phrase string, n int) string {
	words := strings.Fields(phrase)
	var b strings.Builder
	for i, w := range words {
		switch {
		case i%n == 0 && i > 0:
			b.WriteString("\n    ")
		case i == 0:
			b.WriteString("    ")
		default:
			b.WriteByte(' ')
		}
		b.WriteString(w)
	}
	return b.String()
}

func (f *clientFlags) recoverCommand() *cobra.Command {
	var server, name string
	c := &cobra.Command{
		Use:     "recover HANDLE --server URL",
		Short:   "Add this device to an account by its recovery phrase (asked for, or read from standard input)",
		Example: `  letterlock client --home ./new-phone recover alice --server http://127.0.0.1:8080`,
		Args:    args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			phrase, err := askSecret(c, "Recovery phrase: ")
			if err != nil {
				return err
			}
			return f.inFolder(func(v *vault.Vault, l *line) error {
				d, err := device.Recover(c.Context(), device.Config{State: DeviceState(v), Dial: l.dial}, server, args[0], name, string(phrase))
				if err != nil {
					return err
				}
				return f.answer(c, d.Self(), func(w io.Writer) {
					fmt.Fprintf(w, "This device belongs to %s now. Your conversations return when a friend or another device of yours is online.\n", args[0])
				})
			})
		},
	}
	c.Flags().StringVar(&server, "server", os.Getenv("LETTERLOCK_SERVER"), "the server's URL (LETTERLOCK_SERVER)")
	c.Flags().StringVar(&name, "device-name", hostname(), "what this device is called; your friends can see it")
	return c
}

func (f *clientFlags) whoamiCommand() *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Say whose device this folder is", Args: args(0, 0),
		Example: `  letterlock client --home ./alice whoami`,
		RunE: f.with(func(_ context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			s := d.Self()
			return f.answer(c, s, func(w io.Writer) { fmt.Fprintf(w, "%s on %s, device %s (%s)\n", s.Handle, s.Host, s.Device, s.Name) })
		}),
	}
}

func (f *clientFlags) friendsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "friends", Short: "Your friends: ask, accept, list, remove",
		Example: "  letterlock client --home ./alice friends add bob\n  letterlock client --home ./bob friends accept alice\n  letterlock client --home ./bob friends list",
	}
	ask := func(use, short string) *cobra.Command {
		return &cobra.Command{
			Use: use + " HANDLE", Short: short, Args: args(1, 1),
			Example: "  letterlock client --home ./alice friends " + use + " bob",
			RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
				friend, err := d.AddFriend(ctx, a[0])
				if err != nil {
					return err
				}
				return f.answer(c, friend, func(w io.Writer) {
					if friend.State == "friends" {
						fmt.Fprintf(w, "You and %s are friends.\n", a[0])
					} else {
						fmt.Fprintf(w, "%s has been asked.\n", a[0])
					}
				})
			}),
		}
	}
	list := &cobra.Command{
		Use: "list", Short: "List friends and requests", Args: args(0, 0),
		Example: "  letterlock client --home ./alice friends list",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			friends, err := d.Friends(ctx)
			if err != nil {
				return err
			}
			return f.answer(c, friends, func(w io.Writer) {
				for _, p := range friends {
					verified := "keys not compared"
					if p.Verified {
						verified = "keys compared"
					}
					fmt.Fprintf(w, "%-32s %-10s %s\n", p.Handle, p.State, verified)
				}
			})
		}),
	}
	remove := &cobra.Command{
		Use: "remove HANDLE", Short: "Decline, take back or end", Args: args(1, 1),
		Example: "  letterlock client --home ./alice friends remove bob",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			if err := d.RemoveFriend(ctx, a[0]); err != nil {
				return err
			}
			return f.answer(c, struct{}{}, func(w io.Writer) { fmt.Fprintf(w, "%s is not on your list any more.\n", a[0]) })
		}),
	}
	c.AddCommand(ask("add", "Ask somebody, or accept where they asked"), ask("accept", "Accept somebody who asked"), list, remove)
	return c
}

func (f *clientFlags) safetyNumberCommand() *cobra.Command {
	var verified, asCode bool
	var compare string
	c := &cobra.Command{
		Use: "safety-number HANDLE", Aliases: []string{"safety"}, Short: "Show 60 digits that are the same on both sides if nobody swapped a key", Args: args(1, 1),
		Long: `Shows 60 digits, or a code to scan, that are the same on both sides if nobody swapped a key. Compare them with your
friend face to face or on a call. --compare takes the digits that your friend reads to you, and remembers that they are the same.`,
		Example: "  letterlock client --home ./alice safety-number bob\n  letterlock client --home ./alice safety-number bob --qr\n" +
			"  letterlock client --home ./alice safety-number bob --verified\n  letterlock client --home ./alice safety-number bob --compare '12345 67890 ...'",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			n, err := d.SafetyNumber(ctx, a[0])
			if err != nil {
				return err
			}
			if compare != "" {
				if err := compareNumbers(n, compare, a[0]); err != nil {
					return err
				}
				verified = true
			}
			if verified {
				if err := d.MarkVerified(ctx, a[0]); err != nil {
					return err
				}
			}
			return f.answer(c, map[string]any{"handle": a[0], "safety_number": n, "verified": verified}, func(w io.Writer) {
				if asCode {
					printQR(w, digits(n))
				}
				fmt.Fprintln(w, n)
				if verified {
					fmt.Fprintf(w, "Remembered: you compared the keys of %s.\n", a[0])
				}
			})
		}),
	}
	c.Flags().BoolVar(&verified, "verified", false, "remember that you compared the number with your friend, face to face or on a call")
	c.Flags().BoolVar(&asCode, "qr", false, "show the digits as a code to scan, too")
	c.Flags().StringVar(&compare, "compare", "", "the 60 digits that your friend sees, in any grouping")
	c.MarkFlagsMutuallyExclusive("verified", "compare")
	return c
}

// digits leaves the digits of a text.
func digits(s string) string {
	return strings.Map(func(r rune) rune {
		if r < '0' || r > '9' {
			return -1
		}
		return r
	}, s)
}

// compareNumbers refuses digits that are not those of the own number.
func compareNumbers(own, theirs, handle string) error {
	switch got := digits(theirs); {
	case len(got) != len(digits(own)):
		return fmt.Errorf("%w: a safety number has %d digits, not %d", errUsage, len(digits(own)), len(got))
	case got != digits(own):
		return chat.Errorf(chat.Tampered, "the numbers differ: somebody stands between you and %s, or one of you misread a digit; write nothing that matters until this is cleared up", handle)
	}
	return nil
}

// printQR shows a text as a QR code of half blocks: two rows of modules a line, dark ones as spaces, as terminals are mostly dark.
func printQR(w io.Writer, text string) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		fmt.Fprintln(w, "(no code can be made)")
		return
	}
	const quiet = 2
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			upper, lower := code.Black(x, y), code.Black(x, y+1)
			fmt.Fprint(w, map[[2]bool]string{{false, false}: "█", {false, true}: "▀", {true, false}: "▄", {true, true}: " "}[[2]bool{upper, lower}])
		}
		fmt.Fprintln(w)
	}
}

func (f *clientFlags) devicesCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "devices", Short: "List your devices", Args: args(0, 0),
		Example: "  letterlock client --home ./alice devices\n  letterlock client --home ./alice devices remove 00112233aabbccdd --reason stolen",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, _ []string) error {
			list, err := d.Devices(ctx)
			if err != nil {
				return err
			}
			return f.answer(c, list, func(w io.Writer) {
				for _, x := range list {
					note := ""
					if x.This {
						note = "(this one)"
					}
					fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("%s  %s %s", x.ID, x.Name, note), " "))
				}
			})
		}),
	}
	remove := &cobra.Command{
		Use: "remove DEVICE", Short: "Take a device out of the account; conversations drop it", Args: args(1, 1),
		Example: "  letterlock client --home ./alice devices remove 00112233aabbccdd --reason lost",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			id, err := chat.ParseDeviceID(a[0])
			if err != nil {
				return err
			}
			why, ok := map[string]keychain.Reason{"retired": keychain.Retired, "lost": keychain.Lost, "stolen": keychain.Stolen}[reason]
			if !ok {
				return fmt.Errorf("%w: --reason is retired, lost or stolen", errUsage)
			}
			if err := d.RemoveDevice(ctx, id, why); err != nil {
				return err
			}
			if err := d.Sync(ctx); err != nil {
				return err
			}
			return f.answer(c, struct{}{}, func(w io.Writer) { fmt.Fprintf(w, "Device %s is out of the account.\n", id) })
		}),
	}
	remove.Flags().StringVar(&reason, "reason", "retired", "why: retired, lost or stolen (stolen suspends what it granted)")
	c.AddCommand(remove)
	return c
}

func (f *clientFlags) backupCommand() *cobra.Command {
	var passphrase string
	c := &cobra.Command{
		Use: "backup FILE", Short: "Write everything this device has into one encrypted file", Args: args(1, 1),
		Example: "  letterlock client --home ./alice backup alice.backup --backup-passphrase-file ./secret",
		RunE: func(c *cobra.Command, a []string) (err error) {
			return f.inFolder(func(v *vault.Vault, _ *line) error {
				file, err := os.OpenFile(a[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return chat.Wrap(chat.Exists, err, "the backup file cannot be made")
				}
				err = v.Backup(file, vault.Options{Passphrase: f.backupPassphrase(c, passphrase)})
				if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
					os.Remove(a[0])
					return err
				}
				return f.answer(c, map[string]string{"file": a[0]}, func(w io.Writer) { fmt.Fprintf(w, "Everything is in %s, encrypted with your passphrase.\n", a[0]) })
			})
		},
	}
	c.Flags().StringVar(&passphrase, "backup-passphrase-file", "", "read the passphrase from this file instead of asking")
	return c
}

func (f *clientFlags) backupPassphrase(c *cobra.Command, file string) func() ([]byte, error) {
	if file != "" {
		return func() ([]byte, error) { return readSecret(file) }
	}
	return func() ([]byte, error) { return askSecret(c, "Passphrase of the backup: ") }
}

func (f *clientFlags) restoreCommand() *cobra.Command {
	var passphrase string
	c := &cobra.Command{
		Use: "restore FILE", Short: "Make the folder anew from a backup", Args: args(1, 1),
		Example: "  letterlock client --home ./alice restore alice.backup --backup-passphrase-file ./secret",
		RunE: func(c *cobra.Command, a []string) (err error) {
			if f.home == "" {
				return fmt.Errorf("%w: name the new folder with --home DIR", errUsage)
			}
			file, err := os.Open(a[0])
			if err != nil {
				return chat.Wrap(chat.NotFound, err, "the backup cannot be opened")
			}
			defer file.Close()
			v, err := vault.Restore(f.home, file, f.backupPassphrase(c, passphrase), f.vaultOptions())
			if err != nil {
				return err
			}
			if err := v.Close(); err != nil {
				return err
			}
			return f.answer(c, map[string]string{"home": f.home}, func(w io.Writer) {
				fmt.Fprintln(w, "Restored. Do not use the old folder any more: two copies of one device would use the same keys.")
			})
		},
	}
	c.Flags().StringVar(&passphrase, "backup-passphrase-file", "", "read the passphrase from this file instead of asking")
	return c
}
