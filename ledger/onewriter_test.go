package ledger

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/postgres"
	"letterlock/store/storetest"
)

// one of several processes that write the same log: its ledger has a store of its own.
type process struct {
	*Ledger
	*Writer
}

func (b *bench) process(t *testing.T, now func() time.Time) *process {
	t.Helper()
	l, err := Open(ctx, b.db(t), b.keys, now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &process{l, NewWriter(l, silent())}
}

// TestTwoWritersThousands: two processes that both write while the lease goes from one to the other again and again, and others record
// beside them. Every leaf is in the log once, and every checkpoint that either of them made continues the one before.
func TestTwoWritersThousands(t *testing.T) {
	const callers, posts = 4, 500
	b := newBench(t)
	var ahead atomic.Int64 // of the common clock, ms
	now := func() time.Time { return b.clock.Add(time.Duration(ahead.Load()) * time.Millisecond) }
	var mu sync.Mutex
	var made []proof.Hash
	var checkpoints []proof.Checkpoint
	tokens := map[int64]bool{}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var writers, recorders sync.WaitGroup
	write := func(p *process) {
		for steps := 0; running.Err() == nil; steps++ {
			n, err := p.Step(ctx)
			if chat.Is(err, chat.Tampered) { // Run ends there; whatever else it meets, another was first: it tries again
				t.Error(err)
				return
			}
			if n == 0 {
				time.Sleep(time.Millisecond)
				continue
			}
			if steps%3 == 0 { // it is silent until the other has taken over
				ahead.Add(leaseTime.Milliseconds() + 1)
				for running.Err() == nil && b.lease().Token == p.token {
					time.Sleep(time.Millisecond)
				}
			}
			signed, err := p.Checkpoint(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			c, err := proof.OpenCheckpoint(signed, p.verifier)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			checkpoints, tokens[p.token] = append(checkpoints, c), true
			mu.Unlock()
		}
	}
	for range 2 {
		p := b.process(t, now)
		writers.Go(func() { write(p) })
		for i := range callers / 2 {
			account := chat.NewAccountID()
			recorders.Go(func() {
				for k := range posts {
					var h proof.Hash
					err := p.store.Update(ctx, func(tx *store.Tx) error {
						r, err := p.Access(tx, account, "flimmer", &proof.Post{Conversation: chat.ConversationID{1, byte(i)}, Grant: chat.GrantID{2}, Seq: uint64(k)})
						if err == nil {
							h = r.LeafHash()
						}
						return err
					})
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					made = append(made, h)
					mu.Unlock()
				}
			})
		}
	}
	recorders.Wait()
	for waiting := int64(1); waiting > 0 && !t.Failed(); time.Sleep(5 * time.Millisecond) {
		ahead.Add(leaseTime.Milliseconds() / 4)
		err := b.store.View(ctx, func(tx *store.Tx) (err error) { waiting, err = tx.LedgerOutboxSize(); return err })
		if err != nil {
			t.Fatal(err)
		}
	}
	stop()
	writers.Wait()
	if len(tokens) < 2 {
		t.Fatalf("the lease never went over: tokens %v", tokens)
	}
	b.everyLeafOnce(made)
	b.oneChain(checkpoints)
}

// everyLeafOnce looks for each leaf in the log. The entries of the log are those, the keys and map roots.
func (b *bench) everyLeafOnce(made []proof.Hash) {
	b.t.Helper()
	missing := map[proof.Hash]bool{}
	for _, h := range made {
		missing[h] = true
	}
	if len(missing) != len(made) {
		b.t.Errorf("%d leaves were made, %d of them different", len(made), len(missing))
	}
	b.update(func(tx *store.Tx) error {
		for from := int64(0); ; from += 1000 {
			leaves, err := tx.LedgerLeaves(from, 1000)
			if err != nil || len(leaves) == 0 {
				return err
			}
			for _, l := range leaves {
				if proof.TypeOf(l.Leaf) != proof.TypePersonal {
					continue
				}
				if !missing[l.LeafHash] {
					b.t.Errorf("entry %d is there twice, or nobody made it", l.Index)
				}
				delete(missing, l.LeafHash)
			}
		}
	})
	if len(missing) > 0 {
		b.t.Errorf("%d of %d leaves are lost", len(missing), len(made))
	}
}

// oneChain checks that each checkpoint continues the one before, and that none of a size has two roots.
func (b *bench) oneChain(list []proof.Checkpoint) {
	b.t.Helper()
	slices.SortFunc(list, func(x, y proof.Checkpoint) int { return cmp.Compare(x.Size, y.Size) })
	log := b.log()
	for _, c := range list {
		var consistency [][32]byte
		if last := log.Checkpoint().Size; last > 0 && last < c.Size {
			var err error
			if consistency, err = b.Consistency(ctx, last, c.Size); err != nil {
				b.t.Fatal(err)
			}
		}
		if err := log.Advance(c.Signed, consistency); err != nil {
			b.t.Errorf("at %d: %v", c.Size, err)
		}
	}
}

// pausedBatch begins a batch of a writer and stops when it has the lease, until it is told to go on. It returns what the transaction came to.
func pausedBatch(t *testing.T, p *process) (goOn func() error) {
	t.Helper()
	stopped, told, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		first := true
		done <- p.store.Update(ctx, func(tx *store.Tx) error {
			if first {
				first = false
				now := p.ms()
				if _, err := tx.TakeLedgerLease(p.origin(), p.owner, now, now+leaseTime.Milliseconds()); err != nil {
					return err
				}
				close(stopped)
				<-told
			}
			_, _, err := p.batch(tx)
			return err
		})
	}()
	select {
	case <-stopped:
	case err := <-done:
		t.Fatalf("it did not come so far: %v", err)
	}
	return func() error { close(told); return <-done }
}

// writesNothing lets a writer try for a while.
func (b *bench) writesNothing(p *process) {
	b.t.Helper()
	before := b.state()
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if n, err := p.Step(short); n != 0 {
		b.t.Errorf("it wrote %d leaves in the middle of another's batch (%v)", n, err)
	}
	if after := b.state(); after.Size != before.Size || after.Root != before.Root {
		b.t.Errorf("the log went from %d to %d", before.Size, after.Size)
	}
}

func (b *bench) lease() (l store.LedgerLease) {
	err := b.store.View(ctx, func(tx *store.Tx) (err error) { l, err = tx.LedgerLease(b.origin()); return err })
	if err != nil {
		b.t.Error(err)
	}
	return l
}

func (b *bench) state() (s store.LedgerState) {
	b.t.Helper()
	err := b.store.View(ctx, func(tx *store.Tx) (err error) { s, err = tx.LedgerState(b.origin()); return err })
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TestPausedHolder: a writer took the lease and stops in the middle of its batch for longer than the lease lasts. The lease and the batch are
// one transaction: nobody else takes over before that has ended, and what it wrote is the log.
func TestPausedHolder(t *testing.T) {
	b := newBench(t)
	first, second := b.process(t, b.now), b.process(t, b.now)
	b.posts(chat.AccountID{1}, 3)
	goOn := pausedBatch(t, first)
	b.clock = b.clock.Add(leaseTime + time.Second)
	b.writesNothing(second)
	if err := goOn(); err != nil {
		t.Fatal(err)
	}
	b.posts(chat.AccountID{1}, 1)
	b.clock = b.clock.Add(leaseTime + time.Second)
	if n, err := second.Step(ctx); n != 1 || err != nil || second.token != first.token+1 {
		t.Errorf("afterwards: %d, token %d after %d, %v", n, second.token, first.token, err)
	}
}

// TestPausedHolderIsFenced: the database gives up on the paused writer's connection, as it does when its machine is gone. Another one takes
// over after the lease; the paused one goes on, and writes nothing.
func TestPausedHolderIsFenced(t *testing.T) {
	url := storetest.Postgres(t)
	b := benchOn(t, storetest.Opener(t, func(ctx context.Context) (*store.Store, error) { return postgres.Open(ctx, url) }), "", newKeys(t))
	first, second := b.process(t, b.now), b.process(t, b.now)
	b.posts(chat.AccountID{1}, 1)
	if n, err := first.Step(ctx); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	records := b.posts(chat.AccountID{1}, 3)
	goOn := pausedBatch(t, first)
	b.clock = b.clock.Add(leaseTime + time.Second)
	b.writesNothing(second)
	giveUp(t, url)
	if n, err := second.Step(ctx); n != 3 || err != nil {
		t.Fatalf("nobody took over: %d, %v", n, err)
	}
	there := b.state()
	if err := goOn(); err == nil {
		t.Error("the paused batch was committed")
	}
	if after := b.state(); after.Size != there.Size || after.Root != there.Root {
		t.Errorf("the log went from %d to %d", there.Size, after.Size)
	}
	if n, err := first.Step(ctx); n != 0 || err != nil {
		t.Errorf("it wrote under another's lease: %d, %v", n, err)
	}
	for _, r := range records {
		if _, _, err := b.Inclusion(ctx, r.LeafHash()); err != nil {
			t.Error(err)
		}
	}
}

// giveUp ends every connection of the database that stands in the middle of a transaction.
func giveUp(t *testing.T, url string) {
	t.Helper()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	tag, err := c.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'`)
	if err != nil || tag.RowsAffected() != 1 {
		t.Fatalf("ended %d connections: %v", tag.RowsAffected(), err)
	}
}

// TestRestoredBackupDoesNotFork: a newer checkpoint was published than an old copy of the database holds. The server with the copy refuses to
// begin; where somebody takes its memory away as well, whoever saw the newer checkpoint refuses what it then writes, at every size.
func TestRestoredBackupDoesNotFork(t *testing.T) {
	b := newFileBench(t)
	file := filepath.Join(t.TempDir(), "published")
	if _, err := b.remembering(file); err != nil {
		t.Fatal(err)
	}
	b.grow(5)
	backup := b.copy(t)
	b.grow(5)
	seen := b.log()
	if err := seen.Follow(ctx, source{b.Ledger}); err != nil {
		t.Fatal(err)
	}
	_, err := backup.remembering(file)
	if !chat.Is(err, chat.Tampered) || !strings.Contains(err.Error(), "this server does not start") || !strings.Contains(err.Error(), "the database is older") {
		t.Errorf("a server on the backup: %v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	backup.clock = backup.clock.Add(time.Hour) // what it writes now is not what was written then
	if _, err := backup.remembering(file); err != nil {
		t.Fatal(err)
	}
	whatFor := map[proof.Contradiction]bool{}
	for range 12 {
		err := seen.Follow(ctx, source{backup.Ledger})
		var e *proof.Evidence
		if !chat.Is(err, chat.Tampered) || !errors.As(err, &e) {
			t.Fatalf("the fork was taken: %v", err)
		}
		whatFor[e.What] = true
		backup.grow(1)
	}
	if !whatFor[proof.Smaller] || !whatFor[proof.Inconsistent] {
		t.Errorf("the fork was refused for %v", whatFor)
	}
}
