package inbox

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"letterlock/account"
	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/dpop"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/proof"
	"letterlock/report"
	"letterlock/slot"
	"letterlock/store"
	"letterlock/store/storetest"
)

const host = "127.0.0.1:8080"

// world is a server with everything below the HTTP layer, people with real groups, and the partner Flimmer.
type world struct {
	t        *testing.T
	ctx      context.Context
	clock    clock
	store    *store.Store
	keys     *ledger.Keys
	ledger   *ledger.Ledger
	writer   *ledger.Writer
	accounts *account.Service
	delivery *delivery.Service
	oauth    *consents
	reports  *report.Service
	inbox    *Service
}

// clock moves only when it is told to.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ctx: context.Background(), oauth: &consents{open: map[string]api.ConsentRequest{}, ended: map[chat.GrantID]bool{}}}
	w.clock.at = time.UnixMilli(time.Now().UnixMilli() / 3_600_000 * 3_600_000).Add(5 * time.Minute)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	var err error
	w.store = storetest.NewDatabase(t)(t)
	w.keys, err = ledger.NewKeys(host)
	w.must(err)
	w.ledger, err = ledger.Open(w.ctx, w.store, w.keys, w.clock.now, rand.Reader)
	w.must(err)
	w.writer = ledger.NewWriter(w.ledger, log)
	w.accounts = account.New(account.Config{Server: api.Server{Host: host}, Store: w.store, Ledger: w.ledger, Verifier: dpop.NewVerifier(w.clock.now), Now: w.clock.now, Rand: rand.Reader})
	w.delivery = delivery.New(delivery.Config{Store: w.store, People: people{w.accounts}, Host: host, ServerKey: w.keys.Server, Now: w.clock.now, Logger: log})
	t.Cleanup(w.delivery.Close)
	w.reports = &report.Service{Store: w.store, Ledger: w.ledger, PublicURL: "http://" + host, Now: w.clock.now, Rand: rand.Reader}
	w.inbox, err = New(Config{Host: host, Store: w.store, People: w.accounts, Delivery: w.delivery, Ledger: w.ledger, Keys: w.keys, OAuth: w.oauth,
		Reports: w.reports, Now: w.clock.now, Rand: rand.Reader, Logger: log})
	w.must(err)
	w.delivery.SetHooks(w.inbox.Hooks())
	w.accounts.Hooks = account.Hooks{DeviceRemoved: w.inbox.DeviceRemoved, PreferencesChanged: w.inbox.PreferencesChanged, ChainChanged: w.inbox.ChainChanged}
	t.Cleanup(w.checkLedger)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) refused(err error, kind chat.Kind) {
	w.t.Helper()
	if !chat.Is(err, kind) {
		w.t.Fatalf("want a refusal of kind %s, got %v (%s)", kind, err, chat.KindOf(err))
	}
}

// publish appends everything that waits for the log.
func (w *world) publish() {
	w.t.Helper()
	for {
		n, err := w.writer.Step(w.ctx)
		w.must(err)
		if n == 0 {
			return
		}
	}
}

// checkLedger leaves no test without a log whose every record, tile and hash holds.
func (w *world) checkLedger() {
	if w.t.Failed() {
		return
	}
	w.publish()
	if _, err := ledger.Check(w.ctx, w.store, w.keys); err != nil {
		w.t.Errorf("the ledger does not check: %v", err)
	}
}

type people struct{ accounts *account.Service }

func (p people) Account(tx *store.Tx, handle string) (chat.AccountID, error) {
	return tx.AccountOf(handle)
}

func (p people) Device(tx *store.Tx, handle string, d chat.DeviceID) (chat.AccountID, ed25519.PublicKey, error) {
	id, err := tx.AccountOf(handle)
	if err != nil {
		return id, nil, err
	}
	chain, err := p.accounts.Chain(tx, id)
	if err != nil {
		return id, nil, err
	}
	device, ok := chain.Device(d)
	if !ok {
		return id, nil, chat.Errorf(chat.NotFound, "no such device")
	}
	return id, device.Key, nil
}

