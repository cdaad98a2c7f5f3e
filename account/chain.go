package account

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"sync"

	"letterlock/api"
	"letterlock/canon"
	"letterlock/chat"
	"letterlock/keychain"
	"letterlock/store"
)

// Chain reads an account's verified key chain within a transaction; chat.NotFound if there is no such account. It is cheap: entries
// are verified once and remembered.
func (s *Service) Chain(tx *store.Tx, id chat.AccountID) (*keychain.Chain, error) {
	row, err := tx.Account(id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, noAccount()
	}
	if err != nil {
		return nil, err
	}
	known := s.chains.get(id)
	if known != nil && known.Head() == row.Head {
		return known, nil
	}
	chain, err := s.readChain(tx, id, known)
	if err != nil {
		return nil, err
	}
	if chain.Head() != row.Head || chain.Handle() != row.Handle {
		return nil, errors.New("account: the row of " + id.String() + " does not fit its key chain")
	}
	s.chains.put(chain)
	return chain, nil
}

// readChain continues a known chain, or reads the whole where the known one is not its beginning: it may come from a transaction
// that was undone.
func (s *Service) readChain(tx *store.Tx, id chat.AccountID, known *keychain.Chain) (*keychain.Chain, error) {
	if known != nil {
		entries, err := tx.ChainEntries(id, known.Version()+1)
		if err != nil {
			return nil, err
		}
		if chain, err := appendAll(known, entries); err == nil && len(entries) > 0 {
			return chain, nil
		}
	}
	entries, err := tx.ChainEntries(id, 0)
	if err != nil {
		return nil, err
	}
	return keychain.Open(entries)
}

func appendAll(chain *keychain.Chain, entries [][]byte) (*keychain.Chain, error) {
	for _, e := range entries {
		next, err := chain.Append(e)
		if err != nil {
			return nil, err
		}
		chain = next
	}
	return chain, nil
}

// AppendEntry adds an entry to a key chain. The entry's own signature is what allows it: a signed-in device may only write its own
// account's, and somebody who lost every device may come without a session and with an entry signed by the recovery key.
func (s *Service) AppendEntry(ctx context.Context, r api.AppendEntry) error {
	id, err := accountOf(r.Entry)
	if err != nil {
		return err
	}
	if c, err := api.CallerFrom(ctx); err == nil && c.Account != id {
		return chat.Errorf(chat.Forbidden, "this entry belongs to another account's key chain")
	}
	var before, after *keychain.Chain
	err = s.Store.View(ctx, func(tx *store.Tx) error {
		before, err = s.Chain(tx, id)
		return err
	})
	if err != nil {
		return err
	}
	if before.Head() == sha256.Sum256(r.Entry) {
		return nil // the newest entry already: its answer was lost
	}
	if after, err = before.Append(r.Entry); err != nil {
		return err
	}
	if err := s.Store.Update(ctx, func(tx *store.Tx) error { return s.extend(tx, before, after, r.Entry) }); err != nil {
		return err
	}
	s.Ledger.Notify()
	s.sessions.Drop()
	s.chains.put(after)
	if s.Hooks.ChainChanged != nil {
		s.Hooks.ChainChanged(id)
	}
	return nil
}

// entryHead is the body of an entry as spec/keychain.md has it, read only to find the account. Package keychain judges it.
type entryHead struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Account chat.AccountID
	N       uint64
	Prev    [32]byte
	Kind    uint64
	Payload []byte
	At      int64
	Signer  [32]byte
}

func accountOf(entry []byte) (chat.AccountID, error) {
	var h entryHead
	if len(entry) > keychain.MaxEntry {
		return h.Account, chat.Errorf(chat.TooLarge, "a key-chain entry has at most %d bytes", keychain.MaxEntry)
	}
	if err := canon.Peek(entry, &h); err != nil {
		return h.Account, chat.Wrap(chat.Invalid, err, "this is no key-chain entry")
	}
	return h.Account, nil
}

// extend writes one entry and everything that follows from it.
func (s *Service) extend(tx *store.Tx, before, after *keychain.Chain, entry []byte) error {
	id := after.Account()
	err := tx.AppendChainEntry(id, after.Version(), entry, after.Head())
	if errors.Is(err, store.ErrExists) {
		return chat.Errorf(chat.StaleEpoch, "another entry was added to the key chain first: fetch the chain and make it again")
	}
	if err != nil {
		return err
	}
	if err := s.Ledger.KeyEntry(tx, id, after.Handle(), after.Version(), entry); err != nil {
		return err
	}
	for _, d := range before.Devices() {
		if _, still := after.Device(d.ID); still {
			continue
		}
		if err := s.removeDevice(tx, after, d.ID); err != nil {
			return err
		}
	}
	if s.Hooks.PreferencesChanged != nil && !samePreferences(before, after) {
		return s.Hooks.PreferencesChanged(tx, id, after.Preferences())
	}
	return nil
}

// removeDevice ends at once what the server lets a device do.
func (s *Service) removeDevice(tx *store.Tx, after *keychain.Chain, d chat.DeviceID) error {
	id := after.Account()
	if err := tx.EndSessions(id, d); err != nil {
		return err
	}
	if err := tx.DropKeyPackages(id, d); err != nil {
		return err
	}
	if s.Hooks.DeviceRemoved == nil {
		return nil
	}
	return s.Hooks.DeviceRemoved(tx, id, d, after.RemovedAsStolen(d))
}

// samePreferences reports whether two chains of an account refuse the same partner apps.
func samePreferences(a, b *keychain.Chain) bool {
	x, y := a.Preferences(), b.Preferences()
	return x.RefusesAll() == y.RefusesAll() && slices.Equal(x.Refused(), y.Refused())
}

// maxChains bounds the memory of verified chains.
const maxChains = 4096

type chainCache struct {
	mu   *sync.Mutex
	byID map[chat.AccountID]*keychain.Chain
}

func newChainCache() chainCache {
	return chainCache{new(sync.Mutex), map[chat.AccountID]*keychain.Chain{}}
}

func (c chainCache) get(id chat.AccountID) *keychain.Chain {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.byID[id]
}

func (c chainCache) put(chain *keychain.Chain) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.byID) >= maxChains {
		for id := range c.byID { // any one: the order of a map is random
			delete(c.byID, id)
			break
		}
	}
	c.byID[chain.Account()] = chain
}
