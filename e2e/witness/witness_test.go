// Package witness runs a server and its witnesses as processes: a tree is published when the policy's quorum has signed it, a witness that is killed
// stops partners' reads and nothing else, and a new policy needs the old one's quorum.
package witness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"letterlock/chat"
	"letterlock/e2e/world"
	"letterlock/mimi"
	"letterlock/proof"
)

// binary is letterlock, built once.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-witness-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "letterlock")
	if out, err := exec.Command("go", "build", "-o", binary, "letterlock").CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// site is a server with its people.
type site struct {
	*world.World
	t      *testing.T
	listen string
	vkey   string // of the log
	policy string // file, once there is one
	stop   func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "ll") // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, listen: free(t), World: &world.World{T: t, Dir: dir}}
	s.URL = "http://" + s.listen
	s.start()
	var status struct {
		VKey string `json:"ledger_vkey"`
	}
	out, err := exec.Command(binary, "admin", "--data", filepath.Join(dir, "server"), "status", "--json").Output()
	if err != nil || json.Unmarshal(out, &status) != nil || status.VKey == "" {
		t.Fatalf("%v: %s", err, out)
	}
	s.vkey = status.VKey
	return s
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// process starts letterlock and returns the first line that it prints, and what stops it.
func process(t *testing.T, how syscall.Signal, args ...string) (line string, stop func()) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatalf("letterlock %s: %v\n%s", strings.Join(args, " "), err, log.String())
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cmd.Process.Signal(how)
			if err := cmd.Wait(); err != nil && how != syscall.SIGKILL {
				t.Errorf("letterlock %s: %v\n%s", args[0], err, log.String())
			}
			if t.Failed() {
				t.Logf("letterlock %s said:\n%s", args[0], log.String())
			}
		})
	}
	t.Cleanup(stop)
	return strings.TrimSpace(line), stop
}

func (s *site) start() {
	s.t.Helper()
	args := []string{"serve", "--data", filepath.Join(s.Dir, "server"), "--listen", s.listen, "--no-limits-for-loopback"}
	if s.policy != "" {
		args = append(args, "--policy", s.policy)
	}
	_, s.stop = process(s.t, syscall.SIGTERM, args...)
}

// signer is a witness of the site's log that runs as a process and is stopped by killing it.
type signer struct {
	s                  *site
	home, listen, vkey string
	kill               func()
}

func (s *site) witness(name string) *signer {
	s.t.Helper()
	w := &signer{s: s, home: filepath.Join(s.Dir, name), listen: free(s.t)}
	w.start("--name", name+".example/witness")
	return w
}

func (w *signer) start(more ...string) {
	w.s.t.Helper()
	w.vkey, w.kill = process(w.s.t, syscall.SIGKILL, append([]string{"witness", "--home", w.home, "--listen", w.listen, "--log", w.s.vkey}, more...)...)
}

// demands starts the server anew with a policy of these witnesses, all of them.
func (s *site) demands(of ...*signer) *proof.WitnessPolicy {
	s.t.Helper()
	text, names := "log "+s.vkey+"\n", ""
	for i, w := range of {
		text += fmt.Sprintf("witness w%d %s http://%s/\n", i, w.vkey, w.listen)
		names += fmt.Sprintf(" w%d", i)
	}
	text += "group everybody all" + names + "\nquorum everybody\n"
	s.policy = filepath.Join(s.Dir, "policy")
	s.Must(os.WriteFile(s.policy, []byte(text), 0o600))
	s.stop()
	s.start()
	p, err := proof.ParsePolicy([]byte(text))
	s.Must(err)
	return p
}

func (s *site) get(path string) []byte {
	s.t.Helper()
	answer, err := http.Get(s.URL + path)
	s.Must(err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	s.Must(err)
	if answer.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d %s", path, answer.StatusCode, body)
	}
	return body
}

// policies are those that the server says were in force.
func (s *site) policies() []*proof.WitnessPolicy {
	s.t.Helper()
	var rows []struct{ Leaf, Proof []byte }
	s.Must(json.Unmarshal(s.get("/log/policies"), &rows))
	var handoffs []proof.Handoff
	for _, r := range rows {
		handoffs = append(handoffs, proof.Handoff{Leaf: r.Leaf, Proof: r.Proof})
	}
	log, err := note.NewVerifier(s.vkey)
	s.Must(err)
	list, err := proof.OpenHandoffs(log, handoffs)
	s.Must(err)
	return list
}

// until asks again until it is so.
func (s *site) until(what string, so func() bool) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if so() {
			return
		}
	}
	s.t.Fatal("never: ", what)
}

// holds has torchwood judge the checkpoint that the server shows.
func (s *site) holds(p *proof.WitnessPolicy) bool {
	s.t.Helper()
	judge, err := torchwood.ParsePolicy([]byte(p.String()))
	s.Must(err)
	_, _, err = torchwood.VerifyCheckpoint(s.get("/log/checkpoint"), judge)
	return err == nil
}

