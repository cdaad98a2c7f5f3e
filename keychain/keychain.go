// Package keychain is an account's signed list of devices: who may speak for the account, at which point of its history, and what
// the person prefers about partner apps. The format is spec/keychain.md.
//
// Everybody uses it: the server before it stores an entry, clients before they trust a device, the offline checker before it
// believes a grant. It stands on canon for encoding and signatures and on chat for ids; it does no I/O and reads no clock.
//
// It refuses every entry that is not signed by a device in the chain or by the recovery key, devices that try to replace the
// recovery key, keys that nobody proved to hold, keys and devices that come back, gaps, and another history under known numbers.
// What a person granted is not its business: see package grant.
package keychain

import (
	"crypto/ed25519"
	"crypto/sha256"
	"maps"
	"slices"

	"letterlock/canon"
	"letterlock/chat"
)

// The limits of the format.
const (
	MaxEntry        = 2 << 10 // bytes of a signed entry
	MaxEntries      = 4096    // of a chain
	MaxDevices      = 32      // in the chain at a time
	MaxDeviceName   = 64      // bytes
	RecoveryReserve = 64      // of MaxEntries, the last ones, which only the recovery key may fill
)

// Chain is a verified key chain. It never changes: Append returns another one.
type Chain struct {
	account      chat.AccountID
	host, handle string
	recovery     publicKey
	devices      []Device // in the order of joining, those removed included
	keys         map[publicKey]bool
	preferences  Preferences
	entries      [][]byte
	hashes       [][32]byte // of entries
}

// Device is a client of the account.
type Device struct {
	ID      chat.DeviceID
	Key     ed25519.PublicKey
	Name    string
	Added   uint64 // n of the entry that added it
	Removed uint64 // n of the entry that removed it; 0 while it is in the chain
	Reason  Reason // why it was removed; 0 while it is in the chain
}

