package store

import (
	"fmt"

	"letterlock/chat"
)

// Account is one account's row.
type Account struct {
	ID      chat.AccountID
	Handle  string
	Created int64
	Version uint64   // n of the newest key-chain entry
	Head    [32]byte // SHA-256 of that entry
}

// CreateAccount takes a handle for good and stores the first key-chain entry; ErrExists if the handle or the id is taken.
func (tx *Tx) CreateAccount(a Account, entry []byte) error {
	if err := tx.insert(`INSERT INTO handles (handle, account) VALUES ($1, $2) ON CONFLICT DO NOTHING`, a.Handle, a.ID[:]); err != nil {
		return err
	}
	err := tx.insert(`INSERT INTO accounts (account, handle, created, version, head) VALUES ($1, $2, $3, 0, $4) ON CONFLICT DO NOTHING`,
		a.ID[:], a.Handle, a.Created, a.Head[:])
	if err != nil {
		return err
	}
	return tx.insert(`INSERT INTO chain_entries (account, n, entry) VALUES ($1, 0, $2) ON CONFLICT DO NOTHING`, a.ID[:], entry)
}

// Account reads one account.
func (tx *Tx) Account(id chat.AccountID) (Account, error) {
	a := Account{ID: id}
	var head []byte
	err := tx.one([]any{&a.Handle, &a.Created, &a.Version, &head},
		`SELECT handle, created, version, head FROM accounts WHERE account = $1`, id[:])
	if err == nil && copy(a.Head[:], head) != len(a.Head) {
		err = fmt.Errorf("store: account row %s is damaged", id)
	}
	return a, err
}

// AccountsAfter pages through all accounts by id: id and handle alone.
func (tx *Tx) AccountsAfter(id chat.AccountID, limit int) (list []Account, err error) {
	return list, tx.list(func(scan func(...any) error) error {
		var a Account
		var b []byte
		err := scan(&b, &a.Handle)
		copy(a.ID[:], b)
		list = append(list, a)
		return err
	}, `SELECT account, handle FROM accounts WHERE account > $1 ORDER BY account LIMIT $2`, id[:], limit)
}

// AccountOf finds the account that took a handle.
func (tx *Tx) AccountOf(handle string) (id chat.AccountID, err error) {
	var b []byte
	if err = tx.one([]any{&b}, `SELECT account FROM handles WHERE handle = $1`, handle); err != nil {
		return id, err
	}
	if copy(id[:], b) != len(id) {
		return id, fmt.Errorf("store: handle row is damaged")
	}
	return id, nil
}

// AppendChainEntry stores entry number n, whose predecessor must be the newest one; ErrExists if another entry was faster.
func (tx *Tx) AppendChainEntry(id chat.AccountID, n uint64, entry []byte, head [32]byte) error {
	changed, err := tx.exec(`UPDATE accounts SET version = $1, head = $2 WHERE account = $3 AND version = $4`,
		int64(n), head[:], id[:], int64(n)-1)
	if err != nil {
		return err
	}
	if changed == 0 {
		return ErrExists
	}
	return tx.insert(`INSERT INTO chain_entries (account, n, entry) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, id[:], int64(n), entry)
}

// ChainEntries reads an account's key chain in order, from entry number from.
func (tx *Tx) ChainEntries(id chat.AccountID, from uint64) (entries [][]byte, err error) {
	return entries, tx.list(func(scan func(...any) error) error {
		var e []byte
		err := scan(&e)
		entries = append(entries, e)
		return err
	}, `SELECT entry FROM chain_entries WHERE account = $1 AND n >= $2 ORDER BY n`, id[:], int64(from))
}

// Session is a device's token, as stored.
type Session struct {
	Account    chat.AccountID
	TokenHash  [32]byte
	Device     chat.DeviceID
	Thumbprint [32]byte
	Expires    int64
}

// PutSession stores a session.
func (tx *Tx) PutSession(s Session) error {
	return tx.insert(`INSERT INTO sessions (account, token_hash, device, thumbprint, expires) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		s.Account[:], s.TokenHash[:], s.Device[:], s.Thumbprint[:], s.Expires)
}

