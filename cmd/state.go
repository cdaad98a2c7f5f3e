package cmd

import (
	"letterlock/device"
	"letterlock/vault"
)

// DeviceState lets a device keep its state in a vault.
func DeviceState(v *vault.Vault) device.State { return vaultState{v} }

type vaultState struct{ *vault.Vault }

func (v vaultState) Update(fn func(device.StateTx) error) error {
	return v.Vault.Update(func(tx *vault.Tx) error { return fn(vaultTx{tx}) })
}

func (v vaultState) View(fn func(device.StateTx) error) error {
	return v.Vault.View(func(tx *vault.Tx) error { return fn(vaultTx{tx}) })
}

type vaultTx struct{ *vault.Tx }

func (tx vaultTx) Get(bucket, name string) ([]byte, error) {
	v, ok, err := tx.Tx.Get(bucket, name)
	if ok && v == nil {
		v = []byte{}
	}
	return v, err
}

// listPage is how many names are read at once.
const listPage = 256

func (tx vaultTx) List(bucket, after string, fn func(string, []byte) (bool, error)) error {
	for {
		names, err := tx.Tx.List(bucket, after, listPage)
		if err != nil {
			return err
		}
		for _, name := range names {
			value, err := tx.Get(bucket, name)
			if err != nil {
				return err
			}
			if more, err := fn(name, value); err != nil || !more {
				return err
			}
		}
		if len(names) < listPage {
			return nil
		}
		after = names[len(names)-1]
	}
}
