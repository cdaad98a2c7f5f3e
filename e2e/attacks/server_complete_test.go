package attacks

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// posts lets the server write n access records about Alice, and waits until the ledger holds them.
func (a *app) posts(n int) {
	a.t.Helper()
	a.inLedger(func(tx *store.Tx, l *ledger.Ledger) error {
		for range n {
			if _, err := l.Access(tx, a.alice.Self().Account, "flimmer", aPost()); err != nil {
				return err
			}
		}
		return nil
	})
	calls := steal(a.t, a.alice).calls
	for range 200 {
		list, err := calls.Records(a.w.Ctx(), api.RecordQuery{Partner: "flimmer", Chain: proof.Access.String(), Limit: 100})
		a.w.Must(err)
		if !slices.ContainsFunc(list.Records, func(r api.Record) bool { return len(r.Proof) == 0 }) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Fatal("the ledger does not take the records")
}

func aPost() *proof.Post {
	return &proof.Post{Conversation: chat.NewConversationID(), Grant: chat.NewGrantID(), Epoch: 1, Seq: 1, Message: chat.MessageID{1}, At: time.Now().UnixMilli()}
}

// checks makes the completeness check, which must hold.
func checks(t *testing.T, w *world.World, p *world.Person) *device.Report {
	t.Helper()
	r, err := p.Check(w.Ctx())
	if err != nil || !r.OK {
		t.Fatalf("%s's check: %v %+v", p.Self().Handle, err, r)
	}
	return r
}

// fails asserts that the check fails with this sentence, in its report too, and that the evidence is kept.
func fails(t *testing.T, w *world.World, p *world.Person, part string) {
	t.Helper()
	r, err := p.Check(w.Ctx())
	answered(t, err, chat.Tampered, part)
	if last := r.Lines[len(r.Lines)-1]; r.OK || last.OK || !strings.Contains(last.Sentence, part) {
		t.Fatalf("the report says %+v", r)
	}
	kept(t, p, part)
}

// TestServerLeavesOutTheLastRecord: one that Alice's device has never seen. Without the map nothing would be missing.
func TestServerLeavesOutTheLastRecord(t *testing.T) {
	a := people(t)
	a.posts(2)
	checks(t, a.w, a.alice)
	a.posts(1)
	showsRecords(a.alice, func(list []api.Record) []api.Record { return list[:max(0, len(list)-1)] })
	fails(t, a.w, a.alice, "the server left out record 2 of your access history with Flimmer: the ledger holds it")
	a.alice.Wrap = nil
	if r := checks(t, a.w, a.alice); !strings.Contains(r.Lines[2].Sentence, "3 records with 1 partner") {
		t.Fatalf("the honest report: %+v", r)
	}
}

// TestServerLeavesOutARecordFromTheCheck: one in the middle.
func TestServerLeavesOutARecordFromTheCheck(t *testing.T) {
	a := people(t)
	a.posts(4)
	showsRecords(a.alice, func(list []api.Record) []api.Record {
		if len(list) > 2 {
			list = slices.Delete(list, 1, 2)
		}
		return list
	})
	fails(t, a.w, a.alice, "the server left out record 1 of your history with Flimmer")
}

// endLiar answers for the end of chains with other proofs.
type endLiar struct {
	world.Calls
	change func(*api.CompletenessProof)
}

func (l endLiar) Completeness(ctx context.Context, r api.Completeness) (api.CompletenessProof, error) {
	p, err := l.Calls.Completeness(ctx, r)
	if err == nil {
		l.change(&p)
	}
	return p, err
}

// TestServerForgesTheEndOfAChain: it proves that some other record is not there, or that a label is not there that is not the record's.
func TestServerForgesTheEndOfAChain(t *testing.T) {
	a := people(t)
	checks(t, a.w, a.alice)
	a.posts(1)
	free := func(s world.Calls) api.MapProof { // that of a record far on, which is not there
		p, err := s.Completeness(a.w.Ctx(), api.Completeness{Chains: []api.ChainEnd{{Partner: "flimmer", Chain: "access", Next: 77}}})
		a.w.Must(err)
		return p.Chains[0]
	}
	for what, change := range map[string]func(real *api.MapProof, other api.MapProof){
		"of another record": func(real *api.MapProof, other api.MapProof) { *real = other },
		"of another label":  func(real *api.MapProof, other api.MapProof) { real.Proof = other.Proof },
		"none":              func(real *api.MapProof, _ api.MapProof) { *real = api.MapProof{} },
	} {
		lies(a.alice, func(s world.Calls) device.Server {
			return endLiar{s, func(p *api.CompletenessProof) { change(&p.Chains[1], free(s)) }}
		})
		r, err := a.alice.Check(a.w.Ctx())
		if !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: answered with %v, %+v", what, err, r)
			continue
		}
		answered(t, err, chat.Tampered, "the server does not show that record 0 of your access history with Flimmer is not there")
	}
}

