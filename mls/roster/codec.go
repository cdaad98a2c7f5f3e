package roster

import "encoding/binary"

// Reader takes apart the TLS presentation language as MLS uses it (RFC 9420, section 2.1). The first error sticks; after it
// every read returns zero. What it returns points into the input.
type Reader struct {
	b   []byte
	err error
}

// NewReader reads b, which must not change afterwards.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// Fail makes err the reader's error unless it has one.
func (r *Reader) Fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.b = nil
}

// Err is the first error.
func (r *Reader) Err() error { return r.err }

// Done is the first error, or one if bytes are left.
func (r *Reader) Done() error {
	if r.err == nil && len(r.b) != 0 {
		r.Fail(malformed("%d bytes left over", len(r.b)))
	}
	return r.err
}

// Empty tells that nothing is left, also after an error.
func (r *Reader) Empty() bool { return len(r.b) == 0 }

// Rest takes all that is left.
func (r *Reader) Rest() []byte { return r.take(len(r.b)) }

func (r *Reader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.Fail(malformed("truncated"))
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *Reader) Uint8() uint8 {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *Reader) Uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *Reader) Uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *Reader) Uint64() uint64 {
	if v := r.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// length reads a vector's length: two bits of size (1, 2 or 4 bytes), then the number, in its shortest form
// (RFC 9420, section 2.1.2).
func (r *Reader) length() int {
	first := r.Uint8()
	n := uint32(first & 0x3f)
	switch first >> 6 {
	case 0:
	case 1:
		n = n<<8 | uint32(r.Uint8())
		if n < 1<<6 {
			r.Fail(malformed("length not in its shortest form"))
		}
	case 2:
		n = n<<24 | uint32(r.Uint8())<<16 | uint32(r.Uint16())
		if n < 1<<14 {
			r.Fail(malformed("length not in its shortest form"))
		}
	default:
		r.Fail(malformed("length of 8 bytes"))
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

// Opaque reads opaque<V>.
func (r *Reader) Opaque() []byte { return r.take(r.length()) }

// sub takes a whole vector<V> with its length, to be read later.
func (r *Reader) sub() []byte {
	before := r.b
	r.Opaque()
	if r.err != nil {
		return nil
	}
	return before[:len(before)-len(r.b)]
}

// Fixed reads n bytes.
func (r *Reader) Fixed(n int) []byte { return r.take(n) }

// Vector reads a vector<V>, calling element until its bytes are used up. An element must use bytes or fail.
func (r *Reader) Vector(element func(*Reader)) {
	inner := Reader{b: r.Opaque(), err: r.err}
	for len(inner.b) > 0 {
		before := len(inner.b)
		element(&inner)
		if len(inner.b) == before {
			inner.Fail(malformed("empty element"))
		}
	}
	if inner.err != nil {
		r.Fail(inner.err)
	}
}

// Optional reads the presence byte of optional<T>.
func (r *Reader) Optional() bool {
	switch r.Uint8() {
	case 0:
		return false
	case 1:
		return true
	}
	r.Fail(malformed("presence byte"))
	return false
}

// Uint16s reads uint16<V>.
func (r *Reader) Uint16s() []uint16 {
	var v []uint16
	r.Vector(func(r *Reader) { v = append(v, r.Uint16()) })
	return v
}

// Writer puts the same language together. Its zero value is ready.
type Writer struct{ b []byte }

// Bytes is what was written.
func (w *Writer) Bytes() []byte { return w.b }

func (w *Writer) Uint8(v uint8)   { w.b = append(w.b, v) }
func (w *Writer) Uint16(v uint16) { w.b = binary.BigEndian.AppendUint16(w.b, v) }
func (w *Writer) Uint32(v uint32) { w.b = binary.BigEndian.AppendUint32(w.b, v) }
func (w *Writer) Uint64(v uint64) { w.b = binary.BigEndian.AppendUint64(w.b, v) }

// Fixed writes v without a length.
func (w *Writer) Fixed(v []byte) { w.b = append(w.b, v...) }

// Opaque writes opaque<V>.
func (w *Writer) Opaque(v []byte) {
	w.b = appendLength(w.b, len(v))
	w.b = append(w.b, v...)
}

// Vector writes a vector<V> whose elements are what body writes.
func (w *Writer) Vector(body func(*Writer)) {
	start := len(w.b)
	body(w)
	n := len(w.b) - start
	var head [4]byte
	h := appendLength(head[:0], n)
	w.b = append(w.b, h...)
	copy(w.b[start+len(h):], w.b[start:start+n])
	copy(w.b[start:], h)
}

// Optional writes the presence byte of optional<T>.
func (w *Writer) Optional(present bool) {
	if present {
		w.Uint8(1)
	} else {
		w.Uint8(0)
	}
}

// Uint16s writes uint16<V>.
func (w *Writer) Uint16s(v []uint16) {
	w.b = appendLength(w.b, 2*len(v))
	for _, x := range v {
		w.Uint16(x)
	}
}

// appendLength writes a vector's length. Callers stay below MaxMessageSize, far under the format's 2^30.
func appendLength(b []byte, n int) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	case n < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(n)|2<<30)
	}
	panic("mls: vector of a gigabyte")
}

// encoder is any structure of this package.
type encoder interface{ Encode(*Writer) }

// Marshal is the encoding of one structure.
func Marshal(x encoder) []byte {
	var w Writer
	x.Encode(&w)
	return w.b
}
