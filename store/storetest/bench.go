package storetest

import (
	"crypto/rand"
	"encoding/binary"
	"strconv"
	"syscall"
	"testing"

	"letterlock/chat"
	"letterlock/store"
)

// BenchmarkAppend writes batches of 1 KiB entries into a hundred conversations, as an appender does. One operation is one batch.
func BenchmarkAppend(b *testing.B, s *store.Store) {
	for _, size := range []int{16, 64, 256, 1024} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			seqs := make(map[chat.ConversationID]uint64)
			ids := make([]chat.ConversationID, 100)
			for i := range ids {
				ids[i] = chat.NewConversationID()
			}
			bodies := make([]byte, size*1024)
			rand.Read(bodies)
			keys := make([]byte, size*16)
			var entries []store.Entry
			n := 0
			var before syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				rand.Read(keys)
				for i := range size {
					binary.BigEndian.PutUint64(keys[16*i:], uint64(n)<<16)
				}
				entries = entries[:0]
				for i := range size {
					id := ids[n%len(ids)]
					n++
					seqs[id]++
					entries = append(entries, store.Entry{Conversation: id, Seq: seqs[id], Kind: 3, Epoch: 1, At: 1, Account: account(1),
						Device: chat.DeviceID{1}, Dedup: keys[16*i : 16*i+16], Body: bodies[1024*i : 1024*i+1024]})
				}
				if err := s.AppendEntries(ctx, entries); err != nil {
					b.Fatal(err)
				}
			}
			var after syscall.Rusage
			syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(cpu)/1000/float64(b.N*size), "cpu-us/entry")
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}
