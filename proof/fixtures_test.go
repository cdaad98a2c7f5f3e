package proof

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fixture is a bundle in a folder for other verifiers, with what Verify says of it.
type fixture struct {
	File      string      `json:"file"`       // NNN.json, beside index.json
	Name      string      `json:"name"`       // what it is, or what is wrong with it
	LedgerKey string      `json:"ledger_key"` // to pin; empty: none
	Policy    string      `json:"policy"`     // text of the policy to pin; empty: none
	Holds     bool        `json:"holds"`
	Kind      VerdictKind `json:"kind"`     // if it holds
	Findings  int         `json:"findings"` // if it holds
	Error     string      `json:"error"`    // if it does not: what this verifier says
}

// TestWriteBundles writes bundles of every kind, and many broken ones, for verifiers in other languages:
//
//	LETTERLOCK_WRITE_BUNDLES=DIR go test ./proof -run '^TestWriteBundles$'
//
// DIR then holds the bundles and index.json, a list of fixture. Everything follows from a seed: two runs write the same bytes. Other verifiers
// must say the same of holds, kind and findings; flip bytes of their own besides. Without DIR it checks what it would have written.
func TestWriteBundles(t *testing.T) {
	dir := os.Getenv("LETTERLOCK_WRITE_BUNDLES")
	var list []fixture
	add := func(name string, data []byte, pins Pins) {
		f := fixture{File: fmt.Sprintf("%03d.json", len(list)), Name: name, LedgerKey: pins.LedgerVKey, Policy: string(pins.Policy)}
		v, err := Verify(data, pins)
		if err == nil {
			f.Holds, f.Kind, f.Findings = true, v.Kind, len(v.Findings)
		} else {
			f.Error = err.Error()
		}
		list = append(list, f)
		if dir != "" {
			if err := os.WriteFile(filepath.Join(dir, f.File), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	var whole []byte
	for i, k := range kinds {
		_, data := ofKind(t, i, false)
		add(k.name, data, Pins{})
		w, data := ofKind(t, i, true)
		add(k.name+", witnessed", data, Pins{})
		add(k.name+", witnessed, pinned", data, Pins{LedgerVKey: w.vkey, Policy: []byte("# pinned\n\n" + w.policy.String())})
		other := strings.Replace(w.policy.String(), "group g 2 ", "group g 3 ", 1)
		add(k.name+", another policy pinned", data, Pins{Policy: []byte(other)})
		add(k.name+", another ledger pinned", data, Pins{LedgerVKey: w.witnessLog()})
		whole = data
	}
	for i, b := range broken {
		add(b.name, breakIt(t, i), Pins{})
	}
	for _, f := range found {
		w := newWorld(t)
		w.begin()
		f.log(w)
		add("a finding: "+f.name, w.finish(), Pins{})
	}
	for _, c := range controls {
		w := newWorld(t)
		w.begin()
		w.record(c.payload(w))
		add("a control record: "+c.name, w.finish(), Pins{})
	}
	forms := deformed(whole)
	for _, name := range slices.Sorted(maps.Keys(forms)) {
		add("another form: "+name, forms[name], Pins{})
	}
	for i := 0; i < len(whole); i += 97 {
		bad := bytes.Clone(whole)
		bad[i] ^= 1
		add(fmt.Sprintf("byte %d changed", i), bad, Pins{})
		add(fmt.Sprintf("cut off after %d bytes", i), whole[:i], Pins{})
	}
	for i := range uint64(200) {
		add(fmt.Sprintf("history %d", i), history(t, i), Pins{})
	}
	good, bad := 0, 0
	for _, f := range list {
		if f.Holds {
			good++
		} else {
			bad++
		}
	}
	if good < 3*len(kinds)+len(found) || bad < len(broken)+len(controls) {
		t.Errorf("%d bundles hold, %d do not", good, bad)
	}
	if dir != "" {
		data, err := json.MarshalIndent(list, "", "  ")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "index.json"), data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
