package wire

import (
	"crypto/sha256"
	"encoding/binary"
)

// PctxSize is the size of a partition context in bytes.
const PctxSize = sha256.Size

// pctxLabel separates partition contexts from every other hash.
const pctxLabel = "KX1 part v1\x00"

// Pctx returns the partition context, which binds a sealed value to its place:
// SHA-256(label ‖ u16 len(topic) ‖ topic ‖ u32 partition) (PROTOCOL.md §2.3). A topic is at
// most abi.MaxTopicLen bytes.
func Pctx(topic []byte, partition int32) [PctxSize]byte {
	var stack [len(pctxLabel) + 2 + 256 + 4]byte
	b := append(stack[:0], pctxLabel...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic)))
	b = append(b, topic...)
	b = binary.BigEndian.AppendUint32(b, uint32(partition))
	return sha256.Sum256(b)
}
