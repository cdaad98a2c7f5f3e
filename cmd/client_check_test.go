package cmd

import (
	"bytes"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"rsc.io/qr"

	"letterlock/chat"
	"letterlock/proof"
)

// TestVerifyEvidence: exit code 0 where the ledger convicts itself, 4 where it does not, and both times a sentence.
func TestVerifyEvidence(t *testing.T) {
	skey, vkey, err := note.GenerateKey(rand.Reader, "chat.example/letterlock")
	if err != nil {
		t.Fatal(err)
	}
	log, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(roots ...byte) string {
		f := proof.EvidenceFile{Host: "chat.example", LedgerVKey: vkey, Lies: []proof.Lie{{Sentence: "a lie\x1b[2J", Checkpoints: []string{}}}}
		for _, r := range roots {
			signed, err := proof.SignCheckpoint(log, 7, proof.Hash{r})
			if err != nil {
				t.Fatal(err)
			}
			f.Lies[0].Checkpoints = append(f.Lies[0].Checkpoints, string(signed))
		}
		data, err := f.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "lies.json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		path string
		code int
		part string
	}{
		{write(1, 2), 0, "CONVICTED. The ledger of chat.example contradicts itself in what it signed."},
		{write(1, 1), exitTampered, "they do not contradict each other"},
		{write(), exitTampered, "This is the device's word"},
	} {
		code, out, _ := run("verify", c.path, "--ledger-key", vkey)
		if code != c.code || !strings.Contains(out, c.part) || strings.Contains(out, "\x1b") {
			t.Errorf("exit code %d, %q; want %d, %q", code, out, c.code, c.part)
		}
	}
	if code, out, _ := run("verify", write(1, 2), "--json"); code != 0 || !strings.Contains(out, `"convicted": true`) {
		t.Errorf("exit code %d, %s", code, out)
	}
}

func TestCompareNumbers(t *testing.T) {
	own := strings.Repeat("12345 ", 12)
	if err := compareNumbers(own, strings.Repeat("12345", 12), "bob"); err != nil {
		t.Error(err)
	}
	if err := compareNumbers(own, strings.Repeat("12345", 11)+"12346", "bob"); !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "the numbers differ") {
		t.Errorf("other digits: %v", err)
	}
	if err := compareNumbers(own, "12345", "bob"); exitCode(err) != exitUsage {
		t.Errorf("too few digits: %v", err)
	}
}

// TestQR: what is drawn is the code, module by module, with a quiet zone around it.
func TestQR(t *testing.T) {
	text := strings.Repeat("1234567890", 6)
	var out bytes.Buffer
	printQR(&out, text)
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	halves := map[rune][2]bool{'█': {}, '▀': {false, true}, '▄': {true, false}, ' ': {true, true}}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != (code.Size+4+1)/2 {
		t.Fatalf("%d lines for %d modules", len(lines), code.Size)
	}
	for y, line := range lines {
		for x, r := range []rune(line) {
			for half, black := range halves[r] {
				if px, py := x-2, 2*y+half-2; black != code.Black(px, py) {
					t.Fatalf("module %d, %d is drawn as %v", px, py, black)
				}
			}
		}
	}
}
