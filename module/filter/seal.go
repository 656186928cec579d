package filter

import (
	"encoding/binary"
	"io"
	"math"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
)

// SealBatch seals the one record batch in buf[:n], which a client produced to a topic and
// partition at time now (Unix ms), in place, and returns its new length. It may grow up to
// len(buf). A leaf is used up with abi.StatusOK only; with any other status buf is as it
// was.
func (f *Filter) SealBatch(buf []byte, n int, topic []byte, partition int32, now uint64) (abi.Result, abi.Status) {
	if n < 0 || n > len(buf) {
		return f.finish(n, abi.Result{}, abi.StatusBadArgument)
	}
	return f.SealTo(buf, buf[:n], topic, partition, now)
}

// SealTo is SealBatch from one place to another: batch begins where dst does, or shares none of
// its memory and stays as it is. Where the result says abi.FlagUntouched dst means nothing.
func (f *Filter) SealTo(dst, batch []byte, topic []byte, partition int32, now uint64) (abi.Result, abi.Status) {
	n := len(batch)
	if s := f.admit(batch, n, topic, partition); s != abi.StatusOK {
		return f.finish(n, abi.Result{}, s)
	}
	if reserved(topic) {
		return f.finish(n, abi.Result{}, abi.StatusForbidden)
	}
	if f.plain(topic) {
		return f.pass(n)
	}
	r, s := f.seal(dst, batch, topic, partition, now)
	return f.finish(n, r, s)
}

func (f *Filter) seal(dst, batch []byte, topic []byte, partition int32, now uint64) (abi.Result, abi.Status) {
	h, s := parseBatch(batch)
	if s != abi.StatusOK {
		return abi.Result{}, s
	}
	r, s := f.sealBatch(&h, dst, batch, topic, partition, now)
	if s != abi.StatusOK {
		s = f.firstCRC(&h, batch, s)
	}
	return r, s
}

// sealBatch seals a batch whose CRC has not been looked at: that is a step of the program that
// seals it. With any other status than abi.StatusOK batch is as it was.
func (f *Filter) sealBatch(h *kafka.BatchHeader, dst, batch []byte, topic []byte, partition int32, now uint64) (abi.Result, abi.Status) {
	n, records := len(batch), batch[kafka.BatchHeaderSize:]
	if s := checkProduced(h, records); s != abi.StatusOK {
		return abi.Result{}, s
	}
	out, ok := f.plan(h, len(records))
	if !ok {
		return abi.Result{}, abi.StatusTooLarge
	}
	if out.size > len(dst) {
		return abi.Result{Length: uint32(out.size)}, abi.StatusNeedSpace
	}
	if _, err := io.ReadFull(f.random, f.salt[:]); err != nil {
		return abi.Result{}, abi.StatusInternal
	}
	l, leaf, ok := f.take(topic, now)
	if !ok {
		return abi.Result{}, abi.StatusNeedLease
	}
	value := wire.PackedHeader{Kid: l.kid, Leaf: leaf, NumRecords: uint32(h.NumRecords), Salt: f.salt}
	preamble := wire.Preamble{Codec: uint8(h.Codec()), BaseTimestamp: h.BaseTimestamp, MaxTimestamp: h.MaxTimestamp}

	// The record section goes to its place inside the value; everything else is written around
	// it.
	b := dst[:out.size]
	copy(f.header[:], batch)
	section := b[out.section:][:len(records)]
	copy(section, records)
	out.putRecord(b)
	header := (*[wire.PackedHeaderSize]byte)(value.Append(b[out.value:out.value]))
	preamble.Append(b[out.value+wire.PackedHeaderSize : out.value+wire.PackedHeaderSize])
	f.nonce = value.Nonce()
	f.aad = wire.PackedAAD(header, &f.place(topic, partition).pctx)
	outer := *h
	outer.BatchLength = int32(out.size - kafka.BatchLengthEnd)
	outer.Attributes &^= kafka.AttrCodec
	if out.framed {
		outer.Attributes |= int16(kafka.CodecLZ4)
	}
	outer.Put(b)

	f.program.Check(kafka.UnderCRC(f.header[:]), section, h.CRC)
	f.program.Seal(b[out.value+wire.PackedHeaderSize:out.end], (*[kernel.KeySize]byte)(&f.leaf), &f.nonce, f.aad[:])
	apart := out.apart()
	if !apart {
		out.putStubs(b, h.NumRecords, f.stubBlocks(h.NumRecords))
		f.program.Sum(nil, kafka.UnderCRC(b), kafka.CRCField(b))
	}
	corrupt := f.program.Run() == 0
	if corrupt {
		l.stack.Return(leaf, &f.leaf) // nothing was sealed under it
	}
	clear(f.leaf[:])
	if corrupt {
		copy(records, section) // which overlap where batch begins where dst does
		copy(batch, f.header[:])
		return abi.Result{}, abi.StatusCorrupt
	}
	if apart {
		out.putStubs(b, h.NumRecords, f.stubBlocks(h.NumRecords))
		f.program.Sum(nil, kafka.UnderCRC(b), kafka.CRCField(b))
		f.program.Run()
	}

	f.counters[abi.CounterSealedBatches]++
	f.counters[abi.CounterSealedRecords] += uint64(h.NumRecords)
	f.counters[abi.CounterSealedBytes] += uint64(n)
	return abi.Result{Length: uint32(out.size), Kid: l.kid, Leaf: leaf, Records: uint32(h.NumRecords)}, abi.StatusOK
}

