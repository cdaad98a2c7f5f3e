package ledger

import (
	"crypto/sha256"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// mapNow is the newest map, checked as a reader checks it.
func (b *bench) mapNow() proof.Map {
	b.t.Helper()
	head, _, err := b.Complete(ctx, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if head, err = proof.ParseHead(head.Bytes()); err != nil {
		b.t.Fatal(err)
	}
	m, err := head.Open(b.verifier)
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// TestMapFollowsTheLog: after every batch the map has what was appended and nothing else, through restarts.
func TestMapFollowsTheLog(t *testing.T) {
	b := newBench(t)
	alice := chat.AccountID{1}
	place := proof.Place{Account: alice, Partner: "flimmer", Chain: proof.Access}
	for round := range 4 {
		b.posts(alice, round*100+1)
		b.reports(round)
		b.drain()
		if round == 2 { // what was in memory is made anew
			if err := b.store.Close(); err != nil {
				t.Fatal(err)
			}
			b.open()
		}
		m := b.mapNow()
		records, err := b.Records(ctx, place, 200)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records[max(0, len(records)-3):] {
			label := proof.ProveLabel(b.keys.VRF, r.Record.Place).Label
			_, p, err := b.MapProof(ctx, label)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Has(label, r.Record.LeafHash(), r.Record.Index, p); err != nil {
				t.Errorf("record %d: %v", r.Record.N, err)
			}
			if m.Has(label, r.Record.LeafHash(), r.Record.Index+1, p) == nil || m.Lacks(label, p) == nil {
				t.Error("the map has it elsewhere, or not")
			}
		}
		heads, err := b.Heads(ctx, alice)
		if err != nil {
			t.Fatal(err)
		}
		place.N = heads[0].Next
		_, list, err := b.Complete(ctx, []proof.Place{place})
		if err != nil {
			t.Fatal(err)
		}
		l, err := proof.CheckLabel(b.vrfKey, place, list[0].VRFProof)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Lacks(l.Label, list[0].Proof); err != nil {
			t.Error(err)
		}
		place.N = 0
	}
}

// TestReadersAtOnce: proofs hold while the log grows beside them.
func TestReadersAtOnce(t *testing.T) {
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 50 {
			b.posts(chat.AccountID{byte(i + 1)}, 20)
			b.drain()
		}
	}()
	for n := 0; ; n++ {
		head, p, err := b.MapProof(ctx, proof.Hash{byte(n), 1})
		if err != nil {
			t.Fatal(err)
		}
		m, err := head.Open(b.verifier)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Lacks(proof.Hash{byte(n), 1}, p); err != nil {
			t.Fatal(err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// TestPublicEntriesAreNumbered: the public entries come with the proof that none is missing.
func TestPublicEntriesAreNumbered(t *testing.T) {
	b := newBench(t)
	hashes := b.reports(3)
	b.posts(chat.AccountID{1}, 2)
	b.drain()
	hashes = append(hashes, b.reports(5)...)
	b.drain()
	m := b.mapNow()
	if m.Public != 8 {
		t.Fatalf("%d public entries", m.Public)
	}
	_, list, err := b.PublicEntries(ctx, 2, 100)
	if err != nil || len(list) != 6 {
		t.Fatal(len(list), err)
	}
	for i, e := range list {
		if proof.LeafHash(e.Leaf) != hashes[2+i] {
			t.Errorf("entry %d is another one", 2+i)
		}
		if err := m.Has(proof.PublicLabel(uint64(2+i)), hashes[2+i], e.Index, e.Proof); err != nil {
			t.Error(err)
		}
	}
}

// TestNewestKeys: the newest entry of a key chain is proven, and that there is none after it.
func TestNewestKeys(t *testing.T) {
	b := newBench(t)
	entries := [][]byte{[]byte("first"), []byte("second"), []byte("third")}
	add := func(n uint64) {
		b.update(func(tx *store.Tx) error { return b.KeyEntry(tx, chat.AccountID{1}, "alice", n, entries[n]) })
	}
	check := func(n Newest, version uint64) {
		t.Helper()
		m, err := n.Head.Open(b.verifier)
		if err != nil || n.Version != version {
			t.Fatal(n.Version, err)
		}
		if n.Index >= 0 {
			this, err := proof.CheckLabel(b.vrfKey, proof.KeyPlace{Handle: "alice", N: version}, n.This.VRFProof)
			if err != nil {
				t.Fatal(err)
			}
			leaf := proof.KeyEntry{Label: this.Label, Entry: sha256.Sum256(entries[version])}
			if err := m.Has(this.Label, proof.LeafHash(leaf.Bytes()), n.Index, n.This.Proof); err != nil {
				t.Error(err)
			}
			version++
		}
		beyond, err := proof.CheckLabel(b.vrfKey, proof.KeyPlace{Handle: "alice", N: version}, n.Beyond.VRFProof)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Lacks(beyond.Label, n.Beyond.Proof); err != nil {
			t.Error(err)
		}
	}
	newest := func(version uint64) Newest {
		t.Helper()
		n, err := b.newest(ctx, "alice", version)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	add(0)
	if n := newest(0); n.Index != -1 {
		t.Errorf("what waits is in the log at %d", n.Index)
	} else {
		check(n, 0)
	}
	add(1)
	b.drain()
	add(2)
	check(newest(2), 1) // the third waits
	b.drain()
	check(newest(2), 2)
}

// TestQuietLogShowsItsAge: a log without entries gets a map root every half hour.
func TestQuietLogShowsItsAge(t *testing.T) {
	b := newBench(t)
	before := b.mapNow()
	b.clock = b.clock.Add(rootTime - time.Second)
	b.drain()
	if m := b.mapNow(); m.Checkpoint.Size != before.Checkpoint.Size {
		t.Error("a root too soon")
	}
	b.clock = b.clock.Add(2 * time.Second)
	b.drain()
	m := b.mapNow()
	if m.Checkpoint.Size != before.Checkpoint.Size+1 || m.Root != before.Root || m.At != b.clock.UnixMilli() {
		t.Errorf("%+v", m)
	}
	b.clock = b.clock.Add(-time.Hour) // a clock that goes back does not take the log's time back
	b.posts(chat.AccountID{1}, 1)
	b.drain()
	if again := b.mapNow(); again.At != m.At {
		t.Errorf("the map's time went from %d to %d", m.At, again.At)
	}
}

// TestADamagedMapIsNotServed: entries that do not give the logged root stop the ledger.
func TestADamagedMapIsNotServed(t *testing.T) {
	b := newFileBench(t)
	b.posts(chat.AccountID{1}, 3)
	b.drain()
	c := b.copy(t)
	c.skipCheck = true
	c.sql(`UPDATE ledger_leaves SET deed = zeroblob(32) WHERE idx = 2`)
	if _, err := Open(ctx, c.store, c.keys, time.Now, nil); !chat.Is(err, chat.Tampered) {
		t.Errorf("it opens: %v", err)
	}
}
