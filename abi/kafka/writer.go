package kafka

import "encoding/binary"

// A writer appends Kafka's primitive types to a slice.
type writer struct {
	b        []byte
	flexible bool // compact lengths and tagged fields (KIP-482)
	apart    bool // long records are left to pieces
	pieces   []Piece
}

func (w *writer) int8(v int8)      { w.b = append(w.b, byte(v)) }
func (w *writer) int16(v int16)    { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *writer) int32(v int32)    { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) int64(v int64)    { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *writer) raw(p []byte)     { w.b = append(w.b, p...) }
func (w *writer) uuid(id [16]byte) { w.b = append(w.b, id[:]...) }
func (w *writer) uvarint(v uint32) { w.b = binary.AppendUvarint(w.b, uint64(v)) }
func (w *writer) string(s string)  { w.stringLen(len(s)); w.b = append(w.b, s...) }

func (w *writer) bool(v bool) {
	if v {
		w.int8(1)
	} else {
		w.int8(0)
	}
}

// nullableString appends a string; nil is null.
func (w *writer) nullableString(p []byte) {
	if p == nil {
		w.stringLen(-1)
		return
	}
	w.stringLen(len(p))
	w.raw(p)
}

// tags appends a section of tagged fields, in flexible versions only.
func (w *writer) tags(t Tags) {
	switch {
	case !w.flexible:
	case len(t) == 0:
		w.b = append(w.b, 0)
	default:
		w.raw(t)
	}
}

// stringLen appends a string's length; -1 is null.
func (w *writer) stringLen(n int) {
	if w.flexible {
		w.uvarint(uint32(n + 1))
	} else {
		w.int16(int16(n))
	}
}

// count appends the length of an array or of bytes; -1 is null.
func (w *writer) count(n int) {
	if w.flexible {
		w.uvarint(uint32(n + 1))
	} else {
		w.int32(int32(n))
	}
}
