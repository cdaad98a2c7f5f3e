package roster

import "slices"

// Extension types (RFC 9420, section 17.3, and our own).
const (
	ExtApplicationID        uint16 = 0x0001
	ExtRatchetTree          uint16 = 0x0002
	ExtRequiredCapabilities uint16 = 0x0003
	ExtExternalPub          uint16 = 0x0004
	ExtExternalSenders      uint16 = 0x0005
	ExtLastResort           uint16 = 0x000A // in a KeyPackage that may be used more than once; empty
	ExtLetterlock           uint16 = 0xF1A0 // ours, in the GroupContext; its content is not this package's concern
)

// Extension is one typed blob; its meaning depends on its type and on where it stands.
type Extension struct {
	Type uint16
	Data []byte
}

// Extensions is a list with at most one extension of a type (RFC 9420, section 13.4).
type Extensions []Extension

// Lookup finds the extension of one type.
func (e Extensions) Lookup(typ uint16) ([]byte, bool) {
	for _, x := range e {
		if x.Type == typ {
			return x.Data, true
		}
	}
	return nil, false
}

// Encode writes Extension extensions<V>.
func (e Extensions) Encode(w *Writer) {
	w.Vector(func(w *Writer) {
		for _, x := range e {
			w.Uint16(x.Type)
			w.Opaque(x.Data)
		}
	})
}

// DecodeExtensions reads Extension extensions<V>.
func DecodeExtensions(r *Reader) Extensions {
	var e Extensions
	r.Vector(func(r *Reader) { e = append(e, Extension{r.Uint16(), r.Opaque()}) })
	return e
}

// checkDistinct refuses two extensions of one type.
func (e Extensions) checkDistinct() error {
	seen := make(map[uint16]bool, len(e))
	for _, x := range e {
		if seen[x.Type] {
			return invalid("extension %#04x twice", x.Type)
		}
		seen[x.Type] = true
	}
	return nil
}

// RequiredCapabilities is what every member must support (RFC 9420, section 11.1).
type RequiredCapabilities struct {
	Extensions, Proposals, Credentials []uint16
}

// Extension wraps it for a GroupContext.
func (c RequiredCapabilities) Extension() Extension {
	var w Writer
	w.Uint16s(c.Extensions)
	w.Uint16s(c.Proposals)
	w.Uint16s(c.Credentials)
	return Extension{ExtRequiredCapabilities, w.b}
}

func decodeRequiredCapabilities(b []byte) (c RequiredCapabilities, err error) {
	r := NewReader(b)
	c.Extensions, c.Proposals, c.Credentials = r.Uint16s(), r.Uint16s(), r.Uint16s()
	return c, r.Done()
}

// ExternalSender may propose without being a member (RFC 9420, section 12.1.8.1). Here: the server.
type ExternalSender struct {
	SignatureKey []byte
	Credential   Credential
}

// ExternalSendersExtension wraps the list for a GroupContext. A sender's index is its place in the list.
func ExternalSendersExtension(senders ...ExternalSender) Extension {
	var w Writer
	w.Vector(func(w *Writer) {
		for _, s := range senders {
			w.Opaque(s.SignatureKey)
			s.Credential.Encode(w)
		}
	})
	return Extension{ExtExternalSenders, w.b}
}

func decodeExternalSenders(b []byte) (senders []ExternalSender, err error) {
	r := NewReader(b)
	r.Vector(func(r *Reader) {
		senders = append(senders, ExternalSender{r.Opaque(), DecodeCredential(r)})
	})
	return senders, r.Done()
}

// checkContextExtensions judges the extensions of a GroupContext by themselves: one of a type, and ours readable.
func checkContextExtensions(e Extensions) error {
	if err := e.checkDistinct(); err != nil {
		return err
	}
	for _, x := range e {
		var err error
		switch x.Type {
		case ExtRequiredCapabilities:
			_, err = decodeRequiredCapabilities(x.Data)
		case ExtExternalSenders:
			_, err = decodeExternalSenders(x.Data)
		case ExtRatchetTree, ExtExternalPub, ExtLastResort:
			err = invalid("extension %#04x in a group context", x.Type)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// defaultExtension tells whether every client supports the type without listing it (RFC 9420, section 7.2).
func defaultExtension(typ uint16) bool { return typ >= ExtApplicationID && typ <= ExtExternalSenders }

// defaultProposal likewise for proposals.
func defaultProposal(typ uint16) bool {
	return typ >= 1 && typ <= uint16(ProposalGroupContextExtensions)
}

// supports tells whether a leaf's capabilities cover one group's extensions and requirements.
func (c *Capabilities) supports(suite uint16, e Extensions, required RequiredCapabilities) error {
	if !slices.Contains(c.Versions, Version) || !slices.Contains(c.Suites, suite) {
		return invalid("leaf does not support the group's version and suite")
	}
	for _, x := range e {
		if !defaultExtension(x.Type) && !slices.Contains(c.Extensions, x.Type) {
			return invalid("leaf does not support extension %#04x", x.Type)
		}
	}
	for _, typ := range required.Extensions {
		if !defaultExtension(typ) && !slices.Contains(c.Extensions, typ) {
			return invalid("leaf lacks required extension %#04x", typ)
		}
	}
	for _, typ := range required.Proposals {
		if !defaultProposal(typ) && !slices.Contains(c.Proposals, typ) {
			return invalid("leaf lacks required proposal %#04x", typ)
		}
	}
	for _, typ := range required.Credentials {
		if !slices.Contains(c.Credentials, typ) {
			return invalid("leaf lacks required credential %#04x", typ)
		}
	}
	return nil
}
