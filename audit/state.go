package audit

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/witness"
)

// The files of an auditor's folder, which nobody else can read:
//
//	lock            held by the process that audits
//	entries         the log, as far as it was audited: each entry after its length, 16 bits big-endian; what a crash left behind the
//	                audited tree is cut off at the next start
//	audited         the newest checkpoint whose tree was found to be in order, as the log signed it
//	evidence.json   the lie that stopped the auditor for good (Evidence)
//	witness/        the folder of the witness that cosigns (package witness)
const (
	lockFile     = "lock"
	entriesFile  = "entries"
	auditedFile  = "audited"
	evidenceFile = "evidence.json"
)

// folder is an auditor's folder, held.
type folder struct {
	dir     string
	lock    *os.File
	entries *os.File
	out     *bufio.Writer // into entries
}

func openFolder(dir string) (*folder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the auditor's folder cannot be made")
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the auditor's folder cannot be used")
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, chat.Wrap(chat.Unavailable, err, "another auditor runs on this folder (%s)", dir)
	}
	f := &folder{dir: dir, lock: lock}
	if f.entries, err = os.OpenFile(f.path(entriesFile), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		lock.Close()
		return nil, chat.Wrap(chat.Invalid, err, "the auditor's copy of the log cannot be opened")
	}
	f.out = bufio.NewWriterSize(f.entries, 1<<20)
	return f, nil
}

func (f *folder) close() error { return errors.Join(f.entries.Close(), f.lock.Close()) }

func (f *folder) path(name string) string { return filepath.Join(f.dir, name) }

// audited reads the last audited checkpoint; Size 0 if there is none.
func (f *folder) audited(log note.Verifier) (proof.Checkpoint, error) {
	signed, err := os.ReadFile(f.path(auditedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return proof.Checkpoint{}, nil
	}
	var c proof.Checkpoint
	if err == nil {
		c, err = proof.OpenCheckpoint(signed, log)
	}
	if err != nil {
		return c, chat.Wrap(chat.Invalid, err, "%s is damaged, or of another log than %s: put a copy of it back, or audit in a new folder", f.path(auditedFile), log.Name())
	}
	return c, nil
}

// replayed replays the copy of an audited tree, and cuts off what is behind it. A copy that does not give the tree is emptied: the log
// is then read again, and must still contain the audited tree.
func (f *folder) replayed(ctx context.Context, vkey string, c proof.Checkpoint, progress func(done, total int64)) (*replay, error) {
	r := newReplay(vkey)
	length := int64(0)
	err := pipeline(ctx, func(_ context.Context, emit func([]byte) error) error { return f.read(c.Size, emit) }, func(e entry) error {
		length += 2 + int64(len(e.bytes))
		if err := r.add(e); err != nil {
			return err
		}
		progress(r.size, c.Size)
		return nil
	})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil || r.size != c.Size || r.size > 0 && r.root() != c.Root {
		r, length = newReplay(vkey), 0
	}
	err = f.entries.Truncate(length)
	if err == nil {
		_, err = f.entries.Seek(length, io.SeekStart)
	}
	return r, f.unwritable(err)
}

// read emits the first n entries of the copy.
func (f *folder) read(n int64, emit func([]byte) error) error {
	in := bufio.NewReaderSize(f.entries, 1<<20)
	for range n {
		var length [2]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		data := make([]byte, binary.BigEndian.Uint16(length[:]))
		if _, err := io.ReadFull(in, data); err != nil {
			return err
		}
		if err := emit(data); err != nil {
			return err
		}
	}
	return nil
}

// append adds an entry to the copy. It is durable after keep.
func (f *folder) append(data []byte) error {
	length := binary.BigEndian.AppendUint16(nil, uint16(len(data)))
	_, err := f.out.Write(length)
	if err == nil {
		_, err = f.out.Write(data)
	}
	return f.unwritable(err)
}

// keep makes the copy durable, and then the checkpoint of a tree that it holds.
func (f *folder) keep(c proof.Checkpoint) error {
	err := errors.Join(f.out.Flush(), f.entries.Sync())
	if err == nil {
		err = witness.WriteFile(f.path(auditedFile), c.Signed)
	}
	return f.unwritable(err)
}

func (f *folder) unwritable(err error) error {
	if err == nil {
		return nil
	}
	return chat.Wrap(chat.Unavailable, err, "the auditor cannot write to %s: see that there is room, and start it again", f.dir)
}
