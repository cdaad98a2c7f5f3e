// Package slot is the write-only key of a thread's epoch, like the letter slot of a door: whoever has its public half can put a post
// in, nobody outside can take one out. Formats and formulas: spec/slot.md.
//
// Members derive the key pair from their MLS group (package mls exports the secret; this package does not import it), an agent
// seals to the announced public half. The server checks headers and signatures with package envelope below, which can neither seal nor
// open; it does not link this one. Whether a grant allows a post is decided in package grant.
package slot

import (
	"crypto/ed25519"
	"crypto/hpke"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot/envelope"
)

// Label and Length are the arguments of the MLS exporter; its context is the epoch's confirmed transcript hash.
const (
	Label  = "letterlock slot"
	Length = 32
)

const (
	domainAnnounce = envelope.DomainAnnounce
	domainPost     = envelope.DomainPost
	domainSeal     = "letterlock/post-seal/v1"
	domainTakeBack = envelope.DomainTakeBack
	version        = envelope.Version
)

// Limits of spec/slot.md, in bytes.
const (
	MaxContent      = 64 << 10
	MaxPost         = envelope.MaxPost
	MaxAnnouncement = envelope.MaxAnnouncement
	MaxTakeBack     = envelope.MaxTakeBack
)

// MaxAge is how old an announcement may be when an agent takes it, in milliseconds: seven days.
const MaxAge = 7 * 24 * 3600 * 1000

// MaxAhead is how far a member's clock may be ahead of the agent's, in milliseconds: one hour.
const MaxAhead = 3600 * 1000

// PrivateKey opens the posts of one epoch.
type PrivateKey struct{ key hpke.PrivateKey }

// PublicKey lets posts in: 32 bytes for suite 1.
type PublicKey = envelope.PublicKey

// String hides the key.
func (PrivateKey) String() string { return "slot.PrivateKey" }

// GoString hides the key.
func (PrivateKey) GoString() string { return "slot.PrivateKey" }

func kem() hpke.KEM   { return hpke.DHKEM(curve()) }
func kdf() hpke.KDF   { return hpke.HKDFSHA256() }
func aead() hpke.AEAD { return hpke.AES128GCM() }

// Derive computes the epoch's key pair from the exported secret, and wipes the secret.
func Derive(secret []byte) (PrivateKey, PublicKey, error) {
	defer clear(secret)
	if len(secret) != Length {
		return PrivateKey{}, PublicKey{}, chat.Errorf(chat.Invalid, "slot: the secret has a wrong length")
	}
	key, err := kem().DeriveKeyPair(secret)
	if err != nil {
		return PrivateKey{}, PublicKey{}, chat.Wrap(chat.Internal, err, "slot: no key pair")
	}
	return PrivateKey{key}, PublicKey(key.PublicKey().Bytes()), nil
}

// Announcement is the public half of an epoch's slot, as a member tells it to agents.
type Announcement = envelope.Announcement

// Announce signs the public half for the agents of the thread.
func Announce(c chat.ConversationID, epoch uint64, key PublicKey, at int64, device ed25519.PrivateKey) ([]byte, error) {
	return canon.Seal(device, domainAnnounce, &Announcement{
		Version: version, Conversation: c, Epoch: epoch, Key: key, At: at, Signer: [32]byte(device.Public().(ed25519.PublicKey)),
	})
}

// OpenAnnouncement checks that the announcement is signed by the key it names. Whether that key counts is for the caller.
func OpenAnnouncement(data []byte) (*Announcement, error) { return envelope.OpenAnnouncement(data) }

// Pinned is what an agent holds of a thread's slot: whose announcements count, and the newest it took.
type Pinned struct {
	Conversation chat.ConversationID
	Signers      [][32]byte
	Epoch        uint64
	Key          PublicKey
}

// Take judges an announcement by the grant it was pinned with: signer, thread, age, and that epochs only rise. It returns the new state.
func (p Pinned) Take(data []byte, now int64) (Pinned, error) {
	a, err := OpenAnnouncement(data)
	if err != nil {
		return p, err
	}
	signed := false
	for _, s := range p.Signers {
		signed = signed || s == a.Signer
	}
	switch {
	case !signed:
		return p, chat.Errorf(chat.Tampered, "the slot was announced by a key that the grant does not name")
	case a.Conversation != p.Conversation:
		return p, chat.Errorf(chat.Tampered, "the slot is another conversation's")
	case a.Key == PublicKey{}:
		return p, chat.Errorf(chat.Tampered, "the slot was announced without a key")
	case a.Epoch < p.Epoch:
		return p, chat.Errorf(chat.Tampered, "the slot is of an earlier epoch than one already seen")
	case a.Epoch == p.Epoch && p.Key != (PublicKey{}) && a.Key != p.Key:
		return p, chat.Errorf(chat.Tampered, "two slots were announced for one epoch")
	case a.At < now-MaxAge:
		return p, chat.Errorf(chat.Expired, "the slot was announced more than seven days ago: a member must come online first")
	case a.At > now+MaxAhead:
		return p, chat.Errorf(chat.Tampered, "the slot was announced in the future")
	}
	p.Epoch, p.Key = a.Epoch, a.Key
	return p, nil
}
