package cmd

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"letterlock/bench"
)

// benchSend is what the flags say.
type benchSend struct {
	pairs    int
	size     int
	windows  []string
	rate     int
	sealed   int
	duration time.Duration
	warmup   time.Duration
}

// benchSendResult is what is printed as JSON.
type benchSendResult struct {
	Pairs      int                `json:"pairs"`
	Size       int                `json:"message_bytes"`
	TLS        bool               `json:"tls"`
	Throughput []bench.Throughput `json:"throughput"`
	Sealed     []bench.Sealed     `json:"sealed,omitempty"`
	Latency    *bench.Latency     `json:"latency,omitempty"`
}

func sendScenario() *scenario {
	var b benchSend
	return &scenario{
		name:  "send",
		short: "Messages a second, and how long one takes",
		long: `Pairs of people, one of whom sends to the other over live connections: how many messages a second arrive when
each sender keeps 1, 4 or 16 without an answer, and how long a message takes at a fixed rate, counted from when
it was due. Every message is written and synced before it is acknowledged.

Messages have the envelope of MLS and random bytes inside, since a server cannot tell. --sealed adds a run for
each window with messages really encrypted beforehand, so many for each pair; when all have arrived, each is
opened. All of them are in memory, about 1.2 kB each, and encrypting one takes tens of microseconds: that
limits their number. To see what TLS costs, run once with --tls and once without.`,
		example: `  letterlock bench send
  letterlock bench send --windows 1,4 --duration 10s --json
  letterlock bench send --tls --sealed`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&b.pairs, "pairs", 100, "pairs of people")
			f.IntVar(&b.size, "size", 1024, "content of a message, bytes")
			f.StringSliceVar(&b.windows, "windows", []string{"1", "4", "16"}, "messages in flight for each sender")
			f.IntVar(&b.rate, "rate", 50, "messages a second when latency is measured; 0 leaves it out")
			f.DurationVar(&b.duration, "duration", 5*time.Second, "measured time of a run")
			f.DurationVar(&b.warmup, "warmup", time.Second, "time before a run is measured")
			f.IntVar(&b.sealed, "sealed", 0, "messages encrypted beforehand, for each pair and window")
			f.Lookup("sealed").NoOptDefVal = "1000"
		},
		quick: func() { b.pairs, b.duration, b.warmup, b.rate = 20, time.Second, 200*time.Millisecond, 0 },
		check: func() error {
			if b.pairs < 1 || b.size < 8 || b.size > 64<<10 || b.rate < 0 || b.sealed < 0 {
				return fmt.Errorf("%w: --pairs and --size must be positive, --size at most 65536, --rate and --sealed not negative", errUsage)
			}
			_, err := b.windowSizes()
			return err
		},
		files: func() int { return 4 * b.pairs },
		run:   func(ctx context.Context, bed *bed) (benchResult, error) { return b.run(ctx, bed) },
	}
}

func (b *benchSend) windowSizes() (sizes []int, err error) {
	for _, w := range b.windows {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 || n > 256 {
			return nil, fmt.Errorf("%w: --windows are numbers from 1 to 256", errUsage)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

func (b *benchSend) run(ctx context.Context, bed *bed) (*benchSendResult, error) {
	windows, err := b.windowSizes()
	if err != nil {
		return nil, err
	}
	pairs, err := bench.NewPairs(ctx, bed.at, b.pairs, bed.progress)
	if err != nil {
		return nil, err
	}
	o := bench.SendOptions{Size: b.size, Warmup: b.warmup, Duration: b.duration, Server: bed.process}
	result := &benchSendResult{Pairs: b.pairs, Size: b.size, TLS: bed.tls}
	for _, w := range windows {
		bed.progress("window %d", w)
		t, err := bench.Window(ctx, pairs, w, o)
		if err != nil {
			return nil, err
		}
		result.Throughput = append(result.Throughput, t)
	}
	if b.sealed > 0 {
		if result.Sealed, err = bench.MeasureSealed(ctx, bed.at, pairs, windows, b.sealed, o, bed.progress); err != nil {
			return nil, err
		}
	}
	if b.rate > 0 {
		bed.progress("latency at %d/s", b.rate)
		o.Duration = max(o.Duration, 10*time.Second)
		lat, err := bench.Rate(ctx, pairs, b.rate, o)
		if err != nil {
			return nil, err
		}
		result.Latency = &lat
	}
	return result, nil
}

func (r *benchSendResult) print(w io.Writer) error {
	over := "plain HTTP"
	if r.TLS {
		over = "TLS"
	}
	fmt.Fprintf(w, "%d pairs, %d bytes, %s, every message synced before its acknowledgement\n\n", r.Pairs, r.Size, over)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join([]string{"window", "delivered/s", "p50 ms", "p99 ms", "server CPU s/1000", "generator CPU s/1000", ""}, "\t"))
	row := func(name string, x bench.Throughput) {
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.2f\t%s\t%.3f\t\n", name, x.PerSecond, x.P50, x.P99, cpuText(x.ServerCPU), x.GeneratorCPU)
	}
	for _, x := range r.Throughput {
		row(strconv.Itoa(x.Window), x)
	}
	for _, x := range r.Sealed {
		row(fmt.Sprintf("%d, sealed", x.Window), x.Throughput)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, x := range r.Sealed {
		fmt.Fprintf(w, "\nwindow %d, sealed: %d messages of %d bytes, encrypted in %.1f s before, all opened in %.1f s after\n", x.Window, x.Opened, x.Bytes, x.SealSeconds, x.OpenSeconds)
	}
	if l := r.Latency; l != nil {
		fmt.Fprintf(w, "\nat %d/s: p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms (%d messages, from when each was due)\n", l.Rate, l.P50, l.P90, l.P99, l.Max, l.Samples)
	}
	return nil
}

func (r *benchSendResult) figures() (all []figure) {
	add := func(name string, x bench.Throughput) {
		all = append(all, figure{name, fmt.Sprintf("%.0f/s, p50 %.2f ms, p99 %.2f ms", x.PerSecond, x.P50, x.P99)},
			figure{name + ", CPU s/1000", cpuPair(bench.CPU{Server: x.ServerCPU, Generator: x.GeneratorCPU})})
	}
	for _, x := range r.Throughput {
		add(fmt.Sprintf("delivered, window %d", x.Window), x)
	}
	for _, x := range r.Sealed {
		add(fmt.Sprintf("delivered and opened, window %d, sealed", x.Window), x.Throughput)
	}
	if l := r.Latency; l != nil {
		all = append(all, figure{fmt.Sprintf("latency at %d/s", l.Rate), fmt.Sprintf("p50 %.2f ms, p90 %.2f ms, p99 %.2f ms, max %.2f ms", l.P50, l.P90, l.P99, l.Max)})
	}
	return all
}
