package canon

import (
	"crypto/ed25519"
	"errors"
	"testing"
)

type pair struct {
	_    struct{} `cbor:",toarray"`
	ID   [4]byte
	N    uint64
	Name string
	List [][]byte
}

func TestRoundTripIsExact(t *testing.T) {
	in := pair{ID: [4]byte{1, 2, 3, 4}, N: 300, Name: "slot", List: [][]byte{{1}}}
	data := MustMarshal(in)
	var out pair
	if err := Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if out.ID != in.ID || out.N != in.N || out.Name != in.Name {
		t.Fatalf("got %v", out)
	}
}

func TestRefusesOtherEncodings(t *testing.T) {
	good := MustMarshal(pair{ID: [4]byte{1, 2, 3, 4}, N: 1, Name: "a"})
	for name, data := range map[string][]byte{
		"trailing byte":         append(append([]byte{}, good...), 0),
		"long integer":          {0x84, 0x44, 1, 2, 3, 4, 0x18, 0x01, 0x61, 'a', 0x80},
		"short id":              {0x84, 0x43, 1, 2, 3, 0x01, 0x61, 'a', 0x80},
		"long id":               {0x84, 0x45, 1, 2, 3, 4, 5, 0x01, 0x61, 'a', 0x80},
		"indefinite array":      {0x9f, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a', 0x80, 0xff},
		"missing field":         {0x83, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a'},
		"extra field":           {0x85, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a', 0x80, 0x00},
		"nil for an empty list": {0x84, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a', 0xf6},
		"tag":                   {0xc1, 0x84, 0x44, 1, 2, 3, 4, 0x01, 0x61, 'a', 0x80},
		"bad utf-8":             {0x84, 0x44, 1, 2, 3, 4, 0x01, 0x61, 0xff, 0x80},
		"nothing":               {},
	} {
		var out pair
		if err := Unmarshal(data, &out); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := Unmarshal(make([]byte, MaxSize+1), &pair{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("oversize: %v", err)
	}
}

func TestSignatureBindsDomainAndBody(t *testing.T) {
	pub, key, _ := ed25519.GenerateKey(nil)
	data, err := Seal(key, "letterlock/test/v1", pair{N: 7})
	if err != nil {
		t.Fatal(err)
	}
	var out pair
	if err := Open(data, pub, "letterlock/test/v1", &out); err != nil || out.N != 7 {
		t.Fatalf("own signature: %v", err)
	}
	if err := Open(data, pub, "letterlock/test/v2", &out); !errors.Is(err, ErrSignature) {
		t.Errorf("another domain: %v", err)
	}
	other, _, _ := ed25519.GenerateKey(nil)
	if err := Open(data, other, "letterlock/test/v1", &out); !errors.Is(err, ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	for i := range data {
		bad := append([]byte{}, data...)
		bad[i] ^= 1
		if err := Open(bad, pub, "letterlock/test/v1", &out); err == nil {
			t.Fatalf("byte %d flipped: accepted", i)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(MustMarshal(pair{N: 1, Name: "a", List: [][]byte{{}}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out pair
		if Unmarshal(data, &out) == nil && string(MustMarshal(out)) != string(data) {
			t.Fatal("accepted bytes do not encode back to themselves")
		}
	})
}
