package proof

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/labelmap"
)

// world is a server with a log in memory, Alice with one device, and Flimmer with its agreement. All of it follows from a seed.
// TestWriteBundles writes its bundles, good and broken ones, into a folder for other verifiers.
type world struct {
	t    testing.TB
	rand *stream
	host string

	server ed25519.PrivateKey
	log    note.Signer
	vkey   string
	vrf    *vrf.PrivateKey
	vrfKey VRFKey

	leaves [][]byte
	hashes []tlog.Hash      // stored hashes
	labels []labelmap.Entry // what the map holds of leaves
	public uint64           // public entries among leaves

	witnesses map[string]ed25519.PrivateKey // by the name of their key
	policy    *WitnessPolicy                // in force; nil: none
	heads     map[Chain]*Record
	bundle    *Bundle

	alice     chat.AccountID
	phone     keychain.DeviceKey
	phoneID   chat.DeviceID
	people    *keychain.Chain
	flimmer   ed25519.PrivateKey // root key
	agent     ed25519.PrivateKey // key of the grant
	agreement []byte
	thread    chat.ConversationID
	now       int64
}

// stream is a deterministic source of bytes.
type stream struct{ n uint64 }

func (s *stream) Read(p []byte) (int, error) {
	for i := range p {
		s.n++
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], s.n)
		p[i] = sha256Byte(b[:])
	}
	return len(p), nil
}

func sha256Byte(b []byte) byte { h := sha256.Sum256(b); return h[0] }

func newWorld(t testing.TB) *world {
	w := &world{t: t, rand: &stream{}, host: "chat.example:8080", heads: map[Chain]*Record{}, witnesses: map[string]ed25519.PrivateKey{}, now: 1_800_000_000_000}
	w.server, w.flimmer, w.agent = w.key(), w.key(), w.key()
	skey, vkey, err := note.GenerateKey(w.rand, Origin(w.host))
	w.must(err)
	w.vkey = vkey
	w.log, err = note.NewSigner(skey)
	w.must(err)
	scalar := make([]byte, 32)
	io.ReadFull(w.rand, scalar[:31])
	w.vrf, err = vrf.NewPrivateKey(scalar)
	w.must(err)
	w.vrfKey, err = NewVRFKey(w.vrf.PublicKey().Bytes())
	w.must(err)
	io.ReadFull(w.rand, w.alice[:])
	io.ReadFull(w.rand, w.thread[:])
	w.signUp()
	w.agree()
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) key() ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	io.ReadFull(w.rand, seed)
	return ed25519.NewKeyFromSeed(seed)
}

func (w *world) serverKey() ed25519.PublicKey { return w.server.Public().(ed25519.PublicKey) }

// keysLeaf is entry 0.
func (w *world) keysLeaf() *ServerKeys {
	return &ServerKeys{Host: w.host, ServerKey: [32]byte(w.serverKey()), VRFKey: [32]byte(w.vrfKey.Bytes()), LedgerVKey: w.vkey, At: w.now}
}

func (w *world) signUp() {
	var err error
	w.phone, err = keychain.NewDeviceKey(w.rand)
	w.must(err)
	_, recovery, err := keychain.NewRecovery(w.rand)
	w.must(err)
	io.ReadFull(w.rand, w.phoneID[:])
	entry, err := keychain.Create(keychain.Creation{Account: w.alice, Host: w.host, Handle: "alice", Device: w.phoneID,
		Name: "phone", At: time.UnixMilli(w.now)}, w.phone, recovery)
	w.must(err)
	w.people, err = keychain.Open([][]byte{entry})
	w.must(err)
}

func (w *world) agree() {
	a := grant.Agreement{Number: 1, Host: w.host, Partner: "flimmer", Name: "Flimmer", Actions: chat.AllActions, ReportDays: 14,
		PostsPerMinute: 60, NotBefore: w.now - 1000, NotAfter: w.now + 1e10}
	offer, err := a.Offer(w.flimmer)
	w.must(err)
	w.agreement, err = grant.Countersign(offer, w.server)
	w.must(err)
}

// add appends a leaf to the log and returns its index.
func (w *world) add(leaf []byte) int64 {
	n := int64(len(w.leaves))
	hashes, err := tlog.StoredHashes(n, leaf, w)
	w.must(err)
	w.hashes = append(w.hashes, hashes...)
	w.leaves = append(w.leaves, leaf)
	l, err := ParseLeaf(leaf)
	w.must(err)
	if label, ok := MapLabel(l, w.public); ok {
		w.labels = append(w.labels, labelmap.Entry{Label: label, Value: labelmap.Value(LeafHash(leaf), n)})
	}
	if l.Type().Public() {
		w.public++
	}
	return n
}

