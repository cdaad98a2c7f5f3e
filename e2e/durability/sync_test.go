package durability

import (
	"bufio"
	"bytes"
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
	"letterlock/store/storetest"
)

// TestNoAcknowledgementPrecedesItsSync watches the server's system calls. A killed process keeps its page cache, so that kills alone
// cannot show that anything was synced. Here each message must be written to the database's log, that file must be synced after the
// write, and only then may the acknowledgement be written to the socket.
func TestNoAcknowledgementPrecedesItsSync(t *testing.T) {
	p := onFile(t)
	watch(t, p, sqliteLog, nil)
}

// TestNoAcknowledgementPrecedesItsSyncPostgres watches the server and all processes of PostgreSQL at once: whichever of them writes and
// syncs, it must be before the server's acknowledgement.
func TestNoAcknowledgementPrecedesItsSyncPostgres(t *testing.T) {
	p := onPostgres(t, storetest.Cluster(t))
	must(t, p.cluster.Kill())
	watch(t, p, postgresLog, p.cluster.Beside())
}

// watch sends messages to a server under strace, behind what beside says, and judges each of them.
func watch(t *testing.T, p *place, log journal, beside []string) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("strace is missing: make tools installs it (Debian: strace)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	trace := filepath.Join(t.TempDir(), "trace")
	p.start(ctx, append([]string{strace, "-D", "-f", "-qq", "-y", "-xx", "-s", "100000",
		"-e", "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,fsync,fdatasync", "-o", trace}, beside...)...)
	pair, err := bench.NewPair(ctx, p.server.Target)
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
	must(t, p.server.Stop())
	calls, err := readTrace(trace)
	must(t, err)
	for _, m := range sent {
		if err := judge(calls, log, m); err != nil {
			t.Errorf("message %d: %v", m.request, err)
		}
	}
}

// journal is how an engine's log of transactions looks in a trace.
type journal struct {
	is   func(path string) bool   // that path is a file of it
	text func(data []byte) []byte // what was written, without what a page puts in between; nil: data
}

var (
	sqliteLog   = journal{is: func(path string) bool { return strings.HasSuffix(path, "letterlock.db-wal") }}
	postgresLog = journal{is: func(path string) bool { return strings.Contains(path, "/pg_wal/") }, text: withoutPageHeaders}
)

// withoutPageHeaders takes the headers out of pages of PostgreSQL's log, since a record goes on behind the header of the next page. It
// writes whole pages of 8,192 bytes. A header has 24 bytes, or 40 where its flags, in bytes 2 and 3, say so
// (src/include/access/xlog_internal.h: XLogPageHeaderData, XLP_LONG_HEADER).
func withoutPageHeaders(data []byte) (records []byte) {
	const page, header, longHeader, long = 8192, 24, 40, 2
	for ; len(data) >= longHeader; data = data[min(page, len(data)):] {
		n := header
		if (data[2]|data[3])&long != 0 {
			n = longHeader
		}
		records = append(records, data[n:min(page, len(data))]...)
	}
	return records
}

// sentMessage is one that was acknowledged.
type sentMessage struct {
	request uint32
	body    []byte
}

// mark is a piece of the message that stands in no other one.
func (m sentMessage) mark() []byte { return m.body[len(m.body)-40 : len(m.body)-16] }

// ack is how the acknowledgement stands on the wire: type, length, request (spec/frames.md).
func (m sentMessage) ack() []byte {
	return []byte{byte(api.FrameAck), 0, 0, 0, 28, byte(m.request >> 24), byte(m.request >> 16), byte(m.request >> 8), byte(m.request)}
}

