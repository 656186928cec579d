package kafka

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 §12.1) of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// UnderCRC returns the part of one whole batch v2, or of the start of one, that its CRC-32C
// covers: from its attributes on. The batch must be at least BatchHeaderSize bytes.
func UnderCRC(batch []byte) []byte { return batch[batchCRCStart:] }

// BatchCRC computes the CRC-32C of one whole batch v2 of at least BatchHeaderSize bytes.
func BatchCRC(batch []byte) uint32 { return CRC32C(UnderCRC(batch)) }

// SetBatchCRC writes the CRC-32C of one whole batch v2 into its header.
func SetBatchCRC(batch []byte) {
	binary.BigEndian.PutUint32(CRCField(batch)[:], BatchCRC(batch))
}

// CRCField returns where in a batch v2 its CRC-32C stands, big-endian.
func CRCField(batch []byte) *[4]byte { return (*[4]byte)(batch[batchMagicEnd:batchCRCStart]) }
