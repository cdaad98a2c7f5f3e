// Package envelope is the outside of what goes through a slot: the headers and signatures of posts and take-backs, and the
// announcements of slot keys. Formats: spec/slot.md.
//
// It is all of the slot that the server links, as mls/roster is all of MLS: nothing here can seal or open. Package slot above it
// holds the keys and re-exports these types; agents and devices use that. Whether a grant allows a post is decided in package grant.
package envelope

import (
	"crypto/ed25519"

	"letterlock/canon"
	"letterlock/chat"
)

// Domain strings of spec/slot.md.
const (
	DomainAnnounce = "letterlock/slot/v1"
	DomainPost     = "letterlock/post/v1"
	DomainTakeBack = "letterlock/take-back/v1"
)

// Version of the formats.
const Version = 1

// Limits of spec/slot.md, in bytes.
const (
	MaxPost         = 68 << 10
	MaxAnnouncement = 1 << 10
	MaxTakeBack     = 1 << 10
	maxLabel        = 64
)

// PublicKey lets posts in: 32 bytes for suite 1.
type PublicKey [32]byte

// Announcement is the public half of an epoch's slot, as a member tells it to agents.
type Announcement struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Conversation chat.ConversationID
	Epoch        uint64
	Key          PublicKey
	At           int64
	Signer       [32]byte // a device key
}

// OpenAnnouncement checks that the announcement is signed by the key it names. Whether that key counts is for the caller.
func OpenAnnouncement(data []byte) (*Announcement, error) {
	var a Announcement
	if len(data) > MaxAnnouncement {
		return nil, chat.Errorf(chat.TooLarge, "slot announcement: larger than %d bytes", MaxAnnouncement)
	}
	if err := canon.Peek(data, &a); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the slot announcement cannot be read")
	}
	if a.Version != Version {
		return nil, chat.Errorf(chat.Incompatible, "slot announcement: version %d is not known here", a.Version)
	}
	if err := canon.Open(data, a.Signer[:], DomainAnnounce, &a); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the slot announcement's signature does not hold")
	}
	return &a, nil
}

// Header is what everybody may read of a post: where it belongs and under which grant it was written.
type Header struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Host         string
	Conversation chat.ConversationID
	Epoch        uint64
	Grant        chat.GrantID
	Counter      uint64
	Message      chat.MessageID
	At           int64
	Labels       Labels
}

// Labels say where in the partner's app a post was made, for the report that the agreement asks for.
type Labels struct {
	_         struct{} `cbor:",toarray"`
	Interface string
	Surface   string
	Variant   string
}

// Post is a post as it is sent and stored.
type Post struct {
	_          struct{} `cbor:",toarray"`
	Header     []byte
	KEMOutput  []byte
	Ciphertext []byte
	Signature  []byte
}

// Signed is what the grant key signs: all of the post but the signature.
func (p *Post) Signed() []byte {
	return canon.MustMarshal(struct {
		_                             struct{} `cbor:",toarray"`
		Header, KEMOutput, Ciphertext []byte
	}{Header: p.Header, KEMOutput: p.KEMOutput, Ciphertext: p.Ciphertext})
}

// Check says whether the header's fields make sense.
func (h *Header) Check() error {
	if h.Version != Version {
		return chat.Errorf(chat.Incompatible, "post: version %d is not known here", h.Version)
	}
	if chat.CheckHost(h.Host) != nil || h.Conversation.IsZero() || h.Grant.IsZero() || h.At <= 0 ||
		len(h.Labels.Interface) > maxLabel || len(h.Labels.Surface) > maxLabel || len(h.Labels.Variant) > maxLabel {
		return chat.Errorf(chat.Invalid, "post: a field of the header is missing or malformed")
	}
	return nil
}

// Parse reads a post without checking its signature.
func Parse(data []byte) (*Post, *Header, error) {
	if len(data) > MaxPost {
		return nil, nil, chat.Errorf(chat.TooLarge, "post: larger than %d bytes", MaxPost)
	}
	var p Post
	var h Header
	if err := canon.Unmarshal(data, &p); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post cannot be read")
	}
	if err := canon.Unmarshal(p.Header, &h); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post's header cannot be read")
	}
	return &p, &h, h.Check()
}

// Peek reads the header without checking the signature: to find the grant whose key to check it with.
func Peek(data []byte) (*Header, error) {
	_, h, err := Parse(data)
	return h, err
}

// Inspect checks the signature under the grant's key: all that the server can check of a post.
func Inspect(data []byte, grantKey ed25519.PublicKey) (*Header, error) {
	p, h, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if !canon.Verify(grantKey, DomainPost, p.Signed(), p.Signature) {
		return nil, chat.Errorf(chat.Forbidden, "the post is not signed with its grant's key")
	}
	return h, nil
}

// TakeBack asks for the deletion of a post by the same partner for the same person.
type TakeBack struct {
	_            struct{} `cbor:",toarray"`
	Version      uint64
	Host         string
	Conversation chat.ConversationID
	Epoch        uint64
	Grant        chat.GrantID
	Message      chat.MessageID
	At           int64
}

// PeekTakeBack reads a take-back without checking its signature.
func PeekTakeBack(data []byte) (*TakeBack, error) {
	var t TakeBack
	if len(data) > MaxTakeBack {
		return nil, chat.Errorf(chat.TooLarge, "take-back: larger than %d bytes", MaxTakeBack)
	}
	if err := canon.Peek(data, &t); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the take-back cannot be read")
	}
	if t.Version != Version || chat.CheckHost(t.Host) != nil {
		return nil, chat.Errorf(chat.Invalid, "the take-back is malformed")
	}
	return &t, nil
}

// OpenTakeBack checks a take-back under the grant's key.
func OpenTakeBack(data []byte, grantKey ed25519.PublicKey) (*TakeBack, error) {
	t, err := PeekTakeBack(data)
	if err != nil {
		return nil, err
	}
	if err := canon.Open(data, grantKey, DomainTakeBack, t); err != nil {
		return nil, chat.Wrap(chat.Forbidden, err, "the take-back is not signed with its grant's key")
	}
	return t, nil
}
