package cmd

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"letterlock/bench"
	"letterlock/chat"
)

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "bench",
		Short:   "Measure a server on this machine",
		Example: `  letterlock bench send`,
	}
	cmd.AddCommand(benchSendCommand())
	return cmd
}

// benchSend is what the flags say.
type benchSend struct {
	server   string
	pairs    int
	size     int
	windows  []string
	rate     int
	duration time.Duration
	warmup   time.Duration
	dir      string
	asJSON   bool
}

// benchSendResult is what is printed as JSON.
type benchSendResult struct {
	Pairs      int                `json:"pairs"`
	Size       int                `json:"message_bytes"`
	Throughput []bench.Throughput `json:"throughput"`
	Latency    *bench.Latency     `json:"latency,omitempty"`
}

func benchSendCommand() *cobra.Command {
	var b benchSend
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Messages a second, and how long one takes",
		Long: `Pairs of people, one of whom sends to the other over live connections: how many messages a second arrive when
each sender keeps 1, 4 or 16 without an answer, and how long a message takes at a fixed rate, counted from when
it was due. Every message is written and synced before it is acknowledged. The server runs in a process of its
own on the same machine; processor time is given for both, the generator's apart.`,
		Example: `  letterlock bench send
  letterlock bench send --windows 1,4 --duration 10s --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return b.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&b.server, "server", "", "public URL of a running server without rate limits (default: start one)")
	f.IntVar(&b.pairs, "pairs", 100, "pairs of people")
	f.IntVar(&b.size, "size", 1024, "content of a message, bytes")
	f.StringSliceVar(&b.windows, "windows", []string{"1", "4", "16"}, "messages in flight for each sender")
	f.IntVar(&b.rate, "rate", 50, "messages a second when latency is measured; 0 leaves it out")
	f.DurationVar(&b.duration, "duration", 5*time.Second, "measured time of a run")
	f.DurationVar(&b.warmup, "warmup", time.Second, "time before a run is measured")
	f.StringVar(&b.dir, "dir", "", "folder for the server's data while it runs (default: a temporary one)")
	f.BoolVar(&b.asJSON, "json", false, "print JSON")
	return cmd
}

func (b *benchSend) run(cmd *cobra.Command) (err error) {
	if b.pairs < 1 || b.size < 8 || b.size > 64<<10 || b.rate < 0 {
		return fmt.Errorf("%w: --pairs and --size must be positive, --size at most 65536", errUsage)
	}
	windows := make([]int, len(b.windows))
	for i, w := range b.windows {
		if windows[i], err = strconv.Atoi(w); err != nil || windows[i] < 1 || windows[i] > 256 {
			return fmt.Errorf("%w: --windows are numbers from 1 to 256", errUsage)
		}
	}
	ctx, progress := cmd.Context(), cmd.ErrOrStderr()
	o := bench.SendOptions{Size: b.size, Warmup: b.warmup, Duration: b.duration}
	url := b.server
	if url == "" {
		server, stop, err := b.start(cmd)
		if err != nil {
			return err
		}
		defer stop()
		url, o.Server = server.URL, server
	}
	pairs, err := bench.NewPairs(ctx, url, b.pairs, func(done int) {
		if done%25 == 0 || done == b.pairs {
			fmt.Fprintf(progress, "pairs: %d of %d\n", done, b.pairs)
		}
	})
	if err != nil {
		return err
	}
	result := benchSendResult{Pairs: b.pairs, Size: b.size}
	for _, w := range windows {
		fmt.Fprintf(progress, "window %d\n", w)
		t, err := bench.Window(ctx, pairs, w, o)
		if err != nil {
			return err
		}
		result.Throughput = append(result.Throughput, t)
	}
	if b.rate > 0 {
		fmt.Fprintf(progress, "latency at %d/s\n", b.rate)
		o.Duration = max(o.Duration, 10*time.Second)
		lat, err := bench.Rate(ctx, pairs, b.rate, o)
		if err != nil {
			return err
		}
		result.Latency = &lat
	}
	if b.asJSON {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(result)
	}
	return result.print(cmd.OutOrStdout())
}

// start runs a server of this same program in a folder that is removed afterwards.
func (b *benchSend) start(cmd *cobra.Command) (server *bench.Process, stop func(), err error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "letterlock-bench-")
	if err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "no folder for the server's data")
	}
	address, err := bench.FreeAddress()
	if err == nil {
		server, err = bench.Start(cmd.Context(), bench.ServerOptions{Executable: executable, DataDir: filepath.Join(dir, "data"), Address: address})
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, nil, err
	}
	return server, func() {
		server.Kill()
		os.RemoveAll(dir)
	}, nil
}

func (r *benchSendResult) print(w io.Writer) error {
	fmt.Fprintf(w, "%d pairs, %d bytes, every message synced before its acknowledgement\n\n", r.Pairs, r.Size)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join([]string{"window", "delivered/s", "p50 ms", "p99 ms", "server CPU s/1000", "generator CPU s/1000", ""}, "\t"))
	for _, x := range r.Throughput {
		server := "-"
		if x.ServerCPU > 0 {
			server = fmt.Sprintf("%.3f", x.ServerCPU)
		}
		fmt.Fprintf(t, "%d\t%.0f\t%.2f\t%.2f\t%s\t%.3f\t\n", x.Window, x.PerSecond, x.P50, x.P99, server, x.GeneratorCPU)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if l := r.Latency; l != nil {
		fmt.Fprintf(w, "\nat %d/s: p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms (%d messages, from when each was due)\n", l.Rate, l.P50, l.P90, l.P99, l.Max, l.Samples)
	}
	return nil
}
