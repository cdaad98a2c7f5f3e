package agent

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/slot"
)

const (
	testHost    = "chat.example"
	testPartner = "flimmer"
)

var testNow = time.UnixMilli(1_800_001_800_000) // half past, so that no hour turns

// ring is a thread of real people with real groups, made in this process: the log that a server would serve is a slice.
type ring struct {
	t         *testing.T
	id        chat.ConversationID
	operator  ed25519.PrivateKey
	root      ed25519.PrivateKey
	agreement []byte
	people    map[string]*person
	log       []api.Entry
	slots     map[uint64]slot.PublicKey
}

type person struct {
	handle  string
	account chat.AccountID
	device  chat.DeviceID
	key     ed25519.PrivateKey
	group   *mls.Group
}

// trust believes that whatever carries the right signatures is logged: the ledger has tests of its own.
func (r *ring) trust() grant.Trust {
	return grant.Trust{Host: testHost, Operator: r.operator.Public().(ed25519.PublicKey),
		AgreementLogged: func(_, _ []byte) error { return nil },
		GrantLogged:     func(*grant.Grant, []byte, []byte, []byte) error { return nil }}
}

func newRing(t *testing.T) *ring {
	r := &ring{t: t, id: chat.NewConversationID(), people: map[string]*person{}, slots: map[uint64]slot.PublicKey{}}
	_, r.operator, _ = ed25519.GenerateKey(rand.Reader)
	_, r.root, _ = ed25519.GenerateKey(rand.Reader)
	a := grant.Agreement{Number: 1, Host: testHost, Partner: testPartner, Name: "Flimmer", Actions: chat.AllActions, PostsPerMinute: 60,
		NotBefore: 1, NotAfter: testNow.AddDate(1, 0, 0).UnixMilli()}
	offer, err := a.Offer(r.root)
	r.no(err)
	r.agreement, err = grant.Countersign(offer, r.operator)
	r.no(err)
	alice := r.person("alice")
	thread := grant.NewThread(testHost, testPartner)
	alice.group, err = mls.Create(mls.CreateOptions{GroupID: r.id[:], Identity: alice.identity(), Signer: alice.key,
		SupportedExtensions: []uint16{grant.ExtensionType}, Now: testNow, Rand: rand.Reader,
		Extensions: roster.Extensions{
			roster.RequiredCapabilities{Extensions: []uint16{grant.ExtensionType}}.Extension(),
			roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: r.trust().Operator, Credential: roster.BasicCredential([]byte("mimi://" + testHost))}),
			{Type: grant.ExtensionType, Data: thread.Marshal()},
		}})
	r.no(err)
	bob := r.person("bob")
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: bob.identity(), Signer: bob.key, SupportedExtensions: []uint16{grant.ExtensionType},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour), Rand: rand.Reader})
	r.no(err)
	welcome := r.commit("alice", mls.CommitOptions{Add: [][]byte{kp.Public}})
	bob.group, err = mls.Join(welcome, kp, mls.JoinOptions{Signer: bob.key})
	r.no(err)
	return r
}

func (r *ring) no(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *ring) person(handle string) *person {
	p := &person{handle: handle, account: chat.NewAccountID(), device: chat.NewDeviceID()}
	_, p.key, _ = ed25519.GenerateKey(rand.Reader)
	r.people[handle] = p
	return p
}

func (p *person) identity() []byte { return []byte(chat.DeviceURI(testHost, p.handle, p.device)) }

func (r *ring) add(kind api.EntryKind, epoch uint64, body []byte) api.Entry {
	e := api.Entry{Conversation: r.id, Seq: uint64(len(r.log)) + 1, Kind: kind, Epoch: epoch, At: testNow.UnixMilli(), Body: body}
	r.log = append(r.log, e)
	return e
}

// commit makes and merges a commit; the other people process it.
func (r *ring) commit(by string, o mls.CommitOptions) (welcome []byte) {
	r.t.Helper()
	p := r.people[by]
	o.Now, o.Rand = testNow, rand.Reader
	pending, err := p.group.Commit(o)
	r.no(err)
	r.add(api.KindCommit, p.group.Epoch(), pending.Commit)
	for handle, q := range r.people {
		if handle == by || q.group == nil {
			continue
		}
		done, err := q.group.Process(pending.Commit, time.Time{})
		r.no(err)
		q.group, err = done.Commit.Merge()
		r.no(err)
	}
	p.group, err = pending.Merge()
	r.no(err)
	_, key, err := deriveSlot(p.group)
	r.no(err)
	r.slots[p.group.Epoch()] = key
	return pending.Welcome
}

// partnerGrant is what an agent holds of a grant of this ring.
type partnerGrant struct {
	held held
	key  grantKey
	kp   *mls.KeyPackage
}