// publicLiar shows other public entries than there are.
type publicLiar struct {
	world.Calls
	change func(from uint64, p *api.PublicEntries)
}

func (l publicLiar) PublicEntries(ctx context.Context, from uint64) (api.PublicEntries, error) {
	p, err := l.Calls.PublicEntries(ctx, from)
	if err == nil {
		l.change(from, &p)
	}
	return p, err
}

// TestServerHidesAPartner: the agreement is in the ledger, and Alice is not told of it.
func TestServerHidesAPartner(t *testing.T) {
	a := people(t)
	a.w.Flimmer(func(o *agent.Options) { o.Partner, o.Name = "tunes", "Tunes" })
	if list, err := a.alice.Partners(a.w.Ctx()); err != nil || len(list) != 2 { // it waits for the ledger
		t.Fatalf("%v %v", list, err)
	}
	for what, c := range map[string]struct {
		change func(from uint64, p *api.PublicEntries)
		part   string
	}{
		"the last":  {func(from uint64, p *api.PublicEntries) { p.Entries = p.Entries[:max(0, 1-int(from))] }, "the server leaves out public entry 1 of the ledger, which says that it has 2"},
		"the first": {func(_ uint64, p *api.PublicEntries) { p.Entries = p.Entries[1:] }, "public entry 0 of the ledger does not hold"},
	} {
		t.Run(what, func(t *testing.T) {
			fresh := steal(t, a.alice)
			lied := fresh.runWith(func(s world.Calls) device.Server { return publicLiar{s, c.change} })
			fails(t, a.w, lied, c.part)
		})
	}
	if r := checks(t, a.w, a.alice); !strings.Contains(r.Lines[1].Sentence, "of 2 in all; 2 partners") {
		t.Fatalf("the honest report: %+v", r)
	}
}

// TestServerShowsAnOldLedgerForADay: a day long, everything that Alice is shown is of one and the same old checkpoint.
func TestServerShowsAnOldLedgerForADay(t *testing.T) {
	a := people(t)
	checks(t, a.w, a.alice)
	old, err := steal(t, a.alice).calls.PublicEntries(a.w.Ctx(), 1)
	a.w.Must(err)
	lies(a.alice, func(s world.Calls) device.Server {
		return publicLiar{s, func(_ uint64, p *api.PublicEntries) { *p = old }}
	})
	a.alice.Later = 50 * time.Minute // no hour yet
	checks(t, a.w, a.alice)
	a.alice.Later = 25 * time.Hour
	_, err = a.alice.Check(a.w.Ctx())
	answered(t, err, chat.Unproven, "the server shows an old ledger: its newest checkpoint is of")
	answered(t, err, chat.Unproven, "25h0m0s ago by this device's clock")
	// Nobody has to ask: the daily check finds it. Conversations go on.
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	answered(t, a.alice.Warning(), chat.Unproven, "the server shows an old ledger")
}

