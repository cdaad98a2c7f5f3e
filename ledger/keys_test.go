package ledger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeysAreKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := LoadKeys(dir, "chat.example:8080")
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadKeys(dir, "chat.example:8080")
	if err != nil {
		t.Fatal(err)
	}
	if !first.Server.Equal(again.Server) || first.LedgerVKey() != again.LedgerVKey() || !bytes.Equal(first.VRFKey(), again.VRFKey()) {
		t.Error("the keys changed")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestKeysRefused(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"readable by others": func(dir string) error { return os.Chmod(filepath.Join(dir, serverFile), 0o640) },
		"cut short":          func(dir string) error { return os.WriteFile(filepath.Join(dir, vrfFile), []byte("c2VjcmV0\n"), 0o600) },
		"no scalar": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, vrfFile), []byte(strings.Repeat("/", 43)+"=\n"), 0o600)
		},
		"a zero scalar": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, vrfFile), []byte(strings.Repeat("A", 43)+"=\n"), 0o600)
		},
		"empty": func(dir string) error { return os.WriteFile(filepath.Join(dir, serverFile), nil, 0o600) },
		"no note key": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ledgerFile), []byte("PRIVATE+KEY+x\n"), 0o600)
		},
		"another host": func(dir string) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := LoadKeys(dir, "chat.example"); err != nil {
				t.Fatal(err)
			}
			secrets := readAll(t, dir)
			if err := damage(dir); err != nil {
				t.Fatal(err)
			}
			host := "chat.example"
			if name == "another host" {
				host = "other.example"
			}
			_, err := LoadKeys(dir, host)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, secret := range append(secrets, "c2VjcmV0") {
				if strings.Contains(err.Error(), secret) {
					t.Error("the error quotes a key")
				}
			}
		})
	}
}

func readAll(t *testing.T, dir string) (texts []string) {
	t.Helper()
	for _, name := range []string{serverFile, ledgerFile, vrfFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, strings.TrimSpace(string(data)))
	}
	return texts
}

func TestKeysDoNotPrint(t *testing.T) {
	k, err := NewKeys("chat.example")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, k); text != "keys of chat.example" {
			t.Errorf("%s: %s", format, text)
		}
	}
}
