package attacks

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/grant"
	"letterlock/ledger"
	"letterlock/mls"
	"letterlock/mls/roster"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// closing is a server that asks the agent to countersign a statement of its own making, and keeps the receipts that come.
type closing struct {
	app      *app
	claim    proof.Statement
	receipts [][]byte
}

func (c *closing) lie(r *http.Request) *http.Response {
	switch {
	case r.URL.Path == "/inbox/v1/changes" && len(c.receipts) == 0:
		return world.Answer(r, http.StatusOK, api.InboxChanges{Entries: []api.Entry{}, State: r.URL.Query().Get("sinceState"), Closes: [][]byte{c.claim.Bytes()}})
	case r.URL.Path == "/inbox/v1/receipts":
		var in struct {
			Receipt []byte `json:"receipt"`
		}
		c.app.w.Must(json.NewDecoder(r.Body).Decode(&in))
		c.receipts = append(c.receipts, in.Receipt)
		return world.Answer(r, http.StatusNoContent, nil)
	}
	return nil
}

// served is Flimmer that has read two entries, and the true statement about them.
func served(t *testing.T) (*app, proof.Statement) {
	t.Helper()
	a := flimmer(t, chat.Send|chat.Read)
	joined := register(t, a.bob, a.thread)
	says(a.w, a.bob, a.thread, "one")
	says(a.w, a.bob, a.thread, "two")
	if got := a.reads(); got != "bob: one | bob: two" {
		t.Fatalf("the agent reads %q", got)
	}
	return a, proof.Statement{Host: a.alice.Self().Host, Conversation: a.thread, Grant: a.grant, Epoch: joined.Epoch, Period: proof.Period(time.Now().UnixMilli()),
		From: joined.LastSeq + 1, To: joined.LastSeq + 2, Count: 2}
}

// TestServerFramesAnAgent: the server states accesses that did not happen and asks for the agent's countersignature. It gets none; the claim is
// kept, and reading stops. A larger end might be a page that was lost: that is answered with a word, and nothing is signed either.
func TestServerFramesAnAgent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*proof.Statement)
		part   string
		kept   bool
	}{
		"earlier entries":     {func(s *proof.Statement) { s.From, s.Count = 1, s.To }, "the server states an access that did not happen like that", true},
		"fewer entries":       {func(s *proof.Statement) { s.Count-- }, "the server states an access that did not happen like that", true},
		"another hour":        {func(s *proof.Statement) { s.Period -= proof.PeriodLength }, "the server states an access that did not happen like that", true},
		"another epoch":       {func(s *proof.Statement) { s.Epoch-- }, "the server states an access that did not happen like that", true},
		"another thread":      {func(s *proof.Statement) { s.Conversation = chat.NewConversationID() }, "the server states an access that did not happen like that", true},
		"another server":      {func(s *proof.Statement) { s.Host = "evil.example" }, "the server states an access that did not happen like that", true},
		"more than it served": {func(s *proof.Statement) { s.To, s.Count = s.To+1, s.Count+1 }, "it must serve the rest before it is countersigned", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, claim := served(t)
			c.change(&claim)
			liar := &closing{app: a, claim: claim}
			a.flimmer.Lie = liar.lie
			_, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10)
			kind := chat.Unproven
			if c.kept {
				kind = chat.Tampered
			}
			answered(t, err, kind, c.part)
			if len(liar.receipts) != 0 {
				t.Fatal("the agent signed")
			}
			list, err := a.flimmer.Evidence("", 10)
			a.w.Must(err)
			if c.kept != (len(list) == 1 && strings.Contains(list[0].Detail, c.part) && string(list[0].Pieces[0]) == string(claim.Bytes())) {
				t.Fatalf("evidence: %+v", list)
			}
			a.flimmer.Lie = nil
			if _, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10); c.kept != chat.Is(err, chat.Tampered) {
				t.Fatalf("afterwards the agent answers %v", err)
			}
		})
	}
}

// TestTrueStatementIsCountersigned: what the agent refuses above, it refuses for its untruth alone.
func TestTrueStatementIsCountersigned(t *testing.T) {
	a, claim := served(t)
	liar := &closing{app: a, claim: claim}
	a.flimmer.Lie = liar.lie
	a.reads()
	if len(liar.receipts) != 1 {
		t.Fatal("the agent did not sign a true statement")
	}
}

