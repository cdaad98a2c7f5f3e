package demo

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync"
)

// liar stands between a server and its clients and changes what the server answers, as an operator could: whatever a lie needs, it has, the
// server's keys included.
type liar struct {
	http *http.Server

	mu  sync.Mutex
	lie lie
}

// lie changes an answer. nil: the truth.
type lie func(r *http.Request, answer []byte) []byte

// startLiar listens on one port for the server on another.
func startLiar(port, server int) (*liar, error) {
	l := new(liar)
	target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(server))}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // proofs of possession are made for the public address
		},
		ModifyResponse: l.change,
		ErrorLog:       log.New(io.Discard, "", 0), // while the server starts
	}
	at, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, err
	}
	l.http = &http.Server{Handler: proxy}
	go l.http.Serve(at)
	return l, nil
}

// tells makes the liar tell a lie while do runs.
func (l *liar) tells(lie lie, do func() error) error {
	l.set(lie)
	defer l.set(nil)
	return do()
}

func (l *liar) set(lie lie) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lie = lie
}

func (l *liar) change(r *http.Response) error {
	l.mu.Lock()
	lie := l.lie
	l.mu.Unlock()
	if lie == nil || r.StatusCode != http.StatusOK {
		return nil
	}
	answer, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	r.Body.Close()
	answer = lie(r.Request, answer)
	r.Body = io.NopCloser(bytes.NewReader(answer))
	r.ContentLength = int64(len(answer))
	r.Header.Set("Content-Length", strconv.Itoa(len(answer)))
	r.Header.Del("ETag")
	return nil
}
