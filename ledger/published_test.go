package ledger

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// remembering opens the bench's store as a server that remembers in a file what it published.
func (b *bench) remembering(file string) (*Ledger, error) {
	l, err := OpenPublished(ctx, b.store, b.keys, file, b.now, rand.Reader)
	if err == nil {
		b.w = NewWriter(l, silent())
		b.Ledger = l
	}
	return l, err
}

// grow adds n public leaves and publishes them.
func (b *bench) grow(n int) {
	b.t.Helper()
	b.reports(n)
	b.drain()
}

// TestACheckpointIsNotedBeforeItIsShown takes the folder of the file away: nothing of the log leaves the server that could not be noted.
func TestACheckpointIsNotedBeforeItIsShown(t *testing.T) {
	b := newBench(t)
	dir := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(dir, "published")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o700))
	l, err := b.remembering(file)
	must(err)
	must(os.RemoveAll(dir))
	person := newPerson(t, b)
	b.update(func(tx *store.Tx) error { return b.KeyEntry(tx, person.account, "alice", 0, person.chain[0]) })
	b.grow(3)
	ways := map[string]func() error{
		"checkpoint":  func() error { _, err := l.Checkpoint(ctx); return err },
		"tile":        func() error { _, err := l.Tile(ctx, "tile/0/000.p/1"); return err },
		"consistency": func() error { _, err := l.Consistency(ctx, 1, 1); return err },
		"records": func() error {
			_, err := l.Records(ctx, proof.Place{Partner: "flimmer", Chain: proof.Access}, 1)
			return err
		},
		"bundle": func() error {
			_, err := l.Bundle(ctx, Subject{Handle: "alice", Partner: "flimmer", KeyChain: person.chain})
			return err
		},
	}
	for way, show := range ways {
		if err := show(); !chat.Is(err, chat.Unavailable) {
			t.Errorf("%s: shown without a note of it: %v", way, err)
		}
	}
	must(os.Mkdir(dir, 0o700))
	signed, err := l.Checkpoint(ctx)
	must(err)
	if noted, err := os.ReadFile(file); err != nil || string(noted) != string(signed) {
		t.Errorf("noted: %q, %v", noted, err)
	}
	for way, show := range ways {
		if err := show(); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
}

// TestAnOlderDatabaseDoesNotServe gives a server databases that do not lead to what it published.
func TestAnOlderDatabaseDoesNotServe(t *testing.T) {
	b := newBench(t)
	b.grow(300) // more than a tile
	older, err := b.Checkpoint(ctx)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "published")
	write := func(signed []byte) {
		if err := os.WriteFile(file, signed, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.grow(5)
	write(older)
	if _, err := b.remembering(file); err != nil {
		t.Errorf("larger than what was published: %v", err)
	}
	stranger, err := NewKeys(b.keys.Host())
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]struct {
		size int64
		keys *Keys
		kind chat.Kind
	}{
		"a greater tree":            {307, b.keys, chat.Tampered},
		"another tree of the size":  {306, b.keys, chat.Tampered},
		"another tree, smaller":     {300, b.keys, chat.Tampered},
		"another log's checkpoint":  {300, stranger, chat.Tampered},
		"a file that is no such":    {0, b.keys, chat.Tampered},
		"the tree of one, as it is": {306, nil, ""},
	} {
		signed := []byte("nonsense")
		if c.keys == nil {
			if signed, err = b.Checkpoint(ctx); err != nil {
				t.Fatal(err)
			}
		} else if c.size > 0 {
			if signed, err = proof.SignCheckpoint(c.keys.Ledger, c.size, proof.Hash{1}); err != nil {
				t.Fatal(err)
			}
		}
		write(signed)
		_, err := b.remembering(file)
		if c.kind == "" && err != nil || c.kind != "" && !chat.Is(err, c.kind) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A log is not begun anew where one was published.
	empty, err := sqlite.Open(ctx, filepath.Join(t.TempDir(), "empty.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	if _, err := OpenPublished(ctx, empty, b.keys, file, b.now, rand.Reader); !chat.Is(err, chat.Tampered) {
		t.Errorf("an empty database: %v", err)
	}
}