// checkProduced refuses a batch with header h and record section that a broker would refuse,
// as far as that can be told without decompressing it: once sealed, no broker can.
func checkProduced(h *kafka.BatchHeader, section []byte) abi.Status {
	if !h.Codec().Valid() {
		return abi.StatusUnsupportedCodec
	}
	if h.IsControl() || h.NumRecords < 1 || h.LastOffsetDelta != h.NumRecords-1 {
		return abi.StatusMalformed
	}
	if h.NumRecords > MaxRecords {
		return abi.StatusTooLarge
	}
	if h.Attributes&^(kafka.AttrCodec|kafka.AttrTransactional|kafka.AttrLogAppendTime) != 0 {
		return abi.StatusMalformed
	}
	if h.Codec() != kafka.CodecNone {
		if len(section) == 0 {
			return abi.StatusMalformed
		}
		return abi.StatusOK
	}
	if !kafka.RecordsInOrder(section, h.NumRecords) {
		return abi.StatusMalformed
	}
	return abi.StatusOK
}

// parseBatch reads the header of the one batch that fills b and checks its magic and length.
func parseBatch(b []byte) (kafka.BatchHeader, abi.Status) {
	h, err := kafka.ParseBatchHeader(b)
	if err == abi.StatusUnsupportedMagic {
		return h, abi.StatusUnsupportedMagic
	}
	size, sizeErr := kafka.BatchSize(b)
	if err != nil || sizeErr != nil || size != len(b) {
		return h, abi.StatusMalformed
	}
	return h, abi.StatusOK
}

// firstCRC returns what is told of a batch that is b, of which something else said s: where
// its CRC is wrong that alone, since nothing else of it means anything.
func (f *Filter) firstCRC(h *kafka.BatchHeader, b []byte, s abi.Status) abi.Status {
	f.program.Check(nil, kafka.UnderCRC(b), h.CRC)
	if f.program.Run() == 0 {
		return abi.StatusCorrupt
	}
	return s
}

// A packed is where the parts of a packed batch lie (PROTOCOL.md §2.4): offsets in bytes
// from the batch's start.
type packed struct {
	framed  bool  // the record section is an LZ4 frame
	delta   int64 // record 0's timestampDelta
	body    int64 // record 0's length
	start   int   // where record 0 starts,
	value   int   // where its value starts,
	section int   // where in it the client's record section starts,
	end     int   // and where the value ends; one more byte ends the record
	size    int   // of the whole batch
}

// plan lays out the packed batch for a client's batch with header h and a record section of
// n bytes. It returns false where that would exceed what a batch can be.
func (f *Filter) plan(h *kafka.BatchHeader, n int) (packed, bool) {
	var p packed
	value := wire.PackedOverhead + n
	p.delta = h.MaxTimestamp - h.BaseTimestamp
	r := kafka.Record{TimestampDelta: p.delta}
	p.body = int64(r.BodySize()) + int64(kafka.VarintSize(int64(value))) - 1 + int64(value)
	record := kafka.VarintSize(p.body) + int(p.body)
	p.size = kafka.BatchHeaderSize + record + stubsSize(h.NumRecords)
	p.start = kafka.BatchHeaderSize

	blocks := (record + lz4BlockSize - 1) / lz4BlockSize
	framed := kafka.BatchHeaderSize + len(lz4FrameHeader) + lz4BlockPrefix*blocks + record + len(f.stubBlocks(h.NumRecords)) + lz4BlockPrefix
	if framed < p.size && p.size <= f.inflate.max {
		p.framed = true
		p.size = framed
		p.start += len(lz4FrameHeader) + lz4BlockPrefix
	}
	p.end = p.start + record - 1
	p.value = p.end - value
	p.section = p.value + wire.PackedHeaderSize + wire.PackedPreambleSize
	return p, p.size <= math.MaxInt32
}

// apart reports whether the frame keeps the sealed value in more than one block, which it is
// taken apart into once it is sealed.
func (p *packed) apart() bool { return p.framed && p.end+1-p.start > lz4BlockSize }

// putRecord writes record 0 around its value.
func (p *packed) putRecord(b []byte) {
	frame := kafka.AppendVarint(b[p.start:p.start], p.body)
	frame = append(frame, 0) // attributes
	frame = kafka.AppendVarint(frame, p.delta)
	frame = append(frame, 0, 1) // offsetDelta 0, null key
	kafka.AppendVarint(frame, int64(p.end-p.value))
	b[p.end] = 0 // no headers
}

// putStubs writes what follows record 0, and in a frame what stands between its blocks.
func (p *packed) putStubs(b []byte, records int32, compressed []byte) {
	if !p.framed {
		rest := b[p.end+1 : p.end+1]
		for i := int32(1); i < records; i++ {
			rest = appendStub(rest, i)
		}
		return
	}
	record := p.end + 1 - p.start
	last := (record - 1) / lz4BlockSize
	for i := last; i >= 0; i-- {
		// Each block moves up to make room for its own size and those before it.
		size := min(record-i*lz4BlockSize, lz4BlockSize)
		from := p.start + i*lz4BlockSize
		to := from + i*lz4BlockPrefix
		copy(b[to:to+size], b[from:from+size])
		binary.LittleEndian.PutUint32(b[to-lz4BlockPrefix:], uint32(size)|lz4Uncompressed)
	}
	copy(b[kafka.BatchHeaderSize:], lz4FrameHeader)
	end := p.size - lz4BlockPrefix
	copy(b[end-len(compressed):], compressed)
	clear(b[end:p.size])
}
