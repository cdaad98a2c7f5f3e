package store

import (
	"bytes"
	"cmp"
	"slices"

	"letterlock/chat"
)

// This file is the ledger's: records of people with their chain heads, the outbox, and the log with tiles, checkpoint and lease.
// Numbers of records are uint64 above and BIGINT here; a chain ends long before they differ.

// LedgerChain names a chain of records.
type LedgerChain struct {
	Account chat.AccountID
	Partner string
	Chain   uint8
}

// LedgerHead is where a chain ends.
type LedgerHead struct {
	LedgerChain
	N        uint64
	LeafHash [32]byte
	At       int64 // ms; never goes back along a chain
}

// LedgerRecord is a row of a person's history.
type LedgerRecord struct {
	LedgerChain
	N        uint64
	Payload  []byte // empty: erased
	Salt     []byte // empty: erased
	Leaf     []byte
	LeafHash [32]byte
	VRFProof []byte
}

// LedgerQueued is a leaf that waits for the log.
type LedgerQueued struct {
	Shard []byte // account id, or the deed of a public leaf
	Deed  []byte // label of a personal leaf, leaf hash of a public one
	N     uint64
	Leaf  []byte
	At    int64
}

// LedgerLeaf is an entry of the log.
type LedgerLeaf struct {
	Index    int64
	Leaf     []byte
	LeafHash [32]byte
	Deed     []byte
}

// LedgerState is a tree that the log has signed: the newest one, or the newest that witnesses cosigned.
type LedgerState struct {
	Size       int64
	Root       [32]byte
	Checkpoint []byte // signed note
}

// LedgerLease says who may append. Token only grows: an append under an old one is refused by whoever checks it.
type LedgerLease struct {
	Owner []byte
	Token int64
	Until int64 // ms
}

// LedgerHead reads a chain's end; ErrNotFound before its first record.
func (tx *Tx) LedgerHead(c LedgerChain) (LedgerHead, error) {
	h := LedgerHead{LedgerChain: c}
	var hash []byte
	err := tx.one([]any{&h.N, &hash, &h.At},
		`SELECT n, leaf_hash, at FROM ledger_heads WHERE account_id = $1 AND partner = $2 AND chain = $3`,
		c.Account[:], c.Partner, c.Chain)
	copy(h.LeafHash[:], hash)
	return h, err
}

// LedgerHeads lists the ends of an account's chains, by partner and chain.
func (tx *Tx) LedgerHeads(account chat.AccountID) ([]LedgerHead, error) {
	var heads []LedgerHead
	err := tx.list(func(scan func(...any) error) error {
		h := LedgerHead{LedgerChain: LedgerChain{Account: account}}
		var hash []byte
		if err := scan(&h.Partner, &h.Chain, &h.N, &hash, &h.At); err != nil {
			return err
		}
		copy(h.LeafHash[:], hash)
		heads = append(heads, h)
		return nil
	}, `SELECT partner, chain, n, leaf_hash, at FROM ledger_heads WHERE account_id = $1`, account[:])
	slices.SortFunc(heads, func(a, b LedgerHead) int { // a database would sort text by its language
		return cmp.Or(cmp.Compare(a.Partner, b.Partner), cmp.Compare(a.Chain, b.Chain))
	})
	return heads, err
}

// LedgerHeadsAfter pages through the ends of all chains, in the order of (account, partner, chain) as the database sorts partners.
func (tx *Tx) LedgerHeadsAfter(c LedgerChain, limit int) ([]LedgerHead, error) {
	var heads []LedgerHead
	err := tx.list(func(scan func(...any) error) error {
		var h LedgerHead
		var account, hash []byte
		if err := scan(&account, &h.Partner, &h.Chain, &h.N, &hash, &h.At); err != nil {
			return err
		}
		copy(h.Account[:], account)
		copy(h.LeafHash[:], hash)
		heads = append(heads, h)
		return nil
	}, `SELECT account_id, partner, chain, n, leaf_hash, at FROM ledger_heads
	    WHERE (account_id, partner, chain) > ($1, $2, $3) ORDER BY account_id, partner, chain LIMIT $4`,
		c.Account[:], c.Partner, c.Chain, limit)
	return heads, err
}

