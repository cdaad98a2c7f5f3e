package mls

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"letterlock/mls/roster"
)

// TestFuzzSeeds: the seeds of the fuzz tests are committed; without them fuzzing begins with nothing.
func TestFuzzSeeds(t *testing.T) {
	if os.Getenv("LETTERLOCK_WRITE_SEEDS") != "" {
		writeSeeds(t)
	}
	for _, name := range []string{"FuzzProcess", "FuzzJoin", "FuzzUnmarshalGroup", "FuzzUnmarshalKeyPackage", "FuzzUnmarshalPending", "FuzzGroupSecrets", "FuzzOpenContent"} {
		seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(seeds) == 0 {
			t.Errorf("no seeds for %s", name)
		}
	}
}

// writeSeeds makes the seeds anew, as after a change of a format.
func writeSeeds(t *testing.T) {
	groups := newGroupOf(t, 3)
	k, o := newPerson("x").keyPackage(t), newPerson("y").options()
	o.LastResort = true
	p := commit(t, groups[0], CommitOptions{Add: [][]byte{k.Public, must(NewKeyPackage(o)).Public}})
	for range 3 {
		must2(groups[1].Seal([]byte("skipped"), nil))
	}
	sealed := must2(groups[1].Seal([]byte("hello"), []byte("aad")))
	must(groups[0].Open(sealed))
	proposal, next, err := groups[1].ProposeUpdate(nil)
	if err != nil {
		t.Fatal(err)
	}
	remove, _, err := groups[1].ProposeRemove(0, nil)
	if err != nil {
		t.Fatal(err)
	}
	var body roster.Writer
	body.Opaque([]byte("hello"))
	body.Opaque(make([]byte, 64))
	for name, seeds := range map[string][][]byte{
		"FuzzProcess":             {p.Commit, p.Welcome, sealed, proposal, remove, k.Public, must(groups[0].GroupInfo())},
		"FuzzJoin":                {p.Welcome},
		"FuzzUnmarshalGroup":      {snapshot(t, groups[0]), snapshot(t, next), snapshot(t, groups[0].Restored())},
		"FuzzUnmarshalKeyPackage": {must(k.MarshalBinary())},
		"FuzzUnmarshalPending":    {must(p.MarshalBinary())},
		"FuzzGroupSecrets":        {roster.Marshal(&groupSecrets{joiner: make(secret, 32), path: make(secret, 32), psks: []roster.PreSharedKeyID{{Type: roster.PSKExternal, ID: []byte("x"), Nonce: make([]byte, 32)}}})},
		"FuzzOpenContent":         {append(body.Bytes(), 0, 0, 0)},
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

// fuzzGroup is one group for all inputs; what it is fed must not end it.
func fuzzGroup(f *testing.F) []*Group { f.Helper(); return newGroupOf(f, 3) }

func FuzzProcess(f *testing.F) {
	groups := fuzzGroup(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		// As another member could send it: the outer layers are made right, so that the inner ones are reached.
		if m, err := roster.DecodeMessage(b); err == nil && m.WireFormat == roster.WirePublicMessage {
			a := &m.Public.AuthenticatedContent
			a.Content.GroupID, a.Content.Epoch, a.Content.Sender = groups[1].ID(), groups[1].Epoch(), roster.Sender{Type: roster.SenderMember, Index: 1}
			if err := a.Sign(groups[1].suite.Suite, groups[1].signer, groups[1].public.Context()); err != nil {
				t.Fatal(err)
			}
			groups[0].ProcessWith(groups[1].publish(a), ProcessOptions{PrivateHandshakes: true})
		}
		groups[0].ProcessWith(b, ProcessOptions{PrivateHandshakes: true, Now: testNow})
		if groups[0].alive() != nil {
			t.Fatal("the group ended")
		}
	})
}

func FuzzJoin(f *testing.F) {
	k := newPerson("x").keyPackage(f)
	stored := must(k.MarshalBinary())
	f.Fuzz(func(t *testing.T, b []byte) {
		k := must(UnmarshalKeyPackage(stored))
		if m, err := roster.DecodeMessage(b); err == nil && m.WireFormat == roster.WireWelcome && len(m.Welcome.Secrets) > 0 {
			// The input's group info, sealed as an adder would seal it for us.
			told := groupSecrets{joiner: make(secret, 32)}
			m.Welcome.Secrets[0].NewMember = k.Ref
			c, err := k.suite.encryptTo(k.initKey.public, "Welcome", m.Welcome.EncryptedGroupInfo, roster.Marshal(&told))
			if err != nil {
				t.Fatal(err)
			}
			m.Welcome.Secrets[0].Secrets = c
			b = roster.Marshal(m)
		}
		Join(b, k, JoinOptions{Signer: newPerson("x").signer})
	})
}

func FuzzUnmarshalGroup(f *testing.F) {
	signer := newPerson("0").signer
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := UnmarshalGroup(b, signer)
		if err != nil {
			return
		}
		again, err := g.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := UnmarshalGroup(again, signer); err != nil {
			t.Fatalf("a snapshot of a snapshot: %v", err)
		}
		g.Generation()
		g.Seal([]byte("x"), nil)
		if p, err := g.Commit(CommitOptions{Now: testNow}); err == nil {
			p.Discard()
		}
	})
}

func FuzzUnmarshalKeyPackage(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := UnmarshalKeyPackage(b)
		if err == nil && !bytes.Equal(must(k.MarshalBinary()), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
	})
}

func FuzzUnmarshalPending(f *testing.F) {
	g := fuzzGroup(f)[0]
	f.Fuzz(func(t *testing.T, b []byte) { UnmarshalPending(b, g) })
}

func FuzzGroupSecrets(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeGroupSecrets(b)
		if err == nil && !bytes.Equal(roster.Marshal(&m), b) {
			t.Fatal("encodes otherwise than it decodes")
		}
	})
}

// FuzzOpenContent feeds what is inside a PrivateMessage, after decryption.
func FuzzOpenContent(f *testing.F) {
	groups := fuzzGroup(f)
	s := groups[0].suite
	key := messageKey{0, make(secret, s.KeySize), make(secret, s.NonceSize)}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, typ := range []roster.ContentType{roster.ContentApplication, roster.ContentProposal, roster.ContentCommit} {
			m := &roster.PrivateMessage{GroupID: groups[0].ID(), Epoch: groups[0].Epoch(), ContentType: typ}
			m.Ciphertext = must(s.seal(key.key, key.nonce, b, contentAAD(m)))
			if a, err := s.openContent(m, senderData{leaf: 1}, key); err == nil {
				if err := a.Sign(s.Suite, groups[1].signer, groups[0].public.Context()); err != nil {
					t.Fatal(err)
				}
				if groups[0].public.VerifyContent(a) == nil && typ != roster.ContentApplication {
					groups[0].processHandshake(a, ProcessOptions{})
				}
			}
		}
	})
}
