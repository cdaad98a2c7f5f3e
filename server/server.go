// Package server puts one letterlock server together from its parts and runs it: store, keys, services, listeners, shutdown.
//
// Neighbours: cmd starts it; everything it builds lives in packages of its own, and build.go is where they meet. It has no rules of
// its own about people, messages or permission. It refuses a data folder that another server holds, and plain HTTP that anybody but
// this machine could reach.
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"letterlock/account"
	"letterlock/chat"
	"letterlock/delivery"
	"letterlock/httpd"
	"letterlock/proof"
)

// Config is what an operator says.
type Config struct {
	DataDir   string // keys, database file, lock, admin socket; made if it is not there
	Database  string // address of a PostgreSQL that takes the file's place; empty: none. May hold a password
	Listen    string // HOST:PORT; port 0 takes a free one
	PublicURL string // the origin that clients use; empty: from Listen
	TLSCert   string // PEM files; both or neither
	TLSKey    string

	ExemptLoopback bool // no rate limits for callers from this machine: for tests and benchmarks, never behind a proxy

	Registration account.Registration // empty: open
	Limits       delivery.Limits      // of each account
	MaxFriends   int                  // of an account; 0: the default

	Policy *proof.WitnessPolicy // whose cosignatures the ledger needs; nil: as the ledger's own record says, none at first

	Version string
	Logger  *slog.Logger
	Now     func() time.Time
}

// Server is a built server that listens and does not serve yet.
type Server struct {
	config   Config
	lock     *os.File
	listener net.Listener
	admin    net.Listener
	public   *url.URL
	parts    *parts
}

// shutdownTime is how long requests that are under way may take when the server ends.
const shutdownTime = 10 * time.Second

// New takes the data folder, opens the listeners and builds every part. Run serves; Close gives up without having served.
func New(ctx context.Context, c Config) (*Server, error) {
	s := &Server{config: c}
	if err := s.open(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(s.config.DataDir, 0o700); err != nil {
		return chat.Wrap(chat.Invalid, err, "the data folder cannot be made")
	}
	if s.lock, err = takeLock(filepath.Join(s.config.DataDir, lockName)); err != nil {
		return err
	}
	if s.config.Database == "" {
		if err := refuseMoved(s.config.DataDir); err != nil {
			return err
		}
	}
	if s.listener, err = net.Listen("tcp", s.config.Listen); err != nil {
		return chat.Wrap(chat.Unavailable, err, "cannot listen on %s: is another program using it? choose another with --listen", s.config.Listen)
	}
	if s.public, err = publicURL(s.config, s.listener.Addr()); err != nil {
		return err
	}
	if s.admin, err = listenAdmin(filepath.Join(s.config.DataDir, socketName)); err != nil {
		return err
	}
	s.parts, err = build(ctx, s.config, s.public)
	return err
}

// publicURL settles under which origin clients reach the server, and refuses to let anything but loopback speak plain HTTP.
func publicURL(c Config, addr net.Addr) (*url.URL, error) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, chat.Errorf(chat.Invalid, "--tls-cert and --tls-key go together")
	}
	tlsHere := c.TLSCert != ""
	public := c.PublicURL
	if public == "" && !loopback(addr) {
		return nil, chat.Errorf(chat.Invalid, "others need a name to reach this server by: give --public-url https://..., with --tls-cert and --tls-key "+
			"or a TLS proxy in front; plain HTTP is for this machine alone (--listen 127.0.0.1:PORT)")
	}
	if public == "" {
		scheme := "http"
		if tlsHere {
			scheme = "https"
		}
		public = scheme + "://" + addr.String()
	}
	if err := httpd.CheckPublicURL(public); err != nil {
		return nil, err
	}
	u, err := url.Parse(public)
	if err != nil {
		return nil, err
	}
	if tlsHere || loopback(addr) && (u.Scheme == "https" || loopbackName(u.Hostname())) {
		return u, nil
	}
	if u.Scheme == "https" { // a proxy speaks TLS for us, from another machine
		return u, nil
	}
	return nil, chat.Errorf(chat.Invalid, "plain HTTP is for this machine alone: give --tls-cert and --tls-key, or put a TLS proxy in front "+
		"and give its address with --public-url https://...")
}

func loopback(addr net.Addr) bool {
	t, ok := addr.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

func loopbackName(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// URL is the origin under which clients reach the server.
func (s *Server) URL() string { return s.public.String() }

// Run serves until ctx ends, then shuts down: live connections and long polls are sent away, requests under way are answered, what was
// queued is written, the store is closed.
func (s *Server) Run(ctx context.Context) error {
	defer s.close()
	work, stopWork := context.WithCancel(context.Background())
	defer stopWork()
	var background sync.WaitGroup
	for _, job := range s.parts.jobs {
		background.Go(func() { job(work) })
	}
	public := &http.Server{Handler: s.parts.metrics.counted(s.parts.handler), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(s.config.Logger.Handler(), slog.LevelDebug)}
	admin := &http.Server{Handler: s.parts.adminHandler, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 2)
	go func() { failed <- s.serve(public) }()
	go func() { failed <- admin.Serve(s.admin) }()
	s.config.Logger.Info("serving", slog.String("url", s.URL()), slog.String("data", s.config.DataDir))

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.config.Logger.Info("shutting down")
	s.parts.delivery.Drain()
	timed, cancel := context.WithTimeout(context.Background(), shutdownTime)
	defer cancel()
	err = errors.Join(err, public.Shutdown(timed), admin.Shutdown(timed))
	s.parts.delivery.Close()
	stopWork()
	background.Wait()
	return err
}

func (s *Server) serve(h *http.Server) error {
	if s.config.TLSCert == "" {
		return h.Serve(s.listener)
	}
	h.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13}
	return h.ServeTLS(s.listener, s.config.TLSCert, s.config.TLSKey)
}

// Close gives up a server that was not run.
func (s *Server) Close() { s.close() }

func (s *Server) close() {
	if s.parts != nil {
		if err := s.parts.store.Close(); err != nil {
			s.config.Logger.Error("closing the store", slog.Any("error", err))
		}
	}
	if s.listener != nil {
		s.listener.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.lock != nil {
		s.lock.Close()
	}
}

// listenAdmin opens the socket for the operator's commands and metrics. Who can open files of this user can use it, and nobody else.
func listenAdmin(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a server that was killed: we hold the lock
		return nil, fmt.Errorf("server: admin socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, chat.Wrap(chat.Invalid, err, "cannot make the admin socket %s (a socket's path has at most 107 bytes: choose a shorter --data)", path)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("server: admin socket: %w", err)
	}
	return l, nil
}
