package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/gobwas/ws"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/delivery"
)

// routesLive serves the live connection of spec/frames.md.
func (s *server) routesLive(mux *http.ServeMux) {
	if s.Live == nil {
		return
	}
	mux.Handle("GET /v1/ws", s.authenticated(s.live))
}

// live upgrades to a WebSocket that carries a delivery.Stream, and returns: the connection goes on without the request, which would
// hold several kilobytes of a quiet one. It decides nothing.
func (s *server) live(w http.ResponseWriter, r *http.Request) error {
	if from := r.Header.Get("Origin"); from != "" && from != s.PublicURL {
		return chat.Errorf(chat.Forbidden, "a page of another origin may not open the live connection")
	}
	caller, err := api.CallerFrom(r.Context())
	if err != nil {
		return err
	}
	conn, received, _, err := ws.UpgradeHTTP(r, w) // no extensions: compression gains nothing, everything is ciphertext
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil // it has answered
	}
	c := newSocket(conn)
	if n := received.Reader.Buffered(); n > 0 { // frames that came right behind the request
		early, _ := received.Reader.Peek(n)
		c.begin(early)
	}
	go s.serveLive(c, caller)
	return nil
}

// carrier joins a socket and its stream. One goroutine reads while there is something to read, one writes while there is something to
// write; a quiet connection has neither.
type carrier struct {
	socket *socket
	stream *delivery.Stream
	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed by who writes the last frame
	place  uint64        // where it waits when it is quiet; 0: it never was
}

// serveLive carries frames until the client goes, breaks the rules, or the stream ends.
func (s *server) serveLive(c *socket, caller api.Caller) {
	l := &carrier{socket: c, ended: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	var err error
	if l.stream, err = s.Live(api.WithCaller(l.ctx, caller), func() { go l.write() }); err != nil {
		c.closeWith(ws.StatusInternalServerError, string(chat.KindOf(err)))
		l.cancel()
		c.Close()
		return
	}
	l.read()
}

// read hands what comes to the stream. When nothing has come for a while it returns, and is called again when something does.
func (l *carrier) read() {
	err := l.socket.messages(api.MaxClientFrames, func(m []byte) error { return l.stream.Receive(l.ctx, m) })
	for errors.Is(err, errQuiet) {
		if park(l) {
			return
		}
		err = l.socket.messages(api.MaxClientFrames, func(m []byte) error { return l.stream.Receive(l.ctx, m) })
	}
	var problem *chat.Error
	if errors.As(err, &problem) {
		l.stream.End(problem)
		<-l.ended // the client has writeTime to take it
	}
	l.stream.Close()
	l.cancel()
	l.socket.Close()
}

// write sends what the stream has, at once, until it has nothing more: then the stream starts it anew with the next frame.
func (l *carrier) write() {
	out := outgoing.Get().(*[]byte)
	defer func() {
		if cap(*out) <= maxKept {
			outgoing.Put(out)
		}
	}()
	for {
		b, ended := l.stream.Take(l.ctx, (*out)[:ws.MaxHeaderSize])
		*out = b
		if len(b) == ws.MaxHeaderSize && ended == nil {
			return
		}
		if len(b) > ws.MaxHeaderSize && l.socket.writeBehind(b) != nil {
			ended = net.ErrClosed
		}
		if ended != nil {
			l.end(ended)
			return
		}
	}
}

// end closes the connection and says why. The stream calls nobody any more.
func (l *carrier) end(why error) {
	if !errors.Is(why, net.ErrClosed) {
		l.socket.closeWith(closeCode(why), string(chat.KindOf(why)))
	}
	l.cancel()
	l.socket.Close() // wakes who reads
	close(l.ended)
	unpark(l)
}

// closeCode is the WebSocket status that goes with a problem (RFC 6455 section 7.4.1).
func closeCode(err error) ws.StatusCode {
	switch chat.KindOf(err) {
	case chat.Unavailable:
		return ws.StatusGoingAway
	case chat.Internal:
		return ws.StatusInternalServerError
	}
	return ws.StatusPolicyViolation
}

// pathUint reads a number from the path.
func pathUint(r *http.Request, name string) (uint64, error) {
	n, err := strconv.ParseUint(r.PathValue(name), 10, 63)
	if err != nil {
		return 0, chat.Errorf(chat.Invalid, "%s must be a number", name)
	}
	return n, nil
}
