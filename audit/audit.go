// Package audit is the auditor: it reads every entry of a log, replays what the entries say by the rules of spec/ledger.md and
// spec/map.md, makes the map anew, and vouches only for trees in which all of it is in order (spec/witness.md section 4).
//
//	audit.go      the Auditor: which tree follows which, and what is kept
//	replay.go     the rules, entry by entry
//	trie.go       the map, written a second time and plainly
//	log.go        reading a log over HTTP, tile by tile
//	state.go      the folder: a copy of the log, and the last tree that was in order
//	evidence.go   a lie in a form that others can check
//	watch.go      following a log, and what the watcher reports
//
// Neighbours: package proof says what leaves and checkpoints are, package grant what an agreement is; package witness cosigns, asks
// Check first, and writes files that must not be forgotten. It uses nothing of packages ledger and labelmap, whose work it judges, and knows no secret.
//
// It refuses a tree that does not contain the last one, or is not contained in it; an entry that breaks a rule; a tree that does not end in a
// map root. Once it has caught the log in a lie that the log signed, it vouches for nothing more.
package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
)

// Config says what is audited.
type Config struct {
	Home   string // folder; made if it is not there
	Log    string // note verifier of the log
	Server string // URL of the server whose log it is
	Now    func() time.Time

	// Progress, if set, is told every 256 entries how many of a tree have been judged.
	Progress func(done, total int64)
}

// Auditor audits one log. It may be used by several goroutines, which take turns; no second process may have the folder.
type Auditor struct {
	config Config
	log    *remote
	folder *folder

	mu      sync.Mutex
	replay  *replay          // of the entries judged so far, which are all in heard's tree
	heard   proof.Checkpoint // the largest one that was taken up; every other one must agree with it
	audited proof.Checkpoint // the largest one in whose tree all is in order
	stopped error            // set for good by a lie

	caught chan struct{} // closed then
}

// Open takes up an auditor's folder and replays its copy of the log. A folder whose auditor was stopped by a lie is chat.Tampered.
func Open(ctx context.Context, c Config) (_ *Auditor, err error) {
	verifier, err := note.NewVerifier(c.Log)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the log's key is not a note verifier (NAME+HASH+KEY)")
	}
	a := &Auditor{config: c, caught: make(chan struct{})}
	if a.log, err = openRemote(c.Server, verifier); err != nil {
		return nil, err
	}
	if a.folder, err = openFolder(c.Home); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Close()
		}
	}()
	if err := a.folder.stoppedBefore(); err != nil {
		return nil, err
	}
	if a.audited, err = a.folder.audited(verifier); err != nil {
		return nil, err
	}
	a.heard = a.audited
	a.replay, err = a.folder.replayed(ctx, c.Log, a.audited, a.progress)
	return a, err
}

func (a *Auditor) progress(done, total int64) {
	if a.config.Progress != nil && (done%256 == 0 || done == total) {
		a.config.Progress(done, total)
	}
}

// Close gives the folder back.
func (a *Auditor) Close() error { return a.folder.close() }

// Check replays the log up to a checkpoint that it signed: nil if all of its tree is in order. It is the Check of a witness.Witness, whose
// last tree, old, is in order already.
func (a *Auditor) Check(ctx context.Context, old, new proof.Checkpoint) error {
	_, err := a.Audit(ctx, new)
	return err
}

// Audit replays the log up to a checkpoint that it signed, and returns the map root at the end of its tree. A lie is chat.Tampered, and
// stops the auditor for good; tiles that do not belong to the checkpoint are chat.Unproven, since anybody on the way may have altered
// them; chat.Unavailable may pass.
func (a *Auditor) Audit(ctx context.Context, c proof.Checkpoint) (*proof.MapRoot, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped != nil {
		return nil, a.stopped
	}
	if err := a.agrees(ctx, c); err != nil {
		return nil, err
	}
	if c.Size > a.heard.Size {
		a.heard = c
	}
	if err := a.readTo(ctx, c); err != nil {
		return nil, err
	}
	root, err := a.lastRoot(ctx, c)
	if err != nil || c.Size <= a.audited.Size {
		return root, err
	}
	if err := a.folder.keep(c); err != nil {
		return nil, err
	}
	a.audited = c
	return root, nil
}

