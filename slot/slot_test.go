package slot_test

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
	"letterlock/slot"
	"letterlock/slot/envelope"
)

const (
	testHost = "chat.example:8080"
	now      = int64(1_767_323_045_000)
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// secret is what MLS exports for an epoch.
func secret(epoch byte) []byte { return bytes.Repeat([]byte{epoch}, slot.Length) }

func derive(epoch byte) (slot.PrivateKey, slot.PublicKey) {
	private, public, err := slot.Derive(secret(epoch))
	if err != nil {
		panic(err)
	}
	return private, public
}

func headerNow() slot.Header {
	return slot.Header{Host: testHost, Conversation: chat.ConversationID{1}, Epoch: 7, Grant: chat.GrantID{2}, Counter: 3, Message: chat.MessageID{1, 4}, At: now,
		Labels: slot.Labels{Interface: "web", Surface: "player", Variant: "a"}}
}

// refused fails unless err is of the kind and says so.
func refused(t testing.TB, err error, kind chat.Kind, says string) {
	t.Helper()
	if err == nil || chat.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		t.Errorf("%v; want %s: %q", err, kind, says)
	}
}

func TestDerive(t *testing.T) {
	ikm := secret(1)
	private, first, err := slot.Derive(ikm)
	if err != nil || first == (slot.PublicKey{}) {
		t.Fatal(err)
	}
	if !bytes.Equal(ikm, make([]byte, slot.Length)) {
		t.Error("the secret was not wiped")
	}
	_, again := derive(1)
	_, other := derive(2)
	if again != first || other == first {
		t.Error("a key follows from its secret, and from nothing else")
	}
	// What one derivation seals to, another opens.
	h := headerNow()
	data := must(slot.Seal(again, h, []byte("x"), key("grant")))
	if _, content, err := slot.Open(data, private, public(key("grant"))); err != nil || string(content) != "x" {
		t.Errorf("%q %v", content, err)
	}
	for _, n := range []int{0, 1, slot.Length - 1, slot.Length + 1, 64} {
		short := bytes.Repeat([]byte{1}, n)
		_, _, err := slot.Derive(short)
		refused(t, err, chat.Invalid, "wrong length")
		if !bytes.Equal(short, make([]byte, n)) {
			t.Errorf("a secret of %d bytes was not wiped", n)
		}
	}
}

// TestVector holds the formulas of spec/slot.md against the vector on that page, byte for byte.
func TestVector(t *testing.T) {
	v := vector(t)
	private, pk, err := slot.Derive(bytes.Clone(v["ikm"]))
	if err != nil || !bytes.Equal(pk[:], v["pk"]) {
		t.Fatalf("pk %x %v", pk, err)
	}
	grant := ed25519.NewKeyFromSeed(v["grant seed"])
	if !bytes.Equal(public(grant), v["grant key"]) {
		t.Errorf("grant key %x", public(grant))
	}
	h, content, err := slot.Open(v["post"], private, public(grant))
	if err != nil || !bytes.Equal(content, v["content"]) {
		t.Fatalf("content %q %v", content, err)
	}
	want := slot.Header{Version: 1, Host: testHost, Conversation: chat.ConversationID([]byte("conversation 16b")), Epoch: 7, Grant: chat.GrantID([]byte("grant  16  bytes")),
		Counter: 3, Message: chat.MessageID([]byte("\x01message id of thirty-two bytes.")), At: now, Labels: slot.Labels{Interface: "web", Surface: "player"}}
	if *h != want {
		t.Errorf("header %+v", h)
	}
	var p envelope.Post
	if err := canon.Unmarshal(v["post"], &p); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"header": p.Header, "kem_output": p.KEMOutput, "ciphertext": p.Ciphertext, "signature": p.Signature} {
		if !bytes.Equal(got, v[name]) {
			t.Errorf("%s %x", name, got)
		}
	}

	// The formulas once more, with the standard library alone.
	sk := must(hpke.DHKEM(ecdh.X25519()).DeriveKeyPair(bytes.Clone(v["ikm"])))
	if !bytes.Equal(must(sk.Bytes()), v["sk"]) || !bytes.Equal(sk.PublicKey().Bytes(), v["pk"]) {
		t.Error("sk, pk")
	}
	info := append([]byte("letterlock/post-seal/v1\x00"), v["header"]...)
	r := must(hpke.NewRecipient(v["kem_output"], sk, hpke.HKDFSHA256(), hpke.AES128GCM(), info))
	if content, err := r.Open(v["header"], v["ciphertext"]); err != nil || !bytes.Equal(content, v["content"]) {
		t.Errorf("content %q %v", content, err)
	}
	if !ed25519.Verify(v["grant key"], append([]byte("letterlock/post/v1\x00"), p.Signed()...), v["signature"]) {
		t.Error("signature")
	}
}

