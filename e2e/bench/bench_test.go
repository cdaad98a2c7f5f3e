// Package bench runs every measurement of `letterlock bench` with tiny numbers: that it works and adds up, not how fast anything is.
package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// binary is letterlock, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-bench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "letterlock")
	if out, err := exec.Command("go", "build", "-o", binary, "letterlock").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// run runs a measurement and reads its JSON. What it leaves behind in its folder is an error.
func run(t *testing.T, args string, result any) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), binary, append(strings.Fields("bench "+args), "--json", "--dir", dir)...)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bench %s: %v", args, err)
	}
	if err := json.Unmarshal(out, result); err != nil {
		t.Fatalf("bench %s: %v: %s", args, err, out)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("bench %s left %v in its folder (%v)", args, left, err)
	}
}

type cpu struct {
	Server    float64 `json:"server_s_per_1000"`
	Generator float64 `json:"generator_s_per_1000"`
}

func TestSendSealedOverTLS(t *testing.T) {
	var r struct {
		TLS    bool
		Sealed []struct {
			Window, Opened int
			Delivered      int64
			Bytes          int `json:"message_bytes"`
		}
	}
	run(t, "send --pairs 3 --windows 1,8 --duration 100ms --warmup 20ms --rate 0 --tls --sealed=40", &r)
	if !r.TLS || len(r.Sealed) != 2 {
		t.Fatalf("got %+v", r)
	}
	for _, s := range r.Sealed {
		if s.Delivered != 120 || s.Opened != 120 || s.Bytes <= 1024 {
			t.Errorf("3 pairs of 40 messages: %+v", s)
		}
	}
}

func TestRooms(t *testing.T) {
	type rooms struct {
		People, Conversations, Members int
		Full                           struct {
			Messages, Deliveries int64
			CPU                  cpu `json:"cpu_of_deliveries"`
		}
		Paced struct{ Samples int }
	}
	var r struct{ Crowd, Many rooms }
	run(t, "rooms --members 12 --senders 3 --crowd-rate 20 --conversations 30 --people 8 --window 10 --rate 50 --duration 500ms --warmup 50ms", &r)
	if c := r.Crowd; c.Conversations != 1 || c.Full.Messages == 0 || c.Paced.Samples != 10*11 || c.Full.CPU.Generator == 0 {
		t.Errorf("one conversation of 12, 10 messages at a fixed rate: %+v", c)
	}
	// What is under way when the measured time begins and ends is counted by its deliveries, but not as a message yet.
	if c := r.Crowd; c.Full.Deliveries < (c.Full.Messages-4)*11 || c.Full.Deliveries > (c.Full.Messages+4)*11 {
		t.Errorf("%d messages to 11 listeners each made %d deliveries", c.Full.Messages, c.Full.Deliveries)
	}
	if m := r.Many; m.People != 8 || m.Conversations != 30 || m.Full.Messages == 0 || m.Paced.Samples != 25 {
		t.Errorf("30 conversations of two, 25 messages at a fixed rate: %+v", m)
	}
}

