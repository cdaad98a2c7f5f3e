package attacks

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/proof"
)

// secrets are what opens the leaves of a person's records with Flimmer, out of a bundle: salts and payloads.
func secrets(t *testing.T, bundle []byte) (salts, payloads [][]byte) {
	t.Helper()
	b, err := proof.ParseBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, chain := range [][]proof.BundledRecord{b.Control, b.Access} {
		for _, bundled := range chain {
			r, err := proof.ParseRecord(bundled.Record)
			if err != nil {
				t.Fatal(err)
			}
			salts, payloads = append(salts, r.Salt), append(payloads, r.Payload)
		}
	}
	return salts, payloads
}

// holds counts how many of the secrets stand in the server's database file, with the logs of the threads or without. A long one lies on
// several pages: its end is looked for.
func holds(w *world.World, list [][]byte, threads bool) (n int) {
	w.T.Helper()
	w.Stop() // closing writes everything into the file
	file, err := os.ReadFile(filepath.Join(w.Dir, "server", "letterlock.db"))
	w.Must(err)
	if !threads {
		copied := filepath.Join(w.T.TempDir(), "copy.db")
		w.Must(os.WriteFile(copied, file, 0o600))
		db, err := sql.Open("sqlite", "file:"+copied+"?_pragma=secure_delete(ON)&_pragma=journal_mode(DELETE)")
		w.Must(err)
		_, err = db.Exec("DELETE FROM entries")
		w.Must(errors.Join(err, db.Close()))
		file, err = os.ReadFile(copied)
		w.Must(err)
	}
	for _, secret := range list {
		if bytes.Contains(file, secret[max(0, len(secret)-32):]) {
			n++
		}
	}
	w.Start()
	return n
}

// usedApp is an app that has read and posted under Alice's grant.
func usedApp(t *testing.T) *app {
	t.Helper()
	a := flimmer(t, chat.AllActions)
	_, err := a.flimmer.Send(a.w.Ctx(), a.grant, agent.Letter{Text: "for alice"})
	a.w.Must(err)
	says(a.w, a.bob, a.thread, "thanks")
	a.reads()
	return a
}

// TestErasedRecords: what Alice's records say is gone from the server, with the salts, but for what the thread's own log says of its grant; everything still verifies, for her and
// for a stranger; Bob's records of the same are his.
func TestErasedRecords(t *testing.T) {
	a := usedApp(t)
	w, ctx := a.w, a.w.Ctx()
	before, _, err := a.alice.Proof(ctx, "flimmer")
	w.Must(err)

	// While the permission stands nothing goes.
	got, err := a.alice.EraseHistory(ctx, "flimmer", time.Time{})
	w.Must(err)
	if got.Erased != 0 || got.Kept == 0 || len(got.Standing) != 1 || got.Standing[0] != a.grant.String() {
		t.Fatalf("under a standing permission: %+v", got)
	}
	w.Must(a.alice.Revoke(ctx, a.grant))
	w.Must(a.bob.Sync(ctx))
	w.Must(a.alice.Sync(ctx))
	last, verdict, err := a.alice.Proof(ctx, "flimmer")
	w.Must(err)
	if verdict.Erased != 0 {
		t.Fatalf("%d erased too early", verdict.Erased)
	}
	salts, payloads := secrets(t, last)
	bobs, _, err := a.bob.Proof(ctx, "flimmer")
	w.Must(err)
	_, shared := secrets(t, bobs)
	lost := slices.Concat(salts, slices.DeleteFunc(payloads, func(p []byte) bool { // what Bob's records say too, word for word, stays his
		return slices.ContainsFunc(shared, func(q []byte) bool { return bytes.Equal(p, q) })
	}))
	sqlite := os.Getenv("LETTERLOCK_TEST_STORE") == ""
	if sqlite && holds(w, lost, true) != len(lost) {
		t.Fatal("the search finds nothing where something is")
	}

	if got, err = a.alice.EraseHistory(ctx, "flimmer", time.Now().Add(-time.Hour)); err != nil || got.Erased+got.Kept != 0 {
		t.Errorf("nothing is from before that: %+v, %v", got, err)
	}
	n, err := a.alice.Erasable(ctx, "flimmer", time.Time{})
	w.Must(err)
	got, err = a.alice.EraseHistory(ctx, "flimmer", time.Time{})
	w.Must(err)
	if got.Erased != n || n != len(salts) || got.Kept != 0 {
		t.Fatalf("erased %+v of %d", got, n)
	}
	if sqlite {
		if left := holds(w, lost, false); left != 0 {
			t.Errorf("%d of %d salts and payloads are left in the file", left, len(lost))
		}
		if left := holds(w, lost, true); left != 2 { // of the grant, which entered its thread with its record
			t.Errorf("%d of %d salts and payloads are left in the logs of the threads", left, len(lost))
		}
	}
	history, err := a.alice.History(ctx, "flimmer") // complete, in order, in the ledger
	w.Must(err)
	if len(history) != n {
		t.Errorf("a history of %d records, there were %d", len(history), n)
	}
	for _, e := range history {
		if e.What != "erased" || !e.Proven {
			t.Errorf("%+v", e)
		}
	}
	_, verdict, err = a.alice.Proof(ctx, "flimmer")
	w.Must(err)
	if verdict.Erased != n || len(verdict.Findings) != 0 {
		t.Errorf("a stranger is told: %+v", verdict)
	}
	if got, err = a.alice.EraseHistory(ctx, "flimmer", time.Time{}); err != nil || got.Erased != 0 {
		t.Errorf("again: %+v, %v", got, err)
	}
	for _, kept := range [][]byte{before, last} { // proofs from before open what they hold
		if v, err := proof.Verify(kept, proof.Pins{}); err != nil || v.Erased != 0 {
			t.Errorf("a proof that was kept: %+v, %v", v, err)
		}
	}
	_, verdict, err = a.bob.Proof(ctx, "flimmer")
	w.Must(err)
	if verdict.Erased != 0 || len(verdict.Reads) != 1 {
		t.Errorf("Bob's: %+v", verdict)
	}

	// It goes on: what comes now is recorded as ever.
	a.gets(chat.Send)
	if history, err = a.alice.History(ctx, "flimmer"); err != nil || history[len(history)-1].What != "grant" {
		t.Errorf("afterwards: %+v, %v", history, err)
	}
	data, verdict, err := a.alice.Proof(ctx, "flimmer")
	w.Must(err)
	if verdict.Erased != n || len(verdict.Grants) != 1 || len(verdict.Findings) != 0 {
		text, _ := json.Marshal(verdict)
		t.Errorf("%s\n%d bytes", text, len(data))
	}
}

