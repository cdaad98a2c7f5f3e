// Package examples holds backends of four partners, each in a language of its own. The test runs each beside a real agent and server.
package examples

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"letterlock/agent"
	"letterlock/api"
	"letterlock/chat"
	"letterlock/device"
	"letterlock/e2e/world"
	"letterlock/mimi"
)

// TestExamples lets alice say yes to each example, and looks at what bob sees.
func TestExamples(t *testing.T) {
	for name, c := range map[string]struct {
		command []string
		sees    string // bob, in the end
		answers bool   // bob writes an answer, which the example prints
	}{
		"film":    {[]string{"go", "run", "./film"}, "Metropolis", false},
		"track":   {[]string{"python3", "track/track.py"}, "Blue Monday", true},
		"folder":  {compiled(t), "", false},
		"receipt": {[]string{"sh", "receipt/receipt.sh"}, "Lunch, your half", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			out := s.run(c.command)
			s.allow(out.next(t))
			if line := out.next(t); !strings.HasPrefix(line, "sent ") {
				t.Fatalf("printed %q", line)
			}
			if c.answers {
				s.bobSays("thank you")
				if line := out.next(t); line != "answer bob: thank you" {
					t.Fatalf("printed %q", line)
				}
			}
			out.end(t)
			if seen := s.bobSees(); !strings.Contains(seen, c.sees) || c.sees == "" && strings.Contains(seen, "Holiday") {
				t.Fatalf("bob sees %s", seen)
			}
		})
	}
}

// compiled lets the TypeScript compiler check the example and make JavaScript of it.
func compiled(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("folder/node_modules"); err != nil {
		tool(t, "npm", "ci", "--no-audit", "--no-fund")
	}
	out := t.TempDir()
	tool(t, "npx", "tsc", "--outDir", out)
	if err := os.WriteFile(filepath.Join(out, "package.json"), []byte(`{"type": "module"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"node", filepath.Join(out, "folder.js")}
}

func tool(t *testing.T, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = "folder"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
}

type stage struct {
	*world.World
	alice, bob *world.Person
	env        []string
	base       string
}

func newStage(t *testing.T) *stage {
	s := &stage{World: world.New(t)}
	s.alice, s.bob = s.SignUp("alice"), s.SignUp("bob")
	s.Befriend(s.alice, s.bob)
	home := filepath.Join(s.Dir, "partner")
	env := agent.Env{Now: time.Now, Rand: rand.Reader}
	r, err := agent.Init(s.Ctx(), home, agent.Options{Server: s.URL, Partner: "flimmer", Name: "Flimmer", Actions: chat.AllActions, PostsPerMinute: 60,
		Valid: 365 * 24 * time.Hour, Number: 1, RedirectURI: agent.DefaultRedirect}, env)
	s.Must(err)
	s.register(*r)
	a, err := agent.Open(home, env, slog.New(slog.DiscardHandler))
	s.Must(err)
	secret, err := agent.ReadSecret(home, "")
	s.Must(err)
	l, err := agent.Listen("127.0.0.1:0")
	s.Must(err)
	s.base = agent.AddressOf(l)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l, secret) }()
	t.Cleanup(func() { cancel(); s.Must(<-done); s.Must(a.Close()) })
	s.env = append(os.Environ(), "LETTERLOCK_AGENT="+s.base, "LETTERLOCK_SECRET="+secret)
	return s
}

// register does what `letterlock admin partner add` does.
func (s *stage) register(r api.Registration) {
	s.T.Helper()
	c := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(s.Dir, "server", "admin.sock"))
	}}}
	b, err := json.Marshal(api.AcceptAgreement{Registration: r})
	s.Must(err)
	answer, err := c.Post("http://admin/admin/v1/partners", "application/json", bytes.NewReader(b))
	s.Must(err)
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		s.T.Fatalf("registering: %s", answer.Status)
	}
}

// lines are what a running example prints.
type lines struct {
	out    *bufio.Scanner
	errors *bytes.Buffer
	cmd    *exec.Cmd
}

func (s *stage) run(command []string) *lines {
	s.T.Helper()
	cmd := exec.CommandContext(s.Ctx(), command[0], command[1:]...)
	cmd.Env = s.env
	out, err := cmd.StdoutPipe()
	s.Must(err)
	l := &lines{out: bufio.NewScanner(out), errors: &bytes.Buffer{}, cmd: cmd}
	cmd.Stderr = l.errors
	s.Must(cmd.Start())
	return l
}

func (l *lines) next(t *testing.T) string {
	t.Helper()
	if !l.out.Scan() {
		l.cmd.Wait()
		t.Fatalf("the example ended: %s", l.errors)
	}
	return l.out.Text()
}

// end waits for the example, whatever else it prints.
func (l *lines) end(t *testing.T) {
	t.Helper()
	for l.out.Scan() {
	}
	if err := l.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, l.errors)
	}
}

// allow lets alice say yes, and her browser go back to the agent.
func (s *stage) allow(address string) {
	s.T.Helper()
	consent, err := s.alice.OpenConsent(s.Ctx(), address)
	s.Must(err)
	back, err := s.alice.Allow(s.Ctx(), consent, device.Answer{Friend: "bob"})
	s.Must(err)
	answer, err := http.Get(back)
	s.Must(err)
	defer answer.Body.Close()
	if b, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		s.T.Fatalf("callback: %s", b)
	}
}

func (s *stage) bobSays(text string) {
	s.T.Helper()
	s.Must(s.bob.Sync(s.Ctx()))
	id, err := s.bob.FindWith("alice", "flimmer")
	s.Must(err)
	_, err = s.bob.Send(s.Ctx(), id, mimi.Text(text))
	s.Must(err)
}

func (s *stage) bobSees() string {
	s.T.Helper()
	s.Must(s.bob.Sync(s.Ctx()))
	id, err := s.bob.FindWith("alice", "flimmer")
	s.Must(err)
	all, err := s.bob.Lines(id)
	s.Must(err)
	b, err := json.Marshal(all)
	s.Must(err)
	return string(b)
}
