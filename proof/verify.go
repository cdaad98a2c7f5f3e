package proof

import (
	"bytes"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
)

// Pins are what a verifier knows from elsewhere. Without a pin the bundle's own claim is used, and the verdict says so.
type Pins struct {
	LedgerVKey string // note verifier of the log
	VRFKey     []byte
}

// Verify checks a bundle offline and says in plain sentences what it proves. An error means that the bundle proves nothing: it is
// malformed, or a proof in it does not hold (chat.Unproven; the error names the place). A bundle that holds and shows misbehaviour
// is no error: see Verdict.Findings.
func Verify(data []byte, pins Pins) (*Verdict, error) {
	b, err := ParseBundle(data)
	if err != nil {
		return nil, err
	}
	v := verification{bundle: b}
	for _, step := range []func() error{
		func() error { return v.keys(pins) },
		v.announcement,
		v.agreementsHold,
		v.keyChain,
		v.chains,
		v.grants,
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return v.verdict(pins), nil
}

// verification is a bundle on its way to a verdict: each step fills in what it has checked.
type verification struct {
	bundle     *Bundle
	log        note.Verifier
	vrf        VRFKey
	checkpoint Checkpoint

	agreements map[grant.Hash]*grant.Agreement
	people     *keychain.Chain
	control    []*Record
	access     []*Record
	entries    []controlEntry // of control, in its order
}

// keys checks the pins, the keys' forms and the checkpoint.
func (v *verification) keys(pins Pins) (err error) {
	b := v.bundle
	if pins.LedgerVKey != "" && pins.LedgerVKey != b.LedgerVKey {
		return unproven("the bundle is about another ledger than the pinned one")
	}
	if len(pins.VRFKey) > 0 && !bytes.Equal(pins.VRFKey, b.VRFKey) {
		return unproven("the bundle uses another VRF key than the pinned one")
	}
	if err := chat.CheckHost(b.Host); err != nil {
		return err
	}
	if v.log, err = note.NewVerifier(b.LedgerVKey); err != nil || v.log.Name() != Origin(b.Host) {
		return invalid("the bundle's ledger key is malformed, or another host's")
	}
	if v.vrf, err = NewVRFKey(b.VRFKey); err != nil {
		return err
	}
	v.checkpoint, err = canonicalCheckpoint([]byte(b.Checkpoint), v.log)
	return err
}

// announcement checks entry 0, which ties the server's keys to the log.
func (v *verification) announcement() error {
	b := v.bundle
	if err := v.included(b.Keys.Leaf, b.Keys.Index, b.Keys.Proof); err != nil {
		return chat.Wrap(chat.Unproven, err, "the keys leaf is not in the ledger")
	}
	leaf, err := ParseLeaf(b.Keys.Leaf)
	if err != nil {
		return err
	}
	k, ok := leaf.(*ServerKeys)
	if !ok || b.Keys.Index != 0 || k.Host != b.Host || k.LedgerVKey != b.LedgerVKey ||
		!bytes.Equal(k.ServerKey[:], b.ServerKey) || !bytes.Equal(k.VRFKey[:], b.VRFKey) {
		return unproven("entry 0 of the ledger does not announce the bundle's host and keys")
	}
	return nil
}

// included checks that a leaf stands at an index of the checkpoint's tree.
func (v *verification) included(leaf []byte, index int64, p []tlog.Hash) error {
	if len(p) > maxProof {
		return invalid("the inclusion proof is too long")
	}
	return tlog.CheckRecord(p, v.checkpoint.Size, v.checkpoint.Root, index, LeafHash(leaf))
}

// agreementsHold checks the agreements: in the log, in order, signed by both sides, of this partner.
func (v *verification) agreementsHold() error {
	b := v.bundle
	v.agreements = map[grant.Hash]*grant.Agreement{}
	last := int64(0)
	for i, a := range b.Agreements {
		if err := v.included(a.Leaf, a.Index, a.Proof); err != nil {
			return chat.Wrap(chat.Unproven, err, "agreement %d is not in the ledger", i)
		}
		leaf, err := ParseLeaf(a.Leaf)
		if err != nil {
			return err
		}
		l, ok := leaf.(*Agreement)
		if !ok || a.Index <= last {
			return unproven("agreement %d is not an agreement, or out of order", i)
		}
		agreed, err := grant.OpenAgreement(l.Countersigned, b.ServerKey)
		if err != nil {
			return chat.Wrap(chat.Unproven, err, "agreement %d does not hold", i)
		}
		if agreed.Partner != b.Partner || agreed.Host != b.Host {
			return unproven("agreement %d is another partner's or another host's", i)
		}
		v.agreements[grant.AgreementHash(l.Countersigned)], last = agreed, a.Index
	}
	return nil
}

// keyChain checks the account's devices and that the bundle names the account as they do.
func (v *verification) keyChain() (err error) {
	b := v.bundle
	if v.people, err = keychain.Open(b.KeyChain); err != nil {
		return err
	}
	if v.people.Account() != b.Account || v.people.Handle() != b.Handle || v.people.Host() != b.Host {
		return unproven("the key chain is another account's")
	}
	return chat.CheckPartner(b.Partner)
}

// chains checks the records of both chains.
func (v *verification) chains() (err error) {
	if v.control, err = v.records(Control, v.bundle.Control); err != nil {
		return err
	}
	v.access, err = v.records(Access, v.bundle.Access)
	return err
}

// records checks a chain: every record at its place, following the one before, and in the log behind it.
func (v *verification) records(chain Chain, bundled []BundledRecord) ([]*Record, error) {
	var records []*Record
	var before *Record
	for i, entry := range bundled {
		r, err := ParseRecord(entry.Record)
		if err != nil {
			return nil, chat.Wrap(chat.KindOf(err), err, "record %d of %s cannot be read", i, chain)
		}
		if r.Account != v.bundle.Account || r.Partner != v.bundle.Partner || r.Chain != chain {
			return nil, unproven("record %d of %s belongs to another chain", i, chain)
		}
		if r.N != uint64(i) {
			return nil, unproven("record %d of %s is missing: the next one is number %d", i, chain, r.N)
		}
		if err := r.Check(v.vrf, before); err != nil {
			return nil, err
		}
		if err := v.included(r.Leaf, r.Index, entry.Proof); err != nil {
			return nil, chat.Wrap(chat.Unproven, err, "record %d of %s is not in the ledger", i, chain)
		}
		if before != nil && r.Index <= before.Index {
			return nil, unproven("record %d of %s stands in the ledger before the record that it follows", i, chain)
		}
		records = append(records, r)
		before = r
	}
	return records, nil
}
