package oauth

import (
	"crypto/ed25519"
	"crypto/rand"
	"path/filepath"
	"testing"
	"time"

	"letterlock/chat"
	"letterlock/dpop"
	"letterlock/store"
	"letterlock/store/sqlite"
)

// BenchmarkAuthenticate is what every call of an agent pays: token row, authorization row, proof.
func BenchmarkAuthenticate(b *testing.B) {
	st, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "test.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	s := &Service{Config: Config{Store: st, Verifier: dpop.NewVerifier(time.Now), Now: time.Now, Rand: rand.Reader}}
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	signer, err := dpop.NewSigner(key, rand.Reader, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	grant, jkt, far := chat.NewGrantID(), signer.Thumbprint(), time.Now().Add(time.Hour).UnixMilli()
	token := s.newToken(grant)
	_, hash, _ := parseToken(token)
	err = st.Update(b.Context(), func(tx *store.Tx) error {
		if err := tx.PutOAuthAuthorization(store.OAuthAuthorization{Grant: grant, Client: "flimmer", Thumbprint: jkt[:], Expires: far, Body: []byte{}}); err != nil {
			return err
		}
		return tx.PutOAuthToken(store.OAuthToken{Grant: grant, Hash: hash, Kind: store.OAuthAccess, Expires: far})
	})
	if err != nil {
		b.Fatal(err)
	}
	const address = "https://chat.example/inbox/v1/posts"
	requests := make([]dpop.Request, b.N)
	for i := range requests {
		proof, err := signer.Proof("POST", address, token)
		if err != nil {
			b.Fatal(err)
		}
		requests[i] = dpop.Request{Proof: proof, Method: "POST", URL: address, Token: token}
	}
	b.ResetTimer()
	for _, r := range requests {
		if _, err := s.Authenticate(b.Context(), r); err != nil {
			b.Fatal(err)
		}
	}
}
