package ledger

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
)

// kindStatus answers errors as package httpd would, for the kinds that occur here.
func kindStatus(w http.ResponseWriter, _ *http.Request, err error) {
	status := map[chat.Kind]int{chat.NotFound: 404, chat.Invalid: 400}[chat.KindOf(err)]
	if status == 0 {
		status = 500
	}
	w.WriteHeader(status)
}

// TestHandlerServesTorchwood: an outside client reads the log over HTTP, as C2SP says.
func TestHandlerServesTorchwood(t *testing.T) {
	b := newBench(t)
	hashes := b.reports(600)
	b.drain()
	server := httptest.NewServer(Handler(b.Ledger, kindStatus))
	defer server.Close()
	fetcher, err := torchwood.NewTileFetcher(server.URL + "/log")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	c, err := proof.OpenCheckpoint(signed, b.verifier)
	if err != nil {
		t.Fatal(err)
	}
	client, err := torchwood.NewClient(fetcher)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range client.AllEntries(ctx, tlog.Tree{N: c.Size, Hash: c.Root}, 0) {
		n++
	}
	if client.Err() != nil || n != 603 {
		t.Fatalf("%d entries, %v", n, client.Err())
	}
	text, err := fetcher.ReadEndpoint(ctx, "proof/"+hex.EncodeToString(hashes[9][:])+"?wait=1")
	if err != nil {
		t.Fatal(err)
	}
	if index, _, err := proof.OpenInclusion(hashes[9], text, b.verifier); err != nil || index != 11 {
		t.Error(index, err)
	}
	body, err := fetcher.ReadEndpoint(ctx, "consistency?from=10&to=603")
	if err != nil {
		t.Fatal(err)
	}
	var list []tlog.Hash
	if err := json.Unmarshal(body, &list); err != nil || len(list) == 0 {
		t.Errorf("%s, %v", body, err)
	}
}

// TestTileHeaders: what C2SP tlog-tiles says of types and caches, over a real connection.
func TestTileHeaders(t *testing.T) {
	b := newBench(t)
	b.reports(600)
	b.drain()
	server := httptest.NewServer(Handler(b.Ledger, kindStatus))
	defer server.Close()
	const forever = "public, max-age=31536000, immutable"
	for path, want := range map[string]struct {
		contentType, cache string
		size               int
	}{
		"/log/checkpoint":           {"text/plain; charset=utf-8", "no-cache", -1},
		"/log/tile/0/000":           {"application/octet-stream", forever, 256 * 32},
		"/log/tile/0/000.p/7":       {"application/octet-stream", forever, 7 * 32},
		"/log/tile/0/002.p/5":       {"application/octet-stream", forever, 5 * 32},
		"/log/tile/1/000.p/2":       {"application/octet-stream", forever, 2 * 32},
		"/log/tile/entries/001":     {"application/octet-stream", forever, -1},
		"/log/tile/entries/002.p/5": {"application/octet-stream", forever, -1},
	} {
		r, body := fetch(t, "GET", server.URL+path, "")
		h := r.Header
		if r.StatusCode != 200 || h.Get("Content-Type") != want.contentType || h.Get("Cache-Control") != want.cache || h.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %s %v", path, r.Status, h)
		}
		if want.size >= 0 && len(body) != want.size {
			t.Errorf("%s: %d bytes", path, len(body))
		}
		head, none := fetch(t, "HEAD", server.URL+path, "")
		if head.StatusCode != 200 || len(none) != 0 || head.ContentLength != int64(len(body)) || head.Header.Get("ETag") != h.Get("ETag") {
			t.Errorf("HEAD %s: %s, %d bytes, %v", path, head.Status, len(none), head.Header)
		}
		if r, body := fetch(t, "GET", server.URL+path, h.Get("ETag")); r.StatusCode != 304 || len(body) != 0 {
			t.Errorf("%s with its ETag: %s, %d bytes", path, r.Status, len(body))
		}
	}
	old, _ := fetch(t, "HEAD", server.URL+"/log/checkpoint", "")
	b.reports(1)
	b.drain()
	if r, body := fetch(t, "GET", server.URL+"/log/checkpoint", old.Header.Get("ETag")); r.StatusCode != 200 || len(body) == 0 {
		t.Errorf("a new checkpoint under the old ETag: %s", r.Status)
	}
	if r, _ := fetch(t, "GET", server.URL+"/log/tile/0/009", ""); r.StatusCode != 404 || r.Header.Get("Cache-Control") == forever {
		t.Errorf("a tile that will be there one day: %s %v", r.Status, r.Header)
	}
}

func fetch(t *testing.T, method, url, known string) (*http.Response, []byte) {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if known != "" {
		q.Header.Set("If-None-Match", known)
	}
	r, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, body
}

func TestHandlerRefuses(t *testing.T) {
	b := newBench(t)
	h := Handler(b.Ledger, kindStatus)
	leaf := fmt.Sprintf("%064x", 1)
	for path, want := range map[string]int{
		"/log/checkpoint":                    200,
		"/log/proof/" + leaf:                 404,
		"/log/proof/ABCD":                    400,
		"/log/proof/" + leaf[1:] + "A":       400,
		"/log/proof/" + leaf[1:] + "x":       400,
		"/log/proof/" + leaf + "?wait=61":    400,
		"/log/proof/" + leaf + "?wait=-1":    400,
		"/log/proof/" + leaf + "?wait=x":     400,
		"/log/consistency":                   400,
		"/log/consistency?from=1&to=9":       400,
		"/log/consistency?from=1&to=1":       200,
		"/log/consistency?from=x&to=1":       400,
		"/log/tile/0/000.p/1":                200,
		"/log/tile/entries/000.p/1":          200,
		"/log/tile/entries/000":              404,
		"/log/tile/../../etc/passwd":         307, // the mux cleans the path
		"/log/tile/0/..%2f..%2fetc%2fpasswd": 400,
		"/log/other":                         404,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("POST", "/log/checkpoint", nil))
	if w.Code != 405 {
		t.Errorf("POST: %d", w.Code)
	}
}

// FuzzTile asks for tiles under any path. Its seeds are testdata/fuzz/FuzzTile.
func FuzzTile(f *testing.F) {
	b := newBench(f)
	b.reports(300)
	b.drain()
	f.Fuzz(func(t *testing.T, path string) {
		data, err := b.Tile(ctx, path)
		if err != nil && !chat.Is(err, chat.Invalid) && !chat.Is(err, chat.NotFound) {
			t.Fatal(err)
		}
		if err == nil && len(data) == 0 {
			t.Fatal("an empty tile")
		}
	})
}

func TestFuzzSeeds(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "fuzz", "FuzzTile", "*"))
	if err != nil || len(files) == 0 {
		t.Fatal("FuzzTile has no seeds")
	}
	for _, name := range files {
		if data, err := os.ReadFile(name); err != nil || len(data) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}
