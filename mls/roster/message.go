package roster

import (
	"bytes"
	"crypto/ed25519"
)

// WireFormat says what an MLSMessage carries (RFC 9420, section 6).
type WireFormat uint16

const (
	WirePublicMessage  WireFormat = 1
	WirePrivateMessage WireFormat = 2
	WireWelcome        WireFormat = 3
	WireGroupInfo      WireFormat = 4
	WireKeyPackage     WireFormat = 5
)

// ContentType says what a framed message is for.
type ContentType uint8

const (
	ContentApplication ContentType = 1
	ContentProposal    ContentType = 2
	ContentCommit      ContentType = 3
)

// SenderType says in what capacity somebody sends.
type SenderType uint8

const (
	SenderMember            SenderType = 1
	SenderExternal          SenderType = 2 // an entry of the external_senders extension
	SenderNewMemberProposal SenderType = 3
	SenderNewMemberCommit   SenderType = 4
)

// Sender is who sent a framed message. Index is the leaf of a member, or the place of an external sender.
type Sender struct {
	Type  SenderType
	Index uint32
}

func (s Sender) encode(w *Writer) {
	w.Uint8(uint8(s.Type))
	if s.Type == SenderMember || s.Type == SenderExternal {
		w.Uint32(s.Index)
	}
}

func decodeSender(r *Reader) Sender {
	s := Sender{Type: SenderType(r.Uint8())}
	switch s.Type {
	case SenderMember, SenderExternal:
		s.Index = r.Uint32()
	case SenderNewMemberProposal, SenderNewMemberCommit:
	default:
		r.Fail(malformed("sender type %d", s.Type))
	}
	return s
}

// Content is FramedContent: what is signed. The field that Type names is set.
type Content struct {
	GroupID           []byte
	Epoch             uint64
	Sender            Sender
	AuthenticatedData []byte
	Type              ContentType
	Application       []byte
	Proposal          *Proposal
	Commit            *Commit
}

func (c *Content) Encode(w *Writer) {
	w.Opaque(c.GroupID)
	w.Uint64(c.Epoch)
	c.Sender.encode(w)
	w.Opaque(c.AuthenticatedData)
	w.Uint8(uint8(c.Type))
	c.EncodeBody(w)
}

// EncodeBody writes what Type selects.
func (c *Content) EncodeBody(w *Writer) {
	switch c.Type {
	case ContentApplication:
		w.Opaque(c.Application)
	case ContentProposal:
		c.Proposal.Encode(w)
	case ContentCommit:
		c.Commit.Encode(w)
	}
}

// DecodeBody reads what Type selects.
func (c *Content) DecodeBody(r *Reader) {
	switch c.Type {
	case ContentApplication:
		c.Application = r.Opaque()
	case ContentProposal:
		c.Proposal = DecodeProposal(r)
	case ContentCommit:
		c.Commit = DecodeCommit(r)
	default:
		r.Fail(malformed("content type %d", c.Type))
	}
}

func decodeContent(r *Reader) Content {
	c := Content{
		GroupID: r.Opaque(), Epoch: r.Uint64(), Sender: decodeSender(r), AuthenticatedData: r.Opaque(), Type: ContentType(r.Uint8()),
	}
	c.DecodeBody(r)
	return c
}

// AuthenticatedContent is content with its signature and, for a commit, its confirmation tag (RFC 9420, section 6.1).
type AuthenticatedContent struct {
	WireFormat      WireFormat
	Content         Content
	Signature       []byte
	ConfirmationTag []byte // commits only
}

// EncodeAuth writes FramedContentAuthData.
func (a *AuthenticatedContent) EncodeAuth(w *Writer) {
	w.Opaque(a.Signature)
	if a.Content.Type == ContentCommit {
		w.Opaque(a.ConfirmationTag)
	}
}

// DecodeAuth reads FramedContentAuthData.
func (a *AuthenticatedContent) DecodeAuth(r *Reader) {
	a.Signature = r.Opaque()
	if a.Content.Type == ContentCommit {
		a.ConfirmationTag = r.Opaque()
	}
}

func (a *AuthenticatedContent) Encode(w *Writer) {
	w.Uint16(uint16(a.WireFormat))
	a.Content.Encode(w)
	a.EncodeAuth(w)
}

func DecodeAuthenticatedContent(r *Reader) *AuthenticatedContent {
	a := &AuthenticatedContent{WireFormat: WireFormat(r.Uint16())}
	if a.WireFormat != WirePublicMessage && a.WireFormat != WirePrivateMessage {
		r.Fail(malformed("content in wire format %d", a.WireFormat))
	}
	a.Content = decodeContent(r)
	a.DecodeAuth(r)
	return a
}

// TBS is FramedContentTBS (RFC 9420, section 6.1). groupContext is the encoding of the sender's GroupContext.
func (a *AuthenticatedContent) TBS(groupContext []byte) []byte {
	w := Writer{make([]byte, 0, 512)}
	w.Uint16(Version)
	w.Uint16(uint16(a.WireFormat))
	a.Content.Encode(&w)
	if t := a.Content.Sender.Type; t == SenderMember || t == SenderNewMemberCommit {
		w.Fixed(groupContext)
	}
	return w.b
}

// Sign signs the content.
func (a *AuthenticatedContent) Sign(s *Suite, key ed25519.PrivateKey, groupContext []byte) (err error) {
	a.Signature, err = s.SignWithLabel(key, "FramedContentTBS", a.TBS(groupContext))
	return err
}

// confirmedInput is ConfirmedTranscriptHashInput (RFC 9420, section 8.2).
func (a *AuthenticatedContent) confirmedInput() []byte {
	var w Writer
	w.Uint16(uint16(a.WireFormat))
	a.Content.Encode(&w)
	w.Opaque(a.Signature)
	return w.b
}

