package kafka

import (
	"encoding/binary"
	"math"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// MaxSkipSize is the most bytes that AppendSkip appends: a header and one record whose
// offsetDelta takes five.
const MaxSkipSize = BatchHeaderSize + 21

// AppendSkip appends to dst what takes the place of a batch that must not be delivered: a
// control batch over the same offsets, with an abort marker in it (PROTOCOL.md §2.8.5).
// Every client moves on past it, and none finds a record. batch is one whole batch; nothing
// of its record section is looked at or kept.
//
//	baseOffset, lastOffsetDelta, partitionLeaderEpoch, timestamps: those of batch
//	attributes: control, and the timestamp type of batch
//	producerId, producerEpoch, baseSequence: -1
//	one record at lastOffsetDelta: key 0000 0000 (version, abort), value of 6 zero bytes
//
// A marker that kept the producer's id would end the transaction for a client that filters
// what was aborted, and it would deliver the rest. The record stands at the last offset,
// since some clients go on from the last record and not from the last offset of its batch.
//
// Of a message set older than v2 only the last offset is known, and the marker is that one
// offset. The error is abi.StatusMalformed where it cannot be told which offsets the batch
// takes, and dst is returned as it was.
func AppendSkip(dst, batch []byte) ([]byte, error) {
	size, err := BatchSize(batch)
	if err != nil || size != len(batch) {
		return dst, abi.StatusMalformed
	}
	h := BatchHeader{BaseOffset: BaseOffset(batch), PartitionLeaderEpoch: -1, BaseTimestamp: -1, MaxTimestamp: -1}
	if batch[batchMagicEnd-1] >= BatchMagic {
		if h, err = ParseBatchHeader(batch); err != nil {
			return dst, abi.StatusMalformed
		}
		// A damaged header must not carry a client past what it has not read.
		if BatchCRC(batch) != h.CRC && int64(h.NumRecords) != int64(h.LastOffsetDelta)+1 {
			return dst, abi.StatusMalformed
		}
	}
	if h.BaseOffset < 0 || h.LastOffsetDelta < 0 || h.BaseOffset > math.MaxInt64-1-int64(h.LastOffsetDelta) {
		return dst, abi.StatusMalformed
	}
	var key [4]byte
	var value [6]byte
	marker := Record{OffsetDelta: h.LastOffsetDelta, Key: key[:], Value: value[:]}
	h.Magic = BatchMagic
	h.Attributes = AttrControl | h.Attributes&AttrLogAppendTime
	h.ProducerID, h.ProducerEpoch, h.BaseSequence = -1, -1, -1
	h.NumRecords = 1

	at := len(dst)
	dst = append(dst, make([]byte, BatchHeaderSize)...)
	dst = marker.Append(dst)
	h.BatchLength = int32(len(dst) - at - BatchLengthEnd)
	h.Put(dst[at:])
	SetBatchCRC(dst[at:])
	return dst, nil
}

// LastOffset reads the offset of the last record of the batch at the start of b, or -1 where
// b is too short to tell. Of a message set older than v2 it is the offset that stands there.
func LastOffset(b []byte) int64 {
	if len(b) < batchMagicEnd {
		return -1
	}
	if b[batchMagicEnd-1] < BatchMagic {
		return BaseOffset(b)
	}
	if len(b) < BatchHeaderSize {
		return -1
	}
	return BaseOffset(b) + int64(int32(binary.BigEndian.Uint32(b[23:])))
}
