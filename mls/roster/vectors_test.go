package roster

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// hexBytes is a byte string as the vectors write it.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := hex.DecodeString(s)
	*h = v
	return err
}

// loadVectors reads one file of the official vectors, which lie beside the module, in ../shared. Where there is no such
// folder the test is skipped, but not in CI.
func loadVectors(t *testing.T, file string, v any) {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	b, err := os.ReadFile(filepath.Join(dir, "..", "shared", "mls-vectors", file))
	if os.IsNotExist(err) {
		if os.Getenv("CI") != "" {
			t.Fatalf("the official vectors are missing: %v", err)
		}
		t.Skip("the official vectors are not here")
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

// suiteOrSkip is the row for a vector's suite; a suite that is not built skips the subtest.
func suiteOrSkip(t *testing.T, id uint16) *Suite {
	t.Helper()
	s, err := SuiteByID(id)
	if err != nil {
		t.Skip("suite not built")
	}
	return s
}

func TestVectorsTreeMath(t *testing.T) {
	var vectors []struct {
		Leaves  uint32       `json:"n_leaves"`
		Nodes   uint32       `json:"n_nodes"`
		Root    NodeIndex    `json:"root"`
		Left    []*NodeIndex `json:"left"`
		Right   []*NodeIndex `json:"right"`
		Parent  []*NodeIndex `json:"parent"`
		Sibling []*NodeIndex `json:"sibling"`
	}
	loadVectors(t, "tree-math.json", &vectors)
	for _, v := range vectors {
		if Root(v.Leaves) != v.Root || v.Nodes != 2*v.Leaves-1 {
			t.Errorf("%d leaves: root %d, want %d", v.Leaves, Root(v.Leaves), v.Root)
		}
		for x := NodeIndex(0); x < NodeIndex(v.Nodes); x++ {
			if !x.IsLeaf() && (x.Left() != *v.Left[x] || x.Right() != *v.Right[x]) {
				t.Errorf("children of %d", x)
			}
			if x != v.Root && (x.Parent() != *v.Parent[x] || x.Sibling() != *v.Sibling[x]) {
				t.Errorf("parent or sibling of %d", x)
			}
			if x.IsLeaf() && v.Left[x] != nil || x == v.Root && v.Parent[x] != nil {
				t.Errorf("vector disagrees about leaf or root %d", x)
			}
		}
	}
}

func TestVectorsDeserialization(t *testing.T) {
	var vectors []struct {
		Header hexBytes `json:"vlbytes_header"`
		Length int      `json:"length"`
	}
	loadVectors(t, "deserialization.json", &vectors)
	for _, v := range vectors {
		r := NewReader(v.Header)
		if n := r.length(); n != v.Length || r.Done() != nil {
			t.Errorf("%x: read %d (%v), want %d", v.Header, n, r.Err(), v.Length)
		}
		if b := appendLength(nil, v.Length); !bytes.Equal(b, v.Header) {
			t.Errorf("%d: wrote %x, want %x", v.Length, b, v.Header)
		}
	}
}

func TestVectorsMessages(t *testing.T) {
	var vectors []map[string]hexBytes
	loadVectors(t, "messages.json", &vectors)
	message := func(b []byte) (any, []byte, error) {
		m, err := DecodeMessage(b)
		if err != nil {
			return nil, nil, err
		}
		return m, Marshal(m), nil
	}
	proposal := func(typ ProposalType) func([]byte) (any, []byte, error) {
		return func(b []byte) (any, []byte, error) {
			full := append([]byte{0, byte(typ)}, b...)
			r := NewReader(full)
			p := DecodeProposal(r)
			if err := r.Done(); err != nil {
				return nil, nil, err
			}
			return p, Marshal(p)[2:], nil
		}
	}
	decoders := map[string]func([]byte) (any, []byte, error){
		"mls_welcome": message, "mls_group_info": message, "mls_key_package": message,
		"public_message_application": message, "public_message_proposal": message, "public_message_commit": message,
		"private_message": message,
		"ratchet_tree": func(b []byte) (any, []byte, error) {
			r := NewReader(b)
			tree := DecodeTree(&Suites[0], r)
			if err := r.Done(); err != nil {
				return nil, nil, err
			}
			return tree, Marshal(tree), nil
		},
		"add_proposal": proposal(ProposalAdd), "update_proposal": proposal(ProposalUpdate),
		"remove_proposal": proposal(ProposalRemove), "pre_shared_key_proposal": proposal(ProposalPSK),
		"re_init_proposal": proposal(ProposalReInit), "external_init_proposal": proposal(ProposalExternalInit),
		"group_context_extensions_proposal": proposal(ProposalGroupContextExtensions),
		"commit": func(b []byte) (any, []byte, error) {
			r := NewReader(b)
			c := DecodeCommit(r)
			if err := r.Done(); err != nil {
				return nil, nil, err
			}
			return c, Marshal(c), nil
		},
	}
	for i, v := range vectors {
		for name, b := range v {
			if name == "group_secrets" {
				continue // package mls
			}
			decode := decoders[name]
			if decode == nil {
				t.Fatalf("vector holds unknown %q", name)
			}
			if _, again, err := decode(b); err != nil || !bytes.Equal(again, b) {
				t.Errorf("%d: %s: %v; encodes alike: %v", i, name, err, bytes.Equal(again, b))
			}
		}
	}
}

func TestVectorsTreeOperations(t *testing.T) {
	var vectors []struct {
		Suite          uint16   `json:"cipher_suite"`
		TreeBefore     hexBytes `json:"tree_before"`
		Proposal       hexBytes `json:"proposal"`
		ProposalSender uint32   `json:"proposal_sender"`
		HashBefore     hexBytes `json:"tree_hash_before"`
		TreeAfter      hexBytes `json:"tree_after"`
		HashAfter      hexBytes `json:"tree_hash_after"`
	}
	loadVectors(t, "tree-operations.json", &vectors)
	for i, v := range vectors {
		s := suiteOrSkip(t, v.Suite)
		tree := DecodeTree(s, NewReader(v.TreeBefore))
		if !bytes.Equal(tree.Hash(), v.HashBefore) {
			t.Fatalf("%d: hash before", i)
		}
		p := DecodeProposal(NewReader(v.Proposal))
		switch p.Type {
		case ProposalAdd:
			if _, err := tree.add(p.Add.Leaf, 0); err != nil {
				t.Fatal(err)
			}
		case ProposalUpdate:
			tree.update(v.ProposalSender, p.Update)
		case ProposalRemove:
			tree.remove(p.Remove)
		default:
			t.Fatalf("%d: proposal of type %d", i, p.Type)
		}
		if !bytes.Equal(Marshal(tree), v.TreeAfter) || !bytes.Equal(tree.Hash(), v.HashAfter) {
			t.Errorf("%d: proposal %d: tree or hash after differs", i, p.Type)
		}
	}
}

func TestVectorsTreeValidation(t *testing.T) {
	var vectors []struct {
		Suite       uint16        `json:"cipher_suite"`
		Tree        hexBytes      `json:"tree"`
		GroupID     hexBytes      `json:"group_id"`
		TreeHashes  []hexBytes    `json:"tree_hashes"`
		Resolutions [][]NodeIndex `json:"resolutions"`
	}
	loadVectors(t, "tree-validation.json", &vectors)
	for i, v := range vectors {
		t.Run("", func(t *testing.T) {
			s := suiteOrSkip(t, v.Suite)
			r := NewReader(v.Tree)
			tree := DecodeTree(s, r)
			if err := r.Done(); err != nil {
				t.Fatal(err)
			}
			for x := range tree.nodes {
				if !bytes.Equal(tree.NodeHash(NodeIndex(x)), v.TreeHashes[x]) {
					t.Errorf("%d: hash of node %d", i, x)
				}
				got := tree.Resolution(NodeIndex(x))
				if len(got) != len(v.Resolutions[x]) {
					t.Fatalf("%d: resolution of %d", i, x)
				}
				for k := range got {
					if got[k] != v.Resolutions[x][k] {
						t.Errorf("%d: resolution of %d", i, x)
					}
				}
			}
			if err := tree.checkUnmerged(); err != nil {
				t.Error(err)
			}
			if err := tree.checkParentHashes(); err != nil {
				t.Error(err)
			}
			if err := tree.checkLeaves(v.GroupID, noTime); err != nil {
				t.Error(err)
			}
			if err := tree.checkMembers(nil); err != nil {
				t.Error(err)
			}
		})
	}
}
