package envelope_test

import (
	"bytes"
	"crypto/ed25519"
	"go/parser"
	"go/token"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot/envelope"
)

// TestTheServerSeesTheOutside: what the server does with a post needs no slot key, and what is inside is not looked at.
func TestTheServerSeesTheOutside(t *testing.T) {
	grant := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	public := grant.Public().(ed25519.PublicKey)
	h := envelope.Header{Version: 1, Host: "chat.example", Conversation: chat.ConversationID{1}, Epoch: 7, Grant: chat.GrantID{2}, At: 1}
	p := envelope.Post{Header: canon.MustMarshal(h), KEMOutput: []byte("whatever"), Ciphertext: []byte("this is")}
	p.Signature = canon.Sign(grant, envelope.DomainPost, p.Signed())
	data := canon.MustMarshal(p)
	if got, err := envelope.Inspect(data, public); err != nil || *got != h {
		t.Fatalf("%+v %v", got, err)
	}
	for name, spoil := range map[string]func(*envelope.Post){
		"KEM output":               func(p *envelope.Post) { p.KEMOutput = []byte("x") },
		"ciphertext":               func(p *envelope.Post) { p.Ciphertext = nil },
		"signature":                func(p *envelope.Post) { p.Signature = p.Signature[:63] },
		"header":                   func(p *envelope.Post) { g := h; g.Epoch++; p.Header = canon.MustMarshal(g) },
		"border between two parts": func(p *envelope.Post) { p.KEMOutput, p.Ciphertext = []byte("whatevert"), []byte("his is") },
	} {
		q := p
		spoil(&q)
		if _, err := envelope.Inspect(canon.MustMarshal(q), public); !chat.Is(err, chat.Forbidden) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestNoKeysHere: this package, which the server links, imports nothing that could seal or open.
func TestNoKeysHere(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "envelope.go", nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{`"crypto/ed25519"`: true, `"letterlock/canon"`: true, `"letterlock/chat"`: true}
	for _, i := range f.Imports {
		if !allowed[i.Path.Value] {
			t.Errorf("imports %s", i.Path.Value)
		}
	}
}
