package proof

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"letterlock/chat"
)

// BundleFormat is the first member of every bundle. Format 1, which could not show that nothing was left out, is not read any more.
const BundleFormat = "letterlock-bundle/2"

const formatBefore = "letterlock-bundle/1"

// Bundle is everything that a stranger needs to check one person's history with one partner, or their keys alone, offline
// (spec/ledger.md section 7).
type Bundle struct {
	Format      string          `json:"format"`
	Host        string          `json:"host"`
	Account     chat.AccountID  `json:"account"`
	Handle      string          `json:"handle"`
	Partner     string          `json:"partner"` // empty: keys alone
	LedgerVKey  string          `json:"ledger_vkey"`
	ServerKey   []byte          `json:"server_key"`
	VRFKey      []byte          `json:"vrf_key"`
	Checkpoint  string          `json:"checkpoint"` // as WitnessPolicy.Cosigned writes it
	Keys        BundledLeaf     `json:"keys"`
	Map         BundledLeaf     `json:"map"`
	Policies    []BundledPolicy `json:"policies"`
	Agreements  []BundledLeaf   `json:"agreements"`
	KeyChain    [][]byte        `json:"key_chain"`
	NewestKey   BundledKey      `json:"newest_key"`
	NextKey     BundledAbsence  `json:"next_key"`
	Control     []BundledRecord `json:"control"`
	Access      []BundledRecord `json:"access"`
	NextControl BundledAbsence  `json:"next_control"`
	NextAccess  BundledAbsence  `json:"next_access"`
}

// BundledLeaf is a public leaf with the proof that it is in the log.
type BundledLeaf struct {
	Leaf  []byte `json:"leaf"`
	Index int64  `json:"index"`
	Proof []byte `json:"proof"` // JoinHashes of an inclusion proof
}

// BundledPolicy is a witness policy with the handoff that put it in force (spec/witness.md section 3).
type BundledPolicy struct {
	Leaf       []byte `json:"leaf"`
	Checkpoint string `json:"checkpoint"` // with the quorum of the policy before
	Index      int64  `json:"index"`
	Proof      []byte `json:"proof"` // JoinHashes, of that checkpoint's tree
}

// BundledKey shows that the map has the last entry of the key chain.
type BundledKey struct {
	Index    int64  `json:"index"`
	VRFProof []byte `json:"vrf_proof"`
	Proof    []byte `json:"proof"` // labelmap.Proof
}

// BundledAbsence shows that the map has not what would come next.
type BundledAbsence struct {
	VRFProof []byte `json:"vrf_proof"`
	Proof    []byte `json:"proof"` // labelmap.Proof
}

// BundledRecord is a record, with its index, and the proof that its leaf is in the log.
type BundledRecord struct {
	Record []byte `json:"record"`
	Proof  []byte `json:"proof"` // JoinHashes of an inclusion proof
}

// JoinHashes writes an inclusion proof as one byte string.
func JoinHashes[H ~[32]byte](list []H) []byte {
	data := make([]byte, 0, len(list)*32)
	for _, h := range list {
		x := [32]byte(h)
		data = append(data, x[:]...)
	}
	return data
}

// splitHashes reads what JoinHashes wrote.
func splitHashes(data []byte) ([]Hash, error) {
	if len(data)%32 != 0 || len(data) > maxProof*32 {
		return nil, invalid("the inclusion proof is malformed")
	}
	list := make([]Hash, len(data)/32)
	for i := range list {
		list[i] = Hash(data[i*32:])
	}
	return list, nil
}

// inForce is the last policy of the bundle; without any, one that needs no witness.
func (b *Bundle) inForce() (*WitnessPolicy, error) {
	if len(b.Policies) == 0 {
		return ParsePolicy([]byte("log " + b.LedgerVKey + "\nquorum none\n"))
	}
	leaf, err := ParseLeaf(b.Policies[len(b.Policies)-1].Leaf)
	if err != nil {
		return nil, err
	}
	l, ok := leaf.(*Policy)
	if !ok {
		return nil, unproven("the entry is not a policy")
	}
	return ParsePolicy([]byte(l.Text))
}

