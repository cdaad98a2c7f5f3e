package ledger

import (
	"errors"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
	"letterlock/store"
)

// tree reads the log's hashes out of its tiles within one transaction, and grows it by appending leaf hashes. It keeps what it has
// read, so it must not outlive the transaction. Appended hashes are stored by save.
type tree struct {
	tx    *store.Tx
	size  int64
	tiles map[tileID][]byte
	dirty map[tileID]bool
	fresh map[int64]tlog.Hash // appended hashes by stored-hash index
}

// tileID names a tile of height 8, whatever its width.
type tileID struct {
	level int
	n     int64
}

func openTree(tx *store.Tx, size int64) *tree {
	return &tree{tx: tx, size: size, tiles: map[tileID][]byte{}, dirty: map[tileID]bool{}, fresh: map[int64]tlog.Hash{}}
}

// tile is the data of a tile; empty if there is none yet.
func (t *tree) tile(id tileID) ([]byte, error) {
	if data, ok := t.tiles[id]; ok {
		return data, nil
	}
	data, err := t.tx.LedgerTile(id.level, id.n)
	if errors.Is(err, store.ErrNotFound) {
		data, err = nil, nil
	}
	if err == nil {
		t.tiles[id] = data
	}
	return data, err
}

// ReadHashes implements tlog.HashReader.
func (t *tree) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		h, err := t.hash(index)
		if err != nil {
			return nil, err
		}
		hashes[i] = h
	}
	return hashes, nil
}

func (t *tree) hash(index int64) (tlog.Hash, error) {
	if h, ok := t.fresh[index]; ok {
		return h, nil
	}
	tile := tlog.TileForIndex(torchwood.TileHeight, index)
	data, err := t.tile(tileID{tile.L, tile.N})
	if err != nil {
		return tlog.Hash{}, err
	}
	h, err := tlog.HashFromTile(tile, data, index)
	if err != nil {
		return h, chat.Wrap(chat.Tampered, err, "the ledger's tiles are damaged")
	}
	return h, nil
}

func (t *tree) root() (tlog.Hash, error) { return tlog.TreeHash(t.size, t) }

// append adds the hash of a leaf and every hash that it completes; those at the tiles' levels go into tiles.
func (t *tree) append(leaf tlog.Hash) error {
	hashes, err := tlog.StoredHashesForRecordHash(t.size, leaf, t)
	if err != nil {
		return err
	}
	first := tlog.StoredHashIndex(0, t.size)
	for level, h := range hashes {
		t.fresh[first+int64(level)] = h
		if level%torchwood.TileHeight != 0 {
			continue
		}
		if err := t.extend(level/torchwood.TileHeight, t.size>>level, h); err != nil {
			return err
		}
	}
	t.size++
	return nil
}

// extend writes the hash at a place of a tile level, which must be the next free one.
func (t *tree) extend(level int, place int64, h tlog.Hash) error {
	id := tileID{level, place / torchwood.TileWidth}
	data, err := t.tile(id)
	if err != nil {
		return err
	}
	width := int(place%torchwood.TileWidth) * tlog.HashSize
	if len(data) != width {
		return chat.Errorf(chat.Tampered, "the ledger's tiles are damaged")
	}
	t.tiles[id] = append(data[:width:width], h[:]...)
	t.dirty[id] = true
	return nil
}

// save stores the tiles that changed.
func (t *tree) save() error {
	for id := range t.dirty {
		if err := t.tx.PutLedgerTile(id.level, id.n, t.tiles[id]); err != nil {
			return err
		}
	}
	return nil
}
