// Package mimi is message content: what a message says, as the bytes that are encrypted. The format is MIMI content
// (draft-ietf-mimi-content-08) with the limits of spec/content.md and a card of our own for recommendations.
//
// Devices and agents use it: Text, Reply, Edit, Delete, Reaction and Recommendation make a Content, Marshal its bytes and ID its
// name; on the other side Open reads it, View says what to show, and a Timeline folds edits, deletes and reactions into a
// conversation. Encryption is the business of mls and slot; who sent a message is what they say, never what the content says.
//
// It refuses bytes that are not deterministic CBOR, contents above the limits, contents that name another sender or room than
// their envelope, and edits and deletes by anybody but the original sender. It fetches nothing and does no I/O.
package mimi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"strings"

	"github.com/fxamacker/cbor/v2"

	"letterlock/chat"
)

// The limits of the format, in bytes where nothing else is said.
const (
	MaxContent     = 64 << 10
	MaxText        = 16 << 10 // of a single part of type text/...
	MaxCard        = 4 << 10
	MaxReaction    = 64
	MaxParts       = 32 // in all levels together
	MaxDepth       = 4  // levels of parts, and of an extension
	MaxName        = 255
	MaxURL         = 2 << 10
	MaxDescription = 1 << 10
	MaxExtensions  = 32
	MaxExtension   = 4 << 10 // of an extension's value
	maxInteger     = 1<<53 - 1
)

// The content types that we write.
const (
	PlainText = "text/plain;charset=utf-8"
	Markdown  = "text/markdown;variant=GFM-MIMI"
	CardType  = "application/vnd.letterlock.card+cbor"
)

// The extensions that the draft registers.
const (
	ExtensionSender int64 = 1 // a URI
	ExtensionRoom   int64 = 2 // a URI
)

// Content is a MIMI content (draft section 4.1).
type Content struct {
	_          struct{} `cbor:",toarray"`
	Salt       [16]byte // random
	Replaces   *chat.MessageID
	TopicID    []byte
	Expires    *Expiration
	InReplyTo  *chat.MessageID
	Extensions map[any]cbor.RawMessage // keys are int64 or string
	Body       Part
}

// Expiration is when a message should be forgotten: seconds after it was read, or seconds since 1970.
type Expiration struct {
	_        struct{} `cbor:",toarray"`
	Relative bool
	Time     uint32
}

// Disposition is what a part is for.
type Disposition uint8

// The dispositions of the draft.
const (
	Unspecified Disposition = iota
	Render
	ReactionPart
	Profile
	Inline
	Icon
	Attachment
	Session
	Preview
)

// Cardinality is how a part holds its content.
type Cardinality uint8

// The cardinalities of the draft.
const (
	Nothing Cardinality = iota
	Single
	External
	Multi
)

// Semantics is what to do with the parts of a multi part.
type Semantics uint8

// The semantics of the draft.
const (
	ChooseOne Semantics = iota
	SingleUnit
	ProcessAll
)

// Part is a NestedPart. Its cardinality says which of the later fields it has.
type Part struct {
	Disposition Disposition
	Language    string // empty, or language tags (RFC 5646) with commas between
	Cardinality Cardinality
	ContentType string    // of single and external
	Content     []byte    // of single
	Reference   Reference // of external
	Semantics   Semantics // of multi
	Parts       []Part    // of multi
}

// Reference is where the content of an external part lies and how to open it.
type Reference struct {
	URL         string
	Expires     uint32 // seconds since 1970; 0 never
	Size        uint64 // bytes; 0 unknown
	EncAlg      uint16 // IANA AEAD number; 0 none
	Key         []byte
	Nonce       []byte
	AAD         []byte
	HashAlg     uint8 // IANA named information hash; 0 none
	Hash        []byte
	Description string
	Filename    string
}

// The four forms of a part on the wire.
type (
	head struct {
		Disposition Disposition
		Language    string
		Cardinality Cardinality
	}
	nothingPart struct {
		_ struct{} `cbor:",toarray"`
		head
	}
	singlePart struct {
		_ struct{} `cbor:",toarray"`
		head
		ContentType string
		Content     []byte
	}
	externalPart struct {
		_ struct{} `cbor:",toarray"`
		head
		ContentType string
		Reference
	}
	multiPart struct {
		_ struct{} `cbor:",toarray"`
		head
		Semantics Semantics
		Parts     []Part
	}
)

// MarshalCBOR writes the part in the form of its cardinality.
func (p Part) MarshalCBOR() ([]byte, error) {
	h := head{p.Disposition, p.Language, p.Cardinality}
	switch p.Cardinality {
	case Nothing:
		return enc.Marshal(nothingPart{head: h})
	case Single:
		return enc.Marshal(singlePart{head: h, ContentType: p.ContentType, Content: p.Content})
	case External:
		return enc.Marshal(externalPart{head: h, ContentType: p.ContentType, Reference: p.Reference})
	case Multi:
		return enc.Marshal(multiPart{head: h, Semantics: p.Semantics, Parts: p.Parts})
	}
	return nil, errCardinality
}

