package ledger

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
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
		data, full, err := b.Tile(ctx, path)
		if err != nil && !chat.Is(err, chat.Invalid) && !chat.Is(err, chat.NotFound) {
			t.Fatal(err)
		}
		if err == nil && (len(data) == 0 || full && len(data) < 256*32) {
			t.Fatalf("%d bytes, full %t", len(data), full)
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
