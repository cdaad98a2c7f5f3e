// Package operate does what an operator does, with the real binary: it lets people in by invitation, blocks one, and holds the files in
// contrib to the program that they start.
package operate

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// binary is letterlock, built once, as the Containerfile builds it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "letterlock-operate-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "letterlock")
	text, err := os.ReadFile("../../contrib/Containerfile")
	if err != nil {
		panic(err)
	}
	build := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 go build .*) -o /out/letterlock \.$`).FindSubmatch(text)
	if build == nil {
		panic("the Containerfile has no go build with CGO_ENABLED=0")
	}
	cmd := exec.Command("sh", "-c", string(build[1])+" -o "+binary+" .")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		panic(string(out))
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// site is a server and the folders of its people.
type site struct {
	t   *testing.T
	dir string
	url string
}

// newSite starts a server with further flags, behind these words if any (strace). It ends with the test, or by stop.
func newSite(t *testing.T, before, flags, env []string) (s *site, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ll") // short enough for a socket
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	listen := l.Addr().String()
	must(t, l.Close())
	s = &site{t, dir, "http://" + listen}
	args := slices.Concat(before, []string{binary, "serve", "--data", "server", "--listen", listen}, flags)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log bytes.Buffer
	cmd.Stderr = &log
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v\n%s", err, log.String())
		}
	}
	t.Cleanup(stop)
	for range 400 {
		if answer, err := http.Get(s.url + "/healthz"); err == nil {
			answer.Body.Close()
			return s, stop
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the server does not answer")
	return nil, nil
}

// do runs a command that must succeed.
func (s *site) do(args ...string) string {
	s.t.Helper()
	code, out := s.try(args...)
	if code != 0 {
		s.t.Fatalf("letterlock %s: %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// refused runs a command that must be refused, with exit code 3 and these words.
func (s *site) refused(words string, args ...string) {
	s.t.Helper()
	if code, out := s.try(args...); code != 3 || !strings.Contains(out, words) {
		s.t.Errorf("letterlock %s: %d, want 3 and %q\n%s", strings.Join(args, " "), code, words, out)
	}
}

func (s *site) try(args ...string) (int, string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = s.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String()
}

func (s *site) client(who string, args ...string) []string {
	return append([]string{"client", "--home", who}, args...)
}

func (s *site) admin(args ...string) string {
	s.t.Helper()
	return s.do(append([]string{"admin", "--data", "server"}, args...)...)
}

func (s *site) friends(a, b string) {
	s.t.Helper()
	s.do(s.client(a, "friends", "add", b)...)
	s.do(s.client(b, "friends", "accept", a)...)
}

func TestInvitations(t *testing.T) {
	s, _ := newSite(t, nil, []string{"--registration", "invite"}, nil)
	s.refused("by invitation", s.client("alice", "signup", "alice", "--server", s.url)...)
	var made struct{ ID, Code string }
	must(t, json.Unmarshal([]byte(s.admin("invite", "create", "--expires", "2d", "--json")), &made))
	s.do(s.client("alice", "signup", "alice", "--server", s.url, "--invite", made.Code)...)
	s.refused("not valid, or not any more", s.client("bob", "signup", "bob", "--server", s.url, "--invite", made.Code)...)
	if out := s.admin("invite", "list"); !strings.Contains(out, made.ID+"  1 of 1 used") || strings.Contains(out, made.Code) {
		t.Errorf("invite list:\n%s", out)
	}
	s.admin("invite", "revoke", made.ID)
	if out := s.admin("invite", "list"); out != "" {
		t.Errorf("after revoking: %s", out)
	}
	must(t, json.Unmarshal([]byte(s.admin("invite", "create", "--json")), &made))
	s.do(s.client("bob", "signup", "bob", "--server", s.url, "--invite", made.Code)...)
}

func TestClosed(t *testing.T) {
	s, _ := newSite(t, nil, []string{"--registration", "closed"}, nil)
	s.refused("takes no new people", s.client("alice", "signup", "alice", "--server", s.url)...)
}

func TestBlocking(t *testing.T) {
	s, _ := newSite(t, nil, nil, nil)
	for _, who := range []string{"alice", "bob", "carol"} {
		s.do(s.client(who, "signup", who, "--server", s.url)...)
	}
	s.friends("alice", "bob")
	s.friends("carol", "bob")
	s.do(s.client("bob", "send", "alice", "before")...)
	s.do(s.client("alice", "read", "bob")...)
	s.do(s.client("alice", "send", "bob", "hello")...)

	s.admin("account", "block", "bob", "--reason", "sent advertisements")
	s.refused("blocked by the operator of the server: sent advertisements", s.client("bob", "send", "alice", "after")...)
	s.refused("sent advertisements", s.client("bob", "sync")...)
	if out := s.do(s.client("alice", "read", "bob")...); !strings.Contains(out, "bob: before") || strings.Contains(out, "after") {
		t.Errorf("Alice reads:\n%s", out)
	}
	s.do(s.client("alice", "send", "bob", "are you there?")...)
	s.refused("cannot be reached now", s.client("carol", "send", "bob", "hello")...)
	if out := s.admin("account", "list"); !strings.Contains(out, "bob, since") || !strings.Contains(out, "BLOCKED") {
		t.Errorf("account list:\n%s", out)
	}

	s.admin("account", "unblock", "bob")
	if out := s.do(s.client("bob", "read", "alice")...); !strings.Contains(out, "alice: are you there?") {
		t.Errorf("Bob reads:\n%s", out)
	}
	s.do(s.client("carol", "send", "bob", "hello")...)
}

func TestAccountsHaveLimits(t *testing.T) {
	s, _ := newSite(t, nil, []string{"--messages-per-second", "1", "--message-burst", "3"}, nil)
	for _, who := range []string{"alice", "bob"} {
		s.do(s.client(who, "signup", who, "--server", s.url)...)
	}
	s.friends("alice", "bob")
	refused := false
	for range 40 {
		if code, out := s.try(s.client("alice", "send", "bob", "again")...); code == 5 && strings.Contains(out, "1 messages a second") {
			refused = true
			break
		}
	}
	if !refused {
		t.Error("forty messages at one a second were all taken at once")
	}
	s.do(s.client("bob", "sync")...)
}

// TestServiceManager: the server says when it is ready and when it ends, as the unit's Type=notify wants.
func TestServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "ll")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "n"), Net: "unixgram"})
	must(t, err)
	defer c.Close()
	_, stop := newSite(t, nil, nil, []string{"NOTIFY_SOCKET=" + filepath.Join(dir, "n")})
	stop()
	for _, want := range []string{"READY=1", "STOPPING=1"} {
		buf := make([]byte, 64)
		must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
		n, err := c.Read(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("%q %v, want %s", buf[:n], err, want)
		}
	}
}

// settings are what serve can be told: names and variables, and the defaults.
func settings(t *testing.T, args ...string) map[string]string {
	t.Helper()
	out, err := exec.Command(binary, append([]string{"serve", "--print-config", "--json"}, args...)...).Output()
	must(t, err)
	var list []struct{ Name, Value, Variable string }
	must(t, json.Unmarshal(out, &list))
	values := map[string]string{}
	for _, s := range list {
		values[s.Name], values[s.Variable] = s.Value, s.Value
	}
	if len(values) < 20 {
		t.Fatalf("%d settings only", len(values)/2)
	}
	return values
}

// TestSampleConfig: the sample is read as it is, and what stands in it as a default is the default.
func TestSampleConfig(t *testing.T) {
	text, err := os.ReadFile("../../contrib/letterlock.conf")
	must(t, err)
	settings(t, "--config", "../../contrib/letterlock.conf")
	defaults := settings(t)
	lines := regexp.MustCompile(`(?m)^#([a-z-]+) =[ ]?(.*)$`).FindAllStringSubmatch(string(text), -1)
	if len(lines) < 6 {
		t.Fatalf("%d defaults in the sample only", len(lines))
	}
	for _, l := range lines {
		if want, known := defaults[l[1]]; !known || want != l[2] && l[1] != "json" { // which is how they were asked for
			t.Errorf("the sample says %s = %s; it is %q", l[1], l[2], want)
		}
	}
}