// UnmarshalCBOR reads any of the four forms. The decoder has limited the nesting of data before it gets here.
func (p *Part) UnmarshalCBOR(data []byte) error {
	var fields []cbor.RawMessage
	if err := dec.Unmarshal(data, &fields); err != nil {
		return err
	}
	if len(fields) < 3 {
		return errCardinality
	}
	var c Cardinality
	if err := dec.Unmarshal(fields[2], &c); err != nil {
		return err
	}
	switch c {
	case Nothing:
		var w nothingPart
		err := dec.Unmarshal(data, &w)
		*p = part(w.head)
		return err
	case Single:
		var w singlePart
		err := dec.Unmarshal(data, &w)
		*p = part(w.head)
		p.ContentType, p.Content = w.ContentType, w.Content
		return err
	case External:
		var w externalPart
		err := dec.Unmarshal(data, &w)
		*p = part(w.head)
		p.ContentType, p.Reference = w.ContentType, w.Reference
		return err
	case Multi:
		var w multiPart
		err := dec.Unmarshal(data, &w)
		*p = part(w.head)
		p.Semantics, p.Parts = w.Semantics, w.Parts
		return err
	}
	return errCardinality
}

func part(h head) Part {
	return Part{Disposition: h.Disposition, Language: h.Language, Cardinality: h.Cardinality}
}

var (
	errCardinality      = errors.New("mimi: unknown cardinality")
	errNotDeterministic = errors.New("mimi: not the deterministic encoding")
)

var (
	enc = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		ShortestFloat: cbor.ShortestFloat16,
		NaNConvert:    cbor.NaNConvert7e00,
		InfConvert:    cbor.InfConvertFloat16,
		BigIntConvert: cbor.BigIntConvertShortest,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
	}.EncMode())
	dec = must(cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		IntDec:           cbor.IntDecConvertSignedOrBigInt,
		MaxNestedLevels:  2 * MaxDepth, // content, then a part and a list for each level but the last
		MaxArrayElements: MaxParts,
		MaxMapPairs:      MaxExtensions,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Marshal checks the limits and writes c. Errors are chat.TooLarge and chat.Invalid.
func Marshal(c Content) ([]byte, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	data, err := enc.Marshal(c)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "message content: cannot be encoded")
	}
	if len(data) > MaxContent {
		return nil, tooLarge("message content", MaxContent)
	}
	return data, nil
}

// Unmarshal reads a content and refuses what Marshal would not have written. Errors are chat.TooLarge and chat.Invalid.
func Unmarshal(data []byte) (Content, error) {
	if len(data) > MaxContent {
		return Content{}, tooLarge("message content", MaxContent)
	}
	var c Content
	if err := dec.Unmarshal(data, &c); err != nil {
		return Content{}, chat.Wrap(chat.Invalid, err, "message content: malformed")
	}
	if err := check(c); err != nil {
		return Content{}, err
	}
	again, err := enc.Marshal(c)
	if err != nil || !bytes.Equal(again, data) {
		return Content{}, chat.Wrap(chat.Invalid, errNotDeterministic, "message content: malformed")
	}
	return c, nil
}

// ID names a message: what its sender put into a room, as encoded (draft section 3.3). The URIs have at most 65,535 bytes; others
// give the zero ID, which names nothing.
func ID(sender, room string, content []byte, salt [16]byte) (id chat.MessageID) {
	if len(sender) > math.MaxUint16 || len(room) > math.MaxUint16 {
		return id
	}
	h := sha256.New()
	for _, uri := range []string{sender, room} {
		h.Write(binary.BigEndian.AppendUint16(nil, uint16(len(uri))))
		h.Write([]byte(uri))
	}
	h.Write(content)
	h.Write(salt[:])
	id[0] = 1 // SHA-256 in IANA's registry of named information hashes
	copy(id[1:], h.Sum(nil))
	return id
}

// Message is a content with who sent it.
type Message struct {
	ID      chat.MessageID
	Sender  string // URI: of an account, or of an agent
	Content Content
}

// Open reads the content of a message that sender put into room. Both are what the envelope proved; a content that names others is
// chat.Tampered.
func Open(data []byte, sender, room string) (Message, error) {
	c, err := Unmarshal(data)
	if err != nil {
		return Message{}, err
	}
	for key, proved := range map[int64]string{ExtensionSender: sender, ExtensionRoom: room} {
		raw, named := c.Extensions[key]
		if !named {
			continue
		}
		var uri string
		if err := dec.Unmarshal(raw, &uri); err != nil || uri != proved {
			return Message{}, chat.Wrap(chat.Tampered, err, "message content: it names another sender or room than its envelope")
		}
	}
	return Message{ID: ID(sender, room, data, c.Salt), Sender: sender, Content: c}, nil
}

