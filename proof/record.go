package proof

import (
	"io"

	"letterlock/canon"
	"letterlock/chat"
)

// Record is one entry of a person's history with a partner. It is the person's: payload, salt and place never stand in the log.
type Record struct {
	Place
	Payload  []byte // ParsePayload; empty when erased
	Salt     []byte // 32 bytes; empty when erased
	Leaf     []byte // *Personal
	VRFProof [VRFProofSize]byte
	Index    int64 // in the log; -1 while it waits
}

// wireRecord is the record's format.
type wireRecord struct {
	_        struct{} `cbor:",toarray"`
	Version  uint8
	Account  chat.AccountID
	Partner  string
	Chain    Chain
	N        uint64
	Payload  []byte
	Salt     []byte
	Leaf     []byte
	VRFProof [VRFProofSize]byte
	Index    int64
}

const saltSize = 32

// NewRecord makes the record of a payload at a place whose label was proven, after the record before (nil at n = 0). The salt is
// drawn from rand.
func NewRecord(place Place, l Label, payload []byte, before *Hash, rand io.Reader) (*Record, error) {
	r := &Record{Place: place, Payload: payload, Salt: make([]byte, saltSize), VRFProof: l.Proof, Index: -1}
	if _, err := io.ReadFull(rand, r.Salt); err != nil {
		return nil, err
	}
	var link Hash
	if before != nil {
		link = *before
	}
	leaf := Personal{Label: l.Label, Prev: l.prev(link), Commit: commit(r.Salt, payload)}
	r.Leaf = leaf.Bytes()
	return r, r.checkForm()
}

// Bytes is the record's encoding.
func (r *Record) Bytes() []byte {
	return canon.MustMarshal(&wireRecord{Version: version, Account: r.Account, Partner: r.Partner, Chain: r.Chain, N: r.N,
		Payload: r.Payload, Salt: r.Salt, Leaf: r.Leaf, VRFProof: r.VRFProof, Index: r.Index})
}

// ParseRecord reads a record. Whether it is true is what Check says.
func ParseRecord(data []byte) (*Record, error) {
	if len(data) > MaxRecord {
		return nil, tooLarge("record", MaxRecord)
	}
	var w wireRecord
	if err := canon.Unmarshal(data, &w); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "record: malformed")
	}
	if w.Version != version {
		return nil, chat.Errorf(chat.Incompatible, "record: version %d is not known here", w.Version)
	}
	r := &Record{Place: Place{Account: w.Account, Partner: w.Partner, Chain: w.Chain, N: w.N},
		Payload: w.Payload, Salt: w.Salt, Leaf: w.Leaf, VRFProof: w.VRFProof, Index: w.Index}
	return r, r.checkForm()
}

// checkForm checks what needs no key: sizes, and a payload that belongs into the chain.
func (r *Record) checkForm() error {
	if err := r.Place.check(); err != nil {
		return err
	}
	if _, err := r.leaf(); err != nil {
		return err
	}
	if r.Index < -1 {
		return invalid("record: the index is negative")
	}
	if r.Erased() {
		return nil
	}
	if len(r.Salt) != saltSize {
		return invalid("record: the salt must have %d bytes", saltSize)
	}
	p, err := ParsePayload(r.Payload)
	if err != nil {
		return err
	}
	if p.Kind().Chain() != r.Chain {
		return invalid("record: a %s does not belong into a chain of %s", p.Kind(), r.Chain)
	}
	if named := partnerOf(p); named != "" && named != r.Partner {
		return invalid("record: the payload is about another partner")
	}
	return nil
}

func partnerOf(p Payload) string {
	switch p := p.(type) {
	case *Exposed:
		return p.Partner
	case *Ended:
		return p.Partner
	}
	return ""
}

func (r *Record) leaf() (*Personal, error) {
	l, err := ParseLeaf(r.Leaf)
	if err != nil {
		return nil, err
	}
	p, ok := l.(*Personal)
	if !ok {
		return nil, invalid("record: its leaf is not a personal leaf")
	}
	return p, nil
}

// Erased reports whether payload and salt were deleted. Leaf and proof stay, so that the chain still checks.
func (r *Record) Erased() bool { return len(r.Payload) == 0 && len(r.Salt) == 0 }

