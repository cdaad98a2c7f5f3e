package grant_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
)

const (
	testHost    = "chat.example:8080"
	testPartner = "flimmer"
)

var (
	testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	nowMS   = testNow.UnixMilli()
)

// key makes the Ed25519 key of a name.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

func public32(k ed25519.PrivateKey) [32]byte { return [32]byte(public(k)) }

// member is a device in the conversation, or an agent.
type member struct {
	account chat.AccountID
	handle  string
	device  chat.DeviceID
	name    []byte // identity
	key     ed25519.PrivateKey
	group   *mls.Group
}

// world is a shared thread for Flimmer with Alice's phone and laptop, and Bob's phone.
type world struct {
	t                            testing.TB
	operator, root, agent        ed25519.PrivateKey // the server's key, Flimmer's root key and its agent key
	agreement                    []byte
	id                           chat.ConversationID
	alicePhone, aliceLaptop, bob *member
	agents                       map[chat.GrantID]*member // by grant
}

func newWorld(t testing.TB) *world { return newWorldOf(t, testPartner) }

// newWorldOf makes a conversation for a partner, or a private one.
func newWorldOf(t testing.TB, partner string) *world {
	w := &world{t: t, operator: key("server"), root: key("flimmer root"), agent: key("flimmer agent"), id: chat.ConversationID{0xc0},
		agents: map[chat.GrantID]*member{}}
	w.agreement = w.agree(nil)
	w.alicePhone = device("alice", 1)
	w.aliceLaptop = device("alice", 2)
	w.bob = device("bob", 1)
	w.alicePhone.group = w.create(w.alicePhone, grant.NewThread(testHost, partner))
	var packages []*mls.KeyPackage
	o := mls.CommitOptions{Now: testNow}
	for _, m := range []*member{w.aliceLaptop, w.bob} {
		packages = append(packages, w.keyPackage(m.name, m.key))
		o.Add = append(o.Add, packages[len(packages)-1].Public)
	}
	p := must(w.alicePhone.group.Commit(o))
	w.aliceLaptop.group = must(mls.Join(p.Welcome, packages[0], mls.JoinOptions{Signer: w.aliceLaptop.key}))
	w.bob.group = must(mls.Join(p.Welcome, packages[1], mls.JoinOptions{Signer: w.bob.key}))
	w.alicePhone.group = must(p.Merge())
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func device(handle string, n byte) *member {
	d := chat.DeviceID{n}
	return &member{account: chat.AccountID([]byte((handle + "                ")[:16])), handle: handle, device: d,
		name: []byte(chat.DeviceURI(testHost, handle, d)), key: key(handle + d.String())}
}

// extensions are the GroupContext's, as devices make them.
func (w *world) extensions(t grant.Thread) roster.Extensions {
	return roster.Extensions{
		roster.RequiredCapabilities{Extensions: []uint16{grant.ExtensionType}}.Extension(),
		w.senders(w.operator),
		{Type: grant.ExtensionType, Data: t.Marshal()},
	}
}

func (w *world) senders(keys ...ed25519.PrivateKey) roster.Extension {
	var list []roster.ExternalSender
	for _, k := range keys {
		list = append(list, roster.ExternalSender{SignatureKey: public(k), Credential: roster.BasicCredential([]byte("mimi://" + testHost))})
	}
	return roster.ExternalSendersExtension(list...)
}

func (w *world) create(m *member, t grant.Thread) *mls.Group {
	w.t.Helper()
	return w.createWith(m, w.extensions(t))
}

func (w *world) createWith(m *member, x roster.Extensions) *mls.Group {
	w.t.Helper()
	g, err := mls.Create(mls.CreateOptions{GroupID: w.id[:], Identity: m.name, Signer: m.key, Extensions: x,
		SupportedExtensions: []uint16{grant.ExtensionType}, Now: testNow})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) keyPackage(identity []byte, signer ed25519.PrivateKey) *mls.KeyPackage {
	w.t.Helper()
	k, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: identity, Signer: signer, SupportedExtensions: []uint16{grant.ExtensionType},
		NotBefore: testNow.Add(-time.Hour), NotAfter: testNow.Add(90 * 24 * time.Hour)})
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// logged is a proof of the test ledger: it holds whatever is shown with it.
func logged(data []byte) []byte {
	h := sha256.Sum256(data)
	return append([]byte("logged "), h[:]...)
}

