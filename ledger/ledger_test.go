package ledger

import (
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

var ctx = context.Background()

// bench is a ledger on a real store, with a clock that stands still.
type bench struct {
	*Ledger
	t     testing.TB
	path  string
	store *store.Store
	keys  *Keys
	clock time.Time
	w     *Writer
}

func silent() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newBench(t testing.TB) *bench {
	t.Helper()
	keys, err := NewKeys("chat.example:8080")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, keys: keys, path: filepath.Join(t.TempDir(), "l.db"), clock: time.UnixMilli(1_800_000_000_000)}
	b.open()
	t.Cleanup(b.close)
	return b
}

func (b *bench) open() {
	b.t.Helper()
	var err error
	if b.store, err = sqlite.Open(ctx, b.path); err != nil {
		b.t.Fatal(err)
	}
	if b.Ledger, err = Open(ctx, b.store, b.keys, func() time.Time { return b.clock }, rand.Reader); err != nil {
		b.t.Fatal(err)
	}
	b.w = NewWriter(b.Ledger, silent())
}

// close checks everything that is stored.
func (b *bench) close() {
	if b.t.Failed() {
		return
	}
	if _, err := Check(ctx, b.store, b.keys); err != nil {
		b.t.Error(err)
	}
	if err := b.store.Close(); err != nil {
		b.t.Error(err)
	}
}

func (b *bench) update(fn func(tx *store.Tx) error) {
	b.t.Helper()
	if err := b.store.Update(ctx, fn); err != nil {
		b.t.Fatal(err)
	}
}

// posts records n posts of one account with Flimmer.
func (b *bench) posts(account chat.AccountID, n int) (records []*proof.Record) {
	b.t.Helper()
	b.update(func(tx *store.Tx) error {
		records = nil
		for range n {
			r, err := b.Access(tx, account, "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}, At: b.ms()})
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return nil
	})
	return records
}

func (b *bench) drain() {
	b.t.Helper()
	for {
		n, err := b.w.Step(ctx)
		if err != nil {
			b.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
}

func TestSmoke(t *testing.T) {
	b := newBench(t)
	alice := chat.NewAccountID()
	rs := b.posts(alice, 300)
	b.drain()
	idx, p, err := b.Inclusion(ctx, rs[299].LeafHash())
	if err != nil || idx != 300 {
		t.Fatal(idx, err)
	}
	log, _ := proof.NewLog(b.keys.LedgerVKey())
	cp, _ := b.Checkpoint(ctx)
	if err := log.Advance(cp, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := log.Included(rs[299].LeafHash(), p); err != nil {
		t.Fatal(err)
	}
	b.posts(alice, 300)
	b.drain()
}
