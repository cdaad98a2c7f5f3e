package slot

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot/envelope"
)

func curve() ecdh.Curve { return ecdh.X25519() }

// The outside of posts and take-backs stands in package envelope, which the server links; whoever seals or opens finds it here.
type (
	Header   = envelope.Header
	Labels   = envelope.Labels
	TakeBack = envelope.TakeBack
	post     = envelope.Post
)

func sealInfo(header []byte) []byte { return append([]byte(domainSeal+"\x00"), header...) }

// Seal writes a post: content sealed to the slot, the whole signed with the grant's key.
func Seal(to PublicKey, h Header, content []byte, grantKey ed25519.PrivateKey) ([]byte, error) {
	h.Version = version
	if len(content) > MaxContent {
		return nil, chat.Errorf(chat.TooLarge, "the message is larger than %d bytes", MaxContent)
	}
	if err := h.Check(); err != nil {
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
	p.Signature = canon.Sign(grantKey, domainPost, p.Signed())
	return canon.Marshal(p)
}

// Peek reads the header without checking the signature: to find the grant whose key to check it with.
func Peek(data []byte) (*Header, error) { return envelope.Peek(data) }

// Inspect checks the signature under the grant's key, and opens nothing.
func Inspect(data []byte, grantKey ed25519.PublicKey) (*Header, error) {
	return envelope.Inspect(data, grantKey)
}

// Open checks the signature and opens the post with the epoch's key. The caller compares header and grant with the thread, and
// the message id with the content.
func Open(data []byte, key PrivateKey, grantKey ed25519.PublicKey) (*Header, []byte, error) {
	h, err := Inspect(data, grantKey)
	if err != nil {
		return nil, nil, err
	}
	p, _, err := envelope.Parse(data)
	if err != nil {
		return nil, nil, err
	}
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

// SignTakeBack signs a take-back with the grant's key.
func SignTakeBack(t TakeBack, grantKey ed25519.PrivateKey) ([]byte, error) {
	t.Version = version
	return canon.Seal(grantKey, domainTakeBack, &t)
}

// PeekTakeBack reads a take-back without checking its signature.
func PeekTakeBack(data []byte) (*TakeBack, error) { return envelope.PeekTakeBack(data) }

// OpenTakeBack checks a take-back under the grant's key.
func OpenTakeBack(data []byte, grantKey ed25519.PublicKey) (*TakeBack, error) {
	return envelope.OpenTakeBack(data, grantKey)
}