// Erase deletes payload and salt from this copy.
func (r *Record) Erase() {
	clear(r.Salt)
	clear(r.Payload)
	r.Salt, r.Payload = nil, nil
}

// LeafHash is the hash under which the log proves the record.
func (r *Record) LeafHash() Hash { return LeafHash(r.Leaf) }

// Says is the payload; nil when it was erased.
func (r *Record) Says() (Payload, error) {
	if r.Erased() {
		return nil, nil
	}
	return ParsePayload(r.Payload)
}

// Check checks the record as the successor of the one before: nil for n = 0, and only then. Whether its leaf is in the log is for
// the caller to check (Log.Included). A failure is chat.Unproven.
func (r *Record) Check(key VRFKey, before *Record) error {
	l, leaf, err := r.checkAlone(key)
	if err != nil {
		return err
	}
	var last Hash
	switch {
	case before == nil && r.N != 0:
		return unproven("record %d of %s: the record before is missing", r.N, r.Chain)
	case before == nil:
	case before.Account != r.Account || before.Partner != r.Partner || before.Chain != r.Chain || before.N+1 != r.N || r.N == 0:
		return unproven("record %d of %s: it does not follow record %d", r.N, r.Chain, before.N)
	default:
		last = before.LeafHash()
	}
	if leaf.Prev != l.prev(last) {
		return unproven("record %d of %s: it names another record before it", r.N, r.Chain)
	}
	return nil
}

// CheckAlone checks all but the link to the record before: for one who is shown a single record.
func (r *Record) CheckAlone(key VRFKey) error {
	_, _, err := r.checkAlone(key)
	return err
}

func (r *Record) checkAlone(key VRFKey) (Label, *Personal, error) {
	if err := r.checkForm(); err != nil {
		return Label{}, nil, err
	}
	leaf, err := r.leaf()
	if err != nil {
		return Label{}, nil, err
	}
	l, err := CheckLabel(key, r.Place, r.VRFProof[:])
	if err != nil {
		return Label{}, nil, err
	}
	if leaf.Label != l.Label {
		return Label{}, nil, unproven("record %d of %s: the leaf belongs to another record", r.N, r.Chain)
	}
	if !r.Erased() && leaf.Commit != commit(r.Salt, r.Payload) {
		return Label{}, nil, unproven("record %d of %s: the leaf does not commit to what the record says", r.N, r.Chain)
	}
	return l, leaf, nil
}

// Disclosure shows what one leaf commits to, to someone who need not know whose it is: the agent, for an open record.
type Disclosure struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Leaf    []byte
	Payload []byte
	Salt    [saltSize]byte
}

// Disclose shows the record without account, number and VRF proof. An erased record has nothing to show.
func (r *Record) Disclose() ([]byte, error) {
	if err := r.checkForm(); err != nil {
		return nil, err
	}
	if r.Erased() {
		return nil, chat.Errorf(chat.Gone, "the record was erased")
	}
	return canon.MustMarshal(&Disclosure{Version: version, Leaf: r.Leaf, Payload: r.Payload, Salt: [saltSize]byte(r.Salt)}), nil
}

// OpenDisclosure checks that the leaf commits to the payload and returns both.
func OpenDisclosure(data []byte) (leaf Hash, p Payload, err error) {
	if len(data) > MaxDisclosure {
		return leaf, nil, tooLarge("disclosure", MaxDisclosure)
	}
	var d Disclosure
	if err := canon.Unmarshal(data, &d); err != nil {
		return leaf, nil, chat.Wrap(chat.Invalid, err, "disclosure: malformed")
	}
	if d.Version != version {
		return leaf, nil, chat.Errorf(chat.Incompatible, "disclosure: version %d is not known here", d.Version)
	}
	l, err := ParseLeaf(d.Leaf)
	if err != nil {
		return leaf, nil, err
	}
	personal, ok := l.(*Personal)
	if !ok || personal.Commit != commit(d.Salt[:], d.Payload) {
		return leaf, nil, unproven("disclosure: the leaf does not commit to what is shown")
	}
	p, err = ParsePayload(d.Payload)
	return LeafHash(d.Leaf), p, err
}
