package dpop

import (
	"os"
	"testing"
)

func FuzzProof(f *testing.F) {
	v := NewVerifier(fixed(start))
	f.Fuzz(func(t *testing.T, p, address string) {
		r := Request{Proof: p, Method: "GET", URL: address, Token: token}
		key, err := v.Check(r)
		if err == nil && key == (Thumbprint{}) {
			t.Fatal("accepted without a key")
		}
		if !sameAddress(address, address) && len(address) < maxURL {
			if n, ok := normal(address); ok {
				t.Fatalf("%q differs from itself as %q", address, n)
			}
		}
	})
}

func TestFuzzSeeds(t *testing.T) {
	if seeds, err := os.ReadDir("testdata/fuzz/FuzzProof"); err != nil || len(seeds) == 0 {
		t.Fatalf("no seeds: %v", err)
	}
}
