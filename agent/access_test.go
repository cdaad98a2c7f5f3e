package agent_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/proof"
)

// wrapped is a transport that may change an answer of the server.
type wrapped struct {
	http.RoundTripper
	lie func(r *http.Request) *http.Response // nil: the truth
}

func (w *wrapped) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.lie != nil {
		if a := w.lie(r); a != nil {
			return a, nil
		}
	}
	return w.RoundTripper.RoundTrip(r)
}

// reading makes an agent that reads alice's thread with bob, through a transport that may lie.
func reading(t *testing.T) (*flimmer, *wrapped, chat.GrantID, chat.ConversationID) {
	t.Helper()
	f := newFlimmer(t)
	f.Agent.Close()
	w := &wrapped{RoundTripper: http.DefaultTransport}
	f.env.Transport = w
	f.open()
	g := f.ask(agent.Ask{Actions: chat.AllActions, Pick: true}, chat.AllActions)
	f.no(f.bob.Sync(f.Ctx()))
	grant, err := f.Look(g)
	f.no(err)
	return f, w, g, grant.Conversation
}

func (f *flimmer) bobSays(thread chat.ConversationID, text string) {
	f.T.Helper()
	_, err := f.bob.Send(f.Ctx(), thread, textOf(text))
	f.no(err)
}

// TestBrokenPromise: a server that hides that a promised record is missing loses the reader within a minute, and leaves evidence.
func TestBrokenPromise(t *testing.T) {
	f, w, g, thread := reading(t)
	w.lie = func(r *http.Request) *http.Response {
		if !strings.HasPrefix(r.URL.Path, "/log/proof/") {
			return nil
		}
		return &http.Response{StatusCode: 404, Header: http.Header{"Content-Type": {"application/problem+json"}}, Request: r,
			Body: http.NoBody}
	}
	f.bobSays(thread, "one")
	if c := f.read(g, ""); len(c.Messages) != 1 {
		t.Fatalf("read %+v", c)
	}
	f.bobSays(thread, "two")
	if c := f.read(g, ""); len(c.Messages) != 2 { // the minute is not over
		t.Fatalf("read %+v", c)
	}
	f.ahead.Add(int64(proof.PromiseWindow+1000) * int64(time.Millisecond))
	_, err := f.Changes(f.Ctx(), g, "", 10)
	kindIs(t, err, chat.Tampered)
	w.lie = nil // too late
	_, err = f.Changes(f.Ctx(), g, "", 10)
	kindIs(t, err, chat.Tampered)
	stands, err := f.Look(g)
	f.no(err)
	list, err := f.Evidence("", 10)
	f.no(err)
	if stands.Phase != agent.Stopped || len(list) != 1 || len(list[0].Pieces) < 2 {
		t.Fatalf("%+v, evidence %d", stands, len(list))
	}
	if _, err := proof.OpenPromise(list[0].Pieces[0], f.serverKey(), f.URL[len("http://"):]); err != nil {
		t.Fatalf("the evidence is not the server's promise: %v", err)
	}
	if _, err := f.Send(f.Ctx(), g, agent.Letter{Text: "sending goes on"}); err != nil {
		t.Fatal(err)
	}
}

// serverKey asks the server for its key.
func (f *flimmer) serverKey() []byte {
	f.T.Helper()
	answer, err := http.Get(f.URL + "/.well-known/letterlock")
	f.no(err)
	defer answer.Body.Close()
	var s api.Server
	f.no(json.NewDecoder(answer.Body).Decode(&s))
	return s.ServerKey
}

// hour stands between an agent and its server and ends an hour before its time: it asks for a receipt before it serves on, as the server does
// at the full hour. (The server's OAuth library has a clock of its own, which no test can turn.)
type hour struct {
	f        *flimmer
	state    string // at which the receipt is asked for
	claim    proof.Statement
	receipts [][]byte
}

func (h *hour) lie(r *http.Request) *http.Response {
	switch {
	case r.URL.Path == "/inbox/v1/changes" && r.URL.Query().Get("sinceState") == h.state && len(h.receipts) == 0:
		b, err := json.Marshal(api.InboxChanges{Entries: []api.Entry{}, State: h.state, Closes: [][]byte{h.claim.Bytes()}})
		h.f.no(err)
		return answer(r, http.StatusOK, b)
	case r.URL.Path == "/inbox/v1/receipts":
		var in struct {
			Receipt []byte `json:"receipt"`
		}
		h.f.no(json.NewDecoder(r.Body).Decode(&in))
		h.receipts = append(h.receipts, in.Receipt)
		return answer(r, http.StatusNoContent, nil)
	}
	return nil
}

func answer(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Request: r, Body: io.NopCloser(bytes.NewReader(body))}
}

// TestHoursAreCountersigned: at the turn of an hour the agent signs what it got, and reads on; it does not sign for what it did not get,
// and goes on as soon as that is served.
func TestHoursAreCountersigned(t *testing.T) {
	f, w, g, thread := reading(t)
	var state string
	seen := &wrapped{RoundTripper: w.RoundTripper}
	seen.lie = func(r *http.Request) *http.Response {
		if r.URL.Path == "/inbox/v1/changes" {
			state = r.URL.Query().Get("sinceState")
		}
		return nil
	}
	w.RoundTripper = seen
	f.bobSays(thread, "in the first hour")
	first := f.read(g, "")
	f.read(g, "") // asks with the state that stands now
	f.no(f.bob.Sync(f.Ctx()))
	page, err := f.bob.Lines(thread)
	f.no(err)
	last := page[len(page)-1].Seq
	h := &hour{f: f, state: state, claim: proof.Statement{Host: f.URL[len("http://"):], Conversation: thread, Grant: g, Period: proof.Period(f.now().UnixMilli()),
		Epoch: 2, From: last, To: last + 1, Count: 2}}
	w.lie = h.lie
	f.bobSays(thread, "in the second hour")
	_, err = f.Changes(f.Ctx(), g, first.State, 10)
	kindIs(t, err, chat.Unproven) // two entries are claimed, one came
	if len(h.receipts) != 0 {
		t.Fatal("signed for what did not come")
	}
	h.claim.To, h.claim.Count = last, 1
	got := f.read(g, first.State)
	if len(got.Messages) != 1 || got.Messages[0].Text != "in the second hour" {
		t.Fatalf("read %+v", got)
	}
	stands, err := f.Look(g)
	f.no(err)
	if len(h.receipts) != 1 || stands.Phase != agent.Live {
		t.Fatalf("%d receipts, %s", len(h.receipts), stands.Phase)
	}
	if list, _ := f.Evidence("", 10); len(list) != 0 {
		t.Fatalf("evidence: %s", list[0].Detail)
	}
}

// TestLastReceipt: after the end the agent says what it was served since the last receipt, and the record bears its signature.
func TestLastReceipt(t *testing.T) {
	f, _, g, thread := reading(t)
	f.bobSays(thread, "one")
	f.read(g, "")
	f.no(f.alice.Revoke(f.Ctx(), g))
	_, err := f.Changes(f.Ctx(), g, "", 10)
	kindIs(t, err, chat.Gone)
	history, err := f.alice.History(f.Ctx(), "flimmer")
	f.no(err)
	signed := false
	for _, h := range history {
		signed = signed || h.What == "close" && strings.Contains(h.Text, "its app confirmed")
	}
	if !signed {
		t.Fatalf("no countersigned close in %+v", history)
	}
}
