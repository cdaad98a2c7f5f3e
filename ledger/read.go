package ledger

import (
	"context"
	"errors"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/proof"
	"letterlock/store"
)

// errNotIncluded is for readers: the leaf may come.
func errNotIncluded() error { return chat.Errorf(chat.NotFound, "no such entry in the ledger yet") }

// Checkpoint is the newest signed checkpoint.
func (l *Ledger) Checkpoint(ctx context.Context) (signed []byte, err error) {
	err = l.read(ctx, func(_ *store.Tx, s snapshot) error {
		signed = s.Checkpoint
		return nil
	})
	return signed, err
}

// Tile is the tile at a path of C2SP tlog-tiles: tile/L/N[.p/W] or tile/entries/N[.p/W]. Whatever the log holds can be had, at every
// width that it ever had, also while its checkpoint waits for witnesses: an auditor replays a tree before it signs it, and a tile says
// nothing without a checkpoint. What was had once never changes.
func (l *Ledger) Tile(ctx context.Context, path string) (data []byte, err error) {
	tile, err := torchwood.ParseTilePath(path)
	if err != nil {
		return nil, chat.Errorf(chat.Invalid, "not a tile path")
	}
	err = l.readIntegrated(ctx, func(tx *store.Tx, s snapshot) error {
		if !tileCovered(s.Size, tile) {
			return errNotIncluded()
		}
		if tile.L < 0 {
			data, err = entries(tx, tile)
			return err
		}
		if data, err = tx.LedgerTile(tile.L, tile.N); err == nil {
			data = data[:tile.W*tlog.HashSize]
		}
		return err
	})
	return data, err
}

// readIntegrated is read at the newest tree that the log has, published or not.
func (l *Ledger) readIntegrated(ctx context.Context, fn func(tx *store.Tx, s snapshot) error) error {
	var s store.LedgerState
	err := l.store.View(ctx, func(tx *store.Tx) (err error) {
		if s, err = tx.LedgerState(l.origin()); err != nil {
			return err
		}
		return fn(tx, snapshot{LedgerState: s, tree: openTree(tx, s.Size)})
	})
	if err != nil {
		return err
	}
	return l.show(s)
}

// tileCovered reports whether a tree of a size has a tile that wide.
func tileCovered(size int64, t tlog.Tile) bool {
	hashes := size
	if t.L > 0 {
		if t.L*torchwood.TileHeight >= 63 {
			return false
		}
		hashes = size >> (t.L * torchwood.TileHeight)
	}
	return t.N <= hashes/torchwood.TileWidth && t.N*torchwood.TileWidth+int64(t.W) <= hashes
}

