package chat

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the fuzz seeds anew")

var (
	testDevice = DeviceID{0xab, 1}
	testGrant  = GrantID{0xcd, 2}
)

func TestURIs(t *testing.T) {
	const host = "chat.example:8080"
	for want, got := range map[string]string{
		"mimi://chat.example:8080/u/alice":                                    AccountURI(host, "alice"),
		"mimi://chat.example:8080/d/alice/ab01000000000000":                   DeviceURI(host, "alice", testDevice),
		"mimi://chat.example:8080/r/01000000000000000000000000000000":         ConversationURI(host, ConversationID{1}),
		"mimi://chat.example:8080/a/flimmer/cd020000000000000000000000000000": AgentURI(host, "flimmer", testGrant),
	} {
		if got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestParseIdentity(t *testing.T) {
	for _, want := range []Identity{
		{Host: "a", Handle: "alice", Device: testDevice},
		{Host: "chat.example:8080", Handle: "a.b_c-d"},
		{Host: "a", Partner: "flimmer", Grant: testGrant},
		{Host: strings.Repeat("a", 253), Partner: strings.Repeat("b", 32), Grant: testGrant},
	} {
		got, err := ParseIdentity([]byte(want.String()))
		if err != nil || got != want || got.IsAgent() != (want.Partner != "") {
			t.Errorf("%s became %+v: %v", want, got, err)
		}
	}
	const device, grant = "ab01000000000000", "cd020000000000000000000000000000"
	for _, bad := range []string{
		"", "mimi://", "mimi:////", "alice",
		"MIMI://a/d/alice/" + device, "mimi:/a/d/alice/" + device, "https://a/d/alice/" + device, " mimi://a/d/alice/" + device,
		"mimi://A/d/alice/" + device, "mimi:///d/alice/" + device, "mimi://bob@a/d/alice/" + device, "mimi://a:/d/alice/" + device,
		"mimi://a/u/alice", "mimi://a/u/alice/" + device, "mimi://a/r/" + grant, "mimi://a/x/alice/" + device, "mimi://a/D/alice/" + device,
		"mimi://a/d/alice", "mimi://a/d/alice/", "mimi://a/d//" + device, "mimi://a/d/Alice/" + device, "mimi://a/d/alice/" + device + "/",
		"mimi://a/d/alice/" + device + "/x", "mimi://a//d/alice/" + device, "mimi://a/d/alice/" + strings.ToUpper(device), "mimi://a/d/alice/" + device[1:],
		"mimi://a/d/alice/" + grant, "mimi://a/d/alice/" + device + "?x", "mimi://a/d/alice/" + device + "#x", "mimi://a/d/alice/" + device + "\n",
		"mimi://a/d/al%69ce/" + device, "mimi://a/d/../" + device, "mimi://a/d/alice\x00/" + device, "mimi://a/d/al\xffce/" + device,
		"mimi://a/a/flimmer/" + device, "mimi://a/a/Flimmer/" + grant, "mimi://a/a/flim.mer/" + grant, "mimi://a/a//" + grant, "mimi://a/a/flimmer",
		"mimi://a/a/flimmer/" + grant + "/" + device, "mimi://" + strings.Repeat("a", 600) + "/d/alice/" + device,
	} {
		if id, err := ParseIdentity([]byte(bad)); !Is(err, Invalid) || id != (Identity{}) || len(err.Error()) > 400 {
			t.Errorf("%q: %+v %v", bad, id, err)
		}
	}
}

// TestFuzzSeeds fails when the fuzz test has no seeds: it would then test nothing in a plain `go test`.
func TestFuzzSeeds(t *testing.T) {
	dir := filepath.Join("testdata", "fuzz", "FuzzParseIdentity")
	if *update {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, s := range []string{DeviceURI("chat.example:8080", "alice", testDevice), AgentURI("chat.example", "flimmer", testGrant), AccountURI("a", "alice"),
			DeviceURI("127.0.0.1:8080", "a.b", testDevice) + "/x"} {
			text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", s)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed-%d", i)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) == 0 {
		t.Errorf("FuzzParseIdentity has no seeds: run go test ./chat -run TestFuzzSeeds -update")
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		id, err := ParseIdentity(data)
		if err != nil {
			if !Is(err, Invalid) {
				t.Fatalf("an error without a kind: %v", err)
			}
			return
		}
		if id.String() != string(data) {
			t.Fatalf("%q became %q", data, id)
		}
		if id.IsAgent() && (id.Handle != "" || id.Device != DeviceID{}) || !id.IsAgent() && (id.Partner != "" || !id.Grant.IsZero()) {
			t.Fatalf("%q is both: %+v", data, id)
		}
	})
}