// vector reads "name = hex" lines of the page's last section; a value goes on in lines that are indented further.
func vector(t *testing.T) map[string][]byte {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "spec", "slot.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "## Test vector")
	if !ok {
		t.Fatal("spec/slot.md has no test vector")
	}
	text := map[string]string{}
	name := ""
	for line := range strings.Lines(section) {
		if before, after, ok := strings.Cut(line, " = "); ok && strings.HasPrefix(line, "    ") {
			name = strings.TrimSpace(before)
			text[name] = strings.TrimSpace(after)
		} else if name != "" && strings.HasPrefix(line, "     ") {
			text[name] += strings.TrimSpace(line)
		}
	}
	v := map[string][]byte{}
	for _, name := range []string{"ikm", "sk", "pk", "grant seed", "grant key", "content", "header", "kem_output", "ciphertext", "signature", "post"} {
		if v[name], err = hex.DecodeString(text[name]); err != nil || len(v[name]) == 0 {
			t.Fatalf("%s: %q %v", name, text[name], err)
		}
	}
	return v
}

func TestPostRoundTrip(t *testing.T) {
	private, pk := derive(1)
	grant := key("grant")
	for _, content := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte{0xff}, slot.MaxContent)} {
		h := headerNow()
		data, err := slot.Seal(pk, h, content, grant)
		if err != nil || len(data) > slot.MaxPost {
			t.Fatalf("%d bytes: %v", len(data), err)
		}
		h.Version = 1
		got, opened, err := slot.Open(data, private, public(grant))
		if err != nil || *got != h || !bytes.Equal(opened, content) {
			t.Fatalf("%+v %v", got, err)
		}
		if peeked, err := slot.Peek(data); err != nil || *peeked != h {
			t.Errorf("%+v %v", peeked, err)
		}
		if seen, err := slot.Inspect(data, public(grant)); err != nil || *seen != h {
			t.Errorf("%+v %v", seen, err)
		}
		if again := must(slot.Seal(pk, h, content, grant)); bytes.Equal(again, data) {
			t.Error("two sealings are alike")
		}
		if len(content) > 8 && bytes.Contains(data, content[:8]) {
			t.Error("the content stands in the post")
		}
	}
	_, err := slot.Seal(pk, headerNow(), make([]byte, slot.MaxContent+1), grant)
	refused(t, err, chat.TooLarge, "larger than")
	_, err = slot.Seal(slot.PublicKey{}, headerNow(), nil, grant) // a point of small order: everybody knows what is sealed to it
	refused(t, err, chat.Invalid, "slot's key")
}

func TestHeaderFields(t *testing.T) {
	_, pk := derive(1)
	grant := key("grant")
	long := strings.Repeat("a", 65)
	for name, spoil := range map[string]func(*slot.Header){
		"no host":               func(h *slot.Header) { h.Host = "" },
		"a host in capitals":    func(h *slot.Header) { h.Host = "Chat.example" },
		"no conversation":       func(h *slot.Header) { h.Conversation = chat.ConversationID{} },
		"no grant":              func(h *slot.Header) { h.Grant = chat.GrantID{} },
		"no time":               func(h *slot.Header) { h.At = 0 },
		"before time":           func(h *slot.Header) { h.At = -1 },
		"a long interface":      func(h *slot.Header) { h.Labels.Interface = long },
		"a long surface":        func(h *slot.Header) { h.Labels.Surface = long },
		"a long variant":        func(h *slot.Header) { h.Labels.Variant = long },
		"an interface too many": func(h *slot.Header) { h.Labels.Interface = long + long },
	} {
		h := headerNow()
		spoil(&h)
		if _, err := slot.Seal(pk, h, nil, grant); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: sealed: %v", name, err)
		}
		h.Version = 1
		if _, err := slot.Peek(resigned(h, must(slot.Seal(pk, headerNow(), nil, grant)), grant)); !chat.Is(err, chat.Invalid) {
			t.Errorf("%s: read: %v", name, err)
		}
	}
	h := headerNow()
	h.Version = 2
	_, err := slot.Peek(resigned(h, must(slot.Seal(pk, headerNow(), nil, grant)), grant))
	refused(t, err, chat.Incompatible, "version 2")
}