// TestStandingRecordsStay asks for the records of a permission that stands with a call of the test's own.
func TestStandingRecordsStay(t *testing.T) {
	a := usedApp(t)
	erase := func(p *world.Person) api.ErasedRecords {
		t.Helper()
		var out api.ErasedRecords
		p.Wrap = func(s world.Calls) world.Calls { return eraser{s, &out} }
		defer func() { p.Wrap = nil }()
		_, err := p.EraseHistory(a.w.Ctx(), "flimmer", time.Time{})
		a.w.Must(err)
		return out
	}
	for _, p := range []*world.Person{a.alice, a.bob} { // also where somebody else gave it
		if out := erase(p); out.Erased != 0 || out.Kept == 0 || len(out.Standing) != 1 || out.Standing[0] != a.grant {
			t.Errorf("%s: %+v", p.Self().Handle, out)
		}
		_, verdict, err := p.Proof(a.w.Ctx(), "flimmer")
		a.w.Must(err)
		if verdict.Erased != 0 {
			t.Errorf("%s: %d erased", p.Self().Handle, verdict.Erased)
		}
	}
}

// eraser notes what the server answers.
type eraser struct {
	world.Calls
	out *api.ErasedRecords
}

func (e eraser) EraseRecords(ctx context.Context, r api.EraseRecords) (api.ErasedRecords, error) {
	out, err := e.Calls.EraseRecords(ctx, r)
	*e.out = out
	return out, err
}

// TestServerKeepsWhatItErased: a server says that it erased, and did not.
func TestServerKeepsWhatItErased(t *testing.T) {
	a := usedApp(t)
	a.w.Must(a.alice.Revoke(a.w.Ctx(), a.grant))
	a.w.Must(a.alice.Sync(a.w.Ctx()))
	a.alice.Wrap = func(s world.Calls) world.Calls { return keeper{s} }
	_, err := a.alice.EraseHistory(a.w.Ctx(), "flimmer", time.Time{})
	if !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "the server says that it kept 0 records of your history with Flimmer, and still shows what") {
		t.Errorf("%v", err)
	}
}

type keeper struct{ world.Calls }

func (keeper) EraseRecords(context.Context, api.EraseRecords) (api.ErasedRecords, error) {
	return api.ErasedRecords{Erased: 5}, nil
}
