package vault

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var writeSeeds = flag.Bool("seeds", false, "write the seeds of the fuzz tests anew")

// FuzzKey throws bytes at the key file.
func FuzzKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte("-> scrypt")) {
			return // what age reads is age's to fuzz, and costs seconds
		}
		k, err := parseKey(data, wrapped("x"))
		if err == nil && string(data) != keyHeader+base64.StdEncoding.EncodeToString(k[:])+"\n" {
			t.Error("an accepted key does not come back")
		}
	})
}

// FuzzBackup throws bytes at the rows of a backup.
func FuzzBackup(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var again bytes.Buffer
		again.WriteString(backupHeader)
		err := readBackup(bufio.NewReader(bytes.NewReader(data)), func(bucket, name string, value []byte) error {
			return writeRow(&again, bucket, name, value)
		})
		if err == nil && !bytes.Equal(again.Bytes(), data) {
			t.Error("an accepted backup does not come back")
		}
	})
}

// TestSeeds makes sure that the fuzz tests have something to start from.
func TestSeeds(t *testing.T) {
	if *writeSeeds {
		seeds(t)
	}
	for name, least := range map[string]int{"FuzzKey": 2, "FuzzBackup": 2} {
		found, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(found) < least {
			t.Errorf("%s has %d seeds, want %d at least (go test -run TestSeeds -seeds)", name, len(found), least)
		}
	}
}

func seeds(t *testing.T) {
	writeSeed(t, "FuzzKey", "plain", []byte(keyHeader+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"))
	writeSeed(t, "FuzzKey", "age", []byte(ageHeader+"v1\n"))
	var rows bytes.Buffer
	rows.WriteString(backupHeader)
	writeSeed(t, "FuzzBackup", "empty", bytes.Clone(rows.Bytes()))
	for _, value := range []string{"", "a value", strings.Repeat("x", 300)} {
		if err := writeRow(&rows, "bucket", "name", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	writeSeed(t, "FuzzBackup", "rows", rows.Bytes())
}

// writeSeed writes one file of Go's corpus format.
func writeSeed(t *testing.T, fuzz, name string, data []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", fuzz)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
