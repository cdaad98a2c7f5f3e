package slot_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot"
	"letterlock/slot/envelope"
)

var update = flag.Bool("update", false, "write the fuzz seeds anew")

var fuzzTests = []string{"FuzzPeek", "FuzzOpenAnnouncement", "FuzzPeekTakeBack"}

// fuzzSeeds are good inputs, and some that are good but for one thing.
func fuzzSeeds() map[string][][]byte {
	_, pk := derive(1)
	grant := key("grant")
	post := must(slot.Seal(pk, headerNow(), []byte("Metropolis"), grant))
	h := headerNow()
	h.Version = 2
	return map[string][][]byte{
		"FuzzPeek":             {post, must(slot.Seal(pk, slot.Header{Host: "a", Conversation: chat.ConversationID{1}, Grant: chat.GrantID{1}, At: 1}, nil, grant)), resigned(h, post, grant)},
		"FuzzOpenAnnouncement": {announced(7, pk, now, "phone"), announced(0, slot.PublicKey{}, -1, "laptop")},
		"FuzzPeekTakeBack":     {must(slot.SignTakeBack(takeBackNow(), grant)), must(slot.SignTakeBack(slot.TakeBack{}, grant))},
	}
}

// TestFuzzSeeds fails when a fuzz test has no seeds: it would then test nothing in a plain `go test`.
func TestFuzzSeeds(t *testing.T) {
	if *update {
		for name, list := range fuzzSeeds() {
			dir := filepath.Join("testdata", "fuzz", name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for i, data := range list {
				text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed-%d", i)), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, name := range fuzzTests {
		if files, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*")); err != nil || len(files) == 0 {
			t.Errorf("%s has no seeds: run go test ./slot -run TestFuzzSeeds -update", name)
		}
	}
}

// kinded fails on an error without a kind: whatever outsiders send is their error, not ours.
func kinded(t *testing.T, err error) {
	t.Helper()
	if err != nil && chat.KindOf(err) == chat.Internal {
		t.Fatalf("an error without a kind: %v", err)
	}
}

func same(t *testing.T, data, again []byte) {
	t.Helper()
	if !bytes.Equal(data, again) {
		t.Fatalf("accepted bytes do not encode back to themselves:\n%x\n%x", data, again)
	}
}

// body is what a Signed holds.
func body(t *testing.T, signed []byte) []byte {
	t.Helper()
	var s canon.Signed
	if err := canon.Unmarshal(signed, &s); err != nil {
		t.Fatal(err)
	}
	same(t, signed, canon.MustMarshal(s))
	return s.Body
}

func FuzzPeek(f *testing.F) {
	private, _ := derive(1)
	grant := public(key("grant"))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := slot.Peek(data)
		kinded(t, err)
		if err == nil {
			var p envelope.Post
			if err := canon.Unmarshal(data, &p); err != nil {
				t.Fatal(err)
			}
			same(t, data, canon.MustMarshal(p))
			same(t, p.Header, canon.MustMarshal(h))
		}
		_, content, err := slot.Open(data, private, grant)
		kinded(t, err)
		if err == nil && len(content) > slot.MaxPost {
			t.Fatal("content larger than its post")
		}
	})
}

func FuzzOpenAnnouncement(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := slot.OpenAnnouncement(data)
		kinded(t, err)
		if err == nil {
			same(t, body(t, data), canon.MustMarshal(a))
		}
		pinned := slot.Pinned{Conversation: chat.ConversationID{1}, Signers: [][32]byte{[32]byte(public(key("phone")))}}
		_, err = pinned.Take(data, now)
		kinded(t, err)
	})
}

func FuzzPeekTakeBack(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := slot.PeekTakeBack(data)
		kinded(t, err)
		if err == nil {
			same(t, body(t, data), canon.MustMarshal(b))
		}
	})
}
