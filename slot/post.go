package slot

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"

	"letterlock/canon"
	"letterlock/chat"
)

func curve() ecdh.Curve { return ecdh.X25519() }

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

type post struct {
	_          struct{} `cbor:",toarray"`
	Header     []byte
	KEMOutput  []byte
	Ciphertext []byte
	Signature  []byte
}

// signed is what the grant key signs: all of the post but the signature.
func (p *post) signed() []byte {
	return canon.MustMarshal(struct {
		_                             struct{} `cbor:",toarray"`
		Header, KEMOutput, Ciphertext []byte
	}{Header: p.Header, KEMOutput: p.KEMOutput, Ciphertext: p.Ciphertext})
}

func sealInfo(header []byte) []byte { return append([]byte(domainSeal+"\x00"), header...) }

// Seal writes a post: content sealed to the slot, the whole signed with the grant's key.
func Seal(to PublicKey, h Header, content []byte, grantKey ed25519.PrivateKey) ([]byte, error) {
	h.Version = version
	if len(content) > MaxContent {
		return nil, chat.Errorf(chat.TooLarge, "the message is larger than %d bytes", MaxContent)
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	pk, err := kem().NewPublicKey(to[:])
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the slot's key is malformed")
	}
	p := post{Header: canon.MustMarshal(h)}
	enc, sender, err := hpke.NewSender(pk, kdf(), aead(), sealInfo(p.Header))
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the slot's key cannot be sealed to")
	}
	p.KEMOutput = enc
	if p.Ciphertext, err = sender.Seal(p.Header, content); err != nil {
		return nil, chat.Wrap(chat.Internal, err, "the post could not be sealed")
	}
	p.Signature = canon.Sign(grantKey, domainPost, p.signed())
	return canon.Marshal(p)
}

func (h *Header) check() error {
	if h.Version != version {
		return chat.Errorf(chat.Incompatible, "post: version %d is not known here", h.Version)
	}
	if chat.CheckHost(h.Host) != nil || h.Conversation.IsZero() || h.Grant.IsZero() || h.At <= 0 ||
		len(h.Labels.Interface) > maxLabel || len(h.Labels.Surface) > maxLabel || len(h.Labels.Variant) > maxLabel {
		return chat.Errorf(chat.Invalid, "post: a field of the header is missing or malformed")
	}
	return nil
}

func parse(data []byte) (*post, *Header, error) {
	if len(data) > MaxPost {
		return nil, nil, chat.Errorf(chat.TooLarge, "post: larger than %d bytes", MaxPost)
	}
	var p post
	var h Header
	if err := canon.Unmarshal(data, &p); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post cannot be read")
	}
	if err := canon.Unmarshal(p.Header, &h); err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post's header cannot be read")
	}
	return &p, &h, h.check()
}

// Peek reads the header without checking the signature: to find the grant whose key to check it with.
func Peek(data []byte) (*Header, error) {
	_, h, err := parse(data)
	return h, err
}

// Inspect checks the signature under the grant's key: all that the server can check of a post.
func Inspect(data []byte, grantKey ed25519.PublicKey) (*Header, error) {
	p, h, err := parse(data)
	if err != nil {
		return nil, err
	}
	if !canon.Verify(grantKey, domainPost, p.signed(), p.Signature) {
		return nil, chat.Errorf(chat.Forbidden, "the post is not signed with its grant's key")
	}
	return h, nil
}

// Open checks the signature and opens the post with the epoch's key. The caller compares header and grant with the thread, and
// the message id with the content.
func Open(data []byte, key PrivateKey, grantKey ed25519.PublicKey) (*Header, []byte, error) {
	h, err := Inspect(data, grantKey)
	if err != nil {
		return nil, nil, err
	}
	p, _, _ := parse(data)
	r, err := hpke.NewRecipient(p.KEMOutput, key.key, kdf(), aead(), sealInfo(p.Header))
	if err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post is not sealed to this slot")
	}
	content, err := r.Open(p.Header, p.Ciphertext)
	if err != nil {
		return nil, nil, chat.Wrap(chat.Invalid, err, "the post is not sealed to this slot")
	}
	return h, content, nil
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

// SignTakeBack signs a take-back with the grant's key.
func SignTakeBack(t TakeBack, grantKey ed25519.PrivateKey) ([]byte, error) {
	t.Version = version
	return canon.Seal(grantKey, domainTakeBack, &t)
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
	if t.Version != version || chat.CheckHost(t.Host) != nil {
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
	if err := canon.Open(data, grantKey, domainTakeBack, t); err != nil {
		return nil, chat.Wrap(chat.Forbidden, err, "the take-back is not signed with its grant's key")
	}
	return t, nil
}
