package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxElement bounds what one element may have: a server that sends more is not measured.
const maxElement = 256 << 10

// scanner cuts a stream into its parts: the header that opens it, then one element after the other. It knows as much of XML as
// RFC 6120 (11.1) lets a stream have: no comments, no processing instructions, no doctype. It does not compare the names of start and
// end tags, and costs the generator little.
type scanner struct {
	r          io.Reader
	buf        []byte
	start, end int // of what was read and not yet given out
}

func newScanner(r io.Reader) *scanner { return &scanner{r: r, buf: make([]byte, 8<<10)} }

// header reads `<?xml ...?>`, if there is one, and `<stream:stream ...>`.
func (s *scanner) header() error {
	_, err := s.part(cutHeader)
	return err
}

// next is the next element, whole; its bytes are good until the call after.
func (s *scanner) next() ([]byte, error) { return s.part(cutElement) }

// waiting says whether another element has arrived already.
func (s *scanner) waiting() bool {
	from, to, err := cutElement(s.buf[s.start:s.end])
	return err == nil && to > from
}

func (s *scanner) part(cut func([]byte) (from, to int, err error)) ([]byte, error) {
	for {
		from, to, err := cut(s.buf[s.start:s.end])
		if err != nil {
			return nil, err
		}
		if to > 0 {
			part := s.buf[s.start+from : s.start+to]
			s.start += to
			return part, nil
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is there.
func (s *scanner) fill() error {
	if s.start > 0 {
		s.end = copy(s.buf, s.buf[s.start:s.end])
		s.start = 0
	}
	if s.end == len(s.buf) {
		if s.end >= maxElement {
			return fmt.Errorf("an element of more than %d bytes", maxElement)
		}
		s.buf = append(s.buf, make([]byte, len(s.buf))...)
	}
	n, err := s.r.Read(s.buf[s.end:])
	s.end += n
	if n > 0 {
		return nil
	}
	return err
}

var errNotXML = errors.New("not the XML of a stream")

// cutElement finds the first element of b: it is b[from:to]. to is 0 while it is not there whole.
func cutElement(b []byte) (from, to int, err error) {
	from = bytes.IndexByte(b, '<')
	if from < 0 {
		return 0, 0, onlySpace(b)
	}
	if err := onlySpace(b[:from]); err != nil {
		return 0, 0, err
	}
	depth := 0
	for at := from; ; {
		open := bytes.IndexByte(b[at:], '<')
		if open < 0 {
			return 0, 0, nil
		}
		at += open
		size := tagSize(b[at:])
		if size == 0 {
			return 0, 0, nil
		}
		tag := b[at : at+size]
		switch {
		case size < 3 || tag[1] == '!' || tag[1] == '?':
			return 0, 0, errNotXML
		case tag[1] == '/' && depth == 0: // of the stream itself
			return 0, 0, io.EOF
		case tag[1] == '/':
			depth--
		case tag[size-2] != '/':
			depth++
		}
		at += size
		if depth == 0 {
			return from, at, nil
		}
	}
}

// cutHeader finds what opens a stream.
func cutHeader(b []byte) (from, to int, err error) {
	for at := 0; ; {
		open := bytes.IndexByte(b[at:], '<')
		if open < 0 {
			return 0, 0, onlySpace(b[at:])
		}
		if err := onlySpace(b[at : at+open]); err != nil {
			return 0, 0, err
		}
		at += open
		size := tagSize(b[at:])
		if size == 0 {
			return 0, 0, nil
		}
		if b[at+1] != '?' {
			if name(b[at:at+size]) != "stream:stream" {
				return 0, 0, errNotXML
			}
			return at, at + size, nil
		}
		at += size
	}
}

// tagSize is how long the tag is that b begins with, or 0 while its end is not there. A `>` between quotes does not end it.
func tagSize(b []byte) int {
	quote := byte(0)
	for i, c := range b {
		switch {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '\'' || c == '"':
			quote = c
		case c == '>':
			return i + 1
		}
	}
	return 0
}

func onlySpace(b []byte) error {
	if len(bytes.TrimLeft(b, " \t\r\n")) > 0 {
		return errNotXML
	}
	return nil
}

// name is the name of the tag that an element begins with.
func name(element []byte) string {
	if len(element) == 0 {
		return ""
	}
	if end := bytes.IndexAny(element, " \t\r\n/>"); end > 0 {
		return string(element[1:end])
	}
	return ""
}

// attribute is the value of an attribute of the tag that an element begins with, "" if there is none.
func attribute(element []byte, key string) string {
	tag := element[:tagSize(element)]
	for _, quote := range []string{"'", `"`} {
		_, rest, found := bytes.Cut(tag, []byte(" "+key+"="+quote))
		if value, _, closed := bytes.Cut(rest, []byte(quote)); found && closed {
			return string(value)
		}
	}
	return ""
}
