// Package attacks plays the attackers: a server, a friend and a thief that lie, each against the real code over real sockets. Every test
// asserts that the attack fails and with which words. spec/threats.md lists them; e2e/mutants switches off each defence in turn.
package attacks

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/cmd"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/mimi"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/vault"
)

// friends is Alice and Bob with a private conversation that both have.
func friends(t *testing.T) (*world.World, *world.Person, *world.Person, chat.ConversationID) {
	t.Helper()
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	w.Befriend(alice, bob)
	return w, alice, bob, meet(w, alice, bob, "")
}

// meet makes a conversation of two people, for a partner or none.
func meet(w *world.World, a, b *world.Person, partner string) chat.ConversationID {
	w.T.Helper()
	id, err := a.With(w.Ctx(), b.Self().Handle, partner)
	w.Must(err)
	w.Must(b.Sync(w.Ctx()))
	return id
}

// says sends a text.
func says(w *world.World, p *world.Person, id chat.ConversationID, text string) chat.MessageID {
	w.T.Helper()
	s, err := p.Send(w.Ctx(), id, mimi.Text(text))
	w.Must(err)
	return s.ID
}

// shown is a conversation as its person sees it: "alice: Hello", "alice: (deleted)", "(withheld)", "! alarm". Other events are left out.
func shown(t *testing.T, p *world.Person, id chat.ConversationID) string {
	t.Helper()
	lines, err := p.Lines(id)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range lines {
		switch {
		case l.Kind == "message" && l.Deleted:
			list = append(list, l.From+": (deleted)")
		case l.Kind == "message":
			list = append(list, l.From+": "+l.View.Text)
		case l.Kind == "event" && l.Event == device.EventAlarm:
			list = append(list, "! "+l.Text)
		case l.Kind != "event":
			list = append(list, "("+l.Kind+")")
		}
	}
	return strings.Join(list, " | ")
}

func shows(t *testing.T, p *world.Person, id chat.ConversationID, want ...string) {
	t.Helper()
	if got := shown(t, p, id); got != strings.Join(want, " | ") {
		t.Fatalf("%s sees %q, want %q", p.Self().Handle, got, strings.Join(want, " | "))
	}
}

// answered asserts the kind of a refusal and a part of its sentence.
func answered(t *testing.T, err error, kind chat.Kind, part string) {
	t.Helper()
	if !chat.Is(err, kind) || !strings.Contains(err.Error(), part) {
		t.Fatalf("answered with %v; want %s, %q", err, kind, part)
	}
}

// kept asserts that the device has evidence whose sentence has this part, and returns it.
func kept(t *testing.T, p *world.Person, part string) device.Evidence {
	t.Helper()
	all, err := p.ListEvidence()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if strings.Contains(e.Sentence, part) {
			return e
		}
	}
	t.Fatalf("no evidence says %q; there is %v", part, sentences(all))
	return device.Evidence{}
}

func sentences(all []device.Evidence) (s []string) {
	for _, e := range all {
		s = append(s, e.Sentence)
	}
	return s
}

// stopped asserts that a person's client has stopped a conversation, says why, keeps the evidence and sends nothing there.
func stopped(t *testing.T, w *world.World, p *world.Person, id chat.ConversationID, part string) {
	t.Helper()
	_, err := p.Send(w.Ctx(), id, mimi.Text("is anybody there?"))
	answered(t, err, chat.Tampered, part)
	kept(t, p, part)
	if o := overview(t, p, id); !strings.Contains(o.Problem, part) {
		t.Fatalf("the list of conversations says %q; want %q", o.Problem, part)
	}
}

func overview(t *testing.T, p *world.Person, id chat.ConversationID) device.Overview {
	t.Helper()
	list, err := p.Conversations()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		if o.ID == id {
			return o
		}
	}
	t.Fatalf("%s has no conversation %s", p.Self().Handle, id)
	return device.Overview{}
}

// lies lets a person's server lie from now on.
func lies(p *world.Person, lie func(world.Calls) device.Server) {
	p.Wrap = func(s device.Server) device.Server { return lie(s) }
}

// logLiar shows another log than there is.
type logLiar struct {
	world.Calls
	change func([]api.Entry) []api.Entry
}

func (l logLiar) Log(ctx context.Context, c chat.ConversationID, after uint64, limit, wait int) (api.Page, error) {
	p, err := l.Calls.Log(ctx, c, after, limit, wait)
	if err == nil {
		p.Entries = l.change(p.Entries)
	}
	return p, err
}

// showsLog lets a person's server change what it shows of logs.
func showsLog(p *world.Person, change func([]api.Entry) []api.Entry) {
	lies(p, func(s world.Calls) device.Server { return logLiar{s, change} })
}

// injects lets a person's server show entries that nobody sent, in the conversation of the first.
func injects(p *world.Person, entries ...api.Entry) {
	inventsLog(p, entries[0].Conversation, after(entries))
}

