package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/proof"
	"letterlock/store"
)

// CheckReport counts what Check has verified.
type CheckReport struct {
	Entries int64 `json:"entries"` // of the log
	Roots   int64 `json:"roots"`   // of those, roots of the map
	Records int64 `json:"records"` // of people
	Erased  int64 `json:"erased"`  // of those
	Waiting int64 `json:"waiting"` // leaves in the outbox
}

// Check verifies a whole stored ledger from its leaves up: every hash and tile is computed anew, every record is checked against its
// leaf, its label and the record before, every head against its chain, the root against the signed checkpoint, and everything
// recorded is in the log or in the outbox, once. It is `letterlock check`, and tests call it on close. It changes nothing.
func Check(ctx context.Context, s *store.Store, keys *Keys) (CheckReport, error) {
	var c checker
	var err error
	if c.ledger, err = newLedger(s, keys, nil, nil); err != nil {
		return c.report, err
	}
	err = s.View(ctx, func(tx *store.Tx) error {
		c.tx = tx
		return errors.Join(c.log(), c.ledger.checkPublished(tx), c.outbox(), c.records())
	})
	if err == nil && c.personal != c.report.Records {
		err = fmt.Errorf("ledger check: %d personal leaves for %d records", c.personal, c.report.Records)
	}
	return c.report, err
}

// CheckQuick compares the head of a stored ledger alone: that the checkpoint is the log's own and its root what the tiles give, that
// the keys are those announced, and that the log ends with the entry that it counts last.
func CheckQuick(ctx context.Context, s *store.Store, keys *Keys) (report CheckReport, err error) {
	l, err := newLedger(s, keys, nil, nil)
	if err != nil {
		return report, err
	}
	err = s.View(ctx, func(tx *store.Tx) error {
		state, t, err := l.standing(tx)
		if err != nil {
			return err
		}
		report.Entries = state.Size
		return errors.Join(l.checkKeys(tx), l.checkLast(tx, t), l.checkPublished(tx))
	})
	if err != nil {
		err = fmt.Errorf("ledger check: %w", err)
	}
	return report, err
}

func (l *Ledger) checkLast(tx *store.Tx, t *tree) error {
	leaves, err := tx.LedgerLeaves(t.size-1, 2)
	if err != nil {
		return err
	}
	if len(leaves) != 1 || leaves[0].Index != t.size-1 {
		return fmt.Errorf("its last entry should be number %d, and is not", t.size-1)
	}
	h, err := t.hash(tlog.StoredHashIndex(0, t.size-1))
	if err == nil && (h != leaves[0].LeafHash || h != proof.LeafHash(leaves[0].Leaf)) {
		err = errors.New("its last entry is not the one that was hashed")
	}
	return err
}

type checker struct {
	ledger   *Ledger
	tx       *store.Tx
	report   CheckReport
	personal int64 // personal leaves in log and outbox

	before bool           // the log was begun before map roots, and no server has opened it since
	root   *proof.MapRoot // the last one
	ends   bool           // it is the last entry
	public uint64         // public entries so far

	levels []level // of the tree, built anew from the leaves
	tiles  int64
}

// level is the tile of a level that is being filled.
type level struct {
	hashes []tlog.Hash
	n      int64
}

const checkPage = 1000

// log checks leaves, tiles, root and checkpoint.
func (c *checker) log() error {
	state, _, err := c.ledger.standing(c.tx)
	if err != nil {
		return fmt.Errorf("ledger check: %w", err)
	}
	if err := c.ledger.checkKeys(c.tx); err != nil {
		return fmt.Errorf("ledger check: %w", err)
	}
	end, err := lastRoot(c.tx, state.Size)
	if err != nil {
		return fmt.Errorf("ledger check: %w", err)
	}
	c.before = end == nil
	for {
		leaves, err := c.tx.LedgerLeaves(c.report.Entries, checkPage)
		if err != nil {
			return err
		}
		for _, leaf := range leaves {
			if err := c.leaf(leaf); err != nil {
				return fmt.Errorf("ledger check: entry %d: %w", c.report.Entries, err)
			}
		}
		if len(leaves) < checkPage {
			break
		}
	}
	if c.report.Entries != state.Size {
		return fmt.Errorf("ledger check: %d entries, and a checkpoint of %d", c.report.Entries, state.Size)
	}
	return errors.Join(c.partialTiles(), c.lastMap())
}

