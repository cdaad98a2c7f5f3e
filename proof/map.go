package proof

import (
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/labelmap"
)

// Head is a checkpoint with its map root (spec/map.md section 4): what proofs of the map are checked against.
type Head struct {
	_          struct{} `cbor:",toarray"`
	Checkpoint []byte   // signed note
	Leaf       []byte   // *MapRoot, the last entry of its tree
	Proof      []Hash   // of inclusion
}

// Bytes is the head's encoding.
func (h *Head) Bytes() []byte {
	h.Proof = list(h.Proof)
	return canon.MustMarshal(h)
}

// ParseHead reads a head. Whether it holds is what Open says.
func ParseHead(data []byte) (*Head, error) {
	if len(data) > MaxHead {
		return nil, tooLarge("map head", MaxHead)
	}
	var h Head
	if err := canon.Unmarshal(data, &h); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "map head: malformed")
	}
	if len(h.Proof) > maxProof {
		return nil, invalid("map head: malformed")
	}
	return &h, nil
}

// Map is the map of a checkpoint, checked.
type Map struct {
	Checkpoint Checkpoint
	At         int64 // ms, the server's clock when the root was logged
	Public     uint64
	Root       Hash
}

// Open checks a head under the log's key: the leaf is the last entry of the checkpoint's tree and covers all before it.
func (h *Head) Open(log note.Verifier) (Map, error) {
	c, err := OpenCheckpoint(h.Checkpoint, log)
	if err != nil {
		return Map{}, err
	}
	return openMap(c, h.Leaf, h.Proof)
}

func openMap(c Checkpoint, leaf []byte, p []Hash) (Map, error) {
	l, err := ParseLeaf(leaf)
	if err != nil {
		return Map{}, err
	}
	root, ok := l.(*MapRoot)
	if !ok || root.Covers != c.Size-1 {
		return Map{}, unproven("the last entry of the ledger is not a map root of all entries before it")
	}
	path, ok := hashes(p)
	if !ok || tlog.CheckRecord(path, c.Size, c.Root, root.Covers, LeafHash(leaf)) != nil {
		return Map{}, unproven("the map root is not the last entry of the ledger")
	}
	return Map{Checkpoint: c, At: root.At, Public: root.Public, Root: root.Root}, nil
}

// Has checks that the map holds a label with the log's entry of this leaf hash and index. A failure is chat.Unproven.
func (m Map) Has(label, leaf Hash, index int64, mapProof []byte) error {
	value, present, err := m.look(label, mapProof)
	switch {
	case err != nil:
		return err
	case !present:
		return unproven("the map shows that there is no such entry")
	case value != labelmap.Value(leaf, index):
		return unproven("the map holds another entry under this label")
	}
	return nil
}

// Lacks checks that the map holds nothing under a label. A failure is chat.Unproven; if the proof shows that there is something, it says so.
func (m Map) Lacks(label Hash, mapProof []byte) error {
	_, present, err := m.look(label, mapProof)
	if err == nil && present {
		err = unproven("the map holds an entry that was not shown")
	}
	return err
}

// Holds tells whether the map holds an entry under a label.
func (m Map) Holds(label Hash, mapProof []byte) (bool, error) {
	_, present, err := m.look(label, mapProof)
	return present, err
}

func (m Map) look(label Hash, mapProof []byte) (Hash, bool, error) {
	p, err := labelmap.ParseProof(mapProof)
	if err != nil {
		return Hash{}, false, err
	}
	return p.Check(m.Root, label)
}

// MapLabel is the label under which the map holds a leaf; public is how many public entries stand before it. ok is false for leaves
// that the map does not hold.
func MapLabel(l Leaf, public uint64) (label Hash, ok bool) {
	switch l := l.(type) {
	case *Personal:
		return l.Label, true
	case *KeyEntry:
		return l.Label, true
	}
	if l.Type().Public() {
		return PublicLabel(public), true
	}
	return label, false
}
