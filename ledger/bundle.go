package ledger

import (
	"cmp"
	"context"
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
	Partner    string
	KeyChain   [][]byte // all entries from 0
	Agreements [][]byte // countersigned, of this partner, in any order; those not in the log yet are left out
}

// Bundle gathers an account's whole history with a partner, with proofs to one checkpoint. Records that wait for the log are left
// out. The person's device checks it with proof.Verify, and against what it remembers, before it shows it to anybody.
func (l *Ledger) Bundle(ctx context.Context, s Subject) (*proof.Bundle, error) {
	b := &proof.Bundle{Host: l.keys.host, Account: s.Account, Handle: s.Handle, Partner: s.Partner, KeyChain: s.KeyChain,
		LedgerVKey: l.keys.vkey, ServerKey: l.keys.ServerKey(), VRFKey: l.keys.VRFKey()}
	err := l.read(ctx, func(_ *store.Tx, log snapshot) error {
		b.Checkpoint = string(log.Checkpoint)
		err := log.bundleLeaves(b, s.Agreements)
		if err != nil {
			return err
		}
		place := proof.Place{Account: s.Account, Partner: s.Partner, Chain: proof.Control}
		if b.Control, err = log.bundleChain(place); err != nil {
			return err
		}
		place.Chain = proof.Access
		b.Access, err = log.bundleChain(place)
		return err
	})
	return b, err
}

// bundleLeaves adds entry 0 and the agreements.
func (s snapshot) bundleLeaves(b *proof.Bundle, agreements [][]byte) error {
	first, err := s.tree.tx.LedgerLeaves(0, 1)
	if err != nil || len(first) == 0 {
		return err
	}
	if b.Keys, err = s.bundleLeaf(first[0]); err != nil {
		return err
	}
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
	return proof.BundledLeaf{Leaf: row.Leaf, Index: row.Index, Proof: p}, err
}

// bundleChain gathers the records of a chain that the checkpoint covers.
func (s snapshot) bundleChain(place proof.Place) ([]proof.BundledRecord, error) {
	var list []proof.BundledRecord
	for {
		rows, err := s.tree.tx.LedgerRecords(storeChain(place), place.N, maxPage)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			bundled, err := s.bundleRecord(row)
			if chat.Is(err, chat.NotFound) {
				return list, nil // it and those after it wait
			}
			if err != nil {
				return nil, err
			}
			list = append(list, bundled)
		}
		if len(list) > proof.MaxRecords {
			return nil, chat.Errorf(chat.TooLarge, "a bundle holds at most %d records of a chain", proof.MaxRecords)
		}
		if len(rows) < maxPage {
			return list, nil
		}
		place.N += maxPage
	}
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
	return proof.BundledRecord{Record: r.Bytes(), Proof: p}, err
}