func (p people) Chain(tx *store.Tx, handle string) ([][]byte, error) {
	id, err := tx.AccountOf(handle)
	if err != nil {
		return nil, err
	}
	chain, err := p.accounts.Chain(tx, id)
	if err != nil {
		return nil, err
	}
	return chain.Entries(), nil
}

// consents stands for package oauth, whose own tests show what it refuses: here it only holds requests. The real one is in http_test.go.
type consents struct {
	mu    sync.Mutex
	open  map[string]api.ConsentRequest
	ended map[chat.GrantID]bool
}

func (c *consents) Consent(_ context.Context, request string) (api.ConsentRequest, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, ok := c.open[request]
	if !ok {
		return r, chat.Errorf(chat.NotFound, "no such request")
	}
	return r, nil
}

func (c *consents) Approve(_ context.Context, request string, g chat.GrantID, _ chat.Actions) (string, error) {
	return "https://flimmer.example/callback?code=" + g.String(), nil
}

func (c *consents) Refuse(context.Context, string) (string, error) {
	return "https://flimmer.example/callback?error=access_denied", nil
}

func (c *consents) EndTokens(_ *store.Tx, g chat.GrantID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[g] = true
	return nil
}

// person is an account with one device and its groups.
type person struct {
	w      *world
	ctx    context.Context // of calls
	handle string
	id     chat.AccountID
	device chat.DeviceID
	key    keychain.DeviceKey
	groups map[chat.ConversationID]*mls.Group
	read   map[chat.ConversationID]uint64
	kp     *mls.KeyPackage
	next   map[string]uint64 // control counter, by partner
}

func (w *world) person(handle string) *person {
	w.t.Helper()
	key, err := keychain.NewDeviceKey(rand.Reader)
	w.must(err)
	_, recovery, err := keychain.NewRecovery(rand.Reader)
	w.must(err)
	p := &person{w: w, handle: handle, id: chat.NewAccountID(), device: chat.NewDeviceID(), key: key, groups: map[chat.ConversationID]*mls.Group{},
		read: map[chat.ConversationID]uint64{}, next: map[string]uint64{}}
	entry, err := keychain.Create(keychain.Creation{Account: p.id, Host: host, Handle: handle, Device: p.device, Name: "laptop", At: w.clock.now()}, key, recovery)
	w.must(err)
	_, err = w.accounts.SignUp(w.ctx, api.SignUp{Entry: entry})
	w.must(err)
	p.ctx = api.WithCaller(w.ctx, api.Caller{Account: p.id, Handle: handle, Device: p.device})
	return p
}

// prefer appends a wish to the person's key chain.
func (p *person) prefer(wish keychain.Preference) {
	p.w.t.Helper()
	entry, err := p.chain().SetPreference(p.key, wish, p.w.clock.now())
	p.w.must(err)
	p.w.must(p.w.accounts.AppendEntry(p.ctx, api.AppendEntry{Entry: entry}))
}

func (p *person) chain() (c *keychain.Chain) {
	p.w.t.Helper()
	p.w.must(p.w.store.View(p.w.ctx, func(tx *store.Tx) (err error) {
		c, err = p.w.accounts.Chain(tx, p.id)
		return err
	}))
	return c
}

func (p *person) identity() []byte { return []byte(chat.DeviceURI(host, p.handle, p.device)) }

// found makes a conversation: private if the partner is empty.
func (p *person) found(partner string) chat.ConversationID {
	p.w.t.Helper()
	id := chat.NewConversationID()
	p.w.must(p.foundWith(id, grant.NewThread(host, partner)))
	return id
}

func (p *person) foundWith(id chat.ConversationID, thread grant.Thread) error {
	p.w.t.Helper()
	g, err := mls.Create(mls.CreateOptions{GroupID: id[:], Identity: p.identity(), Signer: p.key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		Extensions: roster.Extensions{
			roster.RequiredCapabilities{Extensions: []uint16{grant.ExtensionType}}.Extension(),
			roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: p.w.keys.ServerKey(), Credential: roster.BasicCredential([]byte("mimi://" + host))}),
			{Type: grant.ExtensionType, Data: thread.Marshal()},
		}, Now: p.w.clock.now()})
	p.w.must(err)
	info, err := g.GroupInfo()
	p.w.must(err)
	p.groups[id] = g
	_, err = p.w.delivery.Found(p.ctx, api.NewConversation{GroupInfo: info})
	return err
}

