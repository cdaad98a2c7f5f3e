package report

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/storetest"
)

type world struct {
	*Service
	t    *testing.T
	ctx  context.Context
	keys *ledger.Keys
	at   time.Time
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ctx: context.Background(), at: time.Date(2026, 3, 20, 12, 0, 0, 0, time.UTC)}
	s := storetest.NewDatabase(t)(t)
	var err error
	w.keys, err = ledger.NewKeys("127.0.0.1:8080")
	w.must(err)
	now := func() time.Time { return w.at }
	l, err := ledger.Open(w.ctx, s, w.keys, now, rand.Reader)
	w.must(err)
	w.Service = &Service{Store: s, Ledger: l, PublicURL: "http://127.0.0.1:8080", Now: now, Rand: rand.Reader}
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) update(fn func(*store.Tx) error) error { return w.Store.Update(w.ctx, fn) }

// agreement began on the first of March 2026.
func agreement() *grant.Agreement {
	return &grant.Agreement{Number: 1, Partner: "flimmer", Name: "Flimmer", LinkBases: []string{"https://flimmer.example/films", "http://films.example"},
		Interfaces: []string{"web", "tv"}, Surfaces: []string{"player"}, Variants: []string{"a", "b"},
		NotBefore: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC).UnixMilli(), NotAfter: time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC).UnixMilli()}
}

