package httpd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"

	"letterlock/chat"
)

// socket is the server's end of a WebSocket (RFC 6455) on a connection that has left net/http. A quiet one holds no buffer: the next
// bytes are awaited without one, and read into one of a pool. Messages are binary; pings and closes are answered here.
//
// One goroutine reads and one writes at a time; pongs and closes come from the reader, so that writing takes a lock.
type socket struct {
	net.Conn
	raw  syscall.RawConn // nil: TLS, which reads into a buffer of its own
	poll func(fd uintptr) bool

	buf        *[]byte   // pooled; nil: nothing received waits
	start, end int       // what of it is received and not taken
	readErr    error     // of poll
	deadline   time.Time // of reading; zero: none

	state   ws.State
	message []byte // of a message in several frames: what came so far

	writing sync.Mutex
}

const (
	writeTime = 30 * time.Second // how long a client may take nothing, or leave a frame half sent, before it is disconnected
	bufSize   = 16 << 10
	maxKept   = 512 << 10 // larger buffers are not kept in a pool
)

// quietTime is about how long a connection is read from in vain before it is put aside. It is a variable for tests alone.
var quietTime = 10 * time.Second

// incoming and outgoing are buffers for reading and writing. Those for writing begin with room for a frame's header.
var (
	incoming = sync.Pool{New: func() any { b := make([]byte, bufSize); return &b }}
	outgoing = sync.Pool{New: func() any { b := make([]byte, ws.MaxHeaderSize, bufSize); return &b }}
)

func newSocket(conn net.Conn) *socket {
	c := &socket{Conn: conn, state: ws.StateServerSide}
	if s, ok := conn.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.raw, c.poll = raw, c.readAvailable
		}
	}
	return c
}

// begin takes over what was received before.
func (c *socket) begin(early []byte) {
	c.buf = incoming.Get().(*[]byte)
	c.room(len(early))
	c.end = copy(*c.buf, early)
}

// messages hands each message to take until the connection ends or take returns an error, which is returned. The message's bytes are
// good until take returns. A message above limit bytes ends the connection.
func (c *socket) messages(limit int, take func([]byte) error) error {
	defer c.release()
	for {
		n, err := c.frame(limit, take)
		if err != nil {
			return err
		}
		if n == 0 { // the next frame is not whole
			if err := c.receive(); err != nil {
				return err
			}
		}
	}
}

// frame takes the first received frame and returns its size; 0: it is not whole.
func (c *socket) frame(limit int, take func([]byte) error) (int, error) {
	if c.start == c.end {
		return 0, nil
	}
	b := (*c.buf)[c.start:c.end]
	r := bytes.NewReader(b)
	h, err := ws.ReadHeader(r)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return 0, nil
	}
	if err == nil {
		err = ws.CheckHeader(h, c.state)
	}
	if err != nil {
		return 0, c.broken(ws.StatusProtocolError, err)
	}
	if h.Length > int64(limit-len(c.message)) {
		return 0, c.broken(ws.StatusMessageTooBig, chat.Errorf(chat.TooLarge, "a message has at most %d bytes", limit))
	}
	head := len(b) - r.Len()
	size := head + int(h.Length)
	if size > len(b) {
		c.room(size)
		return 0, nil
	}
	payload := b[head:size]
	ws.Cipher(payload, h.Mask, 0)
	c.start += size
	if h.OpCode.IsControl() {
		return size, c.control(h.OpCode, payload)
	}
	return size, c.data(h, payload, take)
}

// data takes a frame of a message.
func (c *socket) data(h ws.Header, payload []byte, take func([]byte) error) error {
	if h.OpCode == ws.OpText {
		return chat.Errorf(chat.Invalid, "messages must be binary")
	}
	if !h.Fin {
		c.state = c.state.Set(ws.StateFragmented)
		c.message = append(c.message, payload...)
		return nil
	}
	if !c.state.Fragmented() {
		return take(payload)
	}
	c.state = c.state.Clear(ws.StateFragmented)
	payload = append(c.message, payload...)
	c.message = nil
	return take(payload)
}

