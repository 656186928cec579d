package filter

import (
	"bytes"
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// The outer batch needs a stub for each of the client's records but the first (PROTOCOL.md
// §2.4), 7 to 9 bytes each: librdkafka's default batch of 9,000 records would exceed the
// broker's default limit by them. Stubs differ from one to the next in little but their
// offset delta, so where it saves anything the outer record section becomes an LZ4 frame:
// record 0 stored as it is, in which nothing compresses, and the stubs at about 4 bytes each.

// lz4FrameHeader begins the frame: magic, version 1 with independent blocks and no
// checksums, blocks of at most 64 KiB, and the checksum of these two bytes. Java's clients and
// brokers read independent blocks only.
const lz4FrameHeader = "\x04\x22\x4d\x18\x60\x40\x82"

const (
	lz4BlockSize    = 64 << 10
	lz4BlockPrefix  = 4 // a block's size; 0 ends the frame
	lz4MinMatch     = 4
	lz4LastLiterals = 5  // a block ends with at least these
	lz4LastMatch    = 12 // and no match starts in its last bytes
)

// appendStub appends the record that stands for the client's record i > 0: null key, empty
// value, no headers.
func appendStub(b []byte, i int32) []byte {
	b = append(b, byte(2*(stubSize(i)-1)), 0, 0)
	b = kafka.AppendVarint(b, int64(i))
	return append(b, 1, 0, 0)
}

// maxFirstStubs bounds how many stubs are made to compare with.
const maxFirstStubs = 1 << 14

// areStubs reports whether b is the stubs of a batch of n records as they were sealed. Where
// it returns false b may still be stubs, with other timestamps or too many to compare.
func (f *Filter) areStubs(b []byte, n int32) bool {
	if n > maxFirstStubs {
		return false
	}
	for f.numStubs < n-1 {
		f.numStubs++
		f.firstStubs = appendStub(f.firstStubs, f.numStubs)
	}
	return bytes.Equal(b, f.firstStubs[:stubsSize(n)])
}

func stubSize(i int32) int { return 6 + kafka.VarintSize(int64(i)) }

// stubsSize returns the size of the stubs of a batch of n records in bytes.
func stubsSize(n int32) int {
	size := 7 * (int(n) - 1)
	// Offset deltas from 64 on take a second byte, from 8192 on a third, and so on.
	for from := 1 << 6; from < int(n); from <<= 7 {
		size += int(n) - from
	}
	return size
}

// Batches of a producer are alike, and their record counts near each other. What is kept of those
// of up to smallBatch records takes some 4 bytes for each.
const (
	stubSlots  = 64
	smallBatch = 1024
)

// A stubSlot keeps the stubs of a batch of n records as LZ4 blocks.
type stubSlot struct {
	n      int32
	blocks []byte
}

// stubBlocks returns the stubs of a batch of n records as LZ4 blocks, until the next call.
func (f *Filter) stubBlocks(n int32) []byte {
	s := &f.stubs[stubSlots] // the last of the large ones
	if n <= smallBatch {
		s = &f.stubs[n%stubSlots]
	}
	if s.n != n {
		s.blocks, s.n = f.appendStubBlocks(s.blocks[:0], n), n
	}
	return s.blocks
}

// minCompressedStub is less than a stub takes in a frame, in bytes.
const minCompressedStub = 3

// unframe returns record 0 of a record section that is the frame which sealing makes of n
// records, where it stands there. It returns the section, and false, where that is another
// frame, or one that keeps record 0 in several blocks.
func (f *Filter) unframe(section []byte, n int32) ([]byte, bool) {
	const start = len(lz4FrameHeader) + lz4BlockPrefix
	if n > maxFirstStubs || len(section) < start || string(section[:len(lz4FrameHeader)]) != lz4FrameHeader {
		return section, false
	}
	word := binary.LittleEndian.Uint32(section[len(lz4FrameHeader):])
	size := int(word &^ lz4Uncompressed)
	stubs := len(section) - start - size - lz4BlockPrefix
	if word&lz4Uncompressed == 0 || stubs < 0 || int(n-1) > stubs/minCompressedStub || size+stubsSize(n) > f.inflate.max {
		return section, false
	}
	if rest := section[start+size:]; !bytes.Equal(rest[:stubs], f.stubBlocks(n)) || binary.LittleEndian.Uint32(rest[stubs:]) != 0 {
		return section, false
	}
	return section[start:][:size:size], true
}

// appendStubBlocks appends the stubs of a batch of n records as LZ4 blocks. All stubs of a
// block have one size, so that each repeats the one before it at that distance.
func (f *Filter) appendStubBlocks(b []byte, n int32) []byte {
	for i := int32(1); i < n; {
		size := stubSize(i)
		f.plainStubs = f.plainStubs[:0]
		for ; i < n && stubSize(i) == size && len(f.plainStubs)+size <= lz4BlockSize; i++ {
			f.plainStubs = appendStub(f.plainStubs, i)
		}
		prefix := len(b)
		b = append(b, 0, 0, 0, 0)
		b = appendPeriodic(b, f.plainStubs, size)
		binary.LittleEndian.PutUint32(b[prefix:], uint32(len(b)-prefix-lz4BlockPrefix))
	}
	return b
}

// appendPeriodic appends plain as the content of one LZ4 block, looking for matches at one
// distance only.
func appendPeriodic(b, plain []byte, distance int) []byte {
	literals := 0 // where those not yet written start
	for at := distance; at < len(plain)-lz4LastMatch; {
		n := 0
		for at+n < len(plain)-lz4LastLiterals && plain[at+n] == plain[at+n-distance] {
			n++
		}
		if n < lz4MinMatch {
			at++
			continue
		}
		b = appendLiterals(b, plain[literals:at], n-lz4MinMatch)
		b = append(b, byte(distance), byte(distance>>8))
		if n -= lz4MinMatch; n >= 15 {
			b = appendLZ4Length(b, n)
		}
		at += n + lz4MinMatch
		literals = at
	}
	return appendLiterals(b, plain[literals:], 0)
}

// appendLiterals appends a token, for a match of the given length beyond the least, and its
// literals.
func appendLiterals(b, literals []byte, match int) []byte {
	b = append(b, byte(min(len(literals), 15)<<4|min(match, 15)))
	if len(literals) >= 15 {
		b = appendLZ4Length(b, len(literals))
	}
	return append(b, literals...)
}

// appendLZ4Length appends the bytes that continue a length of 15 or more.
func appendLZ4Length(b []byte, n int) []byte {
	for n -= 15; n >= 255; n -= 255 {
		b = append(b, 255)
	}
	return append(b, byte(n))
}
