package operate

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"letterlock/api"
	"letterlock/proof"
)

// TestReproducible builds a release twice, from two folders with other times on the files, and once more where it stands.
func TestReproducible(t *testing.T) {
	build := func(script string, args ...string) string {
		t.Helper()
		cmd := exec.Command("sh", append([]string{script}, args...)...)
		cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CACHE=shared")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", script, err, out)
		}
		return string(out)
	}
	const name = "letterlock-linux-amd64"
	twice := build("contrib/reproduce.sh", "v9.8.7", name)
	file := filepath.Join(t.TempDir(), name)
	build("contrib/build.sh", name, "v9.8.7", ".", file)
	here, err := exec.Command("sha256sum", file).Output()
	must(t, err)
	if hash, _, _ := strings.Cut(string(here), " "); twice != hash+"  "+name+"\n" {
		t.Errorf("reproduce.sh says %q, and a build gives %s", twice, hash)
	}
	if out, err := exec.Command(file, "version").Output(); err != nil || !strings.HasPrefix(string(out), "letterlock v9.8.7, built with go1.") {
		t.Errorf("its version: %q, %v", out, err)
	}
}

// TestReleases puts the hash of this very program into a ledger and checks the program against it.
func TestReleases(t *testing.T) {
	s, _ := newSite(t, nil, nil, nil)
	if out := s.admin("release", "list"); !strings.Contains(out, "No release") {
		t.Errorf("release list: %s", out)
	}
	verify := func(want int, words string, args ...string) {
		t.Helper()
		if code, out := s.try(append([]string{"verify"}, args...)...); code != want || !strings.Contains(out, words) {
			t.Errorf("verify %s: %d, want %d and %q\n%s", strings.Join(args, " "), code, want, words, out)
		}
	}
	host := strings.TrimPrefix(s.url, "http://")
	verify(4, "none of the releases in the ledger of "+host+" is this file", "--binary", "self", "--server", s.url)
	var added struct{ Index int64 }
	must(t, json.Unmarshal([]byte(s.admin("release", "add", binary, "--version", "v1.0.0", "--name", "letterlock-linux-amd64", "--json")), &added))
	if added.Index < 1 {
		t.Errorf("it stands at %d", added.Index)
	}
	s.admin("release", "add", binary, "--version", "v1.0.0", "--name", "letterlock-linux-amd64") // again: nothing new
	if out := s.admin("release", "list"); strings.Count(out, "letterlock-linux-amd64 v1.0.0  (entry ") != 1 {
		t.Errorf("release list: %s", out)
	}
	said := "This file is letterlock-linux-amd64 v1.0.0 as released by " + host + ", entry "
	verify(0, said, "--binary", "self", "--server", s.url)
	verify(0, "the server's own claim", "--binary", binary, "--server", s.url)

	who, err := http.Get(s.url + "/.well-known/letterlock")
	must(t, err)
	defer who.Body.Close()
	var server api.Server
	must(t, json.NewDecoder(who.Body).Decode(&server))
	if code, out := s.try("verify", "--binary", binary, "--server", s.url, "--ledger-key", server.LedgerVKey); code != 0 || strings.Contains(out, "own claim") {
		t.Errorf("with the ledger's key: %d %s", code, out)
	}
	other, _ := newSite(t, nil, nil, nil)
	verify(4, "none of the releases", "--binary", binary, "--server", other.url)
	other.admin("release", "add", binary, "--version", "v1.0.0")
	verify(4, "the checkpoint is not signed by the ledger", "--binary", binary, "--server", other.url, "--ledger-key", server.LedgerVKey)

	// One flipped byte is another program.
	data, err := os.ReadFile(binary)
	must(t, err)
	data[len(data)/2] ^= 1
	changed := filepath.Join(s.dir, "changed")
	must(t, os.WriteFile(changed, data, 0o700))
	verify(4, "none of the releases", "--binary", changed, "--server", s.url)
	if code, out := s.try("admin", "--data", "server", "release", "add", changed, "--version", "v1.0.0", "--name", "letterlock-linux-amd64"); code != 1 || !strings.Contains(out, "it gets a new version") {
		t.Errorf("another file under a version that stands: %d %s", code, out)
	}
	verify(2, "--binary needs --server", "--binary", changed)
	verify(2, "not both", "--binary", changed, "--server", s.url, "bundle.json")
	verify(5, "", "--binary", changed, "--server", "http://127.0.0.1:1")
}

// TestReleaseNeverLogged: a server shows a release that its ledger does not hold, in the place of another entry, at the end, or by leaving
// out what stands there.
func TestReleaseNeverLogged(t *testing.T) {
	s, _ := newSite(t, nil, nil, nil)
	other := filepath.Join(s.dir, "other")
	must(t, os.WriteFile(other, []byte("another file"), 0o600))
	s.admin("release", "add", other, "--version", "v1.0.0")
	hash, err := exec.Command("sha256sum", binary).Output()
	must(t, err)
	forged := proof.Release{Name: "letterlock-linux-amd64", Version: "v1.0.0"}
	for i := range forged.SHA256 {
		forged.SHA256[i] = unhex(hash[2*i])<<4 | unhex(hash[2*i+1])
	}
	for lie, c := range map[string]struct {
		file   string
		change func(*api.PublicEntries)
		words  string
	}{
		"in the place of another": {binary, func(p *api.PublicEntries) { p.Entries[0].Leaf = forged.Bytes() }, "the map holds another entry under this label"},
		"at the end": {binary, func(p *api.PublicEntries) {
			p.Entries = append(p.Entries, api.PublicEntry{Index: 9, Leaf: forged.Bytes(), Proof: p.Entries[0].Proof})
		}, "the server does not prove what its ledger holds"},
		"left out": {other, func(p *api.PublicEntries) { p.Entries = nil }, "the server shows 0 of the 1 public entries"},
		"honest":   {binary, func(*api.PublicEntries) {}, "none of the releases"},
	} {
		listed := httptest.NewServer(rewritten(t, s.url, c.change))
		code, out := s.try("verify", "--binary", c.file, "--server", listed.URL)
		if listed.Close(); code != 4 || !strings.Contains(out, c.words) {
			t.Errorf("%s: %d, want 4 and %q: %s", lie, code, c.words, out)
		}
	}
}

func unhex(c byte) byte { return byte(strings.IndexByte("0123456789abcdef", c)) }

// rewritten passes everything on to a server, and changes what it says of its public entries.
func rewritten(t *testing.T, to string, change func(*api.PublicEntries)) http.Handler {
	t.Helper()
	target, err := url.Parse(to)
	must(t, err)
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(r *http.Response) error {
		if r.Request.URL.Path != "/log/public" {
			return nil
		}
		var list api.PublicEntries
		if err := json.NewDecoder(r.Body).Decode(&list); err != nil {
			return err
		}
		change(&list)
		text, err := json.Marshal(list)
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(string(text))), int64(len(text))
		r.Header.Del("Content-Length")
		return err
	}
	return p
}
