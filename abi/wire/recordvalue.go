package wire

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// RecordMagic is the first byte of a value sealed on its own (PROTOCOL.md §2.5).
const RecordMagic = 0xE1

// RecordHeaderSize is the size of the header of a value sealed on its own.
const RecordHeaderSize = 23

// recordLabel separates the AAD of single values from every other use of a leaf key.
const recordLabel = "KX1 rec v1\x00"

// nullLength stands for the length of an absent key or header value.
const nullLength = 0xFFFFFFFF

// A RecordHeader stands before the ciphertext of a value sealed on its own (PROTOCOL.md
// §2.5). Integers are big-endian.
//
//	1b: magic (0xE1)
//	1b: flags, the suite in the high nibble (1), the low nibble 0
//	8b: kid
//	3b: leaf
//	2b: ord, the value's number under this leaf, 0 to 65534
//	8b: salt, random per leaf
type RecordHeader struct {
	Kid  abi.Kid
	Leaf uint32 // below 1<<24
	Ord  uint16
	Salt [SaltSize]byte
}

// Append appends the header's 23 bytes to b.
func (h *RecordHeader) Append(b []byte) []byte {
	b = append(b, RecordMagic, FlagsSuite1)
	b = append(b, h.Kid[:]...)
	b = append(b, byte(h.Leaf>>16), byte(h.Leaf>>8), byte(h.Leaf))
	b = binary.BigEndian.AppendUint16(b, h.Ord)
	return append(b, h.Salt[:]...)
}

// ParseRecordHeader reads the header at the start of a value sealed on its own. It refuses
// with abi.StatusMalformed another magic, unknown flags, ord 65535, and a value too short
// to hold header and tag.
func ParseRecordHeader(value []byte) (RecordHeader, error) {
	var h RecordHeader
	if len(value) < RecordHeaderSize+TagSize || value[0] != RecordMagic || value[1] != FlagsSuite1 {
		return h, abi.StatusMalformed
	}
	copy(h.Kid[:], value[2:])
	h.Leaf = uint24(value[10:])
	if h.Ord = binary.BigEndian.Uint16(value[13:]); h.Ord == 0xFFFF {
		return RecordHeader{}, abi.StatusMalformed
	}
	copy(h.Salt[:], value[15:])
	return h, nil
}

// Nonce returns the value's nonce: salt, twelve zeros, u32 ord.
func (h *RecordHeader) Nonce() (n [NonceSize]byte) {
	copy(n[:], h.Salt[:])
	binary.BigEndian.PutUint32(n[20:], uint32(h.Ord))
	return n
}

// AppendRecordAAD appends the additional data of a value sealed on its own: label, the
// header's 23 bytes, the partition context, the record's key (nil for null) and its headers
// as AppendCanonicalHeader wrote them.
func AppendRecordAAD(b []byte, header *[RecordHeaderSize]byte, pctx *[PctxSize]byte, key, headers []byte) []byte {
	b = append(b, recordLabel...)
	b = append(b, header[:]...)
	b = append(b, pctx[:]...)
	b = appendNullableBytes(b, key)
	b = binary.BigEndian.AppendUint32(b, uint32(len(headers)))
	return append(b, headers...)
}

// AppendCanonicalHeader appends one record header (value nil for null) in the form that the
// AAD of its record holds. The caller leaves out the header named _e2ee.
func AppendCanonicalHeader(b, name, value []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	b = append(b, name...)
	return appendNullableBytes(b, value)
}

func appendNullableBytes(b, v []byte) []byte {
	if v == nil {
		return binary.BigEndian.AppendUint32(b, nullLength)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}
