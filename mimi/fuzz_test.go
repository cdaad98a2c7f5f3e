package mimi

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"unicode"

	"github.com/fxamacker/cbor/v2"

	"letterlock/canon"
	"letterlock/chat"
)

var writeSeeds = flag.Bool("seeds", false, "write the seeds of the fuzz tests anew")

// FuzzUnmarshal throws bytes at the reader: what it takes, it writes back byte for byte, shows safely and folds.
func FuzzUnmarshal(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Unmarshal(data)
		if err != nil {
			return
		}
		again, err := Marshal(c)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("accepted bytes do not come back: %v", err)
		}
		v := c.View()
		if v.Kind == KindUnknown && v.Text == "" {
			t.Error("nothing is shown")
		}
		for _, r := range v.Text + v.Emoji {
			if unicode.IsControl(r) && r != '\n' && r != '\t' {
				t.Errorf("shown text has %U", r)
			}
		}
		var line Timeline
		line.Add(Message{ID: chat.MessageID{1}, Sender: "a", Content: c})
		line.Add(Message{ID: chat.MessageID{2}, Sender: "b", Content: c})
	})
}

// FuzzCard throws bytes at the card inside.
func FuzzCard(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		card, err := parseCard(data)
		if err != nil {
			return
		}
		again, err := card.marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("an accepted card does not come back: %v", err)
		}
	})
}

// TestSeeds makes sure that the fuzz tests have something to start from.
func TestSeeds(t *testing.T) {
	if *writeSeeds {
		seeds(t)
	}
	for name, least := range map[string]int{"FuzzUnmarshal": 8, "FuzzCard": 2} {
		found, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(found) < least {
			t.Errorf("%s has %d seeds, want %d at least (go test -run TestSeeds -seeds)", name, len(found), least)
		}
	}
}

func seeds(t *testing.T) {
	id := chat.MessageID{1, 2, 3}
	recommendation, err := Recommendation(metropolis)
	if err != nil {
		t.Fatal(err)
	}
	extended := Text("hi")
	extended.Expires = &Expiration{Relative: true, Time: 60}
	extended.TopicID = []byte("topic")
	raw, err := enc.Marshal([]any{map[any]any{"a": int64(-1)}, 1.5})
	if err != nil {
		t.Fatal(err)
	}
	extended.Extensions = map[any]cbor.RawMessage{int64(256): raw, "x": {0xf5}, int64(-7): {0x40}}
	attachment := content(Part{Disposition: Attachment, Language: "en", Cardinality: External, ContentType: "video/mp4",
		Reference: Reference{URL: "https://chat.example/x", Size: 9, EncAlg: 1, Key: []byte("key"), HashAlg: 1, Hash: []byte("hash"), Filename: "x"}})
	for name, c := range map[string]Content{
		"text": Text("hello"), "reply": Reply(id, "yes"), "edit": Edit(id, "no"), "delete": Delete(id), "reaction": react(t, id, "\u2764"),
		"card": recommendation, "extended": extended, "attachment": attachment,
		"nested": content(multi(ProcessAll, single(PlainText, "a"), multi(SingleUnit, single(Markdown, "b"), multi(ChooseOne, Part{}, single("x/y", "z"))))),
	} {
		c.Salt = [16]byte{7}
		writeSeed(t, "FuzzUnmarshal", name, marshal(t, c))
	}
	small := Card{Kind: Track, Title: "x", Link: "http://x.example/"}
	for name, c := range map[string]Card{"film": metropolis, "track": small} {
		data, err := c.marshal()
		if err != nil {
			t.Fatal(err)
		}
		writeSeed(t, "FuzzCard", name, data)
	}
	writeSeed(t, "FuzzCard", "script", canon.MustMarshal(cardFields{Version: 1, Kind: Film, Title: "x", Link: "javascript:x"}))
}

// writeSeed writes one file of Go's corpus format.
func writeSeed(t *testing.T, fuzz, name string, data []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", fuzz)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
