package httpd

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"letterlock/chat"
)

// connected is a socket on a real connection, and the client's end.
func connected(t *testing.T) (*socket, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return newSocket(server), client
}

// masked is a client's frame on the wire.
func masked(fin bool, op ws.OpCode, payload string) []byte {
	b, err := ws.CompileFrame(ws.MaskFrame(ws.NewFrame(op, fin, []byte(payload))))
	if err != nil {
		panic(err)
	}
	return b
}

// gathered runs messages and returns what it took.
func gathered(c *socket, limit int) (got []string, err error) {
	err = c.messages(limit, func(m []byte) error {
		got = append(got, string(m))
		return nil
	})
	return got, err
}

func TestSocketTakesMessagesHoweverTheyArrive(t *testing.T) {
	long := string(bytes.Repeat([]byte("long "), 20_000))
	stream := bytes.Join([][]byte{
		masked(true, ws.OpBinary, "one"), masked(true, ws.OpBinary, ""), masked(true, ws.OpBinary, long),
		masked(false, ws.OpBinary, "in "), masked(true, ws.OpPing, "alive?"), masked(false, ws.OpContinuation, "three "), masked(true, ws.OpContinuation, "parts"),
		masked(true, ws.OpClose, "\x03\xe8"),
	}, nil)
	for name, size := range map[string]int{"at once": len(stream), "in pieces": 7001, "early": 0} {
		t.Run(name, func(t *testing.T) {
			c, client := connected(t)
			answered := make(chan []byte)
			go func() {
				all, _ := io.ReadAll(client)
				answered <- all
			}()
			if size == 0 {
				c.begin(bytes.Clone(stream))
			} else {
				go func() {
					for b := stream; len(b) > 0; b = b[min(size, len(b)):] {
						client.Write(b[:min(size, len(b))])
						time.Sleep(time.Millisecond)
					}
				}()
			}
			got, err := gathered(c, 1<<20)
			if err != io.EOF || len(got) != 4 || got[0] != "one" || got[1] != "" || got[2] != long || got[3] != "in three parts" {
				t.Errorf("got %d messages, %v", len(got), err)
			}
			if c.buf != nil {
				t.Error("it holds its buffer after the end")
			}
			c.Close()
			pong, goodbye := ws.MustCompileFrame(ws.NewPongFrame([]byte("alive?"))), ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))
			if all := <-answered; !bytes.Equal(all, append(pong, goodbye...)) {
				t.Errorf("answered %x", all)
			}
		})
	}
}

func TestSocketRefusesWhatBreaksTheProtocol(t *testing.T) {
	unmasked, err := ws.CompileFrame(ws.NewBinaryFrame([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	reserved := masked(true, ws.OpBinary, "x")
	reserved[0] |= 0x40
	huge := []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}
	for name, c := range map[string]struct {
		sent []byte
		code ws.StatusCode
	}{
		"not masked":                      {unmasked, ws.StatusProtocolError},
		"a reserved bit":                  {reserved, ws.StatusProtocolError},
		"a continuation of nothing":       {masked(true, ws.OpContinuation, "x"), ws.StatusProtocolError},
		"a message inside a message":      {append(masked(false, ws.OpBinary, "x"), masked(true, ws.OpBinary, "y")...), ws.StatusProtocolError},
		"an unknown kind of frame":        {masked(true, 5, "x"), ws.StatusProtocolError},
		"too large":                       {masked(true, ws.OpBinary, string(make([]byte, 101))), ws.StatusMessageTooBig},
		"too large in parts":              {append(masked(false, ws.OpBinary, string(make([]byte, 60))), masked(true, ws.OpContinuation, string(make([]byte, 41)))...), ws.StatusMessageTooBig},
		"a length of eight exabytes":      {huge, ws.StatusMessageTooBig},
		"a length with its highest bit":   {[]byte{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, ws.StatusProtocolError},
		"a ping in parts":                 {masked(false, ws.OpPing, "x"), ws.StatusProtocolError},
		"a ping larger than pings may be": {masked(true, ws.OpPing, string(make([]byte, 126))), ws.StatusProtocolError},
	} {
		s, client := connected(t)
		go client.Write(c.sent)
		if got, err := gathered(s, 100); !errors.Is(err, net.ErrClosed) || len(got) != 0 {
			t.Errorf("%s: took %d messages, %v", name, len(got), err)
		}
		f, err := ws.ReadFrame(client)
		if code, _ := ws.ParseCloseFrameData(f.Payload); err != nil || f.Header.OpCode != ws.OpClose || code != c.code {
			t.Errorf("%s: answered %v %d, %v", name, f.Header.OpCode, code, err)
		}
	}
	s, client := connected(t)
	go client.Write(masked(true, ws.OpText, "{}"))
	if _, err := gathered(s, 100); !chat.Is(err, chat.Invalid) {
		t.Errorf("text: %v", err)
	}
}

// TestAQuietSocketHoldsNoBuffer is what 15,000 idle devices cost: the buffer goes back as soon as everything is taken.
func TestAQuietSocketHoldsNoBuffer(t *testing.T) {
	c, client := connected(t)
	took := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- c.messages(1000, func([]byte) error { took <- struct{}{}; return nil })
	}()
	for range 3 {
		client.Write(masked(true, ws.OpBinary, "x"))
		<-took
	}
	client.Close()
	if err := <-ended; err != io.EOF {
		t.Errorf("ended with %v", err)
	}
	if c.raw == nil {
		t.Skip("this system lends no raw connections")
	}
	if c.receive(); c.buf != nil {
		t.Error("it waits with a buffer")
	}
}

// silent is a connection that has nothing more to say.
type silent struct{ net.Conn }

func (silent) Read([]byte) (int, error)         { return 0, io.EOF }
func (silent) Write(b []byte) (int, error)      { return len(b), nil }
func (silent) SetWriteDeadline(time.Time) error { return nil }
func (silent) SetReadDeadline(time.Time) error  { return nil }

func FuzzSocket(f *testing.F) {
	f.Add(masked(true, ws.OpBinary, "one"))
	f.Add(append(masked(false, ws.OpBinary, "in "), masked(true, ws.OpContinuation, "parts")...))
	f.Add(append(masked(true, ws.OpPing, "?"), masked(true, ws.OpClose, "\x03\xe8bye")...))
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, received []byte) {
		c := newSocket(silent{})
		c.begin(received)
		total := 0
		err := c.messages(1<<16, func(m []byte) error {
			if len(m) > 1<<16 {
				t.Fatalf("a message of %d bytes", len(m))
			}
			total += len(m)
			return nil
		})
		if err == nil || total > len(received) {
			t.Fatalf("%d bytes of messages out of %d, ended with %v", total, len(received), err)
		}
	})
}
