package ledger

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// Subject is whom a bundle is about, with what the ledger does not keep itself.
type Subject struct {
	Account    chat.AccountID
	Handle     string
	Partner    string   // empty: keys alone
	KeyChain   [][]byte // all entries from 0
	Agreements [][]byte // countersigned, of this partner, in any order; those not in the log yet are left out
}

// Bundle gathers an account's whole history with a partner, or its keys alone, with proofs to one checkpoint that nothing else is in the log.
// Records and keys that wait for the log are left out. The person's device checks it with proof.Verify, and against what it remembers,
// before it shows it to anybody.
func (l *Ledger) Bundle(ctx context.Context, s Subject) (*proof.Bundle, error) {
	b := &proof.Bundle{Host: l.keys.host, Account: s.Account, Handle: s.Handle, Partner: s.Partner,
		LedgerVKey: l.keys.vkey, ServerKey: l.keys.ServerKey(), VRFKey: l.keys.VRFKey()}
	err := l.read(ctx, func(_ *store.Tx, log snapshot) error {
		for _, step := range []func() error{
			func() error { return log.bundleHead(b) },
			func() error { return log.bundleKeys(b, s.KeyChain) },
			func() error { return log.bundleHistory(b, s.Agreements) },
		} {
			if err := step(); err != nil {
				return err
			}
		}
		return nil
	})
	return b, err
}

// bundleHead adds the checkpoint, with the policies that say who must cosign it, the map root and entry 0.
func (s snapshot) bundleHead(b *proof.Bundle) error {
	head, err := s.head()
	if err != nil {
		return err
	}
	policies, err := s.tree.tx.LedgerPolicies()
	if err != nil {
		return err
	}
	for _, p := range policies {
		if len(p.Proof) == 0 {
			break // logged, and not published yet
		}
		if err := b.PutPolicy(p.Leaf, p.Proof); err != nil {
			return err
		}
	}
	if err := b.PutCheckpoint(head.Checkpoint); err != nil {
		return err
	}
	b.Map = proof.BundledLeaf{Leaf: head.Leaf, Index: s.Size - 1, Proof: proof.JoinHashes(head.Proof)}
	first, err := s.tree.tx.LedgerLeaves(0, 1)
	if err != nil || len(first) == 0 {
		return err
	}
	b.Keys, err = s.bundleLeaf(first[0])
	return err
}

// bundleKeys adds the key chain as far as it is in the log, and that there is no more of it.
func (s snapshot) bundleKeys(b *proof.Bundle, chain [][]byte) error {
	for n := len(chain) - 1; n >= 0; n-- {
		place := proof.KeyPlace{Handle: b.Handle, N: uint64(n)}
		label := proof.ProveLabel(s.ledger.keys.VRF, place)
		row, err := s.tree.tx.LedgerLeafByDeed(label.Label[:])
		if errors.Is(err, store.ErrNotFound) || err == nil && row.Index >= s.Size {
			continue // it waits
		}
		if err != nil {
			return err
		}
		newest, err := s.labelled(place)
		if err != nil {
			return err
		}
		b.KeyChain = chain[:n+1]
		b.NewestKey = proof.BundledKey{Index: row.Index, VRFProof: newest.VRFProof, Proof: newest.Proof}
		place.N++
		b.NextKey, err = s.bundleAbsence(place)
		return err
	}
	return chat.Errorf(chat.Unavailable, "the keys are not in the ledger yet: try again in a few seconds")
}

func (s snapshot) bundleAbsence(p proof.Labelled) (proof.BundledAbsence, error) {
	l, err := s.labelled(p)
	return proof.BundledAbsence(l), err
}

// bundleHistory adds both chains, that neither goes on, and the agreements that its grants stand on.
func (s snapshot) bundleHistory(b *proof.Bundle, agreements [][]byte) (err error) {
	if b.Partner == "" {
		return nil
	}
	place := proof.Place{Account: b.Account, Partner: b.Partner, Chain: proof.Control}
	if b.Control, b.NextControl, err = s.bundleChain(place); err != nil {
		return err
	}
	place.Chain = proof.Access
	if b.Access, b.NextAccess, err = s.bundleChain(place); err != nil {
		return err
	}
	if len(b.Control)+len(b.Access) == 0 {
		return nil // nothing stands on an agreement
	}
	return s.bundleAgreements(b, agreements)
}

func (s snapshot) bundleAgreements(b *proof.Bundle, agreements [][]byte) error {
	for _, data := range agreements {
		leaf := proof.Agreement{Countersigned: data}
		row, err := s.leaf(proof.LeafHash(leaf.Bytes()))
		if chat.Is(err, chat.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		bundled, err := s.bundleLeaf(row)
		if err != nil {
			return err
		}
		b.Agreements = append(b.Agreements, bundled)
	}
	slices.SortFunc(b.Agreements, func(x, y proof.BundledLeaf) int { return cmp.Compare(x.Index, y.Index) })
	return nil
}

func (s snapshot) bundleLeaf(row store.LedgerLeaf) (proof.BundledLeaf, error) {
	p, err := tlog.ProveRecord(s.Size, row.Index, s.tree)
	return proof.BundledLeaf{Leaf: row.Leaf, Index: row.Index, Proof: proof.JoinHashes(p)}, err
}

// bundleChain gathers the records of a chain that the checkpoint covers, and shows that there are no more.
func (s snapshot) bundleChain(place proof.Place) (list []proof.BundledRecord, next proof.BundledAbsence, err error) {
	for more := true; more; {
		place.N = uint64(len(list))
		rows, err := s.tree.tx.LedgerRecords(storeChain(place), place.N, maxPage)
		if err != nil {
			return nil, next, err
		}
		more = len(rows) == maxPage
		for _, row := range rows {
			bundled, err := s.bundleRecord(row)
			if chat.Is(err, chat.NotFound) {
				more = false // it and those after it wait
				break
			}
			if err != nil {
				return nil, next, err
			}
			list = append(list, bundled)
		}
		if len(list) > proof.MaxRecords {
			return nil, next, chat.Errorf(chat.TooLarge, "a bundle holds at most %d records of a chain", proof.MaxRecords)
		}
	}
	place.N = uint64(len(list))
	next, err = s.bundleAbsence(place)
	return list, next, err
}

func (s snapshot) bundleRecord(row store.LedgerRecord) (proof.BundledRecord, error) {
	r, err := parseRow(row)
	if err != nil {
		return proof.BundledRecord{}, err
	}
	if r.Index, err = s.index(row.LeafHash); err != nil {
		return proof.BundledRecord{}, err
	}
	p, err := tlog.ProveRecord(s.Size, r.Index, s.tree)
	return proof.BundledRecord{Record: r.Bytes(), Proof: proof.JoinHashes(p)}, err
}