func (w *world) sent(n int, l Labels) {
	w.t.Helper()
	w.must(w.update(func(tx *store.Tx) error {
		for range n {
			if err := w.Sent(tx, agreement(), w.at.UnixMilli(), l); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (w *world) link(r api.InboxLink, to api.Recipient) (l api.InboxLinked, err error) {
	return l, w.update(func(tx *store.Tx) error {
		l, err = w.NewLink(tx, agreement(), r, to)
		return err
	})
}

func (w *world) build(q api.ReportQuery) (api.BuiltReport, Report) {
	w.t.Helper()
	got, err := w.Build(w.ctx, agreement(), q)
	w.must(err)
	var r Report
	w.must(json.Unmarshal(got.Report, &r))
	return got, r
}

// TestFortnight: one send and one click, the partner agrees, and the ledger has the hash.
func TestFortnight(t *testing.T) {
	w := newWorld(t)
	labels := Labels{"web", "player", "a", api.RecipientNotTold}
	w.sent(1, labels)
	l, err := w.link(api.InboxLink{Base: "https://flimmer.example/films", Interface: "web", Surface: "player", Variant: "a"}, api.RecipientNotTold)
	w.must(err)
	to, err := w.Follow(w.ctx, l.ID)
	w.must(err)
	if to != "https://flimmer.example/films/"+l.ID || l.URL != "http://127.0.0.1:8080/l/"+l.ID {
		t.Fatalf("the link %s leads to %s", l.URL, to)
	}
	w.must(w.update(func(tx *store.Tx) error {
		return w.PutFigures(tx, agreement(), api.InboxFigures{Figures: []api.Figure{{Day: "2026-03-20", Interface: "web", Surface: "player", Variant: "a",
			Recipient: api.RecipientNotTold, Sends: 1, Clicks: 1}}})
	}))
	got, r := w.build(api.ReportQuery{Partner: "flimmer", Threshold: 1})
	if r.From != "2026-03-15" || r.To != "2026-03-28" || len(r.Days) != 1 || len(r.Days[0].Cells) != 1 {
		t.Fatalf("the report: %s", got.Report)
	}
	for _, s := range []Sum{r.Days[0].Cells[0].Sends, r.Days[0].Cells[0].Clicks, r.Days[0].Total.Sends, r.Total.Clicks} {
		if s.Count == nil || *s.Count != 1 || s.Agrees == nil || !*s.Agrees {
			t.Errorf("a sum: %+v", s)
		}
	}
	if hash := sha256.Sum256(got.Report); !bytes.Equal(hash[:], got.Hash) {
		t.Error("the hash is another file's")
	}
	again, _ := w.build(api.ReportQuery{Partner: "flimmer", Threshold: 1})
	if !bytes.Equal(again.Report, got.Report) || !bytes.Equal(again.Leaf, got.Leaf) {
		t.Error("built again it is another report")
	}
	writer := ledger.NewWriter(w.Ledger, slog.New(slog.NewTextHandler(io.Discard, nil)))
	_, err = writer.Step(w.ctx)
	w.must(err)
	_, inclusion, err := w.Ledger.Inclusion(w.ctx, proof.Hash(got.Leaf))
	w.must(err)
	leaf := proof.Report{Partner: "flimmer", Start: time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC).UnixMilli(), Report: [32]byte(got.Hash)}
	if proof.LeafHash(leaf.Bytes()) != proof.Hash(got.Leaf) || len(inclusion) == 0 {
		t.Error("the leaf is another one")
	}
}

func TestDisagreement(t *testing.T) {
	w := newWorld(t)
	w.sent(7, Labels{Interface: "web", Recipient: api.RecipientUser})
	w.must(w.update(func(tx *store.Tx) error {
		return w.PutFigures(tx, agreement(), api.InboxFigures{Figures: []api.Figure{
			{Day: "2026-03-20", Interface: "web", Recipient: api.RecipientUser, Sends: 8},
			{Day: "2026-03-20", Interface: "tv", Recipient: api.RecipientUser, Sends: 9}}})
	}))
	_, r := w.build(api.ReportQuery{Partner: "flimmer"})
	tv, web := r.Days[0].Cells[0], r.Days[0].Cells[1]
	if *web.Sends.Agrees || *web.Sends.Partner != 8 || *web.Sends.Count != 7 {
		t.Errorf("web: %+v", web.Sends)
	}
	if !tv.Sends.Withheld || tv.Sends.Partner != nil || tv.Sends.Agrees != nil { // 0 on our side is below the threshold: not compared
		t.Errorf("tv: %+v", tv.Sends)
	}
}

func TestDefaultThreshold(t *testing.T) {
	w := newWorld(t)
	w.sent(4, Labels{Interface: "web", Recipient: api.RecipientUser})
	w.sent(5, Labels{Interface: "tv", Recipient: api.RecipientUser})
	got, r := w.build(api.ReportQuery{Partner: "flimmer"})
	if r.Threshold != 5 || r.Days[0].Cells[0].Sends.Withheld || !r.Days[0].Cells[1].Sends.Withheld || !r.Days[0].Total.Sends.Withheld || !r.Total.Sends.Withheld {
		t.Errorf("the report: %s", got.Report)
	}
	if strings.Contains(string(got.Report), `"count":4`) || strings.Contains(string(got.Report), `"count":9`) {
		t.Errorf("a withheld count can be read: %s", got.Report)
	}
}

// TestNothingRecoverable: over random tables, whoever reads the report and knows the rules finds for each withheld cell every value from 0 to
// below the threshold possible, with some values of the others that give the same report.
func TestNothingRecoverable(t *testing.T) {
	const threshold = 3
	rnd := mrand.New(mrand.NewPCG(1, 2))
	tables := 0
	for range 400 {
		var counts []store.Count
		for day := range int64(1 + rnd.IntN(3)) {
			for cell := range 1 + rnd.IntN(3) {
				counts = append(counts, store.Count{Day: day, Labels: store.Labels{Interface: string(rune('a' + cell))}, Sends: uint64(rnd.IntN(5))})
			}
		}
		hidden := 0
		for _, c := range counts {
			if c.Sends < threshold {
				hidden++
			}
		}
		if hidden > 6 {
			continue
		}
		report := sums(counts, threshold)
		possible := map[int]map[uint64]bool{}
		var try func(i int, guess []store.Count)
		try = func(i int, guess []store.Count) {
			if i == len(counts) {
				if sums(guess, threshold) != report {
					return
				}
				for j, c := range counts {
					if c.Sends < threshold {
						if possible[j] == nil {
							possible[j] = map[uint64]bool{}
						}
						possible[j][guess[j].Sends] = true
					}
				}
				return
			}
			if counts[i].Sends >= threshold {
				try(i+1, guess)
				return
			}
			for v := range uint64(threshold) {
				g := append([]store.Count{}, guess...)
				g[i].Sends = v
				try(i+1, g)
			}
		}
		try(0, counts)
		for j, c := range counts {
			if c.Sends < threshold && len(possible[j]) != threshold {
				t.Fatalf("cell %d of %+v can only be %v", j, counts, possible[j])
			}
		}
		if hidden > 0 {
			tables++
		}
	}
	if tables < 100 {
		t.Errorf("only %d tables had something to hide", tables)
	}
}

// sums is the report on sends as its reader sees it.
func sums(counts []store.Count, threshold uint64) string {
	b, _ := json.Marshal(assemble(agreement(), 0, threshold, counts, nil))
	return string(b)
}

func TestPeriods(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ today, from, want string }{
		{"2026-03-01", "", "2026-03-01"}, {"2026-03-14", "", "2026-03-01"}, {"2026-03-15", "", "2026-03-15"}, {"2026-02-01", "", "2026-03-01"},
		{"2026-03-20", "2026-03-07", "2026-03-07"},
	} {
		w.at, _ = time.Parse(time.DateOnly, c.today)
		if _, r := w.build(api.ReportQuery{From: c.from}); r.From != c.want {
			t.Errorf("on %s from %q: %s", c.today, c.from, r.From)
		}
	}
	for _, q := range []api.ReportQuery{{From: "yesterday"}, {From: "2026-13-01"}, {From: "1960-01-01"}, {Threshold: maxThreshold + 1}} {
		if _, err := w.Build(w.ctx, agreement(), q); !chat.Is(err, chat.Invalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestBases(t *testing.T) {
	w := newWorld(t)
	for base, kind := range map[string]chat.Kind{
		"https://flimmer.example/films":                                 "",
		"https://flimmer.example/films/":                                "",
		"https://flimmer.example/films/tv":                              "",
		"http://films.example":                                          "",
		"http://films.example/x":                                        "",
		"https://flimmer.example":                                       chat.Forbidden,
		"https://flimmer.example/":                                      chat.Forbidden,
		"https://flimmer.example/filmset":                               chat.Forbidden,
		"http://flimmer.example/films":                                  chat.Forbidden,
		"https://evil.example/films":                                    chat.Forbidden,
		"https://flimmer.example.evil.example/films":                    chat.Forbidden,
		"https://flimmer.example:8443/films":                            chat.Forbidden,
		"https://flimmer.example/films/../admin":                        chat.Invalid,
		"https://flimmer.example/films/./x":                             chat.Invalid,
		"https://flimmer.example//films":                                chat.Invalid,
		"https://flimmer.example/films/%2e%2e/admin":                    chat.Invalid,
		"https://flimmer.example/films\\..\\admin":                      chat.Invalid,
		"https://flimmer.example/films?to=evil":                         chat.Invalid,
		"https://flimmer.example/films?":                                chat.Invalid,
		"https://flimmer.example/films#":                                chat.Invalid,
		"https://flimmer.example/films#x":                               chat.Invalid,
		"https://alice@flimmer.example/films":                           chat.Invalid,
		"https://flimmer.example@evil.example/films":                    chat.Invalid,
		"javascript:alert(1)":                                           chat.Invalid,
		"//flimmer.example/films":                                       chat.Forbidden,
		"/films":                                                        chat.Invalid,
		"":                                                              chat.Invalid,
		"https://flimmer.example/films/a\r\nX: y":                       chat.Invalid,
		"https://flimmer.example/films/" + strings.Repeat("x", maxBase): chat.Invalid,
	} {
		_, err := w.link(api.InboxLink{Base: base}, api.RecipientUser)
		if kind == "" && err != nil || kind != "" && !chat.Is(err, kind) {
			t.Errorf("%q: %v", base, err)
		}
	}
}

func TestFollowRefuses(t *testing.T) {
	w := newWorld(t)
	l, err := w.link(api.InboxLink{Base: "https://flimmer.example/films"}, api.RecipientUser)
	w.must(err)
	for _, id := range []string{"", "x", strings.Repeat("0", 32), strings.ToUpper(l.ID), l.ID[:30], l.ID + "00"} {
		if _, err := w.Follow(w.ctx, id); !chat.Is(err, chat.NotFound) && id != l.ID {
			t.Errorf("%q: %v", id, err)
		}
	}
	if _, r := w.build(api.ReportQuery{Threshold: 1}); len(r.Days) != 0 {
		t.Errorf("a wrong id was counted: %+v", r.Days)
	}
}

func TestFiguresRefused(t *testing.T) {
	w := newWorld(t)
	good := api.Figure{Day: "2026-03-20", Recipient: api.RecipientUser, Sends: 1}
	for name, spoil := range map[string]func(*api.Figure){
		"no day":          func(f *api.Figure) { f.Day = "" },
		"a day far ahead": func(f *api.Figure) { f.Day = "2026-03-23" },
		"a day long ago":  func(f *api.Figure) { f.Day = "2025-03-01" },
		"unknown label":   func(f *api.Figure) { f.Interface = "fridge" },
		"unknown kind":    func(f *api.Figure) { f.Recipient = "bob" },
		"too many sends":  func(f *api.Figure) { f.Sends = maxFigure + 1 },
		"too many clicks": func(f *api.Figure) { f.Clicks = maxFigure + 1 },
	} {
		f := good
		spoil(&f)
		if err := w.update(func(tx *store.Tx) error {
			return w.PutFigures(tx, agreement(), api.InboxFigures{Figures: []api.Figure{good, f}})
		}); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := w.update(func(tx *store.Tx) error {
		return w.PutFigures(tx, agreement(), api.InboxFigures{Figures: make([]api.Figure, api.MaxFigures+1)})
	})
	if !chat.Is(err, chat.TooLarge) {
		t.Errorf("too many: %v", err)
	}
	if _, r := w.build(api.ReportQuery{Threshold: 1}); len(r.Days) != 0 {
		t.Error("refused figures were kept")
	}
}

func FuzzBase(f *testing.F) {
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", "FuzzBase"))
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seeds in testdata/fuzz/FuzzBase")
	}
	a := agreement()
	f.Fuzz(func(t *testing.T, base string) {
		if checkBase(a, base) != nil {
			return
		}
		ok := false
		for _, b := range a.LinkBases {
			ok = ok || base == b || strings.HasPrefix(base, b+"/")
		}
		if !ok || strings.ContainsAny(base, "?#@\\ \r\n") || strings.Contains(base, "..") {
			t.Errorf("accepted %q", base)
		}
	})
}
