package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"letterlock/chat"
)

// TestDomainFile: what is compared with an offer's root key is the partner's own word, whole, or nothing.
func TestDomainFile(t *testing.T) {
	key := bytes.Repeat([]byte{7}, 32)
	good, _ := json.Marshal(map[string]any{"partner": "flimmer", "root_key": key})
	short, _ := json.Marshal(map[string]any{"partner": "flimmer", "root_key": key[:31]})
	for name, c := range map[string]struct {
		data []byte
		kind chat.Kind
	}{
		"good":            {good, ""},
		"another partner": {bytes.Replace(good, []byte("flimmer"), []byte("flammer"), 1), chat.Invalid},
		"a short key":     {short, chat.Invalid},
		"no key":          {[]byte(`{"partner":"flimmer"}`), chat.Invalid},
		"garbage":         {[]byte("{"), chat.Invalid},
		"too large":       {bytes.Repeat([]byte(" "), maxDomainFile+1), chat.TooLarge},
	} {
		path := filepath.Join(t.TempDir(), "letterlock-partner.json")
		if err := os.WriteFile(path, c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := domainKey(context.Background(), "", path, "flimmer")
		if c.kind == "" && (err != nil || !bytes.Equal(got, key)) || c.kind != "" && !chat.Is(err, c.kind) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
	if got, err := domainKey(context.Background(), "", "", "flimmer"); got != nil || err != nil {
		t.Errorf("neither named: %x, %v", got, err)
	}
	if _, err := domainKey(context.Background(), "flimmer.example/x?", "", "flimmer"); !chat.Is(err, chat.Invalid) {
		t.Errorf("a malformed domain: %v", err)
	}
}

// TestAdminWithoutServer: the operator is told what to do, with the exit code that says so.
func TestAdminWithoutServer(t *testing.T) {
	var out, errs bytes.Buffer
	if code := Main([]string{"admin", "--data", t.TempDir(), "partner", "list"}, strings.NewReader(""), &out, &errs); code != exitRetry {
		t.Errorf("exit %d: %s", code, errs.String())
	}
	if !strings.Contains(errs.String(), "letterlock serve") {
		t.Errorf("it says: %s", errs.String())
	}
	if code := Main([]string{"admin", "partner", "list"}, strings.NewReader(""), &out, &errs); code != exitUsage {
		t.Errorf("without --data: exit %d", code)
	}
}
