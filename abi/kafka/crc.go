package kafka

import (
	"encoding/binary"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 §12.1) of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// BatchCRC computes the CRC-32C of one whole batch v2, from its attributes to its end. The
// batch must be at least BatchHeaderSize bytes.
func BatchCRC(batch []byte) uint32 { return CRC32C(batch[batchCRCStart:]) }

// SetBatchCRC writes the CRC-32C of one whole batch v2 into its header.
func SetBatchCRC(batch []byte) {
	binary.BigEndian.PutUint32(batch[batchMagicEnd:], BatchCRC(batch))
}
