package operate

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runs starts a command that goes on until the test ends.
func (s *site) runs(args ...string) {
	s.t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(s.t, cmd.Start())
	s.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	})
}

// TestErase plays it with the real program: a partner with a permission, its end, the final proof, the erasure.
func TestErase(t *testing.T) {
	s, _ := newSite(t, nil, nil, nil)
	for _, who := range []string{"alice", "bob"} {
		s.do(s.client(who, "signup", who, "--server", s.url)...)
	}
	s.friends("alice", "bob")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	listen := l.Addr().String()
	must(t, l.Close())
	agent := []string{"agent", "--home", "flimmer"}
	s.do(append(agent, "init", "flimmer", "--name", "Flimmer", "--server", s.url, "--redirect", "http://"+listen+"/callback", "--link-base", "https://flimmer.example/film")...)
	s.admin("partner", "add", "flimmer/registration.json", "--yes")
	s.runs(append(agent, "run", "--listen", listen)...)
	for range 200 {
		if c, err := net.Dial("tcp", listen); err == nil {
			c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	asked := strings.Fields(s.do(append(agent, "authorize", "--pick", "--actions", "send")...))
	url := asked[len(asked)-1]
	s.do(s.client("alice", "authorize", url, "--friend", "bob", "--actions", "send", "--yes")...)
	grant, _, _ := strings.Cut(s.do(s.client("alice", "grants")...), " ")
	if out := s.do(s.client("alice", "erase", "flimmer", "--yes")...); !strings.Contains(out, "flimmer: 0 records erased") || !strings.Contains(out, "still stand: "+grant) {
		t.Errorf("under a standing permission:\n%s", out)
	}
	s.do(s.client("alice", "revoke", grant)...)
	must(t, os.WriteFile(filepath.Join(s.dir, "alice-flimmer-final.json"), nil, 0o600))
	// A file that is there is not written over, and nothing is erased then.
	if code, out := s.try(s.client("alice", "erase", "flimmer", "--yes")...); code != 1 || !strings.Contains(out, "nothing was erased") {
		t.Errorf("over a file: %d %s", code, out)
	}
	if out := s.do(s.client("alice", "history", "flimmer")...); strings.Contains(out, "erased") {
		t.Errorf("erased all the same:\n%s", out)
	}
	out := s.do(s.client("alice", "erase", "--all", "--no-proof", "--before", "2020-01-01")...)
	if !strings.Contains(out, "Nothing was erased") {
		t.Errorf("before there was anything:\n%s", out)
	}
	out = s.do(s.client("alice", "erase", "flimmer", "--out", "last.json", "--yes")...)
	if !strings.Contains(out, "flimmer: 2 records erased") || !strings.Contains(out, "The final proof is in last.json") {
		t.Errorf("erase:\n%s", out)
	}
	if out := s.do(s.client("alice", "history", "flimmer")...); strings.Count(out, "erased at your wish") != 2 {
		t.Errorf("history:\n%s", out)
	}
	if out := s.do("verify", "last.json"); !strings.Contains(out, "granted Flimmer: send") || strings.Contains(out, "were erased") {
		t.Errorf("the final proof:\n%s", out)
	}
	s.do(s.client("alice", "proof", "flimmer", "--out", "after.json")...)
	if out := s.do("verify", "after.json"); !strings.Contains(out, "2 records were erased") {
		t.Errorf("a proof of afterwards:\n%s", out)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "last.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