// root appends a map root, as every batch ends with one.
func (w *world) root() {
	leaf := MapRoot{Covers: int64(len(w.leaves)), At: w.now + 10_000, Public: w.public, Root: w.tree(len(w.labels)).Root()}
	w.add(leaf.Bytes())
}

// buckets are the first n labels of the map.
func (w *world) buckets(n int) map[labelmap.Bucket][]labelmap.Entry {
	m := map[labelmap.Bucket][]labelmap.Entry{}
	for _, e := range w.labels[:n] {
		b := labelmap.BucketOf(e.Label)
		m[b] = append(m[b], e)
		slices.SortFunc(m[b], func(x, y labelmap.Entry) int { return bytes.Compare(x.Label[:], y.Label[:]) })
	}
	return m
}

func (w *world) tree(n int) labelmap.Tree { return labelmap.Tree{}.With(w.buckets(n)) }

// mapProof proves what the map of the first n labels holds under a label.
func (w *world) mapProof(label Hash, n int) []byte {
	buckets := w.buckets(n)
	p, err := w.tree(n).Prove(label, func(b labelmap.Bucket) ([]labelmap.Entry, error) { return buckets[b], nil })
	w.must(err)
	return p.Bytes()
}

// absence says what the map of today holds at a place.
func (w *world) absence(place Labelled) BundledAbsence {
	label := ProveLabel(w.vrf, place)
	return BundledAbsence{VRFProof: label.Proof[:], Proof: w.mapProof(label.Label, len(w.labels))}
}

// witness is the vkey of a witness, which exists from the first call on.
func (w *world) witness(name string) string {
	if w.witnesses[name] == nil {
		w.witnesses[name] = w.key()
	}
	s, err := torchwood.NewCosignatureSigner(name, w.witnesses[name])
	w.must(err)
	return s.Verifier().String()
}

// cosign adds the cosignature of a witness, made so many seconds after now, as its last line.
func (w *world) cosign(checkpoint, name string, after int64) string {
	text, _, _ := strings.Cut(checkpoint, "\n\n")
	at := w.now/1000 + after
	sig := ed25519.Sign(w.witnesses[name], fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s\n", at, text))
	v, err := torchwood.NewCosignatureVerifier(w.witness(name))
	w.must(err)
	data := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(nil, v.KeyHash()), uint64(at))
	return checkpoint + fmt.Sprintf("\u2014 %s %s\n", name, base64.StdEncoding.EncodeToString(append(data, sig...)))
}

// published is the newest checkpoint with the cosignatures of all witnesses of the policy in force.
func (w *world) published() string {
	c := string(w.checkpoint(len(w.leaves)))
	if w.policy == nil {
		return c
	}
	for i, x := range w.policy.Witnesses() {
		c = w.cosign(c, x.KeyName(), int64(10+i))
	}
	one, err := w.policy.Cosigned([]byte(c))
	w.must(err)
	return string(one)
}

// witnessed logs a policy of these witnesses, of which so many must sign, and puts its handoff into the bundle.
func (w *world) witnessed(least int, names ...string) {
	text := "log " + w.vkey + "\n"
	for _, name := range names {
		text += "witness " + name + " " + w.witness(name) + "\n"
	}
	text += fmt.Sprintf("group g %d %s\nquorum g\n", least, strings.Join(names, " "))
	p, err := ParsePolicy([]byte(text))
	w.must(err)
	leaf := Policy{Text: p.String()}
	index := w.add(leaf.Bytes())
	w.root()
	handoff, err := InclusionText(index, plain32(w.inclusion(index)), []byte(w.published()))
	w.must(err)
	w.must(w.bundle.PutPolicy(leaf.Bytes(), handoff))
	w.policy = p
}

// ReadHashes implements tlog.HashReader.
func (w *world) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		list[i] = w.hashes[x]
	}
	return list, nil
}

func (w *world) checkpoint(size int) []byte {
	root, err := tlog.TreeHash(int64(size), w)
	w.must(err)
	signed, err := SignCheckpoint(w.log, int64(size), root)
	w.must(err)
	return signed
}

func (w *world) inclusion(index int64) []tlog.Hash {
	p, err := tlog.ProveRecord(int64(len(w.leaves)), index, w)
	w.must(err)
	return p
}

// Checkpoint, ConsistencyProof and InclusionProof implement Source.
func (w *world) Checkpoint(context.Context) ([]byte, error) { return w.checkpoint(len(w.leaves)), nil }