// AddLedgerRecord stores the next record of a chain and moves the chain's head to it. ErrExists: somebody was faster.
func (tx *Tx) AddLedgerRecord(r LedgerRecord, at int64) error {
	err := tx.insert(`INSERT INTO ledger_records (account_id, partner, chain, n, payload, salt, leaf, leaf_hash, vrf_proof)
	    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		r.Account[:], r.Partner, r.Chain, int64(r.N), r.Payload, r.Salt, r.Leaf, r.LeafHash[:], r.VRFProof)
	if err != nil {
		return err
	}
	if r.N == 0 {
		return tx.insert(`INSERT INTO ledger_heads (account_id, partner, chain, n, leaf_hash, at)
		    VALUES ($1, $2, $3, 0, $4, $5) ON CONFLICT DO NOTHING`,
			r.Account[:], r.Partner, r.Chain, r.LeafHash[:], at)
	}
	return tx.change(`UPDATE ledger_heads SET n = $1, leaf_hash = $2, at = $3
	    WHERE account_id = $4 AND partner = $5 AND chain = $6 AND n = $1 - 1`,
		int64(r.N), r.LeafHash[:], at, r.Account[:], r.Partner, r.Chain)
}

// LedgerRecords reads records of a chain from number from on, at most limit.
func (tx *Tx) LedgerRecords(c LedgerChain, from uint64, limit int) ([]LedgerRecord, error) {
	var records []LedgerRecord
	err := tx.list(func(scan func(...any) error) error {
		r := LedgerRecord{LedgerChain: c}
		var hash []byte
		if err := scan(&r.N, &r.Payload, &r.Salt, &r.Leaf, &hash, &r.VRFProof); err != nil {
			return err
		}
		copy(r.LeafHash[:], hash)
		records = append(records, r)
		return nil
	}, `SELECT n, payload, salt, leaf, leaf_hash, vrf_proof FROM ledger_records
	    WHERE account_id = $1 AND partner = $2 AND chain = $3 AND n >= $4 ORDER BY n LIMIT $5`,
		c.Account[:], c.Partner, c.Chain, int64(from), limit)
	return records, err
}

// EraseLedgerRecord empties payload and salt of a record. Leaf and proof stay, so that the chain still checks.
func (tx *Tx) EraseLedgerRecord(c LedgerChain, n uint64) error {
	return tx.change(`UPDATE ledger_records SET payload = $1, salt = $1 WHERE account_id = $2 AND partner = $3 AND chain = $4 AND n = $5`,
		[]byte{}, c.Account[:], c.Partner, c.Chain, int64(n))
}

// QueueLedgerLeaf puts a leaf into the outbox. The same deed again changes nothing.
func (tx *Tx) QueueLedgerLeaf(q LedgerQueued) error {
	_, err := tx.exec(`INSERT INTO ledger_outbox (shard, deed, n, leaf, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		q.Shard, q.Deed, int64(q.N), q.Leaf, q.At)
	return err
}

// LedgerOutbox reads the oldest leaves of the outbox. A chain's records come in their order.
func (tx *Tx) LedgerOutbox(limit int) ([]LedgerQueued, error) {
	var queued []LedgerQueued
	err := tx.list(func(scan func(...any) error) error {
		var q LedgerQueued
		if err := scan(&q.Shard, &q.Deed, &q.N, &q.Leaf, &q.At); err != nil {
			return err
		}
		queued = append(queued, q)
		return nil
	}, `SELECT shard, deed, n, leaf, at FROM ledger_outbox ORDER BY at, shard, n, deed LIMIT $1`, limit)
	return queued, err
}

// DropLedgerOutbox takes a leaf out of the outbox.
func (tx *Tx) DropLedgerOutbox(q LedgerQueued) error {
	return tx.change(`DELETE FROM ledger_outbox WHERE shard = $1 AND deed = $2`, q.Shard, q.Deed)
}

// LedgerOutboxHas reports whether a deed waits in the outbox.
func (tx *Tx) LedgerOutboxHas(shard, deed []byte) (bool, error) {
	var n int
	err := tx.one([]any{&n}, `SELECT COUNT(*) FROM ledger_outbox WHERE shard = $1 AND deed = $2`, shard, deed)
	return n > 0, err
}

// LedgerOutboxSize counts the leaves that wait.
func (tx *Tx) LedgerOutboxSize() (n int64, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM ledger_outbox`)
	return n, err
}

// AppendLedgerLeaf stores an entry of the log. ErrExists if index, leaf or deed stand there already.
func (tx *Tx) AppendLedgerLeaf(l LedgerLeaf) error {
	return tx.insert(`INSERT INTO ledger_leaves (idx, leaf, leaf_hash, deed) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		l.Index, l.Leaf, l.LeafHash[:], l.Deed)
}

