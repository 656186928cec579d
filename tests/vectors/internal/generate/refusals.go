package main

import (
	"bytes"
	"fmt"
	"log"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// shapes are sealed batches whose records were rearranged.
func (c corpus) shapes() {
	b := client(kafka.CodecNone, 3)
	value, err := protocolSeal(2).Value(b)
	if err != nil {
		log.Fatal(err)
	}
	original, err := reference.Records(b, value)
	if err != nil {
		log.Fatal(err)
	}
	stub := func(i int32) kafka.Record { return kafka.Record{OffsetDelta: i, Value: []byte{}} }
	moved := func(i int32) kafka.Record { r := original[0]; r.OffsetDelta = i; return r }
	edited := func(r kafka.Record, edit func(r *kafka.Record)) kafka.Record { edit(&r); return r }
	head := header(3)
	for _, tt := range []struct {
		name, comment string
		status        abi.Status
		records       []kafka.Record
	}{
		{"stub-removed", "A stub was taken away, and the counts with it.", abi.StatusUnauthentic, original[:2]},
		{"stubs-removed", "All stubs were taken away.", abi.StatusUnauthentic, original[:1]},
		{"stub-added", "A stub was added, and the counts with it.", abi.StatusUnauthentic, append(original[:3:3], stub(3))},
		{"stubs-swapped", "Two stubs changed places.", abi.StatusUnauthentic, []kafka.Record{original[0], stub(2), stub(1)}},
		{"value-moved", "The value stands in the second record.", abi.StatusUnauthentic, []kafka.Record{stub(0), moved(1), stub(2)}},
		{"value-twice", "The value stands in two records.", abi.StatusUnauthentic, []kafka.Record{original[0], moved(1), stub(2)}},
		{"value-missing", "Stubs alone are plaintext.", abi.StatusPlaintext, []kafka.Record{stub(0), stub(1), stub(2)}},
		{"stub-with-value", "Plaintext was put into a stub.", abi.StatusUnauthentic,
			[]kafka.Record{original[0], stub(1), edited(stub(2), func(r *kafka.Record) { r.Value = []byte("injected") })}},
		{"stub-with-null", "A stub's value became null.", abi.StatusUnauthentic,
			[]kafka.Record{original[0], stub(1), edited(stub(2), func(r *kafka.Record) { r.Value = nil })}},
		{"stub-with-key", "A key was put into a stub.", abi.StatusUnauthentic,
			[]kafka.Record{original[0], stub(1), edited(stub(2), func(r *kafka.Record) { r.Key = []byte("injected") })}},
		{"stub-with-header", "A header was put into a stub.", abi.StatusUnauthentic,
			[]kafka.Record{original[0], edited(stub(1), func(r *kafka.Record) {
				r.NumHeaders, r.Headers = 1, kafka.AppendHeader(nil, "injected", nil)
			}), stub(2)}},
		{"value-with-key", "A key was put beside the value.", abi.StatusUnauthentic,
			[]kafka.Record{edited(original[0], func(r *kafka.Record) { r.Key = []byte("injected") }), stub(1), stub(2)}},
		{"value-with-header", "A header was put beside the value.", abi.StatusUnauthentic,
			[]kafka.Record{edited(original[0], func(r *kafka.Record) {
				r.NumHeaders, r.Headers = 1, kafka.AppendHeader(nil, "injected", nil)
			}), stub(1), stub(2)}},
		{"plaintext-instead", "Plaintext stands where the value was.", abi.StatusPlaintext,
			[]kafka.Record{{Value: []byte("injected")}, stub(1), stub(2)}},
	} {
		h := head
		h.NumRecords, h.LastOffsetDelta = int32(len(tt.records)), int32(len(tt.records)-1)
		c.refused("shape-"+tt.name, tt.comment, reference.Join(h, reference.Section(tt.records...)), tt.status)
	}
	trailing := append(bytes.Clone(reference.Section(original...)), 0)
	c.refused("shape-trailing-byte", "A byte follows the last record.", reference.Join(head, trailing), abi.StatusMalformed)
}

// tampered are sealed values that were changed, moved, or made under other keys.
func (c corpus) tampered() {
	b := client(kafka.CodecGzip, 3)
	s := sealed(b)
	at := bytes.Index(s, []byte{0xE2, 0x10, 0x5e, 0xdb})
	size := bytes.Index(s, reference.Section(kafka.Record{OffsetDelta: 1, Value: []byte{}})) - 1 - at
	for _, tt := range []struct {
		name   string
		offset int
		status abi.Status
	}{
		{"flags", 1, abi.StatusUnauthentic},
		{"leaf", 12, abi.StatusUnauthentic},
		{"count", 16, abi.StatusUnauthentic},
		{"salt", 17, abi.StatusUnauthentic},
		{"codec", 25, abi.StatusUnauthentic},
		{"base-timestamp", 26, abi.StatusUnauthentic},
		{"max-timestamp", 41, abi.StatusUnauthentic},
		{"records", 42, abi.StatusUnauthentic},
		{"tag", size - 16, abi.StatusUnauthentic},
		{"last-byte", size - 1, abi.StatusUnauthentic},
		{"magic", 0, abi.StatusPlaintext},
	} {
		flipped := bytes.Clone(s)
		flipped[at+tt.offset] ^= 1
		c.refused("flipped-"+tt.name, "One bit of the sealed value flipped, length and CRC right.",
			with(flipped, func(*kafka.BatchHeader) {}), tt.status)
	}
	flipped := bytes.Clone(s)
	flipped[at+2] ^= 1
	c.open("unknown-kid", "A kid that no root is installed for.", with(flipped, func(*kafka.BatchHeader) {}),
		vectors.Want{Status: abi.StatusNeedRoot, Kid: flipped[at+2 : at+10]})

	value := s[at : at+size]
	for _, n := range []int{1, 24, 25, 57, 58, size - 1} {
		records, err := reference.Records(b, value[:n])
		if err != nil {
			log.Fatal(err)
		}
		c.refused(fmt.Sprintf("cut-value-%d", n), "A value cut short in a batch that holds together.",
			reference.Join(header(3), reference.Section(records...)), abi.StatusUnauthentic)
	}

	elsewhere := func(name, comment, topic string, partition int32, root vectors.Root) {
		c.add(name, vectors.Vector{
			Comment: comment, Roots: []vectors.Root{root}, Op: vectors.OpOpen, Topic: topic, Partition: partition, Batch: s,
			Want: vectors.Want{Status: abi.StatusUnauthentic},
		})
	}
	other := protocolRoot()
	other.Topic = "orders2"
	elsewhere("moved-partition", "The batch of partition 3 served from partition 4.", topic, 4, protocolRoot())
	elsewhere("moved-topic", "The batch of one topic served from another.", "orders2", partition, protocolRoot())
	elsewhere("moved-topic-with-root", "As before, and the kid's root was installed for the other topic.", "orders2", partition, other)
	wrong := protocolRoot()
	wrong.Root = bytes.Clone(wrong.Root)
	wrong.Root[31] ^= 1
	elsewhere("wrong-root", "Another root under the same kid.", topic, partition, wrong)
}

// headers are outer batches whose header does not hold.
func (c corpus) headers() {
	s := sealed(client(kafka.CodecNone, 3))
	edit := func(fn func(h *kafka.BatchHeader)) []byte { return with(s, fn) }
	raw := func(fn func(b []byte)) []byte { b := bytes.Clone(s); fn(b); return b }
	c.refused("crc-wrong", "The CRC-32C does not match.", raw(func(b []byte) { b[17] ^= 1 }), abi.StatusCorrupt)
	c.refused("crc-section", "A byte of the section flipped under the old CRC.", raw(func(b []byte) { b[100] ^= 1 }), abi.StatusCorrupt)
	for _, magic := range []byte{0, 1, 3} {
		c.refused(fmt.Sprintf("magic-%d", magic), "Another magic than 2.", raw(func(b []byte) { b[16] = magic }), abi.StatusUnsupportedMagic)
	}
	c.refused("codec-5", "A codec that Kafka does not define.", edit(func(h *kafka.BatchHeader) { h.Attributes |= 5 }), abi.StatusUnsupportedCodec)
	c.refused("codec-claimed", "Gzip is claimed and is not there.", edit(func(h *kafka.BatchHeader) { h.Attributes |= 1 }), abi.StatusMalformed)
	c.refused("length-negative", "A negative batchLength.", raw(func(b []byte) { copy(b[8:], "\xff\xff\xff\xff") }), abi.StatusMalformed)
	c.refused("length-small", "A batchLength that ends inside the header.", raw(func(b []byte) { copy(b[8:], "\x00\x00\x00\x30") }), abi.StatusMalformed)
	c.refused("trailing-byte", "A byte after the batch.", append(bytes.Clone(s), 0), abi.StatusMalformed)
	c.refused("count-negative", "A negative record count.", edit(func(h *kafka.BatchHeader) { h.NumRecords = -3 }), abi.StatusMalformed)
	c.refused("count-huge", "More records than bytes.", edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 1<<31-1, 1<<31-2 }), abi.StatusMalformed)
	c.refused("count-zero", "No records, and a section.", edit(func(h *kafka.BatchHeader) { h.NumRecords = 0 }), abi.StatusMalformed)
	c.refused("last-offset-larger", "lastOffsetDelta beyond the records.", edit(func(h *kafka.BatchHeader) { h.LastOffsetDelta = 7 }), abi.StatusUnauthentic)
	c.refused("last-offset-smaller", "lastOffsetDelta before the last record.", edit(func(h *kafka.BatchHeader) { h.LastOffsetDelta = 1 }), abi.StatusUnauthentic)
	c.refused("control-bit", "A sealed batch that claims to be a marker.", edit(func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrControl }), abi.StatusMalformed)

	for codec := kafka.CodecNone; codec <= kafka.CodecZstd; codec++ {
		c.refused("plaintext-"+codec.String(), "Injected plaintext.", client(codec, 3), abi.StatusPlaintext)
	}
	hidden := header(1)
	hidden.Attributes = kafka.AttrControl
	c.refused("plaintext-control", "Plaintext behind the control bit.",
		reference.Join(hidden, reference.Section(kafka.Record{Key: []byte("a key"), Value: []byte("injected")})), abi.StatusMalformed)
	c.refused("plaintext-marker-value", "Plaintext as the value of a marker.",
		reference.Join(hidden, reference.Section(kafka.Record{Key: []byte{0, 0, 0, 1}, Value: []byte("injected, a whole record")})), abi.StatusMalformed)
	c.refused("plaintext-second-record", "Plaintext beside a marker's record.",
		with(reference.Join(hidden, reference.Section(kafka.Record{Key: []byte{0, 0, 0, 1}, Value: make([]byte, 6)},
			kafka.Record{OffsetDelta: 1, Value: []byte("injected")})), func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 2, 1 }), abi.StatusMalformed)
	c.refused("varint-long", "A record length in more bytes than it needs.",
		reference.Join(header(1), append([]byte{0x8c, 0x00}, reference.Section(kafka.Record{Value: []byte{}})[1:]...)), abi.StatusMalformed)
	c.refused("varint-cut", "A section that ends inside a varint.", reference.Join(header(1), []byte("\xff\xff\xff\xff\xff\xff\xff")), abi.StatusMalformed)
}

// inflates are compressed outer sections that must not be followed.
func (c corpus) inflates() {
	h := header(1)
	for codec := kafka.CodecGzip; codec <= kafka.CodecZstd; codec++ {
		h.Attributes = int16(codec)
		bomb := deflate(codec, make([]byte, 1<<20+1))
		c.refused("bomb-"+codec.String(), "One byte over the cap on decompression.", reference.Join(h, bomb), abi.StatusTooLarge)
		good := deflate(codec, sealed(client(kafka.CodecNone, 1))[kafka.BatchHeaderSize:])
		c.refused("cut-"+codec.String(), "Compressed bytes cut in the middle.", reference.Join(h, good[:len(good)/2]), abi.StatusMalformed)
		c.refused("garbage-"+codec.String(), "Bytes that no compressor made.", reference.Join(h, bytes.Repeat([]byte{0xA5}, 60)), abi.StatusMalformed)
	}
}
