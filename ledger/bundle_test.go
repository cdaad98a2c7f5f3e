package ledger

import (
	"testing"

	"letterlock/proof"
	"letterlock/store"
)

// TestBundleUnderItsPolicy: a bundle carries the cosignatures of the policy in force, and how it followed from the one that a verifier pinned. A
// file that was made under the old one still verifies.
func TestBundleUnderItsPolicy(t *testing.T) {
	b := newBench(t)
	one, two := newSigner(t, b, "one.example"), newSigner(t, b, "two.example")
	first, second := b.policy("quorum w0\n", one), b.policy("group both all w0 w1\nquorum both\n", one, two)
	person := newPerson(t, b)
	b.update(func(tx *store.Tx) error { return b.KeyEntry(tx, person.account, "alice", 0, person.chain[0]) })
	subject := Subject{Account: person.account, Handle: "alice", Partner: "flimmer", KeyChain: person.chain}
	under := func(p *proof.WitnessPolicy) []byte {
		t.Helper()
		if err := b.witnessed(b.publisher(p)); err != nil {
			t.Fatal(err)
		}
		bundle, err := b.Bundle(ctx, subject)
		if err != nil {
			t.Fatal(err)
		}
		data, err := bundle.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	verify := func(data []byte, pinned *proof.WitnessPolicy, witnesses int) {
		t.Helper()
		v, err := proof.Verify(data, proof.Pins{LedgerVKey: b.keys.LedgerVKey(), Policy: []byte(pinned.String())})
		if err != nil {
			t.Fatal(err)
		}
		if v.Kind != proof.NeverAnything || len(v.Witnesses) != witnesses || v.AsOf.By != "witnesses" {
			t.Errorf("verdict: %+v", v)
		}
	}
	old := under(first)
	verify(old, first, 1)
	now := under(second)
	verify(now, first, 2)
	verify(now, second, 2)
	verify(old, first, 1)
}
