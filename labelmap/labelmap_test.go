package labelmap_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"letterlock/labelmap"
)

// made is a map of random entries, among them many that share their first bits.
type made struct {
	entries []labelmap.Entry
	tree    labelmap.Tree
}

func (m *made) bucket(b labelmap.Bucket) (list []labelmap.Entry, err error) {
	for _, e := range m.entries {
		if labelmap.BucketOf(e.Label) == b {
			list = append(list, e)
		}
	}
	return list, nil
}

func build(r *mathrand.Rand, n int) *made {
	m := new(made)
	for i := range n {
		var e labelmap.Entry
		for j := range e.Label {
			e.Label[j] = byte(r.Uint32())
		}
		if i%3 == 1 { // close to the one before
			e.Label = m.entries[len(m.entries)-1].Label
			e.Label[r.IntN(32)] ^= 1 << r.IntN(8)
		}
		binary.BigEndian.PutUint64(e.Value[:], uint64(i))
		m.entries = append(m.entries, e)
	}
	m.entries = sorted(m.entries)
	buckets := map[labelmap.Bucket][]labelmap.Entry{}
	for _, e := range m.entries {
		buckets[labelmap.BucketOf(e.Label)] = append(buckets[labelmap.BucketOf(e.Label)], e)
	}
	m.tree = m.tree.With(buckets)
	return m
}

func sorted(list []labelmap.Entry) []labelmap.Entry {
	slices.SortFunc(list, func(a, b labelmap.Entry) int { return bytes.Compare(a.Label[:], b.Label[:]) })
	return slices.CompactFunc(list, func(a, b labelmap.Entry) bool { return a.Label == b.Label })
}

// TestTreeIsTheTrie: the tree with its top in memory gives the roots and proofs of the plain trie.
func TestTreeIsTheTrie(t *testing.T) {
	r := mathrand.New(mathrand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 3, 10, 100, 3000} {
		m := build(r, n)
		if m.tree.Root() != labelmap.Root(m.entries) {
			t.Fatalf("of %d entries: the roots differ", n)
		}
		for _, e := range m.entries[:min(n, 200)] {
			check(t, m, e.Label, &e.Value)
			missing := e.Label
			missing[r.IntN(32)] ^= 1 << r.IntN(8)
			if !slices.ContainsFunc(m.entries, func(e labelmap.Entry) bool { return e.Label == missing }) {
				check(t, m, missing, nil)
			}
		}
		var random labelmap.Hash
		rand.Read(random[:])
		check(t, m, random, nil)
	}
}

func check(t *testing.T, m *made, label labelmap.Hash, want *labelmap.Hash) *labelmap.Proof {
	t.Helper()
	p, err := m.tree.Prove(label, m.bucket)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = labelmap.ParseProof(p.Bytes()); err != nil {
		t.Fatal(err)
	}
	value, present, err := p.Check(m.tree.Root(), label)
	if err != nil || present != (want != nil) || want != nil && value != *want {
		t.Fatalf("present %v, value %x, %v; want %x", present, value, err, want)
	}
	return p
}

// TestInsertOnly: a tree that grows entry by entry is the tree of all of them, and the old one stays what it was.
func TestInsertOnly(t *testing.T) {
	m := build(mathrand.New(mathrand.NewPCG(3, 4)), 300)
	grown := new(made)
	for _, e := range m.entries {
		old, root := grown.tree, grown.tree.Root()
		grown.entries = append(grown.entries, e)
		bucket, _ := grown.bucket(labelmap.BucketOf(e.Label))
		grown.tree = old.With(map[labelmap.Bucket][]labelmap.Entry{labelmap.BucketOf(e.Label): bucket})
		if old.Root() != root || grown.tree.Root() != labelmap.Root(grown.entries) {
			t.Fatal("a tree changed, or grew wrongly")
		}
	}
}

