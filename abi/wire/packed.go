package wire

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Sizes of sealed values in bytes (PROTOCOL.md §2.4).
const (
	PackedHeaderSize   = 25 // magic up to and including the salt
	PackedPreambleSize = 17 // codec, baseTimestamp and maxTimestamp, sealed before the records
	SaltSize           = 8
	NonceSize          = 24
	TagSize            = 16

	// PackedOverhead is what a sealed value adds to the record section inside it.
	PackedOverhead = PackedHeaderSize + PackedPreambleSize + TagSize
)

// PackedMagic is the first byte of a packed value.
const PackedMagic = 0xE2

// FlagsSuite1 is the flags byte of suite 1: the suite in the high nibble, no flags.
const FlagsSuite1 = 0x10

// packedLabel separates packed AAD from every other use of a leaf key.
const packedLabel = "KX1 pkt v1\x00"

// PackedAADSize is the size of the AAD of a packed value in bytes.
const PackedAADSize = len(packedLabel) + PackedHeaderSize + PctxSize

// A PackedHeader stands before the ciphertext of a packed value (PROTOCOL.md §2.4).
// Integers are big-endian.
//
//	1b: magic (0xE2)
//	1b: flags, the suite in the high nibble (1), the low nibble 0
//	8b: kid
//	3b: leaf
//	4b: nrec, the batch's record count
//	8b: salt, random per batch
type PackedHeader struct {
	Kid        abi.Kid
	Leaf       uint32 // below 1<<24
	NumRecords uint32
	Salt       [SaltSize]byte
}

// Append appends the header's 25 bytes to b.
func (h *PackedHeader) Append(b []byte) []byte {
	b = append(b, PackedMagic, FlagsSuite1)
	b = append(b, h.Kid[:]...)
	b = append(b, byte(h.Leaf>>16), byte(h.Leaf>>8), byte(h.Leaf))
	b = binary.BigEndian.AppendUint32(b, h.NumRecords)
	return append(b, h.Salt[:]...)
}

// ParsePackedHeader reads the header at the start of a packed value. It refuses with
// abi.StatusMalformed another magic, unknown flags, and a value too short to hold header,
// preamble and tag.
func ParsePackedHeader(value []byte) (PackedHeader, error) {
	var h PackedHeader
	if len(value) < PackedOverhead || value[0] != PackedMagic || value[1] != FlagsSuite1 {
		return h, abi.StatusMalformed
	}
	copy(h.Kid[:], value[2:])
	h.Leaf = uint24(value[10:])
	h.NumRecords = binary.BigEndian.Uint32(value[13:])
	copy(h.Salt[:], value[17:])
	return h, nil
}

// Nonce returns the value's nonce: salt, twelve zeros, 0xFFFFFFFF.
func (h *PackedHeader) Nonce() (n [NonceSize]byte) {
	copy(n[:], h.Salt[:])
	binary.BigEndian.PutUint32(n[20:], 0xFFFFFFFF)
	return n
}

// PackedAAD returns the additional data of a packed value: its label, the header's 25 bytes
// and the partition context.
func PackedAAD(header *[PackedHeaderSize]byte, pctx *[PctxSize]byte) (aad [PackedAADSize]byte) {
	n := copy(aad[:], packedLabel)
	n += copy(aad[n:], header[:])
	copy(aad[n:], pctx[:])
	return aad
}

// A Preamble is the first plaintext of a packed value: what the client's batch header said
// and the outer batch may not.
//
//	1b: codec of the record section that follows, 0 to 4
//	8b: baseTimestamp, Unix ms
//	8b: maxTimestamp, Unix ms
type Preamble struct {
	Codec         uint8
	BaseTimestamp int64
	MaxTimestamp  int64
}

// Append appends the preamble's 17 bytes to b.
func (p *Preamble) Append(b []byte) []byte {
	b = append(b, p.Codec)
	b = binary.BigEndian.AppendUint64(b, uint64(p.BaseTimestamp))
	return binary.BigEndian.AppendUint64(b, uint64(p.MaxTimestamp))
}

// ParsePreamble reads the preamble at the start of opened plaintext and refuses with
// abi.StatusMalformed one that is short or names an unknown codec.
func ParsePreamble(b []byte) (Preamble, error) {
	if len(b) < PackedPreambleSize || b[0] > 4 {
		return Preamble{}, abi.StatusMalformed
	}
	return Preamble{
		Codec:         b[0],
		BaseTimestamp: int64(binary.BigEndian.Uint64(b[1:])),
		MaxTimestamp:  int64(binary.BigEndian.Uint64(b[9:])),
	}, nil
}

func uint24(b []byte) uint32 {
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}