func (p *person) keyPackage() []byte {
	p.w.t.Helper()
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: p.identity(), Signer: p.key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		NotBefore: p.w.clock.now().Add(-time.Hour), NotAfter: p.w.clock.now().Add(24 * time.Hour)})
	p.w.must(err)
	p.kp = kp
	return kp.Public
}

// commit is what a person is about to commit. A test may spoil it before send.
type commit struct {
	p       *person
	id      chat.ConversationID
	pending *mls.Pending
	api.Commit
}

// changes is what a commit does.
type changes struct {
	add     [][]byte
	remove  []string // identities
	thread  *grant.Thread
	proofs  grant.Proofs
	control [][]byte
}

func (p *person) prepare(id chat.ConversationID, ch changes) *commit {
	p.w.t.Helper()
	p.sync(id)
	g := p.groups[id]
	o := mls.CommitOptions{Add: ch.add, AuthenticatedData: ch.proofs.Marshal(), Now: p.w.clock.now()}
	for _, identity := range ch.remove {
		m, ok := g.Roster().MemberByIdentity([]byte(identity))
		if !ok {
			p.w.t.Fatalf("%s is not in the group", identity)
		}
		o.Remove = append(o.Remove, m.Leaf)
	}
	if ch.thread != nil {
		var x roster.Extensions
		for _, e := range g.Roster().Extensions() {
			if e.Type == grant.ExtensionType {
				e.Data = ch.thread.Marshal()
			}
			x = append(x, e)
		}
		o.Extensions = &x
	}
	pending, err := g.Commit(o)
	p.w.must(err)
	c := &commit{p: p, id: id, pending: pending}
	dedup := chat.NewToken()
	c.Commit = api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, Revocations: ch.control, DedupKey: dedup[:16]}
	if p.thread(id).Kind == grant.Shared {
		c.Slot = p.announce(id, pending.Next())
	}
	return c
}

func slotKeys(w *world, g *mls.Group) (slot.PrivateKey, slot.PublicKey) {
	w.t.Helper()
	secret, err := g.Export(slot.Label, g.Roster().ConfirmedTranscriptHash(), slot.Length)
	w.must(err)
	sk, pk, err := slot.Derive(secret)
	w.must(err)
	return sk, pk
}

func (p *person) announce(id chat.ConversationID, next *mls.Group) []byte {
	p.w.t.Helper()
	_, pk := slotKeys(p.w, next)
	a, err := slot.Announce(id, next.Epoch(), pk, p.w.clock.now().UnixMilli(), p.key.Private())
	p.w.must(err)
	return a
}

// send hands the commit in and merges it if it was taken.
func (c *commit) send() error {
	if _, err := c.p.w.delivery.Commit(c.p.ctx, c.id, c.Commit); err != nil {
		return err
	}
	g, err := c.pending.Merge()
	c.p.w.must(err)
	c.p.groups[c.id] = g
	page, err := c.p.w.delivery.LogFor(c.p.w.ctx, c.id, c.p.read[c.id], 500)
	c.p.w.must(err)
	c.p.read[c.id] = page.LastSeq
	return nil
}

func (p *person) commit(id chat.ConversationID, ch changes) {
	p.w.t.Helper()
	p.w.must(p.prepare(id, ch).send())
}

// add brings another person in and lets them join.
func (p *person) add(id chat.ConversationID, other *person) {
	p.w.t.Helper()
	p.commit(id, changes{add: [][]byte{other.keyPackage()}})
	other.join(id)
}

func (p *person) join(id chat.ConversationID) {
	p.w.t.Helper()
	box, err := p.w.delivery.Welcomes(p.ctx, 0)
	p.w.must(err)
	i := slices.IndexFunc(box.Welcomes, func(m api.MailboxWelcome) bool { return m.Conversation == id })
	if i < 0 {
		p.w.t.Fatalf("no Welcome waits for %s", p.handle)
	}
	m := box.Welcomes[i]
	g, err := mls.Join(m.Welcome, p.kp, mls.JoinOptions{Signer: p.key.Private()})
	p.w.must(err)
	p.groups[id], p.read[id] = g, m.Seq
}

