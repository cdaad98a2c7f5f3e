package attacks

import (
	"context"
	"slices"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/mimi"
)

// entryKinds are the kinds of a log's entries.
func entryKinds(list []api.Entry) (k []api.EntryKind) {
	for _, e := range list {
		k = append(k, e.Kind)
	}
	return k
}

// ownCountLiar knows of no message of the device.
type ownCountLiar struct{ world.Calls }

func (l ownCountLiar) OwnCount(ctx context.Context, c chat.ConversationID) (api.OwnCount, error) {
	n, err := l.Calls.OwnCount(ctx, c)
	n.Count = 0
	return n, err
}

// TestOldStateCommitsAFreshLeafBeforeItSends: an old copy of the folder is used again. Sealing from it would use keys and nonces twice.
func TestOldStateCommitsAFreshLeafBeforeItSends(t *testing.T) {
	w, alice, bob, id := friends(t)
	old := steal(t, alice)
	says(w, alice, id, "one")
	says(w, alice, id, "two")
	restored := old.run()
	w.Must(restored.Sync(w.Ctx()))
	_, err := restored.Send(w.Ctx(), id, mimi.Text("three"))
	w.Must(err)
	want := []api.EntryKind{api.KindCommit, api.KindMessage, api.KindMessage, api.KindCommit, api.KindMessage}
	if got := entryKinds(honestLog(t, bob, id)); !slices.Equal(got, want) {
		t.Fatalf("the log holds %v, want %v: a commit before the message", got, want)
	}
	w.Must(bob.Sync(w.Ctx()))
	shows(t, bob, id, "alice: one", "alice: two", "alice: three")
}

// TestServerHidesThatAStateIsOld: the server says that it took no message of this device, and shows them in the log all the same. What the
// device finds there of its own is warning enough.
func TestServerHidesThatAStateIsOld(t *testing.T) {
	w, alice, bob, id := friends(t)
	old := steal(t, alice)
	says(w, alice, id, "one")
	restored := old.runWith(func(s world.Calls) device.Server { return ownCountLiar{s} })
	w.Must(restored.Sync(w.Ctx()))
	_, err := restored.Send(w.Ctx(), id, mimi.Text("two"))
	w.Must(err)
	want := []api.EntryKind{api.KindCommit, api.KindMessage, api.KindCommit, api.KindMessage}
	if got := entryKinds(honestLog(t, bob, id)); !slices.Equal(got, want) {
		t.Fatalf("the log holds %v, want %v: a commit before the message", got, want)
	}
}

// TestServerChangesItsKeys: the keys that were pinned at sign-up are the only ones.
func TestServerChangesItsKeys(t *testing.T) {
	w := world.New(t)
	alice := w.SignUp("alice")
	w.Must(alice.CheckServer(w.Ctx()))
	const sentence = "the server shows other keys than when this device signed up"
	for what, change := range map[string]func(*api.Server){
		"server key": func(s *api.Server) { s.ServerKey = newKey(t).Public() },
		"ledger key": func(s *api.Server) { s.LedgerVKey = s.LedgerVKey[:len(s.LedgerVKey)-4] + "AAA=" },
		"VRF key":    func(s *api.Server) { s.VRFKey = make([]byte, 32) },
		"host":       func(s *api.Server) { s.Host = "elsewhere.example" },
	} {
		lies(alice, func(s world.Calls) device.Server { return serverLiar{s, change} })
		err := alice.CheckServer(w.Ctx())
		if !chat.Is(err, chat.Tampered) {
			t.Errorf("%s: answered with %v", what, err)
			continue
		}
		answered(t, err, chat.Tampered, sentence)
	}
	// Nobody has to ask: the first sync of a run does.
	answered(t, alice.Sync(w.Ctx()), chat.Tampered, sentence)
	kept(t, alice, sentence)
	alice.Wrap = nil
	w.Must(alice.Sync(w.Ctx()))
}

type serverLiar struct {
	world.Calls
	change func(*api.Server)
}

func (l serverLiar) Server(ctx context.Context) (api.Server, error) {
	s, err := l.Calls.Server(ctx)
	l.change(&s)
	return s, err
}

// downLiar does not answer for accounts while it is down.
type downLiar struct {
	world.Calls
	down *bool
}

func (l downLiar) AccountByHandle(ctx context.Context, handle string) (api.Account, error) {
	if *l.down {
		return api.Account{}, chat.Errorf(chat.Unavailable, "not now")
	}
	return l.Calls.AccountByHandle(ctx, handle)
}

// TestServerWithholdsAKeyChain: without the key chain of a new leaf the commit that brought it is not taken; with it, all goes on.
func TestServerWithholdsAKeyChain(t *testing.T) {
	w, alice, bob, id := friends(t)
	w.Recover("bob", bob.Phrase, "phone")
	w.Must(bob.Sync(w.Ctx())) // adds the phone
	down := true
	lies(alice, func(s world.Calls) device.Server { return downLiar{s, &down} })
	answered(t, alice.Sync(w.Ctx()), chat.Unavailable, "not now")
	if o := overview(t, alice, id); o.Epoch != 1 {
		t.Fatalf("Alice took the commit: epoch %d", o.Epoch)
	}
	down = false
	w.Must(alice.Sync(w.Ctx()))
	says(w, alice, id, "hello, phone")
	if o := overview(t, alice, id); o.Problem != "" {
		t.Fatalf("the problem stays: %s", o.Problem)
	}
}