// resigned puts another header on a post, signed with a key.
func resigned(h slot.Header, data []byte, k ed25519.PrivateKey) []byte {
	var p envelope.Post
	if err := canon.Unmarshal(data, &p); err != nil {
		panic(err)
	}
	p.Header = canon.MustMarshal(h)
	p.Signature = canon.Sign(k, envelope.DomainPost, p.Signed())
	return canon.MustMarshal(p)
}

// TestAPostIsNotMoved: its ciphertext opens under its own header only, even for who can sign another one.
func TestAPostIsNotMoved(t *testing.T) {
	private, pk := derive(1)
	grant := key("grant")
	data := must(slot.Seal(pk, headerNow(), []byte("Metropolis"), grant))
	h := headerNow()
	h.Version = 1
	if _, _, err := slot.Open(resigned(h, data, grant), private, public(grant)); err != nil {
		t.Fatalf("under its own header: %v", err)
	}
	for name, move := range map[string]func(*slot.Header){
		"host":         func(h *slot.Header) { h.Host = "other.example" },
		"conversation": func(h *slot.Header) { h.Conversation[0]++ },
		"epoch":        func(h *slot.Header) { h.Epoch++ },
		"earlier":      func(h *slot.Header) { h.Epoch-- },
		"grant":        func(h *slot.Header) { h.Grant[0]++ },
		"counter":      func(h *slot.Header) { h.Counter++ },
		"message":      func(h *slot.Header) { h.Message[31]++ },
		"time":         func(h *slot.Header) { h.At++ },
		"interface":    func(h *slot.Header) { h.Labels.Interface = "tv" },
		"surface":      func(h *slot.Header) { h.Labels.Surface = "" },
		"variant":      func(h *slot.Header) { h.Labels.Variant = "b" },
	} {
		h := headerNow()
		h.Version = 1
		move(&h)
		moved := resigned(h, data, grant)
		if _, err := slot.Inspect(moved, public(grant)); err != nil {
			t.Fatalf("%s: the signature should hold, or this shows nothing: %v", name, err)
		}
		_, content, err := slot.Open(moved, private, public(grant))
		t.Run(name, func(t *testing.T) { refused(t, err, chat.Invalid, "not sealed to this slot") })
		if content != nil {
			t.Errorf("%s: content beside an error", name)
		}
	}
}

// TestMembersCannotForge: every member can compute the slot's private key, and seal; none has the grant's key.
func TestMembersCannotForge(t *testing.T) {
	private, pk := derive(1)
	grant := key("grant")
	for name, forger := range map[string]ed25519.PrivateKey{"a member": key("mallory"), "the agent, under its other grant": key("another grant")} {
		forged := must(slot.Seal(pk, headerNow(), []byte("forged"), forger))
		_, content, err := slot.Open(forged, private, public(grant))
		t.Run(name, func(t *testing.T) { refused(t, err, chat.Forbidden, "not signed with its grant's key") })
		if content != nil {
			t.Error("content beside an error")
		}
		_, err = slot.Inspect(forged, public(grant))
		refused(t, err, chat.Forbidden, "not signed with its grant's key")
	}
	// Nor does the agent's signature for something else serve, nor one post's for another.
	data := must(slot.Seal(pk, headerNow(), []byte("true"), grant))
	var mine, other envelope.Post
	if canon.Unmarshal(data, &mine) != nil || canon.Unmarshal(must(slot.Seal(pk, headerNow(), []byte("forged"), key("mallory"))), &other) != nil {
		t.Fatal("posts")
	}
	for name, sig := range map[string][]byte{"another post's": mine.Signature, "a take-back's": canon.Sign(grant, envelope.DomainTakeBack, other.Signed()), "none": nil} {
		other.Signature = sig
		_, _, err := slot.Open(canon.MustMarshal(other), private, public(grant))
		t.Run("the signature is "+name, func(t *testing.T) { refused(t, err, chat.Forbidden, "not signed with its grant's key") })
	}
	_, _, err := slot.Open(data, private, nil)
	refused(t, err, chat.Forbidden, "not signed with its grant's key")
}

