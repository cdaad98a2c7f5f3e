// Package account keeps people on the server: sign-up, the key chain of devices, their sessions, KeyPackages and friends, and what the
// operator decides about them: invitations and blocks (operator.go). It serves api.Accounts and api.AccountAdmin and tells httpd which
// device holds a session token.
//
// Neighbours: keychain judges every chain entry, roster every KeyPackage, dpop every proof; store holds the rows. delivery and inbox
// read chains through Chain and hear of removed devices through Hooks.
//
// It refuses handles and account ids that were ever taken, entries that the chain's own rules refuse, sessions for keys that are not
// in the chain, KeyPackages that are not the calling device's own, and KeyPackages to people who are neither friends nor in a common
// conversation. It tells nobody who is whose friend but the two.
package account

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/keychain"
	"letterlock/ledger"
	"letterlock/store"
)

// Hooks let other packages act in the transaction that changes a key chain. A nil hook does nothing; an error undoes the change.
type Hooks struct {
	// DeviceRemoved is called once for each device that an entry removed.
	DeviceRemoved func(tx *store.Tx, a chat.AccountID, d chat.DeviceID, stolen bool) error
	// PreferencesChanged is called for an entry that changed what the person wishes about partner apps.
	PreferencesChanged func(tx *store.Tx, a chat.AccountID, now keychain.Preferences) error
	// ChainChanged is called after the transaction.
	ChainChanged func(a chat.AccountID)
	// Blocked is called after the transaction that blocked an account or let it in again.
	Blocked func(a chat.AccountID, blocked bool)
}

// Config is what a Service works with.
type Config struct {
	Server   api.Server // who this server is; its Host is the only one that accounts are taken for
	Store    *store.Store
	Ledger   *ledger.Ledger // takes every entry of every key chain
	Verifier *dpop.Verifier
	Hooks    Hooks
	Now      func() time.Time
	Rand     io.Reader // of session tokens

	Registration Registration // empty: Open
	MaxFriends   int          // friends and requests of an account; 0: DefaultFriends
}

// Service is safe for concurrent use.
type Service struct {
	Config
	chains   chainCache
	sessions dpop.Holders[api.Caller]

	mu sync.Mutex // of Rand
}

var (
	_ api.Accounts     = (*Service)(nil)
	_ api.AccountAdmin = (*Service)(nil)
)

// New makes the service.
func New(c Config) *Service {
	return &Service{Config: c, chains: newChainCache()}
}

// Server says who this server is.
func (s *Service) Server(context.Context) (api.Server, error) { return s.Config.Server, nil }

// SignUp takes a handle. The same entry sent again is answered as before: its answer may have been lost.
func (s *Service) SignUp(ctx context.Context, r api.SignUp) (api.SignedUp, error) {
	chain, err := keychain.Open([][]byte{r.Entry})
	if err != nil {
		return api.SignedUp{}, err
	}
	if chain.Host() != s.Config.Server.Host {
		return api.SignedUp{}, chat.Errorf(chat.Invalid, "this key chain is for another server: here it must name %s", s.Config.Server.Host)
	}
	up := api.SignedUp{Account: chain.Account(), Handle: chain.Handle()}
	row := store.Account{ID: up.Account, Handle: up.Handle, Created: s.Now().UnixMilli(), Head: chain.Head()}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.CreateAccount(row, r.Entry); err != nil {
			return err
		}
		if err := s.Ledger.KeyEntry(tx, up.Account, up.Handle, 0, r.Entry); err != nil {
			return err
		}
		return s.admit(tx, r.Invite)
	})
	if errors.Is(err, store.ErrExists) {
		return up, s.signedUpBefore(ctx, row)
	}
	s.Ledger.Notify()
	return up, err
}

// signedUpBefore is nil if exactly this account exists with exactly this first entry.
func (s *Service) signedUpBefore(ctx context.Context, row store.Account) error {
	return s.Store.View(ctx, func(tx *store.Tx) error {
		id, err := tx.AccountOf(row.Handle)
		if errors.Is(err, store.ErrNotFound) {
			return chat.Errorf(chat.Exists, "this account id is taken: draw another one")
		}
		if err != nil {
			return err
		}
		chain, err := s.Chain(tx, id)
		if err != nil {
			return err
		}
		if id != row.ID || chain.Creation() != row.Head {
			return chat.Errorf(chat.Exists, "the handle %q is taken: handles are never given twice", row.Handle)
		}
		return nil
	})
}

// AccountByHandle answers with an account's key chain and the proof that it is the newest.
func (s *Service) AccountByHandle(ctx context.Context, handle string) (a api.Account, err error) {
	if err := chat.CheckHandle(handle); err != nil {
		return a, err
	}
	return s.shown(ctx, func(tx *store.Tx) (chat.AccountID, error) { return s.find(tx, handle) })
}

// AccountByID answers with an account's key chain and the proof that it is the newest.
func (s *Service) AccountByID(ctx context.Context, id chat.AccountID) (api.Account, error) {
	return s.shown(ctx, func(*store.Tx) (chat.AccountID, error) { return id, nil })
}

func (s *Service) shown(ctx context.Context, find func(*store.Tx) (chat.AccountID, error)) (a api.Account, err error) {
	var chain *keychain.Chain
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		id, err := find(tx)
		if err != nil {
			return err
		}
		chain, err = s.Chain(tx, id)
		return err
	})
	if err != nil {
		return a, err
	}
	n, err := s.Ledger.Newest(ctx, chain.Handle(), chain.Version())
	if err != nil {
		return a, err
	}
	return api.Account{Account: chain.Account(), Handle: chain.Handle(), Chain: chain.Entries(), Keys: api.KeyProof{
		Head: n.Head.Bytes(), Version: n.Version, Index: n.Index, Newest: api.MapProof(n.This), Next: api.MapProof(n.Beyond)}}, nil
}

// find turns a handle into an account id.
func (s *Service) find(tx *store.Tx, handle string) (chat.AccountID, error) {
	id, err := tx.AccountOf(handle)
	if errors.Is(err, store.ErrNotFound) {
		return id, noAccount()
	}
	return id, err
}

func noAccount() error { return chat.Errorf(chat.NotFound, "there is no such account here") }

// Sweep drops what expired. The server calls it every hour.
func (s *Service) Sweep(ctx context.Context) error {
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		now := s.Now()
		return errors.Join(tx.SweepAccounts(now.UnixMilli()), tx.SweepInvites(now.Add(-time.Hour).UnixMilli()))
	})
}
