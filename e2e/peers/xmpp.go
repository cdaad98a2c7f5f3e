package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"time"
)

// conn is one client of an XMPP server: a TCP connection on loopback without TLS, as letterlock is measured without TLS. What it
// writes is made of its own names and base64, so that nothing needs escaping.
type conn struct {
	net.Conn
	in *scanner
}

const (
	domain  = "localhost"
	patient = 30 * time.Second // how long one answer may take when people sign up
)

// dial registers an account (XEP-0077), signs in with SASL PLAIN and binds a resource.
func dial(ctx context.Context, address, user string) (*conn, error) {
	tcp, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: tcp, in: newScanner(tcp)}
	c.SetDeadline(time.Now().Add(patient))
	if err := c.signIn(user, "secret-"+user); err != nil {
		c.Close()
		return nil, fmt.Errorf("%s: signing in as %s: %w", address, user, err)
	}
	return c, c.SetDeadline(time.Time{})
}

func (c *conn) signIn(user, password string) error {
	if err := c.open(); err != nil {
		return err
	}
	if _, err := c.ask("<iq type='set' id='register' to='"+domain+"'><query xmlns='jabber:iq:register'><username>"+user+"</username><password>"+password+
		"</password></query></iq>", "iq"); err != nil {
		return err
	}
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password)) // RFC 4616
	if _, err := c.ask("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>"+plain+"</auth>", "success"); err != nil {
		return err
	}
	if err := c.open(); err != nil {
		return err
	}
	_, err := c.ask("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>bench</resource></bind></iq>", "iq")
	return err
}

// open opens the stream, or opens it anew after SASL, and reads what the server offers.
func (c *conn) open() error {
	if _, err := c.Write([]byte("<?xml version='1.0'?><stream:stream to='" + domain + "' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")); err != nil {
		return err
	}
	if err := c.in.header(); err != nil {
		return err
	}
	_, err := c.await("stream:features")
	return err
}

// ask writes and waits for the answer of that name, which must not be an error.
func (c *conn) ask(question, answer string) ([]byte, error) {
	if _, err := c.Write([]byte(question)); err != nil {
		return nil, err
	}
	return c.await(answer)
}

func (c *conn) await(answer string) ([]byte, error) {
	for range 100 {
		element, err := c.in.next()
		if err != nil {
			return nil, err
		}
		if err := refused(element); err != nil {
			return nil, err
		}
		if name(element) == answer {
			return element, nil
		}
	}
	return nil, fmt.Errorf("no <%s> among 100 elements", answer)
}

// refused is the error that an element says.
func refused(element []byte) error {
	kind := name(element)
	if attribute(element, "type") == "error" || kind == "failure" || kind == "failed" || kind == "stream:error" {
		return fmt.Errorf("the server refused: %s", strings.ToValidUTF8(string(element[:min(len(element), 500)]), "?"))
	}
	return nil
}
