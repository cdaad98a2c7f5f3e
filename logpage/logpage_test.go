package logpage

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/storetest"
)

const (
	host  = "chat.example"
	begun = int64(1_790_000_000_000 - 1_790_000_000_000%dayMS)
)

// world is a real log behind a real server, with a clock of its own.
type world struct {
	*ledger.Ledger
	t      *testing.T
	store  *store.Store
	writer *ledger.Writer
	keys   *ledger.Keys
	now    time.Time
	roots  map[string]ed25519.PrivateKey // of partners

	witnesses []note.Signer // who cosigns what is published
	url       string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.UnixMilli(begun), roots: map[string]ed25519.PrivateKey{}, store: storetest.NewDatabase(t)(t)}
	t.Cleanup(func() { w.store.Close() })
	var err error
	w.keys, err = ledger.NewKeys(host)
	w.no(err)
	w.Ledger, err = ledger.Open(t.Context(), w.store, w.keys, func() time.Time { return w.now }, rand.Reader)
	w.no(err)
	w.writer = ledger.NewWriter(w.Ledger, slog.New(slog.NewTextHandler(io.Discard, nil)))
	fail := func(rw http.ResponseWriter, _ *http.Request, err error) {
		status := map[chat.Kind]int{chat.NotFound: 404, chat.Unproven: 403}[chat.KindOf(err)]
		if status == 0 {
			status = 500
		}
		http.Error(rw, err.Error(), status)
	}
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	pages, err := Handler(Config{Source: w.source, Host: host, PublicURL: w.url, LedgerVKey: w.keys.LedgerVKey(), ServerKey: w.keys.ServerKey(),
		Now: func() time.Time { return w.now }, Fail: fail})
	w.no(err)
	mux.Handle("/log/", ledger.Handler(w.Ledger, fail))
	mux.Handle("GET /log", pages)
	mux.Handle("GET /log.json", pages)
	mux.Handle("GET /log/partners/", pages)
	return w
}

func (w *world) no(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// source reads two entries at a time, and has the witnesses sign.
func (w *world) source(ctx context.Context, from uint64) (*proof.Head, []Entry, error) {
	head, list, err := w.PublicEntries(ctx, from, 2)
	if err != nil {
		return nil, nil, err
	}
	if len(w.witnesses) > 0 {
		n, err := note.Open(head.Checkpoint, note.VerifierList(w.log()))
		w.no(err)
		head.Checkpoint, err = note.Sign(n, w.witnesses...)
		w.no(err)
	}
	var entries []Entry
	for _, e := range list {
		entries = append(entries, Entry{e.Index, e.Leaf})
	}
	return head, entries, nil
}

func (w *world) log() note.Verifier {
	v, err := note.NewVerifier(w.keys.LedgerVKey())
	w.no(err)
	return v
}

// logs puts a public leaf in the log.
func (w *world) logs(leaf proof.Leaf) proof.Hash {
	w.t.Helper()
	var hash proof.Hash
	w.no(w.store.Update(w.t.Context(), func(tx *store.Tx) (err error) {
		hash, err = w.Public(tx, leaf)
		return err
	}))
	for {
		n, err := w.writer.Step(w.t.Context())
		w.no(err)
		if n == 0 {
			return hash
		}
	}
}

// agrees logs an agreement of both sides.
func (w *world) agrees(a grant.Agreement) proof.Hash {
	w.t.Helper()
	root := w.roots[a.Partner]
	if root == nil {
		var err error
		_, root, err = ed25519.GenerateKey(rand.Reader)
		w.no(err)
		w.roots[a.Partner] = root
	}
	a.Host = host
	offer, err := a.Offer(root)
	w.no(err)
	signed, err := grant.Countersign(offer, w.keys.Server)
	w.no(err)
	return w.logs(&proof.Agreement{Countersigned: signed})
}

func (w *world) witness(name string) *torchwood.CosignatureSigner {
	w.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	w.no(err)
	s, err := torchwood.NewCosignatureSigner(name, key)
	w.no(err)
	return s
}

// gets fetches an address of the server.
func (w *world) gets(path string) (*http.Response, string) {
	w.t.Helper()
	r, err := http.Get(w.url + path)
	w.no(err)
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	w.no(err)
	return r, string(body)
}

func (w *world) overview() (o Overview) {
	w.t.Helper()
	r, body := w.gets("/log.json")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" {
		w.t.Fatalf("%s: %s", r.Status, body)
	}
	w.no(json.Unmarshal([]byte(body), &o))
	return o
}

// UnmarshalText reads what MarshalText writes.
func (h *Hash) UnmarshalText(text []byte) error {
	_, err := hex.Decode(h[:], text)
	return err
}

const day = 24 * time.Hour

