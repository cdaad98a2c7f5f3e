package grant

import (
	"bytes"
	"crypto/ed25519"
	"slices"

	"letterlock/canon"
	"letterlock/chat"
)

// Domain strings of spec/grant.md.
const (
	domainGrant             = "letterlock/grant/v1"
	domainRevoke            = "letterlock/revoke/v1"
	domainNarrow            = "letterlock/narrow/v1"
	domainAgreement         = "letterlock/agreement/v1"
	domainAgreementOperator = "letterlock/agreement-operator/v1"
	domainCert              = "letterlock/agent-cert/v1"
)

// Limits of spec/grant.md, in bytes or counts.
const (
	MaxSigned    = 16 << 10
	MaxAgreement = 16 << 10
	MaxCerts     = 2 << 10
	MaxSigners   = 256
	MaxGrants    = 32
	maxList      = 64
	maxLabel     = 64
	maxName      = 64
	maxLinkBase  = 512
)

const version = 1

// Hash identifies a signed grant or an agreement.
type Hash [32]byte

// Grant is what a person lets a partner do. It is the only truth about permission.
type Grant struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	ID           chat.GrantID
	Account      chat.AccountID
	Handle       string
	Partner      string
	Agreement    Hash // of the agreement it stands on
	Actions      chat.Actions
	Conversation chat.ConversationID
	AgentKey     [32]byte // Ed25519: signs posts, and is the leaf's signature key under read
	ChainVersion uint64   // of the account's key chain when it was signed
	SlotSigners  [][32]byte
	Issued       int64 // ms
	Expiry       int64 // ms
	Counter      uint64
	Previous     Hash
	Device       chat.DeviceID
}

// Revocation ends a grant.
type Revocation struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Grant        chat.GrantID
	Account      chat.AccountID
	Handle       string
	Partner      string
	Conversation chat.ConversationID
	Counter      uint64
	At           int64
	Device       chat.DeviceID
}

// Narrowing leaves a grant fewer actions.
type Narrowing struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Grant        chat.GrantID
	Account      chat.AccountID
	Handle       string
	Partner      string
	Conversation chat.ConversationID
	Actions      chat.Actions
	Counter      uint64
	At           int64
	Device       chat.DeviceID
}

func checkActions(a chat.Actions) error {
	if a == 0 || a&^chat.AllActions != 0 {
		return chat.Errorf(chat.Invalid, "the actions must be some of send, read and delete")
	}
	return nil
}

func (g *Grant) check() error {
	switch {
	case g.Version != version:
		return chat.Errorf(chat.Incompatible, "grant: version %d is not known here", g.Version)
	case g.ID.IsZero(), g.Account.IsZero(), g.Conversation.IsZero():
		return chat.Errorf(chat.Invalid, "grant: an id is missing")
	case chat.CheckHandle(g.Handle) != nil, chat.CheckPartner(g.Partner) != nil:
		return chat.Errorf(chat.Invalid, "grant: handle or partner is malformed")
	case g.Issued <= 0 || g.Expiry <= g.Issued:
		return chat.Errorf(chat.Invalid, "grant: it expires before it was issued")
	case len(g.SlotSigners) == 0 || len(g.SlotSigners) > MaxSigners:
		return chat.Errorf(chat.Invalid, "grant: between 1 and %d slot signers", MaxSigners)
	}
	for i := 1; i < len(g.SlotSigners); i++ {
		if bytes.Compare(g.SlotSigners[i-1][:], g.SlotSigners[i][:]) >= 0 {
			return chat.Errorf(chat.Invalid, "grant: slot signers are not sorted or repeat")
		}
	}
	return checkActions(g.Actions)
}

