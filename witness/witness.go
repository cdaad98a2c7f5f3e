// Package witness cosigns checkpoints of logs: it signs, with the time, only trees that continue the one that it signed before, so that
// no log can show two people two histories or take one back. It speaks c2sp.org/tlog-witness and signs cosignature/v1
// (spec/witness.md section 1).
//
//	witness.go   what is signed, and what is refused
//	request.go   the body of a request
//	state.go     the folder: the key, and the last checkpoint of each log
//	http.go      the protocol, the witness' side
//	client.go    the protocol, the log's side
//
// Neighbours: package proof says what a checkpoint is; package audit replays a log before it signs, through Witness.Check; package
// ledger asks witnesses, through Client. The package knows no store and nothing of what a log's entries say.
//
// It refuses a log that it was not told of, a tree that is smaller than the one that it signed, two trees of one size, and a tree that is not
// shown to contain the last one.
package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

// Witness is one witness with its folder. It is safe for concurrent use; no second process may have the folder.
type Witness struct {
	// Check, if set, is called before a larger tree is signed, with the tree that was signed last (Size 0: none) and the new one, which is
	// already known to continue it. An error refuses the signature. It must not call the Witness. Set it before the first request.
	Check func(ctx context.Context, old, new proof.Checkpoint) error

	home   *home
	signer *torchwood.CosignatureSigner
	logs   map[string]*watched // by origin
	log    *slog.Logger
}

// watched is one log that the witness signs for.
type watched struct {
	verifier note.Verifier
	turn     chan struct{} // of capacity 1: whoever sends holds last
	last     proof.Checkpoint
}

// Conflict means that the request does not go on from the tree that the witness signed last.
type Conflict struct {
	Size      int64 // of that tree
	OtherTree bool  // it is of the request's size, and another
}

func (c *Conflict) Error() string {
	if c.OtherTree {
		return fmt.Sprintf("the witness has signed another tree of %d entries: the log shows two histories", c.Size)
	}
	return fmt.Sprintf("the last tree that the witness signed has %d entries", c.Size)
}

// ErrNotContained means that the consistency proof does not hold.
var ErrNotContained = chat.Errorf(chat.Unproven, "the new tree is not shown to contain the one that was signed last: the witness signs no fork")

// VKey is the note verifier of the witness' cosignatures.
func (w *Witness) VKey() string { return w.signer.Verifier().String() }

// Last is the tree that the witness signed last for an origin; Size 0 if none.
func (w *Witness) Last(ctx context.Context, origin string) (proof.Checkpoint, error) {
	l := w.logs[origin]
	if l == nil {
		return proof.Checkpoint{}, errUnknownLog
	}
	if err := l.take(ctx); err != nil {
		return proof.Checkpoint{}, err
	}
	defer l.release()
	return l.last, nil
}

func (l *watched) take(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return chat.Wrap(chat.Unavailable, ctx.Err(), "the witness is busy with another checkpoint of this log: try again")
	}
}

func (l *watched) release() { <-l.turn }

var errUnknownLog = chat.Errorf(chat.NotFound, "this witness was not told of that log")

// AddCheckpoint cosigns a checkpoint that continues the tree of size old, which must be the one that was signed last (0: none), and returns the
// cosignature line. *Conflict says where the witness stands; ErrNotContained, chat.NotFound (unknown log), chat.Forbidden (not
// signed by it) and chat.Invalid are the other refusals.
func (w *Witness) AddCheckpoint(ctx context.Context, old int64, consistency []proof.Hash, signed []byte) (string, error) {
	origin, _, _ := strings.Cut(string(signed), "\n")
	l := w.logs[origin]
	if l == nil {
		return "", errUnknownLog
	}
	next, err := openSubmitted(signed, l.verifier)
	if err != nil {
		return "", err
	}
	if old > next.Size {
		return "", chat.Errorf(chat.Invalid, "the old size is larger than the checkpoint's")
	}
	if err := l.take(ctx); err != nil {
		return "", err
	}
	defer l.release()
	if err := w.follows(l.last, next, old, consistency); err != nil {
		return "", err
	}
	if next.Size > l.last.Size {
		if err := w.advance(ctx, l, next); err != nil {
			return "", err
		}
	}
	return w.cosign(next)
}

// openSubmitted checks the log's signature on a checkpoint.
func openSubmitted(signed []byte, log note.Verifier) (proof.Checkpoint, error) {
	if len(signed) > proof.MaxCheckpoint {
		return proof.Checkpoint{}, chat.Errorf(chat.TooLarge, "a checkpoint has at most %d bytes", proof.MaxCheckpoint)
	}
	c, err := proof.OpenCheckpoint(signed, log)
	if chat.Is(err, chat.Unproven) {
		return c, chat.Wrap(chat.Forbidden, err, "the checkpoint is not signed by the log's key that this witness knows")
	}
	return c, err
}

// follows says whether next may be signed after last.
func (w *Witness) follows(last, next proof.Checkpoint, old int64, consistency []proof.Hash) error {
	if next.Size == last.Size && next.Root != last.Root {
		w.convict(last, next)
		return &Conflict{Size: last.Size, OtherTree: true}
	}
	if old != last.Size {
		return &Conflict{Size: last.Size}
	}
	if old == 0 {
		if len(consistency) > 0 {
			return ErrNotContained
		}
		return nil
	}
	hashes := make(tlog.TreeProof, len(consistency))
	for i, h := range consistency {
		hashes[i] = h
	}
	if err := tlog.CheckTree(hashes, next.Size, next.Root, last.Size, last.Root); err != nil {
		return ErrNotContained
	}
	return nil
}

// convict keeps two trees of one size, both signed by the log: they prove the fork to everybody.
func (w *Witness) convict(last, next proof.Checkpoint) {
	path, err := w.home.keepEvidence(last, next)
	if err != nil {
		w.log.Error("evidence of a fork could not be kept", slog.Any("error", err))
		return
	}
	w.log.Error("ALARM: the log signed two trees of one size", slog.Int64("size", last.Size), slog.String("evidence", path))
}

// advance makes next the last tree, on disk before anybody sees a signature.
func (w *Witness) advance(ctx context.Context, l *watched, next proof.Checkpoint) error {
	if w.Check != nil {
		if err := w.Check(ctx, l.last, next); err != nil {
			return err
		}
	}
	if err := w.home.keepCheckpoint(l.verifier.Name(), next.Signed); err != nil {
		return chat.Wrap(chat.Unavailable, err, "the witness could not write down what it is about to sign, and does not sign it")
	}
	l.last = next
	return nil
}

// cosign signs a checkpoint's text and returns the line.
func (w *Witness) cosign(c proof.Checkpoint) (string, error) {
	text, _, ok := strings.Cut(string(c.Signed), "\n\n")
	if !ok {
		return "", errors.New("witness: a checkpoint without signatures")
	}
	n, err := note.Sign(&note.Note{Text: text + "\n"}, w.signer)
	if err != nil {
		return "", err
	}
	_, line, _ := strings.Cut(string(n), "\n\n")
	return line, nil
}