func (w *world) ConsistencyProof(_ context.Context, from, to int64) ([][32]byte, error) {
	p, err := tlog.ProveTree(to, from, w)
	return plain32(p), err
}

func (w *world) InclusionProof(_ context.Context, leaf [32]byte, _ int) ([]byte, error) {
	for i, l := range w.leaves {
		if LeafHash(l) == leaf {
			return InclusionText(int64(i), plain32(w.inclusion(int64(i))), w.checkpoint(len(w.leaves)))
		}
	}
	return nil, chat.Errorf(chat.NotFound, "no such leaf")
}

func plain32(p []tlog.Hash) [][32]byte {
	list := make([][32]byte, len(p))
	for i, h := range p {
		list[i] = h
	}
	return list
}

// next makes the next record of one of Alice's chains with Flimmer, without adding its leaf.
func (w *world) next(p Payload) *Record {
	w.t.Helper()
	place := Place{Account: w.alice, Partner: "flimmer", Chain: p.Kind().Chain()}
	var before *Hash
	if last := w.heads[place.Chain]; last != nil {
		h := last.LeafHash()
		place.N, before = last.N+1, &h
	}
	payload, err := MarshalPayload(p)
	w.must(err)
	r, err := NewRecord(place, ProveLabel(w.vrf, place), payload, before, w.rand)
	w.must(err)
	return r
}

// record makes the next record and adds its leaf to the log.
func (w *world) record(p Payload) *Record {
	w.t.Helper()
	r := w.next(p)
	r.Index = w.add(r.Leaf)
	w.heads[r.Chain] = r
	w.keep(r)
	return r
}

// keep puts a record into the bundle.
func (w *world) keep(r *Record) {
	entry := BundledRecord{Record: r.Bytes()}
	if r.Chain == Control {
		w.bundle.Control = append(w.bundle.Control, entry)
	} else {
		w.bundle.Access = append(w.bundle.Access, entry)
	}
}

// begin logs keys and agreement, and begins the bundle.
func (w *world) begin() {
	agreement := Agreement{Countersigned: w.agreement}
	w.bundle = &Bundle{Host: w.host, Account: w.alice, Handle: "alice", Partner: "flimmer", LedgerVKey: w.vkey,
		ServerKey: w.serverKey(), VRFKey: w.vrfKey.Bytes(), KeyChain: w.people.Entries()}
	w.bundle.Keys = BundledLeaf{Leaf: w.keysLeaf().Bytes(), Index: w.add(w.keysLeaf().Bytes())}
	w.bundle.Agreements = []BundledLeaf{{Leaf: agreement.Bytes(), Index: w.add(agreement.Bytes())}}
	for n := range w.people.Entries() {
		w.bundle.NewestKey.Index = w.logKey(n)
	}
}

// logKey logs an entry of Alice's key chain.
func (w *world) logKey(n int) int64 {
	leaf := KeyEntry{Label: ProveLabel(w.vrf, KeyPlace{Handle: "alice", N: uint64(n)}).Label, Entry: sha256.Sum256(w.people.Entries()[n])}
	return w.add(leaf.Bytes())
}

// aboutKeys makes the bundle one of keys alone.
func (w *world) aboutKeys() {
	b := w.bundle
	b.Partner, b.Agreements, b.Control, b.Access = "", nil, nil, nil
}

// finish ends the log with a map root, and proves everything in the bundle to the newest checkpoint.
func (w *world) finish() []byte {
	w.t.Helper()
	w.root()
	return w.prove()
}

// prove proves everything in the bundle to the newest checkpoint.
func (w *world) prove() []byte {
	w.t.Helper()
	b := w.bundle
	size := int64(len(w.leaves))
	b.Checkpoint = w.published()
	b.Map = BundledLeaf{Leaf: w.leaves[size-1], Index: size - 1, Proof: JoinHashes(w.inclusion(size - 1))}
	b.Keys.Proof = JoinHashes(w.inclusion(b.Keys.Index))
	for i := range b.Agreements {
		b.Agreements[i].Proof = JoinHashes(w.inclusion(b.Agreements[i].Index))
	}
	for _, chain := range [][]BundledRecord{b.Control, b.Access} {
		for i := range chain {
			r, err := ParseRecord(chain[i].Record)
			w.must(err)
			chain[i].Proof = nil
			if r.Index >= 0 && r.Index < size {
				chain[i].Proof = JoinHashes(w.inclusion(r.Index))
			}
		}
	}
	last := KeyPlace{Handle: b.Handle, N: uint64(max(len(b.KeyChain), 1) - 1)}
	newest := w.absence(last)
	b.NewestKey.VRFProof, b.NewestKey.Proof = newest.VRFProof, newest.Proof
	b.NextKey = w.absence(KeyPlace{Handle: b.Handle, N: last.N + 1})
	b.NextControl, b.NextAccess = BundledAbsence{}, BundledAbsence{}
	if b.Partner != "" {
		place := Place{Account: b.Account, Partner: b.Partner, Chain: Control, N: uint64(len(b.Control))}
		b.NextControl = w.absence(place)
		place.Chain, place.N = Access, uint64(len(b.Access))
		b.NextAccess = w.absence(place)
	}
	data, err := b.Bytes()
	w.must(err)
	return data
}

