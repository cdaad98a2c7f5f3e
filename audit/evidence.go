package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/witness"
)

// Evidence is a lie of a log in a form that others can check with Open, or with any tool that reads C2SP notes and tlog-proofs. It is
// written as JSON.
type Evidence struct {
	Format   string `json:"format"`   // evidenceFormat
	Sentence string `json:"sentence"` // the lie
	At       int64  `json:"at"`       // ms, the auditor's clock
	Log      string `json:"log"`      // note verifier

	// Checkpoints are signed notes: one if an entry shows the lie; two, neither of whose trees contains the other, if the log forked.
	Checkpoints []string `json:"checkpoints"`
	// Entries show the lie. Each is in the tree of the one checkpoint.
	Entries []EvidenceEntry `json:"entries"`
}

// EvidenceEntry is an entry of the log.
type EvidenceEntry struct {
	Index int64  `json:"index"`
	Leaf  []byte `json:"leaf"`
	Proof string `json:"proof"` // c2sp.org/tlog-proof@v1
}

const (
	evidenceFormat = "letterlock-audit-evidence/1"
	// MaxEvidence is the most bytes of a file of evidence.
	MaxEvidence = 256 << 10
)

// OpenEvidence reads evidence and checks that the log signed what it shows: its checkpoints, and trees that hold its entries. What the
// entries say, the sentence claims; that no tree contains the other, only the log's tiles can show unless both have one size.
func OpenEvidence(data []byte) (*Evidence, error) {
	if len(data) > MaxEvidence {
		return nil, chat.Errorf(chat.TooLarge, "evidence has at most %d bytes", MaxEvidence)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var e Evidence
	if err := d.Decode(&e); err != nil || e.Format != evidenceFormat {
		return nil, chat.Wrap(chat.Invalid, err, "this is no evidence of an auditor (%s)", evidenceFormat)
	}
	return &e, e.check()
}

func (e *Evidence) check() error {
	v, err := note.NewVerifier(e.Log)
	if err != nil {
		return chat.Wrap(chat.Invalid, err, "the evidence names no log")
	}
	var trees []proof.Checkpoint
	for _, signed := range e.Checkpoints {
		c, err := proof.OpenCheckpoint([]byte(signed), v)
		if err != nil {
			return err
		}
		trees = append(trees, c)
	}
	for _, entry := range e.Entries {
		index, c, err := proof.OpenInclusion(proof.LeafHash(entry.Leaf), []byte(entry.Proof), v)
		if err != nil {
			return err
		}
		if len(trees) != 1 || index != entry.Index || c.Size != trees[0].Size || c.Root != trees[0].Root {
			return chat.Errorf(chat.Unproven, "the evidence shows an entry of another tree than its checkpoint's")
		}
	}
	fork := len(trees) == 2 && len(e.Entries) == 0 && (trees[0].Size != trees[1].Size || trees[0].Root != trees[1].Root)
	if !fork && !(len(trees) == 1 && (len(e.Entries) == 1 || len(e.Entries) == 2)) {
		return chat.Errorf(chat.Unproven, "the evidence shows neither two trees nor an entry of one")
	}
	return nil
}

// keepEvidence writes evidence into the folder.
func (f *folder) keepEvidence(e Evidence) error {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return f.unwritable(witness.WriteFile(f.path(evidenceFile), append(data, '\n')))
}

// stoppedBefore is the error of an auditor that was stopped by a lie.
func (f *folder) stoppedBefore() error {
	data, err := os.ReadFile(f.path(evidenceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	sentence := "the evidence cannot be read"
	var e Evidence
	if err == nil && json.Unmarshal(data, &e) == nil {
		sentence = e.Sentence
	}
	return chat.Errorf(chat.Tampered, "%s (this auditor stopped for good; the evidence is in %s)", sentence, f.path(evidenceFile))
}