// inLedger lets the server, which has its own keys and its own database, write what it likes into its ledger.
func (a *app) inLedger(write func(tx *store.Tx, l *ledger.Ledger) error) {
	a.t.Helper()
	ctx := context.Background()
	s, err := sqlite.Open(ctx, filepath.Join(a.w.Dir, "server", "letterlock.db"))
	a.w.Must(err)
	defer s.Close()
	l, err := ledger.Open(ctx, s, serverKeys(a.t, a.w), time.Now, rand.Reader)
	a.w.Must(err)
	a.w.Must(s.Update(ctx, func(tx *store.Tx) error { return write(tx, l) })) // the server's writer finds it within a second
}

// findings are the contradictions in the bundle that Alice gives to a stranger.
func (a *app) findings() string {
	a.t.Helper()
	_, v, err := a.alice.Proof(a.w.Ctx(), "flimmer")
	a.w.Must(err)
	return strings.Join(v.Findings, "; ")
}

// TestForgedCountersignature: the server closes an access period in its ledger with a signature of its own in the agent's place. A stranger who
// checks Alice's bundle finds it; an honest bundle has no such finding.
func TestForgedCountersignature(t *testing.T) {
	a, claim := served(t)
	if f := a.findings(); f != "" {
		t.Fatalf("an honest bundle contradicts itself: %s", f)
	}
	claim.From, claim.Count = 1, claim.To
	receipt := claim.Receipt(newKey(t).Private())
	account := a.alice.Self().Account
	a.inLedger(func(tx *store.Tx, l *ledger.Ledger) error {
		_, err := l.Access(tx, account, "flimmer", claim.Close(receipt[len(receipt)-64:]))
		return err
	})
	if f := a.findings(); !strings.Contains(f, "holds a countersignature that is not the agent's") {
		t.Fatalf("the stranger finds %q", f)
	}
}

// TestAccessesInvented: the server writes accesses into its ledger that no grant allowed: reads in a thread without a reader, posts and deletes
// after the end, an exposure to a key that Alice never named.
func TestAccessesInvented(t *testing.T) {
	a := flimmer(t, chat.Send)
	l := a.flimmer.Loots(a.grant)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	who, now := a.alice.Self(), time.Now().UnixMilli()
	invented := []proof.Payload{
		&proof.Open{Conversation: a.thread, Grant: a.grant, Epoch: 2, Period: proof.Period(now), From: 1},
		&proof.Close{Conversation: a.thread, Grant: a.grant, Epoch: 2, Period: proof.Period(now), From: 1, To: 9, Count: 9},
		&proof.Post{Conversation: a.thread, Grant: a.grant, Epoch: 3, Seq: 9, Message: chat.MessageID{1}, At: now},
		&proof.Delete{Conversation: a.thread, Grant: a.grant, Seq: 9, Message: chat.MessageID{1}, At: now},
		&proof.Exposed{Conversation: a.thread, Grant: a.grant, Partner: "flimmer", Epoch: 3, Granting: who.Account, AgentKey: [32]byte(l.Key[32:]), At: now},
		&proof.Exposed{Conversation: chat.NewConversationID(), Grant: chat.NewGrantID(), Partner: "flimmer", Epoch: 3, Granting: who.Account, At: now},
	}
	a.inLedger(func(tx *store.Tx, l *ledger.Ledger) error {
		for _, p := range invented {
			if _, err := l.Access(tx, who.Account, "flimmer", p); err != nil {
				return err
			}
		}
		return nil
	})
	got := a.findings()
	for _, part := range []string{"opens access for a reader to whom no exposure is recorded", "closes an access period that was not opened",
		"is a post, logged after its grant was revoked", "is a delete, logged after its grant was revoked", "is an exposure, logged after its grant was revoked",
		"is an exposure, and no grant allowed it"} {
		if !strings.Contains(got, part) {
			t.Errorf("the stranger finds %q, want %q", got, part)
		}
	}
}