// agrees checks that of the tree of a checkpoint and the largest tree so far one contains the other.
func (a *Auditor) agrees(ctx context.Context, c proof.Checkpoint) error {
	if a.heard.Size == 0 {
		return nil
	}
	small, large := a.heard, c
	if small.Size > large.Size {
		small, large = large, small
	}
	root := large.Root
	if small.Size < large.Size {
		var err error
		if root, err = a.log.rootAt(ctx, large, small.Size); err != nil {
			return err
		}
	}
	if root == small.Root {
		return nil
	}
	return a.stop(Evidence{
		Sentence:    fmt.Sprintf("the log forked: its tree of %d entries does not contain its tree of %d entries", large.Size, small.Size),
		Checkpoints: []string{string(small.Signed), string(large.Signed)},
	})
}

// readTo judges the entries of a checkpoint's tree that were not judged yet.
func (a *Auditor) readTo(ctx context.Context, c proof.Checkpoint) error {
	if a.replay.size >= c.Size {
		return nil
	}
	from := a.replay.size
	err := pipeline(ctx, func(ctx context.Context, emit func([]byte) error) error { return a.log.entries(ctx, c, from, emit) }, func(e entry) error {
		if err := a.replay.add(e); err != nil {
			return err
		}
		a.progress(a.replay.size, c.Size)
		return a.folder.append(e.bytes)
	})
	if l, ok := errors.AsType[*lie](err); ok {
		return a.accuse(ctx, c, l)
	}
	if err == nil && (a.replay.size != c.Size || a.replay.root() != c.Root) {
		err = chat.Errorf(chat.Unproven, "the entries that the log serves do not give the tree that it signed")
	}
	return err
}

// lastRoot is the map root that ends a checkpoint's tree, whose entries have been judged.
func (a *Auditor) lastRoot(ctx context.Context, c proof.Checkpoint) (*proof.MapRoot, error) {
	if a.replay.firstRoot < 0 || a.replay.firstRoot >= c.Size {
		return nil, chat.Errorf(chat.Unavailable, "the tree of %d entries has no map root yet: its server is of a version that makes none", c.Size)
	}
	if a.replay.size == c.Size && a.replay.ends {
		return a.replay.mapRoot, nil
	}
	data, _, err := a.log.entry(ctx, c, c.Size-1)
	if err != nil {
		return nil, err
	}
	if root, ok := readEntry(data).leaf.(*proof.MapRoot); ok {
		return root, nil
	}
	return nil, a.accuse(ctx, c, &lie{fmt.Sprintf("the tree of %d entries does not end in a map root", c.Size), []int64{c.Size - 1}})
}

// accuse keeps the entries that show a lie, with their inclusion in a checkpoint's tree, and stops.
func (a *Auditor) accuse(ctx context.Context, c proof.Checkpoint, l *lie) error {
	e := Evidence{Sentence: "the log lies: " + l.sentence, Checkpoints: []string{string(c.Signed)}}
	for _, index := range l.entries {
		data, p, err := a.log.entry(ctx, c, index)
		if err != nil {
			return err
		}
		e.Entries = append(e.Entries, EvidenceEntry{index, data, string(p)})
	}
	return a.stop(e)
}

// stop keeps the evidence of a lie; nothing is vouched for from here on, whether it could be kept or not.
func (a *Auditor) stop(e Evidence) error {
	e.Format, e.Log, e.At = evidenceFormat, a.config.Log, a.config.Now().UnixMilli()
	if err := a.folder.keepEvidence(e); err != nil {
		a.stopped = chat.Wrap(chat.Tampered, err, "%s (the evidence could not be kept)", e.Sentence)
	} else {
		a.stopped = chat.Errorf(chat.Tampered, "%s (the evidence is in %s)", e.Sentence, a.folder.path(evidenceFile))
	}
	close(a.caught)
	return a.stopped
}
