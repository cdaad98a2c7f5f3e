package bench

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/ledger"
	"letterlock/proof"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// LedgerOptions say how a ledger is measured, in this process, on SQLite in a folder.
type LedgerOptions struct {
	Dir      string        // of the database
	Sizes    []int         // entries at which the writer is measured, rising
	Rate     int           // records a second when latency is measured
	Duration time.Duration // of each paced run
	Progress Progress
}

// Ledger is what came of it.
type Ledger struct {
	Steps    []LedgerStep   `json:"steps"`
	Paced    LedgerPaced    `json:"paced"`
	Messages LedgerMessages `json:"messages"`
}

// LedgerStep is what the writer does at a size.
type LedgerStep struct {
	Entries  int64   `json:"entries"`              // in the log, before
	Appended float64 `json:"appended_per_second"`  // out of a full outbox, each batch synced, with its map root and checkpoint
	Provable float64 `json:"provable_per_second"`  // from the deed's transaction to its proof in hand, a thousand at a time
	Disk     int64   `json:"bytes"`                // of the database
	MapBytes int     `json:"map_proof_bytes"`      // the largest of a hundred
	Checked  float64 `json:"map_proof_check_usec"` // to check one
}

// LedgerPaced is how long a record takes from its deed into a published checkpoint, whose last entry is the map that holds it.
type LedgerPaced struct {
	Rate    int     `json:"per_second"`
	Records int     `json:"records"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
}

// LedgerMessages is what logging costs those who write messages, on the same store.
type LedgerMessages struct {
	Alone  float64 `json:"messages_per_second_alone"`
	Beside float64 `json:"messages_per_second_beside"` // with that many records a second logged
}

// ledgerBench is a ledger on a store of its own.
type ledgerBench struct {
	*ledger.Ledger
	options LedgerOptions
	log     note.Verifier
	store   *store.Store
	writer  *ledger.Writer
	start   int64 // of the next report: no two are alike
}

const (
	ledgerBatch  = 1000 // leaves queued at a time
	ledgerWindow = 10   // batches that are measured at a size
	ledgerHost   = "bench.example"
)

// MeasureLedger fills a ledger step by step and measures at each.
func MeasureLedger(ctx context.Context, o LedgerOptions) (result Ledger, err error) {
	b, err := openLedger(ctx, o)
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, b.store.Close()) }()
	for _, size := range o.Sizes {
		step, err := b.step(ctx, int64(size))
		if err != nil {
			return result, err
		}
		result.Steps = append(result.Steps, step)
	}
	o.Progress.say("measuring messages beside the ledger")
	if result.Messages.Alone, err = b.messages(ctx); err != nil {
		return result, err
	}
	pacing := make(chan error, 1)
	paced, stop := context.WithCancel(ctx)
	go func() {
		_, err := b.paced(paced)
		pacing <- err
	}()
	result.Messages.Beside, err = b.messages(ctx)
	stop()
	if err = errors.Join(err, <-pacing); err != nil {
		return result, err
	}
	o.Progress.say("measuring the way into the log at %d records/s", o.Rate)
	result.Paced, err = b.paced(ctx)
	return result, err
}

func openLedger(ctx context.Context, o LedgerOptions) (*ledgerBench, error) {
	s, err := sqlite.Open(ctx, filepath.Join(o.Dir, "ledger.db"))
	if err != nil {
		return nil, err
	}
	keys, err := ledger.NewKeys(ledgerHost)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	b, err := newLedgerBench(ctx, s, keys, o)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return b, nil
}

func newLedgerBench(ctx context.Context, s *store.Store, keys *ledger.Keys, o LedgerOptions) (*ledgerBench, error) {
	log, err := note.NewVerifier(keys.LedgerVKey())
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(ctx, s, keys, time.Now, rand.Reader)
	if err != nil {
		return nil, err
	}
	return &ledgerBench{Ledger: l, options: o, log: log, store: s, writer: ledger.NewWriter(l, slog.New(slog.NewTextHandler(io.Discard, nil)))}, nil
}

// FillLedger appends made-up reports to the ledger of a store, whose server does not run, until it has so many entries.
func FillLedger(ctx context.Context, s *store.Store, keys *ledger.Keys, size int64, progress Progress) error {
	b, err := newLedgerBench(ctx, s, keys, LedgerOptions{Progress: progress})
	if err != nil {
		return err
	}
	if b.start, err = b.size(ctx); err != nil { // so that a second filling makes up others
		return err
	}
	return b.fill(ctx, size)
}

func (b *ledgerBench) size(ctx context.Context) (int64, error) {
	signed, err := b.Checkpoint(ctx)
	if err != nil {
		return 0, err
	}
	c, err := proof.OpenCheckpoint(signed, b.log)
	return c.Size, err
}

// fill makes the log as large as asked for, or larger by one.
func (b *ledgerBench) fill(ctx context.Context, size int64) error {
	for {
		now, err := b.size(ctx)
		if err != nil || now >= size {
			return err
		}
		if now%100_000 < ledgerBatch {
			b.options.Progress.say("filling the ledger: %d of %d entries", now, size)
		}
		if _, err := b.queue(ctx, int(min(ledgerBatch, max(1, size-now-1)))); err != nil { // the map root makes one more
			return err
		}
		if err := b.drain(ctx); err != nil {
			return err
		}
	}
}

// queue puts leaves into the outbox: reports, which are public entries with a place in the map like all others.
func (b *ledgerBench) queue(ctx context.Context, n int) (leaves []proof.Hash, err error) {
	err = b.store.Update(ctx, func(tx *store.Tx) error {
		leaves = leaves[:0]
		for range n {
			b.start++
			leaf, err := b.Public(tx, &proof.Report{Partner: "flimmer", Start: b.start})
			if err != nil {
				return err
			}
			leaves = append(leaves, leaf)
		}
		return nil
	})
	return leaves, err
}

func (b *ledgerBench) drain(ctx context.Context) error {
	for {
		if n, err := b.writer.Step(ctx); err != nil || n == 0 {
			return err
		}
	}
}

// step measures at a size.
func (b *ledgerBench) step(ctx context.Context, size int64) (s LedgerStep, err error) {
	if err := b.fill(ctx, size); err != nil {
		return s, err
	}
	if s.Entries, err = b.size(ctx); err != nil {
		return s, err
	}
	b.options.Progress.say("measuring with %d entries", s.Entries)
	if s.Appended, err = b.appended(ctx); err != nil {
		return s, err
	}
	if s.Provable, err = b.provable(ctx); err != nil {
		return s, err
	}
	if s.MapBytes, s.Checked, err = b.mapProofs(ctx); err != nil {
		return s, err
	}
	use, err := DiskOfFolder(b.options.Dir)
	s.Disk = use.Data
	return s, err
}

// appended drains a full outbox.
func (b *ledgerBench) appended(ctx context.Context) (float64, error) {
	for range ledgerWindow {
		if _, err := b.queue(ctx, ledgerBatch); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	err := b.drain(ctx)
	return ledgerWindow * ledgerBatch / time.Since(start).Seconds(), err
}

// provable makes deeds, and fetches the proof of each.
func (b *ledgerBench) provable(ctx context.Context) (float64, error) {
	start := time.Now()
	for range ledgerWindow {
		leaves, err := b.queue(ctx, ledgerBatch)
		if err != nil {
			return 0, err
		}
		if err := b.drain(ctx); err != nil {
			return 0, err
		}
		for _, leaf := range leaves {
			if _, _, err := b.Inclusion(ctx, leaf); err != nil {
				return 0, err
			}
		}
	}
	return ledgerWindow * ledgerBatch / time.Since(start).Seconds(), nil
}

// mapProofs asks for labels that the map does not hold, and checks the answers as a reader does.
func (b *ledgerBench) mapProofs(ctx context.Context) (largest int, usec float64, err error) {
	var took time.Duration
	const asked = 100
	for range asked {
		var label proof.Hash
		rand.Read(label[:])
		head, p, err := b.MapProof(ctx, label)
		if err != nil {
			return 0, 0, err
		}
		m, err := head.Open(b.log)
		if err != nil {
			return 0, 0, err
		}
		start := time.Now()
		if err := m.Lacks(label, p); err != nil {
			return 0, 0, err
		}
		took += time.Since(start)
		largest = max(largest, len(p))
	}
	return largest, float64(took.Microseconds()) / asked, nil
}

// paced makes records at the rate, each the deed of another person, until the time is over or the context ends. It measures from when a
// record was due.
func (b *ledgerBench) paced(ctx context.Context) (result LedgerPaced, err error) {
	writing, stop := context.WithCancel(context.WithoutCancel(ctx))
	written := make(chan error, 1)
	go func() { written <- b.writer.Run(writing) }()
	var mu sync.Mutex
	var delays []int64
	var failed error
	made := 0
	var waiting sync.WaitGroup
	interval := time.Second / time.Duration(b.options.Rate)
	start := time.Now()
	for due := start; due.Sub(start) < b.options.Duration && ctx.Err() == nil; due = due.Add(interval) {
		time.Sleep(time.Until(due))
		made++
		waiting.Go(func() {
			err := b.deed(writing)
			mu.Lock()
			defer mu.Unlock()
			failed = errors.Join(failed, err)
			delays = append(delays, time.Since(due).Nanoseconds())
		})
	}
	waiting.Wait()
	stop()
	if err := errors.Join(failed, <-written); err != nil {
		return result, err
	}
	slices.Sort(delays)
	return LedgerPaced{Rate: b.options.Rate, Records: made, P50: quantile(delays, 0.5), P99: quantile(delays, 0.99)}, nil
}

// deed logs one access of one person and waits until a checkpoint covers it.
func (b *ledgerBench) deed(ctx context.Context) error {
	var leaf proof.Hash
	err := b.store.Update(ctx, func(tx *store.Tx) error {
		r, err := b.Access(tx, chat.NewAccountID(), "flimmer", &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}})
		if err == nil {
			leaf = r.LeafHash()
		}
		return err
	})
	if err != nil {
		return err
	}
	b.Notify()
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, _, err = b.Wait(waiting, leaf)
	return err
}

// messages appends messages to a hundred conversations, 256 in each transaction, as delivery does when it is busy.
func (b *ledgerBench) messages(ctx context.Context) (float64, error) {
	const batch, size = 256, 1024
	ids := make([]chat.ConversationID, 100)
	for i := range ids {
		ids[i] = chat.NewConversationID()
	}
	seqs := map[chat.ConversationID]uint64{}
	account := chat.NewAccountID()
	start, n := time.Now(), 0
	for time.Since(start) < b.options.Duration {
		entries := make([]store.Entry, batch)
		body := make([]byte, size)
		rand.Read(body)
		for i := range entries {
			id := ids[n%len(ids)]
			n++
			seqs[id]++
			dedup := binary.BigEndian.AppendUint64(make([]byte, 8, 16), uint64(n))
			entries[i] = store.Entry{Conversation: id, Seq: seqs[id], Kind: 3, Epoch: 1, At: 1, Account: account, Device: chat.DeviceID{1}, Dedup: dedup, Body: body}
		}
		if err := b.store.AppendEntries(ctx, entries); err != nil {
			return 0, err
		}
	}
	return float64(n) / time.Since(start).Seconds(), nil
}