func TestConnect(t *testing.T) {
	var r struct {
		Devices, Failures int
		PerSecond         float64 `json:"per_second"`
		CPU               cpu     `json:"cpu_of_connections"`
	}
	run(t, "connect --devices 40", &r)
	if r.Devices != 40 || r.Failures != 0 || r.PerSecond == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestIdle(t *testing.T) {
	var r struct {
		Devices int
		Before  struct{ RSS int64 } `json:"server_before_bytes"`
		After   struct {
			RSS   int64
			InUse int64 `json:"in_use"`
		} `json:"server_after_bytes"`
		Woken int `json:"devices_that_got_a_message_afterwards"`
	}
	run(t, "idle --devices 60 --settle 0s --tls", &r)
	if r.Devices != 60 || r.Woken != 60 || r.Before.RSS == 0 || r.After.RSS == 0 || r.After.InUse == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestCatchUp(t *testing.T) {
	type fetched struct {
		PerSecond float64 `json:"messages_per_second"`
		Megabytes float64 `json:"mb_per_second"`
	}
	var r struct {
		Messages    int
		Live, Pages fetched
	}
	run(t, "catch-up --messages 1500", &r)
	if r.Messages != 1500 || r.Live.PerSecond == 0 || r.Pages.Megabytes == 0 {
		t.Errorf("got %+v", r)
	}
}

func TestGrowth(t *testing.T) {
	var r struct {
		Ciphertext int `json:"ciphertext_bytes"`
		Steps      []struct {
			Stored, Added int64
			Throughput    struct{ Delivered int64 }
		}
		Closed     map[string]int64 `json:"disk_after_stop"`
		PerMessage float64          `json:"bytes_per_message"`
	}
	run(t, "growth --pairs 3 --upto 12000 --duration 100ms --warmup 20ms", &r)
	if len(r.Steps) != 2 || r.Steps[0].Stored != 10000 || r.Steps[1].Stored < 12000 || r.Steps[1].Added < r.Steps[1].Throughput.Delivered {
		t.Fatalf("got %+v", r)
	}
	// The store cannot take less than what was sent.
	if r.PerMessage < float64(r.Ciphertext) {
		t.Errorf("%d bytes a message were sent, and on disk stand %.0f: %+v", r.Ciphertext, r.PerMessage, r.Closed)
	}
}

func TestServerThatRuns(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), binary, "bench", "catch-up", "--server", "http://127.0.0.1:1", "--messages", "1").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 5 || !strings.Contains(string(out), "cannot be reached") {
		t.Errorf("a server that is not there: %v: %s", err, out)
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"rooms --members 1001", 2, "--members"},
		{"rooms --conversations 10000 --people 2", 2, "--people"},
		{"rooms --skew 0.5", 2, "--skew"},
		{"connect --devices 0", 2, "--devices"},
		{"idle --devices 1", 2, "--devices"},
		{"catch-up --messages 0", 2, "--messages"},
		{"growth --window 300", 2, "--window"},
		{"growth --upto 1000000000 --size 65536", 1, "choose another --dir"},
		{"connect --dir /nonexistent/folder", 1, "folder"},
		{"catch-up --server http://127.0.0.1:1 --tls", 2, "--tls"},
		{"all --server http://127.0.0.1:1", 2, "--server"},
		{"send --sealed=-1", 2, "--sealed"},
	} {
		out, err := exec.CommandContext(t.Context(), binary, append([]string{"bench"}, strings.Fields(c.args)...)...).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != c.code || !strings.Contains(string(out), c.says) {
			t.Errorf("bench %s: %v, want code %d and %q: %s", c.args, err, c.code, c.says, out)
		}
	}
}

func TestLedger(t *testing.T) {
	var r struct {
		Steps []struct {
			Entries  int64
			Appended float64 `json:"appended_per_second"`
			Provable float64 `json:"provable_per_second"`
			MapBytes int     `json:"map_proof_bytes"`
		}
		Paced struct {
			Records int
			P50     float64 `json:"p50_ms"`
			P99     float64 `json:"p99_ms"`
		}
		Messages struct {
			Alone  float64 `json:"messages_per_second_alone"`
			Beside float64 `json:"messages_per_second_beside"`
		}
	}
	run(t, "ledger --upto 2000 --rate 50 --duration 200ms", &r)
	if len(r.Steps) != 1 || r.Steps[0].Entries < 2000 || r.Steps[0].Appended <= 0 || r.Steps[0].Provable <= 0 || r.Steps[0].MapBytes == 0 || r.Steps[0].MapBytes > 1024 {
		t.Errorf("%+v", r.Steps)
	}
	if r.Paced.Records != 10 || r.Paced.P50 <= 0 || r.Paced.P99 < r.Paced.P50 || r.Messages.Alone <= 0 || r.Messages.Beside <= 0 {
		t.Errorf("%+v", r)
	}
}
