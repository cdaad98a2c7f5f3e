package roster

import (
	"math"
	"time"
)

// InspectKeyPackage verifies an MLSMessage that carries a KeyPackage: both signatures, the keys, and its lifetime if now is
// not zero (RFC 9420, section 10.1).
func InspectKeyPackage(msg []byte, now time.Time) (*KeyPackageInfo, error) {
	m, err := DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != WireKeyPackage {
		return nil, malformed("wire format %d is no key package", m.WireFormat)
	}
	s, err := SuiteByID(m.KeyPackage.Suite)
	if err != nil {
		return nil, err
	}
	if err := m.KeyPackage.check(s, now); err != nil {
		return nil, err
	}
	info := keyPackageInfo(s, m.KeyPackage)
	return &info, nil
}

func keyPackageInfo(s *Suite, k *KeyPackage) KeyPackageInfo {
	_, lastResort := k.Extensions.Lookup(ExtLastResort)
	return KeyPackageInfo{
		Ref: k.Ref(s), Identity: k.Leaf.Credential.Identity, SignatureKey: k.Leaf.SignatureKey, InitKey: k.InitKey,
		EncryptionKey: k.Leaf.EncryptionKey, NotBefore: unixTime(k.Leaf.NotBefore), NotAfter: unixTime(k.Leaf.NotAfter),
		LastResort: lastResort, Capabilities: k.Leaf.Capabilities, Extensions: k.Extensions, LeafExts: k.Leaf.Extensions,
	}
}

// unixTime is a lifetime's bound; those beyond the year 9999 become its last second.
func unixTime(seconds uint64) time.Time {
	const last = 253402300799
	return time.Unix(int64(min(seconds, last, math.MaxInt64)), 0).UTC()
}

// InspectWelcome lists the references of the KeyPackages that an MLSMessage with a Welcome is for.
func InspectWelcome(msg []byte) (refs [][]byte, err error) {
	m, err := DecodeMessage(msg)
	if err != nil {
		return nil, err
	}
	if m.WireFormat != WireWelcome {
		return nil, malformed("wire format %d is no welcome", m.WireFormat)
	}
	for _, s := range m.Welcome.Secrets {
		refs = append(refs, s.NewMember)
	}
	return refs, nil
}

// MessageInfo is what the outside of a framed message tells. Nothing of it is verified.
type MessageInfo struct {
	WireFormat        WireFormat
	GroupID           []byte
	Epoch             uint64
	ContentType       ContentType
	Sender            Sender // PublicMessage only: a PrivateMessage hides it
	AuthenticatedData []byte
}

// InspectMessage reads the outside of an MLSMessage that carries a PublicMessage or PrivateMessage.
func InspectMessage(msg []byte) (MessageInfo, error) {
	m, err := DecodeMessage(msg)
	if err != nil {
		return MessageInfo{}, err
	}
	switch m.WireFormat {
	case WirePublicMessage:
		c := &m.Public.Content
		return MessageInfo{m.WireFormat, c.GroupID, c.Epoch, c.Type, c.Sender, c.AuthenticatedData}, nil
	case WirePrivateMessage:
		p := m.Private
		return MessageInfo{m.WireFormat, p.GroupID, p.Epoch, p.ContentType, Sender{}, p.AuthenticatedData}, nil
	}
	return MessageInfo{}, malformed("wire format %d is not framed", m.WireFormat)
}
