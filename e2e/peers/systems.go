package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"letterlock/bench"
)

// load is the load on one server that runs.
type load interface {
	Window(ctx context.Context, window int) (bench.Throughput, error)
	Rate(ctx context.Context, rate int) (bench.Latency, error)
	One(ctx context.Context, acknowledged, arrived func()) error // one message, saying when it is acknowledged and when it has arrived
	Sent() int64                                                 // messages in all; 0: not counted
	Close()
}

// system is one thing that is measured.
type system struct {
	name     string
	pkg      string // Debian's, "" for letterlock
	postgres bool   // whether it keeps messages there
	archive  string // SQL that counts what it has archived
	start    func(ctx context.Context, m *machine, c *cluster, dir, executable string, o *options) (load, error)
}

var systems = []system{
	{name: "letterlock-sqlite", start: func(ctx context.Context, m *machine, c *cluster, dir, executable string, o *options) (load, error) {
		return startLetterlock(ctx, executable, dir, nil, o.pairs, o.SendOptions)
	}},
	{name: "letterlock-postgres", postgres: true, start: func(ctx context.Context, m *machine, c *cluster, dir, executable string, o *options) (load, error) {
		return startLetterlock(ctx, executable, dir, c, o.pairs, o.SendOptions)
	}},
	{name: "ejabberd", pkg: "ejabberd", postgres: true, archive: `SELECT count(*) FROM archive`, start: startXMPP(startEjabberd)},
	{name: "prosody", pkg: "prosody", postgres: true, archive: `SELECT count(*) FROM prosodyarchive WHERE store = 'archive'`, start: startXMPP(startProsody)},
}

func systemNames() (names []string) {
	for _, s := range systems {
		names = append(names, s.name)
	}
	return names
}

// xmppServer is a load whose server ends with it.
type xmppServer struct {
	*xmppLoad
	*service
}

func (s xmppServer) Close() {
	s.xmppLoad.Close()
	s.stop()
}

func startXMPP(start func(context.Context, *machine, *cluster, string) (*service, string, error)) func(context.Context, *machine, *cluster, string, string, *options) (load, error) {
	return func(ctx context.Context, m *machine, c *cluster, dir, _ string, o *options) (load, error) {
		s, address, err := start(ctx, m, c, dir)
		if err != nil {
			return nil, err
		}
		l, err := newXMPPLoad(ctx, address, o.pairs, o.SendOptions)
		if err != nil {
			s.stop()
			return nil, fmt.Errorf("%w; the server said:\n%s", err, s.said())
		}
		return xmppServer{l, s}, nil
	}
}

// result is what was measured of one system in one round.
type result struct {
	System     string             `json:"system"`
	Version    string             `json:"version"`
	Store      string             `json:"store"`
	Round      int                `json:"round"`
	Throughput []bench.Throughput `json:"throughput"`
	Latency    *bench.Latency     `json:"latency,omitempty"`
	Others     float64            `json:"others_cores"` // busy meanwhile with what was neither the server nor the generator
	Waits      *waits             `json:"waits_for_commit,omitempty"`
	Copies     float64            `json:"archived_copies,omitempty"` // rows of the archive for each message sent
}

// waits is what was seen when PostgreSQL held all commits.
type waits struct {
	Acknowledgement bool `json:"acknowledgement"`
	Delivery        bool `json:"delivery"`
}

// run measures everything, one system after the other.
func (o *options) run(ctx context.Context) (results []result, err error) {
	m, err := newMachine(o.dir)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(m.dir)
	executable, err := buildLetterlock(ctx, m.dir)
	if err != nil {
		return nil, err
	}
	chosen, err := o.choose(takesPostgres(ctx, executable))
	if err != nil {
		return nil, err
	}
	for round := range o.rounds {
		for _, s := range chosen {
			r, err := o.measure(ctx, m, s, executable, round+1)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			results = append(results, r)
		}
	}
	return results, nil
}