// ConfirmedHash is the confirmed transcript hash after the commit a.
func (a *AuthenticatedContent) ConfirmedHash(s *Suite, interimBefore []byte) []byte {
	return s.Hash(interimBefore, a.confirmedInput())
}

// InterimHash is the interim transcript hash that follows (RFC 9420, section 8.2).
func InterimHash(s *Suite, confirmed, confirmationTag []byte) []byte {
	var w Writer
	w.Opaque(confirmationTag)
	return s.Hash(confirmed, w.b)
}

// Ref is the reference by which a commit names this proposal (RFC 9420, section 5.2).
func (a *AuthenticatedContent) Ref(s *Suite) []byte {
	return s.RefHash("MLS 1.0 Proposal Reference", Marshal(a))
}

// PublicMessage is signed, not encrypted (RFC 9420, section 6.2).
type PublicMessage struct {
	AuthenticatedContent
	MembershipTag []byte // from members only
}

func (m *PublicMessage) Encode(w *Writer) {
	m.Content.Encode(w)
	m.EncodeAuth(w)
	if m.Content.Sender.Type == SenderMember {
		w.Opaque(m.MembershipTag)
	}
}

func decodePublicMessage(r *Reader) *PublicMessage {
	m := &PublicMessage{}
	m.WireFormat = WirePublicMessage
	m.Content = decodeContent(r)
	m.DecodeAuth(r)
	if m.Content.Sender.Type == SenderMember {
		m.MembershipTag = r.Opaque()
	}
	return m
}

// PrivateMessage is the envelope of an encrypted message (RFC 9420, section 6.3).
type PrivateMessage struct {
	GroupID             []byte
	Epoch               uint64
	ContentType         ContentType
	AuthenticatedData   []byte
	EncryptedSenderData []byte
	Ciphertext          []byte
}

func (m *PrivateMessage) Encode(w *Writer) {
	w.Opaque(m.GroupID)
	w.Uint64(m.Epoch)
	w.Uint8(uint8(m.ContentType))
	w.Opaque(m.AuthenticatedData)
	w.Opaque(m.EncryptedSenderData)
	w.Opaque(m.Ciphertext)
}

func decodePrivateMessage(r *Reader) *PrivateMessage {
	m := &PrivateMessage{
		GroupID: r.Opaque(), Epoch: r.Uint64(), ContentType: ContentType(r.Uint8()), AuthenticatedData: r.Opaque(),
		EncryptedSenderData: r.Opaque(), Ciphertext: r.Opaque(),
	}
	if m.ContentType < ContentApplication || m.ContentType > ContentCommit {
		r.Fail(malformed("content type %d", m.ContentType))
	}
	return m
}

// Welcome brings new members in (RFC 9420, section 12.4.3.1).
type Welcome struct {
	Suite              uint16
	Secrets            []EncryptedGroupSecrets
	EncryptedGroupInfo []byte
}

// EncryptedGroupSecrets is for the owner of one KeyPackage.
type EncryptedGroupSecrets struct {
	NewMember []byte // KeyPackage reference
	Secrets   HPKECiphertext
}

func (m *Welcome) Encode(w *Writer) {
	w.Uint16(m.Suite)
	w.Vector(func(w *Writer) {
		for _, s := range m.Secrets {
			w.Opaque(s.NewMember)
			s.Secrets.Encode(w)
		}
	})
	w.Opaque(m.EncryptedGroupInfo)
}

func decodeWelcome(r *Reader) *Welcome {
	m := &Welcome{Suite: r.Uint16()}
	r.Vector(func(r *Reader) {
		m.Secrets = append(m.Secrets, EncryptedGroupSecrets{r.Opaque(), DecodeHPKECiphertext(r)})
	})
	m.EncryptedGroupInfo = r.Opaque()
	return m
}

// Message is MLSMessage; the field that WireFormat names is set.
type Message struct {
	WireFormat WireFormat
	Public     *PublicMessage
	Private    *PrivateMessage
	Welcome    *Welcome
	GroupInfo  *GroupInfo
	KeyPackage *KeyPackage
}

func (m *Message) Encode(w *Writer) {
	w.Uint16(Version)
	w.Uint16(uint16(m.WireFormat))
	switch m.WireFormat {
	case WirePublicMessage:
		m.Public.Encode(w)
	case WirePrivateMessage:
		m.Private.Encode(w)
	case WireWelcome:
		m.Welcome.Encode(w)
	case WireGroupInfo:
		m.GroupInfo.Encode(w)
	case WireKeyPackage:
		m.KeyPackage.Encode(w)
	}
}

// DecodeMessage reads one whole MLSMessage. The result does not share memory with b.
func DecodeMessage(b []byte) (*Message, error) {
	if len(b) > MaxMessageSize {
		return nil, malformed("message of %d bytes", len(b))
	}
	r := NewReader(bytes.Clone(b))
	decodeVersion(r)
	m := &Message{WireFormat: WireFormat(r.Uint16())}
	switch m.WireFormat {
	case WirePublicMessage:
		m.Public = decodePublicMessage(r)
	case WirePrivateMessage:
		m.Private = decodePrivateMessage(r)
	case WireWelcome:
		m.Welcome = decodeWelcome(r)
	case WireGroupInfo:
		m.GroupInfo = DecodeGroupInfo(r)
	case WireKeyPackage:
		m.KeyPackage = DecodeKeyPackage(r)
	default:
		r.Fail(malformed("wire format %d", m.WireFormat))
	}
	if err := r.Done(); err != nil {
		return nil, err
	}
	return m, nil
}

func decodeVersion(r *Reader) {
	if v := r.Uint16(); v != Version {
		r.Fail(unsupported("protocol version %d", v))
	}
}