// grant is a grant that Alice's phone signed, number n of the control chain.
func (w *world) grant(id byte, actions chat.Actions, n uint64) *Grant {
	w.t.Helper()
	g := grant.Grant{ID: chat.GrantID{id}, Account: w.alice, Handle: "alice", Partner: "flimmer", Agreement: grant.AgreementHash(w.agreement),
		Actions: actions, Conversation: w.thread, AgentKey: [32]byte(w.agent.Public().(ed25519.PublicKey)), ChainVersion: 0,
		SlotSigners: [][32]byte{[32]byte(w.phone.Public())}, Issued: w.now, Expiry: w.now + 1e9, Counter: n, Device: w.phoneID}
	signed, err := g.Sign(w.phone.Private())
	w.must(err)
	return &Grant{Signed: signed}
}

func (w *world) revocation(id byte, n uint64) *Revoke {
	w.t.Helper()
	r := grant.Revocation{Grant: chat.GrantID{id}, Account: w.alice, Handle: "alice", Partner: "flimmer", Conversation: w.thread,
		Counter: n, At: w.now + 5000, Device: w.phoneID}
	signed, err := r.Sign(w.phone.Private())
	w.must(err)
	return &Revoke{Signed: signed}
}

func (w *world) exposed(id byte, epoch uint64) *Exposed {
	return &Exposed{Conversation: w.thread, Grant: chat.GrantID{id}, Partner: "flimmer", Epoch: epoch, Granting: w.alice,
		AgentKey: [32]byte(w.agent.Public().(ed25519.PublicKey)), At: w.now + 1000}
}

func (w *world) ended(id byte, epoch uint64) *Ended {
	return &Ended{Conversation: w.thread, Grant: chat.GrantID{id}, Partner: "flimmer", Epoch: epoch, Granting: w.alice, At: w.now + 6000}
}

func (w *world) open(id byte, epoch uint64) *Open {
	return &Open{Conversation: w.thread, Grant: chat.GrantID{id}, Epoch: epoch, Period: Period(w.now), From: 4}
}

func (w *world) statement(id byte, epoch uint64) *Statement {
	return &Statement{Version: version, Host: w.host, Conversation: w.thread, Grant: chat.GrantID{id}, Epoch: epoch, Period: Period(w.now),
		From: 4, To: 6, Count: 3}
}

// closed is a close with the agent's countersignature.
func (w *world) closed(id byte, epoch uint64) *Close {
	w.t.Helper()
	s, sig, err := OpenReceipt(w.statement(id, epoch).Receipt(w.agent), w.agent.Public().(ed25519.PublicKey))
	w.must(err)
	return s.Close(sig)
}

func (w *world) post(id byte) *Post {
	return &Post{Conversation: w.thread, Grant: chat.GrantID{id}, Epoch: 2, Seq: 3, Message: chat.MessageID{1}, Labels: []string{"share button"},
		Post: sha256.Sum256([]byte("post")), At: w.now + 500}
}

// exposedBy is an exposure by a grant of somebody else.
func (w *world) exposedBy(id byte, epoch uint64) *Exposed {
	x := w.exposed(id, epoch)
	x.Granting = chat.AccountID{9}
	return x
}

// story is a whole history of Alice with Flimmer: grant, post, exposure, reading, revocation.
func story(t testing.TB) *world {
	w := newWorld(t)
	w.begin()
	w.story()
	return w
}

func (w *world) story() {
	w.record(w.grant(1, chat.AllActions, 0))
	w.record(w.post(1))
	w.record(w.exposed(1, 3))
	w.record(w.open(1, 3))
	w.record(&Delete{Conversation: w.thread, Grant: chat.GrantID{1}, Message: chat.MessageID{1}, Seq: 5, At: w.now + 2000})
	w.record(w.closed(1, 4))
	w.record(w.revocation(1, 1))
	w.record(w.ended(1, 5))
}
