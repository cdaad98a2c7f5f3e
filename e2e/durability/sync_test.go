package durability

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/bench"
)

// TestNoAcknowledgementPrecedesItsSync watches the server's system calls. A killed process keeps its page cache, so that kills alone
// cannot show that anything was synced. Here each message must be written to the database's log, that file must be synced after the
// write, and only then may the acknowledgement be written to the socket.
func TestNoAcknowledgementPrecedesItsSync(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: make tools installs it (Debian: strace)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	address, err := bench.FreeAddress()
	must(t, err)
	trace := filepath.Join(t.TempDir(), "trace")
	server, err := bench.Start(ctx, bench.ServerOptions{Executable: binary, DataDir: filepath.Join(t.TempDir(), "data"), Address: address,
		Wrap: []string{strace, "-D", "-f", "-qq", "-y", "-xx", "-s", "5000", "-e", "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync", "-o", trace}})
	must(t, err)
	stopped := false
	defer func() {
		if !stopped {
			server.Kill()
		}
	}()
	pair, err := bench.NewPair(ctx, server.Target)
	must(t, err)
	stream, err := pair.A.Dial(ctx)
	must(t, err)
	defer stream.Close()
	var sent []sentMessage
	for request := uint32(1); request <= 25; request++ {
		m := sentMessage{request: request, body: pair.Message(200, 0)}
		must(t, stream.Send(api.Frame{Type: api.FrameSend, Request: request, Conversation: pair.Conversation, Dedup: [16]byte(newKey()), Message: m.body}))
		f, err := stream.Recv(ctx)
		must(t, err)
		if f.Type != api.FrameAck || f.Request != request {
			t.Fatalf("got frame %#x for %d", f.Type, f.Request)
		}
		sent = append(sent, m)
	}
	stream.Close()
	must(t, server.Stop())
	stopped = true
	calls, err := readTrace(trace)
	must(t, err)
	for _, m := range sent {
		if err := judge(calls, m); err != nil {
			t.Errorf("message %d: %v", m.request, err)
		}
	}
}

// sentMessage is one that was acknowledged.
type sentMessage struct {
	request uint32
	body    []byte
}

// mark is a piece of the message that stands in no other one.
func (m sentMessage) mark() string {
	return hex.EncodeToString(m.body[len(m.body)-40 : len(m.body)-16])
}

// ack is how the acknowledgement stands on the wire: type, length, request (spec/frames.md).
func (m sentMessage) ack() string {
	return fmt.Sprintf("%02x%08x%08x", byte(api.FrameAck), 28, m.request)
}

// syscall is one that was seen. begins and ends are places in the trace.
type syscall struct {
	name   string
	file   string // what its descriptor is
	data   string // hex
	ok     bool
	begins int
	ends   int
}

var (
	callLine    = regexp.MustCompile(`^(\d+) +(\w+)\(\d+<([^>]*)>(.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	failedCall  = regexp.MustCompile(`= -1 E`)
	hexString   = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"`)
)

// readTrace reads the output of strace -f -y -xx.
func readTrace(path string) (calls []*syscall, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unfinished := make(map[string]*syscall) // by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 0; lines.Scan(); n++ {
		line := lines.Text()
		if m := resumedLine.FindStringSubmatch(line); m != nil {
			if c := unfinished[m[1]]; c != nil && c.name == m[2] {
				c.ends, c.ok = n, !failedCall.MatchString(m[3])
				delete(unfinished, m[1])
			}
			continue
		}
		m := callLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		c := &syscall{name: m[2], file: m[3], begins: n, ends: n, ok: !failedCall.MatchString(m[4])}
		for _, s := range hexString.FindAllStringSubmatch(m[4], -1) {
			c.data += strings.ReplaceAll(s[1], `\x`, "")
		}
		if strings.Contains(m[4], "<unfinished") {
			c.ends, c.ok = 1<<30, false
			unfinished[m[1]] = c
		}
		calls = append(calls, c)
	}
	return calls, lines.Err()
}