// LedgerLeafByDeed reads the entry of the log that carries a deed.
func (tx *Tx) LedgerLeafByDeed(deed []byte) (LedgerLeaf, error) {
	return tx.ledgerLeaf(`SELECT idx, leaf, leaf_hash, deed FROM ledger_leaves WHERE deed = $1`, deed)
}

// LedgerLeafByHash reads the entry of the log with a leaf hash.
func (tx *Tx) LedgerLeafByHash(hash [32]byte) (LedgerLeaf, error) {
	return tx.ledgerLeaf(`SELECT idx, leaf, leaf_hash, deed FROM ledger_leaves WHERE leaf_hash = $1`, hash[:])
}

func (tx *Tx) ledgerLeaf(query string, key []byte) (LedgerLeaf, error) {
	var l LedgerLeaf
	var hash []byte
	err := tx.one([]any{&l.Index, &l.Leaf, &hash, &l.Deed}, query, key)
	copy(l.LeafHash[:], hash)
	return l, err
}

// LedgerLeaves reads entries of the log from an index on, at most limit.
func (tx *Tx) LedgerLeaves(from int64, limit int) ([]LedgerLeaf, error) {
	return tx.ledgerLeaves(`SELECT idx, leaf, leaf_hash, deed FROM ledger_leaves WHERE idx >= $1 ORDER BY idx LIMIT $2`, from, limit)
}

func (tx *Tx) ledgerLeaves(query string, args ...any) ([]LedgerLeaf, error) {
	var leaves []LedgerLeaf
	err := tx.list(func(scan func(...any) error) error {
		var l LedgerLeaf
		var hash []byte
		if err := scan(&l.Index, &l.Leaf, &hash, &l.Deed); err != nil {
			return err
		}
		copy(l.LeafHash[:], hash)
		leaves = append(leaves, l)
		return nil
	}, query, args...)
	return leaves, err
}

// LedgerDeeds reads the entries of the log whose deeds lie between two, both included, in their order.
func (tx *Tx) LedgerDeeds(first, last []byte) ([]LedgerLeaf, error) {
	return tx.ledgerLeaves(`SELECT idx, leaf, leaf_hash, deed FROM ledger_leaves WHERE deed >= $1 AND deed <= $2 ORDER BY deed`, first, last)
}

// LedgerDeedsAfter pages through the entries of the log in the order of their deeds.
func (tx *Tx) LedgerDeedsAfter(deed []byte, limit int) ([]LedgerLeaf, error) {
	if deed == nil {
		deed = []byte{}
	}
	return tx.ledgerLeaves(`SELECT idx, leaf, leaf_hash, deed FROM ledger_leaves WHERE deed > $1 ORDER BY deed LIMIT $2`, deed, limit)
}

// RenameLedgerDeed puts an entry of the log under another deed.
func (tx *Tx) RenameLedgerDeed(index int64, deed []byte) error {
	return tx.change(`UPDATE ledger_leaves SET deed = $1 WHERE idx = $2`, deed, index)
}

// LedgerTile reads the hashes of a tile of height 8: up to 256 of 32 bytes.
func (tx *Tx) LedgerTile(level int, n int64) ([]byte, error) {
	var data []byte
	err := tx.one([]any{&data}, `SELECT data FROM ledger_tiles WHERE level = $1 AND n = $2`, level, n)
	return data, err
}

// PutLedgerTile stores a tile, in the place of a narrower one.
func (tx *Tx) PutLedgerTile(level int, n int64, data []byte) error {
	_, err := tx.exec(`INSERT INTO ledger_tiles (level, n, data) VALUES ($1, $2, $3)
	    ON CONFLICT (level, n) DO UPDATE SET data = excluded.data`, level, n, data)
	return err
}

// LedgerTileCount counts the tiles of a level.
func (tx *Tx) LedgerTileCount() (n int64, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM ledger_tiles`)
	return n, err
}

// LedgerState reads the newest tree that the log of an origin has signed; ErrNotFound before its first checkpoint.
func (tx *Tx) LedgerState(origin string) (LedgerState, error) {
	var s LedgerState
	var root []byte
	err := tx.one([]any{&s.Size, &root, &s.Checkpoint}, `SELECT size, root, checkpoint FROM ledger_state WHERE origin = $1`, origin)
	copy(s.Root[:], root)
	return s, err
}

// SwapLedgerState publishes a checkpoint if the log still stands at old (the zero value: nothing published). ErrExists: it does not.
func (tx *Tx) SwapLedgerState(origin string, old, next LedgerState) error {
	if old.Size == 0 {
		return tx.insert(`INSERT INTO ledger_state (origin, size, root, checkpoint) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			origin, next.Size, next.Root[:], next.Checkpoint)
	}
	n, err := tx.exec(`UPDATE ledger_state SET size = $1, root = $2, checkpoint = $3 WHERE origin = $4 AND size = $5 AND root = $6`,
		next.Size, next.Root[:], next.Checkpoint, origin, old.Size, old.Root[:])
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// LedgerLease reads the lease; ErrNotFound if nobody ever held it.
func (tx *Tx) LedgerLease(origin string) (LedgerLease, error) {
	var l LedgerLease
	err := tx.one([]any{&l.Owner, &l.Token, &l.Until}, `SELECT owner, token, until FROM ledger_leases WHERE origin = $1`, origin)
	return l, err
}

