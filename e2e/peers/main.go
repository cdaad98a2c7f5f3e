// Command peers measures letterlock and what an operator could run instead of it, ejabberd and Prosody, on this machine, in one run,
// under the same load: pairs of people, one of whom sends to the other over live connections, every message kept and delivered.
//
// Neighbours: bench is the load on letterlock; the load on XMPP servers here does the same with a client of its own (xmpp.go). Each server
// runs alone, from a folder that is removed, with Debian's PostgreSQL in a private cluster. It judges nothing: what was configured and how
// the figures are to be read stands in README.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"letterlock/bench"
)

// rateTime is measured at a fixed rate at least.
const rateTime = 10 * time.Second

// options are what the flags say.
type options struct {
	only    []string // systems; none: all
	rounds  int
	pairs   int
	windows []int
	rate    int
	dir     string
	bench.SendOptions
}

func main() {
	if err := command(); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func command() error {
	o := options{SendOptions: bench.SendOptions{CPU: serverCPU}}
	only := flag.String("only", "", "systems to measure, by `name`, separated by commas (default: all)")
	windows := flag.String("windows", "1,4,16", "messages in flight for each sender, separated by commas")
	flag.IntVar(&o.rounds, "rounds", 1, "how many times to go through all systems")
	flag.IntVar(&o.pairs, "pairs", 100, "pairs of people")
	flag.IntVar(&o.Size, "size", 1024, "content of a message, bytes")
	flag.IntVar(&o.rate, "rate", 50, "messages a second when latency is measured; 0 leaves it out")
	flag.DurationVar(&o.Duration, "duration", 5*time.Second, "measured time of a run")
	flag.DurationVar(&o.Warmup, "warmup", time.Second, "time before a run is measured")
	flag.StringVar(&o.dir, "dir", "", "folder for the servers' data while they run (default: a temporary one)")
	asJSON := flag.Bool("json", false, "print JSON")
	missing := flag.Bool("missing", false, "print the Debian packages that are missing, and stop")
	flag.Usage = func() {
		fmt.Fprint(flag.CommandLine.Output(), "Measure letterlock, ejabberd and Prosody on this machine under the same load.\n\n",
			"Example:\n  go run ./e2e/peers --windows 1,4 --rounds 2\n\nFlags:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *missing {
		fmt.Println(strings.Join(missingPackages(), " "))
		return nil
	}
	if err := o.read(*only, *windows); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results, err := o.run(ctx)
	if err != nil {
		return err
	}
	if *asJSON {
		return json.NewEncoder(os.Stdout).Encode(results)
	}
	return printTable(os.Stdout, &o, results)
}

// read checks the flags.
func (o *options) read(only, windows string) error {
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	for _, name := range o.only {
		if !slices.ContainsFunc(systems, func(s system) bool { return s.name == name }) {
			return fmt.Errorf("no system is called %q: there are %s", name, strings.Join(systemNames(), ", "))
		}
	}
	for _, w := range strings.Split(windows, ",") {
		n, err := strconv.Atoi(w)
		if err != nil || n < 1 || n > 256 {
			return errors.New("--windows are numbers from 1 to 256")
		}
		o.windows = append(o.windows, n)
	}
	if o.rounds < 1 || o.rounds > 100 || o.pairs < 1 || o.pairs > 1000 || o.Size < minBody || o.Size > 64<<10 || o.rate < 0 || o.rate > 10_000 {
		return fmt.Errorf("--rounds go to 100, --pairs to 1000, --size from %d to 65536, --rate to 10000", minBody)
	}
	if o.Duration <= 0 || o.Duration > 10*time.Minute || o.Warmup < 0 || o.Warmup > time.Minute {
		return errors.New("--duration goes to 10m, --warmup to 1m")
	}
	return nil
}

// packages are Debian's, for everything here.
var packages = []string{"postgresql", "ejabberd", "erlang-p1-pgsql", "prosody", "lua-dbi-postgresql"}

func missingPackages() (missing []string) {
	for _, name := range packages {
		if packageVersion(name) == "" {
			missing = append(missing, name)
		}
	}
	return missing
}

// packageVersion is the version of an installed Debian package, "" if it is not installed.
func packageVersion(name string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Version}", name).Output()
	version, installed := strings.CutPrefix(string(out), "ii ")
	if err != nil || !installed {
		return ""
	}
	return version
}
