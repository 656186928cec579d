package kafka

import (
	"bytes"
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// xerialMagic begins the framing of Java's snappy streams, which Kafka's own clients and
// brokers write: the magic, two versions of 4 bytes, then blocks with their length as u32,
// big-endian.
const xerialMagic = "\x82SNAPPY\x00"

const xerialHeader = 16

// EachSnappyBlock calls f with each raw snappy block of a record section that snappy
// compressed: the section is one block, or xerial's frames. It stops at the first error of f,
// and returns abi.StatusMalformed where the frames do not hold together.
func EachSnappyBlock(section []byte, f func(block []byte) error) error {
	if !bytes.HasPrefix(section, []byte(xerialMagic)) {
		return f(section)
	}
	if len(section) < xerialHeader {
		return abi.StatusMalformed
	}
	for b := section[xerialHeader:]; len(b) > 0; {
		if len(b) < 4 {
			return abi.StatusMalformed
		}
		n := binary.BigEndian.Uint32(b)
		b = b[4:]
		if int64(n) > int64(len(b)) {
			return abi.StatusMalformed
		}
		if err := f(b[:n]); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
