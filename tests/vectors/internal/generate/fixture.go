package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"log"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// The names and the key of PROTOCOL.md §2.3's vectors.
const (
	topic     = "orders"
	partition = 3
	now       = 1_700_000_000_000
)

func protocolSeal(leaf uint32) *reference.Seal {
	return &reference.Seal{
		Root: [abi.KeySize]byte(unhex("4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1")),
		Kid:  abi.Kid(unhex("5edb50075e22bbf1")),
		Leaf: leaf, Salt: [8]byte(unhex("5051525354555657")),
		Topic: topic, Partition: partition,
	}
}

func protocolRoot() vectors.Root {
	s := protocolSeal(0)
	return vectors.Root{Kid: s.Kid[:], Root: s.Root[:], Topic: topic}
}

// header is the header of a batch of count records that a client sent.
func header(count int) kafka.BatchHeader {
	return kafka.BatchHeader{
		Magic: 2, LastOffsetDelta: int32(count - 1), NumRecords: int32(count),
		BaseTimestamp: now, MaxTimestamp: now + int64(count-1)*10,
		ProducerID: 4711, ProducerEpoch: 1, BaseSequence: 20,
	}
}

// section is a record section of count records.
func section(count int) []byte {
	var records []kafka.Record
	for i := range count {
		records = append(records, kafka.Record{
			TimestampDelta: int64(i) * 10, OffsetDelta: int32(i),
			Key: fmt.Appendf(nil, "k%d", i), Value: fmt.Appendf(nil, "value number %d", i),
			NumHeaders: 1, Headers: kafka.AppendHeader(nil, "trace", []byte{byte(i)}),
		})
	}
	return reference.Section(records...)
}

// client is a sound batch of a client.
func client(codec kafka.Codec, count int) []byte {
	h := header(count)
	h.Attributes = int16(codec)
	return reference.Join(h, deflate(codec, section(count)))
}

// sealed seals a client's batch under leaf 2, the outer section not compressed.
func sealed(client []byte) []byte {
	b, err := protocolSeal(2).Batch(client)
	if err != nil {
		log.Fatal(err)
	}
	return b
}

// with returns a batch with an edited header, its length and CRC set anew.
func with(b []byte, edit func(h *kafka.BatchHeader)) []byte {
	h, err := kafka.ParseBatchHeader(b)
	if err != nil {
		log.Fatal(err)
	}
	edit(&h)
	return reference.Join(h, b[kafka.BatchHeaderSize:])
}

// outer returns a batch with another record section, compressed with codec.
func outer(b []byte, codec kafka.Codec, section []byte) []byte {
	h, err := kafka.ParseBatchHeader(b)
	if err != nil {
		log.Fatal(err)
	}
	h.Attributes = h.Attributes&^kafka.AttrCodec | int16(codec)
	return reference.Join(h, section)
}

// deflate compresses as most clients do.
func deflate(codec kafka.Codec, b []byte) []byte {
	var out bytes.Buffer
	switch codec {
	case kafka.CodecNone:
		return b
	case kafka.CodecGzip:
		w := gzip.NewWriter(&out)
		must(w.Write(b))
		must(0, w.Close())
	case kafka.CodecSnappy:
		return s2.EncodeSnappy(nil, b)
	case kafka.CodecLZ4:
		w := lz4.NewWriter(&out)
		must(w.Write(b))
		must(0, w.Close())
	case kafka.CodecZstd:
		w, err := zstd.NewWriter(nil)
		must(0, err)
		return w.EncodeAll(b, nil)
	}
	return out.Bytes()
}

func must(_ int, err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	must(0, err)
	return b
}