// TestOldGrantLoggedAgain: after the revocation the server puts the same signed grant into Alice's history once more. Her own client sees it,
// and her bundle is none.
func TestOldGrantLoggedAgain(t *testing.T) {
	a := flimmer(t, chat.Send)
	l := a.flimmer.Loots(a.grant)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	account := a.alice.Self().Account
	a.inLedger(func(tx *store.Tx, led *ledger.Ledger) error {
		_, err := led.Control(tx, account, "flimmer", 2, &proof.Grant{Signed: l.Signed})
		return err
	})
	_, _, err := a.alice.Proof(a.w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "record 2 of your history with Flimmer is nothing that a device of yours signed")
	kept(t, a.alice, "nothing that a device of yours signed")
	calls := steal(t, a.alice).calls
	for range 100 { // until the ledger has it
		bundle, e := calls.Bundle(a.w.Ctx(), "flimmer")
		a.w.Must(e)
		if _, err = proof.Verify(bundle, proof.Pins{}); err != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	answered(t, err, chat.Unproven, "record 2 of control holds what was signed for another account, partner or number")
}

// TestOldGrantPutAgain: after the revocation somebody sends again what was sent then: the signed grant, the commit that let it in. The answers
// are those of then, and nothing is live. A modified client of Alice's own that commits the old grant with its old proofs is refused.
func TestOldGrantPutAgain(t *testing.T) {
	a := people(t)
	recorder := &recorder{}
	lies(a.alice, func(s world.Calls) device.Server { recorder.Calls = s; return recorder })
	a.gets(chat.Send)
	a.alice.Wrap = nil
	loot := a.flimmer.Loots(a.grant)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	calls := steal(t, a.alice).calls
	again, err := calls.PutGrant(a.w.Ctx(), recorder.put)
	a.w.Must(err)
	if was, is := leafOf(t, recorder.record), leafOf(t, again); was != is {
		t.Error("the grant was recorded anew")
	}
	answered(t, errOf(calls.PutGrant(a.w.Ctx(), api.PutGrant{Request: "another", Signed: append([]byte{}, recorder.put.Signed[:len(recorder.put.Signed)-1]...)})), chat.Invalid, "")
	if _, err := calls.Commit(a.w.Ctx(), a.thread, recorder.commit); err != nil && !chat.Is(err, chat.StaleEpoch) {
		t.Errorf("the commit was answered with %v", err)
	}
	recorder.commit.DedupKey = newDedupKey()
	answered(t, errOf(calls.Commit(a.w.Ctx(), a.thread, recorder.commit)), chat.StaleEpoch, "")
	_, err = calls.FinishConsent(a.w.Ctx(), recorder.put.Request)
	answered(t, err, chat.Expired, "this request was answered already")

	mallory := steal(t, a.alice)
	c := recorder.rebuilt(t, a, mallory)
	answered(t, errOf(mallory.calls.Commit(a.w.Ctx(), a.thread, c)), chat.Expired, "the grant is not waiting for its commit")
	for name, call := range inboxCalls(a, loot) {
		if err := call(a.w.Ctx()); !chat.Is(err, chat.Unauthenticated) {
			t.Errorf("%s was answered with %v", name, err)
		}
	}
	status, err := a.flimmer.Check(a.w.Ctx(), a.grant)
	a.w.Must(err)
	if status.Phase != agent.Ended {
		t.Fatalf("the grant stands as %s", status.Phase)
	}
}

func leafOf(t *testing.T, r api.Record) proof.Hash {
	t.Helper()
	record, err := proof.ParseRecord(r.Record)
	if err != nil {
		t.Fatal(err)
	}
	return record.LeafHash()
}

// recorder keeps what a device handed in.
type recorder struct {
	world.Calls
	put    api.PutGrant
	record api.Record
	commit api.Commit // that let the grant in
}

func (r *recorder) PutGrant(ctx context.Context, g api.PutGrant) (rec api.Record, err error) {
	r.put = g
	r.record, err = r.Calls.PutGrant(ctx, g)
	return r.record, err
}

func (r *recorder) Commit(ctx context.Context, id chat.ConversationID, c api.Commit) (api.Accepted, error) {
	if len(r.put.Signed) > 0 {
		r.commit = c
	}
	return r.Calls.Commit(ctx, id, c)
}

// rebuilt is a commit of today that lets the old grant in with its old proofs.
func (r *recorder) rebuilt(t *testing.T, a *app, by *stolen) api.Commit {
	t.Helper()
	m, err := roster.DecodeMessage(r.commit.Commit)
	a.w.Must(err)
	old, err := grant.Peek(r.put.Signed)
	a.w.Must(err)
	g := by.group(a.thread)
	x := withThread(g, threadOf(t, g).With(old.Entry(r.put.Signed)))
	p, err := g.Commit(mls.CommitOptions{Extensions: &x, AuthenticatedData: m.Public.Content.AuthenticatedData})
	a.w.Must(err)
	return api.Commit{Commit: p.Commit, Slot: announcement(t, a.thread, p.Next().Epoch(), slotKey(t), by.key), DedupKey: newDedupKey()}
}

// TestPromiseIsBroken: the server served, and the record of it never comes into the ledger. For a minute the agent waits; then it stops
// reading for good and keeps the promise.
func TestPromiseIsBroken(t *testing.T) {
	a := flimmer(t, chat.Send|chat.Read)
	says(a.w, a.bob, a.thread, "one")
	a.flimmer.Lie = func(r *http.Request) *http.Response {
		if !strings.HasPrefix(r.URL.Path, "/log/proof/") {
			return nil
		}
		return world.Answer(r, http.StatusNotFound, map[string]string{"type": "urn:letterlock:not-found", "detail": "not yet"})
	}
	a.reads()
	a.flimmer.Pass(50 * time.Second)
	a.reads()
	a.flimmer.Pass(11 * time.Second)
	const broken = "the server broke its promise: a record of our access was not in the ledger in time"
	_, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10)
	answered(t, err, chat.Tampered, broken)
	a.flimmer.Lie = nil
	_, err = a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10)
	answered(t, err, chat.Tampered, broken)
	list, err := a.flimmer.Evidence("", 10)
	a.w.Must(err)
	if len(list) != 1 || list[0].Detail != broken {
		t.Fatalf("evidence: %+v", list)
	}
	if _, err := proof.OpenPromise(list[0].Pieces[0], serverKeys(t, a.w).ServerKey(), a.alice.Self().Host); err != nil {
		t.Fatalf("the evidence is not the server's promise: %v", err)
	}
}

