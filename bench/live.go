package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"letterlock/api"
	"letterlock/chat"
	"letterlock/dpop"
)

// live is a live connection that costs the generator next to nothing while it is quiet: a socket, no goroutine, no buffer. What a
// message needs is written in one piece. One goroutine may send while another receives.
type live struct {
	conn    net.Conn
	early   *bufio.Reader // what came with the upgrade's answer
	reader  *bufio.Reader // while something is being received
	message []byte        // reused; what next returns

	writing sync.Mutex // guards out, and held over the write: frames of two senders do not mix
	out     []byte
}

// dialTime is how long a connection may take until it is upgraded.
const dialTime = time.Minute

// dial connects, signs in and upgrades, all on one connection. from is the address to come from; nil leaves it to the kernel.
func dial(ctx context.Context, at Target, p *Peer, from *net.TCPAddr) (*live, error) {
	u, err := url.Parse(at.URL)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	d := net.Dialer{}
	if from != nil {
		d.LocalAddr = from
	}
	conn, err := d.DialContext(ctx, "tcp", address(u))
	if err != nil {
		return nil, err
	}
	limit, _ := ctx.Deadline()
	conn.SetDeadline(limit)
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // ends what is under way
	l, err := upgrade(ctx, conn, u, at, p)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	l.conn.SetDeadline(time.Time{})
	return l, nil
}

func address(u *url.URL) string {
	port := u.Port()
	if port == "" && u.Scheme == "https" {
		port = "443"
	} else if port == "" {
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func upgrade(ctx context.Context, conn net.Conn, u *url.URL, at Target, p *Peer) (*live, error) {
	if u.Scheme == "https" {
		c := &tls.Config{}
		if at.tls != nil {
			c = at.tls.Clone()
		}
		c.ServerName = u.Hostname()
		secure := tls.Client(conn, c)
		if err := secure.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secure
	}
	signer, err := dpop.NewSigner(p.key, rand.Reader, time.Now)
	if err != nil {
		return nil, err
	}
	token, err := signIn(conn, at.URL, signer, p)
	if err != nil {
		return nil, err
	}
	const path = "/v1/ws"
	proof, err := signer.Proof(http.MethodGet, at.URL+path, token)
	if err != nil {
		return nil, err
	}
	h := http.Header{"DPoP": {proof}, "Authorization": {"DPoP " + token}}
	l := &live{conn: conn}
	l.early, _, err = ws.Dialer{Header: ws.HandshakeHeaderHTTP(h)}.Upgrade(conn, &url.URL{Host: u.Host, Path: path})
	return l, err
}

// signIn makes the one call before the upgrade, on the same connection.
func signIn(conn net.Conn, base string, signer *dpop.Signer, p *Peer) (token string, err error) {
	const path = "/v1/sessions"
	proof, err := signer.Proof(http.MethodPost, base+path, "")
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(api.SignIn{Account: p.Caller.Account, Device: p.Caller.Device})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequest(http.MethodPost, base+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("DPoP", proof)
	if err := r.Write(conn); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, 4096))
	if err != nil {
		return "", err
	}
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("bench: sign-in was answered %s: %s", answer.Status, b)
	}
	var session api.Session
	err = json.Unmarshal(b, &session)
	return session.Token, err
}

// send writes frames as one message, in one piece.
func (l *live) send(frames ...api.Frame) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	b := l.out[:0]
	var room [ws.MaxHeaderSize]byte
	b = append(b, room[:]...)
	for i := range frames {
		b = frames[i].Append(b)
	}
	l.out = b[:0]
	if cap(b) > keptOut {
		l.out = nil
	}
	return l.write(ws.OpBinary, b)
}

// keptOut is how much a connection keeps of its write buffer, in bytes.
const keptOut = 64 << 10

// write sends a WebSocket frame whose payload begins after room for the longest header.
func (l *live) write(op ws.OpCode, b []byte) error {
	payload := b[ws.MaxHeaderSize:]
	h := ws.Header{Fin: true, OpCode: op, Masked: true, Mask: ws.NewMask(), Length: int64(len(payload))}
	var head bytes.Buffer
	if err := ws.WriteHeader(&head, h); err != nil {
		return err
	}
	ws.Cipher(payload, h.Mask, 0)
	b = b[ws.MaxHeaderSize-head.Len():]
	copy(b, head.Bytes())
	_, err := l.conn.Write(b)
	return err
}

// readers are lent to connections that receive.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4096) }}

// rest gives back the buffers of a connection that waits for nothing now.
func (l *live) rest() {
	if l.reader != nil && l.reader.Buffered() == 0 {
		l.reader.Reset(nil)
		readers.Put(l.reader)
		l.reader = nil
	}
	l.message = nil
}

