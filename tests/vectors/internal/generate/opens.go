package main

import (
	"encoding/binary"
	"fmt"
	"log"

	"github.com/klauspost/compress/s2"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// opened is the outcome of opening a batch that gives client.
func opened(client []byte, leaf uint32) vectors.Want {
	s := protocolSeal(leaf)
	return vectors.Want{
		Batch: client, Kid: s.Kid[:], Leaf: leaf, Records: binary.BigEndian.Uint32(client[57:]),
	}
}

// tree opens batches at the leaves that PROTOCOL.md §2.3 lists.
func (c corpus) tree() {
	protocol := reference.Join(kafka.BatchHeader{
		BaseTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1, NumRecords: 1,
	}, unhex("1a000000046b310a68656c6c6f00"))
	for _, leaf := range []uint32{0, 1, 2, 0x800000, 0xffffff} {
		b, err := protocolSeal(leaf).Batch(protocol)
		if err != nil {
			log.Fatal(err)
		}
		c.open(fmt.Sprintf("tree-leaf-%06x", leaf), "The record of PROTOCOL.md §2.3 under a leaf that is listed there.",
			b, opened(protocol, leaf))
	}
}

func (c corpus) opens() {
	for codec := kafka.CodecNone; codec <= kafka.CodecZstd; codec++ {
		b := client(codec, 5)
		c.open("open-inner-"+codec.String(), "The client's codec comes back, and its bytes are not touched.", sealed(b), opened(b, 2))
	}
	for _, count := range []int{1, 64, 65, 200} {
		b := client(kafka.CodecZstd, count)
		c.open(fmt.Sprintf("open-records-%d", count), "Offset deltas of stubs take one byte up to 63 and two from there on.", sealed(b), opened(b, 2))
	}
	b := with(client(kafka.CodecNone, 2), func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrTransactional })
	c.open("open-transactional", "The transactional bit stays.", sealed(b), opened(b, 2))
	b = with(client(kafka.CodecNone, 2), func(h *kafka.BatchHeader) { h.BaseTimestamp, h.MaxTimestamp = -1, -1 })
	c.open("open-no-timestamps", "A client that sends no timestamps.", sealed(b), opened(b, 2))
}

// rewrites are what a broker may do to a stored batch.
func (c corpus) rewrites() {
	b := client(kafka.CodecSnappy, 40)
	assigned := func(h *kafka.BatchHeader) { h.BaseOffset, h.PartitionLeaderEpoch = 123456789, 17 }
	c.open("broker-assigns-offset", "Base offset and leader epoch are the broker's.", with(sealed(b), assigned), opened(with(b, assigned), 2))
	appended := func(h *kafka.BatchHeader) {
		h.Attributes |= kafka.AttrLogAppendTime
		h.MaxTimestamp = now + 99999
	}
	c.open("broker-log-append-time", "The broker's maxTimestamp stays where it says LogAppendTime.", with(sealed(b), appended), opened(with(b, appended), 2))
	c.open("broker-other-timestamps", "Without LogAppendTime the timestamps are the client's, whatever the outer batch says.",
		with(sealed(b), func(h *kafka.BatchHeader) { h.BaseTimestamp, h.MaxTimestamp = 1, 2 }), opened(b, 2))
	for codec := kafka.CodecGzip; codec <= kafka.CodecZstd; codec++ {
		s := sealed(b)
		c.open("broker-compresses-"+codec.String(), "A topic's compression.type applies to the outer batch.",
			outer(s, codec, deflate(codec, s[kafka.BatchHeaderSize:])), opened(b, 2))
	}
	s := sealed(b)
	framed := append([]byte("\x82SNAPPY\x00"), 0, 0, 0, 1, 0, 0, 0, 1)
	for rest := s[kafka.BatchHeaderSize:]; len(rest) > 0; {
		n := min(len(rest), 1000)
		block := s2.EncodeSnappy(nil, rest[:n])
		framed = binary.BigEndian.AppendUint32(framed, uint32(len(block)))
		framed = append(framed, block...)
		rest = rest[n:]
	}
	c.open("broker-compresses-xerial", "Snappy in the frames that Java writes.", outer(s, kafka.CodecSnappy, framed), opened(b, 2))
}

// passes are batches that are not sealed and may be delivered.
func (c corpus) passes() {
	untouched := vectors.Want{Untouched: true}
	for kind, name := range []string{"abort", "commit"} {
		c.open("marker-"+name, "A transaction marker passes.", marker(byte(kind)), untouched)
	}
	h := header(1)
	h.NumRecords, h.LastOffsetDelta = 0, 9
	c.open("empty-batch", "Compaction leaves batches without records.", reference.Join(h, nil), untouched)

	plain := client(kafka.CodecLZ4, 3)
	c.add("plain-topic-open", vectors.Vector{
		Comment: "A topic whose mode is plain passes.", PlainTopics: []string{topic}, Op: vectors.OpOpen, Topic: topic, Batch: plain, Want: untouched,
	})
	c.add("plain-topic-seal", vectors.Vector{
		Comment: "A topic whose mode is plain passes.", PlainTopics: []string{topic}, Op: vectors.OpSeal, Topic: topic, Batch: plain, Want: untouched,
	})
	c.add("control-topic-open", vectors.Vector{
		Comment: "The control topics carry no sealed batches.", Op: vectors.OpOpen, Topic: "_e2ee.grants", Batch: plain, Want: untouched,
	})
	c.add("control-topic-seal", vectors.Vector{
		Comment: "A client may not produce to a control topic.", PlainTopics: []string{"_e2ee.grants"}, Op: vectors.OpSeal, Topic: "_e2ee.grants",
		Batch: plain, Want: vectors.Want{Status: abi.StatusForbidden},
	})
}

// marker is a transaction marker as brokers write it.
func marker(kind byte) []byte {
	h := header(1)
	h.Attributes = kafka.AttrControl | kafka.AttrTransactional
	h.BaseSequence = -1
	return reference.Join(h, reference.Section(kafka.Record{Key: []byte{0, 0, 0, kind}, Value: make([]byte, 6)}))
}