// TestContainerfile: no container engine is needed to see that what the image starts exists, and is static.
func TestContainerfile(t *testing.T) {
	text, err := os.ReadFile("../../contrib/Containerfile")
	must(t, err)
	f, err := elf.Open(binary)
	must(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary wants a dynamic loader; the image has none")
		}
	}
	known := settings(t)
	instructions := map[string][]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if name, rest, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "#") {
			instructions[name] = append(instructions[name], rest)
		}
	}
	for name := range instructions {
		if !slices.Contains([]string{"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}, name) {
			t.Errorf("no instruction of a Containerfile: %s", name)
		}
	}
	if !slices.Equal(instructions["USER"], []string{"65532:65532"}) || !slices.Equal(instructions["ENTRYPOINT"], []string{`["/letterlock"]`}) ||
		!slices.Equal(instructions["CMD"], []string{`["serve"]`}) || len(instructions["FROM"]) != 2 || instructions["FROM"][1] != "scratch" {
		t.Errorf("the image is not what its test knows: %q", instructions)
	}
	goMod, err := os.ReadFile("../../go.mod")
	must(t, err)
	wants := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(goMod)
	if !strings.Contains(instructions["FROM"][0], "golang:"+string(wants[1])) {
		t.Errorf("%s, but go.mod wants Go %s", instructions["FROM"][0], wants[1])
	}

	// The image's environment and health check, on this machine.
	var env []string
	for _, e := range strings.Fields(strings.Join(instructions["ENV"], " ")) {
		name, value, _ := strings.Cut(e, "=")
		if _, ok := known[name]; !ok {
			t.Errorf("ENV %s is no setting", name)
		}
		env = append(env, name+"="+value)
	}
	check := regexp.MustCompile(`CMD \["/letterlock", "([a-z]+)"\]$`).FindStringSubmatch(strings.Join(instructions["HEALTHCHECK"], ""))
	if check == nil {
		t.Fatal("no health check")
	}
	s, stop := newSite(t, nil, nil, env) // the test's own --data and --listen count before the environment
	if code, out := s.try(check[1], "--data", "server"); code != 0 {
		t.Errorf("the health check of a healthy server: %d %s", code, out)
	}
	stop()
	if code, _ := s.try(check[1], "--data", "server"); code != 5 {
		t.Errorf("the health check of no server: %d", code)
	}
	// Without a public URL the image must say what it needs.
	cmd := exec.Command(binary, "serve")
	cmd.Env = append(env, "LETTERLOCK_DATA="+filepath.Join(s.dir, "other"), "LETTERLOCK_LISTEN=0.0.0.0:0")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "--public-url") {
		t.Errorf("%v %s", err, out)
	}
}

