package main

import (
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// stored is the size in bytes of one batch of the log that carries records without headers,
// uncompressed, all written within one millisecond.
func stored(records ...keyring.Record) int64 {
	size := int64(kafka.BatchHeaderSize)
	for i, r := range records {
		body := 1 + kafka.VarintSize(0) + kafka.VarintSize(int64(i)) + // attributes, timestamp and offset deltas
			kafka.VarintSize(int64(len(r.Key))) + len(r.Key) +
			kafka.VarintSize(int64(len(r.Value))) + len(r.Value) + 1 // no headers
		size += int64(kafka.VarintSize(int64(body)) + body)
	}
	return size
}
