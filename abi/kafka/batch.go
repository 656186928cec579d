package kafka

import (
	"encoding/binary"
	"errors"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Sizes of a record batch v2 in bytes.
const (
	BatchHeaderSize = 61 // baseOffset up to and including the number of records
	BatchLengthEnd  = 12 // where batchLength ends: it counts the bytes from there
	batchMagicEnd   = 17 // the first bytes that tell the magic
	batchCRCStart   = 21 // the CRC-32C covers everything from the attributes on
)

// BatchMagic is the magic of record batch v2, the only one whose layout is read here.
const BatchMagic = 2

// ErrCut says that a span of batches ends inside one. A broker may cut the last batch of a
// Fetch response; a client reads it again.
var ErrCut = errors.New("batch is cut short")

// A BatchHeader is the fixed part of a record batch v2. Integers are big-endian; times are
// Unix ms, -1 for none.
//
//	8b: baseOffset
//	4b: batchLength, bytes that follow this field
//	4b: partitionLeaderEpoch
//	1b: magic (2)
//	4b: crc, CRC-32C from attributes to the end
//	2b: attributes
//	4b: lastOffsetDelta
//	8b: baseTimestamp
//	8b: maxTimestamp
//	8b: producerId
//	2b: producerEpoch
//	4b: baseSequence
//	4b: number of records
type BatchHeader struct {
	BaseOffset           int64
	BatchLength          int32
	PartitionLeaderEpoch int32
	Magic                int8
	CRC                  uint32
	Attributes           int16
	LastOffsetDelta      int32
	BaseTimestamp        int64
	MaxTimestamp         int64
	ProducerID           int64
	ProducerEpoch        int16
	BaseSequence         int32
	NumRecords           int32
}

// ParseBatchHeader reads the header of the batch at the start of b. It checks the magic
// (abi.StatusUnsupportedMagic) and that 61 bytes are there (ErrCut), and nothing else:
// lengths, counts and the CRC are the caller's to compare.
func ParseBatchHeader(b []byte) (BatchHeader, error) {
	if len(b) < batchMagicEnd {
		return BatchHeader{}, ErrCut
	}
	if b[16] != BatchMagic {
		return BatchHeader{}, abi.StatusUnsupportedMagic
	}
	if len(b) < BatchHeaderSize {
		return BatchHeader{}, ErrCut
	}
	return BatchHeader{
		BaseOffset:           int64(binary.BigEndian.Uint64(b)),
		BatchLength:          int32(binary.BigEndian.Uint32(b[8:])),
		PartitionLeaderEpoch: int32(binary.BigEndian.Uint32(b[12:])),
		Magic:                int8(b[16]),
		CRC:                  binary.BigEndian.Uint32(b[17:]),
		Attributes:           int16(binary.BigEndian.Uint16(b[21:])),
		LastOffsetDelta:      int32(binary.BigEndian.Uint32(b[23:])),
		BaseTimestamp:        int64(binary.BigEndian.Uint64(b[27:])),
		MaxTimestamp:         int64(binary.BigEndian.Uint64(b[35:])),
		ProducerID:           int64(binary.BigEndian.Uint64(b[43:])),
		ProducerEpoch:        int16(binary.BigEndian.Uint16(b[51:])),
		BaseSequence:         int32(binary.BigEndian.Uint32(b[53:])),
		NumRecords:           int32(binary.BigEndian.Uint32(b[57:])),
	}, nil
}

// Put writes the header into the first 61 bytes of b. It writes CRC as the field says:
// call SetBatchCRC once the whole batch stands.
func (h *BatchHeader) Put(b []byte) {
	_ = b[BatchHeaderSize-1]
	binary.BigEndian.PutUint64(b, uint64(h.BaseOffset))
	binary.BigEndian.PutUint32(b[8:], uint32(h.BatchLength))
	binary.BigEndian.PutUint32(b[12:], uint32(h.PartitionLeaderEpoch))
	b[16] = byte(h.Magic)
	binary.BigEndian.PutUint32(b[17:], h.CRC)
	binary.BigEndian.PutUint16(b[21:], uint16(h.Attributes))
	binary.BigEndian.PutUint32(b[23:], uint32(h.LastOffsetDelta))
	binary.BigEndian.PutUint64(b[27:], uint64(h.BaseTimestamp))
	binary.BigEndian.PutUint64(b[35:], uint64(h.MaxTimestamp))
	binary.BigEndian.PutUint64(b[43:], uint64(h.ProducerID))
	binary.BigEndian.PutUint16(b[51:], uint16(h.ProducerEpoch))
	binary.BigEndian.PutUint32(b[53:], uint32(h.BaseSequence))
	binary.BigEndian.PutUint32(b[57:], uint32(h.NumRecords))
}

// BatchSize returns the whole size in bytes of the batch at the start of b, of any magic:
// batchLength and the 12 bytes before its end. It returns ErrCut where b ends before the
// batch does, and abi.StatusMalformed where the length cannot hold the batch's own header.
func BatchSize(b []byte) (int, error) {
	if len(b) < batchMagicEnd {
		return 0, ErrCut
	}
	length := int32(binary.BigEndian.Uint32(b[8:]))
	least := int32(BatchHeaderSize - BatchLengthEnd)
	if b[16] < BatchMagic {
		least = 14 // v0: crc, magic, attributes and two null lengths
	}
	if length < least {
		return 0, abi.StatusMalformed
	}
	if int64(length) > int64(len(b)-BatchLengthEnd) {
		return 0, ErrCut
	}
	return BatchLengthEnd + int(length), nil
}

// BaseOffset reads the offset of the first record of the batch at the start of b, or -1
// where b is too short for one.
func BaseOffset(b []byte) int64 {
	if len(b) < 8 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(b))
}

// A Codec is the compression of a record section, the low three bits of the attributes.
type Codec uint8

const (
	CodecNone   Codec = 0
	CodecGzip   Codec = 1
	CodecSnappy Codec = 2
	CodecLZ4    Codec = 3
	CodecZstd   Codec = 4
)

// Bits of a batch's attributes (KIP-98, KIP-32). The others are unused.
const (
	AttrCodec         int16 = 0x07
	AttrLogAppendTime int16 = 0x08
	AttrTransactional int16 = 0x10
	AttrControl       int16 = 0x20
	AttrDeleteHorizon int16 = 0x40 // baseTimestamp is a delete horizon (KIP-534)
)

// Valid reports whether the codec is one that Kafka defines.
func (c Codec) Valid() bool { return c <= CodecZstd }

// String names the codec as Kafka's compression.type does.
func (c Codec) String() string {
	switch c {
	case CodecNone:
		return "none"
	case CodecGzip:
		return "gzip"
	case CodecSnappy:
		return "snappy"
	case CodecLZ4:
		return "lz4"
	case CodecZstd:
		return "zstd"
	}
	return "unknown codec"
}

// Codec returns the compression of the record section.
func (h *BatchHeader) Codec() Codec { return Codec(h.Attributes & AttrCodec) }

// IsControl reports whether the batch holds a control record rather than data.
func (h *BatchHeader) IsControl() bool { return h.Attributes&AttrControl != 0 }

// IsTransactional reports whether the batch is part of a transaction.
func (h *BatchHeader) IsTransactional() bool { return h.Attributes&AttrTransactional != 0 }

// LogAppendTime reports whether the broker replaced the client's timestamps: maxTimestamp
// then counts for every record.
func (h *BatchHeader) LogAppendTime() bool { return h.Attributes&AttrLogAppendTime != 0 }