// Open verifies all entries of a chain, from the first.
func Open(entries [][]byte) (*Chain, error) {
	if len(entries) == 0 {
		return nil, chat.Errorf(chat.Invalid, "key chain: no entries")
	}
	if len(entries) > MaxEntries {
		return nil, chat.Errorf(chat.TooLarge, "key chain: more than %d entries", MaxEntries)
	}
	c := &Chain{keys: map[publicKey]bool{}}
	for _, e := range entries {
		if err := c.extend(e); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Append verifies one more entry and returns the longer chain. The errors:
//
//	stale-epoch   the entry is for another place than the next one: somebody was faster
//	unproven      a signature does not hold
//	forbidden     the signer may not do that
//	exists        the key or the device id stood in the chain before
//	not-found     no such device in the chain
//	too-large     a limit
//	incompatible  a version, kind, reason or preference that this build does not know
//	invalid       everything else
func (c *Chain) Append(entry []byte) (*Chain, error) {
	longer := c.clone()
	if err := longer.extend(entry); err != nil {
		return nil, err
	}
	return longer, nil
}

// Account is the account's id.
func (c *Chain) Account() chat.AccountID { return c.account }

// Host is the authority of the account's server.
func (c *Chain) Host() string { return c.host }

// Handle is the account's handle.
func (c *Chain) Handle() string { return c.handle }

// Recovery is the present recovery key.
func (c *Chain) Recovery() ed25519.PublicKey { return c.recovery.clone() }

// Version is the number of the last entry.
func (c *Chain) Version() uint64 { return uint64(len(c.entries)) - 1 }

// Head is the SHA-256 of the last entry.
func (c *Chain) Head() [32]byte { return c.prev() }

// Creation is the SHA-256 of the first entry.
func (c *Chain) Creation() [32]byte { return c.hashes[0] }

// Entries are the signed entries, as they are stored and sent.
func (c *Chain) Entries() [][]byte {
	entries := make([][]byte, len(c.entries))
	for i, e := range c.entries {
		entries[i] = slices.Clone(e)
	}
	return entries
}

// Devices are the devices in the chain, in the order of joining.
func (c *Chain) Devices() []Device { return c.filter(Device.present) }

// Removed are the devices that were in the chain and are not any more.
func (c *Chain) Removed() []Device {
	return c.filter(func(d Device) bool { return !d.present() })
}

// Device finds a device in the chain. One that was removed is not found.
func (c *Chain) Device(id chat.DeviceID) (Device, bool) {
	if i := c.find(id); i >= 0 && c.devices[i].present() {
		return c.devices[i].clone(), true
	}
	return Device{}, false
}

// KeyAt is the key of a device that was in the chain at a version.
func (c *Chain) KeyAt(version uint64, id chat.DeviceID) (ed25519.PublicKey, bool) {
	i := c.find(id)
	if i < 0 || version > c.Version() || !c.devices[i].presentAt(version) {
		return nil, false
	}
	return slices.Clone(c.devices[i].Key), true
}

// RemovedAsStolen reports whether the device was removed from the chain as stolen.
func (c *Chain) RemovedAsStolen(id chat.DeviceID) bool {
	i := c.find(id)
	return i >= 0 && c.devices[i].Reason == Stolen
}

// Preferences are what the person prefers about partner apps.
func (c *Chain) Preferences() Preferences { return c.preferences.clone() }

// Extends checks that c is old, or old with more entries. A chain that is shorter than what was seen, or differs in it, is
// chat.Tampered: whoever served it hides entries or shows different people different devices. Keep both.
func (c *Chain) Extends(old *Chain) error {
	if c.account != old.account {
		return chat.Errorf(chat.Invalid, "key chain: of another account")
	}
	if c.Version() < old.Version() {
		return chat.Errorf(chat.Tampered, "key chain: has %d entries where %d were seen before", len(c.entries), len(old.entries))
	}
	if c.hashes[old.Version()] != old.Head() {
		return chat.Errorf(chat.Tampered, "key chain: differs from what was seen before, at or before entry %d", old.Version())
	}
	return nil
}

func (d Device) present() bool { return d.Removed == 0 }

func (d Device) presentAt(version uint64) bool {
	return d.Added <= version && (d.Removed == 0 || d.Removed > version)
}

func (d Device) clone() Device {
	d.Key = slices.Clone(d.Key)
	return d
}

func (c *Chain) filter(keep func(Device) bool) []Device {
	var found []Device
	for _, d := range c.devices {
		if keep(d) {
			found = append(found, d.clone())
		}
	}
	return found
}

// find is the index of a device that is or was in the chain; -1 without one.
func (c *Chain) find(id chat.DeviceID) int {
	return slices.IndexFunc(c.devices, func(d Device) bool { return d.ID == id })
}

// prev is what the next entry must name as the entry before it.
func (c *Chain) prev() [32]byte {
	if len(c.hashes) == 0 {
		return [32]byte{}
	}
	return c.hashes[len(c.hashes)-1]
}

// clone copies what extend changes. Entries and hashes are only appended to, and never behind another chain's back.
func (c *Chain) clone() *Chain {
	d := *c
	d.devices = slices.Clone(c.devices)
	d.keys = maps.Clone(c.keys)
	d.preferences = c.preferences.clone()
	d.entries = slices.Clip(c.entries)
	d.hashes = slices.Clip(c.hashes)
	return &d
}

// extend verifies the next entry and applies it to c. After an error c is worthless.
func (c *Chain) extend(signed []byte) error {
	n := uint64(len(c.entries))
	if n >= MaxEntries {
		return refuse(n, chat.TooLarge, "a chain has at most %d entries", MaxEntries)
	}
	e, err := openEntry(n, signed)
	if err != nil {
		return err
	}
	if e.N != n {
		return refuse(n, chat.StaleEpoch, "the entry is numbered %d: it was made for another state of the chain", e.N)
	}
	if e.Prev != c.prev() {
		return refuse(n, chat.Invalid, "it continues another history")
	}
	if n > 0 && e.Account != c.account {
		return refuse(n, chat.Invalid, "it is of another account")
	}
	if (n == 0) != (e.Kind == create) {
		return refuse(n, chat.Invalid, "the first entry, and no other, creates the account")
	}
	if err := c.apply(e); err != nil {
		return err
	}
	c.entries = append(c.entries, slices.Clone(signed))
	c.hashes = append(c.hashes, sha256.Sum256(signed))
	return nil
}

// apply carries out an entry whose signature and place were checked.
func (c *Chain) apply(e entry) error {
	if e.Kind == create {
		return c.create(e)
	}
	if err := c.authorise(e); err != nil {
		return err
	}
	switch e.Kind {
	case addDevice:
		return c.addDevice(e)
	case removeDevice:
		return c.removeDevice(e)
	case replaceRecovery:
		return c.replaceRecovery(e)
	case setPreference:
		return c.setPreference(e)
	}
	return refuse(e.N, chat.Incompatible, "kind %d is unknown", e.Kind)
}

// authorise decides whether the signer may sign an entry of this kind here: the recovery key may everything, a device in the chain
// everything but replacing the recovery key, nobody else anything. What a device may remove is decided in removeDevice.
func (c *Chain) authorise(e entry) error {
	if e.Signer == c.recovery {
		return nil
	}
	if !slices.ContainsFunc(c.devices, func(d Device) bool { return d.present() && publicKey(d.Key) == e.Signer }) {
		return refuse(e.N, chat.Forbidden, "the signer is neither a device in the chain nor the recovery key")
	}
	if e.Kind == replaceRecovery {
		return refuse(e.N, chat.Forbidden, "only the recovery key can be followed by another one")
	}
	if e.N >= MaxEntries-RecoveryReserve {
		return refuse(e.N, chat.TooLarge, "the last %d entries are for the recovery key", RecoveryReserve)
	}
	return nil
}

func (c *Chain) create(e entry) error {
	p, err := openCreation(e)
	if err != nil {
		return err
	}
	if p.Device.Key != e.Signer {
		return refuse(e.N, chat.Forbidden, "the first device must sign the first entry")
	}
	c.account, c.host, c.handle, c.recovery = p.Account, p.Host, p.Handle, p.Recovery
	if err := c.take(e.N, p.Recovery); err != nil {
		return err
	}
	return c.join(e.N, p.Device)
}

func (c *Chain) addDevice(e entry) error {
	d, err := openRequest(e, c.Creation())
	if err != nil {
		return err
	}
	return c.join(e.N, d)
}

func (c *Chain) removeDevice(e entry) error {
	var p removal
	if err := unmarshal(e, &p); err != nil {
		return err
	}
	if p.Reason < Retired || p.Reason > Stolen {
		return refuse(e.N, chat.Incompatible, "reason %d is unknown", p.Reason)
	}
	i := c.find(p.Device)
	if i < 0 || !c.devices[i].present() {
		return refuse(e.N, chat.NotFound, "no such device in the chain")
	}
	d := &c.devices[i]
	if publicKey(d.Key) == e.Signer && p.Reason != Retired {
		return refuse(e.N, chat.Forbidden, "a device cannot call itself lost or stolen")
	}
	d.Removed, d.Reason = e.N, p.Reason
	return nil
}

func (c *Chain) replaceRecovery(e entry) error {
	p, err := openRecovery(e)
	if err != nil {
		return err
	}
	if err := c.take(e.N, p.Key); err != nil {
		return err
	}
	c.recovery = p.Key
	return nil
}

func (c *Chain) setPreference(e entry) error {
	var p Preference
	if err := unmarshal(e, &p); err != nil {
		return err
	}
	if err := p.check(); err != nil {
		return refuse(e.N, err.Kind, "%s", err.Detail)
	}
	c.preferences.set(p)
	return nil
}

// join puts a device into the chain.
func (c *Chain) join(n uint64, d deviceFields) error {
	if err := checkName(d.Name); err != nil {
		return refuse(n, err.Kind, "%s", err.Detail)
	}
	if c.find(d.ID) >= 0 {
		return refuse(n, chat.Exists, "the device id stood in the chain before")
	}
	if len(c.Devices()) >= MaxDevices {
		return refuse(n, chat.TooLarge, "a chain has at most %d devices at a time", MaxDevices)
	}
	if err := c.take(n, d.Key); err != nil {
		return err
	}
	c.devices = append(c.devices, Device{ID: d.ID, Key: d.Key.clone(), Name: d.Name, Added: n})
	return nil
}

// take notes a key as used, once and for good.
func (c *Chain) take(n uint64, k publicKey) error {
	if !k.sound() {
		return refuse(n, chat.Invalid, "a key is not a sound Ed25519 public key")
	}
	if c.keys[k] {
		return refuse(n, chat.Exists, "a key stood in the chain before")
	}
	c.keys[k] = true
	return nil
}

func refuse(n uint64, kind chat.Kind, format string, args ...any) error {
	return chat.Errorf(kind, "key chain, entry %d: "+format, append([]any{n}, args...)...)
}

// unmarshal reads a payload that carries no signature of its own.
func unmarshal(e entry, payload any) error {
	if err := canon.Unmarshal(e.Payload, payload); err != nil {
		return malformed(e.N, err)
	}
	return nil
}

func malformed(n uint64, err error) error {
	return chat.Wrap(chat.Invalid, err, "key chain, entry %d: malformed", n)
}