func (s *site) says(p *world.Person, id chat.ConversationID, text string) {
	s.t.Helper()
	_, err := p.Send(s.Ctx(), id, mimi.Text(text))
	s.Must(err)
}

func (s *site) hears(p *world.Person, id chat.ConversationID, text string) {
	s.t.Helper()
	s.Must(p.Sync(s.Ctx()))
	lines, err := p.Lines(id)
	s.Must(err)
	for _, l := range lines {
		if l.View != nil && l.View.Text == text {
			return
		}
	}
	s.t.Fatalf("%q did not arrive", text)
}

// reads is what the agent reads, or why not.
func reads(s *site, p *world.Partner, g chat.GrantID) (texts []string, err error) {
	c, err := p.Changes(s.Ctx(), g, "", 100)
	for _, m := range c.Messages {
		texts = append(texts, m.Text)
	}
	return texts, err
}

// TestAWitnessIsKilled: two of two must sign. One is killed: people write to each other, one signs up, one revokes; the partner cannot read, and is
// told why; when the witness is back, what waited is published and read. A policy without it is in force when it has signed that off, not before.
func TestAWitnessIsKilled(t *testing.T) {
	s := newSite(t)
	one, two := s.witness("one"), s.witness("two")
	first := s.demands(one, two)
	s.until("the policy is in force", func() bool { return len(s.policies()) == 1 && s.holds(first) })

	alice, bob, flimmer := s.SignUp("alice"), s.SignUp("bob"), s.Flimmer()
	s.Befriend(alice, bob)
	grant := flimmer.Gets(alice, "bob", chat.AllActions)
	g, err := flimmer.Look(grant)
	s.Must(err)
	thread := g.Conversation
	s.Must(bob.Sync(s.Ctx()))
	s.says(bob, thread, "before")
	texts, err := reads(s, flimmer, grant)
	if err != nil || strings.Join(texts, " ") != "before" {
		t.Fatal(texts, err)
	}

	two.kill()
	size := s.size()
	s.SignUp("carol") // an entry that waits
	s.says(alice, thread, "meanwhile")
	s.until("the partner is told why it cannot read", func() bool {
		_, err := reads(s, flimmer, grant)
		if err == nil { // it has not waited for 30 seconds yet; let there be something to read when it has
			s.says(bob, thread, "on and on")
			time.Sleep(2 * time.Second)
		}
		return chat.Is(err, chat.NoQuorum) && strings.Contains(err.Error(), "the witnesses of this server's public ledger do not sign")
	})
	s.says(alice, thread, "still here")
	s.hears(bob, thread, "still here")
	if now := s.size(); now != size {
		t.Fatalf("published without the quorum: %d entries, then %d", size, now)
	}
	if out := s.metric("letterlock_ledger_waiting"); out == "0" || out == "" {
		t.Fatalf("%q entries wait", out)
	}

	two.start()
	s.until("the partner reads again", func() bool {
		texts, err = reads(s, flimmer, grant)
		return err == nil && strings.Contains(strings.Join(texts, " "), "still here")
	})

	two.kill()
	s.SignUp("dora")
	s.Must(alice.Revoke(s.Ctx(), grant))
	if _, err := reads(s, flimmer, grant); !chat.Is(err, chat.Gone) {
		t.Fatalf("after the revocation: %v", err)
	}
	s.says(alice, thread, "among us")
	s.hears(bob, thread, "among us")

	three := s.witness("three")
	second := s.demands(one, three)
	time.Sleep(3 * time.Second) // time enough to do wrong
	if len(s.policies()) != 1 || s.holds(second) {
		t.Fatal("the policy changed without the old one's quorum")
	}
	two.start()
	s.until("the new policy is in force", func() bool { return len(s.policies()) == 2 && s.holds(second) })
	list := s.policies()
	if now, err := proof.InForce(first, list); err != nil || !now.Same(second) {
		t.Fatal(now, err)
	}
	two.kill()
	before := s.size()
	s.SignUp("erin")
	s.until("the new quorum is enough", func() bool { return s.size() > before && s.holds(second) })
}

func (s *site) size() int64 {
	s.t.Helper()
	log, err := note.NewVerifier(s.vkey)
	s.Must(err)
	c, err := proof.OpenCheckpoint(s.get("/log/checkpoint"), log)
	s.Must(err)
	return c.Size
}

// metric reads a figure from the admin socket.
func (s *site) metric(name string) string {
	s.t.Helper()
	out, err := exec.Command("curl", "-s", "--unix-socket", filepath.Join(s.Dir, "server", "admin.sock"), "http://admin/metrics").Output()
	s.Must(err)
	for _, line := range strings.Split(string(out), "\n") {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return value
		}
	}
	return ""
}
