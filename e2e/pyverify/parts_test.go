package pyverify

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	vrf "filippo.io/mostly-harmless/vrf-r255"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/grant"
	"letterlock/keychain"
	"letterlock/labelmap"
	"letterlock/proof"
)

// key is the n-th key of these tests.
func key(n int) ed25519.PrivateKey {
	seed := sha256.Sum256(fmt.Appendf(nil, "key %d", n))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) [32]byte { return [32]byte(k.Public().(ed25519.PublicKey)) }

// spec/keychain.md, as it is written there: what package keychain would not build is built here.
type (
	entry struct {
		_       struct{} `cbor:",toarray"`
		Version uint64
		Account chat.AccountID
		N       uint64
		Prev    [32]byte
		Kind    uint64
		Payload []byte
		At      int64
		Signer  [32]byte
	}
	dev struct {
		_    struct{} `cbor:",toarray"`
		ID   chat.DeviceID
		Key  [32]byte
		Name string
	}
	creation struct {
		_            struct{} `cbor:",toarray"`
		Account      chat.AccountID
		Host, Handle string
		Recovery     [32]byte
		Device       dev
	}
	request struct {
		_        struct{} `cbor:",toarray"`
		Account  chat.AccountID
		Creation [32]byte
		Device   dev
	}
	removal struct {
		_      struct{} `cbor:",toarray"`
		Device chat.DeviceID
		Reason uint64
	}
	succession struct {
		_       struct{} `cbor:",toarray"`
		Account chat.AccountID
		Key     [32]byte
	}
	preference struct {
		_       struct{} `cbor:",toarray"`
		Name    uint64
		Partner string
		Value   uint64
	}
)

func seal(k ed25519.PrivateKey, domain string, v any) []byte {
	data, err := canon.Seal(k, "letterlock/"+domain+"/v1", v)
	if err != nil {
		panic(err)
	}
	return data
}

// chainOf is a key chain of random entries, of which most follow the rules.
func chainOf(r *rand.Rand) [][]byte {
	account := chat.AccountID{1}
	one := func(n int) bool { return r.IntN(n) == 0 } // one case in n
	pick := func(usual, odd string) string {
		if one(40) {
			return odd
		}
		return usual
	}
	device := func(i int) dev {
		return dev{ID: chat.DeviceID{byte(i)}, Key: public(key(i)), Name: pick("phone", []string{"", "a\u202eb", "a\nb", strings.Repeat("ä", 33), "ok \U0001f600"}[r.IntN(5)])}
	}
	recovery := 100
	first := device(1)
	e := entry{Version: 1, Account: account, Kind: 1, At: 5, Signer: first.Key}
	e.Payload = seal(key(recovery), "keychain-create", creation{Account: account, Host: pick("chat.example", "Chat"), Handle: pick("alice", "-a"),
		Recovery: public(key(recovery)), Device: first})
	chain := [][]byte{seal(key(1), "keychain", e)}
	made := sha256.Sum256(chain[0])
	for n := range r.IntN(8) {
		signer := []int{1, 1, 2, 3, recovery, 100}[r.IntN(6)]
		e := entry{Version: 1, Account: account, N: uint64(n + 1), Prev: sha256.Sum256(chain[n]), Kind: uint64(2 + r.IntN(4)), At: 6, Signer: public(key(signer))}
		switch e.Kind {
		case 2:
			i := 2 + r.IntN(4)
			q := request{Account: account, Creation: made, Device: device(i)}
			if one(30) {
				q.Creation[0]++
			}
			e.Payload = seal(key(i), "keychain-device", q)
		case 3:
			e.Payload = canon.MustMarshal(removal{Device: chat.DeviceID{byte(1 + r.IntN(4))}, Reason: uint64(1 + r.IntN(15)/5)})
			if one(30) {
				e.Payload = canon.MustMarshal(removal{Device: chat.DeviceID{1}, Reason: uint64(r.IntN(2) * 4)})
			}
		case 4:
			recovery = 101 + r.IntN(4)
			e.Payload = seal(key(recovery), "keychain-recovery", succession{Account: account, Key: public(key(recovery))})
		case 5:
			e.Payload = canon.MustMarshal(preference{Name: uint64(1 + r.IntN(12)/5), Partner: []string{"", "flimmer", "flimmer", "Flimmer"}[r.IntN(4)], Value: uint64(r.IntN(3))})
		}
		switch r.IntN(200) {
		case 0:
			e.Version = 2
		case 1:
			e.N++
		case 2:
			e.Prev[3]++
		case 3:
			e.At = -1
		case 4:
			e.Account[2]++
		case 5:
			e.Kind = []uint64{0, 1, 6}[r.IntN(3)]
		case 6:
			signer++
		}
		chain = append(chain, seal(key(signer), "keychain", e))
	}
	if one(20) {
		last := chain[len(chain)-1]
		last[r.IntN(len(last))] ^= 1 << r.IntN(8)
	}
	return chain
}

