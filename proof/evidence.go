package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
)

// EvidenceFormat begins a file of evidence (spec/evidence.md).
const EvidenceFormat = "letterlock-evidence/1"

// Limits of a file of evidence.
const (
	MaxEvidence = 16 << 20
	MaxLies     = 4096
)

// EvidenceFile is what a device wrote down when it was lied to, for others to look at.
type EvidenceFile struct {
	Format     string `json:"format"`
	Host       string `json:"host"`
	LedgerVKey string `json:"ledger_vkey"`
	Lies       []Lie  `json:"lies"`
}

// Lie is one of them.
type Lie struct {
	At          int64    `json:"at"` // ms, by the device's clock
	Sentence    string   `json:"sentence"`
	Checkpoints []string `json:"checkpoints"` // none, or two signed notes: what the device remembered, and what it or somebody else was shown
	Data        []byte   `json:"data"`        // of lies without checkpoints: the bytes that were shown
}

// Bytes writes the file.
func (f *EvidenceFile) Bytes() ([]byte, error) {
	f.Format = EvidenceFormat
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(f); err != nil {
		return nil, chat.Wrap(chat.Internal, err, "the evidence cannot be written")
	}
	return b.Bytes(), nil
}

// IsEvidence tells a file of evidence from a bundle.
func IsEvidence(data []byte) bool {
	var f struct {
		Format string `json:"format"`
	}
	return len(data) <= MaxEvidence && json.Unmarshal(data, &f) == nil && f.Format == EvidenceFormat
}

// ParseEvidence reads a file of evidence.
func ParseEvidence(data []byte) (*EvidenceFile, error) {
	if len(data) > MaxEvidence {
		return nil, tooLarge("evidence", MaxEvidence)
	}
	var f EvidenceFile
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil || dec.More() {
		return nil, chat.Wrap(chat.Invalid, err, "evidence: malformed")
	}
	if f.Format != EvidenceFormat {
		return nil, chat.Errorf(chat.Incompatible, "evidence: a format that is not known here")
	}
	if len(f.Lies) > MaxLies {
		return nil, tooLarge("evidence", MaxEvidence)
	}
	for _, l := range f.Lies {
		if n := len(l.Checkpoints); n != 0 && n != 2 {
			return nil, invalid("evidence: %d checkpoints where there should be two", n)
		}
	}
	return &f, nil
}

// EvidenceVerdict is what can be said of a file of evidence offline.
type EvidenceVerdict struct {
	Host       string            `json:"host"`
	LedgerVKey string            `json:"ledger_vkey"`
	Pinned     bool              `json:"pinned"`    // the ledger's key was given, not taken from the file
	Convicted  bool              `json:"convicted"` // the ledger contradicts itself in what it signed
	Findings   []EvidenceFinding `json:"findings"`
}

// EvidenceFinding is what one lie comes to.
type EvidenceFinding struct {
	At       int64  `json:"at"`
	Sentence string `json:"sentence"` // what the device said
	Convicts bool   `json:"convicts"`
	Means    string `json:"means"` // what it shows to others
}

// VerifyEvidence says of each lie whether it convicts the ledger: two trees of one size that it signed with different roots do. Anything
// else is the device's word, and the verdict says so. vkey pins the ledger's key; empty: the file's own is taken.
func VerifyEvidence(data []byte, vkey string) (*EvidenceVerdict, error) {
	f, err := ParseEvidence(data)
	if err != nil {
		return nil, err
	}
	if vkey != "" && vkey != f.LedgerVKey {
		return nil, unproven("the evidence is about another ledger than the one that was named")
	}
	if err := chat.CheckHost(f.Host); err != nil {
		return nil, err
	}
	log, err := note.NewVerifier(f.LedgerVKey)
	if err != nil || log.Name() != Origin(f.Host) {
		return nil, invalid("evidence: the ledger's key is not a note verifier named %s", Origin(f.Host))
	}
	v := &EvidenceVerdict{Host: f.Host, LedgerVKey: f.LedgerVKey, Pinned: vkey != "", Findings: []EvidenceFinding{}}
	for _, l := range f.Lies {
		e := EvidenceFinding{At: l.At, Sentence: l.Sentence}
		e.Convicts, e.Means = l.means(log)
		v.Convicted = v.Convicted || e.Convicts
		v.Findings = append(v.Findings, e)
	}
	return v, nil
}

func (l *Lie) means(log note.Verifier) (convicts bool, text string) {
	if len(l.Checkpoints) == 0 {
		return false, "This is the device's word, with what it was shown: nothing in it was signed by the ledger."
	}
	a, err := OpenCheckpoint([]byte(l.Checkpoints[0]), log)
	if err != nil {
		return false, "The first checkpoint is not signed by the ledger."
	}
	b, err := OpenCheckpoint([]byte(l.Checkpoints[1]), log)
	if err != nil {
		return false, "The second checkpoint is not signed by the ledger."
	}
	switch {
	case a.same(b):
		return false, "Both checkpoints are of the same tree: they do not contradict each other."
	case a.Size == b.Size:
		return true, fmt.Sprintf("The ledger signed two trees of %d entries with different roots. No log has both: this convicts it.", a.Size)
	}
	return false, fmt.Sprintf("The ledger signed a tree of %d entries and one of %d. These two alone do not show that the larger leaves the smaller out: "+
		"an honest ledger can still prove that it does not (GET /log/consistency?from=%d&to=%d).", min(a.Size, b.Size), max(a.Size, b.Size), min(a.Size, b.Size), max(a.Size, b.Size))
}

// Text is the verdict for people.
func (v *EvidenceVerdict) Text() string {
	var b strings.Builder
	if v.Convicted {
		fmt.Fprintf(&b, "CONVICTED. The ledger of %s contradicts itself in what it signed.\n", v.Host)
	} else {
		fmt.Fprintf(&b, "Nothing in this file convicts the ledger of %s by itself.\n", v.Host)
	}
	for _, f := range v.Findings {
		fmt.Fprintf(&b, "\n%s  %s\n  %s\n", time.UnixMilli(f.At).UTC().Format("2006-01-02 15:04 UTC"), printable(f.Sentence), f.Means)
	}
	if v.Pinned {
		fmt.Fprintf(&b, "\nThe ledger's key is the one that you named.\n")
	} else {
		fmt.Fprintf(&b, "\nThe ledger's key is the file's own claim: compare it with %s's, and name it with --ledger-key.\n  %s\n", v.Host, printable(v.LedgerVKey))
	}
	return b.String()
}

// printable keeps what a stranger's file says on one line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\ufffd'
		}
		return r
	}, s)
}
