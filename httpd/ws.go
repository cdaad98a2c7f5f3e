package httpd

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
)

// writeTime is how long a client may take nothing before it is disconnected.
const writeTime = 30 * time.Second

// routesLive serves the live connection of spec/frames.md.
func (s *server) routesLive(mux *http.ServeMux) {
	if s.Live == nil {
		return
	}
	mux.Handle("GET /v1/ws", s.authenticated(s.live))
}

// live carries a delivery.Stream over a WebSocket: this goroutine reads, another writes. It decides nothing.
func (s *server) live(w http.ResponseWriter, r *http.Request) error {
	st, err := s.Live(r.Context())
	if err != nil {
		return err
	}
	defer st.Close()
	c, err := websocket.Accept(w, r, nil) // no compression: everything is ciphertext
	if err != nil {
		return nil // it has answered
	}
	defer c.CloseNow()
	c.SetReadLimit(api.MaxClientFrames)
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	var writer sync.WaitGroup
	writer.Go(func() {
		defer c.CloseNow() // wakes the reader
		defer cancel()
		writeFrames(ctx, c, st)
	})
	err = readFrames(ctx, c, st)
	var problem *chat.Error
	if errors.As(err, &problem) {
		st.End(problem) // the writer sends it and closes
	} else {
		cancel()
		c.CloseNow()
	}
	writer.Wait()
	return nil
}

// readFrames hands each message to the stream until the client goes or breaks the rules. It blocks while the stream takes no more.
//
// Reads and writes of the socket have no context of their own, which would cost a timer and two allocations each: closing the
// connection ends them.
func readFrames(ctx context.Context, c *websocket.Conn, st *delivery.Stream) error {
	var buf []byte
	for {
		kind, r, err := c.Reader(context.Background())
		if err != nil {
			return err
		}
		if kind != websocket.MessageBinary {
			return chat.Errorf(chat.Invalid, "messages must be binary")
		}
		if buf, err = readAll(r, buf[:0]); err != nil {
			return err
		}
		if err := st.Receive(ctx, buf); err != nil {
			return err
		}
		if cap(buf) > keptBuffer {
			buf = nil
		}
	}
}

// readAll reads a message into buf, which grows if it must; the connection's read limit bounds it.
func readAll(r io.Reader, buf []byte) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(512, len(buf)))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}

// keptBuffer is how much a quiet connection keeps of its read buffer, in bytes.
const keptBuffer = 4 << 10

// buffers are for writing; a quiet connection holds none.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// writeFrames sends whatever the stream has, at once, until the stream or the client ends.
func writeFrames(ctx context.Context, c *websocket.Conn, st *delivery.Stream) {
	stuck := time.AfterFunc(writeTime, func() { c.CloseNow() })
	stuck.Stop()
	for {
		select {
		case <-st.Ready():
		case <-ctx.Done():
			return
		}
		if !writeReady(ctx, c, st, stuck) {
			return
		}
	}
}

func writeReady(ctx context.Context, c *websocket.Conn, st *delivery.Stream, stuck *time.Timer) bool {
	pooled := buffers.Get().(*[]byte)
	defer func() {
		if cap(*pooled) <= 512<<10 {
			buffers.Put(pooled)
		}
	}()
	for {
		b, ended := st.Take(ctx, (*pooled)[:0])
		*pooled = b
		if len(b) > 0 {
			stuck.Reset(writeTime)
			err := c.Write(context.Background(), websocket.MessageBinary, b)
			stuck.Stop()
			if err != nil {
				return false
			}
		}
		if ended != nil {
			c.Close(closeCode(ended), string(chat.KindOf(ended)))
			return false
		}
		if len(b) == 0 {
			return true
		}
	}
}

// closeCode is the WebSocket status that goes with a problem (RFC 6455 section 7.4.1).
func closeCode(err error) websocket.StatusCode {
	switch chat.KindOf(err) {
	case chat.Unavailable:
		return websocket.StatusGoingAway
	case chat.Internal:
		return websocket.StatusInternalError
	}
	return websocket.StatusPolicyViolation
}

// pathUint reads a number from the path.
func pathUint(r *http.Request, name string) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue(name), 10, 63)
	if err != nil {
		return 0, chat.Errorf(chat.Invalid, "%s must be a number", name)
	}
	return n, nil
}