// after answers with what comes after an entry.
func after(entries []api.Entry) func(uint64) []api.Entry {
	return func(n uint64) (list []api.Entry) {
		for _, e := range entries {
			if e.Seq > n {
				list = append(list, e)
			}
		}
		return list
	}
}

// inventsLog lets a person's server make up the log of a conversation.
func inventsLog(p *world.Person, id chat.ConversationID, log func(after uint64) []api.Entry) {
	lies(p, func(s world.Calls) device.Server { return inventedLog{s, id, log} })
}

type inventedLog struct {
	world.Calls
	id  chat.ConversationID
	log func(after uint64) []api.Entry
}

func (l inventedLog) Log(ctx context.Context, c chat.ConversationID, after uint64, limit, wait int) (api.Page, error) {
	if c != l.id {
		return l.Calls.Log(ctx, c, after, limit, wait)
	}
	return api.Page{Entries: l.log(after)}, nil
}

// accountLiar shows other accounts than there are.
type accountLiar struct {
	world.Calls
	change func(*api.Account)
}

func (l accountLiar) AccountByHandle(ctx context.Context, handle string) (api.Account, error) {
	a, err := l.Calls.AccountByHandle(ctx, handle)
	l.change(&a)
	return a, err
}

func (l accountLiar) AccountByID(ctx context.Context, id chat.AccountID) (api.Account, error) {
	a, err := l.Calls.AccountByID(ctx, id)
	l.change(&a)
	return a, err
}

// stolen is a copy of somebody's device folder, opened: what a thief has, and what the owner of a modified client can do.
type stolen struct {
	t      testing.TB
	url    string
	home   string
	vault  *vault.Vault
	state  device.State
	seed   []byte
	key    ed25519.PrivateKey
	handle string
	calls  *httpclient.Device
}

