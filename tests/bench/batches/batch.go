package batches

import "github.com/wasm-e2ee/wasm-e2ee/abi/kafka"

// Make makes a client's uncompressed batch of about size bytes, of records whose
// values are recordSize bytes.
func Make(recordSize, size int) []byte {
	value := make([]byte, recordSize)
	b := make([]byte, kafka.BatchHeaderSize)
	n := int32(0)
	for ; len(b) < size; n++ {
		r := kafka.Record{OffsetDelta: n, Value: value}
		b = r.Append(b)
	}
	h := kafka.BatchHeader{BatchLength: int32(len(b) - 12), Magic: kafka.BatchMagic, LastOffsetDelta: n - 1,
		BaseTimestamp: 1700000000000, MaxTimestamp: 1700000000000, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: n}
	h.Put(b)
	kafka.SetBatchCRC(b)
	return b
}
