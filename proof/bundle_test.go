package proof

import (
	"bytes"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/keychain"
)

func verify(t *testing.T, data []byte) *Verdict {
	t.Helper()
	v, err := Verify(data, Pins{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestBundleTellsTheStory(t *testing.T) {
	w := story(t)
	data := w.finish()
	v, err := Verify(data, Pins{LedgerVKey: w.vkey, VRFKey: w.vrfKey.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Findings) != 0 {
		t.Fatalf("findings: %v", v.Findings)
	}
	if len(v.Grants) != 1 || v.Grants[0].How != "revoked" || len(v.Reads) != 1 || v.Posts != 1 || v.Deletes != 1 || v.Complete {
		t.Fatalf("verdict: %+v", v)
	}
	read := v.Reads[0]
	if read.FromEpoch != 3 || read.ToEpoch == nil || *read.ToEpoch != 4 || read.Countersigned != 1 || read.Entries != 3 || read.EntriesUnsigned != 0 {
		t.Fatalf("read: %+v", read)
	}
	text := v.Text()
	for _, want := range []string{
		"Flimmer could read conversation " + w.thread.String() + " from epoch 3 to epoch 4",
		"No other grant of alice for Flimmer and no other access is in this bundle; completeness not proven",
		"revoked",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if out, err := json.Marshal(v); err != nil || !bytes.Contains(out, []byte(`"complete":false`)) {
		t.Errorf("as JSON: %s, %v", out, err)
	}
}

func TestEmptyBundle(t *testing.T) {
	w := newWorld(t)
	w.begin()
	v := verify(t, w.finish())
	if text := v.Text(); !strings.Contains(text, "no grant of alice for Flimmer, no exposure and no access; completeness not proven") ||
		!strings.Contains(text, "the bundle's own claim") {
		t.Errorf("text: %s", text)
	}
}

// TestNoByteCanChange flips every byte of a bundle, in two ways: nothing that was changed passes, nothing panics.
func TestNoByteCanChange(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.record(w.grant(1, chat.AllActions, 0))
	w.record(w.exposed(1, 3))
	w.record(w.open(1, 3))
	w.record(w.closed(1, 4))
	data := w.finish()
	verify(t, data)
	stride := 1
	if raceEnabled || testing.Short() {
		stride = 29 // the race detector makes it ten times slower
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				i := int(next.Add(int64(stride))) - stride
				if i >= len(data) {
					return
				}
				flipByte(t, data, i)
			}
		})
	}
	wg.Wait()
}

func flipByte(t *testing.T, data []byte, i int) {
	for _, mask := range []byte{0x01, 0x20, 0x80} {
		bad := bytes.Clone(data)
		bad[i] ^= mask
		if _, err := Verify(bad, Pins{}); err == nil {
			t.Errorf("byte %d (%q) changed by %#x: accepted", i, data[max(0, i-30):i+1], mask)
		}
	}
}

func TestBundleHasOneForm(t *testing.T) {
	data := story(t).finish()
	for name, bad := range map[string][]byte{
		"another indentation": bytes.Replace(data, []byte("\n  "), []byte("\n\t"), 1),
		"a trailing space":    append(bytes.Clone(data), ' '),
		"another case":        bytes.Replace(data, []byte(`"handle"`), []byte(`"Handle"`), 1),
		"an unknown member":   bytes.Replace(data, []byte(`"handle"`), []byte(`"x": 1, "handle"`), 1),
		"a member twice":      bytes.Replace(data, []byte(`"handle": "alice"`), []byte(`"handle": "alice", "handle": "alice"`), 1),
		"null for a list":     bytes.Replace(data, []byte(`"access": [`), []byte(`"access": null, "x": [`), 1),
		"no line feed":        data[:len(data)-1],
		"nothing":             {},
		"too much":            make([]byte, MaxBundle+1),
	} {
		if _, err := Verify(bad, Pins{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPins(t *testing.T) {
	w := story(t)
	data := w.finish()
	_, other, _ := note.GenerateKey(w.rand, Origin(w.host))
	if _, err := Verify(data, Pins{LedgerVKey: other}); !chat.Is(err, chat.Unproven) {
		t.Errorf("another ledger: %v", err)
	}
	if _, err := Verify(data, Pins{VRFKey: make([]byte, 32)}); !chat.Is(err, chat.Unproven) {
		t.Errorf("another VRF key: %v", err)
	}
}

// TestBundlesThatDoNotHold changes a bundle before it is proven and finished, so that only the named check stands in its way.
func TestBundlesThatDoNotHold(t *testing.T) {
	parse := func(w *world, b BundledRecord) *Record {
		r, err := ParseRecord(b.Record)
		w.must(err)
		return r
	}
	for _, test := range []struct {
		name, want string
		change     func(w *world)
	}{
		{"a record left out in the middle", "record 2 of access is missing", func(w *world) { w.bundle.Access = slices.Delete(w.bundle.Access, 2, 3) }},
		{"the first record left out", "record 0 of access is missing", func(w *world) { w.bundle.Access = w.bundle.Access[1:] }},
		{"two records swapped", "missing", func(w *world) {
			w.bundle.Access[1], w.bundle.Access[2] = w.bundle.Access[2], w.bundle.Access[1]
		}},
		{"a record twice", "missing", func(w *world) { w.bundle.Access = slices.Insert(w.bundle.Access, 1, w.bundle.Access[1]) }},
		{"a payload altered", "does not commit", func(w *world) {
			r := parse(w, w.bundle.Access[0])
			r.Payload[len(r.Payload)-1] ^= 1
			w.bundle.Access[0].Record = r.Bytes()
		}},
		{"another index", "not in the ledger", func(w *world) {
			r := parse(w, w.bundle.Access[0])
			r.Index++
			w.bundle.Access[0].Record = r.Bytes()
		}},
		{"a record that was never logged", "not in the ledger", func(w *world) { w.keep(w.next(w.post(1))) }},
		{"control records as access", "another chain", func(w *world) { w.bundle.Access = w.bundle.Control }},
		{"another handle", "another account's", func(w *world) { w.bundle.Handle = "bob" }},
		{"another account", "another chain|another account's", func(w *world) { w.bundle.Account[0] ^= 1 }},
		{"another host", "another host's", func(w *world) { w.bundle.Host = "other.example" }},
		{"another server key", "does not announce", func(w *world) { w.bundle.ServerKey = w.vrfKey.Bytes() }},
		{"no key chain", "no entries", func(w *world) { w.bundle.KeyChain = nil }},
		{"no agreement", "agreement that it stands on is not in the bundle", func(w *world) { w.bundle.Agreements = nil }},
		{"an agreement twice", "out of order", func(w *world) { w.bundle.Agreements = append(w.bundle.Agreements, w.bundle.Agreements[0]) }},
		{"a personal leaf as agreement", "not an agreement", func(w *world) {
			w.bundle.Agreements = append(w.bundle.Agreements, BundledLeaf{Leaf: w.leaves[3], Index: 3})
		}},
		{"another entry as keys", "does not announce", func(w *world) { w.bundle.Keys = w.bundle.Agreements[0] }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := story(t)
			test.change(w)
			_, err := Verify(w.finish(), Pins{})
			expect(t, err, test.want)
		})
	}
}

// expect wants an error whose text holds one of the alternatives.
func expect(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatal("accepted")
	}
	if chat.KindOf(err) == chat.Internal {
		t.Errorf("an error without a kind: %v", err)
	}
	for _, w := range strings.Split(want, "|") {
		if strings.Contains(err.Error(), w) {
			return
		}
	}
	t.Errorf("error %q, want %q", err, want)
}

// TestControlRecordsThatDoNotHold logs control records that no device signed like that.
func TestControlRecordsThatDoNotHold(t *testing.T) {
	for _, test := range []struct {
		name, want string
		payload    func(w *world) Payload
	}{
		{"signed by nobody", "record 0 of control does not hold", func(w *world) Payload {
			g := w.grant(1, chat.Read, 0)
			g.Signed[len(g.Signed)-1] ^= 1
			return g
		}},
		{"signed by the server", "record 0 of control does not hold", func(w *world) Payload {
			w.phone, _ = keychain.DeviceKeyFromSeed(w.server.Seed())
			return w.grant(1, chat.Read, 0)
		}},
		{"by a device that was never there", "was not in the key chain", func(w *world) Payload {
			w.phoneID[0] ^= 1
			return w.grant(1, chat.Read, 0)
		}},
		{"another number", "another account, partner or number", func(w *world) Payload { return w.grant(1, chat.Read, 1) }},
		{"more than the agreement allows", "record 0 of control does not hold", func(w *world) Payload { w.now += 2e10; return w.grant(1, chat.Read, 0) }},
		{"a revocation signed by nobody", "record 0 of control does not hold", func(w *world) Payload {
			r := w.revocation(1, 0)
			r.Signed[len(r.Signed)-1] ^= 1
			return r
		}},
		{"garbage", "record 0 of control does not hold", func(w *world) Payload { return &Narrow{Signed: []byte{1, 2, 3}} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			w.record(test.payload(w))
			_, err := Verify(w.finish(), Pins{})
			expect(t, err, test.want)
		})
	}
}

// TestLoggedOutOfOrder: a record stands in the ledger behind the one that it follows.
func TestLoggedOutOfOrder(t *testing.T) {
	w := newWorld(t)
	w.begin()
	first := w.next(w.post(1))
	w.heads[Access] = first
	second := w.next(w.post(1))
	second.Index = w.add(second.Leaf)
	first.Index = w.add(first.Leaf)
	w.keep(first)
	w.keep(second)
	_, err := Verify(w.finish(), Pins{})
	expect(t, err, "before the record that it follows")
}

// TestFindings logs what a lying server or partner would: the bundle holds, and the verdict names the contradiction.
func TestFindings(t *testing.T) {
	for _, test := range []struct {
		name, want string
		log        func(w *world)
	}{
		{"an exposure without a grant", "no grant allowed it", func(w *world) { w.record(w.exposed(1, 3)) }},
		{"a post after the revocation", "after its grant was revoked", func(w *world) {
			w.record(w.grant(1, chat.Send, 0))
			w.record(w.revocation(1, 1))
			w.record(w.post(1))
		}},
		{"a post under a grant that reads only", "did not allow", func(w *world) {
			w.record(w.grant(1, chat.Read, 0))
			w.record(w.post(1))
		}},
		{"an exposure under a grant that sends only", "did not allow", func(w *world) {
			w.record(w.grant(1, chat.Send, 0))
			w.record(w.exposed(1, 3))
		}},
		{"an access without exposure", "no exposure is recorded", func(w *world) {
			w.record(w.grant(1, chat.AllActions, 0))
			w.record(w.open(1, 3))
		}},
		{"an access after the end", "outside the exposure", func(w *world) {
			w.record(w.grant(1, chat.AllActions, 0))
			w.record(w.exposed(1, 3))
			w.record(w.ended(1, 5))
			w.record(w.open(1, 5))
		}},
		{"a close that was not opened", "was not opened", func(w *world) {
			w.record(w.grant(1, chat.AllActions, 0))
			w.record(w.exposed(1, 3))
			w.record(w.closed(1, 4))
		}},
		{"a countersignature by the server", "not the agent's", func(w *world) {
			w.record(w.grant(1, chat.AllActions, 0))
			w.record(w.exposed(1, 3))
			w.record(w.open(1, 3))
			w.agent = w.server
			w.record(w.closed(1, 4))
		}},
		{"an exposure to another key", "another key than the grant's", func(w *world) {
			w.record(w.grant(1, chat.AllActions, 0))
			w.agent = w.server
			w.record(w.exposed(1, 3))
		}},
		{"a grant id used twice", "used before", func(w *world) {
			w.record(w.grant(1, chat.Send, 0))
			w.record(w.grant(1, chat.AllActions, 1))
		}},
		{"a revocation of nothing", "does not stand", func(w *world) { w.record(w.revocation(1, 0)) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			w.begin()
			test.log(w)
			v := verify(t, w.finish())
			if !slices.ContainsFunc(v.Findings, func(f string) bool { return strings.Contains(f, test.want) }) {
				t.Errorf("findings %q, want %q", v.Findings, test.want)
			}
		})
	}
}

// TestUnsignedClose: without a countersignature a close is the server's word alone, and the verdict says so.
func TestUnsignedClose(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.record(w.grant(1, chat.AllActions, 0))
	w.record(w.exposed(1, 3))
	w.record(w.open(1, 3))
	w.record(w.statement(1, 4).Close(nil))
	v := verify(t, w.finish())
	if len(v.Findings) != 0 || v.Reads[0].Countersigned != 0 || v.Reads[0].EntriesUnsigned != 3 {
		t.Errorf("verdict: %+v", v)
	}
}

// TestErasedBundle erases every record: the chains hold, nothing is said of their contents.
func TestErasedBundle(t *testing.T) {
	w := story(t)
	for _, chain := range [][]BundledRecord{w.bundle.Control, w.bundle.Access} {
		for i := range chain {
			r, err := ParseRecord(chain[i].Record)
			w.must(err)
			r.Erase()
			chain[i].Record = r.Bytes()
		}
	}
	v := verify(t, w.finish())
	if v.Erased != 8 || len(v.Grants)+len(v.Reads)+len(v.Findings) != 0 || !strings.Contains(v.Text(), "8 records were erased or are withheld") {
		t.Errorf("verdict: %+v", v)
	}
}

func TestRewrittenHistory(t *testing.T) {
	w := story(t)
	log, err := NewLog(w.vkey)
	w.must(err)
	w.must(log.Advance(w.checkpoint(len(w.leaves)), nil))
	// The server rewrites entry 5, and serves the same size, then a larger one.
	forked := newWorld(t)
	for i, leaf := range w.leaves {
		if i == 5 {
			leaf = w.leaves[4]
		}
		forked.add(leaf)
	}
	forked.log = w.log
	check := func(err error, what Contradiction) {
		t.Helper()
		var e *Evidence
		if !chat.Is(err, chat.Tampered) || !errors.As(err, &e) || e.What != what {
			t.Fatalf("%s: %v", what, err)
		}
		for _, signed := range [][]byte{e.Remembered, e.Shown} {
			if _, err := OpenCheckpoint(signed, log.verifier); err != nil {
				t.Errorf("evidence: %v", err)
			}
		}
	}
	check(log.Follow(t.Context(), forked), OtherRoot)
	forked.add(w.leaves[1])
	check(log.Follow(t.Context(), forked), Inconsistent)
	_, _, err = log.Prove(t.Context(), forked, LeafHash(w.leaves[1]), 0)
	check(err, Inconsistent)
	check(log.Advance(w.checkpoint(3), nil), Smaller)
	if log.Checkpoint().Size != int64(len(w.leaves)) {
		t.Error("a refused checkpoint changed the memory")
	}
	w.must(log.Follow(t.Context(), w))
}