// Sign checks the grant and signs it with the device's key.
func (g *Grant) Sign(key ed25519.PrivateKey) ([]byte, error) {
	g.Version = version
	slices.SortFunc(g.SlotSigners, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	g.SlotSigners = slices.Compact(g.SlotSigners)
	if err := g.check(); err != nil {
		return nil, err
	}
	return canon.Seal(key, domainGrant, g)
}

// HashOf is the hash by which entries and later grants name a signed grant.
func HashOf(signed []byte) Hash { return canon.Hash(domainGrant, signed) }

// Open checks a signed grant under the key of the device it names.
func Open(signed []byte, device ed25519.PublicKey) (*Grant, error) {
	return open[Grant](signed, device, domainGrant, "grant")
}

// Peek reads a signed grant without checking its signature: to find out whose device key to check it with.
func Peek(signed []byte) (*Grant, error) { return peek[Grant](signed, "grant") }

// Sign checks the revocation and signs it with the device's key.
func (r *Revocation) Sign(key ed25519.PrivateKey) ([]byte, error) {
	r.Version = version
	if err := r.check(); err != nil {
		return nil, err
	}
	return canon.Seal(key, domainRevoke, r)
}

// OpenRevocation checks a signed revocation under the key of the device it names.
func OpenRevocation(signed []byte, device ed25519.PublicKey) (*Revocation, error) {
	return open[Revocation](signed, device, domainRevoke, "revocation")
}

// PeekRevocation reads a revocation without checking its signature.
func PeekRevocation(signed []byte) (*Revocation, error) {
	return peek[Revocation](signed, "revocation")
}

func (r *Revocation) check() error {
	switch {
	case r.Version != version:
		return chat.Errorf(chat.Incompatible, "revocation: version %d is not known here", r.Version)
	case r.Grant.IsZero(), r.Account.IsZero(), r.Conversation.IsZero(), r.At <= 0,
		chat.CheckHandle(r.Handle) != nil, chat.CheckPartner(r.Partner) != nil:
		return chat.Errorf(chat.Invalid, "revocation: a field is missing or malformed")
	}
	return nil
}

// Sign checks the narrowing and signs it with the device's key.
func (n *Narrowing) Sign(key ed25519.PrivateKey) ([]byte, error) {
	n.Version = version
	if err := n.check(); err != nil {
		return nil, err
	}
	return canon.Seal(key, domainNarrow, n)
}

// OpenNarrowing checks a signed narrowing under the key of the device it names.
func OpenNarrowing(signed []byte, device ed25519.PublicKey) (*Narrowing, error) {
	return open[Narrowing](signed, device, domainNarrow, "narrowing")
}

// PeekNarrowing reads a narrowing without checking its signature.
func PeekNarrowing(signed []byte) (*Narrowing, error) { return peek[Narrowing](signed, "narrowing") }

func (n *Narrowing) check() error {
	switch {
	case n.Version != version:
		return chat.Errorf(chat.Incompatible, "narrowing: version %d is not known here", n.Version)
	case n.Grant.IsZero(), n.Account.IsZero(), n.Conversation.IsZero(), n.At <= 0,
		chat.CheckHandle(n.Handle) != nil, chat.CheckPartner(n.Partner) != nil:
		return chat.Errorf(chat.Invalid, "narrowing: a field is missing or malformed")
	}
	return checkActions(n.Actions)
}

// body is a structure that can say whether its fields make sense.
type body[T any] interface {
	*T
	check() error
}

func open[T any, P body[T]](signed []byte, key ed25519.PublicKey, domain, what string) (*T, error) {
	if len(signed) > MaxSigned {
		return nil, chat.Errorf(chat.TooLarge, "%s: larger than %d bytes", what, MaxSigned)
	}
	v := new(T)
	if err := canon.Open(signed, key, domain, v); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the %s is not signed by the device it names", what)
	}
	return v, P(v).check()
}

func peek[T any, P body[T]](signed []byte, what string) (*T, error) {
	if len(signed) > MaxSigned {
		return nil, chat.Errorf(chat.TooLarge, "%s: larger than %d bytes", what, MaxSigned)
	}
	v := new(T)
	if err := canon.Peek(signed, v); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the %s cannot be read", what)
	}
	return v, P(v).check()
}
