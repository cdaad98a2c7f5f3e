package roster

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestFuzzSeeds: the seeds of the fuzz tests are committed; without them fuzzing begins with nothing.
func TestFuzzSeeds(t *testing.T) {
	if os.Getenv("LETTERLOCK_WRITE_SEEDS") != "" {
		writeSeeds(t)
	}
	for _, name := range []string{"FuzzDecodeMessage", "FuzzDecodeTree", "FuzzAuthenticatedContent", "FuzzOpen", "FuzzStage", "FuzzUnmarshalGroup"} {
		seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(seeds) == 0 {
			t.Errorf("no seeds for %s", name)
		}
	}
}

// writeSeeds makes the seeds anew, as after a change of a format.
func writeSeeds(t *testing.T) {
	server := signerOf("server")
	g := newTestGroup(t, 4, ExternalSendersExtension(ExternalSender{server.Public().(ed25519.PublicKey), BasicCredential([]byte("server"))}))
	for from := range uint32(3) {
		g = mustStage(t, g, commitOf(t, g, from)).Next()
	}
	removal := must(ExternalRemove(g, server, 0, 2, []byte("expired")))
	update := proposalFrom(g, 1, updateOf(g, 1, nil))
	psk := &Proposal{Type: ProposalPSK, PSK: PreSharedKeyID{Type: PSKResumption, Usage: 1, GroupID: []byte("g"), Epoch: 3, Nonce: make([]byte, 32)}}
	commit := commitOf(t, g, 0, add("x"), remove(3), replaceExtensions(Extension{ExtLetterlock, []byte("x")}), psk)
	private := &PrivateMessage{GroupID: []byte("g"), Epoch: 1, ContentType: ContentApplication, EncryptedSenderData: make([]byte, 28), Ciphertext: make([]byte, 96)}
	welcome := &Welcome{Suite: 1, Secrets: []EncryptedGroupSecrets{{make([]byte, 32), HPKECiphertext{make([]byte, 32), make([]byte, 96)}}}, EncryptedGroupInfo: make([]byte, 300)}
	messages := [][]byte{
		public(commit), public(update), removal, infoOf(g, 0, nil),
		Marshal(&Message{WireFormat: WirePrivateMessage, Private: private}), Marshal(&Message{WireFormat: WireWelcome, Welcome: welcome}),
		Marshal(&Message{WireFormat: WireKeyPackage, KeyPackage: newPackage("x", nil, nil)}),
	}
	withPending, _ := staged(t, g, update)
	for name, seeds := range map[string][][]byte{
		"FuzzDecodeMessage":        messages,
		"FuzzDecodeTree":           {Marshal(g.tree)},
		"FuzzAuthenticatedContent": {Marshal(commit), Marshal(update)},
		"FuzzOpen":                 {infoOf(g, 0, nil)},
		"FuzzStage":                messages[:3],
		"FuzzUnmarshalGroup":       {must(withPending.MarshalBinary())},
	} {
		for i, seed := range seeds {
			writeSeed(t, name, i, seed)
		}
	}
}

// writeSeed writes one seed as Go's fuzzing reads it.
func writeSeed(t *testing.T, name string, i int, seed []byte) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", seed)
	if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed%d", i)), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// FuzzDecodeMessage: accepted bytes encode to themselves.
func FuzzDecodeMessage(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err == nil && !bytes.Equal(Marshal(m), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
		InspectMessage(b)
		InspectWelcome(b)
		InspectKeyPackage(b, testNow)
	})
}

// FuzzDecodeTree: accepted trees encode to themselves, and once their unmerged leaves are sound every walk stays inside.
func FuzzDecodeTree(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		tree := DecodeTree(suite1, r)
		if r.Done() != nil {
			return
		}
		if !bytes.Equal(Marshal(tree), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
		tree.Hash()
		if tree.checkUnmerged() != nil {
			return
		}
		tree.check([]byte("group"), nil, testNow)
		for leaf := range tree.Width() {
			for _, at := range tree.FilteredDirectPath(leaf) {
				tree.Recipients(at.Copath, nil)
			}
		}
	})
}

func FuzzAuthenticatedContent(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(b)
		a := DecodeAuthenticatedContent(r)
		if r.Done() == nil && !bytes.Equal(Marshal(a), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
	})
}

// FuzzOpen signs and hashes what is fed anew, so that the rules behind the signature are reached.
func FuzzOpen(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		Open(b, testNow)
		m, err := DecodeMessage(b)
		if err != nil || m.WireFormat != WireGroupInfo {
			return
		}
		data, _ := m.GroupInfo.Extensions.Lookup(ExtRatchetTree)
		r := NewReader(data)
		tree := DecodeTree(suite1, r)
		if r.Done() != nil {
			return
		}
		m.GroupInfo.Context.TreeHash = tree.Hash()
		m.GroupInfo.Sign(suite1, signerOf("0"))
		if g, err := OpenGroupInfo(m.GroupInfo, nil, noTime); err == nil {
			g.Members()
		}
	})
}

// FuzzStage feeds commits and proposals that are signed by a member of the group they are fed to.
func FuzzStage(f *testing.F) {
	g := newTestGroup(f, 4)
	f.Fuzz(func(t *testing.T, b []byte) {
		g.Stage(b, testNow)
		m, err := DecodeMessage(b)
		if err != nil || m.WireFormat != WirePublicMessage {
			return
		}
		a := &m.Public.AuthenticatedContent
		a.Content.GroupID, a.Content.Epoch, a.Content.Sender = g.ID(), g.Epoch(), Sender{SenderMember, 0}
		sign(g, a)
		if c, err := g.Stage(public(a), noTime); err == nil {
			if _, err := UnmarshalGroup(must(c.Next().MarshalBinary())); err != nil {
				t.Fatalf("a staged group does not restore: %v", err)
			}
		}
		g.StageProposal(public(a), noTime)
	})
}

func FuzzUnmarshalGroup(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := UnmarshalGroup(b)
		if err != nil {
			return
		}
		if !bytes.Equal(must(g.MarshalBinary()), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
		g.Members()
		g.Pending()
	})
}
