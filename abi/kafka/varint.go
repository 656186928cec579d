package kafka

import "math/bits"

// MaxVarintLen is the size of the longest varint in bytes.
const MaxVarintLen = 10

// VarintSize returns how many bytes AppendVarint appends for v.
func VarintSize(v int64) int {
	return (bits.Len64(zigzag(v)|1) + 6) / 7
}

// AppendVarint appends v as records write it: zigzag, then 7 bits a byte, least significant
// group first.
func AppendVarint(b []byte, v int64) []byte {
	u := zigzag(v)
	for u >= 0x80 {
		b = append(b, byte(u)|0x80)
		u >>= 7
	}
	return append(b, byte(u))
}

// ReadVarint reads a varint at the start of b and returns it with its size in bytes. The
// size is 0 where b ends inside it, where it exceeds 64 bits, and where it is longer than
// need be: each number has one encoding.
func ReadVarint(b []byte) (v int64, size int) {
	if len(b) > 0 && b[0] < 0x80 { // nearly all are, and this much is inlined
		return unzigzag(uint64(b[0])), 1
	}
	return readLongVarint(b)
}

func readLongVarint(b []byte) (v int64, size int) {
	var u uint64
	for i, c := range b {
		if i == MaxVarintLen-1 && c > 1 {
			return 0, 0
		}
		u |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			if c == 0 && i > 0 {
				return 0, 0
			}
			return unzigzag(u), i + 1
		}
	}
	return 0, 0
}

// readVarint32 is ReadVarint for fields of 32 bits.
func readVarint32(b []byte) (v int32, size int) {
	if len(b) > 0 && b[0] < 0x80 {
		return int32(b[0]>>1) ^ -int32(b[0]&1), 1
	}
	return readLongVarint32(b)
}

func readLongVarint32(b []byte) (v int32, size int) {
	if len(b) > 1 && b[1]-1 < 0x7f { // two bytes, the second neither 0 nor with another behind it
		u := int32(b[0]&0x7f) | int32(b[1])<<7
		return u>>1 ^ -(u & 1), 2
	}
	w, n := readLongVarint(b)
	if w != int64(int32(w)) {
		return 0, 0
	}
	return int32(w), n
}

func unzigzag(u uint64) int64 { return int64(u>>1) ^ -int64(u&1) }

func zigzag(v int64) uint64 { return uint64(v)<<1 ^ uint64(v>>63) }