// PutPolicy adds a handoff (spec/witness.md section 3) behind those that are there. The first one stands under the log's key alone.
func (b *Bundle) PutPolicy(leaf, tlogProof []byte) error {
	before, err := b.inForce()
	if err != nil {
		return err
	}
	index, _, err := OpenInclusion(LeafHash(leaf), tlogProof, before.Log())
	if err != nil {
		return err
	}
	head, signed, _ := bytes.Cut(tlogProof, []byte("\n\n"))
	signed, err = before.Cosigned(signed)
	if err != nil {
		return err
	}
	row := BundledPolicy{Leaf: leaf, Checkpoint: string(signed), Index: index}
	_, hashes, _ := bytes.Cut(head, fmt.Appendf(nil, "index %d\n", index)) // one line each; none in a tree of one entry
	for line := range bytes.Lines(hashes) {
		h, err := base64.StdEncoding.DecodeString(string(bytes.TrimSuffix(line, []byte("\n"))))
		if err != nil {
			return chat.Wrap(chat.Invalid, err, "the handoff's inclusion proof is malformed")
		}
		row.Proof = append(row.Proof, h...)
	}
	b.Policies = append(b.Policies, row)
	return nil
}

// PutCheckpoint puts in a published checkpoint, in its one form under the last policy: PutPolicy comes first.
func (b *Bundle) PutCheckpoint(signed []byte) error {
	p, err := b.inForce()
	if err != nil {
		return err
	}
	signed, err = p.Cosigned(signed)
	b.Checkpoint = string(signed)
	return err
}

// Bytes writes the bundle in its one form.
func (b *Bundle) Bytes() ([]byte, error) {
	b.Format = BundleFormat
	b.noNulls()
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf) // ends with a line feed
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(b); err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the bundle cannot be written")
	}
	if buf.Len() > MaxBundle {
		return nil, tooLarge("bundle", MaxBundle)
	}
	return buf.Bytes(), nil
}

// noNulls makes empty lists of missing ones: a list is never written as null.
func (b *Bundle) noNulls() {
	b.Policies, b.Agreements, b.KeyChain = list(b.Policies), list(b.Agreements), list(b.KeyChain)
	b.Control, b.Access = list(b.Control), list(b.Access)
	bytes := []*[]byte{&b.ServerKey, &b.VRFKey, &b.Keys.Leaf, &b.Keys.Proof, &b.Map.Leaf, &b.Map.Proof,
		&b.NewestKey.VRFProof, &b.NewestKey.Proof}
	for _, a := range []*BundledAbsence{&b.NextKey, &b.NextControl, &b.NextAccess} {
		bytes = append(bytes, &a.VRFProof, &a.Proof)
	}
	for i := range b.Policies {
		bytes = append(bytes, &b.Policies[i].Leaf, &b.Policies[i].Proof)
	}
	for i := range b.Agreements {
		bytes = append(bytes, &b.Agreements[i].Leaf, &b.Agreements[i].Proof)
	}
	for i := range b.KeyChain {
		bytes = append(bytes, &b.KeyChain[i])
	}
	for _, chain := range [][]BundledRecord{b.Control, b.Access} {
		for i := range chain {
			bytes = append(bytes, &chain[i].Record, &chain[i].Proof)
		}
	}
	for _, p := range bytes {
		*p = list(*p)
	}
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}

// ParseBundle reads a bundle and refuses every form but the one that Bytes writes. Whether it is true is what Verify says.
func ParseBundle(data []byte) (*Bundle, error) {
	if len(data) > MaxBundle {
		return nil, tooLarge("bundle", MaxBundle)
	}
	var b Bundle
	err := json.Unmarshal(data, &b)
	if b.Format == formatBefore {
		return nil, chat.Errorf(chat.Incompatible, "the file is of an older format, which could not show that nothing was left out: have it made anew, with letterlock client proof")
	}
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "the file is not a bundle")
	}
	if b.Format != BundleFormat {
		return nil, chat.Errorf(chat.Incompatible, "the file is not a bundle, or of a version that is not known here")
	}
	again, err := b.Bytes()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, data) {
		return nil, invalid("the bundle is not in its one form: it was changed after it was made")
	}
	if len(b.Control) > MaxRecords || len(b.Access) > MaxRecords || len(b.Agreements) > MaxAgreements || len(b.Policies) > MaxPolicies {
		return nil, chat.Errorf(chat.TooLarge, "the bundle holds more than %d records, %d agreements or %d policies", MaxRecords, MaxAgreements, MaxPolicies)
	}
	return &b, nil
}
