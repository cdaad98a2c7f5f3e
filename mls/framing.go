package mls

import (
	"bytes"
	"encoding/binary"
	"io"

	"letterlock/mls/roster"
)

// paddingBlock: the content of a PrivateMessage is padded to a multiple of so many bytes, against guesses by length.
const paddingBlock = 64

// membershipTag authenticates a member's PublicMessage (RFC 9420, section 6.2).
func (s suite) membershipTag(key secret, a *roster.AuthenticatedContent, groupContext []byte) []byte {
	return s.mac(key, membershipInput(a, groupContext))
}

func membershipInput(a *roster.AuthenticatedContent, groupContext []byte) []byte {
	var w roster.Writer
	w.Fixed(a.TBS(groupContext))
	a.EncodeAuth(&w)
	return w.Bytes()
}

// senderData is the encrypted head of a PrivateMessage (RFC 9420, section 6.3.2).
type senderData struct {
	leaf       uint32
	generation uint32
	guard      [4]byte
}

// senderDataKey depends on the ciphertext, so that no key and nonce serve twice.
func (s suite) senderDataKey(from secret, ciphertext []byte) (key, nonce secret) {
	sample := ciphertext[:min(len(ciphertext), s.HashSize)]
	return s.expand(from, "key", sample, s.KeySize), s.expand(from, "nonce", sample, s.NonceSize)
}

func senderDataAAD(m *roster.PrivateMessage) []byte {
	var w roster.Writer
	w.Opaque(m.GroupID)
	w.Uint64(m.Epoch)
	w.Uint8(uint8(m.ContentType))
	return w.Bytes()
}

func contentAAD(m *roster.PrivateMessage) []byte {
	w := roster.Writer{}
	w.Fixed(senderDataAAD(m))
	w.Opaque(m.AuthenticatedData)
	return w.Bytes()
}

func (s suite) sealSenderData(from secret, m *roster.PrivateMessage, d senderData) (err error) {
	var w roster.Writer
	w.Uint32(d.leaf)
	w.Uint32(d.generation)
	w.Fixed(d.guard[:])
	key, nonce := s.senderDataKey(from, m.Ciphertext)
	m.EncryptedSenderData, err = s.seal(key, nonce, w.Bytes(), senderDataAAD(m))
	return err
}

func (s suite) openSenderData(from secret, m *roster.PrivateMessage) (d senderData, err error) {
	key, nonce := s.senderDataKey(from, m.Ciphertext)
	plaintext, err := s.open(key, nonce, m.EncryptedSenderData, senderDataAAD(m))
	if err != nil {
		return d, err
	}
	r := roster.NewReader(plaintext)
	d.leaf, d.generation = r.Uint32(), r.Uint32()
	copy(d.guard[:], r.Fixed(4))
	return d, r.Done()
}

// guarded mixes the sender's random guard into the nonce: a second line against a nonce used twice.
func guarded(nonce secret, guard [4]byte) secret {
	n := nonce.clone()
	binary.BigEndian.PutUint32(n, binary.BigEndian.Uint32(n)^binary.BigEndian.Uint32(guard[:]))
	return n
}

// sealContent encrypts signed content with one message key (RFC 9420, section 6.3.1).
func (s suite) sealContent(a *roster.AuthenticatedContent, senderDataSecret secret, k messageKey, source io.Reader) (*roster.PrivateMessage, error) {
	c := &a.Content
	m := &roster.PrivateMessage{GroupID: c.GroupID, Epoch: c.Epoch, ContentType: c.Type, AuthenticatedData: c.AuthenticatedData}
	var w roster.Writer
	c.EncodeBody(&w)
	a.EncodeAuth(&w)
	w.Fixed(make([]byte, -len(w.Bytes())&(paddingBlock-1)))

	guard, err := random(source, 4)
	if err != nil {
		return nil, err
	}
	d := senderData{c.Sender.Index, k.generation, [4]byte(guard)}
	if m.Ciphertext, err = s.seal(k.key, guarded(k.nonce, d.guard), w.Bytes(), contentAAD(m)); err != nil {
		return nil, err
	}
	return m, s.sealSenderData(senderDataSecret, m, d)
}

// openContent decrypts with one message key. The signature is not checked here.
func (s suite) openContent(m *roster.PrivateMessage, d senderData, k messageKey) (*roster.AuthenticatedContent, error) {
	plaintext, err := s.open(k.key, guarded(k.nonce, d.guard), m.Ciphertext, contentAAD(m))
	if err != nil {
		return nil, err
	}
	a := &roster.AuthenticatedContent{WireFormat: roster.WirePrivateMessage, Content: roster.Content{
		GroupID: m.GroupID, Epoch: m.Epoch, Sender: roster.Sender{Type: roster.SenderMember, Index: d.leaf},
		AuthenticatedData: m.AuthenticatedData, Type: m.ContentType,
	}}
	r := roster.NewReader(plaintext)
	a.Content.DecodeBody(r)
	a.DecodeAuth(r)
	padding := r.Rest()
	if err := r.Done(); err != nil {
		return nil, err
	}
	if len(bytes.TrimLeft(padding, "\x00")) != 0 {
		return nil, invalid("padding that is not zero")
	}
	return a, nil
}