// Session reads a session that has not ended, with the handle of its account. Whether it expired is the caller's to judge.
func (tx *Tx) Session(id chat.AccountID, tokenHash [32]byte) (s Session, handle string, err error) {
	s = Session{Account: id, TokenHash: tokenHash}
	var device, thumbprint []byte
	err = tx.one([]any{&device, &thumbprint, &s.Expires, &handle},
		`SELECT s.device, s.thumbprint, s.expires, a.handle FROM sessions s JOIN accounts a ON a.account = s.account
		WHERE s.account = $1 AND s.token_hash = $2`, id[:], tokenHash[:])
	if err == nil && (copy(s.Device[:], device) != len(s.Device) || copy(s.Thumbprint[:], thumbprint) != len(s.Thumbprint)) {
		err = fmt.Errorf("store: session row is damaged")
	}
	return s, handle, err
}

// TrimSessions drops a device's oldest sessions until at most keep are left.
func (tx *Tx) TrimSessions(id chat.AccountID, d chat.DeviceID, keep int) error {
	_, err := tx.exec(`DELETE FROM sessions WHERE account = $1 AND device = $2 AND token_hash NOT IN
		(SELECT token_hash FROM sessions WHERE account = $1 AND device = $2 ORDER BY expires DESC, token_hash LIMIT $3)`, id[:], d[:], keep)
	return err
}

// EndSessions ends every session of a device.
func (tx *Tx) EndSessions(id chat.AccountID, d chat.DeviceID) error {
	_, err := tx.exec(`DELETE FROM sessions WHERE account = $1 AND device = $2`, id[:], d[:])
	return err
}

// KeyPackage is one KeyPackage of a device, as stored.
type KeyPackage struct {
	Device     chat.DeviceID
	Ref        []byte
	LastResort bool
	NotAfter   int64
	Bytes      []byte
}

// PutKeyPackage stores a KeyPackage; ErrExists if it is there already.
func (tx *Tx) PutKeyPackage(id chat.AccountID, k KeyPackage) error {
	return tx.insert(`INSERT INTO key_packages (account, device, ref, last_resort, not_after, key_package) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT DO NOTHING`, id[:], k.Device[:], k.Ref, flag(k.LastResort), k.NotAfter, k.Bytes)
}

