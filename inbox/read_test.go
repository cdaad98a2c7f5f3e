package inbox

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/witness"
)

// reader is a world with an agent that reads.
type reader struct {
	*world
	alice, bob *person
	flimmer    *app
	id         chat.ConversationID
	g          *agent
}

func newReader(t *testing.T) *reader {
	r := &reader{world: newWorld(t)}
	r.alice, r.bob, r.flimmer, r.id = r.pair()
	r.must(r.bob.say(r.id, "before"))
	r.g = r.alice.grants(r.flimmer, r.id, chat.Read)
	return r
}

func (r *reader) changes(since string, limit int) api.InboxChanges {
	r.t.Helper()
	got, err := r.inbox.Changes(r.g.ctx, since, limit)
	r.must(err)
	return got
}

func (r *reader) says(n int) {
	r.t.Helper()
	for i := range n {
		r.must(r.bob.say(r.id, fmt.Sprint("word ", i)))
	}
}

func seqs(c api.InboxChanges) (list []uint64) {
	for _, e := range c.Entries {
		list = append(list, e.Seq)
	}
	return list
}

// TestNothingEarlier: whatever state an agent makes up, it gets nothing from before the commit that added it.
func TestNothingEarlier(t *testing.T) {
	r := newReader(t)
	joined := r.g.row().JoinedSeq
	r.says(1)
	for _, since := range []string{"", "1.0.0.0", "1.1.0.0", fmt.Sprintf("1.%d.0.0", joined-1)} {
		if got := seqs(r.changes(since, 0)); !slices.Equal(got, []uint64{joined + 1}) {
			t.Errorf("since %q: entries %v", since, got)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	r := newReader(t)
	r.says(1)
	send := r.alice.grants(r.flimmer, r.id, chat.Send|chat.Delete)
	_, err := r.inbox.Changes(send.ctx, "", 0)
	r.refused(err, chat.Forbidden)
	_, err = r.inbox.Welcome(send.ctx)
	r.refused(err, chat.Forbidden)
	_, err = r.inbox.Slot(r.g.ctx)
	r.refused(err, chat.Forbidden)
	_, err = r.inbox.Changes(r.ctx, "", 0)
	r.refused(err, chat.Unauthenticated)
	_, err = r.inbox.Changes(r.bob.ctx, "", 0)
	r.refused(err, chat.Unauthenticated)
	for _, since := range []string{"x", "1", "1.1.1", "1.1.1.1.1", "1.-1.0.0", "1.01.0.0", "2.1.0.0", "1.99999999999999999999.0.0", "1.1.0.0 ", fmt.Sprintf("1.%d.0.0", 1<<62)} {
		if _, err := r.inbox.Changes(r.g.ctx, since, 0); !chat.Is(err, chat.Invalid) {
			t.Errorf("since %q: %v", since, err)
		}
	}
	_, err = r.inbox.Changes(r.g.ctx, "1.1000.0.0", 0)
	r.refused(err, chat.Invalid)
	if got := kinds(r.bob.says2()); slices.Contains(got, "open") {
		t.Errorf("a refused call opened an access period: %v", got)
	}
	r.clock.pass(13 * time.Hour)
	_, err = r.inbox.Changes(r.g.ctx, "", 0)
	r.refused(err, chat.Expired)
}

func (p *person) says2() []proof.Payload { return p.says("flimmer", proof.Access) }

// TestLogBeforeServe: with the first entries the opens of every person are durable, and their promises come along until the agent has
// shown that it got them.
func TestLogBeforeServe(t *testing.T) {
	r := newReader(t)
	if got := r.changes("", 0); len(got.Entries) != 0 || len(got.Opens) != 0 {
		t.Fatalf("nothing to serve, and yet %+v", got)
	}
	if got := kinds(r.bob.says2()); slices.Contains(got, "open") {
		t.Fatal("opened though nothing was served")
	}
	r.says(3)
	first := r.changes("", 2)
	if len(first.Entries) != 2 || !first.More || len(first.Opens) != 2 || len(first.Promises) != 2 {
		t.Fatalf("first: %d entries, %d opens", len(first.Entries), len(first.Opens))
	}
	for _, p := range []*person{r.alice, r.bob} {
		o := p.says2()[1].(*proof.Open)
		if o.Grant != r.g.grant || o.From != first.Entries[0].Seq || o.Period != proof.Period(r.clock.now().UnixMilli()) {
			t.Errorf("%s's open: %+v", p.handle, o)
		}
	}
	if lost := r.changes("", 2); len(lost.Opens) != 2 || !slices.EqualFunc(lost.Opens, first.Opens, slices.Equal) || !slices.EqualFunc(lost.Promises, first.Promises, slices.Equal) {
		t.Error("a lost answer loses the promises")
	}
	second := r.changes(first.State, 0)
	if len(second.Entries) != 1 || second.More || len(second.Opens) != 0 {
		t.Errorf("second: %+v", second)
	}
	if got := kinds(r.bob.says2()); !slices.Equal(got, []string{"exposed", "open"}) {
		t.Errorf("Bob's chain says %v", got)
	}

	// Who comes into the thread in the middle of the hour gets an open of their own.
	carol := r.person("carol")
	r.bob.sync(r.id)
	r.bob.add(r.id, carol)
	third := r.changes(second.State, 0)
	if len(third.Opens) != 1 || !slices.Equal(kinds(carol.says2()), []string{"exposed", "open"}) {
		t.Errorf("third: %d opens, Carol's chain says %v", len(third.Opens), kinds(carol.says2()))
	}
}

// TestCloseBeforeNextOpen: in the next hour nothing is served before the agent countersigned the last one.
func TestCloseBeforeNextOpen(t *testing.T) {
	r := newReader(t)
	r.says(2)
	first := r.changes("", 0)
	period := proof.Period(r.clock.now().UnixMilli())
	statement := &proof.Statement{Host: host, Conversation: r.id, Grant: r.g.grant, Epoch: first.Entries[1].Epoch, Period: period, From: first.Entries[0].Seq, To: first.Entries[1].Seq, Count: 2}
	r.refused(r.inbox.CloseAccess(r.ctx, statement.Receipt(r.g.key)), chat.Invalid) // the hour is not over

	r.clock.pass(time.Hour)
	r.says(1)
	due := r.changes(first.State, 0)
	if len(due.Entries) != 0 || len(due.Closes) != 1 || due.State != first.State {
		t.Fatalf("served without a receipt: %+v", due)
	}
	if !slices.Equal(due.Closes[0], statement.Bytes()) {
		t.Fatal("the statement is not what was served")
	}
	for name, c := range map[string]struct {
		kind  chat.Kind
		spoil func(*proof.Statement)
		key   ed25519Private
	}{
		"another count":  {chat.NotFound, func(s *proof.Statement) { s.Count-- }, r.g.key},
		"another range":  {chat.NotFound, func(s *proof.Statement) { s.From--; s.Count++ }, r.g.key},
		"another epoch":  {chat.NotFound, func(s *proof.Statement) { s.Epoch++ }, r.g.key},
		"another hour":   {chat.NotFound, func(s *proof.Statement) { s.Period -= proof.PeriodLength }, r.g.key},
		"another grant":  {chat.NotFound, func(s *proof.Statement) { s.Grant = chat.NewGrantID() }, r.g.key},
		"another thread": {chat.NotFound, func(s *proof.Statement) { s.Conversation = chat.NewConversationID() }, r.g.key},
		"another host":   {chat.NotFound, func(s *proof.Statement) { s.Host = "chat.example" }, r.g.key},
		"a member's key": {chat.Unproven, func(*proof.Statement) {}, r.bob.key.Private()},
	} {
		s := *statement
		c.spoil(&s)
		if err := r.inbox.CloseAccess(r.ctx, s.Receipt(c.key)); !chat.Is(err, c.kind) {
			t.Errorf("%s: want %s, got %v", name, c.kind, err)
		}
	}
	r.must(r.inbox.CloseAccess(r.ctx, statement.Receipt(r.g.key)))
	r.must(r.inbox.CloseAccess(r.ctx, statement.Receipt(r.g.key))) // again: nothing changes
	next := r.changes(first.State, 0)
	if len(next.Entries) != 1 || len(next.Opens) != 2 {
		t.Errorf("after the receipt: %+v", next)
	}
	said := r.bob.says2()
	if got := kinds(said); !slices.Equal(got, []string{"exposed", "open", "close", "open"}) {
		t.Fatalf("Bob's chain says %v", got)
	}
	r.must(said[2].(*proof.Close).CheckCountersignature(host, r.g.key.Public().(ed25519Public)))
}

// TestLostLastPage: the last page of an hour is lost on its way. The server serves it again before it asks for the receipt: an agent cannot
// countersign what it never got.
func TestLostLastPage(t *testing.T) {
	r := newReader(t)
	r.says(3)
	first := r.changes("", 2)
	lost := r.changes(first.State, 2)
	if len(first.Entries) != 2 || len(lost.Entries) != 1 {
		t.Fatalf("served %d and %d entries", len(first.Entries), len(lost.Entries))
	}
	r.clock.pass(time.Hour)
	r.says(1)
	again := r.changes(first.State, 2)
	if len(again.Closes) != 0 || len(again.Entries) != 1 || again.Entries[0].Seq != lost.Entries[0].Seq || again.State != lost.State {
		t.Fatalf("the lost page does not come again: %+v", again)
	}
	due := r.changes(again.State, 2)
	if len(due.Closes) != 1 || len(due.Entries) != 0 {
		t.Fatalf("no statement after the page: %+v", due)
	}
	statement := &proof.Statement{Host: host, Conversation: r.id, Grant: r.g.grant, Epoch: lost.Entries[0].Epoch,
		Period: proof.Period(r.clock.now().Add(-time.Hour).UnixMilli()), From: first.Entries[0].Seq, To: lost.Entries[0].Seq, Count: 3}
	r.must(r.inbox.CloseAccess(r.ctx, statement.Receipt(r.g.key)))
	if next := r.changes(due.State, 2); len(next.Entries) != 1 {
		t.Fatalf("nothing new after the receipt: %+v", next)
	}
}

// TestOneRange: what is served in an hour is one range, whatever states the agent passes.
func TestOneRange(t *testing.T) {
	r := newReader(t)
	r.says(6)
	base := r.g.row().JoinedSeq
	state := func(n uint64) string { return state{seq: base + n}.String() }
	if got := seqs(r.changes(state(2), 2)); !slices.Equal(got, []uint64{base + 3, base + 4}) {
		t.Fatalf("served %v", got)
	}
	_, err := r.inbox.Changes(r.g.ctx, state(0), 0)
	r.refused(err, chat.Expired)
	if got := seqs(r.changes(state(6), 0)); len(got) != 0 { // ahead: there is nothing, and nothing is skipped
		t.Errorf("served %v", got)
	}
	if got := seqs(r.changes(state(5), 0)); !slices.Equal(got, []uint64{base + 5, base + 6}) {
		t.Errorf("skipping ahead served %v", got)
	}
	r.must(r.store.View(r.ctx, func(tx *store.Tx) error {
		a, err := tx.Access(r.id, r.g.grant, proof.Period(r.clock.now().UnixMilli()))
		if a.First != base+3 || a.Last != base+6 {
			t.Errorf("the period: %+v", a)
		}
		return err
	}))
}

// TestServerClosesAtLast: after the end of its grant an agent has ten minutes for its receipt; then the server's word stands, and a later
// receipt changes no record.
func TestServerClosesAtLast(t *testing.T) {
	r := newReader(t)
	r.says(1)
	got := r.changes("", 0)
	r.bob.commit(r.id, r.bob.removal(r.g))
	r.clock.pass(receiptWithin*time.Millisecond - time.Second)
	r.must(r.inbox.Sweep(r.ctx))
	if got := kinds(r.bob.says2()); !slices.Equal(got, []string{"exposed", "open", "ended"}) {
		t.Fatalf("Bob's chain says %v", got)
	}
	r.clock.pass(time.Second)
	r.must(r.inbox.Sweep(r.ctx))
	said := r.bob.says2()
	if got := kinds(said); !slices.Equal(got, []string{"exposed", "open", "ended", "close"}) || len(said[3].(*proof.Close).Countersignature) != 0 {
		t.Fatalf("Bob's chain says %v", got)
	}
	s := &proof.Statement{Host: host, Conversation: r.id, Grant: r.g.grant, Epoch: got.Entries[0].Epoch, Period: proof.Period(got.Entries[0].At), From: got.Entries[0].Seq, To: got.Entries[0].Seq, Count: 1}
	r.must(r.inbox.CloseAccess(r.ctx, s.Receipt(r.g.key)))
	if n := len(r.bob.says2()); n != 4 {
		t.Errorf("%d records after a late receipt", n)
	}
}

// TestLeafGoesWithGrant: after the removal the log is closed to the agent, also what was said before it and not fetched.
func TestLeafGoesWithGrant(t *testing.T) {
	r := newReader(t)
	r.says(2)
	r.alice.commit(r.id, r.alice.removal(r.g, r.alice.revocation(r.g)))
	_, err := r.inbox.Changes(r.g.ctx, "", 0)
	r.refused(err, chat.Forbidden)
	r.must(r.store.View(r.ctx, func(tx *store.Tx) error {
		left, err := tx.Welcomes(store.AgentMailbox(r.g.grant), 1, 1)
		if len(left) != 0 {
			t.Error("its Welcome still waits")
		}
		return err
	}))
}

func FuzzState(f *testing.F) {
	needSeeds(f, "FuzzState")
	f.Fuzz(func(t *testing.T, text string) {
		st, err := parseState(text)
		if err == nil && text != "" && st.String() != text {
			t.Errorf("%q was read as %q", text, st)
		}
	})
}

func FuzzReceipt(f *testing.F) {
	needSeeds(f, "FuzzReceipt")
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := peekReceipt(data)
		if err != nil {
			if chat.KindOf(err) == chat.Internal {
				t.Errorf("an error without a kind: %v", err)
			}
			return
		}
		var s canon.Signed
		if err := canon.Unmarshal(data, &s); err != nil || id.IsZero() {
			t.Error("accepted what is no receipt")
		}
	})
}

