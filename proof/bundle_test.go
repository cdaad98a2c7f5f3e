package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/labelmap"
)

func verify(t *testing.T, data []byte) *Verdict {
	t.Helper()
	v, err := Verify(data, Pins{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// kinds are bundles of every kind, each with the world that it is from.
var kinds = []struct {
	name string
	kind VerdictKind
	make func(w *world)
	less func(w *world) // with fewer records, nil: the same
}{
	{"never", NeverAnything, func(w *world) { w.bundle.Agreements = nil }, nil},
	{"never-read", NeverRead, func(w *world) {
		w.record(w.grant(1, chat.Send, 0))
		w.record(w.post(1))
	}, nil},
	{"exposed", WasExposed, func(w *world) {
		w.record(w.exposedBy(2, 3))
		w.record(w.open(2, 3))
	}, func(w *world) { w.record(w.exposedBy(2, 3)) }},
	{"access", HadAccess, func(w *world) { w.story() }, func(w *world) {
		w.record(w.grant(1, chat.AllActions, 0))
		w.record(w.exposed(1, 3))
		w.record(w.open(1, 3))
		w.record(w.closed(1, 4))
	}},
	{"keys", KeysAlone, func(w *world) {
		w.addDevice()
		w.aboutKeys()
	}, nil},
	{"erased", ErasedUnknown, func(w *world) {
		w.record(w.exposed(1, 3))
		w.erase()
	}, nil},
}

// ofKind is the finished bundle of a kind, with or without witnesses.
func ofKind(t testing.TB, i int, witnessed bool) (*world, []byte) {
	w := newWorld(t)
	w.begin()
	if witnessed {
		w.witnessed(1, "chat.example:8080/own")
		w.witnessed(2, "w1.example", "w2.example", "chat.example:8080/own")
	}
	kinds[i].make(w)
	return w, w.finish()
}

// erase empties all records of the bundle.
func (w *world) erase() {
	for _, chain := range [][]BundledRecord{w.bundle.Control, w.bundle.Access} {
		for i := range chain {
			r, err := ParseRecord(chain[i].Record)
			w.must(err)
			r.Erase()
			chain[i].Record = r.Bytes()
		}
	}
}

func TestBundlesOfEveryKind(t *testing.T) {
	for i, k := range kinds {
		for _, witnessed := range []bool{false, true} {
			w, data := ofKind(t, i, witnessed)
			pins := Pins{LedgerVKey: w.vkey, VRFKey: w.vrfKey.Bytes()}
			if witnessed {
				pins.Policy = []byte("# what I know from elsewhere\n\n" + w.policy.String())
			}
			v, err := Verify(data, pins)
			if err != nil {
				t.Errorf("%s: %v", k.name, err)
				continue
			}
			if v.Kind != k.kind || !v.Complete || len(v.Findings) != 0 || v.Headline == "" || !strings.HasPrefix(v.Text(), v.Headline) {
				t.Errorf("%s: verdict %+v", k.name, v)
			}
			if witnessed != (len(v.Witnesses) == 3) || witnessed != (v.AsOf.By == "witnesses") || witnessed != (v.AsOf.From < v.AsOf.To) {
				t.Errorf("%s: witnesses %+v, as of %+v", k.name, v.Witnesses, v.AsOf)
			}
			if witnessed && !strings.Contains(v.Text(), "chat.example:8080/own signed that tree at 2027-01-15T08:00:12Z by its own clock; the operator runs it: not independent") {
				t.Errorf("%s: the operator's own witness is not labelled:\n%s", k.name, v.Text())
			}
			english := v.Text()
			v.Speak(German)
			if strings.Contains(v.Text(), "%!") || strings.Contains(english, "%!") || v.Text() == english {
				t.Errorf("%s: %s%s", k.name, english, v.Text())
			}
			t.Logf("%d bytes\n%s\n%s", len(data), english, v.Text())
		}
	}
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
	if len(v.Grants) != 1 || v.Grants[0].How != "revoked" || len(v.Reads) != 1 || v.Posts != 1 || v.Deletes != 1 || !v.Complete {
		t.Fatalf("verdict: %+v", v)
	}
	read := v.Reads[0]
	if read.FromEpoch != 3 || read.ToEpoch == nil || *read.ToEpoch != 4 || read.Countersigned != 1 || read.Entries != 3 || read.EntriesUnsigned != 0 {
		t.Fatalf("read: %+v", read)
	}
	text := v.Text()
	for _, want := range []string{
		"Flimmer could read conversation " + w.thread.String() + " from epoch 3 to epoch 4",
		"There is no other grant of alice for Flimmer, and no other access",
		"revoked",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if out, err := json.Marshal(v); err != nil || !bytes.Contains(out, []byte(`"complete":true`)) || !bytes.Contains(out, []byte(`{"kind":"access","headline":"Flimmer could read`)) {
		t.Errorf("as JSON: %s, %v", out, err)
	}
}

// TestNoByteCanChange flips a bit of every byte of a bundle of every kind, all eight of the smallest one's, and cuts it off there: nothing that
// was changed passes, nothing panics.
func TestNoByteCanChange(t *testing.T) {
	stride := 1
	if raceEnabled || testing.Short() {
		stride = 29 // the race detector makes it ten times slower
	}
	for _, k := range kinds {
		w := newWorld(t)
		w.begin()
		if k.kind == HadAccess {
			w.witnessed(1, "w1.example", "w2.example")
		}
		if k.less == nil {
			k.less = k.make
		}
		k.less(w)
		data := w.finish()
		if v := verify(t, data); v.Kind != k.kind {
			t.Errorf("%s: it is of the kind %s", k.name, v.Kind)
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
					masks := []byte{1 << (i % 8)}
					if k.kind == NeverAnything {
						masks = []byte{1, 2, 4, 8, 16, 32, 64, 128}
					}
					flipByte(t, data, i, masks)
				}
			})
		}
		wg.Wait()
	}
}

func flipByte(t *testing.T, data []byte, i int, masks []byte) {
	for _, mask := range masks {
		bad := bytes.Clone(data)
		bad[i] ^= mask
		if _, err := Verify(bad, Pins{}); err == nil {
			t.Errorf("byte %d (%q) changed by %#x: accepted", i, data[max(0, i-30):i+1], mask)
		}
	}
	if _, err := Verify(data[:i], Pins{}); err == nil {
		t.Errorf("cut off after %d bytes: accepted", i)
	}
}

// deformed are other spellings of a bundle.
func deformed(data []byte) map[string][]byte {
	return map[string][]byte{
		"another indentation": bytes.Replace(data, []byte("\n  "), []byte("\n\t"), 1),
		"a trailing space":    append(bytes.Clone(data), ' '),
		"another case":        bytes.Replace(data, []byte(`"handle"`), []byte(`"Handle"`), 1),
		"an unknown member":   bytes.Replace(data, []byte(`"handle"`), []byte(`"x": 1, "handle"`), 1),
		"a member twice":      bytes.Replace(data, []byte(`"handle": "alice"`), []byte(`"handle": "alice", "handle": "alice"`), 1),
		"null for a list":     bytes.Replace(data, []byte(`"access": [`), []byte(`"access": null, "x": [`), 1),
		"no line feed":        data[:len(data)-1],
		"nothing":             {},
		"format 1":            bytes.Replace(data, []byte("bundle/2"), []byte("bundle/1"), 1),
	}
}

func TestBundleHasOneForm(t *testing.T) {
	data := story(t).finish()
	bad := deformed(data)
	bad["too much"] = make([]byte, MaxBundle+1)
	for name, bad := range bad {
		if _, err := Verify(bad, Pins{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestPins(t *testing.T) {
	w := story(t)
	data := w.finish()
	if _, err := Verify(bytes.Replace(data, []byte("bundle/2"), []byte("bundle/1"), 1), Pins{}); !chat.Is(err, chat.Incompatible) || !strings.Contains(err.Error(), "made anew") {
		t.Errorf("format 1: %v", err)
	}
	_, other, _ := note.GenerateKey(w.rand, Origin(w.host))
	if _, err := Verify(data, Pins{LedgerVKey: other}); !chat.Is(err, chat.Unproven) {
		t.Errorf("another ledger: %v", err)
	}
	if _, err := Verify(data, Pins{VRFKey: make([]byte, 32)}); !chat.Is(err, chat.Unproven) {
		t.Errorf("another VRF key: %v", err)
	}
}

// broken are bundles that prove nothing, each changed so that only the named check stands in its way. change works on the story's world
// before everything in the bundle is proven anew, after changes what was proven.
var broken = []struct {
	name, want    string
	change, after func(w *world)
}{
	{name: "the last record left out", want: "the 5 records of access are not all", change: func(w *world) { w.bundle.Access = w.bundle.Access[:5] }},
	{name: "the last control record left out", want: "the 1 records of control are not all", change: func(w *world) { w.bundle.Control = w.bundle.Control[:1] }},
	{name: "all records left out", want: "the 0 records of control are not all", change: func(w *world) { w.bundle.Control, w.bundle.Access = nil, nil }},
	{name: "a record left out in the middle", want: "record 2 of access is missing", change: func(w *world) { w.bundle.Access = slices.Delete(w.bundle.Access, 2, 3) }},
	{name: "the first record left out", want: "record 0 of access is missing", change: func(w *world) { w.bundle.Access = w.bundle.Access[1:] }},
	{name: "two records swapped", want: "missing", change: func(w *world) {
		w.bundle.Access[1], w.bundle.Access[2] = w.bundle.Access[2], w.bundle.Access[1]
	}},
	{name: "a record twice", want: "missing", change: func(w *world) { w.bundle.Access = slices.Insert(w.bundle.Access, 1, w.bundle.Access[1]) }},
	{name: "a record altered", want: "does not commit", change: func(w *world) {
		r := w.parse(w.bundle.Access[0])
		r.Payload[len(r.Payload)-1] ^= 1
		w.bundle.Access[0].Record = r.Bytes()
	}},
	{name: "another index", want: "not in the ledger", change: func(w *world) {
		r := w.parse(w.bundle.Access[0])
		r.Index++
		w.bundle.Access[0].Record = r.Bytes()
	}},
	{name: "a record that was never logged", want: "not in the ledger", change: func(w *world) { w.keep(w.next(w.post(1))) }},
	{name: "control records as access", want: "another chain", change: func(w *world) { w.bundle.Access = w.bundle.Control }},
	{name: "another handle", want: "another account's", change: func(w *world) { w.bundle.Handle = "bob" }},
	{name: "another account", want: "another chain|another account's", change: func(w *world) { w.bundle.Account[0] ^= 1 }},
	{name: "another host", want: "another host's", change: func(w *world) { w.bundle.Host = "other.example" }},
	{name: "another server key", want: "does not announce", change: func(w *world) { w.bundle.ServerKey = w.vrfKey.Bytes() }},
	{name: "another partner", want: "another partner's", change: func(w *world) { w.bundle.Partner = "other" }},
	{name: "no key chain", want: "no entries", change: func(w *world) { w.bundle.KeyChain = nil }},
	{name: "no agreement", want: "agreement that it stands on is not in the bundle", change: func(w *world) { w.bundle.Agreements = nil }},
	{name: "an agreement twice", want: "out of order", change: func(w *world) { w.bundle.Agreements = append(w.bundle.Agreements, w.bundle.Agreements[0]) }},
	{name: "a personal leaf as agreement", want: "not an agreement", change: func(w *world) {
		i := w.parse(w.bundle.Access[0]).Index
		w.bundle.Agreements = append(w.bundle.Agreements, BundledLeaf{Leaf: w.leaves[i], Index: i})
	}},
	{name: "another entry as keys", want: "does not announce", change: func(w *world) { w.bundle.Keys = w.bundle.Agreements[0] }},
	{name: "a history in a bundle of keys alone", want: "names no partner's history", change: func(w *world) { w.bundle.Partner = "" }},

	{name: "a stale map", want: "the map is not that of this checkpoint", after: func(w *world) {
		old := int64(len(w.leaves) - 1) // the last root: more is logged, and the checkpoint of that is shown with it
		w.record(w.post(1))
		w.root()
		w.bundle.Access = w.bundle.Access[:6]
		absent := w.bundle.NextAccess // true for the old map
		w.prove()
		w.bundle.Map = BundledLeaf{Leaf: w.leaves[old], Index: old, Proof: JoinHashes(w.inclusion(old))}
		w.bundle.NextAccess = absent
	}},
	{name: "a stale map in the place of the newest", want: "not a map root of all entries before it|not the last entry", after: func(w *world) {
		w.bundle.Map.Leaf = slices.Clone(w.bundle.Map.Leaf)
		leaf := MapRoot{Covers: int64(len(w.leaves) - 2), At: w.now, Public: w.public, Root: w.tree(len(w.labels) - 1).Root()}
		w.bundle.Map.Leaf = leaf.Bytes()
	}},
	{name: "a stale map under the index of the newest", want: "not a map root of all entries before it", after: func(w *world) {
		old := int64(len(w.leaves) - 1)
		w.root()
		w.prove()
		w.bundle.Map.Leaf, w.bundle.Map.Proof = w.leaves[old], JoinHashes(w.inclusion(old))
	}},
	{name: "a last entry that is no map root", want: "not a map root of all entries before it", after: func(w *world) {
		w.record(w.post(1))
		w.prove()
	}},
	{name: "another map root", want: "the map root is not the last entry", after: func(w *world) {
		leaf := MapRoot{Covers: int64(len(w.leaves) - 1), At: w.now, Public: w.public, Root: w.tree(len(w.labels) - 1).Root()}
		w.bundle.Map.Leaf = leaf.Bytes()
	}},
	{name: "an absence whose walk ends at another leaf", want: "are not all", after: func(w *world) {
		w.bundle.Access = w.bundle.Access[:5]
		label := ProveLabel(w.vrf, Place{Account: w.alice, Partner: "flimmer", Chain: Access, N: 5})
		p, err := labelmap.ParseProof(w.mapProof(label.Label, len(w.labels)))
		w.must(err)
		other := w.labels[0]
		forged := labelmap.Proof{Leaf: append(other.Label[:], other.Value[:]...), Bits: p.Bits, Siblings: p.Siblings}
		w.bundle.NextAccess = BundledAbsence{VRFProof: label.Proof[:], Proof: forged.Bytes()}
	}},
	{name: "the absence of another record", want: "are not all", after: func(w *world) {
		w.bundle.Access = w.bundle.Access[:5]
	}},

	{name: "a key chain without its last entry", want: "not the newest", change: func(w *world) {
		w.addDevice()
		w.bundle.KeyChain = w.bundle.KeyChain[:1]
		w.bundle.NewestKey.Index = 2
	}},
	{name: "a key chain that was never logged", want: "not the one in the ledger", change: func(w *world) {
		w.signUp()
		w.bundle.KeyChain = w.people.Entries()
	}},
	{name: "another index of the newest key", want: "not the one in the ledger", change: func(w *world) { w.bundle.NewestKey.Index++ }},

	{name: "the cosignature of a stranger", want: "no witness of the policy", after: func(w *world) {
		w.witness("stranger.example")
		w.bundle.Checkpoint = w.cosign(w.bundle.Checkpoint, "stranger.example", 9)
	}},
	{name: "a quorum that is not reached", want: "has not the cosignatures", change: func(w *world) {
		w.witnessed(2, "w1.example", "w2.example", "w3.example")
	}, after: func(w *world) {
		w.bundle.Checkpoint = w.cosign(string(w.checkpoint(len(w.leaves))), "w2.example", 11)
	}},
	{name: "a cosignature that does not hold", want: "does not hold", change: func(w *world) {
		w.witnessed(1, "w1.example", "w2.example")
	}, after: func(w *world) {
		lines := strings.SplitAfter(w.bundle.Checkpoint, "\n")
		last := lines[len(lines)-2]
		i := strings.LastIndex(last, " ") + 1
		sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(last[i:]))
		w.must(err)
		sig[len(sig)-1] ^= 1
		lines[len(lines)-2] = last[:i] + base64.StdEncoding.EncodeToString(sig) + "\n"
		w.bundle.Checkpoint = strings.Join(lines, "")
	}},
	{name: "cosignatures in another order", want: "one form", change: func(w *world) {
		w.witnessed(1, "w1.example", "w2.example")
	}, after: func(w *world) {
		lines := strings.SplitAfter(w.bundle.Checkpoint, "\n")
		n := len(lines) - 2
		lines[n], lines[n-1] = lines[n-1], lines[n]
		w.bundle.Checkpoint = strings.Join(lines, "")
	}},
	{name: "a checkpoint signed twice by the log", want: "one form", after: func(w *world) {
		c := w.bundle.Checkpoint
		w.bundle.Checkpoint = c + c[strings.Index(c, "\u2014"):]
	}},
	{name: "a policy that the one before did not sign off", want: "policy 1 was not signed off by the one before it", change: func(w *world) {
		w.witnessed(1, "w1.example")
		w.witnessed(1, "w2.example")
		signed := w.bundle.Policies[1].Checkpoint
		w.bundle.Policies[1].Checkpoint = signed[:strings.Index(signed, "\u2014 w1.example")]
	}},
	{name: "a policy that was never logged", want: "policy 0 was not signed off by the one before it: it is not in the ledger", change: func(w *world) {
		w.witnessed(1, "w1.example")
		leaf := Policy{Text: w.policy.String() + "# more\n"}
		w.bundle.Policies[0].Leaf = leaf.Bytes()
	}},
	{name: "the policies left out", want: "no witness of the policy", change: func(w *world) {
		w.witnessed(1, "w1.example")
		w.bundle.Policies = nil
	}},
	{name: "the first policy left out", want: "policy 0 was not signed off|no witness of the policy", change: func(w *world) {
		w.witnessed(1, "w1.example")
		w.witnessed(1, "w2.example")
		w.bundle.Policies = w.bundle.Policies[1:]
	}},
	{name: "a checkpoint older than its policy", want: "older than the policy", change: func(w *world) {
		w.witnessed(1, "w1.example")
	}, after: func(w *world) {
		w.bundle.Checkpoint = w.cosign(string(w.checkpoint(5)), "w1.example", 3)
	}},
}

func (w *world) parse(b BundledRecord) *Record {
	r, err := ParseRecord(b.Record)
	w.must(err)
	return r
}

// addDevice puts a second device into Alice's key chain, and logs it.
func (w *world) addDevice() {
	key, err := keychain.NewDeviceKey(w.rand)
	w.must(err)
	request, err := w.people.Request(chat.DeviceID{7}, "laptop", key)
	w.must(err)
	entry, err := w.people.AddDevice(w.phone, request, time.UnixMilli(w.now))
	w.must(err)
	w.people, err = w.people.Append(entry)
	w.must(err)
	w.bundle.KeyChain = w.people.Entries()
	w.bundle.NewestKey.Index = w.logKey(1)
}

func breakIt(t testing.TB, i int) []byte {
	w := story(t)
	if broken[i].change != nil {
		broken[i].change(w)
	}
	data := w.finish()
	if broken[i].after != nil {
		var err error
		broken[i].after(w)
		data, err = w.bundle.Bytes()
		w.must(err)
	}
	return data
}

func TestBundlesThatDoNotHold(t *testing.T) {
	for i, test := range broken {
		t.Run(test.name, func(t *testing.T) {
			_, err := Verify(breakIt(t, i), Pins{})
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

// controls are control records that no device signed like that.
var controls = []struct {
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
}

func TestControlRecordsThatDoNotHold(t *testing.T) {
	for _, test := range controls {
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

// found is what a lying server or partner would log: the bundle holds, and the verdict names the contradiction.
var found = []struct {
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
}

func TestFindings(t *testing.T) {
	for _, test := range found {
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
	w.erase()
	v := verify(t, w.finish())
	if v.Kind != ErasedUnknown || v.Erased != 8 || len(v.Grants)+len(v.Reads)+len(v.Findings) != 0 || !strings.Contains(v.Text(), "8 records were erased or are withheld") {
		t.Errorf("verdict: %+v", v)
	}
}

// TestServedWithoutExposure: an access is logged, and no exposure that let it happen. That is a contradiction, and no "never read".
func TestServedWithoutExposure(t *testing.T) {
	w := newWorld(t)
	w.begin()
	w.record(w.grant(1, chat.AllActions, 0))
	w.record(w.open(1, 3))
	if v := verify(t, w.finish()); v.Kind != HadAccess || len(v.Findings) != 1 {
		t.Errorf("verdict: %+v", v)
	}
}

// TestPinnedPolicy: who pins a policy accepts its quorum, that of a policy which followed from it, and nothing else.
func TestPinnedPolicy(t *testing.T) {
	w := story(t)
	w.witnessed(1, "w1.example")
	first := w.policy.String()
	w.witnessed(1, "w2.example")
	data := w.finish()
	other := strings.Replace(first, "group g 1 w1.example", "group g all w1.example", 1)
	foreign := strings.Replace(first, w.vkey, w.witnessLog(), 1)
	for _, test := range []struct{ name, policy, want string }{
		{"the one in force", w.policy.String(), ""},
		{"an older one", "# a comment\n" + first, ""},
		{"one that was never in force", other, "was never in force"},
		{"one for another ledger", foreign, "for another ledger"},
		{"garbage", "quorum", "cannot be read"},
	} {
		v, err := Verify(data, Pins{Policy: []byte(test.policy)})
		if test.want == "" {
			if err != nil || !v.PolicyPinned {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		expect(t, err, test.want)
	}
	// A ledger that logged no policy, and a verifier who wants witnesses all the same.
	w.bundle.Policies = nil
	w.prove()
	data, err := w.bundle.Bytes()
	w.must(err)
	if _, err := Verify(data, Pins{Policy: []byte(w.policy.String())}); err != nil {
		t.Error(err)
	}
	_, err = Verify(data, Pins{Policy: []byte(first)})
	expect(t, err, "has not the cosignatures")
}

// witnessLog is the vkey of another log.
func (w *world) witnessLog() string {
	_, vkey, err := note.GenerateKey(w.rand, Origin("other.example"))
	w.must(err)
	return vkey
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
