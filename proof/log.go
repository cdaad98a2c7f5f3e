package proof

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"sync"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
)

// Origin is the origin line of a server's log, and the name of its note key.
func Origin(host string) string { return host + "/letterlock" }

// Checkpoint is a tree head that the log signed.
type Checkpoint struct {
	Size   int64
	Root   Hash
	Signed []byte // the signed note
}

// SignCheckpoint makes a checkpoint under the log's key, whose name is the origin.
func SignCheckpoint(log note.Signer, size int64, root Hash) ([]byte, error) {
	text := torchwood.Checkpoint{Origin: log.Name(), Tree: tlog.Tree{N: size, Hash: root}}.String()
	return note.Sign(&note.Note{Text: text}, log)
}

// OpenCheckpoint checks a checkpoint's origin and the log's signature. Other signatures may stand beside it.
func OpenCheckpoint(signed []byte, log note.Verifier) (Checkpoint, error) {
	if len(signed) > MaxCheckpoint {
		return Checkpoint{}, tooLarge("checkpoint", MaxCheckpoint)
	}
	c, _, err := torchwood.VerifyCheckpoint(signed, logPolicy(log))
	if err != nil {
		return Checkpoint{}, chat.Wrap(chat.Unproven, err, "the checkpoint is not signed by the ledger")
	}
	if c.N < 1 || c.Extension != "" {
		return Checkpoint{}, invalid("the checkpoint is of an empty ledger, or has lines that are not known here")
	}
	return Checkpoint{Size: c.N, Root: c.Hash, Signed: bytes.Clone(signed)}, nil
}

func logPolicy(log note.Verifier) torchwood.Policy {
	return torchwood.ThresholdPolicy(2, torchwood.OriginPolicy(log.Name()), torchwood.SingleVerifierPolicy(log))
}

// same reports whether two checkpoints are of one tree.
func (c Checkpoint) same(d Checkpoint) bool { return c.Size == d.Size && c.Root == d.Root }

// Contradiction says how a checkpoint contradicts what its reader remembers.
type Contradiction string

// The contradictions.
const (
	Smaller      Contradiction = "smaller"      // than the remembered tree: perhaps an old answer; proves nothing to others
	OtherRoot    Contradiction = "other-root"   // of the same size: the two checkpoints convict the ledger by themselves
	Inconsistent Contradiction = "inconsistent" // larger, and not shown to contain the remembered tree
	Behind       Contradiction = "behind"       // others were shown a larger tree than the newest that this reader is shown
)

// Evidence is a ledger caught contradicting itself: two checkpoints that it signed. It is the cause of a chat.Tampered error.
type Evidence struct {
	What       Contradiction
	Remembered []byte // signed checkpoint
	Shown      []byte // signed checkpoint
}

func (e *Evidence) Error() string {
	switch e.What {
	case Smaller:
		return "it shows a smaller tree"
	case OtherRoot:
		return "it shows another tree of the same size (other-root)"
	case Inconsistent:
		return "it shows a larger tree that does not contain the remembered one (inconsistent)"
	}
	return "others were shown a larger tree (behind)"
}

// Log is what a reader remembers of a ledger: its last checkpoint. It may be used by several goroutines.
type Log struct {
	verifier note.Verifier

	mu   sync.Mutex
	last Checkpoint // Size 0: nothing yet
}

// NewLog begins to follow the ledger with the note verifier vkey. The first checkpoint is taken on trust.
func NewLog(vkey string) (*Log, error) {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the ledger's key is malformed")
	}
	return &Log{verifier: v}, nil
}

// OpenLog takes up a memory that was kept as Checkpoint's bytes.
func OpenLog(vkey string, remembered []byte) (*Log, error) {
	l, err := NewLog(vkey)
	if err != nil || len(remembered) == 0 {
		return l, err
	}
	l.last, err = OpenCheckpoint(remembered, l.verifier)
	return l, err
}

