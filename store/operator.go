package store

import (
	"errors"
	"fmt"

	"letterlock/chat"
)

// Block is the row of a blocked account.
type Block struct {
	Account chat.AccountID
	Since   int64
	Reason  string
}

// BlockAccount blocks an account; one that is blocked gets the new reason and keeps its time.
func (tx *Tx) BlockAccount(b Block) error {
	_, err := tx.exec(`INSERT INTO blocked_accounts (account, since, reason) VALUES ($1, $2, $3)
		ON CONFLICT (account) DO UPDATE SET reason = excluded.reason`, b.Account[:], b.Since, b.Reason)
	return err
}

// UnblockAccount ends a block; ErrNotFound if there is none.
func (tx *Tx) UnblockAccount(id chat.AccountID) error {
	return tx.change(`DELETE FROM blocked_accounts WHERE account = $1`, id[:])
}

// Block reads the block of an account; ErrNotFound if there is none.
func (tx *Tx) Block(id chat.AccountID) (Block, error) {
	b := Block{Account: id}
	return b, tx.one([]any{&b.Since, &b.Reason}, `SELECT since, reason FROM blocked_accounts WHERE account = $1`, id[:])
}

// Blocked reports whether an account is blocked.
func (tx *Tx) Blocked(id chat.AccountID) (bool, error) {
	_, err := tx.Block(id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Blocks lists the blocked accounts in the order of their ids.
func (tx *Tx) Blocks() (blocks []Block, err error) {
	return blocks, tx.list(func(scan func(...any) error) error {
		var b Block
		var id []byte
		if err := scan(&id, &b.Since, &b.Reason); err != nil {
			return err
		}
		if copy(b.Account[:], id) != len(b.Account) {
			return fmt.Errorf("store: the row of a block is damaged")
		}
		blocks = append(blocks, b)
		return nil
	}, `SELECT account, since, reason FROM blocked_accounts ORDER BY account`)
}

// EndAccountSessions ends every session of an account.
func (tx *Tx) EndAccountSessions(id chat.AccountID) error {
	_, err := tx.exec(`DELETE FROM sessions WHERE account = $1`, id[:])
	return err
}

// Invite is an invitation, as stored.
type Invite struct {
	CodeHash [32]byte
	Created  int64
	Expires  int64
	Uses     int64 // how many people it lets in
	Used     int64
}

// PutInvite stores a new invitation.
func (tx *Tx) PutInvite(i Invite) error {
	return tx.insert(`INSERT INTO invites (code_hash, created, expires, uses, used) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
		i.CodeHash[:], i.Created, i.Expires, i.Uses, i.Used)
}

// UseInvite takes one use of an invitation; ErrNotFound if there is none with that code that has a use left at that time.
func (tx *Tx) UseInvite(codeHash [32]byte, now int64) error {
	return tx.change(`UPDATE invites SET used = used + 1 WHERE code_hash = $1 AND used < uses AND expires > $2`, codeHash[:], now)
}

// Invites lists the invitations that are kept, oldest first.
func (tx *Tx) Invites() (invites []Invite, err error) {
	return invites, tx.list(func(scan func(...any) error) error {
		var i Invite
		var hash []byte
		if err := scan(&hash, &i.Created, &i.Expires, &i.Uses, &i.Used); err != nil {
			return err
		}
		if copy(i.CodeHash[:], hash) != len(i.CodeHash) {
			return fmt.Errorf("store: the row of an invitation is damaged")
		}
		invites = append(invites, i)
		return nil
	}, `SELECT code_hash, created, expires, uses, used FROM invites ORDER BY created, code_hash`)
}

// DropInvite ends an invitation; ErrNotFound if there is none.
func (tx *Tx) DropInvite(codeHash [32]byte) error {
	return tx.change(`DELETE FROM invites WHERE code_hash = $1`, codeHash[:])
}

// SweepInvites drops invitations that expired before a time.
func (tx *Tx) SweepInvites(before int64) error {
	_, err := tx.exec(`DELETE FROM invites WHERE expires < $1`, before)
	return err
}
