package pyverify

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"letterlock/proof"
)

// fixture is a bundle that package proof wrote for other verifiers: see its TestWriteBundles.
type fixture struct {
	File, Name string
	LedgerKey  string `json:"ledger_key"`
	Policy     string
	Holds      bool

	data []byte
}

func (f fixture) pins() proof.Pins {
	return proof.Pins{LedgerVKey: f.LedgerKey, Policy: []byte(f.Policy)}
}

// fixtures are bundles of every kind and broken ones.
func fixtures(t *testing.T) []fixture {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "letterlock/proof", "-run", "^TestWriteBundles$")
	cmd.Env = append(os.Environ(), "LETTERLOCK_WRITE_BUNDLES="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the bundles cannot be written: %v\n%s", err, out)
	}
	var list []fixture
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err == nil {
		err = json.Unmarshal(index, &list)
	}
	for i := range list {
		if err == nil {
			list[i].data, err = os.ReadFile(filepath.Join(dir, list[i].File))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// verdict is what the two must say alike.
type verdict struct {
	Kind         string `json:"kind"`
	Host         string `json:"host"`
	Account      string `json:"account"`
	Handle       string `json:"handle"`
	Partner      string `json:"partner"`
	PartnerName  string `json:"partner_name"`
	LedgerSize   int64  `json:"ledger_size"`
	LedgerRoot   string `json:"ledger_root"`
	Complete     bool   `json:"complete"`
	AsOf         any    `json:"as_of"`
	Witnesses    any    `json:"witnesses"`
	Devices      []deviceVerdict
	Grants       []grantVerdict
	Reads        []readVerdict
	Posts        int
	Deletes      int
	OtherPosts   int `json:"other_posts"`
	OtherDeletes int `json:"other_deletes"`
	Erased       int
	Findings     []string
}

type deviceVerdict struct {
	Device, Name   string
	Key            []byte
	Added, Removed uint64
	Stolen         bool
}

type grantVerdict struct {
	Grant, Conversation, How     string
	Actions, Left                []string
	Issued, Expiry, Index, Ended int64
	Stolen                       bool
}

type readVerdict struct {
	Conversation, Grant, Granting string
	FromEpoch                     uint64  `json:"from_epoch"`
	ToEpoch                       *uint64 `json:"to_epoch"`
	From, To                      int64
	Periods, Closed               int
	Countersigned                 int
	Entries                       uint64
	EntriesUnsigned               uint64 `json:"entries_unsigned"`
}

// ours is the verdict of package proof, in the same form; nil if the bundle does not hold.
func ours(t *testing.T, data []byte, pins proof.Pins) (*verdict, error) {
	t.Helper()
	v, err := proof.Verify(data, pins)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text), nil
}

func parse(t *testing.T, text []byte) *verdict {
	t.Helper()
	v := new(verdict)
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
	return v
}

// compare asks the Python verifier about all bundles, which have the same pins, and wants the same verdicts. It returns how many hold.
func compare(t *testing.T, list []fixture) (holds int) {
	t.Helper()
	dir := t.TempDir()
	for i, f := range list {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%06d", i)), f.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"../../verifier/letterlock_verify.py", "--batch", dir}
	if f := list[0]; f.LedgerKey != "" {
		args = append(args, "--ledger-key", f.LedgerKey)
	}
	if f := list[0]; f.Policy != "" {
		policy := filepath.Join(t.TempDir(), "policy")
		if err := os.WriteFile(policy, []byte(f.Policy), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--policy", policy)
	}
	out, err := python(t, nil, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Buffer(nil, 1<<26)
	answered := 0
	for ; lines.Scan(); answered++ {
		if answered == len(list) {
			t.Fatal("more answers than bundles")
		}
		if same(t, list[answered], lines.Bytes()) {
			holds++
		}
	}
	if answered != len(list) {
		t.Fatalf("%d answers to %d bundles", answered, len(list))
	}
	return holds
}

// same compares what Python says of a bundle with what Go says, and reports whether it holds.
func same(t *testing.T, f fixture, line []byte) bool {
	t.Helper()
	var theirs struct{ Error string }
	if err := json.Unmarshal(line, &theirs); err != nil {
		t.Fatal(err)
	}
	v, err := ours(t, f.data, f.pins())
	if (err != nil) != (theirs.Error != "") {
		t.Errorf("%s: Python says %s, Go says %v", f.Name, bytes.TrimSpace(line), err)
		return err == nil
	}
	if err != nil {
		return false
	}
	p := parse(t, line)
	if len(p.Findings) != len(v.Findings) {
		t.Errorf("%s: Python finds %q, Go finds %q", f.Name, p.Findings, v.Findings)
	}
	p.Findings, v.Findings = nil, nil // the sentences are their own
	if !reflect.DeepEqual(p, v) {
		t.Errorf("%s: Python says\n%+v\nGo says\n%+v", f.Name, p, v)
	}
	return true
}

// TestBundles: of every bundle that package proof can make, good or broken, both say the same.
func TestBundles(t *testing.T) {
	groups := map[[2]string][]fixture{}
	for _, f := range fixtures(t) {
		pins := [2]string{f.LedgerKey, f.Policy}
		groups[pins] = append(groups[pins], f)
	}
	hold, all := 0, 0
	for _, list := range groups {
		hold += compare(t, list)
		all += len(list)
	}
	t.Logf("%d bundles, of which %d hold", all, hold)
	if hold < 20 || all-hold < 100 {
		t.Errorf("too few of a sort: %d bundles, of which %d hold", all, hold)
	}
}

// TestEveryByte changes one byte of a bundle of each kind: neither verifier takes it. LETTERLOCK_EVERY_BYTE=1 changes every one,
// otherwise it is one in seven of the bundle with everything in it, one in 31 of the others.
func TestEveryByte(t *testing.T) {
	seen := 0
	for _, f := range fixtures(t) {
		if !f.Holds || f.LedgerKey != "" || f.Policy != "" || !strings.HasSuffix(f.Name, ", witnessed") {
			continue
		}
		seen++
		step := 31
		switch {
		case os.Getenv("LETTERLOCK_EVERY_BYTE") != "":
			step = 1
		case f.Name == "access, witnessed":
			step = 7
		}
		var list []fixture
		for i := range f.data {
			if i%step == 0 {
				bad := bytes.Clone(f.data)
				bad[i] ^= 1 << (i / step % 8)
				list = append(list, fixture{Name: fmt.Sprintf("%s, byte %d", f.Name, i), data: bad})
			}
		}
		if holds := compare(t, list); holds > 0 {
			t.Errorf("%s: %d of %d changed bundles pass", f.Name, holds, len(list))
		}
		t.Logf("%s: %d bytes changed", f.Name, len(list))
	}
	if seen < 5 {
		t.Errorf("bundles of %d kinds only", seen)
	}
}
