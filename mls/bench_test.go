package mls

import (
	"fmt"
	"testing"
	"time"

	"letterlock/mls/roster"
)

// bulk is a group of n members of whom only the first and the last are real: the others exist as leaves. In a filled tree
// every second of them has committed once, so that no inner node is blank.
func bulk(b *testing.B, n int, fill bool) (first, last *Group) {
	b.Helper()
	g := newPerson("0").create(b)
	var k *KeyPackage
	o := CommitOptions{}
	for i := 1; i < n; i++ {
		k = newPerson(fmt.Sprint(i)).keyPackage(b)
		o.Add = append(o.Add, k.Public)
	}
	p := commit(b, g, o)
	first, last = must(p.Merge()), newPerson(fmt.Sprint(n-1)).join(b, p.Welcome, k)
	for i := 1; fill && i < n-1; i += 2 {
		p := commit(b, first.as(uint32(i)), CommitOptions{})
		first = must(must(first.Process(p.Commit, time.Time{})).Commit.Merge())
		last = must(must(last.Process(p.Commit, time.Time{})).Commit.Merge())
	}
	return first, last
}

// as is the state from which the member at another leaf could commit: the same secrets, and no private keys, which only
// receivers need.
func (g *Group) as(leaf uint32) *Group {
	e := *g.epoch
	for _, s := range e.all() {
		*s = s.clone()
	}
	e.tree, e.keys = newSecretTree(g.suite, make(secret, g.suite.HashSize), g.public.Tree().Width()), keyring{}
	return &Group{suite: g.suite, public: g.public, own: leaf, signer: newPerson(fmt.Sprint(leaf)).signer, epoch: &e}
}

func BenchmarkSeal(b *testing.B) {
	for _, generation := range []uint32{0, 1000, 10000} {
		b.Run(fmt.Sprintf("generation=%d", generation), func(b *testing.B) {
			g := newGroupOf(b, 2)[0]
			plaintext := make([]byte, 1024)
			for g.Generation() < generation {
				must2(g.Seal(nil, nil))
			}
			b.ReportAllocs()
			for b.Loop() {
				must2(g.Seal(plaintext, nil))
			}
		})
	}
}

func must2[A, B any](a A, _ B, err error) A {
	if err != nil {
		panic(err)
	}
	return a
}

func BenchmarkUnseal(b *testing.B) {
	for _, generation := range []uint32{0, 1000, 10000} {
		b.Run(fmt.Sprintf("generation=%d", generation), func(b *testing.B) {
			groups := newGroupOf(b, 2)
			plaintext := make([]byte, 1024)
			for groups[0].Generation() < generation {
				msg := must2(groups[0].Seal(nil, nil))
				if groups[0].Generation()%500 == 0 {
					must(groups[1].Open(msg))
				}
			}
			if generation > 0 {
				must(groups[1].Open(must2(groups[0].Seal(nil, nil))))
			}
			b.ReportAllocs()
			messages := make([][]byte, b.N)
			for i := range messages {
				messages[i] = must2(groups[0].Seal(plaintext, nil))
			}
			b.ResetTimer()
			for _, msg := range messages {
				must(groups[1].Open(msg))
			}
		})
	}
}

var groupSizes = []int{2, 32, 256, 1000}

// pair is the two real members of a group.
type pair struct{ first, last *Group }

// pairs are kept between benchmarks. Nothing merges into them.
var pairs = map[string]pair{}

func benchTrees(b *testing.B, run func(b *testing.B, first, last *Group)) {
	for _, n := range groupSizes {
		for _, tree := range []string{"filled", "blank"} {
			name := fmt.Sprintf("members=%d/%s", n, tree)
			b.Run(name, func(b *testing.B) {
				if pairs[name].first == nil {
					first, last := bulk(b, n, tree == "filled")
					pairs[name] = pair{first, last}
				}
				run(b, pairs[name].first, pairs[name].last)
			})
		}
	}
}

func BenchmarkCommit(b *testing.B) {
	benchTrees(b, func(b *testing.B, first, last *Group) {
		size := 0
		for b.Loop() {
			p := commit(b, first, CommitOptions{})
			size = len(p.Commit)
		}
		b.ReportMetric(float64(size), "bytes/commit")
	})
}

func BenchmarkProcessCommit(b *testing.B) {
	benchTrees(b, func(b *testing.B, first, last *Group) {
		p := commit(b, first, CommitOptions{})
		for b.Loop() {
			must(last.Process(p.Commit, time.Time{}))
		}
	})
}

func BenchmarkStage(b *testing.B) {
	benchTrees(b, func(b *testing.B, first, last *Group) {
		p := commit(b, first, CommitOptions{})
		for b.Loop() {
			must(first.Roster().Stage(p.Commit, time.Time{}))
		}
	})
}

func BenchmarkJoin(b *testing.B) {
	benchTrees(b, func(b *testing.B, first, last *Group) {
		o := newPerson("late").options()
		o.LastResort = true // serves for every round
		k := must(NewKeyPackage(o))
		p := commit(b, first, CommitOptions{Add: [][]byte{k.Public}})
		b.ReportMetric(float64(len(p.Welcome)), "bytes/welcome")
		for b.Loop() {
			must(Join(p.Welcome, k, JoinOptions{Signer: newPerson("late").signer}))
		}
	})
}

func BenchmarkOpenGroupInfo(b *testing.B) {
	benchTrees(b, func(b *testing.B, first, last *Group) {
		info := must(first.GroupInfo())
		for b.Loop() {
			must(roster.Open(info, time.Time{}))
		}
	})
}
