package attacks

import (
	"errors"
	"testing"
	"time"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/proof"
)

// TestLedgerIsForkedBetweenTwoPeople: the server shows Bob another ledger than Alice, each consistent in itself. One message gives it away.
func TestLedgerIsForkedBetweenTwoPeople(t *testing.T) {
	for what, c := range map[string]struct {
		more int
		why  proof.Contradiction
	}{
		"larger":           {4, proof.Inconsistent},
		"of the same size": {0, proof.OtherRoot},
	} {
		t.Run(what, func(t *testing.T) {
			w, alice, bob, id := friends(t)
			w.Must(alice.CheckLedger(w.Ctx()))
			other := secondBook(t, w, alice, c.more)
			folder := steal(t, bob)
			w.Must(folder.state.Update(func(tx device.StateTx) error { // Bob's device has seen nothing of the ledger yet
				return errors.Join(tx.Delete("ledger", "checkpoint"), tx.Put("ledger", "checked", canon.MustMarshal(time.Now().UnixMilli())))
			}))
			forked := folder.runWith(func(s world.Calls) device.Server { return ledgerLiar{Calls: s, other: other} })
			w.Must(forked.CheckLedger(w.Ctx()))
			says(w, alice, id, "hello")
			err := forked.Sync(w.Ctx())
			const sentence = "the server shows alice another ledger than you"
			answered(t, err, chat.Tampered, sentence)
			answered(t, err, chat.Tampered, string(c.why))
			var both [][]byte
			w.Must(canon.Unmarshal(kept(t, forked, sentence).Data, &both))
			if len(both) != 2 {
				t.Fatalf("%d checkpoints were kept", len(both))
			}
			file, err := forked.EvidenceFile() // two roots of one size convict the ledger before anybody
			w.Must(err)
			v, err := proof.VerifyEvidence(file, serverKeys(t, w).LedgerVKey())
			w.Must(err)
			if v.Convicted != (c.why == proof.OtherRoot) || len(v.Findings) != 1 {
				t.Fatalf("the file comes to %+v", v)
			}
			shows(t, forked, id, "alice: hello", "! The server shows alice another ledger than you.")
		})
	}
}

// TestLedgerIsKeptFromAFriend: the server shows Bob an old tree of the true ledger. Alice's message tells him of a newer one.
func TestLedgerIsKeptFromAFriend(t *testing.T) {
	w, alice, bob, id := friends(t)
	w.Must(bob.CheckLedger(w.Ctx()))
	old, err := steal(t, bob).calls.Checkpoint(w.Ctx())
	w.Must(err)
	lies(bob, func(s world.Calls) device.Server { return ledgerLiar{s, nil, func() []byte { return old }} })
	w.SignUp("carol") // the ledger grows
	grown(t, w, alice, old)
	says(w, alice, id, "hello")
	answered(t, bob.Sync(w.Ctx()), chat.Tampered, "the server shows alice a newer ledger than you")
	kept(t, bob, "what it added is kept from you")
}

// grown waits until a person's device remembers a larger ledger than that of an old checkpoint.
func grown(t *testing.T, w *world.World, p *world.Person, old []byte) {
	t.Helper()
	size := (&book{t: t, keys: serverKeys(t, w)}).open(old).Size
	for range 100 {
		w.Must(p.CheckLedger(w.Ctx()))
		signed, err := steal(t, p).calls.Checkpoint(w.Ctx())
		w.Must(err)
		if (&book{t: t, keys: serverKeys(t, w)}).open(signed).Size > size {
			w.Must(p.CheckLedger(w.Ctx()))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the ledger does not grow")
}

// TestHonestGossipAccusesNobody: both tell each other what they remember, whoever is ahead.
func TestHonestGossipAccusesNobody(t *testing.T) {
	w, alice, bob, id := friends(t)
	w.Must(alice.CheckLedger(w.Ctx()))
	says(w, alice, id, "one")
	w.Must(bob.Sync(w.Ctx()))
	w.Must(bob.CheckLedger(w.Ctx()))
	says(w, bob, id, "two")
	w.Must(alice.Sync(w.Ctx()))
	shows(t, alice, id, "alice: one", "bob: two")
	for _, p := range []*world.Person{alice, bob} {
		if all, err := p.ListEvidence(); err != nil || len(all) > 0 {
			t.Fatalf("%s accuses: %v %v", p.Self().Handle, sentences(all), err)
		}
	}
}