// unlogging is a ledger with the server's keys that never writes: what it records is in no log.
func unlogging(t *testing.T, w *world.World, write func(*store.Tx, *ledger.Ledger) (*proof.Record, error)) (r *proof.Record) {
	t.Helper()
	s, err := sqlite.Open(w.Ctx(), filepath.Join(t.TempDir(), "unlogged.db"))
	w.Must(err)
	defer s.Close()
	l, err := ledger.Open(w.Ctx(), s, serverKeys(t, w), time.Now, rand.Reader)
	w.Must(err)
	w.Must(s.Update(w.Ctx(), func(tx *store.Tx) error { r, err = write(tx, l); return err }))
	return r
}

// impatient does not wait for what will not come.
type impatient struct {
	world.Calls
	put func(api.PutGrant) (api.Record, error)
}

func (l impatient) InclusionProof(ctx context.Context, leaf [32]byte, _ int) ([]byte, error) {
	return l.Calls.InclusionProof(ctx, leaf, 0)
}

func (l impatient) PutGrant(_ context.Context, r api.PutGrant) (api.Record, error) { return l.put(r) }

// TestGrantIsNeverLogged: the server makes a sound record of Alice's grant and keeps it out of the ledger. Nothing is let into the thread.
func TestGrantIsNeverLogged(t *testing.T) {
	a := people(t)
	q := a.flimmer.Asks(agent.Ask{Actions: chat.Send, Pick: true})
	consent, err := a.alice.OpenConsent(a.w.Ctx(), q.URL)
	a.w.Must(err)
	lies(a.alice, func(s world.Calls) device.Server {
		return impatient{s, func(p api.PutGrant) (api.Record, error) {
			r := unlogging(t, a.w, func(tx *store.Tx, l *ledger.Ledger) (*proof.Record, error) {
				return l.Control(tx, a.alice.Self().Account, "flimmer", 0, &proof.Grant{Signed: p.Signed})
			})
			return api.Record{Record: r.Bytes()}, nil
		}}
	})
	_, err = a.alice.Allow(a.w.Ctx(), consent, device.Answer{Friend: "bob"})
	if err == nil || !strings.Contains(err.Error(), "the server has not put your grant into the ledger") {
		t.Fatalf("answered with %v", err)
	}
	if live, err := a.alice.LiveGrants(); err != nil || len(live) > 0 {
		t.Fatalf("the grant lives: %v %v", live, err)
	}
}

// TestRecordIsNeverLogged: a record that Alice is shown, and nobody else ever will be.
func TestRecordIsNeverLogged(t *testing.T) {
	a := people(t)
	r := unlogging(t, a.w, func(tx *store.Tx, l *ledger.Ledger) (*proof.Record, error) {
		return l.Access(tx, a.alice.Self().Account, "flimmer", aPost())
	})
	lies(a.alice, func(s world.Calls) device.Server {
		return endlessLiar{recordLiar{s, func([]api.Record) []api.Record { return []api.Record{{Record: r.Bytes()}} }}}
	})
	a.alice.Later = -10 * time.Minute // it was seen ten minutes ago
	if _, err := a.alice.History(a.w.Ctx(), "flimmer"); err != nil {
		t.Fatal(err)
	}
	a.alice.Later = 0
	fails(t, a.w, a.alice, "the server keeps record 0 of your access history with Flimmer out of the ledger")
}

// endlessLiar does not wait either.
type endlessLiar struct{ recordLiar }

func (l endlessLiar) InclusionProof(ctx context.Context, leaf [32]byte, _ int) ([]byte, error) {
	return l.Calls.InclusionProof(ctx, leaf, 0)
}

