package httpclient

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"letterlock/api"
	"letterlock/chat"
)

// Stream is a device's live connection: the frames of spec/frames.md, both ways. Send may be called by many, Recv by one.
type Stream struct {
	ws     *websocket.Conn
	ctx    context.Context // that it was dialled with, and ends with
	cancel context.CancelFunc

	mu      sync.Mutex // guards what follows; held over no I/O
	waiting []byte     // frames that the writer has not taken
	spare   []byte     // the buffer that it wrote last
	writing bool       // somebody is the writer: a Send that has found nobody at it
	failed  error
	room    *sync.Cond // the writer took what waited

	message []byte // what Recv has of the present message
	buf     []byte
}

// maxWaiting is how many bytes of frames wait before Send blocks. It is also the most that one message holds.
const maxWaiting = api.MaxClientFrames - 1024

// Dial opens the live connection. It ends with ctx, or with Close.
func (d *Device) Dial(ctx context.Context) (*Stream, error) {
	token, err := d.token(ctx, call{}, "")
	if err != nil {
		return nil, err
	}
	ws, err := d.dial(ctx, token)
	if chat.Is(err, chat.Unauthenticated) {
		if token, err = d.token(ctx, call{}, token); err != nil {
			return nil, err
		}
		ws, err = d.dial(ctx, token)
	}
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(api.MaxServerFrames)
	s := &Stream{ws: ws, ctx: ctx}
	ctx, s.cancel = context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { ws.CloseNow() }) // ends a write that is under way
	s.room = sync.NewCond(&s.mu)
	return s, nil
}

func (d *Device) dial(ctx context.Context, token string) (*websocket.Conn, error) {
	const path = "/v1/ws"
	h := http.Header{}
	if err := d.sign(h, http.MethodGet, d.base+path, token); err != nil {
		return nil, err
	}
	ws, answer, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(d.base, "http")+path, &websocket.DialOptions{HTTPClient: d.http, HTTPHeader: h})
	if err == nil {
		return ws, nil
	}
	if answer == nil || answer.Body == nil || answer.StatusCode < 300 {
		return nil, unreachable(ctx, err)
	}
	defer answer.Body.Close()
	d.learnClock(answer)
	return nil, problem(answer)
}

// Send sends frames at once, together with what others send meanwhile: whoever finds nobody writing writes for all. It blocks while
// too much waits already. That it returns nil says nothing of the server: an ack does.
func (s *Stream) Send(frames ...api.Frame) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range frames {
		size := len(s.waiting)
		s.waiting = frames[i].Append(s.waiting)
		for size > 0 && len(s.waiting) > maxWaiting && s.failed == nil {
			s.waiting = s.waiting[:size]
			if s.writing {
				s.room.Wait()
			} else {
				s.write()
			}
			size = len(s.waiting)
			s.waiting = frames[i].Append(s.waiting)
		}
	}
	if s.failed == nil && !s.writing {
		s.write()
	}
	return s.failed
}

// write writes until nothing waits. Called with the stream locked, which it unlocks while it writes.
func (s *Stream) write() {
	s.writing = true
	for len(s.waiting) > 0 && s.failed == nil {
		b := s.waiting
		s.waiting, s.spare = s.spare[:0], nil
		s.room.Broadcast()
		s.mu.Unlock()
		err := s.ws.Write(context.Background(), websocket.MessageBinary, b)
		s.mu.Lock()
		s.spare = b
		if err != nil && s.failed == nil {
			s.failed = unreachable(s.ctx, err)
		}
	}
	s.writing = false
	s.room.Broadcast()
}

func (s *Stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.room.Broadcast()
}

// Recv waits for the next frame. Its byte slices are good until the next call. A problem frame comes back as the error that it says,
// and is the last; a connection that broke is chat.Unavailable.
func (s *Stream) Recv(ctx context.Context) (api.Frame, error) {
	if ctx == s.ctx {
		ctx = context.Background() // its end closes the connection anyhow, and watching it for each message is dear
	}
	for len(s.message) == 0 {
		_, r, err := s.ws.Reader(ctx)
		if err != nil {
			return api.Frame{}, unreachable(ctx, err)
		}
		if s.buf, err = readMessage(r, s.buf[:0]); err != nil {
			return api.Frame{}, unreachable(ctx, err)
		}
		s.message = s.buf
	}
	f, rest, err := api.NextFrame(s.message)
	if err != nil {
		return f, err
	}
	s.message = rest
	if f.Type == api.FrameProblem {
		return f, chat.Errorf(f.Kind, "%s", f.Detail)
	}
	return f, nil
}

// More says that Recv has another frame at hand: whoever answers frames with frames gathers them and sends them in one message.
func (s *Stream) More() bool { return len(s.message) > 0 }

// readMessage reads a message into buf, which grows if it must; the read limit bounds it.
func readMessage(r io.Reader, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(4096, len(buf)))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			if err == io.EOF {
				return buf, nil
			}
			return buf, err
		}
	}
}

// Close ends the connection.
func (s *Stream) Close() error {
	s.fail(chat.Errorf(chat.Unavailable, "the connection was closed"))
	s.cancel()
	return s.ws.CloseNow()
}
