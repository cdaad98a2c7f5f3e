package mimi

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"letterlock/chat"
)

// vectors finds the draft's examples: a folder beside the module's root.
func vectors(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	found := filepath.Join(dir, "..", "shared", "mimi-vectors")
	if _, err := os.Stat(found); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the examples of draft-ietf-mimi-content are missing: ../shared/mimi-vectors")
		}
		t.Skip("the examples of draft-ietf-mimi-content are not here: ../shared/mimi-vectors")
	}
	return found
}

func TestVectors(t *testing.T) {
	dir := vectors(t)
	list, err := os.ReadFile(filepath.Join(dir, "message-ids.json"))
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]struct {
		Sender string         `json:"sender"`
		Room   string         `json:"room"`
		ID     chat.MessageID `json:"message_id"`
	}
	if err := json.Unmarshal(list, &want); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.cbor"))
	if err != nil || len(files) == 0 || len(files) != len(want) {
		t.Fatalf("%d examples for %d message ids", len(files), len(want))
	}
	kinds := map[string]Kind{
		"attachment": KindUnknown, "conferencing": KindUnknown, "delete": KindDelete, "edit": KindEdit, "mention": KindReply,
		"multipart-1": KindText, "multipart-2": KindText, "original": KindText, "reaction": KindReaction, "reply": KindReply,
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		v := want[name]
		m, err := Open(data, v.Sender, v.Room)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.ID != v.ID || m.ID != ID(v.Sender, v.Room, data, m.Content.Salt) {
			t.Errorf("%s: id %v, want %v", name, m.ID, v.ID)
		}
		if again, err := Marshal(m.Content); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: written again as\n%x, want\n%x (%v)", name, again, data, err)
		}
		if kind, ok := kinds[strings.TrimSuffix(name, ".cbor")]; !ok || m.Content.View().Kind != kind {
			t.Errorf("%s: shown as %v, want %v", name, m.Content.View().Kind, kind)
		}
	}
}

// The examples are one conversation: Bob's edit and delete are of his reply, Cathy reacts to Alice.
func TestVectorsFold(t *testing.T) {
	dir := vectors(t)
	var line Timeline
	for _, step := range []struct {
		name, user string
		effect     Effect
	}{
		{"original", "alice-smith", Added},
		{"reply", "bob-jones", Added},
		{"reaction", "cathy-washington", Reacted},
		{"edit", "bob-jones", Edited},
		{"edit", "bob-jones", Ignored},
		{"delete", "bob-jones", Deleted},
	} {
		data, err := os.ReadFile(filepath.Join(dir, step.name+".cbor"))
		if err != nil {
			t.Fatal(err)
		}
		m, err := Open(data, "mimi://example.com/u/"+step.user, "mimi://example.com/r/engineering_team")
		if err != nil {
			t.Fatal(err)
		}
		if effect := line.Add(m); effect != step.effect {
			t.Errorf("%s: effect %v, want %v", step.name, effect, step.effect)
		}
	}
	shown := line.Shown()
	if len(shown) != 2 || len(shown[0].Reactions) != 1 || shown[0].Reactions[0].Emoji != "\u2764" || !shown[1].Deleted || shown[1].View.Text != "" {
		t.Errorf("%+v", shown)
	}
}

func TestVectorsUnderAnotherNameAreRefused(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(vectors(t), "original.cbor"))
	if err != nil {
		t.Fatal(err)
	}
	const alice, room = "mimi://example.com/u/alice-smith", "mimi://example.com/r/engineering_team"
	if _, err := Open(data, alice, room); err != nil {
		t.Fatal(err)
	}
	for _, uris := range [][2]string{{"mimi://example.com/u/bob-jones", room}, {alice, room + "2"}, {"", room}} {
		if _, err := Open(data, uris[0], uris[1]); !chat.Is(err, chat.Tampered) {
			t.Errorf("as %s in %s: %v", uris[0], uris[1], err)
		}
	}
}