func TestAPostThatDoesNotOpen(t *testing.T) {
	private, pk := derive(1)
	wrong, _ := derive(2)
	grant := key("grant")
	data := must(slot.Seal(pk, headerNow(), []byte("Metropolis"), grant))
	_, _, err := slot.Open(data, wrong, public(grant))
	refused(t, err, chat.Invalid, "not sealed to this slot")
	for i := range data {
		if _, _, err := slot.Open(data[:i], private, public(grant)); err == nil {
			t.Fatalf("the first %d bytes opened", i)
		}
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, _, err := slot.Open(bad, private, public(grant)); err == nil {
			t.Fatalf("byte %d changed, and it opened", i)
		}
	}
	_, _, err = slot.Open(append(bytes.Clone(data), 0), private, public(grant))
	refused(t, err, chat.Invalid, "cannot be read")
	for _, err := range []error{
		func() error { _, _, err := slot.Open(make([]byte, slot.MaxPost+1), private, public(grant)); return err }(),
		func() error { _, err := slot.Peek(make([]byte, slot.MaxPost+1)); return err }(),
		func() error { _, err := slot.Inspect(make([]byte, slot.MaxPost+1), public(grant)); return err }(),
	} {
		refused(t, err, chat.TooLarge, "larger than")
	}
	// Signed by the agent itself, and yet not sealed to anything.
	for name, spoil := range map[string]func(*envelope.Post){
		"no KEM output":      func(p *envelope.Post) { p.KEMOutput = nil },
		"a short KEM output": func(p *envelope.Post) { p.KEMOutput = p.KEMOutput[:31] },
		"a KEM output of small order": func(p *envelope.Post) {
			p.KEMOutput = make([]byte, 32)
		},
		"no ciphertext":      func(p *envelope.Post) { p.Ciphertext = nil },
		"a short ciphertext": func(p *envelope.Post) { p.Ciphertext = p.Ciphertext[:15] },
		"a header in another encoding": func(p *envelope.Post) {
			p.Header = append(p.Header, 0)
		},
	} {
		var p envelope.Post
		if err := canon.Unmarshal(data, &p); err != nil {
			t.Fatal(err)
		}
		spoil(&p)
		p.Signature = canon.Sign(grant, envelope.DomainPost, p.Signed())
		_, _, err := slot.Open(canon.MustMarshal(p), private, public(grant))
		t.Run(name, func(t *testing.T) { refused(t, err, chat.Invalid, "") })
	}
}

// TestPrivateKeyIsNotPrinted: not by any verb, nor within another value, nor as JSON.
func TestPrivateKeyIsNotPrinted(t *testing.T) {
	private, _ := derive(1)
	sk := must(must(hpke.DHKEM(ecdh.X25519()).DeriveKeyPair(secret(1))).Bytes())
	inside := struct{ Key slot.PrivateKey }{private}
	hidden := struct{ key slot.PrivateKey }{private}
	out, _ := json.Marshal(inside)
	printed := []string{string(out), fmt.Sprint(private), fmt.Sprintln(&private)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%U", "%c", "%t", "%e", "%p"} {
		for _, v := range []any{private, &private, inside, &inside, hidden, &hidden, []slot.PrivateKey{private}, map[int]slot.PrivateKey{1: private}} {
			printed = append(printed, fmt.Sprintf(verb, v))
		}
	}
	for _, s := range printed {
		for i := 0; i+4 <= len(sk); i += 4 { // four bytes of it, in each way that fmt would write them
			part := sk[i : i+4]
			list := strings.Trim(fmt.Sprint(part), "[]")
			for _, form := range []string{string(part), fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), list, strings.ReplaceAll(list, " ", ", "),
				strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"), strings.Trim(fmt.Sprintf("%o", part), "[]"), strings.Trim(fmt.Sprintf("%b", part), "[]")} {
				if strings.Contains(s, form) {
					t.Fatalf("printed: %q", s)
				}
			}
		}
	}
	if got := fmt.Sprintf("%v %+v %#v", private, private, private); got != "slot.PrivateKey slot.PrivateKey slot.PrivateKey" {
		t.Errorf("%q", got)
	}
}

