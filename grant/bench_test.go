package grant_test

import (
	"testing"

	"letterlock/chat"
	"letterlock/grant"
)

// BenchmarkJudge judges a commit that adds a grant to read: what a server and every member do once for it. "rules" leaves out what the
// ledger's proofs cost (a VRF and two inclusions), "ledger" has it in.
func BenchmarkJudge(b *testing.B) {
	w, l := newWorld(b), newLedger(b)
	plain := must(w.alicePhone.group.Commit(w.draft(w.alicePhone, 1, chat.Read).options())).Change()
	proven := must(w.alicePhone.group.Commit(l.admitted(w, nil))).Change()
	b.Run("rules", func(b *testing.B) {
		for b.Loop() {
			if _, err := grant.Judge(plain, w.trust()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ledger", func(b *testing.B) {
		trust := l.trust(w)
		for b.Loop() {
			if _, err := grant.Judge(proven, trust); err != nil {
				b.Fatal(err)
			}
		}
	})
}