// give makes a grant of a person and commits it to the thread.
func (r *ring) give(by string, actions chat.Actions) (partnerGrant, []byte) {
	r.t.Helper()
	p := r.people[by]
	id := chat.NewGrantID()
	key, err := newKey[grantKey](rand.Reader)
	r.no(err)
	agent, err := newKey[agentKey](rand.Reader)
	r.no(err)
	from, to := testNow.Add(-time.Hour).UnixMilli(), testNow.Add(time.Hour).UnixMilli()
	agentCert, err := grant.Certify(r.root, grant.Cert{Partner: testPartner, Purpose: grant.AgentPurpose, Key: [32]byte(public(agent)), NotBefore: from, NotAfter: to})
	r.no(err)
	grantCert, err := grant.Certify(ed25519.PrivateKey(agent), grant.Cert{Partner: testPartner, Purpose: grant.GrantPurpose, Grant: id, Key: [32]byte(public(key)), NotBefore: from, NotAfter: to})
	r.no(err)
	certs := canon.MustMarshal(grant.Certs{Agent: agentCert, Grant: grantCert})
	g := &grant.Grant{ID: id, Account: p.account, Handle: by, Partner: testPartner, Agreement: grant.AgreementHash(r.agreement), Actions: actions,
		Conversation: r.id, AgentKey: [32]byte(public(key)), Issued: testNow.UnixMilli(), Expiry: testNow.AddDate(0, 1, 0).UnixMilli(), Device: p.device}
	for _, q := range r.people {
		g.SlotSigners = append(g.SlotSigners, [32]byte(q.key.Public().(ed25519.PublicKey)))
	}
	signed, err := g.Sign(p.key)
	r.no(err)
	out := partnerGrant{key: key, held: held{Version: stateVersion, Grant: id, Phase: Live, Seed: seed(key), Signed: signed, Conversation: r.id,
		Handle: by, Actions: actions, Expiry: g.Expiry}}
	thread, err := grant.ThreadOf(p.group.Roster())
	r.no(err)
	o := mls.CommitOptions{AuthenticatedData: grant.Proofs{Grants: []grant.Proof{{Signed: signed, Agreement: r.agreement, Certs: certs}}}.Marshal()}
	x := r.withThread(by, thread.With(g.Entry(signed)))
	o.Extensions = &x
	if actions.Has(chat.Read) {
		out.kp, err = mls.NewKeyPackage(mls.KeyPackageOptions{Identity: []byte(chat.AgentURI(testHost, testPartner, id)), Signer: ed25519.PrivateKey(key),
			SupportedExtensions: []uint16{grant.ExtensionType}, NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(time.Hour), Rand: rand.Reader})
		r.no(err)
		out.held.KeyPackage, err = out.kp.MarshalBinary()
		r.no(err)
		o.Add = [][]byte{out.kp.Public}
	}
	return out, r.commit(by, o)
}

// withThread is the group's extensions with another thread extension.
func (r *ring) withThread(by string, t grant.Thread) roster.Extensions {
	x := slices.Clone(r.people[by].group.Roster().Extensions())
	for i := range x {
		if x[i].Type == grant.ExtensionType {
			x[i].Data = t.Marshal()
		}
	}
	return x
}

// reading makes a reader that has just joined under a grant of a person.
func (r *ring) reading(by string, actions chat.Actions) (partnerGrant, *reader) {
	r.t.Helper()
	g, welcome := r.give(by, actions)
	rd, err := join(r.trust(), g.held, g.key, welcome)
	r.no(err)
	return g, rd
}

func (r *ring) epoch() uint64 { return r.people["alice"].group.Epoch() }

// say sends a person's message and returns its entry and id.
func (r *ring) say(by string, c mimi.Content) (api.Entry, chat.MessageID) {
	r.t.Helper()
	data, err := mimi.Marshal(c)
	r.no(err)
	msg, _, err := r.people[by].group.Seal(data, nil)
	r.no(err)
	return r.add(api.KindMessage, r.epoch(), msg), mimi.ID(chat.AccountURI(testHost, by), chat.ConversationURI(testHost, r.id), data, c.Salt)
}

// post seals a post under a grant; change may spoil its header before it is signed.
func (r *ring) post(g partnerGrant, c mimi.Content, change func(*slot.Header)) (api.Entry, chat.MessageID) {
	r.t.Helper()
	data, err := mimi.Marshal(c)
	r.no(err)
	h := slot.Header{Host: testHost, Conversation: r.id, Epoch: r.epoch(), Grant: g.held.Grant, Counter: 1, At: testNow.UnixMilli(),
		Message: mimi.ID(chat.AgentURI(testHost, testPartner, g.held.Grant), chat.ConversationURI(testHost, r.id), data, c.Salt)}
	if change != nil {
		change(&h)
	}
	body, err := slot.Seal(r.slots[r.epoch()], h, data, ed25519.PrivateKey(g.key))
	r.no(err)
	return r.add(api.KindPost, r.epoch(), body), h.Message
}

func (r *ring) takeBack(g partnerGrant, m chat.MessageID) api.Entry {
	r.t.Helper()
	body, err := slot.SignTakeBack(slot.TakeBack{Host: testHost, Conversation: r.id, Epoch: r.epoch(), Grant: g.held.Grant, Message: m, At: testNow.UnixMilli()}, ed25519.PrivateKey(g.key))
	r.no(err)
	return r.add(api.KindTakeBack, r.epoch(), body)
}

// read lets a reader take entries, and folds what comes of them.
func read(t *testing.T, rd *reader, entries ...api.Entry) {
	t.Helper()
	for _, e := range entries {
		lines, err := rd.take(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			rd.fold(rd.last+1, l)
		}
	}
}

func texts(rd *reader) (out []string) {
	list, _, _ := rd.changed(0, 100)
	for _, m := range list {
		s := m.Sender
		if m.Through != "" {
			s += "/" + m.Through
		}
		if m.Deleted {
			s += " (deleted)"
		} else {
			s += " " + m.Text
		}
		out = append(out, s)
	}
	return out
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func kindIs(t *testing.T, err error, kind chat.Kind) {
	t.Helper()
	if !chat.Is(err, kind) {
		t.Fatalf("got %v, want an error of kind %s", err, kind)
	}
}

// flip changes one bit.
func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}
