package delivery

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/store"
	"letterlock/store/storetest"
)

const host = "chat.example"

// world is a service on a real store, with people whose devices run real MLS.
type world struct {
	*Service
	t      *testing.T
	db     storetest.Open
	people *phonebook
	now    time.Time
}

// phonebook is who has which device.
type phonebook struct {
	mu      sync.Mutex
	devices map[string]*person // by handle and device
}

func (b *phonebook) Device(_ *store.Tx, handle string, d chat.DeviceID) (chat.AccountID, ed25519.PublicKey, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.devices[handle+d.String()]
	if p == nil || p.gone {
		return chat.AccountID{}, nil, chat.Errorf(chat.NotFound, "no such device")
	}
	return p.caller.Account, p.key.Public().(ed25519.PublicKey), nil
}

func (b *phonebook) Account(_ *store.Tx, handle string) (chat.AccountID, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.devices {
		if p.caller.Handle == handle {
			return p.caller.Account, nil
		}
	}
	return chat.AccountID{}, chat.Errorf(chat.NotFound, "no such account")
}

func newWorld(t *testing.T) *world { return worldOn(t, storetest.NewDatabase(t)) }

func worldOn(t *testing.T, db storetest.Open) *world {
	w := &world{t: t, db: db, people: &phonebook{devices: make(map[string]*person)},
		now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	w.open(key)
	t.Cleanup(func() { w.close() })
	return w
}

func (w *world) open(key ed25519.PrivateKey) {
	w.t.Helper()
	w.Service = New(Config{Store: w.db(w.t), People: w.people, Host: host, ServerKey: key, Now: func() time.Time { return w.now },
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// close ends the service and has the store checked: every test ends with that.
func (w *world) close() {
	w.Service.Close()
	report, err := Check(context.Background(), w.Store, nil)
	must(w.t, err)
	for _, p := range report.Problems {
		w.t.Errorf("check: %s", p)
	}
	must(w.t, w.Store.Close())
}

// restart is what a new process finds.
func (w *world) restart() {
	w.close()
	hooks := w.Hooks
	w.open(w.ServerKey)
	w.SetHooks(hooks)
}

// person is one device of somebody.
type person struct {
	caller api.Caller
	key    ed25519.PrivateKey
	group  *mls.Group
	gone   bool // from its key chain
}

func (w *world) person(handle string) *person { return w.device(handle, chat.NewAccountID()) }

func (w *world) device(handle string, a chat.AccountID) *person {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(w.t, err)
	p := &person{caller: api.Caller{Account: a, Handle: handle, Device: chat.NewDeviceID()}, key: key}
	w.people.mu.Lock()
	w.people.devices[handle+p.caller.Device.String()] = p
	w.people.mu.Unlock()
	return p
}

func (p *person) ctx() context.Context { return api.WithCaller(context.Background(), p.caller) }

func (p *person) identity() []byte {
	return []byte(chat.DeviceURI(host, p.caller.Handle, p.caller.Device))
}

func (w *world) extensions(thread grant.Thread) roster.Extensions {
	return roster.Extensions{
		{Type: roster.ExtLetterlock, Data: thread.Marshal()},
		roster.ExternalSendersExtension(roster.ExternalSender{SignatureKey: w.ServerKey.Public().(ed25519.PublicKey),
			Credential: roster.BasicCredential([]byte("mimi://" + host))}),
	}
}

func (w *world) createOptions(p *person, id chat.ConversationID) mls.CreateOptions {
	return mls.CreateOptions{GroupID: id[:], Identity: p.identity(), Signer: p.key, Extensions: w.extensions(grant.NewThread(host, "flimmer")),
		SupportedExtensions: []uint16{roster.ExtLetterlock}, Now: w.now, Rand: rand.Reader}
}

// found makes a conversation with these people, the first of whom founds it.
func (w *world) found(people ...*person) chat.ConversationID {
	w.t.Helper()
	id := chat.NewConversationID()
	founder := people[0]
	var err error
	founder.group, err = mls.Create(w.createOptions(founder, id))
	must(w.t, err)
	info, err := founder.group.GroupInfo()
	must(w.t, err)
	_, err = w.Found(founder.ctx(), api.NewConversation{GroupInfo: info})
	must(w.t, err)
	for _, p := range people[1:] {
		w.add(id, founder, p)
	}
	return id
}

func (w *world) keyPackage(identity []byte, key ed25519.PrivateKey) *mls.KeyPackage {
	w.t.Helper()
	kp, err := mls.NewKeyPackage(mls.KeyPackageOptions{Identity: identity, Signer: key, SupportedExtensions: []uint16{roster.ExtLetterlock},
		NotBefore: w.now.Add(-time.Hour), NotAfter: w.now.Add(24 * time.Hour), Rand: rand.Reader})
	must(w.t, err)
	return kp
}

// add commits a person into a conversation, who joins by the Welcome from the mailbox. Others process nothing.
func (w *world) add(id chat.ConversationID, by, p *person) {
	w.t.Helper()
	kp := w.keyPackage(p.identity(), p.key)
	pending := w.prepare(by, mls.CommitOptions{Add: [][]byte{kp.Public}})
	_, err := w.Commit(by.ctx(), id, api.Commit{Commit: pending.Commit, Welcome: pending.Welcome, DedupKey: newKey()})
	must(w.t, err)
	by.group, err = pending.Merge()
	must(w.t, err)
	box, err := w.Welcomes(p.ctx(), 0)
	must(w.t, err)
	if len(box.Welcomes) != 1 || box.Welcomes[0].Conversation != id {
		w.t.Fatalf("mailbox of %s: %d Welcomes", p.caller.Handle, len(box.Welcomes))
	}
	p.group, err = mls.Join(box.Welcomes[0].Welcome, kp, mls.JoinOptions{Signer: p.key})
	must(w.t, err)
	must(w.t, w.DeleteWelcome(p.ctx(), box.Welcomes[0].ID))
}

func (w *world) prepare(by *person, o mls.CommitOptions) *mls.Pending {
	w.t.Helper()
	o.Now, o.Rand = w.now, rand.Reader
	pending, err := by.group.Commit(o)
	must(w.t, err)
	return pending
}

func (w *world) seal(p *person, text string) []byte {
	w.t.Helper()
	m, _, err := p.group.Seal([]byte(text), nil)
	must(w.t, err)
	return m
}

func newKey() []byte { t := chat.NewToken(); return t[:16] }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks that err is a refusal of the kind.
func refused(t *testing.T, err error, kind chat.Kind, what string) {
	t.Helper()
	if !chat.Is(err, kind) {
		t.Errorf("%s: got %v, want %s", what, err, kind)
	}
}

// whole reads the whole log as a member sees it and checks that it is gapless.
func (w *world) whole(p *person, id chat.ConversationID) []api.Entry {
	w.t.Helper()
	var all []api.Entry
	for {
		page, err := w.Log(p.ctx(), id, uint64(len(all)), 0, 0)
		must(w.t, err)
		if len(page.Entries) == 0 {
			return all
		}
		for _, e := range page.Entries {
			if all = append(all, e); e.Seq != uint64(len(all)) {
				w.t.Fatalf("entry %d has number %d", len(all), e.Seq)
			}
		}
	}
}

// Chain stands for a key chain that shows the device as gone; what it proves is judged by members, not here.
func (b *phonebook) Chain(_ *store.Tx, handle string) ([][]byte, error) {
	return [][]byte{[]byte(handle)}, nil
}
