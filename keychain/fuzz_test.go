package keychain

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"letterlock/canon"
	"letterlock/chat"
)

var writeSeeds = flag.Bool("seeds", false, "write the seeds of the fuzz tests anew")

// FuzzOpen throws bytes at a chain's place in storage or on the wire.
func FuzzOpen(f *testing.F) {
	f.Fuzz(func(t *testing.T, first, second []byte) {
		c, err := Open([][]byte{first, second})
		if err != nil {
			return
		}
		if c.Version() != 1 || string(c.Entries()[1]) != string(second) {
			t.Error("accepted bytes are not the chain's")
		}
	})
}

// FuzzAppend signs what it is given, so that the bytes reach what stands behind the signatures.
func FuzzAppend(f *testing.F) {
	a := newAlice(f)
	base := a.start(f)
	base = then(f, base)(base.AddDevice(a.phone, a.wish(f, laptopID, "laptop", a.laptop), noon))
	f.Fuzz(func(t *testing.T, kind uint64, payload []byte, recovery, inner bool) {
		if len(payload) > MaxEntry {
			return
		}
		var s Signer = a.phone
		if recovery {
			s = a.recovery
		}
		if inner { // the bytes are what the added device signs, not the signed payload
			payload = canon.MustMarshal(canon.Signed{Body: payload, Sig: canon.Sign(a.tablet.key, domainDevice, payload)})
		}
		c, err := base.Append(forge(t, s, next(base, s, kind, payload)))
		if err != nil {
			return
		}
		again, err := Open(c.Entries())
		if err != nil || again.Head() != c.Head() || again.Extends(base) != nil {
			t.Errorf("an accepted entry does not open again: %v", err)
		}
		if len(c.Devices())+len(c.Removed()) > 3 || c.Account() != aliceID {
			t.Error("an entry did more than an entry can")
		}
	})
}

// TestSeeds makes sure that the fuzz tests have something to start from.
func TestSeeds(t *testing.T) {
	if *writeSeeds {
		seedsOfOpen(t)
		seedsOfAppend(t)
	}
	for name, least := range map[string]int{"FuzzOpen": 3, "FuzzAppend": 6} {
		seeds, err := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*"))
		if err != nil || len(seeds) < least {
			t.Errorf("%s has %d seeds, want %d at least (go test -run TestSeeds -seeds)", name, len(seeds), least)
		}
	}
}

func seedsOfOpen(t *testing.T) {
	story := newAlice(t).story(t).Entries()
	writeSeed(t, "FuzzOpen", "two-entries", story[0], story[1])
	writeSeed(t, "FuzzOpen", "wrong-order", story[1], story[0])
	writeSeed(t, "FuzzOpen", "last-entry", story[0], story[7])
}

func seedsOfAppend(t *testing.T) {
	a := newAlice(t)
	_, recovery, err := NewRecovery(a.random)
	if err != nil {
		t.Fatal(err)
	}
	succeed, err := recovery.sign(domainRecovery, succession{Account: aliceID, Key: publicKeyOf(recovery)})
	if err != nil {
		t.Fatal(err)
	}
	tablet := canon.MustMarshal(request{Account: aliceID, Device: deviceFields{ID: tabletID, Key: publicKeyOf(a.tablet), Name: "tablet"}})
	remove := canon.MustMarshal(removal{Device: laptopID, Reason: Stolen})
	for name, s := range map[string][]any{
		"add":       {addDevice, tablet, false, true},
		"remove":    {removeDevice, remove, false, false},
		"recovery":  {replaceRecovery, succeed, true, false},
		"no-apps":   {setPreference, canon.MustMarshal(NoApps("", true)), false, false},
		"uses-app":  {setPreference, canon.MustMarshal(UsesApp("flimmer", UsesIt)), true, false},
		"no-device": {removeDevice, canon.MustMarshal(removal{Device: chat.DeviceID{9}, Reason: Lost}), true, false},
	} {
		writeSeed(t, "FuzzAppend", name, s...)
	}
}

// writeSeed writes one file of Go's corpus format.
func writeSeed(t *testing.T, fuzz, name string, args ...any) {
	t.Helper()
	dir := filepath.Join("testdata", "fuzz", fuzz)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := "go test fuzz v1\n"
	for _, arg := range args {
		switch v := arg.(type) {
		case []byte:
			text += fmt.Sprintf("[]byte(%q)\n", v)
		case uint64:
			text += fmt.Sprintf("uint64(%d)\n", v)
		case bool:
			text += fmt.Sprintf("bool(%t)\n", v)
		default:
			t.Fatalf("no seed of %T", arg)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