// control answers a ping or a close.
func (c *socket) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpPing:
		return c.write(ws.NewPongFrame(payload))
	case ws.OpClose:
		c.closeWith(ws.StatusNormalClosure, "")
		return io.EOF
	}
	return nil
}

// broken closes for a breach of RFC 6455 itself.
func (c *socket) broken(code ws.StatusCode, why error) error {
	c.closeWith(code, why.Error())
	return net.ErrClosed
}

// receive reads more. It waits without a buffer where it can, and not for ever: errQuiet where nothing is half received.
func (c *socket) receive() (err error) {
	if c.start == c.end {
		c.release()
	}
	if c.buf == nil && c.raw != nil {
		c.readUntil(quietTime)
		if err := c.raw.Read(c.poll); errors.Is(err, os.ErrDeadlineExceeded) {
			c.deadline = time.Time{}
			return errQuiet
		} else if err != nil {
			return err
		}
		return c.readErr
	}
	if c.buf == nil {
		c.buf = incoming.Get().(*[]byte)
		c.deadline = time.Time{}
		c.SetReadDeadline(c.deadline)
	} else {
		c.readUntil(writeTime)
	}
	c.room(c.end - c.start + 1)
	n, err := c.Read((*c.buf)[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// readUntil has reading end after d at most, and half of d at least: to set the deadline for every read would cost more than to wait
// a little longer or shorter.
func (c *socket) readUntil(d time.Duration) {
	if now := time.Now(); c.deadline.Sub(now) < d/2 || c.deadline.Sub(now) > d {
		c.deadline = now.Add(d)
		c.SetReadDeadline(c.deadline)
	}
}

// errQuiet means that nothing was received for a while, and no frame is half received.
var errQuiet = errors.New("httpd: the connection is quiet")

// readAvailable reads into a buffer of the pool, or says that there is nothing to read yet.
func (c *socket) readAvailable(fd uintptr) bool {
	buf := incoming.Get().(*[]byte)
	n, err := syscall.Read(int(fd), *buf)
	for err == syscall.EINTR {
		n, err = syscall.Read(int(fd), *buf)
	}
	if err == syscall.EAGAIN {
		incoming.Put(buf)
		return false
	}
	c.readErr = err
	if n > 0 {
		c.buf, c.end = buf, n
		return true
	}
	incoming.Put(buf)
	if err == nil {
		c.readErr = io.EOF
	}
	return true
}

// room makes the buffer hold size bytes from what is not taken on, and one more than is received.
func (c *socket) room(size int) {
	b := *c.buf
	if c.start+size <= len(b) && c.end < len(b) {
		return
	}
	if size > len(b) || c.end-c.start == len(b) {
		b = make([]byte, max(size, 2*len(b)))
	}
	c.end = copy(b, (*c.buf)[c.start:c.end])
	c.start = 0
	*c.buf = b
}

// release gives the buffer back.
func (c *socket) release() {
	if c.buf != nil && len(*c.buf) <= maxKept {
		incoming.Put(c.buf)
	}
	c.buf, c.start, c.end = nil, 0, 0
}

// writeBehind sends a binary message that begins ws.MaxHeaderSize bytes into b, in one write with its header.
func (c *socket) writeBehind(b []byte) error {
	h := ws.Header{Fin: true, OpCode: ws.OpBinary, Length: int64(len(b) - ws.MaxHeaderSize)}
	start := ws.MaxHeaderSize - ws.HeaderSize(h)
	head := bytes.NewBuffer(b[start:start])
	if err := ws.WriteHeader(head, h); err != nil {
		return err
	}
	return c.send(b[start:])
}

func (c *socket) write(f ws.Frame) error {
	b, err := ws.CompileFrame(f)
	if err != nil {
		return err
	}
	return c.send(b)
}

func (c *socket) send(b []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.SetWriteDeadline(time.Now().Add(writeTime))
	_, err := c.Conn.Write(b)
	return err
}

// closeWith says goodbye. Whether the client hears it is its own affair.
func (c *socket) closeWith(code ws.StatusCode, why string) {
	c.write(ws.NewCloseFrame(ws.NewCloseFrameBody(code, why)))
}
