package canon

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the fuzz seeds anew")

// TestNobodysKeys: under a key of small order a signature needs no private key. crypto/ed25519 takes them; Verify does not. Whoever signs
// with such a key could deny every word, and everybody else could add some.
func TestNobodysKeys(t *testing.T) {
	forged := 0
	for _, y := range smallOrderPoints {
		for _, sign := range []byte{0, 0x80} {
			key := y
			key[31] |= sign
			if body, sig, ok := forge(key[:]); ok {
				forged++
				if Verify(key[:], "letterlock/test/v1", body, sig) {
					t.Errorf("under %x anybody signs", key)
				}
			}
			if !smallOrder(key[:]) {
				t.Errorf("%x is not known", key)
			}
		}
	}
	if forged < 8 {
		t.Fatalf("only %d keys could be forged under: the test shows nothing", forged)
	}
	pub, key, _ := ed25519.GenerateKey(nil)
	if !Verify(pub, "letterlock/test/v1", nil, Sign(key, "letterlock/test/v1", nil)) {
		t.Error("an ordinary key")
	}
	sig := Sign(key, "d", []byte("x"))
	for name, ok := range map[string]bool{
		"no key":                 Verify(nil, "d", []byte("x"), sig),
		"a short key":            Verify(pub[:31], "d", []byte("x"), sig),
		"a long key":             Verify(append(bytes.Clone(pub), 0), "d", []byte("x"), sig),
		"no signature":           Verify(pub, "d", []byte("x"), nil),
		"a short signature":      Verify(pub, "d", []byte("x"), sig[:63]),
		"the border moved":       Verify(pub, "d\x00", []byte("x"), sig),
		"the domain in the body": Verify(pub, "", []byte("d\x00x"), sig),
	} {
		if ok {
			t.Errorf("%s: the signature held", name)
		}
	}
}

// forge finds a message that "R = the identity, S = 0" signs: S*B = R + k*A holds once k*A is the identity, for one k in eight or more.
func forge(key ed25519.PublicKey) (body, sig []byte, ok bool) {
	sig = make([]byte, ed25519.SignatureSize)
	sig[0] = 1
	for i := range uint64(1000) {
		body = binary.BigEndian.AppendUint64(nil, i)
		if ed25519.Verify(key, message("letterlock/test/v1", body), sig) {
			return body, sig, true
		}
	}
	return nil, nil, false
}

// TestHashBindsDomain: the zero byte keeps domain and body apart.
func TestHashBindsDomain(t *testing.T) {
	if Hash("a", []byte("b")) == Hash("ab", nil) || Hash("a", []byte("b")) == Hash("b", []byte("b")) || Hash("a", nil) != Hash("a", []byte{}) {
		t.Error("a hash under one domain is that under another")
	}
}

// TestDepthAndLength: what is small on the wire and large in memory is refused.
func TestDepthAndLength(t *testing.T) {
	deep := append(bytes.Repeat([]byte{0x81}, 100), 0x80)
	long := append([]byte{0x99, 0x10, 0x01}, make([]byte, 4097)...)
	huge := []byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	hugeBytes := []byte{0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for name, data := range map[string][]byte{"deep": deep, "long": long, "an array that is not there": huge, "bytes that are not there": hugeBytes} {
		var v any
		if err := Unmarshal(data, &v); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	var v any
	if err := Unmarshal([]byte{0xa2, 0x01, 0x00, 0x01, 0x00}, &v); err == nil {
		t.Error("a key twice: accepted")
	}
	if err := Unmarshal([]byte{0xa2, 0x02, 0x00, 0x01, 0x00}, &v); err == nil {
		t.Error("keys in another order: accepted")
	}
}

// TestFuzzSeeds fails when the fuzz test has no seeds: it would then test nothing in a plain `go test`.
func TestFuzzSeeds(t *testing.T) {
	dir := filepath.Join("testdata", "fuzz", "FuzzUnmarshal")
	if *update {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for i, data := range [][]byte{
			MustMarshal(pair{}), MustMarshal(pair{ID: [4]byte{1, 2, 3, 4}, N: 1 << 40, Name: "slot", List: [][]byte{{}, {1, 2}}}),
			{0x84, 0x44, 1, 2, 3, 4, 0x18, 0x01, 0x61, 'a', 0x80}, {0x9f, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a', 0x80, 0xff},
		} {
			text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed-%d", i)), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) == 0 {
		t.Errorf("FuzzUnmarshal has no seeds: run go test ./canon -run TestFuzzSeeds -update")
	}
}