// needSeeds fails where the committed seeds of a fuzz test are gone.
func needSeeds(f *testing.F, name string) {
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", name))
	if err != nil || len(seeds) == 0 {
		f.Fatalf("no seeds in testdata/fuzz/%s", name)
	}
}

// TestReadsStopWithoutAQuorum: the only witness is away. For 30 seconds an agent reads on, then it is told why not; people write as ever, and when the
// witness is back the agent reads everything.
func TestReadsStopWithoutAQuorum(t *testing.T) {
	r := newReader(t)
	var away atomic.Bool
	w, err := witness.Open(witness.Config{Home: t.TempDir(), Name: "w.example", Logs: []string{r.keys.LedgerVKey()}, Logger: slog.New(slog.DiscardHandler)})
	r.must(err)
	t.Cleanup(func() { w.Close() })
	site := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		if away.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Handler().ServeHTTP(rw, q)
	}))
	t.Cleanup(site.Close)
	policy, err := proof.ParsePolicy([]byte("log " + r.keys.LedgerVKey() + "\nwitness w " + w.VKey() + " " + site.URL + "\nquorum w\n"))
	r.must(err)
	publisher, err := ledger.NewPublisher(r.ledger, policy, slog.New(slog.DiscardHandler))
	r.must(err)
	step := func(want chat.Kind) {
		t.Helper()
		r.publish()
		if err := publisher.Step(r.ctx); want == "" && err != nil || want != "" && !chat.Is(err, want) {
			t.Fatal(err)
		}
	}
	for range 3 {
		step("")
	}
	away.Store(true)
	r.says(1)
	st := r.changes("", 100) // its open record waits for the witness
	r.says(1)
	step(chat.NoQuorum)
	r.clock.pass(ledger.QuorumWait - time.Second)
	st = r.changes(st.State, 100)
	r.clock.pass(time.Second)
	r.says(2)
	_, err = r.inbox.Changes(r.g.ctx, st.State, 100)
	if !chat.Is(err, chat.NoQuorum) || !strings.Contains(err.Error(), "apps cannot read until they do") {
		t.Fatalf("without a quorum: %v", err)
	}
	away.Store(false)
	step("")
	step("")
	if got := r.changes(st.State, 100); len(got.Entries) != 2 {
		t.Fatal(seqs(got))
	}
}
