// Package logpage shows the public log to people: whose it is, who witnessed it, and every agreement in clear with its proof.
//
//	logpage.go  the routes: HTML, and the same as JSON
//	record.go   what the public entries say of each partner
//	overview.go what the newest checkpoint says, and who signed it
//	*.html      the pages; style.css stands inside each, so that a page is one answer
//
// Neighbours: package ledger gives the public entries and the head of the published tree; package proof opens them; package grant says what
// an agreement allows; package httpd routes. It knows no person, no grant and no store, decides nothing, and shows nothing that is not in
// the published tree. A page is the operator's word: what counts are the proofs that it links to.
package logpage

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/proof"
)

// Entry is a public entry of the log (spec/map.md section 1).
type Entry struct {
	Index int64
	Leaf  []byte
}

// Source gives public entries from a number on, as many as it likes but at least one if there is one, and the head of the published tree.
type Source func(ctx context.Context, from uint64) (*proof.Head, []Entry, error)

// Config says whose log is shown.
type Config struct {
	Source     Source
	Host       string
	PublicURL  string
	LedgerVKey string
	ServerKey  ed25519.PublicKey // countersigns agreements
	Now        func() time.Time
	Fail       func(http.ResponseWriter, *http.Request, error) // answers errors: package httpd's
}

// pages keeps what it has read: public entries never change.
type pages struct {
	Config
	verifier note.Verifier

	mu     sync.Mutex
	record record
}

// Handler serves GET /log, /log.json, /log/partners/{partner} and /log/partners/{partner}.json.
func Handler(c Config) (http.Handler, error) {
	v, err := note.NewVerifier(c.LedgerVKey)
	if err != nil {
		return nil, err
	}
	p := &pages{Config: c, verifier: v}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /log", p.serve(func(o *Overview, _ *http.Request) (view, error) { return view{"log.html", o}, nil }))
	mux.HandleFunc("GET /log.json", p.serve(func(o *Overview, _ *http.Request) (view, error) { return view{"", o}, nil }))
	mux.HandleFunc("GET /log/partners/{partner}", p.serve(partnerView))
	return mux, nil
}

// view is what is answered: a page, or JSON where the page has no name.
type view struct {
	page string
	data any
}

// PartnerPage is one partner's whole record, with the tree that it stands in.
type PartnerPage struct {
	*Overview `json:"-"`
	Size      int64    `json:"size"`
	Root      Hash     `json:"root"`
	Partner   *Partner `json:"partner"`
}

func partnerView(o *Overview, r *http.Request) (view, error) {
	id, asJSON := strings.CutSuffix(r.PathValue("partner"), ".json") // an id has no dot
	for _, p := range o.Partners {
		if p.ID != id {
			continue
		}
		page := &PartnerPage{Overview: o, Size: o.Size, Root: o.Root, Partner: p}
		if asJSON {
			return view{"", page}, nil
		}
		return view{"partner.html", page}, nil
	}
	return view{}, chat.Errorf(chat.NotFound, "the log has no agreement with a partner of this id")
}

func (p *pages) serve(choose func(*Overview, *http.Request) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		o, err := p.overview(r.Context())
		if err == nil {
			var v view
			if v, err = choose(o, r); err == nil {
				err = v.answer(w)
			}
		}
		if err != nil {
			p.Fail(w, r, err)
		}
	}
}

// answer writes the whole page or nothing of it.
func (v view) answer(w http.ResponseWriter) error {
	var body bytes.Buffer
	h := w.Header()
	if v.page == "" {
		e := json.NewEncoder(&body)
		e.SetIndent("", "  ")
		if err := e.Encode(v.data); err != nil {
			return err
		}
		h.Set("Content-Type", "application/json")
		h.Set("Access-Control-Allow-Origin", "*") // public to everybody
	} else {
		if err := templates.ExecuteTemplate(&body, v.page, v.data); err != nil {
			return err
		}
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
	}
	h.Set("Cache-Control", "no-cache")
	w.Write(body.Bytes()) // an error means that the client went away
	return nil
}

//go:embed *.html style.css
var files embed.FS

var (
	style     = mustRead("style.css")
	templates = template.Must(template.New("").Funcs(template.FuncMap{
		"style": func() template.CSS { return template.CSS(style) },
		"time":  timeText, "day": dayText, "list": listText, "number": numberText[int64], "count": numberText[uint64],
	}).ParseFS(files, "*.html"))
	// policy lets a page use its own stylesheet, found by its hash, and nothing else.
	policy = "default-src 'none'; style-src 'sha256-" + styleHash() + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

func mustRead(name string) string {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err)
	}
	return string(data)
}

func styleHash() string {
	hash := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(hash[:])
}
