// Package cluster runs a private PostgreSQL for tests and measurements: made by initdb in a temporary folder, reached on a loopback
// port with a password of its own, synced like a real one, gone at the end.
//
// It needs the server programs of PostgreSQL 15 or later on this machine (Debian: apt-get install postgresql) and touches no cluster
// that is there. PostgreSQL refuses to run as root: then the cluster belongs to the user postgres, or nobody. However this process
// ends, a small shell beside it stops the cluster and removes its folder.
package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrMissing means that this machine has no PostgreSQL to start.
var ErrMissing = errors.New("PostgreSQL is not installed: apt-get install postgresql")

// Cluster is a running server.
type Cluster struct {
	bin      string // folder of the programs
	dir      string // ours: data, socket, log
	port     int
	password string
	owner    *syscall.Credential // nil: ourselves
	server   *exec.Cmd
	ended    chan struct{} // closed when server has ended
	watchdog *exec.Cmd
	alive    io.Closer // the watchdog's standard input
	names    atomic.Int64
}

// startTime is how long a server may take until it answers.
const startTime = 60 * time.Second

// Start makes a cluster in a new folder below dir, or below the system's temporary folder if dir is empty, and waits until it answers.
// Whoever runs the server must be able to reach that folder.
func Start(ctx context.Context, dir string) (_ *Cluster, err error) {
	c := &Cluster{password: rand.Text()}
	if c.bin, err = programs(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp(dir, "letterlock-pg-"); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if err := c.watch(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(c.dir))
	}
	if err := c.init(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	if err := c.Restart(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

// programs finds the newest installed version's folder.
func programs() (string, error) {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	if len(found) == 0 {
		return "", ErrMissing
	}
	slices.SortFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(found[len(found)-1]), nil
}

// version reads the number in /usr/lib/postgresql/15/bin/initdb.
func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// stop is the shell beside us. It waits until its input ends, which it does when we end, and then clears away.
const stop = `read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ] && [ "$(readlink "/proc/$pid/cwd")" = "$1/data" ]; then
	kill -QUIT "$pid" 2>/dev/null
	for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
	kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"`

// watch starts the shell. It is in a group of its own, so that an interrupt at the terminal does not end it first.
func (c *Cluster) watch() (err error) {
	c.watchdog = exec.Command("sh", "-c", stop, "sh", c.dir)
	c.watchdog.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.alive, err = c.watchdog.StdinPipe(); err != nil {
		return err
	}
	return c.watchdog.Start()
}

// init makes the cluster. It sorts text as people do (ICU) where it can, so that nothing comes to lean on the order of bytes.
func (c *Cluster) init(ctx context.Context) error {
	if os.Geteuid() == 0 {
		var err error
		if c.owner, err = unprivileged(); err != nil {
			return err
		}
		if err := os.Chown(c.dir, int(c.owner.Uid), int(c.owner.Gid)); err != nil {
			return err
		}
	}
	file := filepath.Join(c.dir, "password")
	if err := os.WriteFile(file, []byte(c.password+"\n"), 0o644); err != nil { // the folder is its owner's alone
		return err
	}
	args := []string{"-D", filepath.Join(c.dir, "data"), "-U", "letterlock", "-A", "scram-sha-256", "--pwfile=" + file, "-E", "UTF8", "--locale=C", "--no-sync"}
	if out, err := c.command(ctx, "initdb", append(args, "--locale-provider=icu", "--icu-locale=en")...).CombinedOutput(); err != nil {
		return fmt.Errorf("cluster: initdb: %w\n%s", err, out)
	}
	return os.Remove(file)
}

// unprivileged finds a user that PostgreSQL consents to run as.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("cluster: PostgreSQL does not run as root, and there is no user postgres or nobody")
}

// command is a program of PostgreSQL, run as the cluster's owner with nothing of our surroundings that it would listen to.
func (c *Cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, name), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner, Setpgid: true}
	return cmd
}

