package cmd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"letterlock/bench"
)

type benchLedger struct{ bench.Ledger }

func ledgerScenario() *scenario {
	var o bench.LedgerOptions
	var upto int
	return &scenario{
		name:  "ledger",
		short: "What the public log takes in, and how soon it is proven",
		long: `In this process, on SQLite in a folder that is removed afterwards, without a server: the log is filled to ten thousand entries,
a hundred thousand and so on, and at each size the writer is measured (leaves a second out of a full outbox, each
batch synced, with its map root and signed checkpoint), then deeds with a proof in hand for each, then proofs that the
map lacks a label. After that, records at a fixed rate, from when each was due until a checkpoint covers it; the last
entry of that tree is the map that holds it. Somebody waits for the proof of each.
And messages into the same store, alone and beside deeds at that rate, each of which is a synced transaction of its own;
a message itself logs nothing.

Witnesses are not part of it: a policy adds their answer to each checkpoint.`,
		example: `  letterlock bench ledger
  letterlock bench ledger --upto 1000000 --json`,
		flags: func(f *pflag.FlagSet) {
			f.IntVar(&upto, "upto", 100000, "entries in the log at the last measurement")
			f.IntVar(&o.Rate, "rate", 500, "records a second when the way into the log is measured")
			f.DurationVar(&o.Duration, "duration", 5*time.Second, "measured time of a paced run")
		},
		quick: func() { upto, o.Duration = 10000, time.Second },
		check: func() error {
			if upto < 1 || upto > 1e8 || o.Rate < 1 || o.Rate > 100_000 || o.Duration <= 0 {
				return fmt.Errorf("%w: --upto is 1 to 100000000, --rate 1 to 100000, --duration positive", errUsage)
			}
			return nil
		},
		files: func() int { return 0 },
		local: true,
		run: func(ctx context.Context, bed *bed) (benchResult, error) {
			o.Dir, o.Sizes, o.Progress = bed.place, growthSteps(upto), bed.progress
			r, err := bench.MeasureLedger(ctx, o)
			return benchLedger{r}, err
		},
	}
}

func (r benchLedger) figures() (all []figure) {
	for _, s := range r.Steps {
		all = append(all,
			figure{fmt.Sprintf("with %d entries, appended", s.Entries), fmt.Sprintf("%.0f/s", s.Appended)},
			figure{"  from deed to proof in hand", fmt.Sprintf("%.0f/s", s.Provable)},
			figure{"  proof that the map lacks a label", fmt.Sprintf("%d bytes at most, checked in %.0f us", s.MapBytes, s.Checked)},
			figure{"  on disk", fmt.Sprintf("%.1f MB", float64(s.Disk)/1e6)})
	}
	p, m := r.Paced, r.Messages
	return append(all,
		figure{fmt.Sprintf("into log and map at %d/s", p.Rate), fmt.Sprintf("p50 %.0f ms, p99 %.0f ms (%d records)", p.P50, p.P99, p.Records)},
		figure{"messages into the same store, alone", fmt.Sprintf("%.0f/s", m.Alone)},
		figure{fmt.Sprintf("  with %d records/s logged beside", p.Rate), fmt.Sprintf("%.0f/s", m.Beside)})
}