func TestKeyChains(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 1))
	var questions []question
	ask := func(name string, chain [][]byte) {
		_, err := keychain.Open(chain)
		questions = append(questions, question{name, err, "key-chain", chain})
	}
	for i := range 3000 {
		ask(fmt.Sprintf("chain %d", i), chainOf(r))
	}
	agree(t, questions)
}

// TestLongKeyChains: 32 devices at a time, and the last 64 of 4,096 entries are for the recovery key alone.
func TestLongKeyChains(t *testing.T) {
	var questions []question
	ask := func(name string, chain [][]byte) {
		_, err := keychain.Open(chain)
		questions = append(questions, question{name, err, "key-chain", slices.Clone(chain)})
	}
	begin := func() [][]byte {
		e := entry{Version: 1, Account: chat.AccountID{1}, Kind: 1, Signer: public(key(1))}
		e.Payload = seal(key(100), "keychain-create", creation{Account: e.Account, Host: "chat.example", Handle: "alice", Recovery: public(key(100)),
			Device: dev{ID: chat.DeviceID{1}, Key: public(key(1)), Name: "phone"}})
		return [][]byte{seal(key(1), "keychain", e)}
	}
	add := func(chain [][]byte, kind uint64, payload []byte, signer int) [][]byte {
		return append(chain, seal(key(signer), "keychain", entry{Version: 1, Account: chat.AccountID{1}, N: uint64(len(chain)),
			Prev: sha256.Sum256(chain[len(chain)-1]), Kind: kind, Payload: payload, Signer: public(key(signer))}))
	}
	chain := begin()
	for i := 2; i <= 33; i++ {
		q := request{Account: chat.AccountID{1}, Creation: sha256.Sum256(chain[0]), Device: dev{ID: chat.DeviceID{byte(i)}, Key: public(key(i)), Name: "phone"}}
		chain = add(chain, 2, seal(key(i), "keychain-device", q), 1)
		ask(fmt.Sprintf("%d devices", i), chain)
	}
	chain = begin()
	wish := canon.MustMarshal(preference{Name: 1, Partner: "flimmer", Value: 1})
	for len(chain) < 4096-64 {
		chain = add(chain, 5, wish, 1)
	}
	ask("as long as devices may make it", chain)
	ask("a device behind that", add(slices.Clip(chain), 5, wish, 1))
	for len(chain) < 4096 {
		chain = add(chain, 5, wish, 100)
	}
	ask("as long as it may be", chain)
	ask("longer", add(slices.Clip(chain), 5, wish, 100))
	agree(t, questions)
}

