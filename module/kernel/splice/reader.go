package splice

import "encoding/binary"

// A reader takes a module apart. Once something is missing, bad is set and what it returns
// means nothing.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint32) []byte {
	if r.bad || uint64(n) > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// uint reads an unsigned LEB128 of at most 32 bits.
func (r *reader) uint() uint32 {
	v, n := binary.Uvarint(r.rest[:min(len(r.rest), 5)])
	if n <= 0 || v>>32 != 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return uint32(v)
}

// skipLEB passes over a LEB128 of at most size bytes.
func (r *reader) skipLEB(size int) {
	for range size {
		if r.byte() < 0x80 {
			return
		}
	}
	r.bad = true
}

// sized reads as many bytes as the number before them says.
func (r *reader) sized() []byte { return r.take(r.uint()) }

// importOf passes over the rest of an import of a table, memory or global.
func (r *reader) importOf(kind byte) {
	switch kind {
	case 1:
		r.byte()
		r.limits()
	case 2:
		r.limits()
	case 3:
		r.take(2)
	default:
		r.bad = true
	}
}

func (r *reader) limits() {
	flag := r.byte()
	r.uint()
	if flag&1 != 0 {
		r.uint()
	}
}

func (r *reader) err() error {
	if r.bad {
		return ErrMalformed
	}
	return nil
}

// end is err where everything was read, and an error where something is left.
func (r *reader) end() error {
	r.bad = r.bad || len(r.rest) > 0
	return r.err()
}

func appendUint(b []byte, n uint32) []byte { return binary.AppendUvarint(b, uint64(n)) }
