package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/mimi"
)

// TestSeeds: the fuzz tests run on their committed seeds; without them they would pass on nothing.
func TestSeeds(t *testing.T) {
	for _, name := range []string{"FuzzTake", "FuzzMessage", "FuzzRefusal"} {
		seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(seeds) < 3 {
			t.Errorf("%s has %d seeds (%v)", name, len(seeds), err)
		}
		for _, s := range seeds {
			if info, err := os.Stat(s); err != nil || info.Size() == 0 {
				t.Errorf("%s is empty", s)
			}
		}
	}
}

// FuzzTake: whatever a server serves, a reader does not panic, shows nothing that nobody wrote, and stays in its epoch.
func FuzzTake(f *testing.F) {
	r := newRing(&testing.T{})
	_, rd := r.reading("alice", chat.Read)
	epoch := rd.group.Epoch()
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		lines, err := rd.take(api.Entry{Conversation: r.id, Seq: 1, Kind: api.EntryKind(kind), Epoch: epoch, Body: body})
		if len(lines) != 0 || rd.group.Epoch() != epoch {
			t.Fatalf("took %d lines, epoch %d", len(lines), rd.group.Epoch())
		}
		if err == nil && (api.EntryKind(kind) == api.KindCommit || api.EntryKind(kind) == api.KindProposal) {
			t.Fatal("took a handshake that nobody made")
		}
	})
}

// FuzzMessage: whatever the backend hands in becomes a content within the limits, or is refused.
func FuzzMessage(f *testing.F) {
	a := &Agent{}
	f.Fuzz(func(t *testing.T, body []byte) {
		var in NewMessage
		if json.Unmarshal(body, &in) != nil || in.check() != nil || in.Link {
			return
		}
		if in.hash() != in.hash() {
			t.Fatal("a letter has two hashes")
		}
		c, err := a.compose(t.Context(), nil, in.Letter)
		if err != nil {
			return
		}
		data, err := mimi.Marshal(c)
		if err != nil {
			return
		}
		if _, err := mimi.Unmarshal(data); err != nil {
			t.Fatalf("made a content that nobody can read: %v", err)
		}
	})
}

// FuzzRefusal: whatever the authorization server answers, its text cannot break a line or hide another.
func FuzzRefusal(f *testing.F) {
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := refused(status, body)
		text := err.Error()
		if len(text) > 1000 || plainText(text, len(text)) != text {
			t.Fatalf("%q", text)
		}
	})
}