// trust believes the test ledger.
func (w *world) trust() grant.Trust {
	return grant.Trust{
		Host:     testHost,
		Operator: public(w.operator),
		AgreementLogged: func(agreement, proof []byte) error {
			if !bytes.Equal(proof, logged(agreement)) {
				return chat.Errorf(chat.Unproven, "the ledger does not hold the agreement")
			}
			return nil
		},
		GrantLogged: func(g *grant.Grant, signed, record, proof []byte) error {
			if !bytes.Equal(record, recordOf(g, signed)) || !bytes.Equal(proof, logged(record)) {
				return chat.Errorf(chat.Unproven, "the ledger does not hold the grant")
			}
			return nil
		},
	}
}

// recordOf is the test ledger's record of a grant.
func recordOf(g *grant.Grant, signed []byte) []byte {
	return slices.Concat([]byte("record "), g.Account[:], []byte(g.Partner), signed)
}

func agreementNow() grant.Agreement {
	return grant.Agreement{Number: 1, Host: testHost, Partner: testPartner, Name: "Flimmer", Actions: chat.AllActions, ReportDays: 14, PostsPerMinute: 60,
		LinkBases: []string{"https://flimmer.example/watch"}, Interfaces: []string{"web", "tv"}, Surfaces: []string{"player"}, Variants: []string{"a", "b"},
		NotBefore: nowMS - 1000, NotAfter: nowMS + 1e10}
}

// agree makes the countersigned agreement, spoiled if asked.
func (w *world) agree(spoil func(*grant.Agreement)) []byte {
	a := agreementNow()
	if spoil != nil {
		spoil(&a)
	}
	return must(grant.Countersign(must(a.Offer(w.root)), w.operator))
}

// draft is a grant on its way into the thread. A case spoils one part of it.
type draft struct {
	w         *world
	by        *member            // commits
	key       ed25519.PrivateKey // signs the grant
	grant     grant.Grant
	agreement []byte
	agentCert grant.Cert
	grantCert grant.Cert
	root      ed25519.PrivateKey // signs the agent's certificate
	agent     ed25519.PrivateKey // signs the grant's certificate
	posts     ed25519.PrivateKey // the grant's key

	noProof bool
	noLeaf  bool
	leaf    func() *mls.KeyPackage                       // instead of the agent's own
	entry   func(*grant.Entry)                           // after the grant was signed
	proof   func(*grant.Proof)                           // likewise
	proofs  func(*grant.Proofs)                          // likewise
	thread  func(grant.Thread, grant.Entry) grant.Thread // instead of With
	commit  func(*mls.CommitOptions)                     // at last
	kp      *mls.KeyPackage                              // of the agent, once it was made
}

// draft is a grant of the person who commits it, good in all its parts.
func (w *world) draft(by *member, n byte, actions chat.Actions) *draft {
	id := chat.GrantID{n}
	d := &draft{w: w, by: by, key: by.key, agreement: w.agreement, root: w.root, agent: w.agent, posts: key("grant " + id.String())}
	d.grant = grant.Grant{ID: id, Account: by.account, Handle: by.handle, Partner: testPartner, Agreement: grant.AgreementHash(w.agreement), Actions: actions,
		Conversation: w.id, AgentKey: public32(d.posts), SlotSigners: [][32]byte{public32(by.key)}, Issued: nowMS, Expiry: nowMS + 1e9,
		Counter: uint64(n), Device: by.device}
	d.agentCert = grant.Cert{Partner: testPartner, Purpose: grant.AgentPurpose, Key: public32(w.agent), NotBefore: nowMS - 1000, NotAfter: nowMS + 1e9}
	d.grantCert = grant.Cert{Partner: testPartner, Purpose: grant.GrantPurpose, Grant: id, Key: public32(d.posts), NotBefore: nowMS - 1000, NotAfter: nowMS + 1e9}
	return d
}

// certs is the way from the root key to the grant's key.
func (d *draft) certs() []byte {
	return canon.MustMarshal(grant.Certs{Agent: must(grant.Certify(d.root, d.agentCert)), Grant: must(grant.Certify(d.agent, d.grantCert))})
}

