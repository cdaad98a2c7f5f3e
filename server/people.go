package server

import (
	"crypto/ed25519"
	"errors"

	"letterlock/account"
	"letterlock/chat"
	"letterlock/store"
)

// people tells delivery who stands behind a leaf: key chains, as package account keeps them.
type people struct{ accounts *account.Service }

func (p people) Account(tx *store.Tx, handle string) (chat.AccountID, error) {
	id, err := tx.AccountOf(handle)
	if errors.Is(err, store.ErrNotFound) {
		return id, chat.Errorf(chat.NotFound, "there is no such account here")
	}
	return id, err
}

func (p people) Device(tx *store.Tx, handle string, d chat.DeviceID) (chat.AccountID, ed25519.PublicKey, error) {
	id, err := p.Account(tx, handle)
	if err != nil {
		return id, nil, err
	}
	chain, err := p.accounts.Chain(tx, id)
	if err != nil {
		return id, nil, err
	}
	device, ok := chain.Device(d)
	if !ok {
		return id, nil, chat.Errorf(chat.NotFound, "this device is not in its account's key chain, or not any more")
	}
	return id, device.Key, nil
}

func (p people) Chain(tx *store.Tx, handle string) ([][]byte, error) {
	id, err := p.Account(tx, handle)
	if err != nil {
		return nil, err
	}
	chain, err := p.accounts.Chain(tx, id)
	if err != nil {
		return nil, err
	}
	return chain.Entries(), nil
}