// steal copies a device's folder as it is now.
func steal(t testing.TB, p *world.Person) *stolen {
	t.Helper()
	s := &stolen{t: t, url: p.Self().Server, home: t.TempDir(), handle: p.Self().Handle}
	if err := os.CopyFS(filepath.Join(s.home, "copy"), os.DirFS(p.Home)); err != nil {
		t.Fatal(err)
	}
	s.home = filepath.Join(s.home, "copy")
	for _, f := range []string{"", "key"} { // CopyFS adds the bits that a vault refuses
		mode := os.FileMode(0o600)
		if f == "" {
			mode = 0o700
		}
		if err := os.Chmod(filepath.Join(s.home, f), mode); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if s.vault, err = vault.Open(s.home, vault.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.vault.Close() })
	s.state = cmd.DeviceState(s.vault)
	s.readSelf(p.Self())
	s.calls, err = httpclient.NewDevice(httpclient.Options{BaseURL: s.url, Now: time.Now, Rand: rand.Reader}, s.key,
		api.SignIn{Account: p.Self().Account, Device: p.Self().Device}, "")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// readSelf finds the device's seed: it is the one byte string of 32 in its description of itself that makes the key it signs with.
func (s *stolen) readSelf(who device.Self) {
	var self struct {
		_          struct{} `cbor:",toarray"`
		Version    uint64
		Account    chat.AccountID
		Handle     string
		Device     chat.DeviceID
		Name       string
		Seed       []byte
		ServerURL  string
		Host       string
		ServerKey  []byte
		LedgerVKey string
		VRFKey     []byte
		Instance   uint64
	}
	if err := canon.Unmarshal(s.get("self", "self"), &self); err != nil {
		s.t.Fatal(err)
	}
	if self.Device != who.Device {
		s.t.Fatal("the copy is of another device")
	}
	key, err := keychain.DeviceKeyFromSeed(self.Seed)
	if err != nil {
		s.t.Fatal(err)
	}
	s.seed, s.key = self.Seed, key.Private()
}

func (s *stolen) get(bucket, name string) (data []byte) {
	s.t.Helper()
	err := s.state.View(func(tx device.StateTx) (err error) {
		data, err = tx.Get(bucket, name)
		return err
	})
	if err != nil || data == nil {
		s.t.Fatalf("the stolen folder has no %s: %v", bucket, err)
	}
	return data
}

// group is the device's state of a conversation's secrets.
func (s *stolen) group(id chat.ConversationID) *mls.Group {
	s.t.Helper()
	g, err := mls.UnmarshalGroup(s.get("group", id.String()), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return g
}

// run opens the copy as a device of its own.
func (s *stolen) run() *world.Person {
	s.t.Helper()
	return s.runWith(func(c world.Calls) device.Server { return c })
}

// runWith is run with a server that lies.
func (s *stolen) runWith(lie func(world.Calls) device.Server) *world.Person {
	s.t.Helper()
	c, err := device.Open(device.Config{State: s.state, Dial: func(string, chat.AccountID, chat.DeviceID, ed25519.PrivateKey) (device.Server, error) {
		return lie(s.calls), nil
	}})
	if err != nil {
		s.t.Fatal(err)
	}
	return &world.Person{Client: c, T: s.t, Home: s.home}
}

// sends puts a message into the log as the device, bypassing its client.
func (s *stolen) sends(ctx context.Context, id chat.ConversationID, message []byte) error {
	_, err := s.calls.SendMessage(ctx, id, api.Message{Message: message, DedupKey: newDedupKey()})
	return err
}

// seals encrypts a content as the device.
func seals(t *testing.T, g *mls.Group, c mimi.Content) []byte {
	t.Helper()
	data, err := mimi.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := g.Seal(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newDedupKey() []byte {
	k := make([]byte, 16)
	rand.Read(k)
	return k
}

// serverKeys are the keys of the server itself: the liar is not somebody between, it is the server.
func serverKeys(t *testing.T, w *world.World) *ledger.Keys {
	t.Helper()
	k, err := ledger.LoadKeys(filepath.Join(w.Dir, "server", "keys"), strings.TrimPrefix(w.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// next is the log entry that the liar puts after the last one that a person has, n places on.
func next(t *testing.T, p *world.Person, id chat.ConversationID, n uint64, kind api.EntryKind, body []byte) api.Entry {
	t.Helper()
	c := register(t, p, id)
	return api.Entry{Conversation: id, Seq: c.LastSeq + n, Kind: kind, Epoch: c.Epoch, At: time.Now().UnixMilli(), Body: body}
}

// register is what the honest server says of a conversation.
func register(t *testing.T, p *world.Person, id chat.ConversationID) api.Conversation {
	t.Helper()
	c, err := steal(t, p).calls.GetConversation(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// honestLog is the whole log as it is.
func honestLog(t *testing.T, p *world.Person, id chat.ConversationID) []api.Entry {
	t.Helper()
	page, err := steal(t, p).calls.Log(context.Background(), id, 0, 500, 0)
	if err != nil {
		t.Fatal(err)
	}
	return page.Entries
}

// noClock leaves lifetimes out of account, as devices do with what the server ordered.
var noClock time.Time

func sum(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// inventConversation makes a group of a false founder and adds a person's device to it.
func inventConversation(t *testing.T, w *world.World, p *world.Person, identity string, key keychain.DeviceKey) (*mls.Group, []byte) {
	t.Helper()
	room := chat.NewConversationID()
	g, err := mls.Create(mls.CreateOptions{GroupID: room[:], Identity: []byte(identity), Signer: key.Private(), SupportedExtensions: []uint16{grant.ExtensionType},
		Extensions: roster.Extensions{
			roster.RequiredCapabilities{Extensions: []uint16{grant.ExtensionType}}.Extension(),
			roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: serverKeys(t, w).ServerKey(), Credential: roster.BasicCredential([]byte("mimi://" + p.Self().Host))}),
			{Type: grant.ExtensionType, Data: grant.NewThread(p.Self().Host, "").Marshal()},
		}, Now: time.Now(), Rand: rand.Reader})
	w.Must(err)
	claimer := w.SignUp("claimer")
	w.Befriend(claimer, p)
	claimed, err := steal(t, claimer).calls.ClaimKeyPackages(w.Ctx(), api.ClaimKeyPackages{Account: p.Self().Account})
	w.Must(err)
	pending, err := g.Commit(mls.CommitOptions{Add: [][]byte{claimed.Packages[0].KeyPackage}, Now: time.Now()})
	w.Must(err)
	welcome := pending.Welcome
	g, err = pending.Merge()
	w.Must(err)
	return g, welcome
}

// mailboxLie delivers one Welcome and, in its conversation, a log of the server's own.
func mailboxLie(room chat.ConversationID, welcome []byte, log []api.Entry) func(world.Calls) device.Server {
	delivered := false
	return func(s world.Calls) device.Server { return &mailboxLiar{s, room, welcome, log, &delivered} }
}

type mailboxLiar struct {
	world.Calls
	room      chat.ConversationID
	welcome   []byte
	log       []api.Entry
	delivered *bool
}

func (l *mailboxLiar) Welcomes(context.Context, int) (api.Mailbox, error) {
	if *l.delivered {
		return api.Mailbox{}, nil
	}
	return api.Mailbox{Welcomes: []api.MailboxWelcome{{ID: chat.MessageID(sha256.Sum256(l.welcome)), Conversation: l.room, Welcome: l.welcome}}}, nil
}

func (l *mailboxLiar) DeleteWelcome(context.Context, chat.MessageID) error {
	*l.delivered = true
	return nil
}

func (l *mailboxLiar) Log(ctx context.Context, c chat.ConversationID, after uint64, limit, wait int) (api.Page, error) {
	if c != l.room {
		return l.Calls.Log(ctx, c, after, limit, wait)
	}
	var p api.Page
	for _, e := range l.log {
		if e.Seq > after {
			p.Entries = append(p.Entries, e)
		}
	}
	return p, nil
}
