package proof_test

import (
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
)

func evidenceOf(t *testing.T, vkey string, notes ...[]byte) []byte {
	t.Helper()
	l := proof.Lie{At: 1_800_000_000_000, Sentence: "the ledger contradicts what this device remembers of it", Checkpoints: []string{}}
	for _, n := range notes {
		l.Checkpoints = append(l.Checkpoints, string(n))
	}
	f := proof.EvidenceFile{Host: "chat.example", LedgerVKey: vkey, Lies: []proof.Lie{l}}
	data, err := f.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func logKeys(t *testing.T, seed string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(strings.NewReader(strings.Repeat(seed, 64)), "chat.example/letterlock")
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

func signedTree(t *testing.T, s note.Signer, size int64, root byte) []byte {
	t.Helper()
	n, err := proof.SignCheckpoint(s, size, proof.Hash{root})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEvidenceConvictsWhereTwoTreesOfOneSizeAreSigned(t *testing.T) {
	s, vkey := logKeys(t, "a")
	other, _ := logKeys(t, "b")
	for what, c := range map[string]struct {
		a, b     []byte
		convicts bool
		means    string
	}{
		"two roots":   {signedTree(t, s, 9, 1), signedTree(t, s, 9, 2), true, "two trees of 9 entries with different roots"},
		"two sizes":   {signedTree(t, s, 9, 1), signedTree(t, s, 7, 2), false, "do not show that the larger leaves the smaller out"},
		"one tree":    {signedTree(t, s, 9, 1), signedTree(t, s, 9, 1), false, "they do not contradict each other"},
		"another key": {signedTree(t, s, 9, 1), signedTree(t, other, 9, 2), false, "The second checkpoint is not signed by the ledger"},
	} {
		v, err := proof.VerifyEvidence(evidenceOf(t, vkey, c.a, c.b), vkey)
		if err != nil {
			t.Fatal(err)
		}
		if v.Convicted != c.convicts || v.Findings[0].Convicts != c.convicts || !strings.Contains(v.Text(), c.means) {
			t.Errorf("%s: %+v", what, v)
		}
	}
	if v, err := proof.VerifyEvidence(evidenceOf(t, vkey), ""); err != nil || v.Convicted || v.Pinned || !strings.Contains(v.Text(), "the device's word") {
		t.Errorf("a lie without checkpoints: %+v %v", v, err)
	}
	_, elsewhere := logKeys(t, "b")
	if _, err := proof.VerifyEvidence(evidenceOf(t, vkey), elsewhere); !chat.Is(err, chat.Unproven) {
		t.Errorf("under another pinned key: %v", err)
	}
}

func FuzzParseEvidence(f *testing.F) {
	s, vkey, _ := note.GenerateKey(strings.NewReader(strings.Repeat("a", 64)), "chat.example/letterlock")
	signer, _ := note.NewSigner(s)
	a, _ := proof.SignCheckpoint(signer, 9, proof.Hash{1})
	b, _ := proof.SignCheckpoint(signer, 9, proof.Hash{2})
	file := proof.EvidenceFile{Host: "chat.example", LedgerVKey: vkey, Lies: []proof.Lie{{Sentence: "x", Checkpoints: []string{string(a), string(b)}}}}
	data, _ := file.Bytes()
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := proof.VerifyEvidence(data, "")
		if err != nil {
			return
		}
		if !proof.IsEvidence(data) {
			t.Fatal("it is judged, and not told from a bundle")
		}
		v.Text()
	})
}
