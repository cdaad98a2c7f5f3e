package keychain

import (
	"crypto/ed25519"
	"unicode"
	"unicode/utf8"

	"filippo.io/edwards25519"

	"letterlock/canon"
	"letterlock/chat"
)

// The domains of the signatures.
const (
	domainEntry    = "letterlock/keychain/v1"
	domainCreate   = "letterlock/keychain-create/v1"
	domainDevice   = "letterlock/keychain-device/v1"
	domainRecovery = "letterlock/keychain-recovery/v1"
)

const version = 1

// The kinds of entry.
const (
	create uint64 = iota + 1
	addDevice
	removeDevice
	replaceRecovery
	setPreference
)

// Reason is why a device was removed.
type Reason uint64

// The reasons.
const (
	Retired Reason = iota + 1 // not used any more
	Lost                      // out of its owner's hands, nobody's fault
	Stolen                    // in a thief's hands: what it granted is suspended
)

// String is the reason's name.
func (r Reason) String() string {
	switch r {
	case Retired:
		return "retired"
	case Lost:
		return "lost"
	case Stolen:
		return "stolen"
	}
	return "unknown"
}

// ParseReason reads a reason's name.
func ParseReason(name string) (Reason, error) {
	for r := Retired; r <= Stolen; r++ {
		if r.String() == name {
			return r, nil
		}
	}
	return 0, chat.Errorf(chat.Invalid, "reason: use retired, lost or stolen")
}

// publicKey is an Ed25519 public key that can be compared.
type publicKey [ed25519.PublicKeySize]byte

// entry is the signed body of an entry.
type entry struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Account chat.AccountID
	N       uint64
	Prev    [32]byte
	Kind    uint64
	Payload []byte
	At      int64
	Signer  publicKey
}

// deviceFields is a device as payloads carry it.
type deviceFields struct {
	_    struct{} `cbor:",toarray"`
	ID   chat.DeviceID
	Key  publicKey
	Name string
}

// creation is the payload of create, signed by the recovery key.
type creation struct {
	_        struct{} `cbor:",toarray"`
	Account  chat.AccountID
	Host     string
	Handle   string
	Recovery publicKey
	Device   deviceFields
}

// request is the payload of addDevice, signed by the device that wants to join.
type request struct {
	_        struct{} `cbor:",toarray"`
	Account  chat.AccountID
	Creation [32]byte // hash of entry 0: the request is for this chain and for no other of the same name
	Device   deviceFields
}

// removal is the payload of removeDevice.
type removal struct {
	_      struct{} `cbor:",toarray"`
	Device chat.DeviceID
	Reason Reason
}

// succession is the payload of replaceRecovery, signed by the new recovery key.
type succession struct {
	_       struct{} `cbor:",toarray"`
	Account chat.AccountID
	Key     publicKey
}

// openEntry reads the entry for place n and checks that the key that it names signed it.
func openEntry(n uint64, signed []byte) (entry, error) {
	var e entry
	if len(signed) > MaxEntry {
		return e, refuse(n, chat.TooLarge, "larger than %d bytes", MaxEntry)
	}
	if err := canon.Peek(signed, &e); err != nil {
		return e, malformed(n, err)
	}
	if e.Version != version {
		return e, refuse(n, chat.Incompatible, "format version %d is unknown", e.Version)
	}
	if e.At < 0 {
		return e, refuse(n, chat.Invalid, "its time is before 1970")
	}
	if err := canon.Open(signed, e.Signer[:], domainEntry, &e); err != nil {
		return e, chat.Wrap(chat.Unproven, err, "key chain, entry %d: not signed by the key that it names", n)
	}
	return e, nil
}

// openCreation reads the payload of create and checks the recovery key's signature.
func openCreation(e entry) (creation, error) {
	var p creation
	if err := canon.Peek(e.Payload, &p); err != nil {
		return p, malformed(e.N, err)
	}
	if err := canon.Open(e.Payload, p.Recovery[:], domainCreate, &p); err != nil {
		return p, unproven(e.N, err, "the recovery key")
	}
	if p.Account != e.Account || p.Account.IsZero() {
		return p, refuse(e.N, chat.Invalid, "the recovery key signed for another account")
	}
	if err := chat.CheckHost(p.Host); err != nil {
		return p, chat.Wrap(chat.Invalid, err, "key chain, entry %d: the host is malformed", e.N)
	}
	if err := chat.CheckHandle(p.Handle); err != nil {
		return p, chat.Wrap(chat.Invalid, err, "key chain, entry %d: the handle is malformed", e.N)
	}
	return p, nil
}

// openRequest reads the payload of addDevice and checks the signature of the device that joins.
func openRequest(e entry, creation [32]byte) (deviceFields, error) {
	var p request
	if err := canon.Peek(e.Payload, &p); err != nil {
		return p.Device, malformed(e.N, err)
	}
	if err := canon.Open(e.Payload, p.Device.Key[:], domainDevice, &p); err != nil {
		return p.Device, unproven(e.N, err, "the device to add")
	}
	if p.Account != e.Account {
		return p.Device, refuse(e.N, chat.Invalid, "the device asked to join another account")
	}
	if p.Creation != creation {
		return p.Device, refuse(e.N, chat.Invalid, "the device asked to join another key chain")
	}
	return p.Device, nil
}

// openRecovery reads the payload of replaceRecovery and checks the new key's signature.
func openRecovery(e entry) (succession, error) {
	var p succession
	if err := canon.Peek(e.Payload, &p); err != nil {
		return p, malformed(e.N, err)
	}
	if err := canon.Open(e.Payload, p.Key[:], domainRecovery, &p); err != nil {
		return p, unproven(e.N, err, "the new recovery key")
	}
	if p.Account != e.Account {
		return p, refuse(e.N, chat.Invalid, "the new recovery key signed for another account")
	}
	return p, nil
}

func unproven(n uint64, err error, who string) error {
	return chat.Wrap(chat.Unproven, err, "key chain, entry %d: %s did not sign", n, who)
}

func (k publicKey) clone() ed25519.PublicKey { return append(ed25519.PublicKey(nil), k[:]...) }

// sound reports whether k is the canonical encoding of a point that is not of small order. Under a point of small order one
// signature fits many messages (RFC 8032 section 8.9 leaves the check to the caller), so a signature would prove nothing.
func (k publicKey) sound() bool {
	p, err := new(edwards25519.Point).SetBytes(k[:])
	return err == nil && publicKey(p.Bytes()) == k &&
		new(edwards25519.Point).MultByCofactor(p).Equal(edwards25519.NewIdentityPoint()) == 0
}

// checkName accepts what can be shown in one line without lying about its direction.
func checkName(name string) *chat.Error {
	if len(name) == 0 || len(name) > MaxDeviceName {
		return chat.Errorf(chat.Invalid, "a device's name has 1 to %d bytes", MaxDeviceName)
	}
	if !utf8.ValidString(name) {
		return chat.Errorf(chat.Invalid, "a device's name is UTF-8")
	}
	for _, r := range name {
		if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return chat.Errorf(chat.Invalid, "a device's name has no control or direction characters")
		}
	}
	return nil
}