// Restart starts the server on its folder, after Start by itself and after Kill by whoever killed it, and waits until it answers.
func (c *Cluster) Restart(ctx context.Context) (err error) {
	if c.port == 0 {
		if c.port, err = freePort(); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c.server = c.command(context.WithoutCancel(ctx), "postgres", "-D", filepath.Join(c.dir, "data"), "-k", c.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(c.port))
	c.server.Stdout, c.server.Stderr = log, log
	if err := c.server.Start(); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	ended := make(chan struct{})
	c.ended = ended
	go func(server *exec.Cmd) { server.Wait(); close(ended) }(c.server)
	return c.answering(ctx)
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// answering waits until the server takes connections.
func (c *Cluster) answering(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, c.URL("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-c.ended:
			return fmt.Errorf("cluster: the server ended: %s", c.logged())
		case <-ctx.Done():
			return fmt.Errorf("cluster: the server does not answer: %w\n%s", err, c.logged())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// logged is the end of the server's log.
func (c *Cluster) logged() string {
	log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
	return string(log[max(0, len(log)-2000):])
}

// URL is the address of a database of the cluster, password included.
func (c *Cluster) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword("letterlock", c.password), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), Path: "/" + database}
	return u.String()
}

// NewDatabase makes an empty database and returns its address.
func (c *Cluster) NewDatabase(ctx context.Context) (string, error) {
	name := "db" + strconv.FormatInt(c.names.Add(1), 10)
	return c.URL(name), c.Exec(ctx, "CREATE DATABASE "+name)
}

// Exec runs a statement as the cluster's owner, outside of any transaction and database of ours.
func (c *Cluster) Exec(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres"))
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// Kill ends the server and every process of it at once by SIGKILL, as a crash would. Restart starts it again.
func (c *Cluster) Kill() error {
	server := c.server.Process.Pid
	if err := syscall.Kill(server, syscall.SIGSTOP); err != nil { // so that it starts no more of them
		return fmt.Errorf("cluster: %w", err)
	}
	theirs := children(server)
	for _, pid := range theirs {
		syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
	if err := syscall.Kill(server, syscall.SIGKILL); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	<-c.ended
	for _, pid := range theirs { // no server starts while one of them still has the shared memory
		for !dead(pid) {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// dead is true of what is not there, or waits only to be asked how it ended.
func dead(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" Z"))
}

// Freeze stops the server and every process of it where they are (SIGSTOP), as a machine that hangs would; Thaw lets them go on.
func (c *Cluster) Freeze() error {
	server := c.server.Process.Pid
	err := syscall.Kill(server, syscall.SIGSTOP) // first, so that it starts no more of them
	for _, pid := range children(server) {
		syscall.Kill(pid, syscall.SIGSTOP) // it may have ended by itself
	}
	return err
}

// Thaw lets the server go on after Freeze.
func (c *Cluster) Thaw() error {
	server := c.server.Process.Pid
	for _, pid := range children(server) {
		syscall.Kill(pid, syscall.SIGCONT)
	}
	return syscall.Kill(server, syscall.SIGCONT)
}

// beside starts the server in the background, as its owner, waits until its file says that it is ready, and becomes the command that
// follows.
const beside = `(cd "$1" && exec ${2:+setpriv --reuid $2 --regid $3 --clear-groups} env -i PATH=/usr/bin:/bin LC_ALL=C TZ=UTC \
	"$4/postgres" -D "$1/data" -k "$1" -h 127.0.0.1 -p "$5") >>"$1/log" 2>&1 </dev/null &
until [ "$(sed -n '1p;8p' "$1/data/postmaster.pid" | xargs)" = "$! ready" ]; do kill -0 $! || exit 1; sleep 0.05; done
shift 5
exec "$@"`

// Beside is what to put before a command so that the server, which Kill has ended, runs again as a process beside that command: then
// one strace watches both. Kill and Restart do not know that server; Stop ends it.
func (c *Cluster) Beside() []string {
	uid, gid := "", ""
	if c.owner != nil {
		uid, gid = strconv.Itoa(int(c.owner.Uid)), strconv.Itoa(int(c.owner.Gid))
	}
	return []string{"sh", "-c", beside, "sh", c.dir, uid, gid, c.bin, strconv.Itoa(c.port)}
}

// children lists a process's children. In /proc/PID/stat the parent is the second field after the name, which ends with the last ")".
func children(parent int) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		stat, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Size is how many bytes a database takes on the disk, without the server's log.
func (c *Cluster) Size(ctx context.Context, url string) (bytes int64, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	return bytes, conn.QueryRow(ctx, "SELECT pg_database_size(current_database())").Scan(&bytes)
}

// CPU is the processor time of the server with all its processes, those that ended included, by the kernel's ticks of 10 ms (proc(5):
// utime, stime, cutime and cstime are fields 14 to 17).
func (c *Cluster) CPU() time.Duration {
	used := func(pid, last int) (ticks int64) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0
		}
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[min(11, len(fields)):min(last, len(fields))] {
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
		return ticks
	}
	ticks := used(c.server.Process.Pid, 15)
	for _, pid := range children(c.server.Process.Pid) {
		ticks += used(pid, 13)
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// Stop ends the server and removes its folder.
func (c *Cluster) Stop() error {
	err := c.alive.Close()
	return errors.Join(err, c.watchdog.Wait())
}
