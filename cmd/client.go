package cmd

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/vault"
)

// clientFlags are the flags that every client command has.
type clientFlags struct {
	home           string
	passphraseFile string
	wait           time.Duration
	json           bool
}

func clientCommand() *cobra.Command {
	f := &clientFlags{}
	c := &cobra.Command{
		Use:   "client",
		Short: "Chat, and decide what partner apps may do",
		Long: `The messenger for the command line. A folder (--home, or LETTERLOCK_HOME) holds one device: its keys, its
messages and what it remembers of the server, encrypted.

WHO is a friend's handle (the private conversation with them), HANDLE/PARTNER (the thread with them that was made
for a partner app), or a conversation's id.`,
		Example: `  letterlock client --home ./alice signup alice --server http://127.0.0.1:8080
  letterlock client --home ./alice friends add bob
  letterlock client --home ./alice send bob "Have you seen it?"
  letterlock client --home ./alice read bob`,
	}
	c.PersistentFlags().StringVar(&f.home, "home", os.Getenv("LETTERLOCK_HOME"), "the device's folder (LETTERLOCK_HOME)")
	c.PersistentFlags().StringVar(&f.passphraseFile, "passphrase-file", os.Getenv("LETTERLOCK_PASSPHRASE_FILE"), "wrap the folder's key with the passphrase in this file")
	c.PersistentFlags().DurationVar(&f.wait, "wait", 20*time.Second, "how long to wait for another command that uses the folder")
	c.PersistentFlags().BoolVar(&f.json, "json", false, "answer in JSON")
	c.AddCommand(f.accountCommands()...)
	c.AddCommand(f.chatCommands()...)
	c.AddCommand(f.permissionCommands()...)
	return c
}

// line is the connection of one command. It keeps the session's token in the folder for the next one: without the device's key it is worth nothing.
type line struct {
	vault *vault.Vault
	saved string
	made  *httpclient.Device
}

// The place of the token beside the device's own state.
const (
	sessionBucket = "session"
	sessionName   = "token"
)

// newLine takes up the session of the command before.
func newLine(v *vault.Vault) (*line, error) {
	l := &line{vault: v}
	err := v.View(func(tx *vault.Tx) error {
		token, _, err := tx.Get(sessionBucket, sessionName)
		l.saved = string(token)
		return err
	})
	return l, err
}

func (l *line) dial(url string, account chat.AccountID, id chat.DeviceID, key ed25519.PrivateKey) (_ device.Server, err error) {
	l.made, err = httpclient.NewDevice(httpclient.Options{BaseURL: url, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{Account: account, Device: id}, l.saved)
	return l.made, err
}

// keep stores the session for the next command.
func (l *line) keep() error {
	if l.made == nil || l.made.Session() == l.saved {
		return nil
	}
	return l.vault.Update(func(tx *vault.Tx) error { return tx.Put(sessionBucket, sessionName, []byte(l.made.Session())) })
}

func (f *clientFlags) open() (*vault.Vault, error) {
	if f.home == "" {
		return nil, fmt.Errorf("%w: name the device's folder with --home DIR or LETTERLOCK_HOME", errUsage)
	}
	return vault.Open(f.home, f.vaultOptions())
}

func (f *clientFlags) vaultOptions() vault.Options {
	return vault.Options{Wait: f.wait, Passphrase: f.passphrase()}
}

// passphrase reads the passphrase of the folder from its file, or asks for it where the folder has one and a person is there.
func (f *clientFlags) passphrase() func() ([]byte, error) {
	if f.passphraseFile == "" {
		return nil
	}
	return func() ([]byte, error) { return readSecret(f.passphraseFile) }
}

// readSecret reads the first line of a file.
func readSecret(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the passphrase file cannot be read")
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return []byte(strings.TrimSuffix(line, "\r")), nil
}

// askSecret reads a line that is not shown, from the terminal, or the next line of standard input where it is none.
func askSecret(c *cobra.Command, prompt string) ([]byte, error) {
	if in, ok := c.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
		fmt.Fprint(c.ErrOrStderr(), prompt)
		defer fmt.Fprintln(c.ErrOrStderr())
		return term.ReadPassword(int(in.Fd()))
	}
	line, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && err != io.EOF {
		return nil, err
	}
	return []byte(strings.TrimSpace(line)), nil
}

// inFolder opens the device's folder for a command, and its connection for when the command dials.
func (f *clientFlags) inFolder(run func(v *vault.Vault, l *line) error) (err error) {
	v, err := f.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	l, err := newLine(v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.keep()) }()
	return run(v, l)
}

// with runs a command with the device of the folder.
func (f *clientFlags) with(run func(ctx context.Context, c *cobra.Command, d *device.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		return f.inFolder(func(v *vault.Vault, l *line) error {
			d, err := device.Open(device.Config{State: DeviceState(v), Dial: l.dial})
			if err != nil {
				return err
			}
			if err := afterRestore(v, d); err != nil {
				return err
			}
			defer warn(c, d)
			return run(c.Context(), c, d, args)
		})
	}
}

// warn says, once the command is through, that the daily check could not be made.
func warn(c *cobra.Command, d *device.Client) {
	if err := d.Warning(); err != nil {
		fmt.Fprintf(c.ErrOrStderr(), "letterlock: the daily check could not be made: %v\n", err)
	}
}

// afterRestore tells a device that its folder came out of a backup.
func afterRestore(v *vault.Vault, d *device.Client) error {
	var restored bool
	if err := v.View(func(tx *vault.Tx) (err error) { restored, err = tx.Restored(); return err }); err != nil || !restored {
		return err
	}
	if err := d.MarkRestored(); err != nil {
		return err
	}
	return v.Update(func(tx *vault.Tx) error { return tx.ClearRestored() })
}

// answer prints v as JSON, or calls text to print it for a person.
func (f *clientFlags) answer(c *cobra.Command, v any, text func(w io.Writer)) error {
	return answer(c, f.json, v, text)
}

func answer(c *cobra.Command, asJSON bool, v any, text func(w io.Writer)) error {
	if asJSON {
		enc := json.NewEncoder(c.OutOrStdout())
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	text(c.OutOrStdout())
	return nil
}

// args makes a command's arity a usage error with the command's own usage line.
func args(least, most int) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if len(a) < least || most >= 0 && len(a) > most {
			return fmt.Errorf("%w: %s (see %s --help)", errUsage, c.UseLine(), c.CommandPath())
		}
		return nil
	}
}

func stamp(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).Local().Format("2006-01-02 15:04")
}

// findConversation reads WHO.
func findConversation(d *device.Client, who string) (chat.ConversationID, error) {
	if id, err := chat.ParseConversationID(who); err == nil {
		return id, nil
	}
	handle, partner, _ := strings.Cut(who, "/")
	if err := chat.CheckHandle(handle); err != nil {
		return chat.ConversationID{}, err
	}
	return d.FindWith(handle, partner)
}
