package postgres_test

import (
	"context"
	"encoding/binary"
	"errors"
	neturl "net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"letterlock/chat"
	"letterlock/store"
	"letterlock/store/postgres"
	"letterlock/store/storetest"
)

func TestExam(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		url := storetest.Postgres(t)
		return storetest.Opener(t, func(ctx context.Context) (*store.Store, error) { return postgres.Open(ctx, url) })
	})
}

// TestOneServer: a database has one server. The one that lost its connections goes on, unless another one came.
func TestOneServer(t *testing.T) {
	ctx, url := t.Context(), storetest.Postgres(t)
	alone := func() (*store.Store, error) { return postgres.OpenAlone(ctx, url) }
	first, err := alone()
	must(t, err)
	defer first.Close()
	if _, err := alone(); !chat.Is(err, chat.Unavailable) || !strings.Contains(err.Error(), "another letterlock works on this database") {
		t.Fatalf("a second server: %v", err)
	}
	must(t, putOne(first, 1))

	disconnect(t, url)
	if err := eventually(func() error { return putOne(first, 2) }); err != nil {
		t.Fatalf("the server does not go on after its connections broke: %v", err)
	}

	var second *store.Store
	must(t, eventually(func() (err error) { // the first may connect again before the second one comes
		disconnect(t, url)
		second, err = alone()
		return err
	}))
	must(t, putOne(second, 3))
	for seq := uint64(4); seq < 12; seq++ {
		if err := putOne(first, seq); err == nil {
			t.Fatal("a server wrote after another one had taken its database over")
		}
		if err := first.Update(ctx, func(tx *store.Tx) error { return tx.AppendEntry(one(seq)) }); err == nil {
			t.Fatal("a server wrote after another one had taken its database over")
		}
	}
	must(t, second.Close())
	third, err := alone()
	if err != nil {
		t.Fatalf("a server after the one before was closed: %v", err)
	}
	must(t, third.Close())
}

func one(seq uint64) store.Entry {
	return store.Entry{Conversation: chat.ConversationID{1}, Seq: seq, Kind: 3, Dedup: binary.BigEndian.AppendUint64(nil, seq), Body: []byte("x")}
}

func putOne(s *store.Store, seq uint64) error {
	return s.AppendEntries(context.Background(), []store.Entry{one(seq)})
}

