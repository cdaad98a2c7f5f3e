package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/keychain"
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
	var server, name, invite string
	c := &cobra.Command{
		Use:   "signup HANDLE --server URL",
		Short: "Take a handle on a server; shows the recovery phrase, once",
		Example: `  letterlock client --home ./alice signup alice --server http://127.0.0.1:8080
  letterlock client --home ./alice signup alice --server https://chat.example --invite CODE`,
		Args: args(1, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return f.inFolder(func(v *vault.Vault, l *line) error {
				d, phrase, err := device.SignUp(c.Context(), device.Config{State: DeviceState(v), Dial: l.dial, Invite: invite}, server, args[0], name)
				if err != nil {
					return err
				}
				out := struct {
					device.Self
					Recovery string `json:"recovery_phrase"`
				}{d.Self(), phrase}
				err = f.answer(c, out, func(w io.Writer) {
					fmt.Fprintf(w, "You are %s on %s.\n\nYour recovery phrase. It is shown once and kept nowhere: write it down.\nWho has it can take over the account; without it a lost device cannot be replaced.\n\n%s\n", args[0], out.Host, wrapWords(phrase, 6))
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
	c.Flags().StringVar(&invite, "invite", "", "the code of an invitation, where the server asks for one")
	return c
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
	var verified bool
	c := &cobra.Command{
		Use: "safety-number HANDLE", Short: "Show 60 digits that are the same on both sides if nobody swapped a key", Args: args(1, 1),
		Example: "  letterlock client --home ./alice safety-number bob\n  letterlock client --home ./alice safety-number bob --verified",
		RunE: f.with(func(ctx context.Context, c *cobra.Command, d *device.Client, a []string) error {
			n, err := d.SafetyNumber(ctx, a[0])
			if err != nil {
				return err
			}
			if verified {
				if err := d.MarkVerified(ctx, a[0]); err != nil {
					return err
				}
			}
			return f.answer(c, map[string]any{"handle": a[0], "safety_number": n, "verified": verified}, func(w io.Writer) {
				fmt.Fprintln(w, n)
				if verified {
					fmt.Fprintf(w, "Remembered: you compared the keys of %s.\n", a[0])
				}
			})
		}),
	}
	c.Flags().BoolVar(&verified, "verified", false, "remember that you compared the number with your friend, face to face or on a call")
	return c
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
