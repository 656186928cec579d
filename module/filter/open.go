package filter

import (
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
)

// OpenBatch opens the one record batch in buf[:n], which a broker served for a topic and
// partition, in place, and returns its new length. It may grow up to len(buf), where the
// broker compressed it. With any status but abi.StatusOK buf is as it was.
//
// A batch that is cut short at the end of a response passes as its header alone: clients
// read it again, and those that read record by record as bytes arrive find none.
func (f *Filter) OpenBatch(buf []byte, n int, topic []byte, partition int32) (abi.Result, abi.Status) {
	if s := f.admit(buf, n, topic, partition); s != abi.StatusOK {
		return f.finish(n, abi.Result{}, s)
	}
	if reserved(topic) || f.plain(topic) {
		return f.pass(n)
	}
	r, s := f.open(buf, n, topic, partition)
	return f.finish(n, r, s)
}

func (f *Filter) open(buf []byte, n int, topic []byte, partition int32) (abi.Result, abi.Status) {
	if _, err := kafka.BatchSize(buf[:n]); err == kafka.ErrCut {
		return f.passCut(buf[:n])
	}
	h, s := parseBatch(buf[:n])
	if s != abi.StatusOK {
		return abi.Result{}, s
	}
	r, s := f.openBatch(&h, buf, n, topic, partition)
	f.inflate.shrink()
	if s != abi.StatusOK || r.Flags&abi.FlagUntouched != 0 {
		if s = f.firstCRC(&h, buf[:n], s); s == abi.StatusOK {
			return f.pass(n)
		}
	}
	return r, s
}

// openBatch opens a batch whose CRC has not been looked at: that is a step of the program that
// opens it. With any other status than abi.StatusOK buf is as it was, and so it is where the
// result says abi.FlagUntouched.
func (f *Filter) openBatch(h *kafka.BatchHeader, buf []byte, n int, topic []byte, partition int32) (abi.Result, abi.Status) {
	if !h.Codec().Valid() {
		return abi.Result{}, abi.StatusUnsupportedCodec
	}
	section := buf[kafka.BatchHeaderSize:n]
	if h.NumRecords == 0 && len(section) == 0 || isMarker(h, section) {
		return abi.Result{Flags: abi.FlagUntouched}, abi.StatusOK
	}
	if h.IsControl() || h.NumRecords <= 0 {
		return abi.Result{}, abi.StatusMalformed
	}
	var framed, inflated bool
	if h.Codec() == kafka.CodecLZ4 {
		section, framed = f.unframe(section, h.NumRecords)
	}
	if h.Codec() != kafka.CodecNone && !framed {
		var s abi.Status
		if section, s = f.inflate.all(h.Codec(), section, plausible(len(section), h.NumRecords)); s != abi.StatusOK {
			return abi.Result{}, s
		}
		inflated = true
	}
	value, s := f.findValue(h, section, framed)
	if s != abi.StatusOK {
		return abi.Result{}, s
	}
	sealed, err := wire.ParsePackedHeader(value)
	if err != nil || int64(sealed.NumRecords) != int64(h.NumRecords) {
		return abi.Result{}, abi.StatusUnauthentic
	}
	key, ok := f.roots[sealed.Kid]
	if !ok {
		return abi.Result{Kid: sealed.Kid}, abi.StatusNeedRoot
	}
	if key.topic != string(topic) {
		return abi.Result{}, abi.StatusUnauthentic
	}
	records := len(value) - wire.PackedOverhead
	size := kafka.BatchHeaderSize + records
	if size > len(buf) {
		return abi.Result{Length: uint32(size)}, abi.StatusNeedSpace
	}
	if !f.seek(sealed.Kid, key, sealed.Leaf) {
		return abi.Result{}, abi.StatusInternal
	}
	h.BatchLength = int32(size - kafka.BatchLengthEnd)
	place := f.place(topic, partition)
	restored := *h
	restored.Attributes = h.Attributes&^kafka.AttrCodec | int16(place.codec)
	restored.Put(f.header[:])
	f.program.Check(nil, kafka.UnderCRC(buf[:n]), h.CRC)
	preamble, s := f.openValue(value, &sealed, place)
	clear(f.leaf[:])
	if s != abi.StatusOK {
		return abi.Result{}, s
	}
	copy(buf[kafka.BatchHeaderSize:], value[wire.PackedHeaderSize+wire.PackedPreambleSize:][:records])
	if inflated {
		clear(value)
	}
	h.Attributes = h.Attributes&^kafka.AttrCodec | int16(preamble.Codec)
	h.BaseTimestamp = preamble.BaseTimestamp
	if !h.LogAppendTime() {
		h.MaxTimestamp = preamble.MaxTimestamp
	}
	h.Put(buf)
	*kafka.CRCField(buf) = f.sum
	if *h != restored {
		place.codec = preamble.Codec
		f.program.Sum(nil, kafka.UnderCRC(buf[:size]), kafka.CRCField(buf))
		f.program.Run()
	}

	f.counters[abi.CounterOpenedBatches]++
	f.counters[abi.CounterOpenedRecords] += uint64(h.NumRecords)
	f.counters[abi.CounterOpenedBytes] += uint64(size)
	return abi.Result{
		Length: uint32(size), Kid: sealed.Kid, Leaf: sealed.Leaf, Records: sealed.NumRecords,
	}, abi.StatusOK
}

