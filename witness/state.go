package witness

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
)

// The files of a witness' folder, which nobody else can read:
//
//	witness.key            PRIVATE+KEY+NAME+HASH+base64(0x04 | Ed25519 seed), and a line feed
//	lock                   held by the process that runs
//	last/HEX               the last checkpoint that was signed, as the log signed it; HEX is SHA-256 of the origin
//	evidence/SIZE-HEX      two trees of one size, both signed by the log, one after the other; HEX is SHA-256 of the file
const (
	keyFile     = "witness.key"
	lockFile    = "lock"
	lastDir     = "last"
	evidenceDir = "evidence"
	maxEvidence = 64 // files
)

type home struct {
	dir  string
	lock *os.File
}

// Config is what a Witness works with.
type Config struct {
	Home string   // folder; made if it is not there
	Logs []string // note verifiers of the logs that it signs for
	// Name names the key when it is drawn; empty for a folder that has one. By custom HOST/SOMETHING without the scheme of a URL.
	Name   string
	Logger *slog.Logger
}

// Open takes up a witness' folder, or makes it and draws the key. A folder that another process has is chat.Unavailable; a last checkpoint
// that cannot be read, or is not the log's, is chat.Tampered: without it the witness could be led to sign a fork.
func Open(c Config) (_ *Witness, err error) {
	w := &Witness{logs: map[string]*watched{}, log: c.Logger}
	if w.home, err = openHome(c.Home); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.signer, err = w.home.key(c.Name); err != nil {
		return nil, err
	}
	for _, vkey := range c.Logs {
		v, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, chat.Wrap(chat.Invalid, err, "the key of a log is not a note verifier (NAME+HASH+KEY): its operator sees it with letterlock admin status")
		}
		if w.logs[v.Name()] != nil {
			return nil, chat.Errorf(chat.Invalid, "the log %s is named twice", v.Name())
		}
		l := &watched{verifier: v, turn: make(chan struct{}, 1)}
		if l.last, err = w.home.checkpoint(v); err != nil {
			return nil, err
		}
		w.logs[v.Name()] = l
	}
	return w, nil
}

// Close gives the folder back.
func (w *Witness) Close() error { return w.home.lock.Close() }

// Key reads the note verifier of a witness' folder, whether a witness runs on it or not.
func Key(dir string) (string, error) {
	s, err := (&home{dir: dir}).readKey()
	if errors.Is(err, fs.ErrNotExist) {
		return "", chat.Errorf(chat.NotFound, "%s holds no witness' key: letterlock witness --home %s makes one", dir, dir)
	}
	if err != nil {
		return "", err
	}
	return s.Verifier().String(), nil
}

func openHome(dir string) (*home, error) {
	for _, d := range []string{dir, filepath.Join(dir, lastDir), filepath.Join(dir, evidenceDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, chat.Wrap(chat.Invalid, err, "the witness' folder cannot be made")
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the witness' folder cannot be used")
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, chat.Wrap(chat.Unavailable, err, "another witness runs on this folder (%s)", dir)
	}
	return &home{dir, f}, nil
}

// key reads the key, or draws one under a name.
func (h *home) key(name string) (*torchwood.CosignatureSigner, error) {
	s, err := h.readKey()
	if err == nil && name != "" && name != s.Name() {
		return nil, chat.Errorf(chat.Exists, "the key in this folder is named %s, not %s: leave --name out, or take another folder", s.Name(), name)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	if name == "" {
		return nil, chat.Errorf(chat.Invalid, "this folder has no key yet: name the new one with --name, like witness.example/letterlock")
	}
	seed := make([]byte, ed25519.SeedSize)
	rand.Read(seed)
	if s, err = torchwood.NewCosignatureSigner(name, ed25519.NewKeyFromSeed(seed)); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "a name of a key has neither spaces nor a plus sign")
	}
	text := fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s\n", name, s.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{4}, seed...)))
	return s, WriteFile(filepath.Join(h.dir, keyFile), []byte(text))
}

func (h *home) readKey() (*torchwood.CosignatureSigner, error) {
	path := filepath.Join(h.dir, keyFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 || info.Size() > 4<<10 {
		return nil, chat.Errorf(chat.Invalid, "%s can be read by others, or is no key: chmod 600", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(strings.TrimSuffix(string(text), "\n"), "+", 5)
	damaged := chat.Errorf(chat.Invalid, "%s is damaged: put a copy of it back", path)
	if len(parts) != 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return nil, damaged
	}
	seed, err := base64.StdEncoding.DecodeString(parts[4])
	if err != nil || len(seed) != 1+ed25519.SeedSize || seed[0] != 4 {
		return nil, damaged
	}
	s, err := torchwood.NewCosignatureSigner(parts[2], ed25519.NewKeyFromSeed(seed[1:]))
	if err != nil || fmt.Sprintf("%08x", s.KeyHash()) != parts[3] {
		return nil, damaged
	}
	return s, nil
}

func (h *home) lastPath(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(h.dir, lastDir, hex.EncodeToString(sum[:]))
}

// checkpoint reads the last checkpoint of a log; Size 0 if none was signed.
func (h *home) checkpoint(log note.Verifier) (proof.Checkpoint, error) {
	path := h.lastPath(log.Name())
	signed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return proof.Checkpoint{}, nil
	}
	var c proof.Checkpoint
	if err == nil {
		c, err = proof.OpenCheckpoint(signed, log)
	}
	if err != nil {
		return c, chat.Wrap(chat.Tampered, err, "the last checkpoint that was signed for %s (%s) is damaged: put the newest copy of it back; a witness that "+
			"forgot it could sign a fork", log.Name(), path)
	}
	return c, nil
}

func (h *home) keepCheckpoint(origin string, signed []byte) error {
	return WriteFile(h.lastPath(origin), signed)
}

// keepEvidence writes down two checkpoints that contradict each other.
func (h *home) keepEvidence(a, b proof.Checkpoint) (string, error) {
	text := append(append([]byte{}, a.Signed...), b.Signed...)
	sum := sha256.Sum256(text)
	path := filepath.Join(h.dir, evidenceDir, fmt.Sprintf("%d-%x", a.Size, sum))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if list, err := os.ReadDir(filepath.Dir(path)); err != nil || len(list) >= maxEvidence {
		return path, errors.Join(err, errors.New("there is enough of it already"))
	}
	return path, WriteFile(path, text)
}

// WriteFile writes a file under another name, syncs it, gives it its name and syncs the folder: it is there whole, or as it was. Its owner
// alone can read it. What a witness and a log must not forget is written like that.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename there is nothing
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
