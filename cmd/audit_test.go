package cmd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/audit"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/server"
	"letterlock/witness"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// running starts a server and returns its URL and the key of its ledger.
func running(t *testing.T) (url, vkey string, stop func()) {
	t.Helper()
	data := t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{DataDir: data, Listen: "127.0.0.1:0", Logger: quiet(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	keys, err := ledger.ReadKeys(filepath.Join(data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	return s.URL(), keys.LedgerVKey(), stop
}

func TestAuditOnce(t *testing.T) {
	url, vkey, stop := running(t)
	home := t.TempDir()
	command := []string{"audit", "--once", "--home", home, "--log", vkey, "--url", url}
	code, stdout, stderr := run(append(command, "--progress")...)
	if code != exitOK || !strings.Contains(stdout, "entries are in order") || !strings.Contains(stderr, "replaying the ledger") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	code, stdout, _ = run(append(command, "--json")...)
	var r audit.Report
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != exitOK || r.Size < 2 || r.Read != 0 {
		t.Fatalf("exit code %d: %s: %v", code, stdout, err)
	}
	if code, _, stderr := run("audit", "--once", "--home", t.TempDir(), "--log", "chat.example/x+00000000+AAAA", "--url", url); code != exitFailed || !strings.Contains(stderr, "not a note verifier") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	stop()
	if code, _, stderr := run(command...); code != exitRetry || !strings.Contains(stderr, "cannot be reached") {
		t.Errorf("no server: exit code %d: %s", code, stderr)
	}
	if err := os.WriteFile(filepath.Join(home, "evidence.json"), []byte(`{"sentence":"the log lies: entry 7 cannot be read"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := run(command...); code != exitTampered || !strings.Contains(stderr, "entry 7 cannot be read (this auditor stopped for good") {
		t.Errorf("after a lie: exit code %d: %s", code, stderr)
	}
	if code, _, stderr := run("audit", "evidence", filepath.Join(home, "evidence.json")); code != exitTampered || !strings.Contains(stderr, "convicts nobody") {
		t.Errorf("evidence of nothing: exit code %d: %s", code, stderr)
	}
}

// TestAuditServes: the running auditor cosigns over HTTP, shows its metrics, and ends when it is told to.
func TestAuditServes(t *testing.T) {
	url, vkey, _ := running(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	home := t.TempDir()
	a, err := audit.Open(ctx, audit.Config{Home: home, Log: vkey, Server: url, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	w, err := witness.Open(witness.Config{Home: filepath.Join(home, "witness"), Logs: []string{vkey}, Name: "auditor.example/letterlock", Logger: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	w.Check = a.Check
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serveAudit(ctx, in, a, w, "127.0.0.1:0", quiet()) }()
	lines := bufio.NewScanner(out)
	lines.Scan()
	if lines.Text() != w.VKey() {
		t.Errorf("it says %q first", lines.Text())
	}
	lines.Scan()
	line := strings.Fields(lines.Text())
	signed := get(t, url+"/log/checkpoint")
	log, err := proof.NewLog(vkey)
	if err != nil {
		t.Fatal(err)
	}
	if err := log.Advance(signed, nil); err != nil {
		t.Fatal(err)
	}
	if cosigned, err := new(witness.Client).Cosign(ctx, line[3], signed, log.Checkpoint().Size, 0, nil); err != nil || !strings.Contains(cosigned, "auditor.example/letterlock") {
		t.Errorf("%q, %v", cosigned, err)
	}
	if metrics := get(t, line[3]+"metrics"); !bytes.Contains(metrics, []byte("letterlock_audit_size")) {
		t.Errorf("%s", metrics)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, url string) []byte {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return data
}
