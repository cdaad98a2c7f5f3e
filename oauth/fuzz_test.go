package oauth

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/luikyv/go-oidc/pkg/goidc"

	"letterlock/canon"
	"letterlock/chat"
)

// FuzzDetail reads what a partner asks for: whatever is accepted is within the limits and survives being stored.
func FuzzDetail(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		var raw goidc.AuthDetail
		if json.Unmarshal(data, &raw) != nil {
			return
		}
		d, err := parseDetail(raw)
		if err != nil {
			if chat.KindOf(err) == chat.Internal {
				t.Fatalf("a bad request became our fault: %v", err)
			}
			return
		}
		if d.actions()&^chat.AllActions != 0 || d.actions() == 0 || d.Grant.IsZero() || len(d.Certs) > maxCerts || len(d.KeyPackage) > maxKeyPackage {
			t.Fatalf("accepted: %+v", d)
		}
		var back pushed
		if err := canon.Unmarshal(canon.MustMarshal(pushed{Version: pushedVersion, Detail: d}), &back); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzClient(f *testing.F) {
	f.Fuzz(func(t *testing.T, jwks []byte, redirect string) {
		if CheckClient(jwks, []string{redirect}) != nil {
			return
		}
		if !redirectAllowed([]string{redirect}, redirect) {
			t.Fatalf("%q is registered and not allowed", redirect)
		}
		keys, err := parseKeys(jwks)
		if err != nil || len(keys.Keys) == 0 {
			t.Fatalf("accepted without keys: %v", err)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Fuzz(func(t *testing.T, s string) { parseToken(s) })
}

func TestFuzzSeeds(t *testing.T) {
	for _, name := range []string{"FuzzDetail", "FuzzClient", "FuzzToken"} {
		if seeds, err := os.ReadDir("testdata/fuzz/" + name); err != nil || len(seeds) == 0 {
			t.Errorf("%s: no seeds: %v", name, err)
		}
	}
}