// sync follows what others committed and proposed.
func (p *person) sync(id chat.ConversationID) {
	p.w.t.Helper()
	page, err := p.w.delivery.LogFor(p.w.ctx, id, p.read[id], 500)
	p.w.must(err)
	for _, e := range page.Entries {
		p.read[id] = e.Seq
		if e.Kind != api.KindCommit && e.Kind != api.KindProposal {
			continue
		}
		done, err := p.groups[id].Process(e.Body, time.Time{})
		p.w.must(err)
		if done.Commit != nil {
			p.groups[id], err = done.Commit.Merge()
			p.w.must(err)
		} else {
			p.groups[id] = done.Group
		}
	}
}

func (p *person) thread(id chat.ConversationID) grant.Thread {
	p.w.t.Helper()
	t, err := grant.ThreadOf(p.groups[id].Roster())
	p.w.must(err)
	return t
}

// say sends a message of the person's own.
func (p *person) say(id chat.ConversationID, text string) error {
	p.sync(id)
	m, _, err := p.groups[id].Seal([]byte(text), nil)
	p.w.must(err)
	dedup := chat.NewToken()
	_, err = p.w.delivery.SendMessage(p.ctx, id, api.Message{Message: m, DedupKey: dedup[:16]})
	return err
}

// app is a partner with its keys.
type app struct {
	w         *world
	id        string
	root, key ed25519.PrivateKey
	agreed    grant.Agreement
	number    uint64
}

func newKey(w *world) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	w.must(err)
	return key
}

// app registers a partner whose agreement allows everything.
func (w *world) app(id string) *app {
	w.t.Helper()
	a := &app{w: w, id: id, root: newKey(w), key: newKey(w)}
	w.must(a.register(nil))
	return a
}

func (a *app) offer(change func(*grant.Agreement)) []byte {
	a.w.t.Helper()
	a.number++
	now := a.w.clock.now().UnixMilli()
	a.agreed = grant.Agreement{Number: a.number, Host: host, Partner: a.id, Name: "Flimmer", Actions: chat.AllActions, ReportDays: 14, PostsPerMinute: 60,
		LinkBases: []string{"https://flimmer.example/films"}, Interfaces: []string{"web", "tv"}, Surfaces: []string{"player"}, Variants: []string{"a", "b"},
		NotBefore: now - 1000, NotAfter: now + 365*24*3600*1000}
	if change != nil {
		change(&a.agreed)
	}
	offer, err := a.agreed.Offer(a.root)
	a.w.must(err)
	return offer
}

func (a *app) registration(offer []byte) api.Registration {
	a.w.t.Helper()
	now := a.w.clock.now().UnixMilli()
	cert, err := grant.Certify(a.root, grant.Cert{Partner: a.id, Purpose: grant.AgentPurpose, Key: pub(a.key), NotBefore: now - 1000, NotAfter: now + 365*24*3600*1000})
	a.w.must(err)
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: a.key.Public(), KeyID: "1", Algorithm: "EdDSA", Use: "sig"}}})
	a.w.must(err)
	return api.Registration{Partner: a.id, Name: "Flimmer", Offer: offer, AgentCert: cert, RedirectURIs: []string{"http://127.0.0.1/callback"}, ClientJWKS: jwks}
}

func (a *app) register(change func(*grant.Agreement)) error {
	a.w.t.Helper()
	_, err := a.w.inbox.PutPartner(a.w.ctx, api.AcceptAgreement{Registration: a.registration(a.offer(change))})
	if err == nil {
		a.w.publish()
	}
	return err
}

func pub(key ed25519.PrivateKey) [32]byte { return [32]byte(key.Public().(ed25519.PublicKey)) }

// agent is the partner's software under one grant.
type agent struct {
	app     *app
	ctx     context.Context
	grant   chat.GrantID
	key     ed25519.PrivateKey
	request string
	kp      *mls.KeyPackage
	certs   []byte
	counter uint64
	signed  []byte
	record  []byte
	thread  chat.ConversationID
}

