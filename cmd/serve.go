package cmd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"letterlock/account"
	"letterlock/delivery"
	"letterlock/proof"
	"letterlock/server"
)

func serveCommand() *cobra.Command {
	c := server.Config{Version: version(), Now: time.Now}
	var asJSON, printConfig bool
	var registration, policy string
	var sources map[string]string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server. Everything it knows is in the data folder: database, keys, and a socket for the operator's
commands. It speaks plain HTTP to this machine alone; for others give a certificate, or put a TLS proxy in
front and give its address with --public-url. The public URL's host and port are part of every address, so
choose them before the first person signs up.

Each flag can also be said by a variable (LETTERLOCK_LISTEN for --listen) or by a line of the file that --config
names (listen = ...); the command line counts before the environment, that before the file. doc/operate.md says more.

The database is a file in the data folder, or with --database a PostgreSQL: version 15 or later with fsync on, a database
of its own in UTF-8 whose owner the user is, reached directly or by a pooler that gives each client a session of its
own. One server at a time works on it. Keys and socket stay in the data folder.

Metrics: curl --unix-socket DIR/admin.sock http://admin/metrics`,
		Example: `  letterlock serve --data ./data
  letterlock serve --data /var/lib/letterlock --listen 127.0.0.1:8080 --public-url https://chat.example
  LETTERLOCK_DATABASE=postgres://letterlock:secret@db.example/letterlock letterlock serve --data ./data
  letterlock serve --data ./data --listen :443 --public-url https://chat.example --tls-cert cert.pem --tls-key key.pem
  letterlock serve --data ./data --policy witnesses.policy
  letterlock serve --config /etc/letterlock/letterlock.conf --print-config`,
		Args: cobra.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			sources, err = configure(cmd.Flags(), os.Environ())
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if printConfig {
				return printSettings(cmd.OutOrStdout(), asJSON, settingsOf(cmd.Flags(), sources))
			}
			if c.DataDir == "" {
				return fmt.Errorf("%w: name the folder for everything that the server keeps: --data DIR, LETTERLOCK_DATA, or data in the --config file", errUsage)
			}
			if c.Registration, err = account.ParseRegistration(registration); err != nil {
				return fmt.Errorf("%w: %v", errUsage, err)
			}
			if c.Policy, err = servedPolicy(policy); err != nil {
				return err
			}
			if l := c.Limits; min(int64(l.MessagesPerSecond), int64(l.MessageBurst), l.BytesPerDay, int64(l.Conversations), int64(c.MaxFriends)) < 0 {
				return fmt.Errorf("%w: a limit cannot be below 0", errUsage)
			}
			signal.Ignore(syscall.SIGXFSZ) // a file at its limit is a failed write, not the end of the server
			c.Logger = newLogger(cmd.ErrOrStderr(), asJSON)
			s, err := server.New(cmd.Context(), c)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "letterlock serves %s\n", s.URL())
			if err := notify("READY=1"); err != nil {
				c.Logger.Warn("the service manager was not told", slog.Any("error", err))
			}
			context.AfterFunc(cmd.Context(), func() { notify("STOPPING=1") })
			return s.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.DataDir, "data", "", "folder for everything the server keeps")
	databaseFlag(cmd, &c.Database)
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	f.StringVar(&c.PublicURL, "public-url", "", "origin that clients use, like https://chat.example (default: from --listen)")
	f.StringVar(&c.TLSCert, "tls-cert", "", "certificate chain, PEM")
	f.StringVar(&c.TLSKey, "tls-key", "", "its private key, PEM")
	f.BoolVar(&asJSON, "json", false, "log as JSON lines")
	f.String("config", "", "read settings from this file: lines of NAME = VALUE, named like the flags")
	f.BoolVar(&printConfig, "print-config", false, "show what is in force and where it was said, and stop")
	f.StringVar(&registration, "registration", string(account.Open), "who may sign up: open (anybody), invite (who has a code), closed (nobody new)")
	f.StringVar(&policy, "policy", "", "file of the witness policy (c2sp.org/tlog-policy): who must cosign the ledger before anything is published")
	f.IntVar(&c.Limits.MessagesPerSecond, "messages-per-second", 50, "messages that an account may send, on average; 0: no limit")
	f.IntVar(&c.Limits.MessageBurst, "message-burst", 500, "and at once")
	f.Int64Var(&c.Limits.BytesPerDay, "bytes-per-day", 1<<30, "bytes of ciphertext that an account may send; 0: no limit")
	f.IntVar(&c.Limits.Conversations, "max-conversations", delivery.MaxConversations, "conversations that an account may be in")
	f.IntVar(&c.MaxFriends, "max-friends", account.DefaultFriends, "friends and requests that an account may have")
	f.BoolVar(&c.ExemptLoopback, "no-limits-for-loopback", false, "no rate limits for callers from this machine: for tests and benchmarks")
	f.MarkHidden("no-limits-for-loopback")
	cmd.MarkFlagDirname("data")
	return cmd
}

// servedPolicy reads the policy to serve under; nil where no file is named.
func servedPolicy(file string) (*proof.WitnessPolicy, error) {
	text, err := readPolicy(file)
	if err != nil || text == nil {
		return nil, err
	}
	p, err := proof.ParsePolicy(text)
	if err != nil {
		return nil, fmt.Errorf("--policy: %w", err)
	}
	return p, nil
}

// newLogger logs what happens to the server: no identities, no content.
func newLogger(w io.Writer, asJSON bool) *slog.Logger {
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}
