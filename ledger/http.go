package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/proof"
)

// maxWait is the longest that a request for a proof is held, in seconds.
const maxWait = 60

// Handler serves the public log at /log/ (spec/ledger.md section 1). fail answers errors: the mapping of kinds to HTTP is package
// httpd's.
func Handler(l *Ledger, fail func(http.ResponseWriter, *http.Request, error)) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := answer(w, r); err != nil {
				fail(w, r, err)
			}
		})
	}
	handle("GET /log/checkpoint", l.serveCheckpoint)
	handle("GET /log/tile/{path...}", l.serveTile)
	handle("GET /log/proof/{leaf}", l.serveProof)
	handle("GET /log/consistency", l.serveConsistency)
	handle("GET /log/map/{label}", l.serveMap)
	handle("GET /log/public", l.servePublic)
	handle("GET /log/policies", l.servePolicies)
	return mux
}

// What caches may do (C2SP tlog-tiles): a tile, of whatever width, never changes; a checkpoint is asked for again each time, though its
// ETag spares the body.
const (
	changing  = "no-store"
	recheck   = "no-cache"
	immutable = "public, max-age=31536000, immutable"
)

func answer(w http.ResponseWriter, contentType, cache string, body []byte) error {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", cache)
	w.Header().Set("Access-Control-Allow-Origin", "*") // public to everybody
	w.Write(body)                                      // an error means that the client went away
	return nil
}

// answerTagged is answer for what a reader may hold already: HEAD, If-None-Match and ranges are answered as RFC 9110 says.
func answerTagged(w http.ResponseWriter, r *http.Request, contentType, cache string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", cache)
	h.Set("Access-Control-Allow-Origin", "*")
	tag := sha256.Sum256(body)
	h.Set("ETag", fmt.Sprintf("\"%x\"", tag[:16]))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	return nil
}

func (l *Ledger) serveCheckpoint(w http.ResponseWriter, r *http.Request) error {
	signed, err := l.Checkpoint(r.Context())
	if err != nil {
		return err
	}
	return answerTagged(w, r, "text/plain; charset=utf-8", recheck, signed)
}

func (l *Ledger) serveTile(w http.ResponseWriter, r *http.Request) error {
	data, err := l.Tile(r.Context(), "tile/"+r.PathValue("path"))
	if err != nil {
		return err
	}
	return answerTagged(w, r, "application/octet-stream", immutable, data)
}

func (l *Ledger) serveProof(w http.ResponseWriter, r *http.Request) error {
	leaf, err := parseHash(r.PathValue("leaf"))
	if err != nil {
		return err
	}
	seconds, err := number(r, "wait", 0)
	if err != nil || seconds > maxWait {
		return chat.Errorf(chat.Invalid, "wait is a number of seconds from 0 to %d", maxWait)
	}
	find := l.Inclusion
	ctx := r.Context()
	if seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
		find = l.Wait
	}
	_, text, err := find(ctx, leaf)
	if err != nil {
		return err
	}
	return answer(w, "text/plain; charset=utf-8", changing, text)
}

func (l *Ledger) serveConsistency(w http.ResponseWriter, r *http.Request) error {
	from, err := number(r, "from", -1)
	if err != nil {
		return err
	}
	to, err := number(r, "to", -1)
	if err != nil {
		return err
	}
	list, err := l.Consistency(r.Context(), from, to)
	if err != nil {
		return err
	}
	hashes := make([]tlog.Hash, len(list))
	for i, h := range list {
		hashes[i] = h
	}
	return answerJSON(w, hashes)
}

func (l *Ledger) serveMap(w http.ResponseWriter, r *http.Request) error {
	label, err := parseHash(r.PathValue("label"))
	if err != nil {
		return err
	}
	head, p, err := l.MapProof(r.Context(), label)
	if err != nil {
		return err
	}
	return answerJSON(w, struct {
		Head  []byte `json:"head"`
		Proof []byte `json:"proof"`
	}{head.Bytes(), p})
}

func (l *Ledger) servePublic(w http.ResponseWriter, r *http.Request) error {
	from, err := number(r, "from", 0)
	if err != nil {
		return err
	}
	head, list, err := l.PublicEntries(r.Context(), uint64(from), maxPublic)
	if err != nil {
		return err
	}
	entries := make([]api.PublicEntry, len(list))
	for i, e := range list {
		entries[i] = api.PublicEntry(e)
	}
	return answerJSON(w, api.PublicEntries{Head: head.Bytes(), Entries: entries})
}

func answerJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return answer(w, "application/json", changing, body)
}

func parseHash(text string) (h proof.Hash, err error) {
	if len(text) != hex.EncodedLen(len(h)) || strings.ToLower(text) != text {
		return h, chat.Errorf(chat.Invalid, "a hash is %d lower-case hex digits", hex.EncodedLen(len(h)))
	}
	if _, err := hex.Decode(h[:], []byte(text)); err != nil {
		return h, chat.Errorf(chat.Invalid, "a hash is %d lower-case hex digits", hex.EncodedLen(len(h)))
	}
	return h, nil
}

func number(r *http.Request, name string, missing int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, chat.Errorf(chat.Invalid, "%s is not a number", name)
	}
	return n, nil
}
