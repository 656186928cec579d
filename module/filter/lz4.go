package filter

import "encoding/binary"

// Bits of the LZ4 frame format 1.6.
const (
	lz4Magic        = 0x184D2204
	lz4Version      = 0x40 // of FLG, under lz4VersionMask
	lz4VersionMask  = 0xC0
	lz4Independent  = 0x20
	lz4BlockSums    = 0x10
	lz4ContentSize  = 0x08
	lz4ContentSum   = 0x04
	lz4Reserved     = 0x02
	lz4Dictionary   = 0x01
	lz4Uncompressed = 1 << 31 // of a block's size
)

// appendLZ4 appends the decompressed form of b, exactly one LZ4 frame, and no more than max
// bytes. The frame's own checksums are not looked at: the batch's CRC-32C covers them, and
// what is inside is authenticated.
func appendLZ4(dst, b []byte, max int) ([]byte, error) {
	if len(b) < 7 || binary.LittleEndian.Uint32(b) != lz4Magic {
		return dst, errCompressed
	}
	flags := b[4]
	header := 7 // magic, FLG, BD, header checksum
	if flags&lz4ContentSize != 0 {
		header += 8
	}
	if flags&lz4VersionMask != lz4Version || flags&(lz4Reserved|lz4Dictionary) != 0 || len(b) < header {
		return dst, errCompressed
	}
	start := len(dst)
	b = b[header:]
	for {
		if len(b) < 4 {
			return dst, errCompressed
		}
		word := binary.LittleEndian.Uint32(b)
		b = b[4:]
		if word == 0 {
			break
		}
		n := int64(word &^ lz4Uncompressed)
		sum := int64(0)
		if flags&lz4BlockSums != 0 {
			sum = 4
		}
		if n+sum > int64(len(b)) {
			return dst, errCompressed
		}
		block := b[:n]
		b = b[n+sum:]
		if flags&lz4Independent != 0 {
			start = len(dst)
		}
		var err error
		if word&lz4Uncompressed == 0 {
			dst, err = appendLZ4Block(dst, block, start, max)
		} else if len(block) > max-len(dst) {
			err = errTooLarge
		} else {
			dst = append(dst, block...)
		}
		if err != nil {
			return dst, err
		}
	}
	if flags&lz4ContentSum != 0 {
		if len(b) < 4 {
			return dst, errCompressed
		}
		b = b[4:]
	}
	if len(b) != 0 {
		return dst, errCompressed
	}
	return dst, nil
}

// appendLZ4Block follows the LZ4 block format: sequences of literals and a match, the last
// without a match. Matches reach back to dst[start:].
func appendLZ4Block(dst, b []byte, start, max int) ([]byte, error) {
	for {
		if len(b) == 0 {
			return dst, errCompressed
		}
		token := b[0]
		b = b[1:]
		literals, b2, ok := lz4Length(b, int(token>>4))
		if !ok || literals > len(b2) {
			return dst, errCompressed
		}
		if literals > max-len(dst) {
			return dst, errTooLarge
		}
		dst, b = append(dst, b2[:literals]...), b2[literals:]
		if len(b) == 0 {
			return dst, nil
		}
		if len(b) < 2 {
			return dst, errCompressed
		}
		offset := int(binary.LittleEndian.Uint16(b))
		match, rest, ok := lz4Length(b[2:], int(token&15))
		if !ok || offset > len(dst)-start {
			return dst, errCompressed
		}
		if match += 4; match > max-len(dst) {
			return dst, errTooLarge
		}
		if dst, ok = appendCopy(dst, offset, match); !ok {
			return dst, errCompressed
		}
		b = rest
	}
}

// lz4Length reads the bytes that continue a length of 15.
func lz4Length(b []byte, n int) (length int, rest []byte, ok bool) {
	if n < 15 {
		return n, b, true
	}
	for i, c := range b {
		n += int(c)
		if c < 255 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}
