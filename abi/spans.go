package abi

import "encoding/binary"

// SpansFunction is the name under which a module calls a host's native back end through
// proxy_call_foreign_function (SPEC.md §10).
const SpansFunction = "e2ee.spans.v1"

// Sizes of its block, in bytes and in operations.
const (
	SpansHeaderSize = 4
	SpanOpSize      = 88
	MaxSpanOps      = 8
	MaxSpansSize    = SpansHeaderSize + MaxSpanOps*SpanOpSize
)

// Sizes of the AEAD of SpanSeal and SpanOpen, XChaCha20-Poly1305, in bytes.
const (
	SpanNonceSize = 24
	SpanTagSize   = 16
)

// A SpanKind is what an operation does.
type SpanKind uint8

const (
	SpanCheck   SpanKind = 1 // refused unless Sum is the CRC-32C of Head and, after it, Data
	SpanSum     SpanKind = 2 // writes the CRC-32C of Head and, after it, Data to the 4 bytes of Out, big-endian
	SpanSeal    SpanKind = 3 // encrypts Data but for its last 16 bytes, in place, and writes the tag there; Head is the AAD
	SpanOpen    SpanKind = 4 // the reverse; refused, with Data as it was, where the tag is not right
	SpanInflate SpanKind = 5 // decompresses Data into Out, and writes into Sum how many bytes that made
)

// A SpanStatus is what became of an operation.
type SpanStatus uint8

const (
	SpanWaiting  SpanStatus = 0 // not run, since one before it was refused
	SpanDone     SpanStatus = 1
	SpanRefused  SpanStatus = 2
	SpanTooLarge SpanStatus = 3 // SpanInflate: Out is too small; what is in it means nothing
)

// A Span is a range of the module's memory.
//
//	4b: offset
//	4b: size
type Span struct{ At, Size uint32 }

// In returns the span's bytes in a memory, or false where it reaches beyond its end.
func (s Span) In(memory []byte) ([]byte, bool) {
	if uint64(s.At)+uint64(s.Size) > uint64(len(memory)) {
		return nil, false
	}
	end := s.At + s.Size
	return memory[s.At:end:end], true
}

// Overlaps reports whether the spans share a byte.
func (s Span) Overlaps(t Span) bool {
	return s.Size > 0 && t.Size > 0 &&
		uint64(s.At) < uint64(t.At)+uint64(t.Size) && uint64(t.At) < uint64(s.At)+uint64(s.Size)
}

// A SpanOp is one operation of a block. What its kind does not use is zero.
//
//	 1b: kind
//	 1b: status, 0 before the call
//	 1b: codec as in a batch's attributes, SpanInflate: 1 gzip, 2 snappy, 4 zstd
//	 1b: 0
//	 4b: sum
//	 8b: data
//	 8b: head
//	 8b: out
//	32b: key, SECRET, SpanSeal and SpanOpen
//	24b: nonce
type SpanOp struct {
	Kind            SpanKind
	Codec           uint8
	Sum             uint32
	Data, Head, Out Span
	Key             *[KeySize]byte // in the block, or nil
	Nonce           *[SpanNonceSize]byte
}

// Offsets in an operation.
const (
	spanStatus = 1
	spanSum    = 4
	spanKey    = 32
	spanNonce  = 64
)

// AppendSpans appends a block of at most MaxSpanOps operations to b.
func AppendSpans(b []byte, ops []SpanOp) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(ops)))
	for i := range ops {
		o := &ops[i]
		b = append(b, byte(o.Kind), byte(SpanWaiting), o.Codec, 0)
		b = binary.LittleEndian.AppendUint32(b, o.Sum)
		for _, s := range [...]Span{o.Data, o.Head, o.Out} {
			b = binary.LittleEndian.AppendUint32(b, s.At)
			b = binary.LittleEndian.AppendUint32(b, s.Size)
		}
		if o.Key == nil {
			b = append(b, make([]byte, KeySize+SpanNonceSize)...)
			continue
		}
		b = append(append(b, o.Key[:]...), o.Nonce[:]...)
	}
	return b
}

// ParseSpans reads exactly one block and appends its operations, whose keys and nonces stay
// where they are in b, to ops. It knows nothing of the memory: where spans lie is the
// caller's to check.
func ParseSpans(ops []SpanOp, b []byte) ([]SpanOp, error) {
	if len(b) < SpansHeaderSize {
		return ops, ErrBlock
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[SpansHeaderSize:]
	if n > MaxSpanOps || len(b) != int(n)*SpanOpSize {
		return ops, ErrBlock
	}
	for ; len(b) > 0; b = b[SpanOpSize:] {
		o := SpanOp{Kind: SpanKind(b[0]), Codec: b[2], Sum: binary.LittleEndian.Uint32(b[spanSum:])}
		for i, s := range [...]*Span{&o.Data, &o.Head, &o.Out} {
			s.At = binary.LittleEndian.Uint32(b[8+8*i:])
			s.Size = binary.LittleEndian.Uint32(b[12+8*i:])
		}
		if o.Kind == SpanSeal || o.Kind == SpanOpen {
			o.Key, o.Nonce = (*[KeySize]byte)(b[spanKey:]), (*[SpanNonceSize]byte)(b[spanNonce:])
		} else if [KeySize + SpanNonceSize]byte(b[spanKey:]) != [KeySize + SpanNonceSize]byte{} {
			return ops, ErrBlock
		}
		if b[spanStatus] != byte(SpanWaiting) || b[3] != 0 || !o.valid() {
			return ops, ErrBlock
		}
		ops = append(ops, o)
	}
	return ops, nil
}

// valid reports whether the kind is known, and what it does not use is zero.
func (o *SpanOp) valid() bool {
	none := Span{}
	switch o.Kind {
	case SpanCheck:
		return o.Codec == 0 && o.Out == none
	case SpanSum:
		return o.Codec == 0 && o.Sum == 0 && o.Out.Size == 4
	case SpanSeal, SpanOpen:
		return o.Codec == 0 && o.Sum == 0 && o.Out == none && o.Data.Size >= SpanTagSize
	case SpanInflate:
		return (o.Codec == 1 || o.Codec == 2 || o.Codec == 4) && o.Sum == 0 && o.Head == none
	}
	return false
}

// Written returns the span that the operation writes; an empty one where it writes none.
func (o *SpanOp) Written() Span {
	if o.Kind == SpanSeal || o.Kind == SpanOpen {
		return o.Data
	}
	return o.Out
}

// PutSpanStatus writes what became of operation i into a block that ParseSpans has read, and
// of a SpanInflate that is done how many bytes it made.
func PutSpanStatus(b []byte, i int, s SpanStatus, made uint32) {
	op := b[SpansHeaderSize+i*SpanOpSize:]
	op[spanStatus] = byte(s)
	if s == SpanDone && SpanKind(op[0]) == SpanInflate {
		binary.LittleEndian.PutUint32(op[spanSum:], made)
	}
}

// SpanStatusOf reads what PutSpanStatus wrote.
func SpanStatusOf(b []byte, i int) (s SpanStatus, made uint32) {
	op := b[SpansHeaderSize+i*SpanOpSize:]
	return SpanStatus(op[spanStatus]), binary.LittleEndian.Uint32(op[spanSum:])
}