func announced(epoch uint64, pk slot.PublicKey, at int64, by string) []byte {
	return must(slot.Announce(chat.ConversationID{1}, epoch, pk, at, key(by)))
}

func TestAnnouncement(t *testing.T) {
	_, pk := derive(1)
	data := announced(7, pk, now, "phone")
	a, err := slot.OpenAnnouncement(data)
	want := slot.Announcement{Version: 1, Conversation: chat.ConversationID{1}, Epoch: 7, Key: pk, At: now, Signer: [32]byte(public(key("phone")))}
	if err != nil || *a != want {
		t.Fatalf("%+v %v", a, err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := slot.OpenAnnouncement(bad); err == nil {
			t.Fatalf("byte %d changed, and it opened", i)
		}
		if _, err := slot.OpenAnnouncement(data[:i]); err == nil {
			t.Fatalf("the first %d bytes opened", i)
		}
	}
	// Somebody's name under somebody else's signature, another version, another purpose.
	_, err = slot.OpenAnnouncement(must(canon.Seal(key("mallory"), envelope.DomainAnnounce, want)))
	refused(t, err, chat.Invalid, "signature does not hold")
	_, err = slot.OpenAnnouncement(must(canon.Seal(key("phone"), envelope.DomainPost, want)))
	refused(t, err, chat.Invalid, "signature does not hold")
	want.Version = 2
	_, err = slot.OpenAnnouncement(must(canon.Seal(key("phone"), envelope.DomainAnnounce, want)))
	refused(t, err, chat.Incompatible, "version 2")
	_, err = slot.OpenAnnouncement(make([]byte, slot.MaxAnnouncement+1))
	refused(t, err, chat.TooLarge, "larger than")
	// A key that is nobody's signs nothing: the identity point, R = the identity, S = 0.
	want.Version, want.Signer = 1, [32]byte{1}
	_, err = slot.OpenAnnouncement(canon.MustMarshal(canon.Signed{Body: canon.MustMarshal(want), Sig: append([]byte{1}, make([]byte, 63)...)}))
	refused(t, err, chat.Invalid, "signature does not hold")
}

func TestTake(t *testing.T) {
	_, pk := derive(1)
	_, other := derive(2)
	fresh := slot.Pinned{Conversation: chat.ConversationID{1}, Signers: [][32]byte{[32]byte(public(key("phone"))), [32]byte(public(key("laptop")))}}
	seven, err := fresh.Take(announced(7, pk, now, "phone"), now)
	if err != nil || seven.Epoch != 7 || seven.Key != pk || seven.Conversation != fresh.Conversation || len(seven.Signers) != 2 {
		t.Fatalf("%+v %v", seven, err)
	}
	elsewhere := must(slot.Announce(chat.ConversationID{2}, 8, pk, now, key("phone")))
	for _, c := range []struct {
		name string
		from slot.Pinned
		data []byte
		kind chat.Kind
		says string
	}{
		{"the first, of epoch 0", fresh, announced(0, pk, now, "phone"), "", ""},
		{"by the other device", fresh, announced(7, pk, now, "laptop"), "", ""},
		{"the same again", seven, announced(7, pk, now, "phone"), "", ""},
		{"the same by the other device", seven, announced(7, pk, now+1, "laptop"), "", ""},
		{"the next epoch", seven, announced(8, other, now, "laptop"), "", ""},
		{"some epochs on", seven, announced(1000, other, now, "phone"), "", ""},
		{"seven days old", seven, announced(8, other, now-slot.MaxAge, "phone"), "", ""},
		{"by a clock that is an hour ahead", seven, announced(8, other, now+slot.MaxAhead, "phone"), "", ""},

		{"an unknown signer", seven, announced(8, other, now, "mallory"), chat.Tampered, "does not name"},
		{"no signer at all", slot.Pinned{Conversation: chat.ConversationID{1}}, announced(8, other, now, "phone"), chat.Tampered, "does not name"},
		{"another conversation", seven, elsewhere, chat.Tampered, "another conversation's"},
		{"an earlier epoch", seven, announced(6, pk, now, "phone"), chat.Tampered, "earlier epoch"},
		{"a second key for the epoch", seven, announced(7, other, now, "phone"), chat.Tampered, "two slots"},
		{"a second key by the other device", seven, announced(7, other, now, "laptop"), chat.Tampered, "two slots"},
		{"no key", seven, announced(8, slot.PublicKey{}, now, "phone"), chat.Tampered, "without a key"},
		{"no key, at first", fresh, announced(7, slot.PublicKey{}, now, "phone"), chat.Tampered, "without a key"},
		{"too old", seven, announced(8, other, now-slot.MaxAge-1, "phone"), chat.Expired, "more than seven days ago"},
		{"from the future", seven, announced(8, other, now+slot.MaxAhead+1, "phone"), chat.Tampered, "in the future"},
		{"a broken one", seven, []byte("slot"), chat.Invalid, "cannot be read"},
		{"a broken signature", seven, append(announced(8, other, now, "phone")[:100], 0), chat.Invalid, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			next, err := c.from.Take(c.data, now)
			if c.kind == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused(t, err, c.kind, c.says)
			if next.Epoch != c.from.Epoch || next.Key != c.from.Key {
				t.Error("refused, and yet taken")
			}
		})
	}
}