// options are those of the commit that lets the grant in.
func (d *draft) options() mls.CommitOptions {
	signed := must(d.grant.Sign(d.key))
	e := d.grant.Entry(signed)
	if d.entry != nil {
		d.entry(&e)
	}
	record := recordOf(&d.grant, signed)
	p := grant.Proof{Signed: signed, Agreement: d.agreement, AgreementProof: logged(d.agreement), Certs: d.certs(), Record: record, RecordProof: logged(record)}
	if d.proof != nil {
		d.proof(&p)
	}
	list := grant.Proofs{Grants: []grant.Proof{p}}
	if d.noProof {
		list.Grants = nil
	}
	if d.proofs != nil {
		d.proofs(&list)
	}
	thread := d.w.threadOf(d.by)
	if d.thread != nil {
		thread = d.thread(thread, e)
	} else {
		thread = thread.With(e)
	}
	o := mls.CommitOptions{Now: testNow, AuthenticatedData: list.Marshal(), Extensions: d.w.with(d.by, thread)}
	if d.grant.Actions.Has(chat.Read) && !d.noLeaf {
		d.kp = d.w.keyPackage(d.identity(), d.posts)
		if d.leaf != nil {
			d.kp = d.leaf()
		}
		o.Add = [][]byte{d.kp.Public}
	}
	if d.commit != nil {
		d.commit(&o)
	}
	return o
}

func (d *draft) identity() []byte { return []byte(chat.AgentURI(testHost, testPartner, d.grant.ID)) }

func (w *world) threadOf(m *member) grant.Thread {
	return must(grant.ThreadOf(m.group.Roster()))
}

// with is the group's extensions with another thread.
func (w *world) with(m *member, t grant.Thread) *roster.Extensions {
	x := replace(m.group.Roster().Extensions(), roster.Extension{Type: grant.ExtensionType, Data: t.Marshal()})
	return &x
}

// replace puts an extension in the place of the one of its type.
func replace(x roster.Extensions, with roster.Extension) roster.Extensions {
	x = slices.Clone(x)
	for i := range x {
		if x[i].Type == with.Type {
			x[i] = with
		}
	}
	return x
}

// people are the members who are not agents.
func (w *world) people() []*member { return []*member{w.alicePhone, w.aliceLaptop, w.bob} }

// merge makes a commit of a member everybody's.
func (w *world) merge(by *member, o mls.CommitOptions) *mls.Pending {
	w.t.Helper()
	o.Now = testNow
	p, err := by.group.Commit(o)
	if err != nil {
		w.t.Fatal(err)
	}
	members := w.people()
	for _, a := range w.agents {
		members = append(members, a)
	}
	for _, m := range members {
		if m == by || m.group == nil {
			continue
		}
		done, err := m.group.Process(p.Commit, time.Time{})
		if err != nil {
			w.t.Fatal(err)
		}
		m.group = must(done.Commit.Merge())
	}
	by.group = must(p.Merge())
	return p
}

// admit lets a good grant into the thread, with its agent's leaf under read, and returns its entry.
func (w *world) admit(by *member, n byte, actions chat.Actions) grant.Entry {
	w.t.Helper()
	d := w.draft(by, n, actions)
	o := d.options()
	p := w.merge(by, o)
	if d.kp != nil {
		a := &member{handle: "an agent", name: d.identity(), key: d.posts}
		a.group = must(mls.Join(p.Welcome, d.kp, mls.JoinOptions{Signer: a.key}))
		w.agents[d.grant.ID] = a
	}
	e, ok := w.threadOf(by).Find(d.grant.ID)
	if !ok {
		w.t.Fatal("the grant is not in its thread")
	}
	return e
}

func (w *world) leafOf(m *member) uint32 {
	w.t.Helper()
	at, ok := w.alicePhone.group.Roster().MemberByIdentity(m.name)
	if !ok {
		w.t.Fatalf("%s is not a member", m.name)
	}
	return at.Leaf
}

// judge makes a commit and judges it as its maker, and then as the server, which sees public bytes alone. They must agree.
func (w *world) judge(g *mls.Group, o mls.CommitOptions) (*grant.Verdict, error) {
	w.t.Helper()
	o.Now = testNow
	p, err := g.Commit(o)
	if err != nil {
		w.t.Fatal(err)
	}
	defer p.Discard()
	v, err := grant.Judge(p.Change(), w.trust())
	staged, stageErr := g.Roster().Stage(p.Commit, testNow)
	if stageErr != nil {
		w.t.Fatal(stageErr)
	}
	if _, again := grant.Judge(staged, w.trust()); (err == nil) != (again == nil) || err != nil && err.Error() != again.Error() {
		w.t.Fatalf("device and server judge differently: %v; %v", err, again)
	}
	return v, err
}

// refused fails unless err is of the kind and says so.
func refused(t testing.TB, err error, kind chat.Kind, says string) {
	t.Helper()
	switch {
	case err == nil:
		t.Errorf("accepted; want %s: %q", kind, says)
	case chat.KindOf(err) != kind || !strings.Contains(err.Error(), says):
		t.Errorf("refused with %s: %q; want %s: %q", chat.KindOf(err), err, kind, says)
	}
}
