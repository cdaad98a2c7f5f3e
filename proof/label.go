package proof

import (
	"bytes"
	"encoding/binary"

	vrf "filippo.io/mostly-harmless/vrf-r255"

	"letterlock/canon"
	"letterlock/chat"
)

// Chain is one of the two chains of records for each account and partner.
type Chain uint8

// The chains.
const (
	Control Chain = 1 // what the account's devices signed; numbered by the device
	Access  Chain = 2 // what the server says was done; numbered by the server
)

// String is the chain's name in the API and on the command line.
func (c Chain) String() string {
	switch c {
	case Control:
		return "control"
	case Access:
		return "access"
	}
	return "unknown"
}

// ParseChain reads a chain's name.
func ParseChain(s string) (Chain, error) {
	switch s {
	case "control":
		return Control, nil
	case "access":
		return Access, nil
	}
	return 0, invalid("a chain is control or access")
}

// Place is where a record stands: what its label is computed from.
type Place struct {
	_       struct{} `cbor:",toarray"`
	Account chat.AccountID
	Partner string
	Chain   Chain
	N       uint64
}

func (p Place) check() error {
	if p.Account.IsZero() {
		return invalid("record: the account is missing")
	}
	if p.Chain != Control && p.Chain != Access {
		return chat.Errorf(chat.Incompatible, "record: chain %d is not known here", p.Chain)
	}
	return chat.CheckPartner(p.Partner)
}

// alpha is the input of the VRF.
func (p Place) alpha() []byte {
	return append([]byte(domainLabel+"\x00"), canon.MustMarshal(p)...)
}

// KeyPlace is where an entry of a key chain stands: what its label is computed from (spec/map.md section 5).
type KeyPlace struct {
	_      struct{} `cbor:",toarray"`
	Handle string
	N      uint64
}

func (p KeyPlace) alpha() []byte {
	return append([]byte(domainKey+"\x00"), canon.MustMarshal(p)...)
}

// Labelled is what has a label under the VRF: Place or KeyPlace.
type Labelled interface{ alpha() []byte }

// PublicLabel is the label of the k-th public entry of a log.
func PublicLabel(k uint64) Hash {
	return canon.Hash(domainPublic, binary.BigEndian.AppendUint64(nil, k))
}

// VRFKey is the public key under which labels are proven.
type VRFKey struct{ key *vrf.PublicKey }

// VRFKeySize is the length of a VRF public key in bytes, VRFProofSize that of a proof.
const (
	VRFKeySize   = 32
	VRFProofSize = 80
)

// NewVRFKey reads a public key. The identity is refused: under it every output is known (RFC 9381 section 5.4.5).
func NewVRFKey(data []byte) (VRFKey, error) {
	if len(data) != VRFKeySize || bytes.Equal(data, make([]byte, VRFKeySize)) {
		return VRFKey{}, invalid("the VRF key is malformed")
	}
	key, err := vrf.NewPublicKey(data)
	if err != nil {
		return VRFKey{}, chat.Wrap(chat.Invalid, err, "the VRF key is malformed")
	}
	return VRFKey{key}, nil
}

// Bytes is the key's encoding.
func (k VRFKey) Bytes() []byte { return k.key.Bytes() }

// Label is the VRF's answer for a place: the label that stands in the leaf and the link that blinds prev, with the proof of both.
type Label struct {
	Label, Link [32]byte
	Proof       [VRFProofSize]byte
}

// ProveLabel computes a place's label. It is deterministic, and takes some 150 us.
func ProveLabel(key *vrf.PrivateKey, p Labelled) Label {
	pi := key.Prove(p.alpha())
	return label(pi.Hash(), [VRFProofSize]byte(pi.Bytes()))
}

// CheckLabel follows a proof to label and link. A proof that does not hold is chat.Unproven.
func CheckLabel(key VRFKey, p Labelled, proof []byte) (Label, error) {
	if len(proof) != VRFProofSize {
		return Label{}, unproven("the VRF proof is malformed")
	}
	pi, err := vrf.NewProof(proof)
	if err != nil {
		return Label{}, chat.Wrap(chat.Unproven, err, "the VRF proof is malformed")
	}
	beta, err := key.key.Verify(pi, p.alpha())
	if err != nil {
		return Label{}, chat.Wrap(chat.Unproven, err, "the VRF proof does not hold")
	}
	return label(beta, [VRFProofSize]byte(proof)), nil
}

func label(beta []byte, proof [VRFProofSize]byte) Label {
	return Label{[32]byte(beta[:32]), [32]byte(beta[32:64]), proof}
}

// prev is what a leaf says of the record before: its leaf hash (zero before the first), blinded with the link.
func (l Label) prev(before Hash) [32]byte {
	return canon.Hash(domainPrev, append(l.Link[:len(l.Link):len(l.Link)], before[:]...))
}

// commit binds a leaf to a payload that only those with the salt can recognise.
func commit(salt, payload []byte) [32]byte {
	return canon.Hash(domainCommit, append(salt[:len(salt):len(salt)], payload...))
}