// openValue decrypts a sealed value in place under f.leaf, as the program's last step but one: a
// batch's CRC is nearly always that of the header which was expected, so that it is computed in the
// same go. Where it fails, the value is as it was.
func (f *Filter) openValue(value []byte, h *wire.PackedHeader, at *place) (wire.Preamble, abi.Status) {
	header := (*[wire.PackedHeaderSize]byte)(value)
	f.aad = wire.PackedAAD(header, &at.pctx)
	f.nonce = h.Nonce()
	key := (*[kernel.KeySize]byte)(&f.leaf)
	ciphertext := value[wire.PackedHeaderSize:]
	f.program.Open(ciphertext, key, &f.nonce, f.aad[:])
	f.program.Sum(kafka.UnderCRC(f.header[:]), ciphertext[wire.PackedPreambleSize:len(ciphertext)-wire.TagSize], &f.sum)
	if f.program.Run() != 3 {
		return wire.Preamble{}, abi.StatusUnauthentic
	}
	preamble, err := wire.ParsePreamble(ciphertext)
	if err != nil {
		// Whoever sealed it meant no batch. Sealing the same bytes again restores them.
		f.program.Seal(ciphertext, key, &f.nonce, f.aad[:])
		f.program.Run()
		return wire.Preamble{}, abi.StatusMalformed
	}
	return preamble, abi.StatusOK
}

// findValue returns the sealed value of a packed batch with header h and an uncompressed
// record section, which must hold exactly what sealing makes, timestamps aside
// (PROTOCOL.md §2.4). Where it was unframed that is record 0, and the rest is known to be as sealing
// makes it. A batch without any sealed value is abi.StatusPlaintext.
func (f *Filter) findValue(h *kafka.BatchHeader, section []byte, unframed bool) ([]byte, abi.Status) {
	if !unframed && int64(h.NumRecords) > int64(len(section)/kafka.MinRecordSize) {
		return nil, abi.StatusMalformed
	}
	if h.NumRecords > MaxRecords {
		return nil, abi.StatusTooLarge
	}
	var value []byte
	var r kafka.Record
	var err error
	inPlace, sealed := true, false
	for i := range h.NumRecords {
		if section, err = kafka.NextRecord(section, &r); err != nil {
			return nil, abi.StatusMalformed
		}
		sealed = sealed || looksSealed(r.Value)
		inPlace = inPlace && r.Attributes == 0 && r.OffsetDelta == i && r.Key == nil && r.NumHeaders == 0
		if i == 0 {
			value = r.Value
			inPlace = inPlace && looksSealed(value)
			if unframed {
				break
			}
			if f.areStubs(section, h.NumRecords) {
				section = nil
				break
			}
		} else {
			inPlace = inPlace && r.Value != nil && len(r.Value) == 0
		}
	}
	if len(section) != 0 {
		return nil, abi.StatusMalformed
	}
	if !sealed {
		return nil, abi.StatusPlaintext
	}
	known := kafka.AttrCodec | kafka.AttrLogAppendTime | kafka.AttrTransactional
	if !inPlace || h.LastOffsetDelta != h.NumRecords-1 || h.Attributes&^known != 0 {
		return nil, abi.StatusUnauthentic
	}
	return value, abi.StatusOK
}

// looksSealed reports whether a record's value is one that sealing made, or one made of it.
// It tells an alarm about plaintext from one about tampering, and decides nothing else.
func looksSealed(value []byte) bool { return len(value) > 0 && value[0] == wire.PackedMagic }
