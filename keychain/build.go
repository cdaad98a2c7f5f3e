package keychain

import (
	"time"

	"letterlock/canon"
	"letterlock/chat"
)

// What makes entries. Each returns the signed entry, which Append of the same chain accepts, and leaves the chain as it is: send
// the entry, and take the longer chain once the server has it.

// Creation is what a new account starts with.
type Creation struct {
	Account chat.AccountID
	Host    string
	Handle  string
	Device  chat.DeviceID // the first device
	Name    string        // of the first device
	At      time.Time
}

// Create makes entry 0. Open makes a chain of it.
func Create(c Creation, device DeviceKey, recovery RecoveryKey) ([]byte, error) {
	payload, err := recovery.sign(domainCreate, creation{
		Account:  c.Account,
		Host:     c.Host,
		Handle:   c.Handle,
		Recovery: publicKeyOf(recovery),
		Device:   deviceFields{ID: c.Device, Key: publicKeyOf(device), Name: c.Name},
	})
	if err != nil {
		return nil, err
	}
	signed, err := device.sign(domainEntry, entry{
		Version: version,
		Account: c.Account,
		Kind:    create,
		Payload: payload,
		At:      c.At.UnixMilli(),
		Signer:  publicKeyOf(device),
	})
	if err != nil {
		return nil, err
	}
	if _, err := Open([][]byte{signed}); err != nil {
		return nil, err
	}
	return signed, nil
}

// Request is what a new device shows to one that is in the chain, or to whoever holds the recovery key: its wish, with proof that it
// holds its key, to join this very chain. The device must know that the chain is its person's: the request names the chain's beginning, so
// that nobody can copy it into a chain of their own making.
func (c *Chain) Request(id chat.DeviceID, name string, key DeviceKey) ([]byte, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	return key.sign(domainDevice, request{
		Account:  c.account,
		Creation: c.Creation(),
		Device:   deviceFields{ID: id, Key: publicKeyOf(key), Name: name},
	})
}

// AddDevice lets the device join that made the request.
func (c *Chain) AddDevice(signer Signer, request []byte, at time.Time) ([]byte, error) {
	return c.build(signer, addDevice, request, at)
}

// RemoveDevice removes a device.
func (c *Chain) RemoveDevice(signer Signer, id chat.DeviceID, why Reason, at time.Time) ([]byte, error) {
	return c.build(signer, removeDevice, canon.MustMarshal(removal{Device: id, Reason: why}), at)
}

// ReplaceRecovery puts a new recovery key in the place of the present one.
func (c *Chain) ReplaceRecovery(present, next RecoveryKey, at time.Time) ([]byte, error) {
	payload, err := next.sign(domainRecovery, succession{Account: c.account, Key: publicKeyOf(next)})
	if err != nil {
		return nil, err
	}
	return c.build(present, replaceRecovery, payload, at)
}

// SetPreference states a wish about partner apps.
func (c *Chain) SetPreference(signer Signer, p Preference, at time.Time) ([]byte, error) {
	return c.build(signer, setPreference, canon.MustMarshal(p), at)
}

// build signs the next entry and makes sure that the chain takes it.
func (c *Chain) build(signer Signer, kind uint64, payload []byte, at time.Time) ([]byte, error) {
	signed, err := signer.sign(domainEntry, entry{
		Version: version,
		Account: c.account,
		N:       c.Version() + 1,
		Prev:    c.Head(),
		Kind:    kind,
		Payload: payload,
		At:      at.UnixMilli(),
		Signer:  publicKeyOf(signer),
	})
	if err != nil {
		return nil, err
	}
	if _, err := c.Append(signed); err != nil {
		return nil, err
	}
	return signed, nil
}

func publicKeyOf(s Signer) (k publicKey) {
	copy(k[:], s.Public())
	return k
}