// TestKeysAreSwappedForOnePerson: Alice, who has never met Bob, is given keys of the server's under his name. They are in no map.
func TestKeysAreSwappedForOnePerson(t *testing.T) {
	w := world.New(t)
	alice, bob := w.SignUp("alice"), w.SignUp("bob")
	account := chat.NewAccountID()
	_, k, err := keychain.NewRecovery(rand.Reader)
	w.Must(err)
	forged, err := keychain.Create(keychain.Creation{Account: account, Host: bob.Self().Host, Handle: "bob", Device: chat.NewDeviceID(),
		Name: "phone", At: time.Now()}, newKey(t), k)
	w.Must(err)
	for what, change := range map[string]func(*api.Account){
		"with the proofs of Bob's own": func(*api.Account) {},
		"as not logged yet":            func(a *api.Account) { a.Keys.Index, a.Keys.Newest = -1, api.MapProof{} },
	} {
		lies(alice, func(s world.Calls) device.Server {
			return accountLiar{s, func(a *api.Account) {
				if a.Handle == "bob" {
					a.Account, a.Chain = account, [][]byte{forged}
					change(a)
				}
			}}
		})
		const sentence = "bob's keys are shown to you alone: they are not those in the ledger's map, and are not used"
		_, err := alice.AddFriend(w.Ctx(), "bob")
		if !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), sentence) {
			t.Errorf("%s: answered with %v", what, err)
			continue
		}
		kept(t, alice, sentence)
	}
	alice.Wrap = nil
	_, err = alice.AddFriend(w.Ctx(), "bob")
	w.Must(err)
}

// TestKeysAreSwappedForEveryone: the server has Bob's recovery phrase and adds a device of its own to his keys, in the ledger, for everybody
// to see; Bob it shows what was before. His device misses the proof that nothing was added.
func TestKeysAreSwappedForEveryone(t *testing.T) {
	w, alice, bob, id := friends(t)
	w.Recover("bob", bob.Phrase, "mallory")
	w.Must(alice.Sync(w.Ctx())) // Alice believes it, and is told
	if lines := eventsOf(t, alice, id); !strings.Contains(lines, "Bob added a device, “mallory”.") {
		t.Fatalf("Alice sees %q", lines)
	}
	lies(bob, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				a.Chain = a.Chain[:1]
			}
		}}
	})
	fails(t, w, bob, "the server keeps an entry of your own key chain from you: the ledger may hold entry 1, which none of your devices made")

	// It shows the old version with its own proof of what comes next: there is something.
	lies(bob, func(s world.Calls) device.Server {
		return accountLiar{s, func(a *api.Account) {
			if a.Handle == "bob" {
				b := openRunning(t, w)
				defer b.store.Close()
				a.Chain = a.Chain[:1]
				n, err := b.ledger.Newest(w.Ctx(), "bob", 0)
				w.Must(err)
				a.Keys = api.KeyProof{Head: n.Head.Bytes(), Version: 0, Index: n.Index, Newest: api.MapProof{VRFProof: n.This.VRFProof, Proof: n.This.Proof},
					Next: api.MapProof{VRFProof: n.Beyond.VRFProof, Proof: n.Beyond.Proof}}
			}
		}}
	})
	fails(t, w, bob, "the ledger may hold entry 1, which none of your devices made")

	// Shown, the device is named to Bob.
	bob.Wrap = nil
	w.Must(bob.Sync(w.Ctx()))
	if lines := eventsOf(t, bob, id); !strings.Contains(lines, "The device “mallory” was added to your account. If that was not you, remove it now") {
		t.Fatalf("Bob sees %q", lines)
	}
}

// openRunning reads the ledger of the running server.
func openRunning(t *testing.T, w *world.World) *book {
	t.Helper()
	return openBook(t, w, filepath.Join(w.Dir, "server", "letterlock.db"))
}

func eventsOf(t *testing.T, p *world.Person, id chat.ConversationID) string {
	t.Helper()
	lines, err := p.Lines(id)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, l := range lines {
		if l.Kind == "event" {
			list = append(list, l.Text)
		}
	}
	return strings.Join(list, " | ")
}
