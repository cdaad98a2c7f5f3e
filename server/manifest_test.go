package server

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"letterlock/chat"
)

func goodManifest() *manifest {
	m := &manifest{Format: manifestFormat, Host: "chat.example", Made: time.Unix(1_800_000_000, 0).UTC(), Version: "test", Checkpoint: "x"}
	for _, name := range []string{databaseName, "keys/ledger.key", "keys/server.key", "keys/vrf.key"} {
		m.Files = append(m.Files, manifestFile{Name: name, Bytes: 5, SHA256: strings.Repeat("ab", 32)})
	}
	return m
}

// more names another file.
func (m *manifest) more(name string) {
	m.Files = append(m.Files, manifestFile{Name: name, Bytes: 1, SHA256: strings.Repeat("00", 32)})
}

func TestManifestsThatLeadElsewhere(t *testing.T) {
	for what, change := range map[string]func(m *manifest){
		"a way up":          func(m *manifest) { m.more("keys/../../x") },
		"an absolute path":  func(m *manifest) { m.more("/etc/passwd") },
		"another folder":    func(m *manifest) { m.more("admin.sock") },
		"a hidden file":     func(m *manifest) { m.more("keys/.x") },
		"a file twice":      func(m *manifest) { m.more("keys/ledger.key") },
		"no database":       func(m *manifest) { m.Files = m.Files[1:] },
		"no key":            func(m *manifest) { m.Files = m.Files[:3] },
		"less than nothing": func(m *manifest) { m.Files[0].Bytes = -1 },
		"a short hash":      func(m *manifest) { m.Files[0].SHA256 = "ab" },
		"no hash":           func(m *manifest) { m.Files[0].SHA256 = strings.Repeat("x", 64) },
		"another format":    func(m *manifest) { m.Format = "letterlock-backup/2" },
		"no host":           func(m *manifest) { m.Host = "" },
		"as it should be":   func(m *manifest) {},
		"more than it needs": func(m *manifest) {
			m.Files = append(m.Files, manifestFile{"keys/more.key", 0, strings.Repeat("00", 32)})
		},
	} {
		m := goodManifest()
		change(m)
		data, err := json.Marshal(m)
		must(t, err)
		_, err = parseManifest(data)
		good := what == "as it should be" || what == "more than it needs"
		if good != (err == nil) || !good && chat.KindOf(err) == chat.Internal {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	data, err := json.Marshal(goodManifest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil {
			if chat.KindOf(err) == chat.Internal {
				t.Errorf("an error of no kind: %v", err)
			}
			return
		}
		for _, file := range m.Files {
			if strings.Contains(file.Name, "..") && !strings.HasPrefix(file.Name, "keys/") || strings.Count(file.Name, "/") > 1 || strings.HasPrefix(file.Name, "/") {
				t.Errorf("it may write to %q", file.Name)
			}
		}
	})
}