func TestAgreements(t *testing.T) {
	var questions []question
	ask := func(name string, change func(a *grant.Agreement)) {
		a := grant.Agreement{Version: 1, Number: 1, Host: "chat.example", Partner: "flimmer", Name: "Flimmer", RootKey: public(key(1)), Actions: 7, ReportDays: 14,
			PostsPerMinute: 60, NotBefore: 1000, NotAfter: 2000, LinkBases: []string{"https://flimmer.example/v"}, Interfaces: []string{"share button"}}
		change(&a)
		body := canon.MustMarshal(&a)
		c := grant.Countersigned{Body: body, Partner: canon.Sign(key(1), "letterlock/agreement/v1", body), Operator: canon.Sign(key(2), "letterlock/agreement-operator/v1", body)}
		switch name {
		case "not signed by the partner":
			c.Partner[5]++
		case "not signed by the operator":
			c.Operator = c.Partner
		}
		record := canon.MustMarshal(&c)
		operator := public(key(2))
		_, err := grant.OpenAgreement(record, operator[:])
		questions = append(questions, question{name, err, "agreement", [][]byte{record, operator[:]}})
	}
	for _, name := range []string{"as it should be", "not signed by the partner", "not signed by the operator"} {
		ask(name, func(*grant.Agreement) {})
	}
	ask("version", func(a *grant.Agreement) { a.Version = 2 })
	ask("host", func(a *grant.Agreement) { a.Host = "Chat.example" })
	ask("partner", func(a *grant.Agreement) { a.Partner = "" })
	ask("no actions", func(a *grant.Agreement) { a.Actions = 0 })
	ask("other actions", func(a *grant.Agreement) { a.Actions = 8 })
	ask("ends before it begins", func(a *grant.Agreement) { a.NotAfter = 1000 })
	ask("begins at nothing", func(a *grant.Agreement) { a.NotBefore = 0 })
	ask("report days", func(a *grant.Agreement) { a.ReportDays = 367 })
	ask("no posts", func(a *grant.Agreement) { a.PostsPerMinute = 0 })
	ask("too many posts", func(a *grant.Agreement) { a.PostsPerMinute = 1_000_001 })
	ask("a label twice", func(a *grant.Agreement) { a.Surfaces = []string{"a", "b", "a"} })
	ask("too many labels", func(a *grant.Agreement) {
		for i := range 65 {
			a.Variants = append(a.Variants, fmt.Sprint(i))
		}
	})
	ask("too many link bases", func(a *grant.Agreement) { a.LinkBases = slices.Repeat(a.LinkBases, 65) })
	for _, text := range []string{"", " a", "a ", "a\u00a0", "a\u2003b", "a\tb", "a\u200bb", "a\u202eb", "a\u00adb", "a\U00013439b", "a\U000e0001b", "ä€😀", "a\u0085",
		strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("ä", 32), strings.Repeat("ä", 33), "a\u0000", "a\u007f", "a\u2028b", "a\ue000b"} {
		ask(fmt.Sprintf("name %q", text), func(a *grant.Agreement) { a.Name = text })
		ask(fmt.Sprintf("label %q", text), func(a *grant.Agreement) { a.Surfaces = []string{text} })
	}
	for _, base := range []string{"", "https://", "http://x", "HTTP://x", "ftp://x", "https:/x", "https:x", "//x", "https://x?", "https://x?a", "https://x#", "https://x#a", "https://x??", "https://x?#",
		"https://u@x", "https://x:80", "https://x:", "https://:80", "https://x:8a", "https://x:1:2", "https://x/a b", "https://x y/", "https://x/%41", "https://x/%4", "https://x/%zz", "https://x%41/",
		"https://x%c3%a4/", "https://ä.example/", "https://[::1]/", "https://[::1]:80/a", "https://[::1", "https://[x]/", "https://x/\n", "https://x/\u007f", "https://x/ä", "https://x/..", "https://x//y",
		"https://x\"<>/", "https://x^/", "https://x|/", "https://x\\/", "https://x/\\", "https://x{}/", "https://x`/", " https://x", "https://x ", "https://x!$&'()*+,;=/", "https:///p", "https://x%25/",
		"https://" + strings.Repeat("x", 504), "https://" + strings.Repeat("x", 505), "https://\u017f/", "http\u017f://x/", "https://x%C3%A4/", "https://X.example/A"} {
		ask(fmt.Sprintf("link base %q", base), func(a *grant.Agreement) { a.LinkBases = []string{base} })
	}
	agree(t, questions)
}

