package grant_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
)

var update = flag.Bool("update", false, "write the fuzz seeds anew")

var fuzzTests = []string{"FuzzOpenThread", "FuzzPeek", "FuzzPeekRevocation", "FuzzPeekNarrowing", "FuzzOpenOffer", "FuzzOpenCert", "FuzzCheckCerts", "FuzzOpenProofs"}

// fuzzSeeds are good inputs, and some that are good but for one thing.
func fuzzSeeds(t testing.TB) map[string][][]byte {
	k := key("alice")
	w := newWorld(t)
	d := w.draft(w.alicePhone, 1, chat.AllActions)
	g, r, n, a := grantNow(), revocationNow(), narrowingNow(), agreementNow()
	signed := must(g.Sign(k))
	offer := must(a.Offer(w.root))
	other := g
	other.Version = 2
	return map[string][][]byte{
		"FuzzOpenThread": {grant.NewThread(testHost, "").Marshal(), grant.NewThread(testHost, testPartner).Marshal(),
			grant.NewThread(testHost, testPartner).With(g.Entry(signed)).With(grant.Entry{Grant: chat.GrantID{9}, Account: chat.AccountID{1}, Handle: "bob", Actions: chat.Send}).Marshal()},
		"FuzzPeek":           {signed, must(d.grant.Sign(k)), must(canon.Seal(k, "letterlock/grant/v1", other))},
		"FuzzPeekRevocation": {must(r.Sign(k)), signed},
		"FuzzPeekNarrowing":  {must(n.Sign(k)), must(r.Sign(k))},
		"FuzzOpenOffer":      {offer, must(grant.Countersign(offer, w.operator))},
		"FuzzOpenCert":       {must(grant.Certify(w.root, d.agentCert)), must(grant.Certify(w.agent, d.grantCert))},
		"FuzzCheckCerts":     {d.certs(), canon.MustMarshal(grant.Certs{})},
		"FuzzOpenProofs":     {d.options().AuthenticatedData, canon.MustMarshal(grant.Proofs{Version: 1})},
	}
}

// TestFuzzSeeds fails when a fuzz test has no seeds: it would then test nothing in a plain `go test`.
func TestFuzzSeeds(t *testing.T) {
	if *update {
		for name, list := range fuzzSeeds(t) {
			dir := filepath.Join("testdata", "fuzz", name)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			for i, data := range list {
				text := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", data)
				if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("seed-%d", i)), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, name := range fuzzTests {
		if files, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*")); err != nil || len(files) == 0 {
			t.Errorf("%s has no seeds: run go test ./grant -run TestFuzzSeeds -update", name)
		}
	}
}

// kinded fails on an error without a kind: whatever outsiders send is their error, not ours.
func kinded(t *testing.T, err error) {
	t.Helper()
	if err != nil && chat.KindOf(err) == chat.Internal {
		t.Fatalf("an error without a kind: %v", err)
	}
}

func same(t *testing.T, data, again []byte) {
	t.Helper()
	if !bytes.Equal(data, again) {
		t.Fatalf("accepted bytes do not encode back to themselves:\n%x\n%x", data, again)
	}
}

// body is what a Signed holds.
func body(t *testing.T, signed []byte) []byte {
	t.Helper()
	var s canon.Signed
	if err := canon.Unmarshal(signed, &s); err != nil {
		t.Fatal(err)
	}
	same(t, signed, canon.MustMarshal(s))
	return s.Body
}

func FuzzOpenThread(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		thread, err := grant.OpenThread(data)
		kinded(t, err)
		if err == nil {
			same(t, data, thread.Marshal())
		}
	})
}

func FuzzPeek(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := grant.Peek(data)
		kinded(t, err)
		if err == nil {
			same(t, body(t, data), canon.MustMarshal(g))
			if _, err := grant.OpenThread(grant.NewThread(testHost, g.Partner).With(g.Entry(data)).Marshal()); err != nil {
				t.Fatalf("a grant that could never enter a thread: %v", err)
			}
		}
	})
}

func FuzzPeekRevocation(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := grant.PeekRevocation(data)
		kinded(t, err)
		if err == nil {
			same(t, body(t, data), canon.MustMarshal(r))
		}
	})
}

func FuzzPeekNarrowing(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := grant.PeekNarrowing(data)
		kinded(t, err)
		if err == nil {
			same(t, body(t, data), canon.MustMarshal(n))
			if _, err := grant.PeekRevocation(data); err == nil {
				t.Fatal("one statement that is a narrowing and a revocation")
			}
		}
	})
}

func FuzzOpenOffer(f *testing.F) {
	operator := key("server")
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := grant.OpenOffer(data)
		kinded(t, err)
		if err != nil {
			return
		}
		var c grant.Countersigned
		if err := canon.Unmarshal(data, &c); err != nil {
			t.Fatal(err)
		}
		same(t, c.Body, canon.MustMarshal(a))
		if _, err := grant.OpenAgreement(must(grant.Countersign(data, operator)), public(operator)); err != nil {
			t.Fatalf("an offer that cannot be countersigned: %v", err)
		}
	})
}

func FuzzOpenCert(f *testing.F) {
	root, agent := key("flimmer root"), key("flimmer agent")
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, signer := range [][]byte{public(root), public(agent)} {
			c, err := grant.OpenCert(data, signer)
			kinded(t, err)
			if err == nil {
				same(t, body(t, data), canon.MustMarshal(c))
			}
		}
	})
}

func FuzzCheckCerts(f *testing.F) {
	root := key("flimmer root")
	want := public(key("grant " + chat.GrantID{1}.String()))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := grant.CheckCerts(data, public(root), testPartner, chat.GrantID{1}, nowMS)
		kinded(t, err)
		if err == nil && !bytes.Equal(got, want) {
			t.Fatalf("certificates that nobody signed certify %x", got)
		}
	})
}

func FuzzOpenProofs(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := grant.OpenProofs(data)
		kinded(t, err)
		if err == nil {
			same(t, data, p.Marshal())
		}
	})
}