// TestServedWithoutAPromise: the server leaves the promise or the record away, or promises another person's record.
func TestServedWithoutAPromise(t *testing.T) {
	for name, change := range map[string]func(*api.InboxChanges){
		"no promise":          func(c *api.InboxChanges) { c.Promises, c.Opens = nil, nil },
		"no record":           func(c *api.InboxChanges) { c.Opens = nil },
		"for one person only": func(c *api.InboxChanges) { c.Promises, c.Opens = c.Promises[:1], c.Opens[:1] },
		"one twice":           func(c *api.InboxChanges) { c.Promises[1], c.Opens[1] = c.Promises[0], c.Opens[0] },
		"exchanged":           func(c *api.InboxChanges) { c.Promises[0], c.Promises[1] = c.Promises[1], c.Promises[0] },
	} {
		t.Run(name, func(t *testing.T) {
			a := flimmer(t, chat.Send|chat.Read)
			says(a.w, a.bob, a.thread, "one")
			a.flimmer.Lie = func(r *http.Request) *http.Response {
				if r.URL.Path != "/inbox/v1/changes" {
					return nil
				}
				real, err := http.DefaultTransport.RoundTrip(r)
				a.w.Must(err)
				defer real.Body.Close()
				var c api.InboxChanges
				a.w.Must(json.NewDecoder(real.Body).Decode(&c))
				change(&c)
				return world.Answer(r, real.StatusCode, c)
			}
			if c, err := a.flimmer.Changes(a.w.Ctx(), a.grant, "", 10); err == nil || len(c.Messages) != 0 || !chat.Is(err, chat.Unproven) && !chat.Is(err, chat.Tampered) {
				t.Fatalf("the agent reads %+v, %v", c, err)
			}
		})
	}
}
