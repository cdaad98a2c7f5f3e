package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"letterlock/bench"
)

// machine is where the servers run: their folder, and the user they run as.
type machine struct {
	dir  string
	cred *syscall.Credential // nil: whoever runs this
}

// newMachine makes the folder that everything is kept in. PostgreSQL refuses to run as root: for root the servers run as nobody.
func newMachine(under string) (m *machine, err error) {
	m = new(machine)
	if os.Geteuid() == 0 {
		if m.cred, err = nobody(); err != nil {
			return nil, err
		}
	}
	if m.dir, err = os.MkdirTemp(under, "letterlock-peers-"); err != nil {
		return nil, err
	}
	return m, m.give(m.dir)
}

func nobody() (*syscall.Credential, error) {
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, err
}

// folder makes a folder for one server.
func (m *machine) folder(name string) (string, error) {
	dir := filepath.Join(m.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	return dir, m.give(dir)
}

// file writes a configuration file.
func (m *machine) file(path, text string) error {
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return m.give(path)
}

func (m *machine) give(path string) error {
	if m.cred == nil {
		return nil
	}
	return os.Chown(path, int(m.cred.Uid), int(m.cred.Gid))
}

// command is a program that runs in dir, in a process group of its own, so that an interrupt at the terminal reaches it through us, and
// not longer than us.
func (m *machine) command(ctx context.Context, dir, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: m.cred, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	return cmd
}

// do runs a program to its end and gives what it printed.
func do(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w; it said:\n%s", filepath.Base(cmd.Path), err, tail(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

// freePort is an address of this machine that nobody listens on now, and its port.
func freePort() (address, port string, err error) {
	if address, err = bench.FreeAddress(); err != nil {
		return "", "", err
	}
	_, port, err = net.SplitHostPort(address)
	return address, port, err
}

// service is a server that runs.
type service struct {
	cmd  *exec.Cmd
	log  string // file
	end  syscall.Signal
	done chan struct{}
}

// start starts a server that ends on a signal, and waits until it listens on address.
func start(ctx context.Context, cmd *exec.Cmd, address string, end syscall.Signal) (*service, error) {
	s := &service{cmd: cmd, log: filepath.Join(cmd.Dir, "output.log"), end: end, done: make(chan struct{})}
	log, err := os.Create(s.log)
	if err != nil {
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Start()
	log.Close()
	if err != nil {
		return nil, err
	}
	go func() {
		cmd.Wait()
		close(s.done)
	}()
	for limit := time.Now().Add(patient); ; {
		if c, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			return s, c.Close()
		}
		select {
		case <-s.done:
			return nil, fmt.Errorf("%s ended before it listened; it said:\n%s", filepath.Base(cmd.Path), s.said())
		case <-ctx.Done():
			s.stop()
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(limit) {
			s.stop()
			return nil, fmt.Errorf("%s did not listen within %v; it said:\n%s", filepath.Base(cmd.Path), patient, s.said())
		}
	}
}

func (s *service) said() string {
	text, _ := os.ReadFile(s.log)
	return tail(string(text))
}

func tail(text string) string { return text[max(0, len(text)-4<<10):] }

// stop ends the server in order, or, if it does not end within ten seconds, at once, with all that it started.
func (s *service) stop() {
	s.cmd.Process.Signal(s.end)
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
	}
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

// serverCPU is the processor time, by the kernel's ticks of 10 ms, of everything that this process started: servers are measured one
// after the other, so that it all belongs to one of them and to its PostgreSQL.
func serverCPU() time.Duration {
	var total time.Duration
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	parents, used := map[int]int{}, map[int]time.Duration{}
	for _, path := range stats {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		if parent, cpu, ok := readStat(path); ok {
			parents[pid], used[pid] = parent, cpu
		}
	}
	for pid, cpu := range used {
		for at := parents[pid]; at > 1; at = parents[at] {
			if at == os.Getpid() {
				total += cpu
				break
			}
		}
	}
	return total
}

// readStat reads a process's parent, and what it and those of its children that have ended used. A process that ends meanwhile is not ok.
func readStat(path string) (parent int, cpu time.Duration, ok bool) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:])) // proc(5): field 3 is the first of these
	if len(fields) < 15 {
		return 0, 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime
		ticks, _ := strconv.ParseInt(f, 10, 64)
		cpu += time.Duration(ticks) * 10 * time.Millisecond
	}
	return parent, cpu, err == nil
}

// ownCPU is the processor time of the generator.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// machineCPU is the processor time that the machine has used for everything, waiting for disks apart.
func machineCPU() (total time.Duration) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	for i, f := range strings.Fields(first) { // proc(5): cpu user nice system idle iowait irq softirq
		ticks, _ := strconv.ParseInt(f, 10, 64)
		if i >= 1 && i <= 7 && i != 4 && i != 5 {
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total
}
