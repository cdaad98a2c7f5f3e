package audit

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"filippo.io/torchwood"

	"letterlock/proof"
)

var writeSeeds = flag.Bool("write-seeds", false, "write testdata/fuzz anew")

// FuzzReplay: no entries, in no order, make the replay panic, and an entry that is refused leaves everything as it was.
func FuzzReplay(f *testing.F) {
	f.Fuzz(func(t *testing.T, tile []byte) {
		r := newReplay("")
		for len(tile) > 0 {
			data, rest, err := torchwood.ReadTileEntry(tile)
			if err != nil {
				return
			}
			tile = rest
			e := readEntry(data)
			if keys, ok := e.leaf.(*proof.ServerKeys); ok && r.size == 0 {
				r.vkey = keys.LedgerVKey
			}
			before := *r
			if err := r.add(e); err == nil {
				if r.size != before.size+1 {
					t.Fatal("an entry that was taken does not count")
				}
			} else if r.size != before.size || r.mapRoot != before.mapRoot || r.ends != before.ends || len(r.labels.leaves) != len(before.labels.leaves) {
				t.Fatalf("an entry that was refused left something: %v", err)
			}
		}
		if r.size > 0 {
			r.root()
		}
		r.labels.rootHash()
	})
}

// FuzzOpenEvidence: evidence that is taken says the same when it is written and read again.
func FuzzOpenEvidence(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := OpenEvidence(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if e2, err := OpenEvidence(again); err != nil || !reflect.DeepEqual(e, e2) {
			t.Fatalf("%+v\n%+v\n%v", e, e2, err)
		}
	})
}

// TestFuzzSeeds: the seeds are there, and reach what they are for.
func TestFuzzSeeds(t *testing.T) {
	if *writeSeeds {
		seeds(t)
	}
	for _, dir := range []string{"FuzzReplay", "FuzzOpenEvidence"} {
		list, err := filepath.Glob("testdata/fuzz/" + dir + "/*")
		if err != nil || len(list) < 2 {
			t.Errorf("%s has %d seeds", dir, len(list))
		}
	}
}

// seeds writes a log of every kind of entry, one that lies, and the evidence of a lie and of a fork.
func seeds(t *testing.T) {
	l := newLog(t)
	l.everything()
	write(t, "FuzzReplay/everything", l.entries())
	l.personal(2)
	l.addBytes(l.leaves[4])
	write(t, "FuzzReplay/label-twice", l.entries())
	l.root()
	c := l.checkpoint(len(l.leaves))
	l.publish()
	home := t.TempDir()
	if _, err := l.auditor(home).Published(ctx); err == nil {
		t.Fatal("no lie was found")
	}
	lie, err := os.ReadFile(filepath.Join(home, evidenceFile))
	if err != nil {
		t.Fatal(err)
	}
	write(t, "FuzzOpenEvidence/lie", lie)
	l.begin()
	fork, err := json.Marshal(Evidence{Format: evidenceFormat, Sentence: "the log forked", Log: l.keys.LedgerVKey(),
		Checkpoints: []string{string(l.checkpoint(2).Signed), string(c.Signed)}})
	if err != nil {
		t.Fatal(err)
	}
	write(t, "FuzzOpenEvidence/fork", fork)
}

func (l *log) entries() (data []byte) {
	for _, leaf := range l.leaves {
		var err error
		if data, err = torchwood.AppendTileEntry(data, leaf); err != nil {
			l.t.Fatal(err)
		}
	}
	return data
}

func write(t *testing.T, name string, data []byte) {
	t.Helper()
	path := filepath.Join("testdata/fuzz", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, fmt.Appendf(nil, "go test fuzz v1\n[]byte(%q)\n", data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestEvidenceOfNothing: evidence whose parts do not belong together convicts nobody.
func TestEvidenceOfNothing(t *testing.T) {
	l := newLog(t)
	l.personal(2)
	l.root()
	a := l.auditor(t.TempDir())
	c := l.checkpoint(len(l.leaves))
	data, p, err := a.log.entry(ctx, c, 2)
	if err != nil {
		t.Fatal(err)
	}
	entry := EvidenceEntry{2, data, string(p)}
	signed := func(c proof.Checkpoint) []string { return []string{string(c.Signed)} }
	whole := Evidence{Format: evidenceFormat, Log: l.keys.LedgerVKey(), Checkpoints: signed(c), Entries: []EvidenceEntry{entry}}
	open := func(change func(*Evidence)) error {
		e := whole
		change(&e)
		data, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		_, err = OpenEvidence(data)
		return err
	}
	if err := open(func(*Evidence) {}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Evidence){
		"another log's checkpoint": func(e *Evidence) { e.Log = newLog(t).keys.LedgerVKey() },
		"a checkpoint altered":     func(e *Evidence) { e.Checkpoints = []string{"x" + e.Checkpoints[0]} },
		"another tree":             func(e *Evidence) { e.Checkpoints = signed(l.checkpoint(3)) },
		"another leaf":             func(e *Evidence) { e.Entries = []EvidenceEntry{{2, l.leaves[3], entry.Proof}} },
		"another index":            func(e *Evidence) { e.Entries = []EvidenceEntry{{3, entry.Leaf, entry.Proof}} },
		"no entry":                 func(e *Evidence) { e.Entries = nil },
		"one tree twice":           func(e *Evidence) { e.Entries, e.Checkpoints = nil, append(signed(c), signed(c)...) },
		"another format":           func(e *Evidence) { e.Format = "letterlock-audit-evidence/2" },
	} {
		if open(change) == nil {
			t.Errorf("%s: it convicts", name)
		}
	}
}
