package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"letterlock/api/httpclient"
)

// Target is a server as its clients reach it.
type Target struct {
	URL string

	http *http.Client // for everybody's calls: a pool of connections, not one for each person
	tls  *tls.Config  // nil: plain HTTP, or what this machine trusts
}

// At is a server at a public URL whose certificate, if it has one, this machine trusts.
func At(url string) Target { return target(url, nil) }

func target(url string, c *tls.Config) Target {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.TLSClientConfig = 64, c.Clone() // the transport changes its own: it speaks HTTP/2 too
	return Target{URL: url, http: &http.Client{Transport: t}, tls: c}
}

func (t Target) options() httpclient.Options {
	return httpclient.Options{BaseURL: t.URL, HTTP: t.http, Now: time.Now, Rand: rand.Reader}
}

// Certificate is a throw-away certificate for this machine: two files for a server, and the trust of its clients. Its key is made
// here and signs itself.
type Certificate struct {
	CertFile, KeyFile string
	trust             *tls.Config
}

// NewCertificate makes a certificate that is good for a day and writes it, with its key, into dir.
func NewCertificate(dir string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "letterlock bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	c := &Certificate{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), trust: &tls.Config{RootCAs: x509.NewCertPool()}}
	c.trust.RootCAs.AddCert(made)
	if err := writePEM(c.CertFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return c, writePEM(c.KeyFile, "PRIVATE KEY", private)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}

// Progress hears how far a measurement is: a line each, without its end.
type Progress func(format string, args ...any)

func (p Progress) say(format string, args ...any) {
	if p != nil {
		p(format, args...)
	}
}

// step tells of every tenth of n things.
func (p Progress) step(what string, done, n int) {
	if done == n || done*10/n != (done-1)*10/n {
		p.say("%s: %d of %d", what, done, n)
	}
}

// parallel does n things, so many at a time, and stops at the first error. done counts what is finished.
func parallel(ctx context.Context, n, atOnce int, done func(int), do func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next, finished atomic.Int64
	var workers sync.WaitGroup
	for range min(n, atOnce) {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
				if done != nil {
					done(int(finished.Add(1)))
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// workers is how many people act at a time while a measurement is being set up.
func workers() int { return 8 * runtime.GOMAXPROCS(0) }

// makeAll makes n things that a measurement needs, a few at a time.
func makeAll[T any](ctx context.Context, what string, n int, progress Progress, one func(ctx context.Context, i int) (T, error)) ([]T, error) {
	all := make([]T, n)
	done := func(done int) { progress.step(what, done, n) }
	err := parallel(ctx, n, workers(), done, func(ctx context.Context, i int) (err error) {
		all[i], err = one(ctx, i)
		return err
	})
	return all, err
}

// NewPeers signs up so many people.
func NewPeers(ctx context.Context, at Target, n int, progress Progress) ([]*Peer, error) {
	return makeAll(ctx, "people", n, progress, func(ctx context.Context, _ int) (*Peer, error) { return newPeer(ctx, at) })
}
