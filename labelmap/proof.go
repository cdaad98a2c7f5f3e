package labelmap

import (
	"bytes"

	"letterlock/canon"
	"letterlock/chat"
)

// MaxProof is the most bytes of a proof: 256 steps and what is around them.
const MaxProof = 9 << 10

// Proof shows what a root holds under one label (spec/map.md section 3).
type Proof struct {
	_        struct{} `cbor:",toarray"`
	Kind     uint8
	Leaf     []byte // Present: the value. Absent: label and value where the label's walk ends; empty in an empty map
	Bits     []byte // the branch bits on the way, from the root down
	Siblings []byte // beside the way, 32 bytes each, in the same order
}

// The kinds of proof.
const (
	Absent  uint8 = 0
	Present uint8 = 1
)

// Bytes is the proof's encoding.
func (p *Proof) Bytes() []byte { return canon.MustMarshal(p) }

// ParseProof reads a proof. Whether it holds is what Check says.
func ParseProof(data []byte) (*Proof, error) {
	if len(data) > MaxProof {
		return nil, chat.Errorf(chat.TooLarge, "map proof: larger than %d bytes", MaxProof)
	}
	var p Proof
	if err := canon.Unmarshal(data, &p); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "map proof: malformed")
	}
	return &p, p.check()
}

func (p *Proof) check() error {
	ok := false
	switch p.Kind {
	case Present:
		ok = len(p.Leaf) == 32
	case Absent:
		ok = len(p.Leaf) == 64 || len(p.Leaf) == 0 && len(p.Bits) == 0
	}
	if !ok || len(p.Siblings) != 32*len(p.Bits) {
		return chat.Errorf(chat.Invalid, "map proof: malformed")
	}
	for i := 1; i < len(p.Bits); i++ {
		if p.Bits[i] <= p.Bits[i-1] {
			return chat.Errorf(chat.Invalid, "map proof: its bits do not rise")
		}
	}
	return nil
}

// Check checks the proof of a label against a root: present says whether the map holds the label, value what it holds. A proof that does
// not hold is chat.Unproven.
func (p *Proof) Check(root, label Hash) (value Hash, present bool, err error) {
	if err := p.check(); err != nil {
		return value, false, err
	}
	end := Entry{Label: label}
	switch {
	case p.Kind == Present:
		end.Value = Hash(p.Leaf)
	case len(p.Leaf) == 0:
		return value, false, same(root, Hash{})
	default:
		end = Entry{Hash(p.Leaf[:32]), Hash(p.Leaf[32:])}
		if end.Label == label {
			return value, false, chat.Errorf(chat.Unproven, "the map proof of absence ends at the label itself")
		}
	}
	h := end.hash()
	for i := len(p.Bits) - 1; i >= 0; i-- {
		b, sibling := p.Bits[i], Hash(p.Siblings[32*i:])
		if bit(&label, b) != bit(&end.Label, b) {
			return value, false, chat.Errorf(chat.Unproven, "the map proof of absence ends at a leaf to which the label does not lead")
		}
		if bit(&end.Label, b) == 0 {
			h = inner(b, h, sibling)
		} else {
			h = inner(b, sibling, h)
		}
	}
	if err := same(h, root); err != nil || p.Kind == Absent {
		return Hash{}, false, err
	}
	return end.Value, true, nil
}

func same(a, b Hash) error {
	if a != b {
		return chat.Errorf(chat.Unproven, "the map proof does not lead to the root")
	}
	return nil
}

// step adds a step.
func (p *Proof) step(b uint8, sibling Hash) {
	p.Bits, p.Siblings = append(p.Bits, b), append(p.Siblings, sibling[:]...)
}

// prove goes on from where the steps so far have led: to these entries.
func (p *Proof) prove(sorted []Entry, label Hash) {
	for len(sorted) > 1 {
		b, mid := split(sorted)
		left, right := sorted[:mid], sorted[mid:]
		if bit(&label, b) == 0 {
			p.step(b, Root(right))
			sorted = left
		} else {
			p.step(b, Root(left))
			sorted = right
		}
	}
	switch {
	case len(sorted) == 0:
	case bytes.Equal(sorted[0].Label[:], label[:]):
		p.Kind, p.Leaf = Present, bytes.Clone(sorted[0].Value[:])
	default:
		p.Leaf = append(bytes.Clone(sorted[0].Label[:]), sorted[0].Value[:]...)
	}
}
