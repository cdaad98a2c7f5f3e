package durability

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/bench"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// TestKillInTheSweep: thousands of messages are over at once, and the server is killed again and again while it deletes them. Each time
// the folder checks clean and nothing that is over is served; in the end everything is deleted, and what had no expiry stands.
func TestKillInTheSweep(t *testing.T) {
	const messages, maxKills = 5000, 5
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "data")
	address, err := bench.FreeAddress()
	must(t, err)
	start := func() *bench.Process {
		t.Helper()
		p, err := bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: dir, Address: address})
		must(t, err)
		return p
	}
	server := start()
	defer func() { server.Kill() }()
	pair, err := bench.NewPair(ctx, server.Target)
	must(t, err)
	over := time.Now().Add(3 * time.Second)
	sent := sendExpiring(t, ctx, pair, messages, over)
	kills := 0
	for left := uint64(messages); left > 0; {
		n := dueBy(t, dir, over)
		if n < left && kills < maxKills { // the sweep is on its way
			server.Kill()
			kills++
			if out, err := exec.CommandContext(ctx, binary, "check", "--data", dir).CombinedOutput(); err != nil {
				t.Fatalf("kill %d: check: %v\n%s", kills, err, out)
			}
			server = start()
			servesNothingOver(t, ctx, pair, sent)
		}
		left = n
		time.Sleep(2 * time.Millisecond)
	}
	if kills == 0 {
		t.Error("the sweep was over before it could be disturbed")
	}
	servesNothingOver(t, ctx, pair, sent)
	if out, err := exec.CommandContext(ctx, binary, "admin", "--data", dir, "compact").CombinedOutput(); err == nil {
		t.Errorf("compacted under a running server: %s", out)
	}
	must(t, server.Stop())
	out, err := exec.CommandContext(ctx, binary, "admin", "--data", dir, "compact", "--json").Output()
	must(t, err)
	var size struct{ Before, After int64 }
	must(t, json.Unmarshal(out, &size))
	if size.After == 0 || size.After >= size.Before {
		t.Errorf("compacting said %s", out)
	}
	if out, err := exec.CommandContext(ctx, binary, "check", "--data", dir).CombinedOutput(); err != nil {
		t.Fatalf("check: %v\n%s", err, out)
	}
	t.Logf("%d kills", kills)
}

// sendExpiring sends messages that are over at a time, and one in ten that stays. It returns them by sequence number, the latter as nil.
func sendExpiring(t *testing.T, ctx context.Context, p *bench.Pair, n int, over time.Time) map[uint64][]byte {
	t.Helper()
	stream, err := p.A.Dial(ctx)
	must(t, err)
	defer stream.Close()
	bodies, bySeq := map[uint32][]byte{}, map[uint64][]byte{}
	answers := 0
	receive := func() {
		f, err := stream.Recv(ctx)
		must(t, err)
		if f.Type != api.FrameAck {
			t.Fatalf("answered with %#x %s", f.Type, f.Detail)
		}
		bySeq[f.Seq] = bodies[f.Request]
		answers++
	}
	for i := range uint32(n + n/10) {
		f := api.Frame{Type: api.FrameSend, Request: i, Conversation: p.Conversation, Dedup: [16]byte(newKey()), Message: p.Message(messageSize, int64(i))}
		if i%11 != 0 {
			f.Type, f.Expires = api.FrameSendExpiring, over.UnixMilli()
			bodies[i] = f.Message
		}
		must(t, stream.Send(f))
		if int(i)-answers > 100 {
			receive()
		}
	}
	for answers < n+n/10 {
		receive()
	}
	return bySeq
}

// dueBy counts, beside the running server, the messages that wait to be deleted.
func dueBy(t *testing.T, dir string, at time.Time) (n uint64) {
	t.Helper()
	s, err := sqlite.Open(context.Background(), filepath.Join(dir, "letterlock.db"))
	must(t, err)
	defer s.Close()
	must(t, s.View(context.Background(), func(tx *store.Tx) (err error) { n, err = tx.CountDue(at.UnixMilli()); return err }))
	return n
}

// servesNothingOver reads the whole log: no gaps, what is over as a tombstone with its hash, the rest as it was.
func servesNothingOver(t *testing.T, ctx context.Context, p *bench.Pair, sent map[uint64][]byte) {
	t.Helper()
	for after := uint64(0); ; {
		page, err := p.B.Log(ctx, p.Conversation, after, 1000, 0)
		must(t, err)
		if len(page.Entries) == 0 {
			if after != uint64(len(sent))+1 { // and the commit that added B
				t.Fatalf("the log ends at %d, %d messages were acknowledged", after, len(sent))
			}
			return
		}
		for _, e := range page.Entries {
			if e.Seq != after+1 {
				t.Fatalf("entry %d follows entry %d", e.Seq, after)
			}
			after = e.Seq
			body := sent[e.Seq]
			if hash := sha256.Sum256(body); e.Tombstone != (body != nil) || e.Expired != (body != nil) || body != nil && string(e.Body) != string(hash[:]) {
				t.Fatalf("entry %d is served as %+v", e.Seq, e)
			}
		}
	}
}
