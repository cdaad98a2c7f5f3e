package cmd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"letterlock/chat"
	"letterlock/witness"
)

func witnessCommand() *cobra.Command {
	var c witness.Config
	var listen string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "witness",
		Short: "Cosign the checkpoints of ledgers",
		Long: `Run a witness (c2sp.org/tlog-witness): it signs, with the time, only trees of a ledger that continue the last one that it
signed for it, so that the ledger's operator can neither take anything back nor show two people two histories. It
reads nothing of what the entries say; letterlock audit does.

Its key and the last checkpoint of each ledger are in its folder. Back the folder up and never run two copies of it: a
witness that forgot what it signed can be led to sign a fork.

The ledger's key stands in its entry 0, and its operator sees it with letterlock admin status.`,
		Example: `  letterlock witness --home ./witness --listen 127.0.0.1:8091 --name w.example/witness --log 'chat.example/letterlock+1a2b3c4d+Aa...'
  letterlock witness key --home ./witness`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Logger = newLogger(cmd.ErrOrStderr(), asJSON)
			w, err := witness.Open(c)
			if err != nil {
				return err
			}
			defer w.Close()
			return serveWitness(cmd.Context(), cmd.OutOrStdout(), w, listen, c.Logger)
		},
	}
	f := cmd.Flags()
	cmd.PersistentFlags().StringVar(&c.Home, "home", "", "the witness' folder; made at the first start")
	cmd.MarkPersistentFlagRequired("home")
	f.StringVar(&listen, "listen", "127.0.0.1:8091", "address to listen on; port 0 takes a free one. TLS is a proxy's task")
	f.StringArrayVar(&c.Logs, "log", nil, "key of a ledger to sign for (NAME+HASH+KEY); may be given several times")
	f.StringVar(&c.Name, "name", "", "name of the key that is made at the first start, like w.example/witness")
	f.BoolVar(&asJSON, "json", false, "log as JSON lines")
	cmd.MarkFlagRequired("log")
	cmd.AddCommand(witnessKeyCommand(&c.Home))
	return cmd
}

// serveWitness listens, says who it is, and signs until the context ends.
func serveWitness(ctx context.Context, out io.Writer, w *witness.Witness, listen string, log *slog.Logger) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return chat.Wrap(chat.Unavailable, err, "cannot listen on %s: is another program using it? choose another with --listen", listen)
	}
	url := "http://" + listener.Addr().String() + "/"
	fmt.Fprintf(out, "%s\n%s\n", w.VKey(), policyLine(w.VKey(), url))
	s := &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	stopped := context.AfterFunc(ctx, func() { shutDown(s) })
	defer stopped()
	log.Info("witnessing", slog.String("url", url))
	if err := s.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

func shutDown(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.Shutdown(ctx)
}

// policyLine is a witness' line of a policy, to be edited: the name is the policy's own, the URL may be a proxy's.
func policyLine(vkey, url string) string { return fmt.Sprintf("witness NAME %s %s", vkey, url) }

func witnessKeyCommand(home *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Show a witness' key and its line for a policy",
		Example: "  letterlock witness key --home ./witness",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			vkey, err := witness.Key(*home)
			if err != nil {
				return err
			}
			out := struct {
				VKey       string `json:"vkey"`
				PolicyLine string `json:"policy_line"`
			}{vkey, policyLine(vkey, "URL")}
			return answer(cmd, asJSON, out, func(w io.Writer) { fmt.Fprintf(w, "%s\n%s\n", out.VKey, out.PolicyLine) })
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "answer in JSON")
	return cmd
}