// call is a system call that was seen. begins and ends are places in the trace: strace writes a line for each before it lets the
// process go on.
type call struct {
	name   string
	file   string // what its descriptor is
	data   []byte
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
func readTrace(path string) (calls []*call, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	unfinished := make(map[string]*call) // by thread
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
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
		c := &call{name: m[2], file: string(unescape(m[3])), begins: n, ends: n, ok: !failedCall.MatchString(m[4])}
		for _, s := range hexString.FindAllStringSubmatch(m[4], -1) {
			c.data = append(c.data, unescape(s[1])...)
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
func judge(calls []*call, log journal, m sentMessage) error {
	written, acked := (*call)(nil), (*call)(nil)
	for _, c := range calls {
		socket := strings.HasPrefix(c.file, "TCP:") || strings.HasPrefix(c.file, "socket:")
		switch {
		case written == nil && strings.HasPrefix(c.name, "pwrite") && log.is(c.file) && log.holds(c.data, m.mark()):
			written = c
		case acked == nil && socket && bytes.Contains(c.data, m.ack()):
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
		if (c.name == "fsync" || c.name == "fdatasync") && c.file == written.file && c.ok && c.begins > written.ends && c.ends < acked.begins {
			return nil
		}
	}
	return fmt.Errorf("no sync of the log lies between its write (line %d) and its acknowledgement (line %d)", written.ends+1, acked.begins+1)
}

func (j journal) holds(data, mark []byte) bool {
	if j.text != nil {
		data = j.text(data)
	}
	return bytes.Contains(data, mark)
}

// unescape reads what strace -xx wrote in hex.
func unescape(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, `\x`, ""))
	if err != nil || !strings.HasPrefix(s, `\x`) {
		return []byte(s)
	}
	return b
}

// TestTheJudgeCanFail gives the judge traces of servers that lie.
func TestTheJudgeCanFail(t *testing.T) {
	m := sentMessage{request: 7, body: make([]byte, 64)}
	for i := range m.body {
		m.body[i] = byte(i)
	}
	// A page of PostgreSQL's log whose header is long, and in which the mark begins; it goes on behind the next page's header.
	pages := make([]byte, 2*8192)
	pages[2] = 2
	split := copy(pages[8192-10:8192], m.mark())
	copy(pages[8192+24:], m.mark()[split:])
	for name, e := range map[string]struct {
		log           journal
		file, another string
		data          []byte
	}{
		"sqlite":   {sqliteLog, "/d/letterlock.db-wal", "/d/letterlock.db", m.mark()},
		"postgres": {postgresLog, "/d/pg_wal/000000010000000000000001", "/d/pg_wal/000000010000000000000002", pages},
	} {
		t.Run(name, func(t *testing.T) { judgeLies(t, e.log, e.file, e.another, e.data, m) })
	}
}

// judgeLies judges traces in which data, with m's mark, is written to file.
func judgeLies(t *testing.T, log journal, file, another string, data []byte, m sentMessage) {
	escape := func(b []byte) (s string) {
		for _, c := range b {
			s += fmt.Sprintf(`\x%02x`, c)
		}
		return s
	}
	write := fmt.Sprintf(`10 pwrite64(9<%s>, "%s", %d, 0) = %[3]d`, escape([]byte(file)), escape(data), len(data))
	sync := func(path string) string { return fmt.Sprintf(`10 fdatasync(9<%s>) = 0`, escape([]byte(path))) }
	begun, ended := fmt.Sprintf(`10 fdatasync(9<%s> <unfinished ...>`, file), `10 <... fdatasync resumed>) = 0`
	ack := func(request byte) string {
		return `11 write(12<socket:[55]>, "` + escape([]byte{0x82, 0x21}) + escape(m.ack()[:8]) + escape([]byte{request}) + `", 35) = 35`
	}
	for name, c := range map[string]struct {
		lines  []string
		honest bool
	}{
		"in order":                       {[]string{write, sync(file), ack(7)}, true},
		"sync in two parts":              {[]string{write, begun, ended, ack(7)}, true},
		"synced by another process":      {[]string{write, strings.Replace(sync(file), "10", "12", 1), ack(7)}, true},
		"acknowledged before the sync":   {[]string{write, ack(7), sync(file)}, false},
		"acknowledged during the sync":   {[]string{write, begun, ack(7), ended}, false},
		"synced before the write":        {[]string{sync(file), write, ack(7)}, false},
		"never synced":                   {[]string{write, ack(7)}, false},
		"the sync failed":                {[]string{write, strings.Replace(sync(file), "= 0", "= -1 EIO (Input/output error)", 1), ack(7)}, false},
		"another file was synced":        {[]string{write, sync(another), ack(7)}, false},
		"written elsewhere":              {[]string{strings.Replace(write, escape([]byte(file)), "/d/base/16384/2619", 1), sync(file), ack(7)}, false},
		"never written":                  {[]string{sync(file), ack(7)}, false},
		"never acknowledged":             {[]string{write, sync(file)}, false},
		"another request's acknowledged": {[]string{write, sync(file), ack(8)}, false},
	} {
		path := filepath.Join(t.TempDir(), "trace")
		must(t, os.WriteFile(path, []byte(strings.Join(c.lines, "\n")), 0o600))
		calls, err := readTrace(path)
		must(t, err)
		if err := judge(calls, log, m); (err == nil) != c.honest {
			t.Errorf("%s: judged %v", name, err)
		}
	}
}
