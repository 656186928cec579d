package kafka

import "encoding/binary"

// RecordsInOrder reports whether a record section is exactly n records, each as NextRecord wants
// it, with the offset deltas 0, 1, 2, ….
//
// It looks at every record that is produced, and a jump is dear in the WebAssembly that Go makes:
// each one goes through the function's table of jumps. Records without headers and of up to
// 8,191 bytes, as nearly all are, are read with hardly any: their numbers come out of words of
// eight bytes, and all that may be wrong is gathered and looked at once.
func RecordsInOrder(section []byte, n int32) bool {
	b, at := section, 0
	// What an offset delta takes: its bits in a word, those that say that another byte follows,
	// and its size in bytes.
	mask, more, size := uint64(0xff), uint64(0), 1
	for i := range uint64(max(n, 0)) {
		switch i {
		case 1 << 6:
			mask, more, size = 0xffff, 0x80, 2
		case 1 << 13:
			mask, more, size = 0xffffff, 0x8080, 3
		case 1 << 20:
			mask, more = 0, 1 // not read here
		}
		if p := at; len(b)-p >= wordSize {
			w := binary.LittleEndian.Uint64(b[p:])
			length, long, bad := shortVarint(w)
			p += 2 + int(long)               // and the attributes
			end := p + int(length>>1) - 2    // of the record but for its last byte
			bad |= length & 1                // below 0
			w >>= (16 + 8*long) & 63         //
			_, long, wrong := shortVarint(w) // timestampDelta
			p += 1 + int(long)               //
			w >>= (8 + 8*long) & 63          //
			delta := i<<1&0x7f | i<<2&0x7f00 | i<<3&0x7f0000 | more
			bad |= wrong | w&mask ^ delta
			p += size
			if len(b)-p >= wordSize {
				key, long, wrong := shortVarint(binary.LittleEndian.Uint64(b[p:]))
				p += 1 + int(long) + int(key>>1)
				bad |= wrong | -(key&1)&(key>>1) // below 0, and not null
				if len(b)-p >= wordSize {
					value, long, wrong := shortVarint(binary.LittleEndian.Uint64(b[p:]))
					p += 1 + int(long) + int(value>>1)
					bad |= wrong | -(value&1)&(value>>1) | uint64(p^end)
					if p < len(b) && bad|uint64(b[p]) == 0 { // no headers
						at = p + 1
						continue
					}
				}
			}
		}
		var r Record
		rest, err := NextRecord(b[at:], &r)
		if err != nil || uint64(r.OffsetDelta) != i {
			return false
		}
		at = len(b) - len(rest)
	}
	return at == len(b)
}

// wordSize is the number of bytes that are read at once: a length, attributes and both deltas.
const wordSize = 8

// shortVarint reads a varint of one byte, or of two where long is 1, at the low end of w, without
// undoing its zigzag. bad is not 0 where it is longer than that or need be.
func shortVarint(w uint64) (v, long, bad uint64) {
	long = w >> 7 & 1
	second := w >> 8 & 0xff & -long
	return w&0x7f | second<<7, long, (second | second - long) &^ 0x7f
}
