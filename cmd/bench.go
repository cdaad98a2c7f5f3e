package cmd

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"letterlock/bench"
	"letterlock/chat"
	"letterlock/store/postgres/cluster"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure a server on this machine",
		Long: `Measure a server on this machine. Unless --server names one, each measurement starts a server of its own in a
process of its own, in a folder that is removed afterwards. The people are real clients over real sockets; their
processor time is given apart from the server's, since both share the machine.`,
		Example: `  letterlock bench send
  letterlock bench all --quick`,
	}
	for _, s := range scenarios() {
		cmd.AddCommand(s.command())
	}
	cmd.AddCommand(benchAllCommand())
	return cmd
}

// scenarios are all measurements, in the order in which ` + "`bench all`" + ` makes them.
func scenarios() []*scenario {
	return []*scenario{sendScenario(), roomsScenario(), connectScenario(), idleScenario(), catchUpScenario(), growthScenario(), ledgerScenario()}
}

// scenario is one measurement: what its flags are, and what it does with them.
type scenario struct {
	name, short, long, example string

	flags func(f *pflag.FlagSet) // their defaults are the sizes of ` + "`bench all`" + `
	quick func()                 // smaller ones
	check func() error           // what is wrong with them
	files func() int             // connections that generator and server hold
	local bool                   // it measures in this process: no server is started
	run   func(ctx context.Context, bed *bed) (benchResult, error)
}

// benchResult is printed as JSON as it is, and as a table of figures unless it prints itself.
type benchResult interface{ figures() []figure }

// figure is a line of a table.
type figure struct{ what, value string }

func (s *scenario) command() *cobra.Command {
	var bed bed
	cmd := &cobra.Command{
		Use: s.name, Short: s.short, Long: s.long, Example: s.example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := s.measure(cmd, &bed)
			if err != nil {
				return err
			}
			if bed.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			}
			if p, ok := result.(interface{ print(io.Writer) error }); ok {
				return p.print(cmd.OutOrStdout())
			}
			return printFigures(cmd.OutOrStdout(), "", result.figures())
		},
	}
	s.flags(cmd.Flags())
	bed.flags(cmd.Flags())
	return cmd
}

// measure starts a server if need be, measures, and clears away.
func (s *scenario) measure(cmd *cobra.Command, b *bed) (benchResult, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := bench.NeedFiles(s.files()); err != nil {
		return nil, err
	}
	start := b.start
	if s.local {
		start = b.settle
	}
	stop, err := start(cmd)
	if err != nil {
		return nil, err
	}
	defer stop()
	return s.run(cmd.Context(), b)
}

// bed is where a measurement takes place: what the flags say of it, and then a server that runs.
type bed struct {
	server   string
	database string
	dir      string
	tls      bool
	asJSON   bool

	at       bench.Target
	process  *bench.Process   // nil: somebody else's
	cluster  *cluster.Cluster // nil: none was started
	progress bench.Progress
	place    string                                       // folder of data and certificate
	disk     func(context.Context) (bench.DiskUse, error) // nil: not known
}

func (b *bed) flags(f *pflag.FlagSet) {
	f.StringVar(&b.server, "server", "", "public URL of a running server without rate limits (default: start one)")
	f.StringVar(&b.database, "database", "", "database of the server that is started, as serve takes it; \"private\" starts a PostgreSQL for it (default: SQLite)")
	f.StringVar(&b.dir, "dir", "", "folder for the server's data while it runs (default: a temporary one)")
	f.BoolVar(&b.tls, "tls", false, "the server that is started speaks TLS, with a throw-away certificate")
	f.BoolVar(&b.asJSON, "json", false, "print JSON")
}

// start runs a server of this same program in a folder that is removed afterwards, or takes the one that runs.
func (b *bed) start(cmd *cobra.Command) (stop func(), err error) {
	b.progress = progressTo(cmd.ErrOrStderr())
	if b.server != "" {
		if b.database != "" || b.dir != "" || b.tls {
			return nil, fmt.Errorf("%w: --server names a server that runs: --database, --dir and --tls are for one that is started", errUsage)
		}
		b.at = bench.At(b.server)
		return func() {}, nil
	}
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if b.place, err = os.MkdirTemp(b.dir, "letterlock-bench-"); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "no folder for the server's data")
	}
	clear := func() {
		if b.cluster != nil {
			b.cluster.Stop()
		}
		os.RemoveAll(b.place)
	}
	o := bench.ServerOptions{Executable: executable, DataDir: filepath.Join(b.place, "data")}
	if err := b.prepare(cmd.Context(), &o); err != nil {
		clear()
		return nil, err
	}
	if b.process, err = bench.Start(cmd.Context(), o); err != nil {
		clear()
		return nil, err
	}
	b.at = b.process.Target
	return func() {
		b.process.Kill()
		clear()
	}, nil
}

