package proof

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"testing"
	"time"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
)

// world is a server with a log in memory, Alice with one device, and Flimmer with its agreement. All of it follows from a seed.
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
	hashes []tlog.Hash // stored hashes
	heads  map[Chain]*Record
	bundle *Bundle

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
	w := &world{t: t, rand: &stream{}, host: "chat.example:8080", heads: map[Chain]*Record{}, now: 1_800_000_000_000}
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
	return n
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
}

// finish proves everything in the bundle to the newest checkpoint.
func (w *world) finish() []byte {
	w.t.Helper()
	b := w.bundle
	b.Checkpoint = string(w.checkpoint(len(w.leaves)))
	b.Keys.Proof = w.inclusion(b.Keys.Index)
	for i := range b.Agreements {
		b.Agreements[i].Proof = w.inclusion(b.Agreements[i].Index)
	}
	for _, chain := range [][]BundledRecord{b.Control, b.Access} {
		for i := range chain {
			r, err := ParseRecord(chain[i].Record)
			w.must(err)
			chain[i].Proof = nil
			if r.Index >= 0 && r.Index < int64(len(w.leaves)) {
				chain[i].Proof = w.inclusion(r.Index)
			}
		}
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

// story is a whole history of Alice with Flimmer: grant, post, exposure, reading, revocation.
func story(t testing.TB) *world {
	w := newWorld(t)
	w.begin()
	w.record(w.grant(1, chat.AllActions, 0))
	w.record(w.post(1))
	w.record(w.exposed(1, 3))
	w.record(w.open(1, 3))
	w.record(&Delete{Conversation: w.thread, Grant: chat.GrantID{1}, Message: chat.MessageID{1}, Seq: 5, At: w.now + 2000})
	w.record(w.closed(1, 4))
	w.record(w.revocation(1, 1))
	w.record(w.ended(1, 5))
	return w
}