// story is a log with two partners: one that changed its agreement and left out a report, and one that was stopped.
func story(t *testing.T) *world {
	w := newWorld(t)
	first := w.agrees(grant.Agreement{Number: 1, Partner: "flimmer", Name: "Flimmer", Actions: chat.Send, ReportDays: 14, PostsPerMinute: 60,
		LinkBases: []string{"https://flimmer.example/film"}, Interfaces: []string{"app", "web"}, NotBefore: begun, NotAfter: begun + 400*dayMS})
	w.logs(&proof.Report{Partner: "flimmer", Start: begun, Report: [32]byte{1}})
	w.now = w.now.Add(30 * day)
	w.logs(&proof.PartnerEnd{Partner: "flimmer", Agreement: first, At: w.now.UnixMilli(), Cause: proof.CauseEnded, Reason: "replaced by a newer agreement"})
	w.agrees(grant.Agreement{Number: 2, Partner: "flimmer", Name: "Flimmer", Actions: chat.Send | chat.Read, ReportDays: 14, PostsPerMinute: 30,
		LinkBases: []string{"https://flimmer.example/film"}, Interfaces: []string{"app", "web", "tv"}, Terms: [32]byte{9},
		NotBefore: w.now.UnixMilli(), NotAfter: begun + 600*dayMS})
	stopped := w.agrees(grant.Agreement{Number: 1, Partner: "lauter", Name: "Lauter", Actions: chat.AllActions, PostsPerMinute: 1200,
		NotBefore: begun, NotAfter: begun + 100*dayMS})
	w.logs(&proof.PartnerEnd{Partner: "lauter", Agreement: stopped, At: w.now.UnixMilli(), Cause: proof.CauseStopped, Reason: "<script>alert(1)</script> sent advertising"})
	w.logs(&proof.Release{Name: "letterlock", Version: "1.0.0", SHA256: [32]byte{7}})
	return w
}

func TestAgreementsInClear(t *testing.T) {
	w := story(t)
	o := w.overview()
	if len(o.Partners) != 2 || o.Public != 7 || len(o.Unread) != 0 || len(o.Releases) != 1 || o.CheckpointAt != w.now.UnixMilli() {
		t.Fatalf("%+v", o)
	}
	flimmer, lauter := o.Partners[0], o.Partners[1]
	if flimmer.State != InForce || lauter.State != Stopped || len(flimmer.Agreements) != 2 {
		t.Errorf("%+v, %+v", flimmer, lauter)
	}
	first, second := flimmer.Agreements[0], flimmer.Agreements[1]
	if first.State != Ended || first.End.Reason != "replaced by a newer agreement" || second.State != InForce || second.End != nil {
		t.Errorf("%+v, %+v", first, second)
	}
	if len(first.Owed) != 2 || first.Delivered() != 1 || len(first.Owed[1].Reports) != 0 || first.Owed[0].Reports[0].Hash != (Hash{1}) {
		t.Errorf("in 30 days two reports are owed and one was delivered: %+v", first.Owed)
	}
	var changed []string
	for _, c := range second.Changes {
		changed = append(changed, c.What+": "+c.Before+" > "+c.After)
	}
	for _, want := range []string{"may ask for: send > send, read", "posts a minute, for each grant: 60 > 30", "interfaces: app, web > app, web, tv",
		"confidential terms: none > commitment 090000000000"} {
		if !strings.Contains(strings.Join(changed, "\n"), want) {
			t.Errorf("%q is not among %q", want, changed)
		}
	}
	w.now = w.now.Add(700 * day)
	if o := w.overview(); o.Partners[0].State != RanOut || o.Partners[0].Agreements[1].Delivered() != 0 || len(o.Partners[0].Agreements[1].Owed) != 40 {
		t.Errorf("after its end: %+v", o.Partners[0].Agreements[1])
	}
}

// TestLinksProve: every entry that a page names is in the log, at that index, under the proof that the page links to.
func TestLinksProve(t *testing.T) {
	w := story(t)
	link := regexp.MustCompile(`href="/log/proof/([0-9a-f]{64})"[^>]*>entry ([0-9]+)<`)
	for _, page := range []string{"/log", "/log/partners/flimmer", "/log/partners/lauter"} {
		_, body := w.gets(page)
		links := link.FindAllStringSubmatch(body, -1)
		if len(links) < 2 {
			t.Fatalf("%s has %d links", page, len(links))
		}
		for _, l := range links {
			var leaf Hash
			w.no(leaf.UnmarshalText([]byte(l[1])))
			r, text := w.gets("/log/proof/" + l[1])
			index, _, err := proof.OpenInclusion(leaf, []byte(text), w.log())
			if r.StatusCode != 200 || err != nil || strconv.FormatInt(index, 10) != l[2] {
				t.Errorf("%s, entry %s: %s, index %d, %v", page, l[2], r.Status, index, err)
			}
		}
	}
}

