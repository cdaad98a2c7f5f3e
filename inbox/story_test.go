package inbox

import (
	"slices"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/proof"
	"letterlock/slot"
)

// TestStory goes the way of the main job on the server: send, read, delete, revoke, with what each leaves on the chains.
func TestStory(t *testing.T) {
	w := newWorld(t)
	alice, bob, flimmer, id := w.pair()

	g := alice.grants(flimmer, id, chat.Send|chat.Delete)
	film, at := g.posts()
	bob.sync(id)
	entry := w.entry(id, at.Seq)
	sk, _ := slotKeys(w, bob.groups[id])
	_, content, err := slot.Open(entry.Body, sk, g.key.Public().(ed25519Public))
	w.must(err)
	if string(content) != "Metropolis" {
		t.Fatalf("Bob reads %q", content)
	}
	w.must(bob.say(id, "seen it"))
	_, err = w.inbox.Changes(g.ctx, "", 0)
	w.refused(err, chat.Forbidden)

	// Alice allows read too: a new grant replaces the old one.
	r := flimmer.ask(id, chat.AllActions, nil)
	d := alice.draft(r, chat.AllActions)
	d.Previous = grant.HashOf(g.signed)
	w.must(alice.put(r, d))
	alice.commit(id, alice.admission(r))
	bob.sync(id)
	if row := g.row(); row.State != "ended" || row.Reason != endedReplaced || !w.oauth.ended[g.grant] {
		t.Fatalf("the replaced grant is %s: %s", row.State, row.Reason)
	}
	if got := kinds(bob.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed"}) {
		t.Fatalf("Bob's chain says %v", got)
	}

	// The agent joins and reads what comes after.
	welcome, err := w.inbox.Welcome(r.ctx)
	w.must(err)
	group, err := mls.Join(welcome.Welcome, r.kp, mls.JoinOptions{Signer: r.key})
	w.must(err)
	w.must(bob.say(id, "wonderful"))
	got, err := w.inbox.Changes(r.ctx, "", 0)
	w.must(err)
	if len(got.Entries) != 1 || len(got.Opens) != 2 || len(got.Promises) != 2 {
		t.Fatalf("served %d entries with %d opens and %d promises", len(got.Entries), len(got.Opens), len(got.Promises))
	}
	read, err := group.Open(got.Entries[0].Body)
	w.must(err)
	if string(read.Plaintext) != "wonderful" {
		t.Fatalf("the agent reads %q", read.Plaintext)
	}
	w.publish()
	for i := range got.Promises {
		leaf, said, err := proof.OpenDisclosure(got.Opens[i])
		w.must(err)
		p, err := proof.OpenPromise(got.Promises[i], w.keys.ServerKey(), host)
		w.must(err)
		if o, ok := said.(*proof.Open); !ok || o.Grant != r.grant || p.Leaf != leaf {
			t.Fatal("promise and open do not belong together")
		}
		if _, _, err := w.ledger.Inclusion(w.ctx, leaf); err != nil {
			t.Fatal("the promise was broken")
		}
	}

	// It deletes the film that the old grant sent: same partner, same person.
	if _, err := r.takeBack(film, r.key, nil); err != nil {
		t.Fatal(err)
	}
	if e := w.entry(id, at.Seq); !e.Tombstone {
		t.Fatal("the post still stands")
	}

	// Alice revokes: one bundle.
	w.clock.pass(time.Minute)
	alice.commit(id, alice.removal(r, alice.revocation(r)))
	for what, err := range map[string]error{
		"changes": errOf(w.inbox.Changes(r.ctx, got.State, 0)), "welcome": errOf(w.inbox.Welcome(r.ctx)), "slot": errOf(w.inbox.Slot(r.ctx)),
		"link": errOf(w.inbox.Link(r.ctx, api.InboxLink{Base: "https://flimmer.example/films"})), "figures": w.inbox.PutFigures(r.ctx, api.InboxFigures{}),
	} {
		if !chat.Is(err, chat.Forbidden) {
			t.Errorf("%s after the revocation: %v", what, err)
		}
	}
	if !w.oauth.ended[r.grant] {
		t.Error("the tokens did not end")
	}

	// The agent's last receipt needs no token.
	st := &proof.Statement{Host: host, Conversation: id, Grant: r.grant, Epoch: got.Entries[0].Epoch, Period: proof.Period(w.clock.now().UnixMilli()),
		From: got.Entries[0].Seq, To: got.Entries[0].Seq, Count: 1}
	w.must(w.inbox.CloseAccess(w.ctx, st.Receipt(r.key)))

	want := []string{"post", "exposed", "open", "delete", "ended", "close"}
	if got := kinds(alice.says("flimmer", proof.Access)); !slices.Equal(got, want) {
		t.Errorf("Alice's access chain says %v", got)
	}
	if got := kinds(alice.says("flimmer", proof.Control)); !slices.Equal(got, []string{"grant", "grant", "revoke"}) {
		t.Errorf("Alice's control chain says %v", got)
	}
	if got := kinds(bob.says("flimmer", proof.Access)); !slices.Equal(got, []string{"exposed", "open", "ended", "close"}) {
		t.Errorf("Bob's chain says %v", got)
	}

	// The bundle convinces a stranger, and finds nothing wrong.
	w.publish()
	file, err := w.inbox.Bundle(alice.ctx, "flimmer")
	w.must(err)
	v, err := proof.Verify(file, proof.Pins{LedgerVKey: w.keys.LedgerVKey()})
	w.must(err)
	if len(v.Findings) != 0 || len(v.Grants) != 2 || len(v.Reads) != 1 {
		t.Errorf("the verdict: %d grants, %d reads, findings %q", len(v.Grants), len(v.Reads), v.Findings)
	}
}
