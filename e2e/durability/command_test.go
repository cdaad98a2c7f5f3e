package durability

import (
	"encoding/json"
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestBenchSend runs a very short measurement: that it works and adds up, not how fast anything is.
func TestBenchSend(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), binary, "bench", "send", "--pairs", "3", "--windows", "1,8", "--duration", "300ms", "--warmup", "50ms",
		"--rate", "0", "--json")
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	must(t, err)
	var result struct {
		Pairs      int
		Throughput []struct {
			Window    int
			Delivered int64
		}
	}
	must(t, json.Unmarshal(out, &result))
	if result.Pairs != 3 || len(result.Throughput) != 2 || result.Throughput[0].Delivered == 0 || result.Throughput[1].Window != 8 {
		t.Errorf("got %s", out)
	}
}

func TestCommandsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"bench send --windows x", 2, "--windows"},
		{"bench send --pairs 0", 2, "--pairs"},
		{"check", 2, "data"},
		{"check --data /nonexistent/folder", 1, "no data folder"},
		{"migrate --data DIR", 2, "--database"},
		{"migrate --data /nonexistent/folder --database postgres://me@127.0.0.1:1/x", 1, "no data folder"},
		{"serve", 2, "data"},
		{"serve --data DIR --listen 0.0.0.0:0", 1, "--tls-cert"},
		{"serve --data DIR --tls-cert x", 1, "--tls-key"},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "DIR", t.TempDir()))
		out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || !strings.Contains(string(out), c.says) {
			t.Errorf("%s: %v: %s", c.args, err, out)
		} else if exit.ExitCode() != c.code {
			t.Errorf("%s: code %d, want %d: %s", c.args, exit.ExitCode(), c.code, out)
		}
	}
}