// DropLastResort drops a device's KeyPackage of last resort, if there is one.
func (tx *Tx) DropLastResort(id chat.AccountID, d chat.DeviceID) error {
	_, err := tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2 AND last_resort = 1`, id[:], d[:])
	return err
}

// DropKeyPackages drops every KeyPackage of a device.
func (tx *Tx) DropKeyPackages(id chat.AccountID, d chat.DeviceID) error {
	_, err := tx.exec(`DELETE FROM key_packages WHERE account = $1 AND device = $2`, id[:], d[:])
	return err
}

// CountKeyPackages says how many of a device's KeyPackages are good beyond a time, and whether one of last resort is.
func (tx *Tx) CountKeyPackages(id chat.AccountID, d chat.DeviceID, beyond int64) (left int, lastResort bool, err error) {
	var last int
	err = tx.one([]any{&left, &last},
		`SELECT COALESCE(SUM(1 - last_resort), 0), COALESCE(SUM(last_resort), 0) FROM key_packages WHERE account = $1 AND device = $2 AND not_after > $3`,
		id[:], d[:], beyond)
	return left, last > 0, err
}

// TakeKeyPackage takes one of a device's KeyPackages that are good beyond a time: the one that ends first, and for good. Where none
// is left it reads the one of last resort, which stays. ErrNotFound if there is none at all.
func (tx *Tx) TakeKeyPackage(id chat.AccountID, d chat.DeviceID, beyond int64) (kp []byte, err error) {
	err = tx.one([]any{&kp}, `DELETE FROM key_packages WHERE account = $1 AND device = $2 AND ref =
		(SELECT ref FROM key_packages WHERE account = $1 AND device = $2 AND last_resort = 0 AND not_after > $3 ORDER BY not_after, ref LIMIT 1)
		RETURNING key_package`, id[:], d[:], beyond)
	if err != ErrNotFound {
		return kp, err
	}
	err = tx.one([]any{&kp}, `SELECT key_package FROM key_packages WHERE account = $1 AND device = $2 AND last_resort = 1 AND not_after > $3 LIMIT 1`,
		id[:], d[:], beyond)
	return kp, err
}

// FriendState is how an account stands to another.
type FriendState int64

// The states, as the row's account sees them.
const (
	FriendAsked  FriendState = 1 // the account asked
	FriendAsking FriendState = 2 // the other asked
	FriendMutual FriendState = 3
)

// Friend is one row of an account's list, with the other's handle.
type Friend struct {
	Account chat.AccountID // the other
	Handle  string         // the other's
	State   FriendState
	Since   int64
}

// PutFriend writes how two accounts stand to each other: both rows. other is the state as b sees it.
func (tx *Tx) PutFriend(a, b chat.AccountID, state, other FriendState, since int64) error {
	for _, row := range []struct {
		account, friend chat.AccountID
		state           FriendState
	}{{a, b, state}, {b, a, other}} {
		_, err := tx.exec(`INSERT INTO friends (account, friend, state, since) VALUES ($1, $2, $3, $4)
			ON CONFLICT (account, friend) DO UPDATE SET state = excluded.state, since = excluded.since`,
			row.account[:], row.friend[:], int64(row.state), since)
		if err != nil {
			return err
		}
	}
	return nil
}

// Friend reads how a stands to b; ErrNotFound if neither ever asked.
func (tx *Tx) Friend(a, b chat.AccountID) (state FriendState, since int64, err error) {
	err = tx.one([]any{&state, &since}, `SELECT state, since FROM friends WHERE account = $1 AND friend = $2`, a[:], b[:])
	return state, since, err
}

// Friends lists an account's friends and requests, in the order of their ids. Handles are read one by one: they are another shard's.
func (tx *Tx) Friends(id chat.AccountID) (friends []Friend, err error) {
	err = tx.list(func(scan func(...any) error) error {
		var f Friend
		var other []byte
		if err := scan(&other, &f.State, &f.Since); err != nil {
			return err
		}
		if copy(f.Account[:], other) != len(f.Account) {
			return fmt.Errorf("store: friend row is damaged")
		}
		friends = append(friends, f)
		return nil
	}, `SELECT friend, state, since FROM friends WHERE account = $1 ORDER BY friend`, id[:])
	for i := range friends {
		if err != nil {
			break
		}
		var a Account
		a, err = tx.Account(friends[i].Account)
		friends[i].Handle = a.Handle
	}
	return friends, err
}

// CountFriends says how many friends and requests an account has.
func (tx *Tx) CountFriends(id chat.AccountID) (n int, err error) {
	err = tx.one([]any{&n}, `SELECT COUNT(*) FROM friends WHERE account = $1`, id[:])
	return n, err
}

// DropFriend ends whatever stands between two accounts; ErrNotFound if nothing does.
func (tx *Tx) DropFriend(a, b chat.AccountID) error {
	if err := tx.change(`DELETE FROM friends WHERE account = $1 AND friend = $2`, a[:], b[:]); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM friends WHERE account = $1 AND friend = $2`, b[:], a[:])
	return err
}

// SweepAccounts drops sessions and KeyPackages that ended before a time.
func (tx *Tx) SweepAccounts(before int64) error {
	if _, err := tx.exec(`DELETE FROM sessions WHERE expires < $1`, before); err != nil {
		return err
	}
	_, err := tx.exec(`DELETE FROM key_packages WHERE not_after < $1`, before)
	return err
}

// flag is how a bool is stored.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