// unit reads a systemd unit: the values of each key, in order.
func unit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../contrib/letterlock.service")
	must(t, err)
	values := map[string][]string{}
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("not a line of a unit: %q", line)
		}
		values[name] = append(values[name], value)
	}
	return values
}

func TestUnit(t *testing.T) {
	u := unit(t)
	known := settings(t)
	for _, e := range u["Environment"] {
		if name, _, _ := strings.Cut(e, "="); known[name] == "" && name != "LETTERLOCK_DATA" {
			t.Errorf("Environment=%s is no setting", name)
		}
	}
	start := strings.Fields(u["ExecStart"][0])
	if !slices.Equal(start, []string{"/usr/local/bin/letterlock", "serve", "--config", "/etc/letterlock/letterlock.conf"}) {
		t.Errorf("ExecStart=%q", start)
	}
	if n, err := strconv.Atoi(u["LimitNOFILE"][0]); err != nil || n < 2*15_000+1000 {
		t.Errorf("LimitNOFILE=%d is too few for 15,000 connections behind a proxy", n)
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here: the rest is not judged")
	}
	text, err := os.ReadFile("../../contrib/letterlock.service")
	must(t, err)
	copied := filepath.Join(t.TempDir(), "letterlock.service")
	must(t, os.WriteFile(copied, bytes.ReplaceAll(text, []byte("/usr/local/bin/letterlock"), []byte(binary)), 0o644))
	for _, args := range [][]string{{"verify", copied}, {"security", "--offline=true", "--no-pager", "--threshold=15", copied}} { // exposure of at most 1.5 in 10
		if out, err := exec.Command("systemd-analyze", args...).CombinedOutput(); err != nil || args[0] == "verify" && len(out) > 0 {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}

// TestUnitAllowsWhatTheServerDoes watches every system call of a server with people on it: the unit's filter must let each through, and
// no memory may be both written and run.
func TestUnitAllowsWhatTheServerDoes(t *testing.T) {
	for _, tool := range []string{"strace", "systemd-analyze"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here", tool)
		}
	}
	allowed := map[string]bool{}
	for _, filter := range unit(t)["SystemCallFilter"] {
		names, deny := strings.CutPrefix(filter, "~")
		for _, set := range strings.Fields(names) {
			for _, call := range callsOf(t, set) {
				allowed[call] = !deny
			}
		}
	}
	trace := filepath.Join(t.TempDir(), "trace")
	s, stop := newSite(t, []string{"strace", "-D", "-f", "-qq", "-o", trace}, nil, nil)
	for _, who := range []string{"alice", "bob"} {
		s.do(s.client(who, "signup", who, "--server", s.url)...)
	}
	s.friends("alice", "bob")
	s.do(s.client("alice", "send", "bob", "Have you seen it?")...)
	s.do(s.client("bob", "read", "alice")...)
	s.admin("status")
	stop()
	text, err := os.ReadFile(trace)
	must(t, err)
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\d+ +([a-z0-9_]+)\(`).FindAllStringSubmatch(string(text), -1) {
		seen[m[1]] = true
	}
	if !seen["accept4"] || !seen["fsync"] && !seen["fdatasync"] {
		t.Fatalf("saw %d kinds of call only", len(seen))
	}
	for call := range seen {
		if call == "fchown" && os.Geteuid() == 0 {
			continue // SQLite gives its files the database's owner, as root alone; the unit's user is not
		}
		if !allowed[call] {
			t.Errorf("the server calls %s, which the unit refuses", call)
		}
	}
	if m := regexp.MustCompile(`(?m)^.*PROT_WRITE\|PROT_EXEC.*$`).Find(text); m != nil {
		t.Errorf("MemoryDenyWriteExecute refuses %s", m)
	}
}

// callsOf lists the system calls of one of systemd's sets, and of the sets in it.
func callsOf(t *testing.T, set string) (calls []string) {
	t.Helper()
	if !strings.HasPrefix(set, "@") {
		return []string{set}
	}
	out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter", set).Output()
	must(t, err)
	for _, line := range strings.Split(string(out), "\n")[1:] {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			calls = append(calls, callsOf(t, line)...)
		}
	}
	return calls
}
