package roster

import "crypto/ed25519"

// GroupContext is what all members agree on in one epoch (RFC 9420, section 8.1).
type GroupContext struct {
	Suite         uint16
	GroupID       []byte
	Epoch         uint64
	TreeHash      []byte
	ConfirmedHash []byte // confirmed transcript hash
	Extensions    Extensions
}

func (c *GroupContext) Encode(w *Writer) {
	w.Uint16(Version)
	w.Uint16(c.Suite)
	w.Opaque(c.GroupID)
	w.Uint64(c.Epoch)
	w.Opaque(c.TreeHash)
	w.Opaque(c.ConfirmedHash)
	c.Extensions.Encode(w)
}

func DecodeGroupContext(r *Reader) GroupContext {
	decodeVersion(r)
	return GroupContext{r.Uint16(), r.Opaque(), r.Uint64(), r.Opaque(), r.Opaque(), DecodeExtensions(r)}
}

// GroupInfo is a member's signed statement about an epoch (RFC 9420, section 12.4.3).
type GroupInfo struct {
	Context         GroupContext
	Extensions      Extensions // of the GroupInfo, not of the group
	ConfirmationTag []byte
	Signer          uint32 // leaf
	Signature       []byte
}

func (g *GroupInfo) encodeUnsigned(w *Writer) {
	g.Context.Encode(w)
	g.Extensions.Encode(w)
	w.Opaque(g.ConfirmationTag)
	w.Uint32(g.Signer)
}

func (g *GroupInfo) Encode(w *Writer) {
	g.encodeUnsigned(w)
	w.Opaque(g.Signature)
}

func DecodeGroupInfo(r *Reader) *GroupInfo {
	return &GroupInfo{DecodeGroupContext(r), DecodeExtensions(r), r.Opaque(), r.Uint32(), r.Opaque()}
}

func (g *GroupInfo) tbs() []byte {
	var w Writer
	g.encodeUnsigned(&w)
	return w.b
}

// Sign signs as the member at Signer.
func (g *GroupInfo) Sign(s *Suite, key ed25519.PrivateKey) (err error) {
	g.Signature, err = s.SignWithLabel(key, "GroupInfoTBS", g.tbs())
	return err
}

// Verify checks the signature under the signer's key.
func (g *GroupInfo) Verify(s *Suite, key []byte) error {
	return s.VerifyWithLabel(key, "GroupInfoTBS", g.tbs(), g.Signature)
}