// Checkpoint is the last checkpoint: size, root and the bytes to keep. Size 0 means that there is none yet.
func (l *Log) Checkpoint() Checkpoint {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

// Advance moves to a newer checkpoint. consistency is the proof from the remembered size to the new one, empty if the size is the
// same or nothing is remembered. A ledger that contradicts itself is chat.Tampered, with *Evidence as the cause, and the memory
// stays as it was: keep both.
func (l *Log) Advance(signed []byte, consistency [][32]byte) error {
	c, err := OpenCheckpoint(signed, l.verifier)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if what, ok := contradicts(l.last, c, consistency); !ok {
		return tampered(what, l.last, c)
	}
	l.last = c
	return nil
}

// contradicts decides whether a checkpoint may follow the last one.
func contradicts(last, next Checkpoint, consistency [][32]byte) (Contradiction, bool) {
	switch {
	case last.Size == 0:
		return "", true
	case next.Size < last.Size:
		return Smaller, false
	case next.Size == last.Size:
		return OtherRoot, next.Root == last.Root
	}
	p, ok := hashes(consistency)
	return Inconsistent, ok && tlog.CheckTree(tlog.TreeProof(p), next.Size, next.Root, last.Size, last.Root) == nil
}

func tampered(what Contradiction, last, shown Checkpoint) error {
	return chat.Wrap(chat.Tampered, &Evidence{What: what, Remembered: last.Signed, Shown: shown.Signed},
		"the ledger contradicts what this device remembers of it")
}

func hashes(list [][32]byte) ([]tlog.Hash, bool) {
	if len(list) > maxProof {
		return nil, false
	}
	p := make([]tlog.Hash, len(list))
	for i, h := range list {
		p[i] = h
	}
	return p, true
}

// Included checks a tlog-proof of a leaf against the remembered checkpoint and returns the leaf's index. A proof for another tree
// than the remembered one is chat.Unproven: Advance to its checkpoint first (Prove does both).
func (l *Log) Included(leaf Hash, tlogProof []byte) (int64, error) {
	index, c, err := OpenInclusion(leaf, tlogProof, l.verifier)
	if err != nil {
		return 0, err
	}
	if !l.Checkpoint().same(c) {
		return 0, unproven("the proof is for another checkpoint than the remembered one")
	}
	return index, nil
}

// OpenInclusion checks a tlog-proof under the log's key alone, for one who remembers nothing: the leaf is at that index of the tree
// of that checkpoint.
func OpenInclusion(leaf Hash, tlogProof []byte, log note.Verifier) (int64, Checkpoint, error) {
	if len(tlogProof) > MaxTlogProof {
		return 0, Checkpoint{}, tooLarge("inclusion proof", MaxTlogProof)
	}
	if err := torchwood.VerifyProof(logPolicy(log), leaf, tlogProof); err != nil {
		return 0, Checkpoint{}, chat.Wrap(chat.Unproven, err, "the inclusion proof does not hold")
	}
	head, signed, _ := bytes.Cut(tlogProof, []byte("\n\n"))
	c, err := OpenCheckpoint(signed, log)
	if err != nil {
		return 0, Checkpoint{}, err
	}
	index, err := indexLine(head)
	return index, c, err
}

// indexLine finds the index in the head of a tlog-proof that was verified.
func indexLine(head []byte) (int64, error) {
	for _, line := range strings.Split(string(head), "\n") {
		if s, ok := strings.CutPrefix(line, "index "); ok {
			return strconv.ParseInt(s, 10, 64)
		}
	}
	return 0, unproven("the inclusion proof names no index")
}

// Source is where a reader fetches checkpoints and proofs: the client API has these calls.
type Source interface {
	Checkpoint(ctx context.Context) ([]byte, error)
	ConsistencyProof(ctx context.Context, from, to int64) ([][32]byte, error)
	InclusionProof(ctx context.Context, leaf [32]byte, waitSeconds int) ([]byte, error)
}

// Follow fetches the newest checkpoint and moves to it.
func (l *Log) Follow(ctx context.Context, s Source) error {
	return l.moveTo(ctx, s, func() (Checkpoint, error) {
		signed, err := s.Checkpoint(ctx)
		if err != nil {
			return Checkpoint{}, err
		}
		return OpenCheckpoint(signed, l.verifier)
	})
}

// Prove waits at most so many seconds for a leaf to be included, moves to the checkpoint of the proof and checks it. It returns the
// index and the proof to keep.
func (l *Log) Prove(ctx context.Context, s Source, leaf [32]byte, waitSeconds int) (index int64, tlogProof []byte, err error) {
	err = l.moveTo(ctx, s, func() (c Checkpoint, err error) {
		if tlogProof, err = s.InclusionProof(ctx, leaf, waitSeconds); err != nil {
			return c, err
		}
		index, c, err = OpenInclusion(leaf, tlogProof, l.verifier)
		return c, err
	})
	if err != nil {
		return 0, nil, err
	}
	return index, tlogProof, nil
}

// Open reads a checkpoint of this log.
func (l *Log) Open(signed []byte) (Checkpoint, error) { return OpenCheckpoint(signed, l.verifier) }

// MoveTo moves to a checkpoint that came with something else than Follow or Prove.
func (l *Log) MoveTo(ctx context.Context, s Source, signed []byte) error {
	c, err := OpenCheckpoint(signed, l.verifier)
	if err != nil {
		return err
	}
	return l.moveTo(ctx, s, func() (Checkpoint, error) { return c, nil })
}

// Own is the remembered checkpoint with the log's signature alone: what is told to others. Nil if nothing is remembered.
func (l *Log) Own() []byte {
	last := l.Checkpoint()
	n, err := note.Open(last.Signed, note.VerifierList(l.verifier))
	if err != nil {
		return nil
	}
	signed, _ := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	return signed
}

// Compare holds a checkpoint that somebody else was shown against what is remembered. Where theirs is larger, Follow first. Trees of which
// neither contains the other are chat.Tampered, as in Advance; the memory stays as it is.
func (l *Log) Compare(ctx context.Context, s Source, theirs []byte) error {
	c, err := OpenCheckpoint(theirs, l.verifier)
	if err != nil {
		return err
	}
	last := l.Checkpoint()
	if c.Size > last.Size {
		return tampered(Behind, last, c)
	}
	var consistency [][32]byte
	if c.Size < last.Size {
		if consistency, err = s.ConsistencyProof(ctx, c.Size, last.Size); chat.Is(err, chat.Unavailable) || ctx.Err() != nil {
			return err
		}
	}
	if what, ok := contradicts(c, last, consistency); !ok {
		return tampered(what, last, c)
	}
	return nil
}

// moveTries bounds how often moveTo asks again because other goroutines moved the memory while the answer was on its way.
const moveTries = 8

// moveTo moves to the checkpoint that fetch gets. It is judged by what was remembered before fetch was called, so that an answer
// that another goroutine overtook accuses nobody.
func (l *Log) moveTo(ctx context.Context, s Source, fetch func() (Checkpoint, error)) error {
	for range moveTries {
		last := l.Checkpoint()
		next, err := fetch()
		if err != nil {
			return err
		}
		var consistency [][32]byte
		if last.Size > 0 && next.Size > last.Size {
			if consistency, err = s.ConsistencyProof(ctx, last.Size, next.Size); err != nil {
				return err
			}
		}
		if what, ok := contradicts(last, next, consistency); !ok {
			return tampered(what, last, next)
		}
		if l.replace(last, next) {
			return nil
		}
	}
	return chat.Errorf(chat.Unavailable, "the ledger moves faster than it can be followed")
}

// replace moves from last to next unless somebody moved before.
func (l *Log) replace(last, next Checkpoint) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.last.same(last) {
		return false
	}
	l.last = next
	return true
}

// InclusionText writes a tlog-proof (c2sp.org/tlog-proof@v1).
func InclusionText(index int64, p []Hash, signedCheckpoint []byte) ([]byte, error) {
	list, ok := hashes(p)
	if !ok {
		return nil, invalid("the inclusion proof is too long")
	}
	return torchwood.FormatProof(index, list, signedCheckpoint), nil
}
