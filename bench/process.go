package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a server in a process of its own.
type Process struct {
	Target
	options ServerOptions
	cmd     *exec.Cmd
	log     *tail
	done    chan struct{}
}

// FreeAddress is an address of this machine that nobody listens on now.
func FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// ServerOptions say which server Start starts, and how.
type ServerOptions struct {
	Executable string // letterlock
	DataDir    string
	Address    string       // HOST:PORT
	Args       []string     // more of serve's flags
	Wrap       []string     // what stands before the command: strace, say
	TLS        *Certificate // nil: plain HTTP

	BesideCPU func() time.Duration // what others use for this server, like its database; nil: nobody
}

// Start runs `letterlock serve` and waits until it answers.
func Start(ctx context.Context, o ServerOptions) (*Process, error) {
	args := slices.Concat(o.Wrap, []string{o.Executable, "serve", "--data", o.DataDir, "--listen", o.Address, "--no-limits-for-loopback"}, o.Args)
	p := &Process{Target: At("http://" + o.Address), options: o, log: &tail{}, done: make(chan struct{})}
	if o.TLS != nil {
		p.Target = target("https://"+o.Address, o.TLS.trust)
		args = append(args, "--tls-cert", o.TLS.CertFile, "--tls-key", o.TLS.KeyFile)
	}
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second // what Wrap started may hold these open for longer than the server lives
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.done)
	}()
	for {
		if p.healthy(ctx) {
			return p, nil
		}
		select {
		case <-p.done:
			return nil, fmt.Errorf("the server ended before it answered; it said:\n%s", p.log)
		case <-ctx.Done():
			p.Kill()
			return nil, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (p *Process) healthy(ctx context.Context) bool {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.URL+"/healthz", nil)
	if err != nil {
		return false
	}
	answer, err := p.http.Do(r)
	if err != nil {
		return false
	}
	io.Copy(io.Discard, io.LimitReader(answer.Body, 1024))
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// Kill ends the process at once, as a power cut would, and waits until it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill()
	<-p.done
}

// Signal sends the process a signal: SIGSTOP and SIGCONT, say.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop ends the process in order.
func (p *Process) Stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM)
	<-p.done
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the server ended with code %d; it said:\n%s", code, p.log)
	}
	return nil
}

// Restart ends the server in order and starts it again as it was: with what it stored, and nothing in memory.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	p.http.CloseIdleConnections()
	again, err := Start(ctx, p.options)
	if err != nil {
		return err
	}
	p.cmd, p.log, p.done = again.cmd, again.log, again.done
	return nil
}

// PID is the process's id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Said is the end of what the server wrote to its standard streams.
func (p *Process) Said() string { return p.log.String() }

// CPU is the processor time that the server has used, and what works for it beside, by the kernel's ticks of 10 ms.
func (p *Process) CPU() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // proc(5): utime and stime are fields 14 and 15
	if len(fields) < 13 {
		return 0, fmt.Errorf("bench: /proc/PID/stat has %d fields", len(fields))
	}
	ticks := int64(0)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	used := time.Duration(ticks) * 10 * time.Millisecond
	if p.options.BesideCPU != nil {
		used += p.options.BesideCPU()
	}
	return used, nil
}

// ownCPU is the processor time that this process has used.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// tail keeps the last few kilobytes that were written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if extra := len(t.b) - 8<<10; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
