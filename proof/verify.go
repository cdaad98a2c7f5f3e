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
	Policy     []byte // witness policy (spec/witness.md)
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
		func() error { return v.witnessed(pins.Policy) },
		v.announcement,
		v.mapRoot,
		v.agreementsHold,
		v.keyChain,
		v.newestKey,
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
	vrf        VRFKey
	policy     *WitnessPolicy // in force at the checkpoint; one without witnesses if the bundle has none
	checkpoint Checkpoint
	cosigned   []Cosignature // of the checkpoint
	theMap     Map

	agreements map[grant.Hash]*grant.Agreement
	people     *keychain.Chain
	control    []*Record
	access     []*Record
	entries    []controlEntry // of control, in its order
}

// keys checks the pins and the keys' forms.
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
	log, err := note.NewVerifier(b.LedgerVKey)
	if err != nil || log.Name() != Origin(b.Host) {
		return invalid("the bundle's ledger key is malformed, or another host's")
	}
	if v.vrf, err = NewVRFKey(b.VRFKey); err != nil {
		return err
	}
	if b.Partner != "" {
		return chat.CheckPartner(b.Partner)
	}
	if len(b.Agreements)+len(b.Control)+len(b.Access)+len(b.NextControl.VRFProof)+len(b.NextControl.Proof)+len(b.NextAccess.VRFProof)+len(b.NextAccess.Proof) > 0 {
		return invalid("a bundle of keys alone names no partner's history")
	}
	return nil
}

// witnessed follows the policies, each put in force under the one before, and checks the checkpoint under the last one. A pinned policy
// must be one of them; without any it is itself the one in force.
func (v *verification) witnessed(pin []byte) (err error) {
	b := v.bundle
	if v.policy, err = (&Bundle{LedgerVKey: b.LedgerVKey}).inForce(); err != nil {
		return err
	}
	var pinned *WitnessPolicy
	if len(pin) > 0 {
		if pinned, err = ParsePolicy(pin); err != nil {
			return chat.Wrap(chat.Invalid, err, "the pinned policy cannot be read")
		}
		if pinned.LogVKey() != b.LedgerVKey {
			return unproven("the pinned policy is for another ledger")
		}
	}
	found, last, size := pinned == nil, int64(0), int64(0)
	for i, row := range b.Policies {
		p, c, err := v.handoff(row)
		if err != nil {
			return chat.Wrap(chat.Unproven, err, "policy %d was not signed off by the one before it", i)
		}
		if row.Index <= last || c.Size < size {
			return unproven("policy %d is out of order", i)
		}
		v.policy, last, size = p, row.Index, c.Size
		found = found || p.Same(pinned)
	}
	if len(b.Policies) == 0 && pinned != nil {
		v.policy, found = pinned, true
	}
	if !found {
		return unproven("the pinned policy was never in force up to this checkpoint: the bundle goes by others")
	}
	if v.checkpoint, v.cosigned, err = v.signed(b.Checkpoint); err != nil {
		return err
	}
	if v.checkpoint.Size < size {
		return unproven("the checkpoint is older than the policy that it is to be held against")
	}
	return nil
}

// handoff checks a policy's leaf and place under the policy in force before it.
func (v *verification) handoff(row BundledPolicy) (*WitnessPolicy, Checkpoint, error) {
	c, _, err := v.signed(row.Checkpoint)
	if err != nil {
		return nil, c, err
	}
	if err := included(c, row.Leaf, row.Index, row.Proof); err != nil {
		return nil, c, chat.Wrap(chat.Unproven, err, "it is not in the ledger")
	}
	leaf, err := ParseLeaf(row.Leaf)
	if err != nil {
		return nil, c, err
	}
	l, ok := leaf.(*Policy)
	if !ok {
		return nil, c, unproven("the entry is not a policy")
	}
	p, err := ParsePolicy([]byte(l.Text))
	if err == nil && p.LogVKey() != v.bundle.LedgerVKey {
		err = unproven("it is for another ledger")
	}
	return p, c, err
}

