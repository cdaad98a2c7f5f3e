package proof

import (
	"bytes"
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
)

var update = flag.Bool("update", false, "write the fuzz seeds anew")

// fuzzTests are the fuzz tests whose seeds are committed under testdata/fuzz.
var fuzzTests = []string{"FuzzParseLeaf", "FuzzParsePayload", "FuzzParseRecord", "FuzzOpenDisclosure", "FuzzOpenPromise",
	"FuzzOpenReceipt", "FuzzOpenInclusion", "FuzzVerify", "FuzzParsePolicy"}

// seeds are good inputs for each fuzz test, from the story.
func seeds(t testing.TB) map[string][][]byte {
	w := story(t)
	bundle := w.finish()
	_, never := ofKind(t, 0, true)
	s := map[string][][]byte{"FuzzVerify": {bundle, never}}
	end := PartnerEnd{Partner: "flimmer", Agreement: LeafHash(w.leaves[1]), At: w.now, Cause: CauseStopped, Reason: "no report"}
	report := Report{Partner: "flimmer", Start: w.now}
	s["FuzzParseLeaf"] = append(w.leaves[:3:3], end.Bytes(), report.Bytes())
	for _, b := range append(w.bundle.Control, w.bundle.Access...) {
		r, err := ParseRecord(b.Record)
		w.must(err)
		d, err := r.Disclose()
		w.must(err)
		s["FuzzParsePayload"] = append(s["FuzzParsePayload"], r.Payload)
		s["FuzzParseRecord"] = append(s["FuzzParseRecord"], b.Record)
		s["FuzzOpenDisclosure"] = append(s["FuzzOpenDisclosure"], d)
	}
	promise, err := MakePromise(w.server, w.host, LeafHash(w.leaves[3]), w.now)
	w.must(err)
	s["FuzzOpenPromise"] = [][]byte{promise}
	s["FuzzOpenReceipt"] = [][]byte{w.statement(1, 4).Receipt(w.agent), w.statement(1, 4).Bytes()}
	inclusion, err := w.InclusionProof(t.Context(), LeafHash(w.leaves[3]), 0)
	w.must(err)
	three := newWitnessed(t, 3)
	s["FuzzParsePolicy"] = [][]byte{[]byte(three.policy("group most 2 w0 w1 w2\nquorum most\n")),
		[]byte(three.policy("# two of them\n\ngroup a any w0 w1\n\tgroup b all a w2\nquorum b")), []byte(three.policy("quorum none\n"))}
	s["FuzzOpenInclusion"] = [][]byte{inclusion, w.checkpoint(4)}
	return s
}

// TestFuzzSeeds fails when a fuzz test has no seeds: it would then test nothing in a plain `go test`.
func TestFuzzSeeds(t *testing.T) {
	if *update {
		for name, list := range seeds(t) {
			dir := filepath.Join("testdata", "fuzz", name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for i, data := range list {
				text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("story-%d", i)), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, name := range fuzzTests {
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no seeds: run go test ./proof -run TestFuzzSeeds -update", name)
		}
	}
}

// kinded fails on an error without a kind: whatever outsiders send is their error, not ours.
func kinded(t *testing.T, err error) {
	t.Helper()
	if err != nil && chat.KindOf(err) == chat.Internal {
		t.Fatalf("an error without a kind: %v", err)
	}
}

func same(t *testing.T, data, again []byte) {
	t.Helper()
	if !bytes.Equal(data, again) {
		t.Fatalf("accepted bytes do not encode back to themselves:\n%x\n%x", data, again)
	}
}

func FuzzParseLeaf(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseLeaf(data)
		if kinded(t, err); err != nil {
			return
		}
		same(t, data, l.Bytes())
		if _, ok := l.(*Personal); ok && len(data) != PersonalSize {
			t.Fatalf("a personal leaf of %d bytes", len(data))
		}
	})
}

func FuzzParsePayload(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParsePayload(data)
		if kinded(t, err); err != nil {
			return
		}
		again, err := MarshalPayload(p)
		if err != nil {
			t.Fatal(err)
		}
		same(t, data, again)
	})
}

func FuzzParseRecord(f *testing.F) {
	key := newWorld(f).vrfKey
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if kinded(t, err); err != nil {
			return
		}
		same(t, data, r.Bytes())
		kinded(t, r.Check(key, nil))
		kinded(t, r.CheckAlone(key))
	})
}

func FuzzOpenDisclosure(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, err := OpenDisclosure(data)
		kinded(t, err)
	})
}

func FuzzOpenPromise(f *testing.F) {
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := OpenPromise(data, w.serverKey(), w.host)
		if kinded(t, err); err != nil {
			return
		}
		again, err := canon.Seal(w.server, domainPromise, p)
		if err != nil {
			t.Fatal(err)
		}
		same(t, data, again)
	})
}

func FuzzOpenReceipt(f *testing.F) {
	w := newWorld(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := ParseStatement(data)
		kinded(t, err)
		s, _, err := OpenReceipt(data, w.agent.Public().(ed25519.PublicKey))
		if kinded(t, err); err == nil {
			same(t, data, s.Receipt(w.agent))
		}
	})
}

func FuzzOpenInclusion(f *testing.F) {
	w := story(f)
	leaf := LeafHash(w.leaves[3])
	log, err := NewLog(w.vkey)
	w.must(err)
	f.Fuzz(func(t *testing.T, data []byte) {
		index, _, err := OpenInclusion(leaf, data, log.verifier)
		if kinded(t, err); err == nil && index != 3 {
			t.Fatalf("entry 3 is proven at %d", index)
		}
		_, err = OpenCheckpoint(data, log.verifier)
		kinded(t, err)
	})
}

func FuzzVerify(f *testing.F) {
	good := story(f).finish()
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Verify(data, Pins{})
		if kinded(t, err); err == nil && !bytes.Equal(data, good) && len(v.Sentences) == 0 {
			t.Fatal("a verdict without a word")
		}
	})
}
