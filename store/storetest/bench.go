package storetest

import (
	"crypto/rand"
	"strconv"
	"testing"

	"letterlock/chat"
	"letterlock/store"
)

// BenchmarkAppend writes batches of 1 KiB entries into a hundred conversations, as an appender does. One operation is one batch.
func BenchmarkAppend(b *testing.B, s *store.Store) {
	for _, size := range []int{16, 64, 256} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			seqs := make(map[chat.ConversationID]uint64)
			ids := make([]chat.ConversationID, 100)
			for i := range ids {
				ids[i] = chat.NewConversationID()
			}
			bodies := make([]byte, size*1024)
			rand.Read(bodies)
			keys := make([]byte, size*16)
			n := 0
			for b.Loop() {
				rand.Read(keys)
				if err := s.AppendBatch(ctx, func(batch *store.Batch) error {
					for i := range size {
						id := ids[n%len(ids)]
						n++
						seqs[id]++
						if err := batch.Append(store.Entry{Conversation: id, Seq: seqs[id], Kind: 3, Epoch: 1, At: 1, Account: account(1),
							Device: chat.DeviceID{1}, Dedup: keys[16*i : 16*i+16], Body: bodies[1024*i : 1024*i+1024]}); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