// check enforces the limits that hold for both directions. The size of the whole is not its part.
func check(c Content) error {
	if len(c.TopicID) > MaxName {
		return tooLarge("topic id", MaxName)
	}
	if len(c.Extensions) > MaxExtensions {
		return chat.Errorf(chat.TooLarge, "message content: more than %d extensions", MaxExtensions)
	}
	for key, value := range c.Extensions {
		if err := checkExtension(key, value); err != nil {
			return err
		}
	}
	parts := 0
	return checkPart(c.Body, 1, &parts)
}

func checkPart(p Part, depth int, parts *int) error {
	*parts++
	if depth > MaxDepth || *parts > MaxParts {
		return chat.Errorf(chat.TooLarge, "message content: more than %d levels or %d parts", MaxDepth, MaxParts)
	}
	if len(p.Language) > MaxName || len(p.ContentType) > MaxName {
		return tooLarge("language or content type", MaxName)
	}
	switch p.Cardinality {
	case Nothing:
		return nil
	case Single:
		if limit := sizeOf(p.ContentType); len(p.Content) > limit {
			return tooLarge("a part", limit)
		}
		return nil
	case External:
		return checkReference(p.Reference)
	case Multi:
		return checkParts(p, depth, parts)
	}
	return chat.Wrap(chat.Invalid, errCardinality, "message content: malformed")
}

func checkParts(p Part, depth int, parts *int) error {
	if p.Semantics > ProcessAll || len(p.Parts) < 2 {
		return chat.Errorf(chat.Invalid, "message content: a multi part has two parts at least, and semantics of 0 to 2")
	}
	for _, q := range p.Parts {
		if err := checkPart(q, depth+1, parts); err != nil {
			return err
		}
	}
	return nil
}

// sizeOf is how long the content of a single part of a type may be.
func sizeOf(contentType string) int {
	t := mediaType(contentType)
	switch {
	case t == CardType:
		return MaxCard
	case strings.HasPrefix(t, "text/"):
		return MaxText
	}
	return MaxContent
}

func checkReference(r Reference) error {
	if len(r.URL) > MaxURL {
		return tooLarge("url", MaxURL)
	}
	if len(r.Description) > MaxDescription {
		return tooLarge("description", MaxDescription)
	}
	if max(len(r.Filename), len(r.Key), len(r.Nonce), len(r.AAD), len(r.Hash)) > MaxName {
		return tooLarge("file name, key, nonce, aad or hash", MaxName)
	}
	return nil
}

func checkExtension(key any, value cbor.RawMessage) error {
	if !soundKey(key) {
		return chat.Errorf(chat.Invalid, "message content: an extension's key is an integer below 2^53 or a text of 1 to %d bytes", MaxName)
	}
	if len(value) > MaxExtension {
		return tooLarge("an extension", MaxExtension)
	}
	var v any
	if err := dec.Unmarshal(value, &v); err != nil {
		return chat.Wrap(chat.Invalid, err, "message content: malformed extension")
	}
	if !soundValue(v, 2) {
		return chat.Errorf(chat.Invalid, "message content: an extension is nested too deep or has keys that are not integers, texts or bytes")
	}
	if again, err := enc.Marshal(v); err != nil || !bytes.Equal(again, value) {
		return chat.Wrap(chat.Invalid, errNotDeterministic, "message content: malformed extension")
	}
	return nil
}

// soundKey reports whether a key may stand in the map of extensions.
func soundKey(key any) bool {
	switch k := key.(type) {
	case int64:
		return k >= -maxInteger && k <= maxInteger
	case string:
		return len(k) >= 1 && len(k) <= MaxName
	}
	return false
}

// soundValue checks the levels and keys of a decoded extension (draft sections 6.2 and 6.3). The map of extensions is level 1.
func soundValue(v any, level int) bool {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if !soundValue(item, level+1) {
				return false
			}
		}
	case map[any]any:
		for key, item := range v {
			switch k := key.(type) {
			case int64:
				if k < -maxInteger || k > maxInteger {
					return false
				}
			case string, cbor.ByteString:
			default:
				return false
			}
			if !soundValue(item, level+1) {
				return false
			}
		}
	case cbor.Tag:
		if !soundValue(v.Content, level+1) {
			return false
		}
	default:
		return true
	}
	return level <= MaxDepth
}

// mediaType is a content type without its parameters, in lower case.
func mediaType(contentType string) string {
	t, _, _ := strings.Cut(contentType, ";")
	return strings.ToLower(strings.TrimSpace(t))
}

func tooLarge(what string, limit int) error {
	return chat.Errorf(chat.TooLarge, "message content: %s is larger than %d bytes", what, limit)
}