// choose leaves out letterlock on PostgreSQL where this tree does not have it yet, and refuses what is not installed.
func (o *options) choose(takesPostgres bool) (chosen []system, err error) {
	for _, s := range systems {
		if len(o.only) > 0 && !slices.Contains(o.only, s.name) {
			continue
		}
		if s.name == "letterlock-postgres" && !takesPostgres {
			fmt.Fprintln(os.Stderr, "letterlock-postgres is left out: `letterlock serve` has no --database")
			continue
		}
		chosen = append(chosen, s)
	}
	if missing := missingPackages(); len(missing) > 0 && slices.ContainsFunc(chosen, func(s system) bool { return s.postgres }) {
		return nil, fmt.Errorf("missing: apt-get install %s (or: make peers, which starts none of their services)", strings.Join(missing, " "))
	}
	if len(chosen) == 0 {
		return nil, errors.New("nothing is left to measure")
	}
	return chosen, nil
}

func (o *options) measure(ctx context.Context, m *machine, s system, executable string, round int) (r result, err error) {
	r = result{System: s.name, Version: "this tree", Store: "SQLite", Round: round}
	if s.pkg != "" {
		r.Version = packageVersion(s.pkg)
	}
	folder := s.name + "-" + strconv.Itoa(round)
	dir, err := m.folder(folder)
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	var c *cluster
	if s.postgres {
		if c, err = startCluster(ctx, m, folder+"-postgres"); err != nil {
			return r, err
		}
		defer os.RemoveAll(c.dir)
		defer c.stop()
		version, err := c.query(ctx, "SHOW server_version")
		if err != nil {
			return r, err
		}
		r.Store = "PostgreSQL " + strings.Fields(version)[0]
	}
	fmt.Fprintf(os.Stderr, "round %d, %s: %d pairs\n", round, s.name, o.pairs)
	l, err := s.start(ctx, m, c, dir, executable, o)
	if err != nil {
		return r, err
	}
	defer l.Close()
	start, others := time.Now(), othersCPU()
	if err := o.load(ctx, l, &r); err != nil {
		return r, err
	}
	r.Others = (othersCPU() - others).Seconds() / time.Since(start).Seconds()
	if c == nil {
		return r, nil
	}
	if r.Waits, err = watch(ctx, l, c); err != nil || s.archive == "" {
		return r, err
	}
	r.Copies, err = copies(ctx, l, c, s.archive)
	return r, err
}

// othersCPU is what the machine has used for others than the server and the generator.
func othersCPU() time.Duration { return machineCPU() - serverCPU() - ownCPU() }

// load measures a server that runs.
func (o *options) load(ctx context.Context, l load, r *result) error {
	for _, w := range o.windows {
		fmt.Fprintf(os.Stderr, "  window %d\n", w)
		t, err := l.Window(ctx, w)
		if err != nil {
			return err
		}
		r.Throughput = append(r.Throughput, t)
	}
	if o.rate == 0 {
		return nil
	}
	fmt.Fprintf(os.Stderr, "  latency at %d/s\n", o.rate)
	lat, err := l.Rate(ctx, o.rate)
	r.Latency = &lat
	return err
}

// watch has PostgreSQL hold commits, sends one message, and sees whether its acknowledgement and its arrival wait for the release.
func watch(ctx context.Context, l load, c *cluster) (*waits, error) {
	release, err := c.hold(ctx)
	if err != nil {
		return nil, err
	}
	acknowledged, arrived := make(chan struct{}), make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- l.One(ctx, func() { close(acknowledged) }, func() { close(arrived) }) }()
	select {
	case <-time.After(held):
	case <-ctx.Done():
	}
	w := &waits{Acknowledgement: !isClosed(acknowledged), Delivery: !isClosed(arrived)}
	if err := release(); err != nil {
		return nil, err
	}
	select {
	case err = <-sent:
	case <-time.After(patient):
		err = errors.New("a message did not arrive after commits were released")
	}
	return w, err
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// copies is how many rows the archive has for each message sent.
func copies(ctx context.Context, l load, c *cluster, sql string) (float64, error) {
	text, err := c.query(ctx, sql)
	if err != nil {
		return 0, err
	}
	rows, err := strconv.ParseInt(text, 10, 64)
	return float64(rows) / float64(l.Sent()), err
}
