package witness

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"letterlock/audit"
)

// TestAnAuditorInThePolicy: nothing is published that an auditor has not replayed. It reads the tree that waits for its signature, is killed, and
// goes on from where it was; a second one, of somebody else, finds the same root and map.
func TestAnAuditorInThePolicy(t *testing.T) {
	s := newSite(t)
	a := &signer{s: s, home: filepath.Join(s.Dir, "auditor"), listen: free(t)}
	start := func(more ...string) {
		a.vkey, a.kill = process(t, syscall.SIGKILL, append([]string{"audit", "--home", a.home, "--log", s.vkey, "--url", s.URL, "--listen", a.listen}, more...)...)
	}
	start("--name", "auditor.example/letterlock")
	p := s.demands(a)
	s.until("the auditor signs", func() bool { return s.holds(p) })

	before := s.size()
	a.kill()
	s.SignUp("alice")
	s.SignUp("bob")
	if s.size() != before {
		t.Error("something was published without the auditor")
	}
	start()
	s.until("what waited is published", func() bool { return s.size() > before && s.holds(p) })

	var r audit.Report
	once := func() {
		t.Helper()
		out, err := exec.Command(binary, "audit", "--once", "--json", "--home", filepath.Join(s.Dir, "somebody"), "--log", s.vkey, "--url", s.URL).Output()
		s.Must(err)
		s.Must(json.Unmarshal(out, &r))
	}
	once()
	if r.Size < 4 || r.Read != r.Size || r.Labels == 0 || r.Stale {
		t.Errorf("%+v", r)
	}
	size := r.Size
	once()
	if r.Read > r.Size-size {
		t.Errorf("%d entries were read again: %+v", r.Read, r)
	}
}