// TestStructures changes encodings at random: both read the same ones.
func TestStructures(t *testing.T) {
	g := grant.Grant{Version: 1, ID: chat.GrantID{1}, Account: chat.AccountID{2}, Handle: "älice", Partner: "flimmer", Actions: 7, ChainVersion: 300,
		SlotSigners: [][32]byte{{1}, {2}}, Issued: 70_000, Expiry: 5_000_000_000, Counter: 23, Device: chat.DeviceID{3}}
	a := grant.Agreement{Version: 1, Number: 24, Host: "chat.example", Partner: "flimmer", Name: "Flimmer", Actions: 7, ReportDays: 255, PostsPerMinute: 256,
		LinkBases: []string{"https://flimmer.example/v"}, Interfaces: []string{"a", "b"}, NotBefore: -1, NotAfter: 65535}
	r := rand.New(rand.NewPCG(4, 2))
	var questions []question
	for i := range 6000 {
		kind, value, into := "grant", any(&g), any(&grant.Grant{})
		if i%2 == 1 {
			kind, value, into = "agreement", &a, &grant.Agreement{}
		}
		data := canon.MustMarshal(value)
		for range r.IntN(3) {
			at := r.IntN(len(data))
			switch r.IntN(4) {
			case 0:
				data[at] ^= 1 << r.IntN(8)
			case 1:
				data[at] = []byte{0, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x40, 0x58, 0x5f, 0x60, 0x78, 0x7f, 0x80, 0x9f, 0xa0, 0xc0, 0xf4, 0xf6, 0xf9, 0xff}[r.IntN(20)]
			case 2:
				data = slices.Delete(data, at, at+1)
			case 3:
				data = slices.Insert(data, at, byte(r.IntN(256)))
			}
		}
		questions = append(questions, question{fmt.Sprintf("%s %d", kind, i), canon.Unmarshal(data, into), "structure", [][]byte{[]byte(kind), data}})
	}
	agree(t, questions)
}

