package filter

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// appendSnappy appends the decompressed form of b and no more than max bytes.
func appendSnappy(dst, b []byte, max int) ([]byte, error) {
	err := kafka.EachSnappyBlock(b, func(block []byte) (err error) {
		dst, err = appendSnappyBlock(dst, block, max)
		return err
	})
	return dst, err
}

// appendSnappyBlock follows snappy's format_description.txt: the decompressed length, then
// literals and copies.
func appendSnappyBlock(dst, b []byte, max int) ([]byte, error) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > 1<<32-1 {
		return dst, errCompressed
	}
	if size > uint64(max-len(dst)) {
		return dst, errTooLarge
	}
	start := len(dst)
	end := start + int(size)
	b = b[n:]
	for len(b) > 0 {
		tag := b[0]
		b = b[1:]
		if tag&3 == 0 {
			n := int(tag>>2) + 1
			if extra := n - 60; extra > 0 {
				if len(b) < extra {
					return dst, errCompressed
				}
				n = 1
				for i := range extra {
					n += int(b[i]) << (8 * i)
				}
				b = b[extra:]
			}
			if n > len(b) || n > end-len(dst) {
				return dst, errCompressed
			}
			dst, b = append(dst, b[:n]...), b[n:]
			continue
		}
		length, offset := int(tag>>2)+1, 0
		switch {
		case tag&3 == 1 && len(b) >= 1:
			length = int(tag>>2&7) + 4
			offset, b = int(tag>>5)<<8|int(b[0]), b[1:]
		case tag&3 == 2 && len(b) >= 2:
			offset, b = int(binary.LittleEndian.Uint16(b)), b[2:]
		case tag&3 == 3 && len(b) >= 4:
			offset, b = int(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			return dst, errCompressed
		}
		if offset > len(dst)-start || length > end-len(dst) {
			return dst, errCompressed
		}
		var ok bool
		if dst, ok = appendCopy(dst, offset, length); !ok {
			return dst, errCompressed
		}
	}
	if len(dst) != end {
		return dst, errCompressed
	}
	return dst, nil
}

// appendCopy appends length bytes that start offset before the end of dst; they may overlap
// what is appended. It returns false for an offset of 0 or before the start of dst.
func appendCopy(dst []byte, offset, length int) ([]byte, bool) {
	if offset <= 0 || offset > len(dst) {
		return dst, false
	}
	for from := len(dst) - offset; length > 0; {
		n := min(length, len(dst)-from) // what was appended continues the pattern
		dst = append(dst, dst[from:from+n]...)
		length -= n
	}
	return dst, true
}