// disconnect ends every session in the database but the one that does it.
func disconnect(t *testing.T, url string) {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	must(t, err)
	defer c.Close(t.Context())
	_, err = c.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`)
	must(t, err)
}

// eventually tries again while something fails.
func eventually(try func() error) (err error) {
	for range 200 {
		if err = try(); err == nil {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return err
}

// TestAway: every call on a database that is gone says unavailable; the same store serves again when it is back.
func TestAway(t *testing.T) {
	c := storetest.Cluster(t)
	url, err := c.NewDatabase(t.Context())
	must(t, err)
	s, err := postgres.OpenAlone(t.Context(), url)
	must(t, err)
	defer s.Close()
	calls := map[string]func() error{
		"reading": func() error {
			return s.View(t.Context(), func(tx *store.Tx) error { _, err := tx.LastSeq(one(1).Conversation); return err })
		},
		"writing":   func() error { return s.Update(t.Context(), func(tx *store.Tx) error { return tx.AppendEntry(one(1)) }) },
		"appending": func() error { return putOne(s, 2) },
	}
	must(t, c.Kill())
	for range 3 { // first on connections that broke, then without any
		for name, call := range calls {
			if err := call(); !chat.Is(err, chat.Unavailable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	must(t, c.Restart(t.Context()))
	for name, call := range calls {
		if err := eventually(call); err != nil {
			t.Errorf("%s, with the database back: %v", name, err)
		}
	}
}

// TestServersStartTogether: each of them would make the same tables.
func TestServersStartTogether(t *testing.T) {
	url, err := storetest.Cluster(t).NewDatabase(t.Context())
	must(t, err)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			s, err := postgres.Open(context.Background(), url)
			if err != nil {
				t.Error(err)
				return
			}
			s.Close()
		})
	}
	all.Wait()
}

// TestRefused: what an operator reads when the database cannot be used, which is never the password.
func TestRefused(t *testing.T) {
	good := storetest.Postgres(t)
	u, err := neturl.Parse(good)
	must(t, err)
	secret, _ := u.User.Password()
	with := func(change func(u *neturl.URL)) string {
		v := *u
		change(&v)
		return v.String()
	}
	for _, c := range []struct {
		what, url, want string
		kind            chat.Kind
	}{
		{"not an address", "the password is " + secret, "must look like postgres://", chat.Invalid},
		{"a password with bare characters", "postgres://me:" + secret + "%zz@host/db", "must look like postgres://", chat.Invalid},
		{"an unknown setting", good + "?sslmode=" + secret, "must look like postgres://", chat.Invalid},
		{"no name", with(func(u *neturl.URL) { u.Path = "/" }), "must look like postgres://", chat.Invalid},
		{"wrong password", with(func(u *neturl.URL) { u.User = neturl.UserPassword("letterlock", secret+"x") }), "check the name and the password", chat.Invalid},
		{"no such database", with(func(u *neturl.URL) { u.Path = "/nowhere" }), "make it with createdb nowhere", chat.Invalid},
		{"nobody there", with(func(u *neturl.URL) { u.Host = "127.0.0.1:1" }), "no answer from PostgreSQL at 127.0.0.1:1", chat.Unavailable},
	} {
		_, err := postgres.Open(t.Context(), c.url)
		if err == nil || !chat.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the password stands in the error: %v", c.what, err)
		}
	}
}

// TestCommitsAreSynced: whatever the database's default is, our sessions wait for the disk; a server that never syncs is refused.
func TestCommitsAreSynced(t *testing.T) {
	c := storetest.Cluster(t)
	url, err := c.NewDatabase(t.Context())
	must(t, err)
	must(t, c.Exec(t.Context(), "ALTER SYSTEM SET synchronous_commit = off"))
	must(t, c.Exec(t.Context(), "SELECT pg_reload_conf()"))
	for _, pool := range postgres.Settings(t, url, "synchronous_commit") {
		if pool != "on" {
			t.Errorf("a session has synchronous_commit = %s", pool)
		}
	}
	must(t, c.Exec(t.Context(), "ALTER SYSTEM SET fsync = off"))
	must(t, c.Exec(t.Context(), "SELECT pg_reload_conf()"))
	if err := eventually(func() error {
		s, err := postgres.Open(t.Context(), url)
		if err == nil {
			s.Close()
			return errors.New("it was opened")
		}
		if !strings.Contains(err.Error(), "runs with fsync off") {
			t.Fatal(err)
		}
		return nil
	}); err != nil {
		t.Fatalf("a server with fsync off: %v", err)
	}
}

// TestExamWithRetries is the exam where PostgreSQL refuses every third commit as not serialisable.
func TestExamWithRetries(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		url := storetest.Unlucky(t)
		return storetest.Opener(t, func(ctx context.Context) (*store.Store, error) { return postgres.Open(ctx, url) })
	})
}

// TestConflicts: what a transaction read is changed by another one before it commits. It runs again, and what it did the first time is
// not there, neither by itself nor in an item of a batch.
func TestConflicts(t *testing.T) {
	ctx, url := t.Context(), storetest.Postgres(t)
	s, other := open(t, url), open(t, url)
	next := func(tx *store.Tx) error {
		last, err := tx.LastSeq(one(0).Conversation)
		if err != nil {
			return err
		}
		return tx.AppendEntry(one(last + 1))
	}
	runs := 0
	interrupted := func(tx *store.Tx) error {
		runs++
		if _, err := tx.LastSeq(one(0).Conversation); err != nil {
			return err
		}
		if runs == 1 {
			must(t, other.Update(ctx, next))
		}
		return next(tx)
	}
	must(t, s.Update(ctx, interrupted))
	if runs != 2 {
		t.Errorf("the transaction ran %d times, want 2", runs)
	}
	runs = 0
	must(t, s.AppendBatch(ctx, func(b *store.Batch) error {
		refused, err := b.Try(interrupted)
		if refused != nil {
			t.Errorf("a conflict counts as a refusal: %v", refused)
		}
		return err
	}))
	if runs != 2 {
		t.Errorf("the item ran %d times, want 2", runs)
	}
	// A refusal by PostgreSQL itself undoes its item alone.
	must(t, s.AppendBatch(ctx, func(b *store.Batch) error {
		must(t, b.Append(one(5)))
		refused, err := b.Try(func(tx *store.Tx) error { return tx.AppendEntry(one(1)) })
		if refused == nil || err != nil {
			t.Errorf("a number that was taken: %v, %v", refused, err)
		}
		return b.Append(one(6))
	}))
	must(t, s.View(ctx, func(tx *store.Tx) error {
		entries, err := tx.Entries(one(0).Conversation, 0, 100, 1<<20)
		if err != nil || len(entries) != 6 || entries[5].Seq != 6 {
			t.Errorf("%d entries, %v; want 6", len(entries), err)
		}
		return nil
	}))
}

func BenchmarkAppend(b *testing.B) {
	storetest.BenchmarkAppend(b, open(b, storetest.Postgres(b)))
}

func open(t testing.TB, url string) *store.Store {
	t.Helper()
	s, err := postgres.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