func TestPagesRunNothing(t *testing.T) {
	w := story(t)
	for _, page := range []string{"/log", "/log/partners/flimmer", "/log/partners/lauter"} {
		r, body := w.gets(page)
		if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Fatalf("%s: %s", page, r.Status)
		}
		_, rest, _ := strings.Cut(body, "<style>")
		css, _, _ := strings.Cut(rest, "</style>")
		hash := sha256.Sum256([]byte(css))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(hash[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
		if len(css) < 100 || r.Header.Get("Content-Security-Policy") != want {
			t.Errorf("%s: %d bytes of style, %s", page, len(css), r.Header.Get("Content-Security-Policy"))
		}
		for _, bad := range []string{"<script", "src=", "style=", "@import", "url(", "ZgotmplZ"} {
			if strings.Contains(body, bad) {
				t.Errorf("%s holds %q", page, bad)
			}
		}
	}
	if _, body := w.gets("/log/partners/lauter"); !strings.Contains(body, "&lt;script&gt;alert(1)&lt;/script&gt; sent advertising") {
		t.Error("the reason of the stop is not shown as text")
	}
}

func TestOnePartner(t *testing.T) {
	w := story(t)
	r, body := w.gets("/log/partners/lauter.json")
	var page PartnerPage
	w.no(json.Unmarshal([]byte(body), &page))
	if r.StatusCode != 200 || page.Partner.ID != "lauter" || page.Partner.Agreements[0].End.Cause != "stopped" || page.Size == 0 || page.Root == (Hash{}) {
		t.Errorf("%s: %s", r.Status, body)
	}
	for _, path := range []string{"/log/partners/nobody", "/log/partners/nobody.json", "/log/partners/", "/log/partners/LAUTER"} {
		if r, _ := w.gets(path); r.StatusCode != 404 {
			t.Errorf("%s: %s", path, r.Status)
		}
	}
}

func TestWhoWitnessed(t *testing.T) {
	w := story(t)
	if _, body := w.gets("/log"); !strings.Contains(body, "No witness signs this log.") {
		t.Error("a log without a policy does not say that nobody witnesses it")
	}
	own, other, absent := w.witness(host+"/witness-1"), w.witness("witness.example/w"), w.witness("auditor.example/a")
	line := func(s *torchwood.CosignatureSigner) string { return s.Verifier().String() }
	w.logs(&proof.Policy{Text: "log " + w.keys.LedgerVKey() + "\nwitness own " + line(own) + "\nwitness other " + line(other) +
		"\nwitness absent " + line(absent) + "\ngroup two 2 own other absent\nquorum two\n"})

	w.witnesses = []note.Signer{own}
	o := w.overview()
	if o.Quorum || o.Signed() != 1 || o.Independent() != 0 || !o.Witnesses[0].OperatorRun || o.Witnesses[1].OperatorRun {
		t.Errorf("one witness of the operator's own: %+v", o)
	}
	_, body := w.gets("/log")
	if strings.Count(body, ">not independent<") != 1 || !strings.Contains(body, "Nobody independent has signed.") || !strings.Contains(body, "No quorum.") {
		t.Errorf("the page does not say who signed:\n%s", body)
	}

	w.witnesses = []note.Signer{own, other}
	o = w.overview()
	if !o.Quorum || o.Signed() != 2 || o.Independent() != 1 || o.Witnesses[1].SignedAt == 0 || o.Witnesses[2].SignedAt != 0 {
		t.Errorf("two of three witnesses: %+v", o)
	}
	if _, body := w.gets("/log"); strings.Contains(body, "Nobody independent") || strings.Contains(body, "No quorum") || !strings.Contains(body, ">not independent<") {
		t.Error("the page does not say that there is a quorum, with one independent witness")
	}

	// The next policy's own tree is published under the quorum of the one before.
	w.logs(&proof.Policy{Text: "log " + w.keys.LedgerVKey() + "\nwitness absent " + line(absent) + "\nquorum absent\n"})
	if o := w.overview(); !o.Quorum || len(o.Witnesses) != 3 {
		t.Errorf("under the policy before: %+v", o)
	}
}

func TestOldCheckpointIsSaid(t *testing.T) {
	w := story(t)
	w.now = w.now.Add(59 * time.Minute)
	if _, body := w.gets("/log"); strings.Contains(body, "Old checkpoint.") {
		t.Error("59 minutes are not old")
	}
	w.now = w.now.Add(2 * time.Minute)
	if _, body := w.gets("/log"); !strings.Contains(body, "Old checkpoint.") || !strings.Contains(body, "61 minutes ago") {
		t.Error("an hour is old")
	}
}

// TestUnreadIsSaid: an agreement that this server did not sign is not shown as one, and not passed over in silence.
func TestUnreadIsSaid(t *testing.T) {
	w := story(t)
	w.logs(&proof.Agreement{Countersigned: []byte{1}})
	o := w.overview()
	if len(o.Unread) != 1 || len(o.Partners) != 2 {
		t.Fatalf("%+v", o)
	}
	if _, body := w.gets("/log"); !strings.Contains(body, "cannot read the public entries") {
		t.Error("the page passes over an entry that it cannot read")
	}
}

func TestForeignTreeIsRefused(t *testing.T) {
	w := story(t)
	other, err := ledger.NewKeys(host)
	w.no(err)
	p := &pages{Config: Config{Source: w.source, Host: host, Now: func() time.Time { return w.now }}}
	if p.verifier, err = note.NewVerifier(other.LedgerVKey()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.overview(t.Context()); !chat.Is(err, chat.Unproven) {
		t.Errorf("a tree that another key signed: %v", err)
	}
}