// ask opens a consent request for a thread.
func (a *app) ask(id chat.ConversationID, actions chat.Actions, change func(*api.ConsentRequest)) *agent {
	w := a.w
	w.t.Helper()
	now := w.clock.now()
	g := &agent{app: a, grant: chat.NewGrantID(), key: newKey(w), thread: id}
	g.ctx = api.WithAgent(w.ctx, api.AgentCaller{Partner: a.id, Grant: g.grant})
	agentCert, err := grant.Certify(a.root, grant.Cert{Partner: a.id, Purpose: grant.AgentPurpose, Key: pub(a.key), NotBefore: now.UnixMilli() - 1000, NotAfter: now.UnixMilli() + 30*24*3600*1000})
	w.must(err)
	grantCert, err := grant.Certify(a.key, grant.Cert{Partner: a.id, Purpose: grant.GrantPurpose, Grant: g.grant, Key: pub(g.key), NotBefore: now.UnixMilli() - 1000, NotAfter: now.UnixMilli() + 30*24*3600*1000})
	w.must(err)
	certs, err := cborCerts(agentCert, grantCert)
	w.must(err)
	g.certs = certs
	r := api.ConsentRequest{ID: "request-" + g.grant.String(), Partner: api.Partner{ID: a.id}, Actions: actions.Names(), Pick: true, Grant: g.grant, Certs: certs,
		ValidUntil: now.Add(24 * time.Hour).UnixMilli(), ExpiresAt: now.Add(10 * time.Minute).UnixMilli()}
	if actions.Has(chat.Read) {
		g.kp, err = mls.NewKeyPackage(mls.KeyPackageOptions{Identity: []byte(chat.AgentURI(host, a.id, g.grant)), Signer: g.key, SupportedExtensions: []uint16{grant.ExtensionType},
			NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour)})
		w.must(err)
		r.KeyPackage = g.kp.Public
	}
	if change != nil {
		change(&r)
	}
	g.request = r.ID
	w.oauth.mu.Lock()
	defer w.oauth.mu.Unlock()
	w.oauth.open[r.ID] = r
	return g
}

// draft is the grant that a person would sign for an agent.
func (p *person) draft(g *agent, actions chat.Actions) *grant.Grant {
	p.w.t.Helper()
	p.sync(g.thread)
	now := p.w.clock.now().UnixMilli()
	partner, err := p.w.inbox.GetAgreement(p.w.ctx, g.app.id)
	p.w.must(err)
	var signers [][32]byte
	for _, m := range p.groups[g.thread].Roster().Members() {
		if id, err := chat.ParseIdentity(m.Identity); err == nil && !id.IsAgent() {
			signers = append(signers, [32]byte(m.SignatureKey))
		}
	}
	return &grant.Grant{ID: g.grant, Account: p.id, Handle: p.handle, Partner: g.app.id, Agreement: grant.AgreementHash(partner.Agreement), Actions: actions,
		Conversation: g.thread, AgentKey: pub(g.key), ChainVersion: p.chain().Version(), SlotSigners: signers, Issued: now, Expiry: now + 3600*1000*12,
		Counter: p.next[g.app.id], Device: p.device}
}

func (p *person) put(g *agent, d *grant.Grant) error {
	p.w.t.Helper()
	signed, err := d.Sign(p.key.Private())
	p.w.must(err)
	rec, err := p.w.inbox.PutGrant(p.ctx, api.PutGrant{Request: g.request, Signed: signed})
	if err != nil {
		return err
	}
	p.next[g.app.id] = d.Counter + 1
	g.signed, g.record = signed, rec.Record
	return nil
}

// proofs gathers what a commit needs that lets the grant in.
func (p *person) proofs(g *agent) grant.Proofs {
	w := p.w
	w.t.Helper()
	w.publish()
	partner, err := w.inbox.GetAgreement(w.ctx, g.app.id)
	w.must(err)
	_, agreementProof, err := w.ledger.Inclusion(w.ctx, proof.Hash(partner.Leaf))
	w.must(err)
	rec, err := proof.ParseRecord(g.record)
	w.must(err)
	_, recordProof, err := w.ledger.Inclusion(w.ctx, rec.LeafHash())
	w.must(err)
	return grant.Proofs{Grants: []grant.Proof{{Signed: g.signed, Agreement: partner.Agreement, AgreementProof: agreementProof, Certs: g.certs, Record: g.record, RecordProof: recordProof}}}
}