// signed checks a checkpoint under the policy in force. It has one form: a line for the log, and one for each witness that signed.
func (v *verification) signed(checkpoint string) (Checkpoint, []Cosignature, error) {
	c, list, err := v.policy.Check([]byte(checkpoint))
	if err != nil {
		return c, nil, err
	}
	_, n, err := v.policy.open([]byte(checkpoint))
	if err == nil && len(n.UnverifiedSigs) > 0 {
		err = unproven("the checkpoint is signed by %q, which is no witness of the policy in force", n.UnverifiedSigs[0].Name)
	}
	if err != nil {
		return c, nil, err
	}
	one, err := v.policy.Cosigned([]byte(checkpoint))
	if err == nil && string(one) != checkpoint {
		err = unproven("the checkpoint is not in its one form: the log's signature, then one of each witness, sorted")
	}
	return c, list, err
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
func (v *verification) included(leaf []byte, index int64, p []byte) error {
	return included(v.checkpoint, leaf, index, p)
}

func included(c Checkpoint, leaf []byte, index int64, p []byte) error {
	list, err := splitHashes(p)
	if err != nil {
		return err
	}
	path, _ := hashes(list)
	if tlog.CheckRecord(path, c.Size, c.Root, index, LeafHash(leaf)) != nil {
		return unproven("the inclusion proof does not hold")
	}
	return nil
}

// mapRoot checks that the last entry of the tree is the root of a map of all entries before it.
func (v *verification) mapRoot() error {
	b := v.bundle
	if b.Map.Index != v.checkpoint.Size-1 {
		return unproven("the map is not that of this checkpoint: its root is entry %d, and the last entry is %d", b.Map.Index, v.checkpoint.Size-1)
	}
	path, err := splitHashes(b.Map.Proof)
	if err != nil {
		return err
	}
	v.theMap, err = openMap(v.checkpoint, b.Map.Leaf, path)
	return err
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
	return nil
}

// newestKey checks that the key chain is the whole of it: the map has its last entry and none after it.
func (v *verification) newestKey() error {
	b := v.bundle
	place := KeyPlace{Handle: b.Handle, N: v.people.Version()}
	label, err := CheckLabel(v.vrf, place, b.NewestKey.VRFProof)
	if err != nil {
		return err
	}
	entry := KeyEntry{Label: label.Label, Entry: v.people.Head()}
	if err := v.theMap.Has(label.Label, LeafHash(entry.Bytes()), b.NewestKey.Index, b.NewestKey.Proof); err != nil {
		return chat.Wrap(chat.Unproven, err, "the key chain is not the one in the ledger")
	}
	place.N++
	if err := v.absent(place, b.NextKey); err != nil {
		return chat.Wrap(chat.Unproven, err, "the key chain is not the newest one")
	}
	return nil
}

// absent checks that the map has nothing at a place.
func (v *verification) absent(place Labelled, a BundledAbsence) error {
	label, err := CheckLabel(v.vrf, place, a.VRFProof)
	if err != nil {
		return err
	}
	return v.theMap.Lacks(label.Label, a.Proof)
}

// chains checks the records of both chains, and that nothing follows them.
func (v *verification) chains() (err error) {
	b := v.bundle
	if b.Partner == "" {
		return nil
	}
	if v.control, err = v.records(Control, b.Control); err != nil {
		return err
	}
	if v.access, err = v.records(Access, b.Access); err != nil {
		return err
	}
	if err := v.complete(Control, len(v.control), b.NextControl); err != nil {
		return err
	}
	return v.complete(Access, len(v.access), b.NextAccess)
}

// complete checks that a chain has no record after those that are shown.
func (v *verification) complete(chain Chain, shown int, a BundledAbsence) error {
	place := Place{Account: v.bundle.Account, Partner: v.bundle.Partner, Chain: chain, N: uint64(shown)}
	if err := v.absent(place, a); err != nil {
		return chat.Wrap(chat.Unproven, err, "the %d records of %s are not all: nothing shows that record %d does not exist", shown, chain, shown)
	}
	return nil
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
		if err := v.included(r.Leaf, r.Index, entry.Proof); err != nil {
			return nil, chat.Wrap(chat.Unproven, err, "record %d of %s is not in the ledger", i, chain)
		}
		if err := r.Check(v.vrf, before); err != nil {
			return nil, err
		}
		if before != nil && r.Index <= before.Index {
			return nil, unproven("record %d of %s stands in the ledger before the record that it follows", i, chain)
		}
		records = append(records, r)
		before = r
	}
	return records, nil
}
