package kafka

import (
	"encoding/binary"
	"errors"
)

// ErrFrame is wrapped by every error about a request or response whose bytes do not hold
// together: a length that is negative or beyond the end, a null where Kafka has none, or
// bytes left over.
var ErrFrame = errors.New("malformed frame")

// A reader takes Kafka's primitive types from the front of a body. It is sticky: after the
// first fault every method returns zero values, and end reports it. Slices it returns alias
// the body and have no spare capacity. Nothing is allocated from a length that the
// remaining bytes do not cover.
type reader struct {
	b        []byte
	flexible bool // compact lengths and tagged fields (KIP-482)
	bad      bool
}

// end returns ErrFrame if a fault was found or bytes are left.
func (r *reader) end() error {
	if r.bad || len(r.b) != 0 {
		return ErrFrame
	}
	return nil
}

func (r *reader) fail() {
	r.bad = true
	r.b = nil
}

// take returns the next n bytes. They are never nil unless the reader failed.
func (r *reader) take(n int) []byte {
	if r.bad || n < 0 || n > len(r.b) {
		r.fail()
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) int8() int8 {
	if p := r.take(1); p != nil {
		return int8(p[0])
	}
	return 0
}

func (r *reader) int16() int16 {
	if p := r.take(2); p != nil {
		return int16(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (r *reader) int32() int32 {
	if p := r.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (r *reader) int64() int64 {
	if p := r.take(8); p != nil {
		return int64(binary.BigEndian.Uint64(p))
	}
	return 0
}

func (r *reader) uuid() (id [16]byte) {
	copy(id[:], r.take(16))
	return id
}

// uvarint reads an unsigned varint of at most 32 bits. Forms longer than needed are
// accepted, since Kafka accepts them from clients; they are appended in their short form.
func (r *reader) uvarint() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		p := r.take(1)
		if p == nil {
			return 0
		}
		v |= uint64(p[0]&0x7f) << shift
		if p[0] < 0x80 {
			if v > 1<<32-1 {
				r.fail()
				return 0
			}
			return uint32(v)
		}
	}
	r.fail()
	return 0
}

// compact reads a compact length: 0 is null (-1), n+1 is n. Whoever uses it compares it
// with what remains.
func (r *reader) compact() int { return int(r.uvarint()) - 1 }

// nullableString reads a string; nil is null.
func (r *reader) nullableString() []byte {
	n := 0
	if r.flexible {
		n = r.compact()
	} else {
		n = int(r.int16())
	}
	return r.span(n)
}

// string reads a string that is not null.
func (r *reader) string() string {
	p := r.nullableString()
	if p == nil {
		r.fail()
	}
	return string(p)
}

// nullableBytes reads bytes or records; nil is null.
func (r *reader) nullableBytes() []byte {
	return r.span(r.count())
}

// span takes n bytes, or none where n is -1, which is null.
func (r *reader) span(n int) []byte {
	if n == -1 {
		return nil
	}
	return r.take(n)
}

// count reads the length of an array or of bytes; -1 is null.
func (r *reader) count() int {
	if r.flexible {
		return r.compact()
	}
	return int(r.int32())
}

// nullableArray reads an array's length; -1 is null. Each element takes at least min
// bytes, so a longer array than the remaining bytes can hold is refused here.
func (r *reader) nullableArray(min int) int {
	n := r.count()
	if r.bad || n < -1 || n > len(r.b)/min {
		r.fail()
		return 0
	}
	return n
}

// array reads the length of an array that is not null.
func (r *reader) array(min int) int {
	n := r.nullableArray(min)
	if n < 0 {
		r.fail()
		return 0
	}
	return n
}

// skipInts skips a not-null array of elements of size bytes each.
func (r *reader) skipInts(size int) { r.take(r.array(size) * size) }

// since returns the bytes read after mark, an earlier value of r.b.
func (r *reader) since(mark []byte) []byte {
	if r.bad {
		return nil
	}
	n := len(mark) - len(r.b)
	return mark[:n:n]
}