// admission is the commit that lets a pending grant into its thread.
func (p *person) admission(g *agent) changes {
	p.w.t.Helper()
	p.sync(g.thread)
	said, err := grant.Peek(g.signed)
	p.w.must(err)
	t := p.thread(g.thread)
	ch := changes{proofs: p.proofs(g)}
	for _, e := range t.Grants {
		if e.Hash == said.Previous {
			t = t.Without(e.Grant)
			if e.Actions.Has(chat.Read) {
				ch.remove = append(ch.remove, chat.AgentURI(host, said.Partner, e.Grant))
			}
		}
	}
	t = t.With(said.Entry(g.signed))
	ch.thread = &t
	if said.Actions.Has(chat.Read) {
		ch.add = [][]byte{g.kp.Public}
	}
	return ch
}

// grants goes the whole way: asked, signed, proven, committed.
func (p *person) grants(a *app, id chat.ConversationID, actions chat.Actions) *agent {
	p.w.t.Helper()
	g := a.ask(id, actions, nil)
	p.w.must(p.put(g, p.draft(g, actions)))
	p.commit(id, p.admission(g))
	return g
}

// revocation is signed for the next place of the control chain.
func (p *person) revocation(g *agent) []byte {
	p.w.t.Helper()
	r := &grant.Revocation{Grant: g.grant, Account: p.id, Handle: p.handle, Partner: g.app.id, Conversation: g.thread, Counter: p.next[g.app.id],
		At: p.w.clock.now().UnixMilli(), Device: p.device}
	signed, err := r.Sign(p.key.Private())
	p.w.must(err)
	p.next[g.app.id]++
	return signed
}

func (p *person) narrowing(g *agent, left chat.Actions) []byte {
	p.w.t.Helper()
	n := &grant.Narrowing{Grant: g.grant, Account: p.id, Handle: p.handle, Partner: g.app.id, Conversation: g.thread, Actions: left, Counter: p.next[g.app.id],
		At: p.w.clock.now().UnixMilli(), Device: p.device}
	signed, err := n.Sign(p.key.Private())
	p.w.must(err)
	p.next[g.app.id]++
	return signed
}

// removal is the commit that takes a grant's entry, and its leaf if it has one, out of the thread.
func (p *person) removal(g *agent, control ...[]byte) changes {
	p.w.t.Helper()
	p.sync(g.thread)
	t := p.thread(g.thread)
	ch := changes{control: control}
	if e, ok := t.Find(g.grant); ok && e.Actions.Has(chat.Read) && !p.proposed(g) {
		ch.remove = []string{chat.AgentURI(host, g.app.id, g.grant)}
	}
	t = t.Without(g.grant)
	ch.thread = &t
	return ch
}

// proposed says whether the server proposed to remove the agent's leaf in this epoch.
func (p *person) proposed(g *agent) bool {
	r := p.groups[g.thread].Roster()
	m, ok := r.MemberByIdentity([]byte(chat.AgentURI(host, g.app.id, g.grant)))
	for _, q := range r.Pending() {
		if ok && q.Proposal.Type == roster.ProposalRemove && q.Proposal.Remove == m.Leaf {
			return true
		}
	}
	return false
}

// letter is a post on its way. A test may spoil its header before send.
type letter struct {
	g   *agent
	key slot.PublicKey
	slot.Header
	idempotency string
}

func (g *agent) letter() *letter {
	g.app.w.t.Helper()
	got, err := g.app.w.inbox.Slot(g.ctx)
	g.app.w.must(err)
	a, err := slot.OpenAnnouncement(got.Slot)
	g.app.w.must(err)
	g.counter++
	return &letter{g: g, key: a.Key, idempotency: chat.NewGrantID().String(), Header: slot.Header{Host: host, Conversation: g.thread, Epoch: got.Epoch, Grant: g.grant,
		Counter: g.counter, Message: chat.MessageID(chat.NewToken()), At: g.app.w.clock.now().UnixMilli()}}
}