// lastMap makes the map anew from the entries: the last entry is its root.
func (c *checker) lastMap() error {
	if c.before {
		return nil
	}
	if !c.ends {
		return errors.New("ledger check: the last entry is not the root of the map")
	}
	t, err := buildMap(c.tx, c.root.Covers)
	if err == nil && t.Root() != c.root.Root {
		err = errors.New("ledger check: the map of the entries is not the one whose root was logged")
	}
	return err
}

// leaf checks one entry and takes its hash into the tree.
func (c *checker) leaf(l store.LedgerLeaf) error {
	if l.Index != c.report.Entries {
		return fmt.Errorf("missing: the next one is %d", l.Index)
	}
	if err := c.deed(l.Leaf, l.Deed); err != nil {
		return err
	}
	hash := proof.LeafHash(l.Leaf)
	if hash != l.LeafHash {
		return errors.New("its hash is not that of its bytes")
	}
	c.report.Entries++
	return c.push(0, hash)
}

// deed checks that a leaf stands under its label, or its hash if it has none.
func (c *checker) deed(data, deed []byte) error {
	leaf, err := proof.ParseLeaf(data)
	if err != nil {
		return err
	}
	c.ends = false
	want := proof.LeafHash(data)
	if label, ok := proof.MapLabel(leaf, c.public); ok && !(c.before && leaf.Type().Public()) {
		want = label
	}
	switch l := leaf.(type) {
	case *proof.Personal:
		c.personal++
	case *proof.MapRoot:
		if l.Covers != c.report.Entries || l.Public != c.public || c.root != nil && l.At < c.root.At {
			return errors.New("it is a map root of other entries than those before it")
		}
		c.root, c.ends = l, true
		c.report.Roots++
	}
	if leaf.Type().Public() {
		c.public++
	}
	if !bytes.Equal(deed, want[:]) {
		return errors.New("it stands under another deed")
	}
	return nil
}