func takeBackNow() slot.TakeBack {
	return slot.TakeBack{Host: testHost, Conversation: chat.ConversationID{1}, Epoch: 7, Grant: chat.GrantID{2}, Message: chat.MessageID{1, 4}, At: now}
}

func TestTakeBack(t *testing.T) {
	grant := key("grant")
	want := takeBackNow()
	data := must(slot.SignTakeBack(want, grant))
	want.Version = 1
	if got, err := slot.OpenTakeBack(data, public(grant)); err != nil || *got != want {
		t.Fatalf("%+v %v", got, err)
	}
	if got, err := slot.PeekTakeBack(data); err != nil || *got != want {
		t.Fatalf("%+v %v", got, err)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1 << (i % 8)
		if _, err := slot.OpenTakeBack(bad, public(grant)); err == nil {
			t.Fatalf("byte %d changed, and it opened", i)
		}
		if _, err := slot.OpenTakeBack(data[:i], public(grant)); err == nil {
			t.Fatalf("the first %d bytes opened", i)
		}
	}
	for name, data := range map[string][]byte{
		"by a member":               must(slot.SignTakeBack(want, key("mallory"))),
		"signed as a post":          must(canon.Seal(grant, envelope.DomainPost, want)),
		"signed as an announcement": must(canon.Seal(grant, envelope.DomainAnnounce, want)),
	} {
		_, err := slot.OpenTakeBack(data, public(grant))
		t.Run(name, func(t *testing.T) { refused(t, err, chat.Forbidden, "not signed with its grant's key") })
	}
	for name, spoil := range map[string]func(*slot.TakeBack){
		"another version": func(b *slot.TakeBack) { b.Version = 2 },
		"no host":         func(b *slot.TakeBack) { b.Host = "" },
	} {
		b := want
		spoil(&b)
		_, err := slot.OpenTakeBack(must(canon.Seal(grant, envelope.DomainTakeBack, b)), public(grant))
		t.Run(name, func(t *testing.T) { refused(t, err, chat.Invalid, "malformed") })
	}
	_, err := slot.PeekTakeBack(make([]byte, slot.MaxTakeBack+1))
	refused(t, err, chat.TooLarge, "larger than")
}
