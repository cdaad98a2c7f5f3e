package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"letterlock/chat"
)

// Memory is what a process holds, in bytes.
type Memory struct {
	Resident int64 `json:"rss"`           // VmRSS of /proc/PID/status
	Share    int64 `json:"pss,omitempty"` // Pss of /proc/PID/smaps_rollup: pages that others map too count in part; 0: not to be read
	InUse    int64 `json:"in_use"`        // heap and stacks that are needed: after a collection that is asked for when the others were read
}

// Memory reads what the server holds now, and then has it collect its garbage, to tell what it needs.
func (p *Process) Memory(ctx context.Context) (m Memory, err error) {
	if m.Resident, err = kilobytes(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid), "VmRSS:"); err != nil {
		return m, err
	}
	m.Share, _ = kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", p.cmd.Process.Pid), "Pss:") // not every kernel has it
	if err := p.admin(ctx, "/debug/pprof/heap?gc=1", io.Discard); err != nil {
		return m, err
	}
	var metrics bytes.Buffer
	if err := p.admin(ctx, "/metrics", &metrics); err != nil {
		return m, err
	}
	for line := range strings.Lines(metrics.String()) {
		fields := strings.Fields(line)
		if len(fields) == 2 && (fields[0] == "go_memstats_heap_alloc_bytes" || fields[0] == "go_memstats_stack_inuse_bytes") {
			n, err := strconv.ParseFloat(fields[1], 64)
			if err != nil {
				return m, err
			}
			m.InUse += int64(n)
		}
	}
	return m, nil
}

// admin asks the server on its operator's socket.
func (p *Process) admin(ctx context.Context, path string, to io.Writer) error {
	t := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(p.options.DataDir, "admin.sock"))
	}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	answer, err := t.RoundTrip(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("bench: the server's %s answered %s", path, answer.Status)
	}
	_, err = io.Copy(to, answer.Body)
	return err
}

// kilobytes finds a line like "VmRSS:   1234 kB" and gives its bytes.
func kilobytes(path, name string) (int64, error) {
	fields, err := lineOf(path, name)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	return n << 10, err
}

// lineOf gives the words after a line's first one.
func lineOf(path, first string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 && fields[0] == first {
			return fields[1:], nil
		}
	}
	return nil, fmt.Errorf("bench: %s has no line %s", path, first)
}

// socketBuffers is what the kernel holds for data in TCP sockets, of all programs and both ends, in bytes; 0: not to be read. What a
// socket itself takes is not in it.
func socketBuffers() int64 {
	fields, err := lineOf("/proc/net/sockstat", "TCP:")
	for i := 0; err == nil && i+1 < len(fields); i++ {
		if fields[i] == "mem" {
			pages, _ := strconv.ParseInt(fields[i+1], 10, 64)
			return pages * int64(os.Getpagesize())
		}
	}
	return 0
}

// spareFiles are what a process has open beside the connections.
const spareFiles = 256

// NeedFiles lets this process, and a server that it starts afterwards, hold so many connections each.
func NeedFiles(connections int) error {
	need := uint64(connections + spareFiles)
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	if l.Max < need {
		raised := syscall.Rlimit{Cur: need, Max: need}
		if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &raised) == nil { // only root may
			return nil
		}
		return chat.Errorf(chat.Invalid, "%d connections need %d open files here and as many in the server, and this shell allows %d: "+
			"raise it (ulimit -Hn %d as root, or LimitNOFILE of the unit), or measure fewer", connections, need, l.Max, need)
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}

// freeBytes is the room left on the disk of a folder.
func freeBytes(dir string) (int64, error) {
	var s syscall.Statfs_t
	err := syscall.Statfs(dir, &s)
	return int64(s.Bavail) * s.Bsize, err
}