func (l *letter) seal(key ed25519.PrivateKey) []byte {
	l.g.app.w.t.Helper()
	post, err := slot.Seal(l.key, l.Header, []byte("Metropolis"), key)
	l.g.app.w.must(err)
	return post
}

func (l *letter) send() (api.Accepted, error) {
	return l.g.app.w.inbox.Post(l.g.ctx, api.InboxPost{Post: l.seal(l.g.key), IdempotencyKey: l.idempotency})
}

// posts sends a letter and returns its message id and place.
func (g *agent) posts() (chat.MessageID, api.Accepted) {
	g.app.w.t.Helper()
	l := g.letter()
	a, err := l.send()
	g.app.w.must(err)
	return l.Message, a
}

func (g *agent) takeBack(m chat.MessageID, key ed25519.PrivateKey, change func(*slot.TakeBack)) (api.Accepted, error) {
	g.app.w.t.Helper()
	conv, err := g.app.w.inbox.Grant(g.ctx)
	if err != nil {
		return api.Accepted{}, err
	}
	t := slot.TakeBack{Host: host, Conversation: g.thread, Epoch: conv.Epoch, Grant: g.grant, Message: m, At: g.app.w.clock.now().UnixMilli()}
	if change != nil {
		change(&t)
	}
	signed, err := slot.SignTakeBack(t, key)
	g.app.w.must(err)
	return g.app.w.inbox.TakeBack(g.ctx, api.InboxTakeBack{TakeBack: signed, IdempotencyKey: chat.NewGrantID().String()})
}

// row reads the grant's row.
func (g *agent) row() (row store.Grant) {
	g.app.w.t.Helper()
	g.app.w.must(g.app.w.store.View(g.app.w.ctx, func(tx *store.Tx) (err error) {
		row, err = tx.Grant(g.grant)
		return err
	}))
	return row
}

// says lists what a person's chain with a partner says.
func (p *person) says(partner string, chain proof.Chain) (list []proof.Payload) {
	p.w.t.Helper()
	got, err := p.w.inbox.Records(p.ctx, api.RecordQuery{Partner: partner, Chain: chain.String(), Limit: 500})
	p.w.must(err)
	for _, r := range got.Records {
		rec, err := proof.ParseRecord(r.Record)
		p.w.must(err)
		said, err := rec.Says()
		p.w.must(err)
		list = append(list, said)
	}
	return list
}

func kinds(list []proof.Payload) (names []string) {
	for _, p := range list {
		names = append(names, p.Kind().String())
	}
	return names
}

func cborCerts(agent, grantCert []byte) ([]byte, error) {
	return canon.Marshal(grant.Certs{Agent: agent, Grant: grantCert})
}

// pair is Alice and Bob in a shared thread of Flimmer's.
func (w *world) pair() (alice, bob *person, flimmer *app, id chat.ConversationID) {
	w.t.Helper()
	alice, bob, flimmer = w.person("alice"), w.person("bob"), w.app("flimmer")
	id = alice.found("flimmer")
	alice.add(id, bob)
	return alice, bob, flimmer, id
}

type (
	ed25519Public  = ed25519.PublicKey
	ed25519Private = ed25519.PrivateKey
)

func errOf[T any](_ T, err error) error { return err }

func (w *world) entry(id chat.ConversationID, seq uint64) (e store.Entry) {
	w.t.Helper()
	w.must(w.store.View(w.ctx, func(tx *store.Tx) (err error) {
		e, err = tx.Entry(id, seq)
		return err
	}))
	return e
}

// leaves are the published log.
func (w *world) leaves() (list []store.LedgerLeaf) {
	w.t.Helper()
	w.must(w.store.View(w.ctx, func(tx *store.Tx) (err error) {
		list, err = tx.LedgerLeaves(0, 1000)
		return err
	}))
	return list
}

func (w *world) judging(r api.ConsentRequest) func(*store.Tx) error {
	return func(tx *store.Tx) error { return w.inbox.JudgeRequest(tx, r) }
}