// judge finds the message's write, the sync that covers it, and its acknowledgement, in this order and none other.
func judge(calls []*syscall, m sentMessage) error {
	wal := func(c *syscall) bool { return strings.HasSuffix(unescape(c.file), "letterlock.db-wal") }
	written, acked := (*syscall)(nil), (*syscall)(nil)
	for _, c := range calls {
		switch {
		case written == nil && strings.HasPrefix(c.name, "pwrite") && wal(c) && strings.Contains(c.data, m.mark()):
			written = c
		case acked == nil && strings.HasPrefix(unescape(c.file), "TCP:") && strings.Contains(c.data, m.ack()) || acked == nil && strings.HasPrefix(unescape(c.file), "socket:") && strings.Contains(c.data, m.ack()):
			acked = c
		}
	}
	if written == nil {
		return fmt.Errorf("its write to the database's log is not in the trace")
	}
	if acked == nil {
		return fmt.Errorf("its acknowledgement is not in the trace")
	}
	for _, c := range calls {
		if (c.name == "fsync" || c.name == "fdatasync") && wal(c) && c.ok && c.begins > written.ends && c.ends < acked.begins {
			return nil
		}
	}
	return fmt.Errorf("no sync of the log lies between its write (line %d) and its acknowledgement (line %d)", written.ends+1, acked.begins+1)
}

// unescape reads a path that strace -xx wrote in hex.
func unescape(s string) string {
	if !strings.HasPrefix(s, `\x`) {
		return s
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil {
		return s
	}
	return string(b)
}

// TestTheJudgeCanFail gives the judge traces of servers that lie.
func TestTheJudgeCanFail(t *testing.T) {
	m := sentMessage{request: 7, body: make([]byte, 64)}
	for i := range m.body {
		m.body[i] = byte(i)
	}
	escape := func(h string) (s string) {
		for i := 0; i < len(h); i += 2 {
			s += `\x` + h[i:i+2]
		}
		return s
	}
	write := `10 pwrite64(9</d/letterlock.db-wal>, "` + escape(m.mark()) + `", 4096, 0) = 4096`
	sync := `10 fdatasync(9</d/letterlock.db-wal>) = 0`
	begun, ended := `10 fdatasync(9</d/letterlock.db-wal> <unfinished ...>`, `10 <... fdatasync resumed>) = 0`
	ack := `11 write(12<socket:[55]>, "` + escape("8221"+m.ack()) + `", 35) = 35`
	for name, c := range map[string]struct {
		lines  []string
		honest bool
	}{
		"in order":                       {[]string{write, sync, ack}, true},
		"sync in two parts":              {[]string{write, begun, ended, ack}, true},
		"acknowledged before the sync":   {[]string{write, ack, sync}, false},
		"acknowledged during the sync":   {[]string{write, begun, ack, ended}, false},
		"synced before the write":        {[]string{sync, write, ack}, false},
		"never synced":                   {[]string{write, ack}, false},
		"the sync failed":                {[]string{write, `10 fdatasync(9</d/letterlock.db-wal>) = -1 EIO (Input/output error)`, ack}, false},
		"another file was synced":        {[]string{write, `10 fdatasync(9</d/letterlock.db>) = 0`, ack}, false},
		"never written":                  {[]string{sync, ack}, false},
		"never acknowledged":             {[]string{write, sync}, false},
		"another request's acknowledged": {[]string{write, sync, strings.Replace(ack, `\x07"`, `\x08"`, 1)}, false},
	} {
		path := filepath.Join(t.TempDir(), "trace")
		must(t, os.WriteFile(path, []byte(strings.Join(c.lines, "\n")), 0o600))
		calls, err := readTrace(path)
		must(t, err)
		if err := judge(calls, m); (err == nil) != c.honest {
			t.Errorf("%s: judged %v", name, err)
		}
	}
}
