package proof

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
)

// witnessed is a log with witnesses w0, w1, ... of its own.
type witnessed struct {
	log       note.Signer
	vkey      string
	witnesses []*torchwood.CosignatureSigner
}

func newWitnessed(t testing.TB, witnesses int) *witnessed {
	t.Helper()
	skey, vkey, err := note.GenerateKey(rand.Reader, Origin("chat.example"))
	if err != nil {
		t.Fatal(err)
	}
	w := &witnessed{vkey: vkey}
	if w.log, err = note.NewSigner(skey); err != nil {
		t.Fatal(err)
	}
	for i := range witnesses {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		s, err := torchwood.NewCosignatureSigner(fmt.Sprintf("w%d.example/witness", i), key)
		if err != nil {
			t.Fatal(err)
		}
		w.witnesses = append(w.witnesses, s)
	}
	return w
}

// policy is the lines of the log and of every witness, and then more.
func (w *witnessed) policy(more string) string {
	text := "log " + w.vkey + "\n"
	for i, s := range w.witnesses {
		text += fmt.Sprintf("witness w%d %s https://w%d.example/\n", i, s.Verifier(), i)
	}
	return text + more
}

func (w *witnessed) parse(t testing.TB, more string) *WitnessPolicy {
	t.Helper()
	p, err := ParsePolicy([]byte(w.policy(more)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// checkpoint is signed by the log and by the witnesses of these indexes.
func (w *witnessed) checkpoint(t testing.TB, size int64, by ...int) []byte {
	t.Helper()
	signed, err := SignCheckpoint(w.log, size, Hash{byte(size)})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range by {
		signed = append(signed, w.cosign(t, signed, i)...)
	}
	return signed
}

func (w *witnessed) cosign(t testing.TB, signed []byte, i int) string {
	t.Helper()
	text, _, _ := strings.Cut(string(signed), "\n\n")
	n, err := note.Sign(&note.Note{Text: text + "\n"}, w.witnesses[i])
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(n), "\n\n")
	return lines
}

// TestPolicyQuorum asks for every subset of six witnesses whether it is enough, and torchwood the same.
func TestPolicyQuorum(t *testing.T) {
	w := newWitnessed(t, 6)
	for _, more := range []string{
		"quorum none\n",
		"quorum w3\n",
		"group a 2 w0 w1 w2\nquorum a\n",
		"group a 2 w0 w1 w2\ngroup b any w3 w4\ngroup c all a b\nquorum c\n",
		"group a all w0 w1\ngroup b all w2 w3\ngroup c 2 a b w4\nquorum c\n",
		"group a any w0\ngroup b 1 a w1\nquorum b\n",
	} {
		p := w.parse(t, more)
		judge, err := torchwood.ParsePolicy([]byte(p.String()))
		if err != nil {
			t.Fatal(err)
		}
		for set := range 1 << len(w.witnesses) {
			var by []int
			for i := range w.witnesses {
				if set>>i&1 == 1 {
					by = append(by, i)
				}
			}
			signed := w.checkpoint(t, 5, by...)
			_, _, want := torchwood.VerifyCheckpoint(signed, judge)
			c, list, err := p.Check(signed)
			if (err == nil) != (want == nil) {
				t.Fatalf("%q, signed by %v: %v; torchwood: %v", more, by, err, want)
			}
			if err != nil && !chat.Is(err, chat.Unproven) {
				t.Fatalf("%q, signed by %v: %v", more, by, err)
			}
			if err == nil && (c.Size != 5 || len(list) != len(by)) {
				t.Fatalf("%q, signed by %v: %v", more, by, list)
			}
		}
	}
}

// TestPolicyRefused: each is wrong in one way.
func TestPolicyRefused(t *testing.T) {
	w := newWitnessed(t, 2)
	other := newWitnessed(t, 0)
	vkey := w.witnesses[0].Verifier().String()
	for what, text := range map[string]string{
		"no log":               "quorum none\n",
		"two logs":             w.policy("log " + other.vkey + "\nquorum none\n"),
		"a witness as the log": "log " + vkey + "\nquorum none\n",
		"a log as a witness":   "log " + w.vkey + "\nwitness a " + other.vkey + "\nquorum a\n",
		"no quorum":            w.policy(""),
		"two quorums":          w.policy("quorum none\nquorum w0\n"),
		"an unknown quorum":    w.policy("quorum w7\n"),
		"quorum before group":  w.policy("quorum a\ngroup a any w0\n"),
		"an unknown member":    w.policy("group a any w7\nquorum a\n"),
		"a member twice":       w.policy("group a 2 w0 w0\nquorum a\n"),
		"in two groups":        w.policy("group a any w0\ngroup b all a w0\nquorum b\n"),
		"itself":               w.policy("group a any a\nquorum a\n"),
		"none as a member":     w.policy("group a any none\nquorum a\n"),
		"the name none":        "log " + w.vkey + "\nwitness none " + vkey + "\nquorum none\n",
		"a name twice":         w.policy("group w0 any w1\nquorum w0\n"),
		"a key twice":          w.policy("witness a " + vkey + "\nquorum a\n"),
		"threshold 0":          w.policy("group a 0 w0 w1\nquorum a\n"),
		"threshold 3 of 2":     w.policy("group a 3 w0 w1\nquorum a\n"),
		"threshold 01":         w.policy("group a 01 w0 w1\nquorum a\n"),
		"an empty group":       w.policy("group a any\nquorum a\n"),
		"an unknown word":      w.policy("auditor a\nquorum none\n"),
		"a word too many":      w.policy("quorum none really\n"),
		"a comment behind":     w.policy("quorum none # really\n"),
		"a wide space":         w.policy("quorum\u00a0none\n"),
		"a carriage return":    w.policy("quorum none\r\n"),
		"too long":             w.policy("quorum none\n" + strings.Repeat("#", MaxPolicy)),
		"a spelled-out key":    strings.Replace(w.policy("quorum none\n"), "=\n", "\n", 1) + "=",
	} {
		if _, err := ParsePolicy([]byte(text)); !chat.Is(err, chat.Invalid) && !chat.Is(err, chat.TooLarge) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestPolicyText: comments, empty lines and spaces are no part of a policy, and the one form reads back as itself.
func TestPolicyText(t *testing.T) {
	w := newWitnessed(t, 2)
	plain := w.parse(t, "group both all w0 w1\nquorum both\n")
	decked, err := ParsePolicy([]byte("# ours\n\n" + strings.ReplaceAll(plain.String(), " ", " \t ") + "   # the end"))
	if err != nil || !decked.Same(plain) {
		t.Fatalf("%v: %q", err, decked)
	}
	again, err := ParsePolicy([]byte(plain.String()))
	if err != nil || again.String() != plain.String() || plain.Same(nil) {
		t.Fatal(err)
	}
	if list := plain.Witnesses(); len(list) != 2 || list[1].URL != "https://w1.example/" || list[1].KeyName() != "w1.example/witness" {
		t.Fatal(list)
	}
}

// TestPolicyCosigned: lines go where they belong, sorted, once for each witness; a cosignature of another tree fits nowhere.
func TestPolicyCosigned(t *testing.T) {
	w := newWitnessed(t, 3)
	p := w.parse(t, "group most 2 w0 w1 w2\nquorum most\n")
	bare := w.checkpoint(t, 5)
	signed, err := p.Cosigned(bare, w.cosign(t, bare, 2), w.cosign(t, bare, 0))
	if err != nil {
		t.Fatal(err)
	}
	c, list, err := p.Check(signed)
	if err != nil || len(list) != 2 || list[0].At < 1e12 || c.Size != 5 {
		t.Fatal(c, list, err)
	}
	more, err := p.Cosigned(signed, w.cosign(t, bare, 1), w.cosign(t, bare, 0))
	if err != nil {
		t.Fatal(err)
	}
	if _, list, err := p.Check(more); err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	if again, err := p.Cosigned(more); err != nil || string(again) != string(more) {
		t.Fatalf("%v: %q", err, again)
	}
	stranger := newWitnessed(t, 1)
	stranger.log = w.log
	if same, err := p.Cosigned(signed, stranger.cosign(t, bare, 0)); err != nil || string(same) != string(signed) {
		t.Fatalf("%v: %q", err, same)
	}
}

// TestPolicyReplayed: a witness' cosignature of one tree proves nothing of another.
func TestPolicyReplayed(t *testing.T) {
	w := newWitnessed(t, 1)
	p := w.parse(t, "quorum w0\n")
	old := w.cosign(t, w.checkpoint(t, 5), 0)
	if _, _, err := p.Check(append(w.checkpoint(t, 6), old...)); !chat.Is(err, chat.Unproven) {
		t.Error(err)
	}
	if _, err := p.Cosigned(w.checkpoint(t, 6), old); !chat.Is(err, chat.Unproven) {
		t.Error(err)
	}
}

func TestOperatorRun(t *testing.T) {
	for name, want := range map[string]bool{"chat.example": true, "chat.example/w": true, "chat.examples/w": false, "w.example/chat.example": false, "": false} {
		if OperatorRun(name, "chat.example") != want {
			t.Error(name)
		}
	}
}

// FuzzParsePolicy: what is accepted is accepted in its one form too, with the same meaning, and torchwood accepts that.
func FuzzParsePolicy(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if kinded(t, err); err != nil {
			return
		}
		again, err := ParsePolicy([]byte(p.String()))
		if err != nil || again.String() != p.String() || again.NeedsQuorum() != p.NeedsQuorum() || len(again.Witnesses()) != len(p.Witnesses()) {
			t.Fatalf("%v: %q", err, p)
		}
		if _, err := torchwood.ParsePolicy([]byte(p.String())); err != nil {
			t.Fatalf("torchwood: %v: %q", err, p)
		}
	})
}
