package filter

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// Types of control records that a broker writes into a client's topic (KIP-98).
const (
	controlAbort  = 0
	controlCommit = 1
)

// maxMarkerValue bounds what follows a marker's key: a version and the coordinator's epoch,
// 6 bytes, and room for fields that brokers may add. Some clients hand markers to the
// application, so there must be no room for a record in one.
const maxMarkerValue = 16

// isMarker reports whether a batch with header h and record section is a transaction marker
// and nothing else: uncompressed, one record without headers, whose key says abort or
// commit.
func isMarker(h *kafka.BatchHeader, section []byte) bool {
	if !h.IsControl() || h.Codec() != kafka.CodecNone || h.NumRecords != 1 {
		return false
	}
	var r kafka.Record
	rest, err := kafka.NextRecord(section, &r)
	if err != nil || len(rest) != 0 || r.NumHeaders != 0 || len(r.Value) > maxMarkerValue || len(r.Key) != 4 {
		return false
	}
	kind := binary.BigEndian.Uint16(r.Key[2:])
	return kind == controlAbort || kind == controlCommit
}

// passCut leaves a batch that the broker cut short its header at most. What was cut can be
// neither opened nor told from plaintext.
func (f *Filter) passCut(b []byte) (abi.Result, abi.Status) {
	if _, err := kafka.ParseBatchHeader(b); err == abi.StatusUnsupportedMagic {
		return abi.Result{}, abi.StatusUnsupportedMagic
	}
	f.counters[abi.CounterPassedBatches]++
	return abi.Result{Length: uint32(min(len(b), kafka.BatchHeaderSize))}, abi.StatusOK
}
