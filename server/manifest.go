package server

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"letterlock/chat"
)

// manifest says what a backup holds (spec/backup.md). It guards against damage, not against people: whoever can change the
// backup can write another manifest, and holds the server's keys.
type manifest struct {
	Format     string         `json:"format"`
	Host       string         `json:"host"`
	Made       time.Time      `json:"made"`
	Version    string         `json:"version"`    // of the program that made it
	Checkpoint string         `json:"checkpoint"` // of the ledger in it: a signed note
	Files      []manifestFile `json:"files"`
}

type manifestFile struct {
	Name   string `json:"name"` // below the backup's folder, with slashes
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hex
}

const (
	manifestFormat = "letterlock-backup/1"
	manifestName   = "manifest.json"
	maxManifest    = 64 << 10
	maxFiles       = 64
)

// fileName is what a backup may hold: names that lead nowhere else.
var fileName = regexp.MustCompile(`^(letterlock\.db|keys/[a-z0-9][a-z0-9._-]{0,63})$`)

func damaged(format string, a ...any) error {
	return chat.Errorf(chat.Invalid, "the backup is damaged: %s; take another one", fmt.Sprintf(format, a...))
}

// parseManifest reads a manifest of at most maxManifest bytes.
func parseManifest(data []byte) (*manifest, error) {
	if len(data) > maxManifest {
		return nil, damaged("its manifest is larger than %d bytes", maxManifest)
	}
	var m manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, damaged("its manifest is not the JSON that letterlock backup writes")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, damaged("something follows its manifest")
	}
	if m.Format != manifestFormat {
		return nil, chat.Errorf(chat.Incompatible, "the backup is of the format %.40q, and this program reads %s", m.Format, manifestFormat)
	}
	if err := chat.CheckHost(m.Host); err != nil {
		return nil, damaged("its manifest names no host")
	}
	return &m, m.checkFiles()
}

func (m *manifest) checkFiles() error {
	if len(m.Files) > maxFiles {
		return damaged("its manifest names more than %d files", maxFiles)
	}
	seen := make(map[string]bool)
	for _, f := range m.Files {
		sum, err := hex.DecodeString(f.SHA256)
		if !fileName.MatchString(f.Name) || seen[f.Name] || f.Bytes < 0 || err != nil || len(sum) != sha256.Size {
			return damaged("its manifest names %.80q, or names it wrongly", f.Name)
		}
		seen[f.Name] = true
	}
	for _, name := range []string{databaseName, "keys/server.key", "keys/ledger.key", "keys/vrf.key"} {
		if !seen[name] {
			return damaged("its manifest does not name %s", name)
		}
	}
	return nil
}

// readManifest reads the manifest of the backup in a folder.
func readManifest(dir string) (*manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, chat.Wrap(chat.NotFound, err, "there is no backup at %s (a backup is a folder with a %s)", dir, manifestName)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	return parseManifest(data)
}

// copied is told of bytes as they are copied.
type copied func(n int64)

// copyFile copies a regular file into a new one that its owner alone can read, and syncs it. It returns length and SHA-256.
func copyFile(from, to string, progress copied) (f manifestFile, err error) {
	in, err := os.Open(from)
	if err != nil {
		return f, err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return f, err
	}
	f, err = sum(io.TeeReader(in, out), progress)
	if err == nil {
		err = out.Sync()
	}
	if e := out.Close(); err == nil {
		err = e
	}
	return f, err
}

// sum reads to the end.
func sum(r io.Reader, progress copied) (f manifestFile, err error) {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		h.Write(buf[:n])
		f.Bytes += int64(n)
		if progress != nil {
			progress(f.Bytes)
		}
		if err == io.EOF {
			f.SHA256 = hex.EncodeToString(h.Sum(nil))
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}

func sumFile(path string, progress copied) (manifestFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return manifestFile{}, err
	}
	defer f.Close()
	return sum(f, progress)
}

// syncPath syncs a file or a folder.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