// queued checks that a leaf waits under its label, or its hash: a public one has no number yet.
func (c *checker) queued(q store.LedgerQueued) error {
	leaf, err := proof.ParseLeaf(q.Leaf)
	if err != nil {
		return err
	}
	hash := proof.LeafHash(q.Leaf)
	want := hash
	switch l := leaf.(type) {
	case *proof.Personal:
		c.personal++
		want = l.Label
	case *proof.KeyEntry:
		want = l.Label
	}
	if !bytes.Equal(q.Deed, want[:]) {
		return errors.New("it stands under another deed")
	}
	_, err = c.tx.LedgerLeafByHash(hash)
	if _, byDeed := c.tx.LedgerLeafByDeed(q.Deed); err == nil || byDeed == nil {
		return errors.New("it is in the log already")
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}

// push adds a hash to a level of tiles; a full tile is compared with the stored one and gives a hash to the level above.
func (c *checker) push(n int, h tlog.Hash) error {
	if n == len(c.levels) {
		c.levels = append(c.levels, level{})
	}
	l := &c.levels[n]
	l.hashes = append(l.hashes, h)
	if len(l.hashes) < torchwood.TileWidth {
		return nil
	}
	if err := c.compare(n); err != nil {
		return err
	}
	top := fold(l.hashes)
	l.hashes, l.n = l.hashes[:0], l.n+1
	return c.push(n+1, top)
}

// fold is the root of a full tile.
func fold(hashes []tlog.Hash) tlog.Hash {
	if len(hashes) == 1 {
		return hashes[0]
	}
	half := len(hashes) / 2
	return tlog.NodeHash(fold(hashes[:half]), fold(hashes[half:]))
}

func (c *checker) compare(n int) error {
	l := &c.levels[n]
	stored, err := c.tx.LedgerTile(n, l.n)
	if err != nil {
		return fmt.Errorf("tile %d/%d: %w", n, l.n, err)
	}
	var want []byte
	for _, h := range l.hashes {
		want = append(want, h[:]...)
	}
	if !bytes.Equal(stored, want) {
		return fmt.Errorf("tile %d/%d is not what the entries give", n, l.n)
	}
	c.tiles++
	return nil
}

func (c *checker) partialTiles() error {
	for n := range c.levels {
		if len(c.levels[n].hashes) == 0 {
			continue
		}
		if err := c.compare(n); err != nil {
			return fmt.Errorf("ledger check: %w", err)
		}
	}
	stored, err := c.tx.LedgerTileCount()
	if err == nil && stored != c.tiles {
		err = fmt.Errorf("ledger check: %d tiles stored, %d belong to the log", stored, c.tiles)
	}
	return err
}

// outbox checks the leaves that wait: none of them is in the log.
func (c *checker) outbox() error {
	n, err := c.tx.LedgerOutboxSize()
	if err != nil {
		return err
	}
	c.report.Waiting = n
	queued, err := c.tx.LedgerOutbox(int(n))
	if err != nil {
		return err
	}
	for _, q := range queued {
		if err := c.queued(q); err != nil {
			return fmt.Errorf("ledger check: outbox: %w", err)
		}
	}
	return nil
}

// records checks every chain.
func (c *checker) records() error {
	var after store.LedgerChain
	for {
		heads, err := c.tx.LedgerHeadsAfter(after, checkPage)
		if err != nil {
			return err
		}
		for _, h := range heads {
			if err := c.chain(h); err != nil {
				return fmt.Errorf("ledger check: account %s, %s, %s: %w", h.Account, h.Partner, proof.Chain(h.Chain), err)
			}
			after = h.LedgerChain
		}
		if len(heads) < checkPage {
			return nil
		}
	}
}

func (c *checker) chain(head store.LedgerHead) error {
	var before *proof.Record
	for next := uint64(0); ; {
		rows, err := c.tx.LedgerRecords(head.LedgerChain, next, checkPage)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if before, err = c.record(row, before); err != nil {
				return err
			}
			next++
		}
		if len(rows) < checkPage {
			break
		}
	}
	if before == nil || before.N != head.N || before.LeafHash() != head.LeafHash {
		return errors.New("the head is not the last record")
	}
	return nil
}

func (c *checker) record(row store.LedgerRecord, before *proof.Record) (*proof.Record, error) {
	r, err := parseRow(row)
	if err != nil {
		return nil, err
	}
	if err := r.Check(c.ledger.vrfKey, before); err != nil {
		return nil, err
	}
	if row.LeafHash != r.LeafHash() {
		return nil, fmt.Errorf("record %d: its hash is not that of its leaf", r.N)
	}
	c.report.Records++
	if r.Erased() {
		c.report.Erased++
	}
	return r, c.logged(r, before)
}

// logged checks that the record's leaf is in the log, after the record before, or in the outbox.
func (c *checker) logged(r, before *proof.Record) error {
	leaf, err := proof.ParseLeaf(r.Leaf)
	if err != nil {
		return err
	}
	label := leaf.(*proof.Personal).Label
	entry, err := c.tx.LedgerLeafByHash(r.LeafHash())
	if err == nil {
		r.Index = entry.Index
		if before != nil && (before.Index < 0 || before.Index >= r.Index) {
			return fmt.Errorf("record %d stands in the log before the record that it follows", r.N)
		}
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	waits, err := c.tx.LedgerOutboxHas(r.Account[:], label[:])
	if err == nil && !waits {
		err = fmt.Errorf("record %d is neither in the log nor in the outbox", r.N)
	}
	return err
}
