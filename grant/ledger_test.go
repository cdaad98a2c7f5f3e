package grant_test

import (
	"crypto/rand"
	"testing"

	vrf "filippo.io/mostly-harmless/vrf-r255"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/mls"
	"letterlock/proof"
)

// ledger is a real log in memory: tree, checkpoints, labels.
type ledger struct {
	t      testing.TB
	log    note.Signer
	vkey   string
	vrf    *vrf.PrivateKey
	leaves [][]byte
	hashes []tlog.Hash
}

func newLedger(t testing.TB) *ledger {
	l := &ledger{t: t}
	skey, vkey, err := note.GenerateKey(rand.Reader, proof.Origin(testHost))
	if err != nil {
		t.Fatal(err)
	}
	l.vkey, l.log = vkey, must(note.NewSigner(skey))
	scalar := make([]byte, 32)
	rand.Read(scalar[:31])
	l.vrf = must(vrf.NewPrivateKey(scalar))
	return l
}

// ReadHashes implements tlog.HashReader.
func (l *ledger) ReadHashes(at []int64) (list []tlog.Hash, err error) {
	for _, i := range at {
		list = append(list, l.hashes[i])
	}
	return list, nil
}

// add logs a leaf.
func (l *ledger) add(leaf []byte) int64 {
	n := int64(len(l.leaves))
	l.hashes = append(l.hashes, must(tlog.StoredHashes(n, leaf, l))...)
	l.leaves = append(l.leaves, leaf)
	return n
}

// prove is the proof that a leaf is in the log as it is now.
func (l *ledger) prove(index int64) []byte {
	size := int64(len(l.leaves))
	var path []proof.Hash
	for _, h := range must(tlog.ProveRecord(size, index, l)) {
		path = append(path, proof.Hash(h))
	}
	head := must(proof.SignCheckpoint(l.log, size, must(tlog.TreeHash(size, l))))
	return must(proof.InclusionText(index, path, head))
}

// record logs a signed grant at a place.
func (l *ledger) record(place proof.Place, signed []byte) *proof.Record {
	payload := must(proof.MarshalPayload(&proof.Grant{Signed: signed}))
	var before *proof.Hash
	if place.N > 0 {
		before = &proof.Hash{1}
	}
	r := must(proof.NewRecord(place, proof.ProveLabel(l.vrf, place), payload, before, rand.Reader))
	r.Index = l.add(r.Leaf)
	return r
}

func (l *ledger) trust(w *world) grant.Trust {
	return must(proof.Trust(testHost, public(w.operator), l.vkey, l.vrf.PublicKey().Bytes()))
}

// admitted is a commit that lets a grant in, with the ledger's own proofs, at a place of the account's history.
func (l *ledger) admitted(w *world, place func(*proof.Place)) mls.CommitOptions {
	d := w.draft(w.alicePhone, 1, chat.Read|chat.Send)
	at := proof.Place{Account: d.grant.Account, Partner: testPartner, Chain: proof.Control, N: d.grant.Counter}
	if place != nil {
		place(&at)
	}
	d.proof = func(p *grant.Proof) {
		leaf := proof.Agreement{Countersigned: p.Agreement}
		agreement := l.add(leaf.Bytes())
		r := l.record(at, p.Signed)
		p.AgreementProof, p.Record, p.RecordProof = l.prove(agreement), r.Bytes(), l.prove(r.Index)
	}
	return d.options()
}

// TestJudgeByTheLedger goes the whole way: real log, real labels, proof.Trust.
func TestJudgeByTheLedger(t *testing.T) {
	w, l := newWorld(t), newLedger(t)
	judge := func(o mls.CommitOptions, trust grant.Trust) error {
		p := must(w.alicePhone.group.Commit(o))
		defer p.Discard()
		v, err := grant.Judge(p.Change(), trust)
		if err == nil && len(v.Added) != 1 {
			t.Errorf("verdict %+v", v)
		}
		return err
	}
	if err := judge(l.admitted(w, nil), l.trust(w)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o     mls.CommitOptions
		trust grant.Trust
	}{
		"at another place of the history":    {l.admitted(w, func(p *proof.Place) { p.N++ }), l.trust(w)},
		"in another person's history":        {l.admitted(w, func(p *proof.Place) { p.Account = w.bob.account }), l.trust(w)},
		"in the history with another":        {l.admitted(w, func(p *proof.Place) { p.Partner = "other" }), l.trust(w)},
		"in another ledger":                  {l.admitted(w, nil), newLedger(t).trust(w)},
		"by nothing that is a ledger at all": {w.draft(w.alicePhone, 1, chat.Read).options(), l.trust(w)},
	} {
		if err := judge(c.o, c.trust); err == nil {
			t.Errorf("logged %s: accepted", name)
		} else if chat.KindOf(err) == chat.Internal {
			t.Errorf("logged %s: %v", name, err)
		}
	}
}
