package attacks

import (
	"context"
	"testing"

	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/proof"
)

// proves asks Alice's device for a bundle and says of what kind it is.
func (a *app) proves(partner string) proof.VerdictKind {
	a.t.Helper()
	_, v, err := a.alice.Proof(a.w.Ctx(), partner)
	a.w.Must(err)
	if len(v.Findings) > 0 || !v.Complete {
		a.t.Errorf("the verdict: %+v", v)
	}
	return v.Kind
}

// TestWhatABundleProves goes through the kinds with a real server: nothing yet, a partner that nobody knows, a grant that only sends, the friend whose
// thread was read by Alice's grant, and keys alone.
func TestWhatABundleProves(t *testing.T) {
	a := people(t)
	for partner, want := range map[string]proof.VerdictKind{"flimmer": proof.NeverAnything, "nobody": proof.NeverAnything, "": proof.KeysAlone} {
		if got := a.proves(partner); got != want {
			t.Errorf("about %q it proves %q, want %q", partner, got, want)
		}
	}
	a.gets(chat.Send)
	if got := a.proves("flimmer"); got != proof.NeverRead {
		t.Errorf("a grant that sends proves %q", got)
	}
	b, _ := served(t)
	if got := b.proves("flimmer"); got != proof.HadAccess {
		t.Errorf("a grant that reads proves %q", got)
	}
	b.alice = b.bob
	if got := b.proves("flimmer"); got != proof.WasExposed {
		t.Errorf("a friend's grant that reads proves %q", got)
	}
}

// oldBundle is a server that hands out the bundle of yesterday.
type oldBundle struct {
	world.Calls
	data []byte
}

func (s oldBundle) Bundle(context.Context, string) ([]byte, error) { return s.data, nil }

// TestAnOldBundle: the server answers with a bundle from before Alice's grant, which holds and says "never". Her device knows better.
func TestAnOldBundle(t *testing.T) {
	a := people(t)
	old, v, err := a.alice.Proof(a.w.Ctx(), "flimmer")
	a.w.Must(err)
	if v.Kind != proof.NeverAnything {
		t.Fatalf("it proves %q", v.Kind)
	}
	a.gets(chat.Send)
	lies(a.alice, func(s world.Calls) device.Server { return oldBundle{s, old} })
	_, _, err = a.alice.Proof(a.w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "the ledger contradicts what this device remembers of it")
}

// TestAnotherBundle: the server answers with a bundle about another partner.
func TestAnotherBundle(t *testing.T) {
	a := people(t)
	other, _, err := a.alice.Proof(a.w.Ctx(), "nobody")
	a.w.Must(err)
	lies(a.alice, func(s world.Calls) device.Server { return oldBundle{s, other} })
	_, _, err = a.alice.Proof(a.w.Ctx(), "flimmer")
	answered(t, err, chat.Tampered, "the server made a bundle about somebody else")
}
