package proof

import (
	"bytes"
	"encoding/json"

	"golang.org/x/mod/sumdb/tlog"

	"letterlock/chat"
)

// BundleFormat is the first member of every bundle.
const BundleFormat = "letterlock-bundle/1"

// Bundle is everything that a stranger needs to check one person's history with one partner, offline (spec/ledger.md section 7).
type Bundle struct {
	Format     string          `json:"format"`
	Host       string          `json:"host"`
	Account    chat.AccountID  `json:"account"`
	Handle     string          `json:"handle"`
	Partner    string          `json:"partner"`
	LedgerVKey string          `json:"ledger_vkey"`
	ServerKey  []byte          `json:"server_key"`
	VRFKey     []byte          `json:"vrf_key"`
	Checkpoint string          `json:"checkpoint"`
	Keys       BundledLeaf     `json:"keys"`
	Agreements []BundledLeaf   `json:"agreements"`
	KeyChain   [][]byte        `json:"key_chain"`
	Control    []BundledRecord `json:"control"`
	Access     []BundledRecord `json:"access"`
}

// BundledLeaf is a public leaf with the proof that it is in the log.
type BundledLeaf struct {
	Leaf  []byte      `json:"leaf"`
	Index int64       `json:"index"`
	Proof []tlog.Hash `json:"proof"`
}

// BundledRecord is a record, with its index, and the proof that its leaf is in the log.
type BundledRecord struct {
	Record []byte      `json:"record"`
	Proof  []tlog.Hash `json:"proof"`
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
	b.ServerKey, b.VRFKey, b.KeyChain = list(b.ServerKey), list(b.VRFKey), list(b.KeyChain)
	b.Agreements, b.Control, b.Access = list(b.Agreements), list(b.Control), list(b.Access)
	b.Keys.Leaf, b.Keys.Proof = list(b.Keys.Leaf), list(b.Keys.Proof)
	for i := range b.Agreements {
		l := &b.Agreements[i]
		l.Leaf, l.Proof = list(l.Leaf), list(l.Proof)
	}
	for _, chain := range [][]BundledRecord{b.Control, b.Access} {
		for i := range chain {
			chain[i].Record, chain[i].Proof = list(chain[i].Record), list(chain[i].Proof)
		}
	}
	for i := range b.KeyChain {
		b.KeyChain[i] = list(b.KeyChain[i])
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
	if err := json.Unmarshal(data, &b); err != nil {
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
	if len(b.Control) > MaxRecords || len(b.Access) > MaxRecords || len(b.Agreements) > MaxAgreements {
		return nil, chat.Errorf(chat.TooLarge, "the bundle holds more than %d records or %d agreements", MaxRecords, MaxAgreements)
	}
	return &b, nil
}
