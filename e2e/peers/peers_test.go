package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"letterlock/bench"
)

// TestPeers runs the comparison with two pairs. It is skipped where the peers are not installed, also in CI: they are for comparing, and
// letterlock does not need them.
func TestPeers(t *testing.T) {
	if missing := missingPackages(); len(missing) > 0 {
		t.Skipf("not installed: %s (make peers installs them)", strings.Join(missing, " "))
	}
	o := options{rounds: 1, pairs: 2, windows: []int{1, 4},
		SendOptions: bench.SendOptions{Size: 1024, Duration: time.Second, CPU: serverCPU}}
	results, err := o.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(results) < 3 {
		t.Fatalf("only %d systems were measured", len(results))
	}
	for _, r := range results {
		for _, x := range r.Throughput {
			if x.Delivered == 0 || x.P50 <= 0 || x.P99 < x.P50 {
				t.Errorf("%s: %+v", r.System, x)
			}
		}
		if r.Waits != nil && !(r.Waits.Acknowledgement && r.Waits.Delivery) {
			t.Errorf("%s did not wait for the commit: %+v; README.md says that all do", r.System, r.Waits)
		}
		if peer := !strings.HasPrefix(r.System, "letterlock"); peer && r.Copies != 2 {
			t.Errorf("%s archived %.3f rows a message; README.md says one for each side", r.System, r.Copies)
		}
	}
	var table bytes.Buffer
	if err := printTable(&table, &o, results); err != nil || !strings.Contains(table.String(), "ejabberd") {
		t.Errorf("%v: %s", err, &table)
	}
}
