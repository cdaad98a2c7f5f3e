package cmd

import (
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"letterlock/server"
)

func serveCommand() *cobra.Command {
	c := server.Config{Version: version(), Now: time.Now}
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server. Everything it knows is in the data folder: database, keys, and a socket for the operator's
commands. It speaks plain HTTP to this machine alone; for others give a certificate, or put a TLS proxy in
front and give its address with --public-url. The public URL's host and port are part of every address, so
choose them before the first person signs up.

Metrics: curl --unix-socket DIR/admin.sock http://admin/metrics`,
		Example: `  letterlock serve --data ./data
  letterlock serve --data /var/lib/letterlock --listen 127.0.0.1:8080 --public-url https://chat.example
  letterlock serve --data ./data --listen :443 --public-url https://chat.example --tls-cert cert.pem --tls-key key.pem`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Logger = newLogger(cmd.ErrOrStderr(), asJSON)
			s, err := server.New(cmd.Context(), c)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "letterlock serves %s\n", s.URL())
			return s.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.DataDir, "data", "", "folder for everything the server keeps")
	f.StringVar(&c.Listen, "listen", "127.0.0.1:8080", "address to listen on; port 0 takes a free one")
	f.StringVar(&c.PublicURL, "public-url", "", "origin that clients use, like https://chat.example (default: from --listen)")
	f.StringVar(&c.TLSCert, "tls-cert", "", "certificate chain, PEM")
	f.StringVar(&c.TLSKey, "tls-key", "", "its private key, PEM")
	f.BoolVar(&asJSON, "json", false, "log as JSON lines")
	f.BoolVar(&c.ExemptLoopback, "no-limits-for-loopback", false, "no rate limits for callers from this machine: for tests and benchmarks")
	f.MarkHidden("no-limits-for-loopback")
	cmd.MarkFlagRequired("data")
	cmd.MarkFlagDirname("data")
	return cmd
}

// newLogger logs what happens to the server: no identities, no content.
func newLogger(w io.Writer, asJSON bool) *slog.Logger {
	if asJSON {
		return slog.New(slog.NewJSONHandler(w, nil))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// version is the module's, or the revision that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (v == "" || v == "(devel)") {
			v = s.Value
		}
	}
	return v
}
