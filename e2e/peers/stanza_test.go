package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const session = `<?xml version='1.0'?><stream:stream id="1" version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>` +
	`<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></stream:features> ` +
	`<a xmlns='urn:xmpp:sm:3' h='12'/><message from='a>b' type="chat"><body>&lt;</body><x><x/></x></message></stream:stream>`

// TestScanner reads a session that arrives byte by byte.
func TestScanner(t *testing.T) {
	s := newScanner(iotest.OneByteReader(strings.NewReader(session)))
	if err := s.header(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"stream:features", "a", "message"} {
		element, err := s.next()
		if err != nil || name(element) != want {
			t.Fatalf("%q, %v instead of %s", element, err, want)
		}
		switch want {
		case "a":
			if h := attribute(element, "h"); h != "12" {
				t.Errorf("h is %q", h)
			}
		case "message":
			if kind := attribute(element, "type"); kind != "chat" || !bytes.HasSuffix(element, []byte("</x></message>")) {
				t.Errorf("type %q of %q", kind, element)
			}
		}
	}
	if element, err := s.next(); err != io.EOF {
		t.Errorf("%q, %v after the stream's end", element, err)
	}
}

// TestScannerRefuses what no XMPP stream may have, and what has no end.
func TestScannerRefuses(t *testing.T) {
	for _, in := range []string{"<!DOCTYPE x>", "<a><!-- --></a>", "<?xml?>", "text", "<a/>text", "<>", "<a" + strings.Repeat(" ", maxElement)} {
		s := newScanner(strings.NewReader(in))
		var err error
		for err == nil {
			_, err = s.next()
		}
		if err == io.EOF {
			t.Errorf("%.20q was read to its end", in)
		}
	}
}

// FuzzScanner: it neither panics nor gives out what encoding/xml, told to overlook what the scanner overlooks, does not see as one element.
func FuzzScanner(f *testing.F) {
	f.Add([]byte(session))
	f.Fuzz(func(t *testing.T, in []byte) {
		s := newScanner(bytes.NewReader(in))
		if s.header() != nil {
			s = newScanner(bytes.NewReader(in))
		}
		for total := 0; ; {
			element, err := s.next()
			if err != nil {
				return
			}
			if total += len(element); total > len(in) {
				t.Fatal("more was given out than came in")
			}
			name(element)
			attribute(element, "h")
			readBody(element)
			refused(element)
			oneElement(t, element)
		}
	})
}

func oneElement(t *testing.T, element []byte) {
	d := xml.NewDecoder(bytes.NewReader(element))
	depth, closed := 0, 0
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return // not XML within its tags: the scanner does not judge that
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			if depth--; depth == 0 {
				closed++
			}
		}
	}
	if depth != 0 || closed != 1 {
		t.Fatalf("%q is not one element", element)
	}
}