// TakeLedgerLease gives the lease to an owner until a time, if it is free at now or the owner's. A new owner gets a greater token;
// ErrExists: another one holds it.
func (tx *Tx) TakeLedgerLease(origin string, owner []byte, now, until int64) (LedgerLease, error) {
	l, err := tx.LedgerLease(origin)
	if err == ErrNotFound {
		l = LedgerLease{Owner: owner, Token: 1, Until: until}
		return l, tx.insert(`INSERT INTO ledger_leases (origin, owner, token, until) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			origin, owner, l.Token, until)
	}
	if err != nil {
		return l, err
	}
	mine := bytes.Equal(l.Owner, owner)
	if !mine && l.Until > now {
		return l, ErrExists
	}
	if !mine {
		l.Token++
	}
	l.Owner, l.Until = owner, until
	return l, tx.change(`UPDATE ledger_leases SET owner = $1, token = $2, until = $3 WHERE origin = $4`, owner, l.Token, until, origin)
}

// ReleaseLedgerLease ends the lease of an owner; the token stays.
func (tx *Tx) ReleaseLedgerLease(origin string, owner []byte) error {
	_, err := tx.exec(`UPDATE ledger_leases SET until = 0 WHERE origin = $1 AND owner = $2`, origin, owner)
	return err
}

// LedgerPolicy is a witness policy of the log.
type LedgerPolicy struct {
	N     int64 // from 0
	Leaf  []byte
	Proof []byte // that the first published tree that holds it does; empty: not published yet
}

// LedgerPublished reads the newest checkpoint that witnesses cosigned; ErrNotFound where the log has no policy.
func (tx *Tx) LedgerPublished(origin string) (LedgerState, error) {
	var s LedgerState
	var root []byte
	err := tx.one([]any{&s.Size, &root, &s.Checkpoint}, `SELECT size, root, checkpoint FROM ledger_published WHERE origin = $1`, origin)
	copy(s.Root[:], root)
	return s, err
}

// SwapLedgerPublished publishes a checkpoint if old is still what is published (the zero value: nothing). ErrExists: it is not.
func (tx *Tx) SwapLedgerPublished(origin string, old, next LedgerState) error {
	if old.Size == 0 {
		return tx.insert(`INSERT INTO ledger_published (origin, size, root, checkpoint) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
			origin, next.Size, next.Root[:], next.Checkpoint)
	}
	n, err := tx.exec(`UPDATE ledger_published SET size = $1, root = $2, checkpoint = $3 WHERE origin = $4 AND checkpoint = $5`,
		next.Size, next.Root[:], next.Checkpoint, origin, old.Checkpoint)
	if err == nil && n == 0 {
		return ErrExists
	}
	return err
}

// LedgerPolicies lists the policies in order.
func (tx *Tx) LedgerPolicies() (list []LedgerPolicy, err error) {
	err = tx.list(func(scan func(...any) error) error {
		var p LedgerPolicy
		if err := scan(&p.N, &p.Leaf, &p.Proof); err != nil {
			return err
		}
		list = append(list, p)
		return nil
	}, `SELECT n, leaf, proof FROM ledger_policies ORDER BY n`)
	return list, err
}

// AddLedgerPolicy stores the next policy, not published yet. ErrExists: somebody was faster.
func (tx *Tx) AddLedgerPolicy(n int64, leaf []byte) error {
	return tx.insert(`INSERT INTO ledger_policies (n, leaf, proof) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, n, leaf, []byte{})
}

// PutLedgerPolicyProof says that a policy is published.
func (tx *Tx) PutLedgerPolicyProof(n int64, proof []byte) error {
	return tx.change(`UPDATE ledger_policies SET proof = $1 WHERE n = $2`, proof, n)
}