func entries(tx *store.Tx, t tlog.Tile) ([]byte, error) {
	leaves, err := tx.LedgerLeaves(t.N*torchwood.TileWidth, t.W)
	if err != nil {
		return nil, err
	}
	var data []byte
	for _, leaf := range leaves {
		if data, err = torchwood.AppendTileEntry(data, leaf.Leaf); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// snapshot is the log at its newest published checkpoint, within one transaction.
type snapshot struct {
	store.LedgerState
	tree   *tree
	ledger *Ledger
}

func (l *Ledger) snapshot(tx *store.Tx) (snapshot, error) {
	s, err := tx.LedgerPublished(l.origin())
	if errors.Is(err, store.ErrNotFound) { // no policy: what is integrated is published
		s, err = tx.LedgerState(l.origin())
	}
	return snapshot{s, openTree(tx, s.Size), l}, err
}

// leaf finds a leaf; chat.NotFound if the checkpoint does not cover it.
func (s snapshot) leaf(hash proof.Hash) (store.LedgerLeaf, error) {
	row, err := s.tree.tx.LedgerLeafByHash(hash)
	if errors.Is(err, store.ErrNotFound) || err == nil && row.Index >= s.Size {
		return row, errNotIncluded()
	}
	return row, err
}

func (s snapshot) index(leaf proof.Hash) (int64, error) {
	row, err := s.leaf(leaf)
	return row.Index, err
}

// inclusion proves the leaf at an index.
func (s snapshot) inclusion(index int64) ([]proof.Hash, error) {
	p, err := tlog.ProveRecord(s.Size, index, s.tree)
	return plainHashes(p), err
}

func plainHashes(p []tlog.Hash) []proof.Hash {
	list := make([]proof.Hash, len(p))
	for i, h := range p {
		list[i] = h
	}
	return list
}

// prove finds a leaf and writes its tlog-proof.
func (s snapshot) prove(leaf proof.Hash) (int64, []byte, error) {
	index, err := s.index(leaf)
	if err != nil {
		return 0, nil, err
	}
	p, err := s.inclusion(index)
	if err != nil {
		return 0, nil, err
	}
	text, err := proof.InclusionText(index, p, s.Checkpoint)
	return index, text, err
}

// Inclusion is the index of a leaf and its tlog-proof with the newest checkpoint; chat.NotFound if it is not in the log (yet), chat.NoQuorum if
// it is, and the witnesses do not sign.
func (l *Ledger) Inclusion(ctx context.Context, leaf proof.Hash) (index int64, tlogProof []byte, err error) {
	err = l.read(ctx, func(_ *store.Tx, s snapshot) (err error) {
		index, tlogProof, err = s.prove(leaf)
		return err
	})
	if chat.Is(err, chat.NotFound) && l.Quorum() != nil {
		err = l.unsigned(ctx, leaf, err)
	}
	return index, tlogProof, err
}

// Wait is Inclusion, waiting for the leaf until the context ends.
func (l *Ledger) Wait(ctx context.Context, leaf proof.Hash) (int64, []byte, error) {
	poll := time.NewTicker(pollTime) // another process may write
	defer poll.Stop()
	w := l.waiters.join(leaf)
	defer l.waiters.leave(leaf)
	var absent error
	for {
		news := w.news()
		index, p, err := l.Inclusion(ctx, leaf)
		if absent != nil && err != nil && ctx.Err() != nil { // the time ended during this look: the one before counts
			return 0, nil, l.unsigned(context.WithoutCancel(ctx), leaf, absent)
		}
		if !chat.Is(err, chat.NotFound) {
			return index, p, err
		}
		absent = err
		select {
		case <-ctx.Done():
			return 0, nil, l.unsigned(context.WithoutCancel(ctx), leaf, err)
		case <-news:
		case <-poll.C:
		}
	}
}

// Consistency proves that the tree of size to contains the tree of size from.
func (l *Ledger) Consistency(ctx context.Context, from, to int64) (list []proof.Hash, err error) {
	err = l.read(ctx, func(_ *store.Tx, s snapshot) error {
		if from < 1 || from > to || to > s.Size {
			return chat.Errorf(chat.Invalid, "sizes run from 1 to %d, the smaller one first", s.Size)
		}
		p, err := tlog.ProveTree(to, from, s.tree)
		list = plainHashes(p)
		return err
	})
	return list, err
}

// Proven is a record with its tlog-proof, which is empty while the leaf waits.
type Proven struct {
	Record *proof.Record
	Proof  []byte
}

// maxPage is the most records in one answer.
const maxPage = 200

// Records reads records of a chain from the place's number on, at most limit (and never more than 200), all with proofs to one
// checkpoint.
func (l *Ledger) Records(ctx context.Context, from proof.Place, limit int) (page []Proven, err error) {
	err = l.read(ctx, func(tx *store.Tx, s snapshot) (err error) {
		page, err = s.records(tx, from, min(max(limit, 1), maxPage))
		return err
	})
	return page, err
}

func (s snapshot) records(tx *store.Tx, from proof.Place, limit int) ([]Proven, error) {
	rows, err := tx.LedgerRecords(storeChain(from), from.N, limit)
	if err != nil {
		return nil, err
	}
	page := make([]Proven, 0, len(rows))
	for _, row := range rows {
		r, err := parseRow(row)
		if err != nil {
			return nil, err
		}
		index, p, err := s.prove(row.LeafHash)
		switch {
		case err == nil:
			r.Index = index
		case !chat.Is(err, chat.NotFound):
			return nil, err
		}
		page = append(page, Proven{r, p})
	}
	return page, nil
}

// stored is a row as a record, with its index if it has one.
func (l *Ledger) stored(tx *store.Tx, row store.LedgerRecord) (*proof.Record, error) {
	r, err := parseRow(row)
	if err != nil {
		return nil, err
	}
	s, err := l.snapshot(tx)
	if err != nil {
		return nil, err
	}
	index, err := s.index(row.LeafHash)
	if err == nil {
		r.Index = index
	} else if !chat.Is(err, chat.NotFound) {
		return nil, err
	}
	return r, nil
}

func parseRow(row store.LedgerRecord) (*proof.Record, error) {
	if len(row.VRFProof) != proof.VRFProofSize {
		return nil, chat.Errorf(chat.Tampered, "a stored record is damaged")
	}
	return &proof.Record{
		Place:   proof.Place{Account: row.Account, Partner: row.Partner, Chain: proof.Chain(row.Chain), N: row.N},
		Payload: row.Payload, Salt: row.Salt, Leaf: row.Leaf, VRFProof: [proof.VRFProofSize]byte(row.VRFProof), Index: -1,
	}, nil
}

// Head says how many records a chain has.
type Head struct {
	Partner string
	Chain   proof.Chain
	Next    uint64     // number of the next record
	Last    proof.Hash // leaf hash of the last one
}

// Heads lists the chains of an account.
func (l *Ledger) Heads(ctx context.Context, account chat.AccountID) (heads []Head, err error) {
	err = l.store.View(ctx, func(tx *store.Tx) error {
		rows, err := tx.LedgerHeads(account)
		heads = make([]Head, len(rows))
		for i, row := range rows {
			heads[i] = Head{Partner: row.Partner, Chain: proof.Chain(row.Chain), Next: row.N + 1, Last: row.LeafHash}
		}
		return err
	})
	return heads, err
}