// TestSignatures tries keys and signatures that libraries disagree on (RFC 8032 section 8.9).
func TestSignatures(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 3))
	var questions []question
	ask := func(name string, key, body, sig []byte) {
		err := canon.ErrSignature
		if canon.Verify(key, "letterlock/test/v1", body, sig) {
			err = nil
		}
		questions = append(questions, question{name, err, "signature", [][]byte{slices.Clone(key), []byte("letterlock/test/v1"), body, sig}})
	}
	order, _ := hex.DecodeString("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	plus := func(s []byte) []byte { // s + the order of the group: the same scalar, written in another way
		sum, carry := slices.Clone(s), 0
		for i := range sum {
			carry += int(s[i]) + int(order[i])
			sum[i], carry = byte(carry), carry>>8
		}
		return sum
	}
	for i := range 200 {
		k, body := key(i), []byte{byte(i)}
		pub := public(k)
		sig := canon.Sign(k, "letterlock/test/v1", body)
		ask("good", pub[:], body, sig)
		ask("larger s", pub[:], body, append(slices.Clone(sig[:32]), plus(sig[32:])...))
		ask("short", pub[:], body, sig[:63])
		ask("other body", pub[:], append(body, 1), sig)
		bad := slices.Clone(sig)
		bad[r.IntN(64)] ^= 1 << r.IntN(8)
		ask("changed", pub[:], body, bad)
		pub[r.IntN(32)] ^= 1 << r.IntN(8)
		ask("other key", pub[:], body, sig)
	}
	small := [][]byte{make([]byte, 32), append([]byte{1}, make([]byte, 31)...), append(append([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f)}
	for _, k := range small {
		for _, first := range small {
			ask("small order", k, []byte("any"), append(slices.Clone(first), make([]byte, 32)...))
		}
	}
	agree(t, questions)
}

// TestPolicies changes policies at random, a word, a letter or a line: both read the same ones.
func TestPolicies(t *testing.T) {
	example, err := os.ReadFile("../../verifier/example/policy.txt")
	if err != nil {
		t.Fatal(err)
	}
	extra := "\n\tgroup  h any g\ngroup all all h\n"
	texts := []string{string(example), strings.Replace(string(example), "\nquorum g", extra+"quorum all", 1), strings.Replace(string(example), "quorum g", "quorum none", 1)}
	words := []string{"log", "witness", "group", "quorum", "none", "any", "all", "g", "h", "w1.example", "1", "2", "3", "4", "0", "01", "-1", "+1", "#", "\u00a0", "\r", "\v", "\t", " ", "\n", "\n\n", "ä", "\x7f",
		strings.Repeat("x", 128), strings.Repeat("x", 129)}
	r := rand.New(rand.NewPCG(4, 4))
	var questions []question
	for i := range 4000 {
		text := texts[r.IntN(len(texts))]
		for range r.IntN(4) {
			switch r.IntN(3) {
			case 0: // a letter
				at := r.IntN(len(text))
				text = text[:at] + string("0aA+/=\n "[r.IntN(8)]) + text[at+1:]
			case 1: // a word for another, or one more
				fields := strings.SplitAfter(text, " ")
				fields[r.IntN(len(fields))] = words[r.IntN(len(words))] + []string{" ", "", "\n"}[r.IntN(3)]
				text = strings.Join(fields, "")
			case 2: // a line away, or twice
				lines := strings.SplitAfter(text, "\n")
				at := r.IntN(len(lines))
				lines[at] = strings.Repeat(lines[at], 2*r.IntN(2))
				text = strings.Join(lines, "") + " "
			}
		}
		_, err := proof.ParsePolicy([]byte(text))
		questions = append(questions, question{fmt.Sprintf("policy %d: %q", i, text), err, "policy", [][]byte{[]byte(text)}})
	}
	agree(t, questions)
}

// TestMapProofs: proofs of a map, changed at random.
func TestMapProofs(t *testing.T) {
	var entries []labelmap.Entry
	for i := range 200 {
		entries = append(entries, labelmap.Entry{Label: sha256.Sum256([]byte{byte(i)}), Value: sha256.Sum256([]byte{byte(i), 1})})
	}
	slices.SortFunc(entries, func(x, y labelmap.Entry) int { return bytes.Compare(x.Label[:], y.Label[:]) })
	buckets := map[labelmap.Bucket][]labelmap.Entry{}
	for _, e := range entries {
		buckets[labelmap.BucketOf(e.Label)] = append(buckets[labelmap.BucketOf(e.Label)], e)
	}
	tree := labelmap.Tree{}.With(buckets)
	root := tree.Root()
	r := rand.New(rand.NewPCG(4, 5))
	var questions []question
	for i := range 3000 {
		label := sha256.Sum256([]byte{byte(i), byte(i >> 8)})
		if i%2 == 0 {
			label = entries[r.IntN(len(entries))].Label
		}
		p, err := tree.Prove(label, func(b labelmap.Bucket) ([]labelmap.Entry, error) { return buckets[b], nil })
		if err != nil {
			t.Fatal(err)
		}
		switch r.IntN(7) {
		case 0:
			p.Kind ^= 1
		case 1:
			p.Leaf = append(entries[0].Label[:], entries[0].Value[:]...)
		case 2:
			p.Bits[r.IntN(len(p.Bits))] ^= 1 << r.IntN(8)
		case 3:
			label[r.IntN(32)] ^= 1 << r.IntN(8)
		case 4:
			p.Bits, p.Siblings = p.Bits[1:], p.Siblings[32:]
		case 5: // the way to another entry, as if the label's walk ended there
			other := entries[r.IntN(len(entries))]
			if p, err = tree.Prove(other.Label, func(b labelmap.Bucket) ([]labelmap.Entry, error) { return buckets[b], nil }); err != nil {
				t.Fatal(err)
			}
			p.Kind, p.Leaf = labelmap.Absent, append(other.Label[:], other.Value[:]...)
		}
		data := p.Bytes()
		parsed, err := labelmap.ParseProof(data)
		if err == nil {
			_, _, err = parsed.Check(root, label)
		}
		questions = append(questions, question{fmt.Sprintf("proof %d", i), err, "map-proof", [][]byte{root[:], label[:], data}})
	}
	agree(t, questions)
}

// TestLabels: proofs of the VRF, changed at random.
func TestLabels(t *testing.T) {
	secret := make([]byte, 32)
	secret[0] = 7
	private, err := vrf.NewPrivateKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(4, 6))
	var questions []question
	for i := range 400 {
		place := proof.KeyPlace{Handle: "alice", N: uint64(i)}
		label := proof.ProveLabel(private, place)
		alpha := append([]byte("letterlock/keychain-label/v1\x00"), canon.MustMarshal(place)...)
		pub, pi := private.PublicKey().Bytes(), label.Proof[:]
		switch r.IntN(6) {
		case 0:
			pi = slices.Clone(pi)
			pi[r.IntN(len(pi))] ^= 1 << r.IntN(8)
		case 1:
			pub[r.IntN(len(pub))] ^= 1 << r.IntN(8)
		case 2:
			pi = slices.Clone(pi)
			copy(pi, make([]byte, 32)) // the identity
		}
		key, err := proof.NewVRFKey(pub)
		if err == nil {
			_, err = proof.CheckLabel(key, place, pi)
		}
		questions = append(questions, question{fmt.Sprintf("proof %d", i), err, "vrf", [][]byte{pub, alpha, pi}})
	}
	agree(t, questions)
}
