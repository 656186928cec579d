package main

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
	"github.com/wasm-e2ee/wasm-e2ee/tests/vectors"
)

// seals are batches that clients produce.
func (c corpus) seals() {
	s := protocolSeal(0)
	leaseOf := func(start uint32, level uint8) vectors.Lease {
		node := reference.Node(s.Root, start, int(level))
		return vectors.Lease{Kid: s.Kid[:], UseBy: now, Start: start, Level: level, Node: node[:], Topic: topic}
	}
	seal := func(name, comment string, lease vectors.Lease, at uint64, batch []byte, want vectors.Want) {
		c.add(name, vectors.Vector{
			Comment: comment, Leases: []vectors.Lease{lease}, Roots: []vectors.Root{protocolRoot()}, Op: vectors.OpSeal,
			Topic: topic, Partition: partition, Now: at, Batch: batch, Want: want,
		})
	}
	done := func(batch []byte, leaf uint32) vectors.Want {
		return vectors.Want{Kid: s.Kid[:], Leaf: leaf, Records: binary.BigEndian.Uint32(batch[57:])}
	}
	for codec := kafka.CodecNone; codec <= kafka.CodecZstd; codec++ {
		b := client(codec, 5)
		seal("seal-"+codec.String(), "A client's batch in each codec.", leaseOf(0, 0), now, b, done(b, 0))
	}
	for _, count := range []int{1, 64, 65, 66, 300} {
		b := client(kafka.CodecNone, count)
		seal(fmt.Sprintf("seal-records-%d", count), "Stubs of one and of two bytes of offset delta.", leaseOf(0, 0), now, b, done(b, 0))
	}
	one := client(kafka.CodecNone, 1)
	for _, l := range []vectors.Lease{leaseOf(2, 24), leaseOf(0x800000, 1), leaseOf(0xfffff0, 20), leaseOf(0xffffff, 24)} {
		seal(fmt.Sprintf("seal-lease-%06x", l.Start), "The first leaf of a subtree.", l, now, one, done(one, l.Start))
	}
	old := with(one, func(h *kafka.BatchHeader) { h.BaseTimestamp, h.MaxTimestamp = now, now-5 })
	seal("seal-max-before-base", "A client whose maxTimestamp is before its baseTimestamp.", leaseOf(0, 0), now, old, done(old, 0))
	seal("seal-after-use-by", "Nothing is sealed after useBy.", leaseOf(0, 0), now+1, one, vectors.Want{Status: abi.StatusNeedLease})
	other := leaseOf(0, 0)
	other.Topic = "orders2"
	seal("seal-no-lease", "A lease of another topic is none.", other, now, one, vectors.Want{Status: abi.StatusNeedLease})

	refused := func(name, comment string, batch []byte, status abi.Status) {
		seal("seal-"+name, comment, leaseOf(0, 0), now, batch, vectors.Want{Status: status})
	}
	three := client(kafka.CodecNone, 3)
	edit := func(fn func(h *kafka.BatchHeader)) []byte { return with(three, fn) }
	raw := func(fn func(b []byte)) []byte { b := bytes.Clone(three); fn(b); return b }
	refused("crc-wrong", "The CRC-32C does not match.", raw(func(b []byte) { b[80] ^= 1 }), abi.StatusCorrupt)
	refused("magic-1", "A message set older than v2.", raw(func(b []byte) { b[16] = 1 }), abi.StatusUnsupportedMagic)
	refused("codec-6", "A codec that Kafka does not define.", edit(func(h *kafka.BatchHeader) { h.Attributes = 6 }), abi.StatusUnsupportedCodec)
	refused("control", "A client may not produce a control batch.", marker(1), abi.StatusMalformed)
	refused("empty", "A batch without records.", reference.Join(kafka.BatchHeader{LastOffsetDelta: -1}, nil), abi.StatusMalformed)
	refused("count-larger", "More records in the header than in the section.", edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 4, 3 }), abi.StatusMalformed)
	refused("count-smaller", "Fewer records in the header than in the section.", edit(func(h *kafka.BatchHeader) { h.NumRecords, h.LastOffsetDelta = 2, 1 }), abi.StatusMalformed)
	refused("last-offset", "lastOffsetDelta is not the count less one.", edit(func(h *kafka.BatchHeader) { h.LastOffsetDelta = 3 }), abi.StatusMalformed)
	refused("two-batches", "Two batches in one call.", append(bytes.Clone(three), three...), abi.StatusMalformed)
	refused("cut", "A batch cut short.", three[:len(three)-1], abi.StatusMalformed)
	refused("nothing", "No bytes at all.", nil, abi.StatusMalformed)
	refused("too-many-records", "More records than a batch may have.", with(client(kafka.CodecZstd, 3), func(h *kafka.BatchHeader) {
		h.NumRecords, h.LastOffsetDelta = 1<<20+1, 1<<20
	}), abi.StatusTooLarge)
}
