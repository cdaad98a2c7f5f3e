package proof

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strings"
	"testing"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"golang.org/x/mod/sumdb/note"

	"letterlock/canon"
	"letterlock/chat"
)

// TestKnownAnswers pins the formats: who changes these values changes every ledger.
func TestKnownAnswers(t *testing.T) {
	w := newWorld(t)
	key, err := vrf.NewPrivateKey(append(bytes.Repeat([]byte{7}, 31), 0))
	w.must(err)
	place := Place{Account: chat.AccountID{1, 2, 3}, Partner: "flimmer", Chain: Access, N: 7}
	l := ProveLabel(key, place)
	before := Hash{9}
	payload, err := MarshalPayload(&Delete{Conversation: chat.ConversationID{4}, Grant: chat.GrantID{5}, Message: chat.MessageID{6}, Seq: 300, At: 1_800_000_000_000})
	w.must(err)
	r, err := NewRecord(place, l, payload, &before, bytes.NewReader(bytes.Repeat([]byte{8}, 32)))
	w.must(err)
	for _, test := range []struct{ what, got, want string }{
		{"vrf key", hex.EncodeToString(key.PublicKey().Bytes()), "da235e22282c1fc261861e2684cbaa151fb70a762482d1fc16572839968b193d"},
		{"alpha", hex.EncodeToString(place.alpha()), "6c65747465726c6f636b2f6c6162656c2f76310084500102030000000000000000000000000067666c696d6d65720207"},
		{"label", hex.EncodeToString(l.Label[:]), "77fc20317f3bffab352e8e6c5c89ce2ce2ccc3136d5f3bb4de6317e2eb1f84f4"},
		{"link", hex.EncodeToString(l.Link[:]), "4608df455a3343e64b61438e181034745299ddfab09565a3ca50581e4cb03897"},
		{"payload", hex.EncodeToString(payload), "8613500400000000000000000000000000000050050000000000000000000000000000005820060000000000000000000000000000000000000000000000000000000000000019012c1b000001a3185c5000"},
		{"leaf", hex.EncodeToString(r.Leaf), "850102582077fc20317f3bffab352e8e6c5c89ce2ce2ccc3136d5f3bb4de6317e2eb1f84f45820c6490ad9979c081269413e45efce100669a3788e7926cf60e0626995f2e5a6fe582032c1dee634b24a3ad725ddd56ea2e0e91e7e513c99b7e8a7a8bbb53d184a9fe6"},
		{"leaf hash", hex.EncodeToString(hashOf(r)), "7a469d1bf26310b896f38d48e4e897b1086ca41ddfa557cf38117f57fe0b993e"},
	} {
		if test.got != test.want {
			t.Errorf("%s: %s, want %s", test.what, test.got, test.want)
		}
	}
	// The formulas once more, in the words of spec/ledger.md.
	leaf, err := r.leaf()
	w.must(err)
	prev := sha256.Sum256(slices.Concat([]byte("letterlock/prev/v1\x00"), l.Link[:], before[:]))
	commit := sha256.Sum256(slices.Concat([]byte("letterlock/commit/v1\x00"), bytes.Repeat([]byte{8}, 32), payload))
	if leaf.Prev != prev || leaf.Commit != commit || r.LeafHash() != sha256.Sum256(slices.Concat([]byte{0}, r.Leaf)) {
		t.Error("prev, commit or leaf hash is not what the specification says")
	}
}

func hashOf(r *Record) []byte { h := r.LeafHash(); return h[:] }

