// Package demo plays letterlock's story with real processes: a server, Alice's and Bob's clients and Flimmer's agent, each with a folder of its
// own, talking over real sockets. `letterlock demo` shows it to people, the end-to-end tests stand on the same stage.
//
// It runs the letterlock binary and its agent's local API as anybody would, and knows nothing of their insides; but the hostile server, which has
// the operator's keys and forges with them.
package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Stage is a folder, the binary, and the processes that run in it.
type Stage struct {
	Binary string
	Dir    string
	Port   int // the server's

	LedgerKey string   // of the server's ledger, once it runs witnessed
	Policy    string   // file of its witness policy
	Watchers  []string // URLs of the two witnesses and the auditor

	AgentPort int // where Flimmer's agent listens, and where people come back to from their consent
	procs     []*Process
}

// Process is one that runs in the background.
type Process struct {
	Name string
	cmd  *exec.Cmd
	done chan error
	log  string
}

// NewStage prepares a stage in dir with the letterlock binary.
func NewStage(binary, dir string) (*Stage, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(abs, 0o700); err != nil {
		return nil, err
	}
	s := &Stage{Binary: binary, Dir: abs}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	s.AgentPort, err = freePort()
	return s, err
}

// freePort asks the system for a port that nobody uses.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// URL is the server's address.
func (s *Stage) URL() string { return fmt.Sprintf("http://127.0.0.1:%d", s.Port) }

// Home is the folder of a person, partner or server.
func (s *Stage) Home(who string) string { return filepath.Join(s.Dir, who) }

// StartServer starts the server on its folder and waits until it answers. args are added to its command line.
func (s *Stage) StartServer(ctx context.Context, args ...string) (*Process, error) {
	all := append([]string{"serve", "--data", s.Home("server"), "--listen", fmt.Sprintf("127.0.0.1:%d", s.Port)}, args...)
	p, err := s.Start("server", all...)
	if err != nil {
		return nil, err
	}
	return p, s.waitFor(ctx, p, s.URL()+"/healthz")
}

// Start starts a background process of the binary; what it prints goes to NAME.log.
func (s *Stage) Start(name string, args ...string) (*Process, error) {
	p := &Process{Name: name, cmd: exec.Command(s.Binary, args...), done: make(chan error, 1), log: filepath.Join(s.Dir, name+".log")}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.done <- p.cmd.Wait() }()
	s.procs = append(s.procs, p)
	return p, nil
}

// waitFor waits until an address answers 200, or the process ends.
func (s *Stage) waitFor(ctx context.Context, p *Process, url string) error {
	return s.waitUntil(ctx, p, func() bool {
		resp, err := http.Get(url)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// waitForPort waits until somebody listens there.
func (s *Stage) waitForPort(ctx context.Context, p *Process, at string) error {
	return s.waitUntil(ctx, p, func() bool {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return false
		}
		return c.Close() == nil
	})
}

func (s *Stage) waitUntil(ctx context.Context, p *Process, answers func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		if answers() {
			return nil
		}
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("the %s ended: %v\n%s", p.Name, err, p.Log())
		case <-ctx.Done():
			return fmt.Errorf("the %s does not answer\n%s", p.Name, p.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Log is what a process printed.
func (p *Process) Log() string {
	b, _ := os.ReadFile(p.log)
	return string(b)
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Kill ends a process without warning, as a power cut would.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	err := <-p.done
	p.done <- err
}

// Stop asks a process to end and waits for it.
func (p *Process) Stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(20 * time.Second):
		p.Kill()
		return fmt.Errorf("the %s did not stop when asked", p.Name)
	}
}

// Close stops everything that still runs.
func (s *Stage) Close() error {
	var errs []error
	for i := len(s.procs) - 1; i >= 0; i-- {
		select {
		case err := <-s.procs[i].done:
			s.procs[i].done <- err
		default:
			errs = append(errs, s.procs[i].Stop())
		}
	}
	return errors.Join(errs...)
}

// Failure is a command that exited with another code than 0.
type Failure struct {
	Command string
	Code    int
	Stderr  string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", f.Command, f.Code, strings.TrimSpace(f.Stderr))
}

// Run runs a command of the binary to its end and returns what it printed.
func (s *Stage) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.Binary, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return out.String(), &Failure{Command: "letterlock " + strings.Join(args, " "), Code: exit.ExitCode(), Stderr: errOut.String()}
	}
	return out.String(), err
}

// Client runs a client command for a person and reads its JSON answer into v (nil: not read).
func (s *Stage) Client(ctx context.Context, who string, v any, args ...string) error {
	out, err := s.Run(ctx, append([]string{"client", "--home", s.Home(who), "--json"}, args...)...)
	if err != nil || v == nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// Admin runs an admin command and reads its JSON answer into v.
func (s *Stage) Admin(ctx context.Context, v any, args ...string) error {
	out, err := s.Run(ctx, append([]string{"admin", "--data", s.Home("server"), "--json"}, args...)...)
	if err != nil || v == nil {
		return err
	}
	return json.Unmarshal([]byte(out), v)
}

// Agent is a partner's agent that runs, as the partner's own backend sees it.
type Agent struct {
	*Process
	URL    string
	secret string
}

// StartAgent starts the agent of a partner's folder on a port (0: a free one) and waits until it answers.
func (s *Stage) StartAgent(ctx context.Context, name, home string, port int) (_ *Agent, err error) {
	if port == 0 {
		if port, err = freePort(); err != nil {
			return nil, err
		}
	}
	p, err := s.Start(name, "agent", "--home", home, "run", "--listen", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	a := &Agent{Process: p, URL: fmt.Sprintf("http://127.0.0.1:%d", port)}
	if err := s.waitFor(ctx, p, a.URL+"/healthz"); err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(filepath.Join(home, "secret"))
	a.secret = strings.TrimSpace(string(secret))
	return a, err
}

// Refusal is an answer of 400 and above: an RFC 9457 problem.
type Refusal struct {
	Status int
	Type   string `json:"type"`
	Detail string `json:"detail"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d %s: %s", r.Status, r.Type, r.Detail) }

// Call makes a call to the agent's local API.
func (a *Agent) Call(ctx context.Context, method, path string, body, v any) error {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.URL+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.secret)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 400 {
		r := &Refusal{}
		json.Unmarshal(data, r)
		r.Status = resp.StatusCode
		return r
	}
	if v == nil || len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, v)
}