// settle makes a folder that is removed afterwards, for what needs no server.
func (b *bed) settle(cmd *cobra.Command) (stop func(), err error) {
	b.progress = progressTo(cmd.ErrOrStderr())
	if b.server != "" || b.database != "" || b.tls {
		return nil, fmt.Errorf("%w: this is measured in one process on SQLite: leave out --server, --database and --tls", errUsage)
	}
	if b.place, err = os.MkdirTemp(b.dir, "letterlock-bench-"); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "no folder for the database")
	}
	return func() { os.RemoveAll(b.place) }, nil
}

// prepare settles address, certificate and database of a server that is to be started.
func (b *bed) prepare(ctx context.Context, o *bench.ServerOptions) (err error) {
	if o.Address, err = bench.FreeAddress(); err != nil {
		return err
	}
	if b.tls {
		if o.TLS, err = bench.NewCertificate(b.place); err != nil {
			return err
		}
	}
	switch b.database {
	case "":
		b.disk = func(context.Context) (bench.DiskUse, error) { return bench.DiskOfFolder(o.DataDir) }
	case privateDatabase:
		return b.startPostgres(ctx, o)
	default:
		o.Args = append(o.Args, "--database", b.database)
	}
	return nil
}

// privateDatabase as --database stands for a PostgreSQL that lives as long as the measurement.
const privateDatabase = "private"

func (b *bed) startPostgres(ctx context.Context, o *bench.ServerOptions) (err error) {
	if b.cluster, err = cluster.Start(ctx, b.dir); err != nil {
		return err
	}
	url, err := b.cluster.NewDatabase(ctx)
	if err != nil {
		return err
	}
	b.disk = func(ctx context.Context) (use bench.DiskUse, err error) {
		use.Data, err = b.cluster.Size(ctx, url)
		return use, err
	}
	o.Args, o.BesideCPU = append(o.Args, "--database", url), b.cluster.CPU
	return nil
}

// progressTo prints lines, one at a time.
func progressTo(w io.Writer) bench.Progress {
	var mu sync.Mutex
	return func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(w, format+"\n", args...)
	}
}

// benchAll is what ` + "`bench all`" + ` prints as JSON.
type benchAll struct {
	Seconds   float64        `json:"seconds"`
	Scenarios []benchAllPart `json:"scenarios"`
}

type benchAllPart struct {
	Name    string      `json:"name"`
	Seconds float64     `json:"seconds"` // set-up included
	Result  benchResult `json:"result"`
}

func benchAllCommand() *cobra.Command {
	var shared bed
	var quick bool
	cmd := &cobra.Command{
		Use:   "all",
		Short: "All measurements, one after another, with one table",
		Long: `All measurements with their default sizes, each on a server of its own, and one table at the end. It takes
about eight minutes on two cores, or half a minute with --quick, whose figures say little.`,
		Example: `  letterlock bench all
  letterlock bench all --quick --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if shared.server != "" {
				return fmt.Errorf("%w: all measurements want a fresh server each: leave out --server", errUsage)
			}
			all, err := runAll(cmd, shared, quick)
			if err != nil {
				return err
			}
			if shared.asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(all)
			}
			for _, p := range all.Scenarios {
				if err := printFigures(cmd.OutOrStdout(), p.Name, p.Result.figures()); err != nil {
					return err
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "\n%.0f s in all\n", all.Seconds)
			return nil
		},
	}
	shared.flags(cmd.Flags())
	cmd.Flags().BoolVar(&quick, "quick", false, "small sizes: does it work")
	cmd.Flags().MarkHidden("server")
	return cmd
}

func runAll(cmd *cobra.Command, shared bed, quick bool) (all benchAll, err error) {
	begun := time.Now()
	for _, s := range scenarios() {
		s.flags(pflag.NewFlagSet(s.name, pflag.ContinueOnError)) // sets the defaults
		if quick {
			s.quick()
		}
		start, bed := time.Now(), shared
		fmt.Fprintf(cmd.ErrOrStderr(), "== %s\n", s.name)
		result, err := s.measure(cmd, &bed)
		if err != nil {
			return all, fmt.Errorf("%s: %w", s.name, err)
		}
		all.Scenarios = append(all.Scenarios, benchAllPart{s.name, time.Since(start).Seconds(), result})
	}
	all.Seconds = time.Since(begun).Seconds()
	return all, nil
}

func printFigures(w io.Writer, name string, figures []figure) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range figures {
		if name != "" {
			fmt.Fprintf(t, "%-8s\t", name)
		}
		fmt.Fprintf(t, "%-44s\t%s\n", f.what, f.value)
	}
	return t.Flush()
}

// cpuText is processor time in seconds, or a dash where it is not known.
func cpuText(s float64) string {
	if s == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3f", s)
}

func cpuPair(c bench.CPU) string {
	return fmt.Sprintf("server %s, generator %.3f", cpuText(c.Server), c.Generator)
}