func TestRecordsFollow(t *testing.T) {
	w := story(t)
	var chain []*Record
	for _, b := range w.bundle.Access {
		r, err := ParseRecord(b.Record)
		w.must(err)
		chain = append(chain, r)
	}
	var before *Record
	for _, r := range chain {
		w.must(r.Check(w.vrfKey, before))
		before = r
	}
	refuse := func(name string, err error) {
		t.Helper()
		if !chat.Is(err, chat.Unproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	refuse("the record before is missing", chain[2].Check(w.vrfKey, nil))
	refuse("a record between is missing", chain[2].Check(w.vrfKey, chain[0]))
	refuse("the record itself", chain[2].Check(w.vrfKey, chain[2]))
	refuse("a record of the other chain", chain[1].Check(w.vrfKey, &Record{Place: Place{Account: w.alice, Partner: "flimmer", Chain: Control}, Leaf: chain[0].Leaf}))
	changed := *chain[0]
	changed.Leaf = (&Personal{Label: [32]byte{1}}).Bytes()
	refuse("another record before", chain[1].Check(w.vrfKey, &changed))
	leaf, err := chain[0].leaf()
	w.must(err)
	leaf.Label[0] ^= 1
	changed.Leaf = leaf.Bytes()
	refuse("another label", changed.Check(w.vrfKey, nil))
	for name, change := range map[string]func(r *Record){
		"another account": func(r *Record) { r.Account[0] ^= 1 },
		"another partner": func(r *Record) { r.Partner = "tunes" },
		"another number":  func(r *Record) { r.N++ },
		"another salt":    func(r *Record) { r.Salt = bytes.Repeat([]byte{1}, 32) },
		"another proof":   func(r *Record) { r.VRFProof[40] ^= 1 },
	} {
		r := *chain[0]
		change(&r)
		refuse(name, r.CheckAlone(w.vrfKey))
	}
}

// TestErasedRecordsStillCheck: without salt and payload the chain holds, before and after.
func TestErasedRecordsStillCheck(t *testing.T) {
	w := story(t)
	var before *Record
	for i, b := range w.bundle.Access {
		r, err := ParseRecord(b.Record)
		w.must(err)
		if i == 2 {
			r.Erase()
			if r, err = ParseRecord(r.Bytes()); err != nil {
				t.Fatal(err)
			}
			if p, err := r.Says(); p != nil || err != nil || !r.Erased() {
				t.Errorf("an erased record says %v, %v", p, err)
			}
		}
		w.must(r.Check(w.vrfKey, before))
		before = r
	}
}

// TestHalfErased: salt without payload, or payload without salt, is no erasure.
func TestHalfErased(t *testing.T) {
	w := story(t)
	r, err := ParseRecord(w.bundle.Access[0].Record)
	w.must(err)
	salt, payload := *r, *r
	salt.Payload, payload.Salt = nil, nil
	for name, half := range map[string]*Record{"salt alone": &salt, "payload alone": &payload} {
		if _, err := ParseRecord(half.Bytes()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestLeavesTellNothing: personal leaves have one length, and two of one chain share no field.
func TestLeavesTellNothing(t *testing.T) {
	w := story(t)
	seen := map[[32]byte]bool{}
	for _, leaf := range w.leaves {
		l, err := ParseLeaf(leaf)
		w.must(err)
		p, ok := l.(*Personal)
		if !ok {
			continue
		}
		if len(leaf) != PersonalSize {
			t.Errorf("a leaf of %d bytes", len(leaf))
		}
		h := LeafHash(leaf)
		for _, field := range [][32]byte{p.Label, p.Prev, p.Commit, h} {
			if seen[field] {
				t.Error("two leaves share a field")
			}
			seen[field] = true
		}
	}
}

func TestLeavesRefused(t *testing.T) {
	good := (&Personal{}).Bytes()
	typed := func(b byte) []byte { return append([]byte{good[0], 1, b}, good[3:]...) }
	w := newWorld(t)
	foreign := w.keysLeaf()
	foreign.Host = "other.example"
	identity := w.keysLeaf()
	identity.VRFKey = [32]byte{}
	for name, test := range map[string]struct {
		data []byte
		kind chat.Kind
	}{
		"unknown type":    {typed(20), chat.Incompatible},
		"map root":        {(&MapRoot{Covers: 0}).Bytes(), chat.Invalid},
		"more public":     {(&MapRoot{Covers: 1, Public: 2}).Bytes(), chat.Invalid},
		"no version":      {(&Release{Name: "letterlock"}).Bytes(), chat.Invalid},
		"no policy":       {(&Policy{}).Bytes(), chat.Invalid},
		"version 2":       {append([]byte{good[0], 2}, good[2:]...), chat.Incompatible},
		"short":           {good[:len(good)-1], chat.Invalid},
		"long":            {append(bytes.Clone(good), 0), chat.Invalid},
		"empty":           {nil, chat.Invalid},
		"too large":       {make([]byte, MaxLeaf+1), chat.TooLarge},
		"no agreement":    {(&Agreement{}).Bytes(), chat.Invalid},
		"partner":         {(&Report{Partner: "NO"}).Bytes(), chat.Invalid},
		"cause":           {(&PartnerEnd{Partner: "flimmer", Cause: 3}).Bytes(), chat.Incompatible},
		"reason":          {(&PartnerEnd{Partner: "flimmer", Cause: 1, Reason: strings.Repeat("x", 257)}).Bytes(), chat.Invalid},
		"bidi reason":     {(&PartnerEnd{Partner: "flimmer", Cause: 1, Reason: "\u202e"}).Bytes(), chat.Invalid},
		"foreign keys":    {foreign.Bytes(), chat.Invalid},
		"VRF identity":    {identity.Bytes(), chat.Invalid},
		"negative report": {(&Report{Partner: "flimmer", Start: -1}).Bytes(), chat.Invalid},
	} {
		if _, err := ParseLeaf(test.data); !chat.Is(err, test.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestPayloadsRefused(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func() Payload{
		"half an hour":          func() Payload { p := w.open(1, 1); p.Period += 1; return p },
		"no conversation":       func() Payload { p := w.open(1, 1); p.Conversation = chat.ConversationID{}; return p },
		"more than the range":   func() Payload { p := w.closed(1, 1); p.Count = 4; return p },
		"backward range":        func() Payload { p := w.closed(1, 1); p.To = 1; return p },
		"endless range":         func() Payload { p := w.closed(1, 1); p.To = math.MaxUint64; return p },
		"short countersignatur": func() Payload { p := w.closed(1, 1); p.Countersignature = []byte{1}; return p },
		"many labels":           func() Payload { p := w.post(1); p.Labels = make([]string, 17); return p },
		"an empty label":        func() Payload { p := w.post(1); p.Labels = []string{""}; return p },
		"a long label":          func() Payload { p := w.post(1); p.Labels = []string{strings.Repeat("x", 65)}; return p },
		"no granting account":   func() Payload { p := w.exposed(1, 1); p.Granting = chat.AccountID{}; return p },
		"an empty grant":        func() Payload { return &Grant{} },
		"a large grant":         func() Payload { return &Grant{Signed: make([]byte, MaxPayload)} },
	} {
		p := change()
		if _, err := MarshalPayload(p); err == nil {
			t.Errorf("%s: written", name)
		}
		p.setKind()
		if _, err := ParsePayload(canon.MustMarshal(p)); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	// A payload belongs into its chain, and to its partner.
	for name, p := range map[string]Payload{"control in access": w.grant(1, chat.Send, 0), "another partner": func() Payload { p := w.exposed(1, 1); p.Partner = "tunes"; return p }()} {
		payload, err := MarshalPayload(p)
		w.must(err)
		place := Place{Account: w.alice, Partner: "flimmer", Chain: Access}
		if _, err := NewRecord(place, ProveLabel(w.vrf, place), payload, nil, w.rand); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDisclosure(t *testing.T) {
	w := story(t)
	r, err := ParseRecord(w.bundle.Access[2].Record)
	w.must(err)
	d, err := r.Disclose()
	w.must(err)
	leaf, p, err := OpenDisclosure(d)
	if err != nil || leaf != r.LeafHash() || p.Kind() != KindOpen {
		t.Fatal(leaf, p, err)
	}
	if bytes.Contains(d, w.alice[:]) || bytes.Contains(d, r.VRFProof[:]) {
		t.Error("a disclosure names the account or shows the VRF proof")
	}
	for i := range d {
		bad := bytes.Clone(d)
		bad[i] ^= 1
		if other, _, err := OpenDisclosure(bad); err == nil && other == leaf {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
	r.Erase()
	if _, err := r.Disclose(); !chat.Is(err, chat.Gone) {
		t.Errorf("erased: %v", err)
	}
}

func TestPromise(t *testing.T) {
	w := newWorld(t)
	leaf := Hash{1, 2}
	data, err := MakePromise(w.server, w.host, leaf, w.now)
	w.must(err)
	p, err := OpenPromise(data, w.serverKey(), w.host)
	if err != nil || p.Leaf != leaf || p.By != w.now+60_000 {
		t.Fatal(p, err)
	}
	if _, err := OpenPromise(data, w.serverKey(), "other.example"); !chat.Is(err, chat.Invalid) {
		t.Errorf("another host: %v", err)
	}
	if _, err := OpenPromise(data, w.agent.Public().(ed25519.PublicKey), w.host); !chat.Is(err, chat.Unproven) {
		t.Errorf("another key: %v", err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := OpenPromise(bad, w.serverKey(), w.host); err == nil {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
	slow, err := canon.Seal(w.server, domainPromise, &Promise{Version: version, Host: w.host, At: 1, By: 1 + 61_000})
	w.must(err)
	if _, err := OpenPromise(slow, w.serverKey(), w.host); !chat.Is(err, chat.Invalid) {
		t.Errorf("a promise of more than a minute: %v", err)
	}
}

func TestReceipt(t *testing.T) {
	w := newWorld(t)
	agent := w.agent.Public().(ed25519.PublicKey)
	data := w.statement(1, 4).Receipt(w.agent)
	s, sig, err := OpenReceipt(data, agent)
	w.must(err)
	c := s.Close(sig)
	w.must(c.CheckCountersignature(w.host, agent))
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, _, err := OpenReceipt(bad, agent); err == nil {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
	for name, change := range map[string]func(c *Close){
		"more entries":   func(c *Close) { c.To++ },
		"another count":  func(c *Close) { c.Count-- },
		"another epoch":  func(c *Close) { c.Epoch++ },
		"another period": func(c *Close) { c.Period += PeriodLength },
		"another grant":  func(c *Close) { c.Grant[0] ^= 1 },
		"unsigned":       func(c *Close) { c.Countersignature = nil },
	} {
		other := *c
		change(&other)
		if err := other.CheckCountersignature(w.host, agent); !chat.Is(err, chat.Unproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.CheckCountersignature("other.example", agent); err == nil {
		t.Error("another host: accepted")
	}
}

func TestLogFollows(t *testing.T) {
	w := story(t)
	log, err := NewLog(w.vkey)
	w.must(err)
	w.must(log.Advance(w.checkpoint(3), nil))
	if err := log.Advance(w.checkpoint(7), nil); !chat.Is(err, chat.Tampered) {
		t.Errorf("a larger tree without a proof: %v", err)
	}
	p, err := w.ConsistencyProof(t.Context(), 3, 7)
	w.must(err)
	w.must(log.Advance(w.checkpoint(7), p))
	w.must(log.Advance(w.checkpoint(7), nil))

	index, text, err := log.Prove(t.Context(), w, LeafHash(w.leaves[4]), 0)
	if err != nil || index != 4 || log.Checkpoint().Size != int64(len(w.leaves)) {
		t.Fatal(index, err)
	}
	if index, err := log.Included(LeafHash(w.leaves[4]), text); err != nil || index != 4 {
		t.Fatal(index, err)
	}
	if _, err := log.Included(LeafHash(w.leaves[5]), text); !chat.Is(err, chat.Unproven) {
		t.Errorf("another leaf: %v", err)
	}
	w.add((&Report{Partner: "flimmer"}).Bytes())
	later, err := w.InclusionProof(t.Context(), LeafHash(w.leaves[4]), 0)
	w.must(err)
	if _, err := log.Included(LeafHash(w.leaves[4]), later); !chat.Is(err, chat.Unproven) {
		t.Errorf("a proof for a tree that is not remembered: %v", err)
	}
	again, err := OpenLog(w.vkey, log.Checkpoint().Signed)
	w.must(err)
	if again.Checkpoint().Root != log.Checkpoint().Root {
		t.Error("a memory that was kept differs")
	}
	w.must(again.Follow(t.Context(), w))
}

func TestCheckpointsRefused(t *testing.T) {
	w := story(t)
	log, err := NewLog(w.vkey)
	w.must(err)
	sign := func(host string) []byte {
		skey, _, err := note.GenerateKey(w.rand, Origin(host))
		w.must(err)
		signer, err := note.NewSigner(skey)
		w.must(err)
		signed, err := SignCheckpoint(signer, 3, Hash{1})
		w.must(err)
		return signed
	}
	forger, stranger := sign(w.host), sign("other.example")
	for name, signed := range map[string][]byte{"forged": forger, "another log": stranger, "unsigned": []byte("x\n1\nAAAA\n"), "nothing": nil} {
		if err := log.Advance(signed, nil); !chat.Is(err, chat.Unproven) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := log.Advance(make([]byte, MaxCheckpoint+1), nil); !chat.Is(err, chat.TooLarge) {
		t.Errorf("too large: %v", err)
	}
	empty, err := SignCheckpoint(w.log, 0, Hash{})
	w.must(err)
	if err := log.Advance(empty, nil); !chat.Is(err, chat.Invalid) {
		t.Errorf("an empty tree: %v", err)
	}
}

// TestLeavesBeginAlike: whatever its fields are called, a leaf begins with version and type, and comes back as it was.
func TestLeavesBeginAlike(t *testing.T) {
	for _, leaf := range []Leaf{
		&Agreement{Countersigned: []byte{1}}, &Personal{}, &Report{Partner: "flimmer"}, &PartnerEnd{Partner: "flimmer", Cause: CauseEnded},
		&MapRoot{Covers: 1}, &KeyEntry{}, &Release{Name: "letterlock", Version: "v1"}, &Policy{Text: "quorum none"},
	} {
		data := leaf.Bytes()
		if data[1] != version || Type(data[2]) != leaf.Type() {
			t.Errorf("type %d begins with %x", leaf.Type(), data[:3])
		}
		again, err := ParseLeaf(data)
		if err != nil || string(again.Bytes()) != string(data) {
			t.Errorf("type %d: %+v, %v", leaf.Type(), again, err)
		}
	}
}
