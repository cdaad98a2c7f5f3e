// Package world gives the end-to-end tests a server that really listens and people with real devices: what happens between them crosses
// sockets, and everybody has a folder of their own. Liars are put between a device and its server with Wrap.
//
// It is test code: only tests import it.
package world

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"letterlock/api"
	"letterlock/api/httpclient"
	"letterlock/chat"
	"letterlock/cmd"
	"letterlock/device"
	"letterlock/server"
	"letterlock/store/storetest"
	"letterlock/vault"
)

// World is a server and the people on it.
type World struct {
	T    testing.TB
	Dir  string
	URL  string
	Now  func() time.Time // the server's clock; nil: the system's
	stop func()

	database string // the server's --database
}

// New starts a server in a temporary folder, with the database that LETTERLOCK_TEST_STORE names. It ends with the test.
func New(t testing.TB) *World {
	t.Helper()
	w := &World{T: t, Dir: t.TempDir(), database: storetest.Address(t)}
	w.Start()
	t.Cleanup(func() { w.Stop() })
	return w
}

// Start starts the server on its folder, on the port it had before if there was one.
func (w *World) Start() {
	w.T.Helper()
	listen := "127.0.0.1:0"
	if w.URL != "" {
		listen = w.URL[len("http://"):]
	}
	now := w.Now
	if now == nil {
		now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{DataDir: filepath.Join(w.Dir, "server"), Database: w.database, Listen: listen, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: now, Version: "test", ExemptLoopback: true})
	if err != nil {
		cancel()
		w.T.Fatal(err)
	}
	w.URL = s.URL()
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.T.Errorf("the server ended with: %v", err)
			}
		})
	}
}

// Stop stops the server.
func (w *World) Stop() { w.stop() }

// Person is somebody with a device.
type Person struct {
	*device.Client
	T      testing.TB
	Home   string
	Phrase string // of recovery
	// Wrap, when set before a call, stands between the device and its server. It may lie.
	Wrap func(device.Server) device.Server
	// Later is how far the device's clock is ahead.
	Later time.Duration
	vault *vault.Vault
}

// Ctx is a context that ends with a test's patience.
func (w *World) Ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	w.T.Cleanup(cancel)
	return ctx
}

// SignUp makes a person.
func (w *World) SignUp(handle string) *Person {
	w.T.Helper()
	p := &Person{T: w.T, Home: filepath.Join(w.Dir, handle)}
	c, phrase, err := device.SignUp(w.Ctx(), p.config(), w.URL, handle, "test")
	if err != nil {
		w.T.Fatal(err)
	}
	p.Phrase = phrase
	if err := c.PhraseShown(); err != nil {
		w.T.Fatal(err)
	}
	p.Client = c
	return p
}

// Recover makes another device of a person by the recovery phrase.
func (w *World) Recover(handle, phrase, name string) *Person {
	w.T.Helper()
	p := &Person{T: w.T, Home: filepath.Join(w.Dir, handle+"-"+name)}
	c, err := device.Recover(w.Ctx(), p.config(), w.URL, handle, name, phrase)
	if err != nil {
		w.T.Fatal(err)
	}
	p.Client = c
	return p
}

// Vault is the person's folder, to look for what it should not hold.
func (p *Person) Vault() *vault.Vault { return p.vault }

// Restart closes a person's device and opens it again from its folder, as after a crash.
func (p *Person) Restart() {
	p.T.Helper()
	if err := p.vault.Close(); err != nil {
		p.T.Fatal(err)
	}
	c, err := device.Open(p.config())
	if err != nil {
		p.T.Fatal(err)
	}
	p.Client = c
}

func (p *Person) config() device.Config {
	v, err := vault.Open(p.Home, vault.Options{})
	if err != nil {
		p.T.Fatal(err)
	}
	p.vault = v
	p.T.Cleanup(func() { v.Close() })
	return device.Config{State: cmd.DeviceState(v), Dial: p.Dial, Now: func() time.Time { return time.Now().Add(p.Later) }}
}

// Dial connects to the server, through the person's liar if there is one.
func (p *Person) Dial(url string, a chat.AccountID, d chat.DeviceID, key ed25519.PrivateKey) (device.Server, error) {
	c, err := httpclient.NewDevice(httpclient.Options{BaseURL: url, Now: time.Now, Rand: rand.Reader}, key, api.SignIn{Account: a, Device: d}, "")
	if err != nil {
		return nil, err
	}
	return &between{server: c, person: p}, nil
}

// between calls the person's Wrap on every call, so that a test can begin and end a lie at any time.
type between struct {
	server device.Server
	person *Person
}

func (b *between) now() device.Server {
	if b.person.Wrap == nil {
		return b.server
	}
	return b.person.Wrap(b.server)
}

// Befriend makes two people friends.
func (w *World) Befriend(a, b *Person) {
	w.T.Helper()
	if _, err := a.AddFriend(w.Ctx(), b.Self().Handle); err != nil {
		w.T.Fatal(err)
	}
	if _, err := b.AddFriend(w.Ctx(), a.Self().Handle); err != nil {
		w.T.Fatal(err)
	}
}

// Must fails the test on an error.
func (w *World) Must(err error) {
	w.T.Helper()
	if err != nil {
		w.T.Fatal(err)
	}
}

// Calls is device.Server under a name that a liar can embed (the interface has a method Server).
type Calls = device.Server
