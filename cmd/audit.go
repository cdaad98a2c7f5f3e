package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"letterlock/audit"
	"letterlock/chat"
	"letterlock/witness"
)

func auditCommand() *cobra.Command {
	var c audit.Config
	var name, listen string
	var once, asJSON, progress bool
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Replay a ledger, and cosign it if all of it is in order",
		Long: `Read every entry of a server's public ledger and judge it by the rules: each can be read, none stands there twice, every
root of the map is the one that the entries give (by an implementation of its own), agreements are signed by both
sides and numbered on, and no tree takes anything back. It keeps a copy of the ledger in its folder and goes on
from there.

Without --once it looks at what is published every minute, and is a witness (c2sp.org/tlog-witness): it cosigns a
checkpoint only after it has replayed all of its tree. GET /metrics on the same address shows how it stands. A
server's policy names it with the line that it prints.

A lie stops it for good: the sentence names the lie, and the evidence is kept in a file that others can check with
letterlock audit evidence. Exit code 0: in order. 4: it is not, or the newest map root is older than an hour. 5: the
ledger could not be read.`,
		Example: `  letterlock audit --once --home ./auditor --log 'chat.example/letterlock+1a2b3c4d+Aa...' --url https://chat.example
  letterlock audit --home ./auditor --log 'chat.example/letterlock+1a2b3c4d+Aa...' --url https://chat.example --listen 127.0.0.1:8092 --name auditor.example/letterlock
  letterlock audit evidence ./auditor/evidence.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.Now = time.Now
			if show := progressOf(cmd, progress); show != nil {
				c.Progress = func(done, total int64) { show("replaying the ledger", done, total, "entries") }
			}
			a, err := audit.Open(cmd.Context(), c)
			if err != nil {
				return err
			}
			defer a.Close()
			if once {
				return auditOnce(cmd, a, asJSON)
			}
			log := newLogger(cmd.ErrOrStderr(), asJSON)
			w, err := witness.Open(witness.Config{Home: filepath.Join(c.Home, "witness"), Logs: []string{c.Log}, Name: name, Logger: log})
			if err != nil {
				return err
			}
			defer w.Close()
			w.Check = a.Check
			return serveAudit(cmd.Context(), cmd.OutOrStdout(), a, w, listen, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Home, "home", "", "the auditor's folder; made at the first start")
	f.StringVar(&c.Log, "log", "", "key of the ledger (NAME+HASH+KEY), from a source that you trust")
	f.StringVar(&c.Server, "url", "", "URL of the server whose ledger it is")
	f.BoolVar(&once, "once", false, "audit what is published now, print a report and stop")
	f.StringVar(&listen, "listen", "127.0.0.1:8092", "address to take checkpoints on; port 0 takes a free one. TLS is a proxy's task")
	f.StringVar(&name, "name", "", "name of the key that is made at the first start, like auditor.example/letterlock")
	f.BoolVar(&progress, "progress", false, "say how far it is, also where nobody looks (a terminal sees it anyway)")
	f.BoolVar(&asJSON, "json", false, "print the report, or log, as JSON")
	for _, flag := range []string{"home", "log", "url"} {
		cmd.MarkFlagRequired(flag)
	}
	cmd.MarkFlagsMutuallyExclusive("once", "listen")
	cmd.MarkFlagsMutuallyExclusive("once", "name")
	cmd.MarkFlagDirname("home")
	cmd.AddCommand(evidenceCommand())
	return cmd
}

// auditOnce audits what is published and reports.
func auditOnce(cmd *cobra.Command, a *audit.Auditor, asJSON bool) error {
	r, err := a.Published(cmd.Context())
	if err != nil {
		return err
	}
	at := time.UnixMilli(r.MapRootAt).UTC()
	err = answer(cmd, asJSON, r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: all %d entries are in order\nroot %s\nmap  %s, of %s\n", r.Log, r.Size, r.Root, r.MapRoot, at.Format("2006-01-02 15:04:05 UTC"))
		fmt.Fprintf(w, "%d labels, %d public entries, %d agreements with %d partners; %d entries were read now\n", r.Labels, r.Public, r.Agreements, r.Partners, r.Read)
	})
	if err == nil && r.Stale {
		return audit.StaleRoot(r, time.Now())
	}
	return err
}

// serveAudit cosigns and watches until the context ends, or a lie stops the auditor.
func serveAudit(ctx context.Context, out io.Writer, a *audit.Auditor, w *witness.Witness, listen string, log *slog.Logger) error {
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return chat.Wrap(chat.Unavailable, err, "cannot listen on %s: is another program using it? choose another with --listen", listen)
	}
	fmt.Fprintf(out, "%s\n%s\n", w.VKey(), policyLine(w.VKey(), "http://"+listener.Addr().String()+"/"))
	registry := prometheus.NewRegistry()
	watcher := audit.NewWatcher(a, log, registry)
	mux := http.NewServeMux()
	mux.Handle("/", w.Handler())
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(listener)
		stop()
	}()
	lie := watcher.Run(ctx)
	shutDown(s)
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return errors.Join(lie, err)
	}
	return lie
}

func evidenceCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "evidence FILE",
		Short: "Check the evidence that an auditor kept",
		Long: `Check that the ledger signed what a file of evidence shows: its checkpoints, and a tree that holds the entries in it. The
sentence says what is wrong with them; whoever doubts it reads the entries, or audits the ledger.`,
		Example: "  letterlock audit evidence ./auditor/evidence.json",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, a []string) error {
			data, err := readBounded(a[0], audit.MaxEvidence)
			if err != nil {
				return err
			}
			e, err := audit.OpenEvidence(data)
			if err != nil {
				return chat.Wrap(chat.Unproven, err, "this file convicts nobody")
			}
			return answer(cmd, asJSON, e, func(w io.Writer) {
				fmt.Fprintf(w, "%s\nThe ledger %s signed what this file shows: %d checkpoints, %d entries.\n", e.Sentence, e.Log, len(e.Checkpoints), len(e.Entries))
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the evidence as JSON")
	return cmd
}