// next waits for a message and returns its frames, which are good until the next call. WebSocket's own pings are answered.
func (l *live) next() ([]byte, error) {
	if l.reader == nil {
		l.reader = readers.Get().(*bufio.Reader)
		l.reader.Reset(io.Reader(l.conn))
		if l.early != nil {
			l.reader.Reset(io.MultiReader(io.LimitReader(l.early, int64(l.early.Buffered())), l.conn))
			l.early = nil
		}
	}
	l.message = l.message[:0]
	for {
		h, err := ws.ReadHeader(l.reader)
		if err != nil {
			return nil, err
		}
		if h.Masked || h.Length > api.MaxServerFrames-int64(len(l.message)) {
			return nil, fmt.Errorf("bench: the server sent a WebSocket frame of %d bytes that may not be", h.Length)
		}
		start := len(l.message)
		l.message = append(l.message, make([]byte, h.Length)...)
		if _, err := io.ReadFull(l.reader, l.message[start:]); err != nil {
			return nil, err
		}
		if h.OpCode.IsControl() {
			if err := l.control(h.OpCode, l.message[start:]); err != nil {
				return nil, err
			}
			l.message = l.message[:start]
		} else if h.Fin {
			return l.message, nil
		}
	}
}

func (l *live) control(op ws.OpCode, payload []byte) error {
	switch op {
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(payload)
		return chat.Errorf(chat.Unavailable, "the server closed the connection: %d %s", code, reason)
	case ws.OpPing:
		l.writing.Lock()
		defer l.writing.Unlock()
		return l.write(ws.OpPong, append(make([]byte, ws.MaxHeaderSize), payload...))
	}
	return nil
}

// receive waits for a message and hands on its frames. A problem, a refusal or the end of a subscription is an error.
func (l *live) receive(each func(f *api.Frame) error) error {
	b, err := l.next()
	for len(b) > 0 && err == nil {
		var f api.Frame
		if f, b, err = api.NextFrame(b); err != nil {
			return err
		}
		switch f.Type {
		case api.FrameProblem, api.FrameNack, api.FrameEnded:
			return chat.Errorf(f.Kind, "the server refused: %s", f.Detail)
		}
		err = each(&f)
	}
	return err
}

// subscribe asks for a conversation from an entry on and receives until it is live. each gets the entries.
func (l *live) subscribe(id chat.ConversationID, after uint64, each func(e *api.Entry) error) error {
	if err := l.send(api.Frame{Type: api.FrameSubscribe, Conversation: id, Seq: after, OwnByAck: true}); err != nil {
		return err
	}
	for isLive := false; !isLive; {
		err := l.receive(func(f *api.Frame) error {
			isLive = isLive || f.Type == api.FrameLive && f.Conversation == id
			if f.Type == api.FrameEntry && each != nil {
				return each(&f.Entry)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// feed sends messages, so many of them without an answer at a time, until next has no more and every one was acknowledged. Those whose
// place an answer frees leave together. The connection has no subscriptions.
func (l *live) feed(id chat.ConversationID, window int, next func() ([]byte, bool)) error {
	var frames []api.Frame
	for waiting, free := 0, window; ; {
		frames = frames[:0]
		for ; free > 0; free-- {
			m, ok := next()
			if !ok {
				break
			}
			frames = append(frames, api.Frame{Type: api.FrameSend, Conversation: id, Dedup: dedupKey(), Message: m})
		}
		for part := range inMessages(frames) {
			if err := l.send(part...); err != nil {
				return err
			}
		}
		if waiting += len(frames); waiting == 0 {
			return nil
		}
		err := l.receive(func(f *api.Frame) error {
			if f.Type == api.FrameAck {
				waiting--
				free++
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// dedupKey is a new key as spec/frames.md advises: 6 bytes of time, 10 random ones.
func dedupKey() (k [16]byte) {
	rand.Read(k[:])
	binary.BigEndian.PutUint64(k[:], uint64(time.Now().UnixMilli())<<16|uint64(binary.BigEndian.Uint16(k[6:])))
	return k
}

// inMessages divides frames into messages that the server takes.
func inMessages(frames []api.Frame) func(yield func([]api.Frame) bool) {
	return func(yield func([]api.Frame) bool) {
		start, size := 0, 0
		for i := range frames {
			n := len(frames[i].Message) + 64
			if size+n > api.MaxClientFrames && i > start {
				if !yield(frames[start:i]) {
					return
				}
				start, size = i, 0
			}
			size += n
		}
		if start < len(frames) {
			yield(frames[start:])
		}
	}
}

func (l *live) close() { l.conn.Close() }
