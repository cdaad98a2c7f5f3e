package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// printTable prints one table of throughput, one of latency, and what an acknowledgement was seen to mean.
func printTable(w io.Writer, o *options, results []result) error {
	fmt.Fprintf(w, "%d pairs, %d bytes, plain TCP on loopback, every message kept and delivered live; the generator is on the same machine\n\n", o.pairs, o.Size)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(cells ...string) { fmt.Fprintln(t, strings.Join(cells, "\t")+"\t") }
	row("round", "system", "version", "store", "window", "delivered/s", "p50 ms", "p99 ms", "server CPU s/1000", "generator CPU s/1000")
	for _, r := range results {
		for _, x := range r.Throughput {
			row(fmt.Sprint(r.Round), r.System, r.Version, r.Store, fmt.Sprint(x.Window), fmt.Sprintf("%.0f", x.PerSecond), fmt.Sprintf("%.2f", x.P50),
				fmt.Sprintf("%.2f", x.P99), fmt.Sprintf("%.3f", x.ServerCPU), fmt.Sprintf("%.3f", x.GeneratorCPU))
		}
	}
	row()
	row("round", "system", "", "", "rate/s", "messages", "p50 ms", "p99 ms", "p90 ms", "max ms")
	for _, r := range results {
		if l := r.Latency; l != nil {
			row(fmt.Sprint(r.Round), r.System, "", "", fmt.Sprint(l.Rate), fmt.Sprint(l.Samples), fmt.Sprintf("%.2f", l.P50), fmt.Sprintf("%.2f", l.P99),
				fmt.Sprintf("%.2f", l.P90), fmt.Sprintf("%.2f", l.Max))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for _, r := range results {
		fmt.Fprintf(w, "%s, round %d: %s; others used %.1f cores meanwhile\n", r.System, r.Round, r.meaning(), r.Others)
	}
	return nil
}

// meaning says what was seen of an acknowledgement. An XMPP server's is the answer to a request of stream management (XEP-0198).
func (r *result) meaning() string {
	if r.Waits == nil {
		return "acknowledged after its sync (the tests in e2e/durability watch the system calls)"
	}
	said := "while PostgreSQL held commits, a message was " + not(r.Waits.Acknowledgement, "acknowledged") + " and was " + not(r.Waits.Delivery, "delivered")
	if r.Copies > 0 {
		said += fmt.Sprintf("; %.2f archived rows a message", r.Copies)
	}
	return said
}

func not(waited bool, what string) string {
	if waited {
		return "not " + what
	}
	return what
}
