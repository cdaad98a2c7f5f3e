package ledger

import (
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// BenchmarkAppend measures the writer: leaves a second out of a full outbox into a log of published checkpoints, each batch synced.
func BenchmarkAppend(b *testing.B) {
	w := newBench(b)
	w.skipCheck = true
	fill := func(n int) { w.reports(n) }
	left := 0
	b.ResetTimer()
	for b.Loop() {
		if left == 0 {
			b.StopTimer()
			fill(20 * batchSize)
			left = 20
			b.StartTimer()
		}
		if n, err := w.w.Step(ctx); err != nil || n != batchSize {
			b.Fatal(n, err)
		}
		left--
	}
	b.ReportMetric(float64(b.N)*batchSize/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkProvable measures a deed from its transaction to its proof in hand, batch leaves at a time.
func BenchmarkProvable(b *testing.B) {
	for _, batch := range []int{1, 100} {
		b.Run(map[int]string{1: "batch=1", 100: "batch=100"}[batch], func(b *testing.B) {
			w := newBench(b)
			w.skipCheck = true
			b.ResetTimer()
			for b.Loop() {
				hashes := w.reports(batch)
				w.drain()
				for _, h := range hashes {
					if _, _, err := w.Inclusion(ctx, h); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

// BenchmarkRecord measures what one record adds to the transaction of its deed.
func BenchmarkRecord(b *testing.B) {
	w := newBench(b)
	w.skipCheck = true
	account := chat.NewAccountID()
	post := &proof.Post{Conversation: chat.ConversationID{1}, Grant: chat.GrantID{2}}
	w.update(func(tx *store.Tx) error {
		for b.Loop() {
			if _, err := w.Access(tx, account, "flimmer", post); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkInclusion reads a proof out of a log of 10,000 entries.
func BenchmarkInclusion(b *testing.B) {
	w := newBench(b)
	w.skipCheck = true
	var hashes []proof.Hash
	for range 10 {
		hashes = append(hashes, w.reports(1000)...)
		w.drain()
	}
	w.clock = w.clock.Add(time.Second)
	i := 0
	for b.Loop() {
		i = (i*7 + 1) % len(hashes)
		if _, _, err := w.Inclusion(ctx, hashes[i]); err != nil {
			b.Fatal(err)
		}
	}
}