// TestForgedAbsence: no label that the map holds can be shown as absent by a walk that ends at another leaf of the map, whatever
// steps are taken out of the proof.
func TestForgedAbsence(t *testing.T) {
	m := build(mathrand.New(mathrand.NewPCG(5, 6)), 200)
	root := m.tree.Root()
	for _, victim := range m.entries[:40] {
		for _, other := range m.entries {
			if other == victim {
				continue
			}
			p := check(t, m, other.Label, &other.Value)
			forged := labelmap.Proof{Kind: labelmap.Absent, Leaf: append(other.Label[:], other.Value[:]...), Bits: p.Bits, Siblings: p.Siblings}
			if _, _, err := forged.Check(root, victim.Label); err == nil {
				t.Fatalf("%x is shown as absent", victim.Label)
			}
		}
	}
}

// TestEveryByteCounts: a proof with a changed byte never says anything else about its label.
func TestEveryByteCounts(t *testing.T) {
	m := build(mathrand.New(mathrand.NewPCG(7, 8)), 100)
	missing := m.entries[0].Label
	missing[31] ^= 1
	for _, label := range []labelmap.Hash{m.entries[7].Label, missing} {
		p, err := m.tree.Prove(label, m.bucket)
		if err != nil {
			t.Fatal(err)
		}
		data := p.Bytes()
		for i := range data {
			for _, flip := range []byte{1, 0x80, 0xff} {
				changed := bytes.Clone(data)
				changed[i] ^= flip
				q, err := labelmap.ParseProof(changed)
				if err != nil {
					continue
				}
				if _, _, err := q.Check(m.tree.Root(), label); err == nil {
					t.Fatalf("byte %d may be changed", i)
				}
			}
		}
	}
}

func FuzzParseProof(f *testing.F) {
	m := build(mathrand.New(mathrand.NewPCG(9, 10)), 50)
	for _, e := range m.entries[:3] {
		p, _ := m.tree.Prove(e.Label, m.bucket)
		f.Add(p.Bytes())
		e.Label[0] ^= 1
		p, _ = m.tree.Prove(e.Label, m.bucket)
		f.Add(p.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := labelmap.ParseProof(data)
		if err != nil {
			return
		}
		if !bytes.Equal(p.Bytes(), data) {
			t.Fatal("a proof has two encodings")
		}
		for _, e := range m.entries {
			value, present, err := p.Check(m.tree.Root(), e.Label)
			if err == nil && (!present || value != e.Value) {
				t.Fatalf("it says that %x is %v, %x", e.Label, present, value)
			}
		}
	})
}

// BenchmarkInsert puts 5,000 labels into a map of a million, as one step.
func BenchmarkInsert(b *testing.B) {
	r := mathrand.New(mathrand.NewPCG(11, 12))
	buckets := map[labelmap.Bucket][]labelmap.Entry{}
	add := func() labelmap.Bucket {
		var e labelmap.Entry
		for j := 0; j < 32; j += 8 {
			binary.BigEndian.PutUint64(e.Label[j:], r.Uint64())
		}
		at := labelmap.BucketOf(e.Label)
		buckets[at] = append(buckets[at], e)
		return at
	}
	for range 1_000_000 {
		add()
	}
	for at := range buckets {
		buckets[at] = sorted(buckets[at])
	}
	t := labelmap.Tree{}.With(buckets)
	b.ReportAllocs()
	for b.Loop() {
		changed := map[labelmap.Bucket][]labelmap.Entry{}
		for range 5000 {
			at := add()
			buckets[at] = sorted(buckets[at])
			changed[at] = buckets[at]
		}
		t = t.With(changed)
	}
	b.ReportMetric(float64(b.N)*5000/b.Elapsed().Seconds(), "inserts/s")
}

// TestBitsRise: a step that is taken twice, or out of turn, is no proof, even where the hashes would follow.
func TestBitsRise(t *testing.T) {
	var label, sibling labelmap.Hash
	label[0] = 0xc0
	for _, bits := range [][]byte{{1, 1}, {1, 0}} {
		p := labelmap.Proof{Kind: labelmap.Present, Leaf: sibling[:], Bits: bits, Siblings: make([]byte, 64)}
		if _, err := labelmap.ParseProof(p.Bytes()); err == nil {
			t.Errorf("bits %v are taken", bits)
		}
	}
}
