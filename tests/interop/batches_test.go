package interop

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
	"github.com/wasm-e2ee/wasm-e2ee/tests/reference"
)

// oddBatch is a packed batch that is right, or that a hostile broker or a faulty producer
// with the key made: something is odd in the records, the batch, the value or its plaintext.
func (x *exchange) oddBatch(s reference.Seal) []byte {
	x.Helper()
	client := x.batch()
	h, err := kafka.ParseBatchHeader(client)
	x.must(err)
	spoiled := func(odds int) bool { return x.IntN(odds) == 0 }
	if spoiled(12) { // the codec goes into the plaintext as it is
		h.Attributes = h.Attributes&^7 | int16(x.IntN(8))
		client = reference.Join(h, client[kafka.BatchHeaderSize:])
	}
	if spoiled(12) {
		s.Root[0]++
	}
	value, err := s.Value(client)
	x.must(err)
	if spoiled(12) {
		value[x.IntN(27)] ^= 1 << x.IntN(8)
	}
	if spoiled(15) {
		value = value[:x.IntN(len(value))]
	}
	records, err := reference.Records(client, value)
	x.must(err)
	r := &records[x.IntN(len(records))]
	switch x.IntN(24) {
	case 0:
		r.Key = []byte{}
	case 1:
		r.Attributes = int8(x.Uint32())
	case 2:
		r.TimestampDelta = int64(x.Uint64())
	case 3:
		r.OffsetDelta += int32(x.IntN(3)) - 1
	case 4:
		r.Value = nil
	case 5:
		r.Value = []byte{wire.PackedMagic}
	case 6:
		r.NumHeaders, r.Headers = 1, []byte{2, 'h', 1}
	case 7:
		records = records[:len(records)-1]
	case 8:
		records = append(records, kafka.Record{OffsetDelta: int32(len(records)), Value: []byte{}})
	}
	h.Attributes &^= kafka.AttrCodec
	if spoiled(8) {
		h.Attributes |= []int16{8, 16, 32, 64, 128, 1 << 14, math.MinInt16}[x.IntN(7)]
	}
	if spoiled(15) {
		h.NumRecords += int32(x.IntN(4)) - 1
	}
	if spoiled(15) {
		h.LastOffsetDelta += int32(x.IntN(4)) - 1
	}
	h.BaseOffset, h.PartitionLeaderEpoch = x.Int64(), int32(x.Uint32())
	return reference.Join(h, reference.Section(records...))
}

// oddMarker is a control batch that is a transaction marker, or nearly.
func (x *exchange) oddMarker() []byte {
	r := kafka.Record{Key: []byte{byte(x.IntN(2)), byte(x.IntN(2)), 0, byte(x.IntN(3))}, Value: x.bytes(6)}
	switch x.IntN(10) {
	case 0:
		r.Value = nil
	case 1:
		r.Value = x.bytes(15 + x.IntN(3))
	case 2:
		r.Key = r.Key[:x.IntN(4)]
	case 3:
		r.Key = nil
	case 4:
		r.NumHeaders, r.Headers = 1, []byte{2, 'h', 1}
	}
	h := kafka.BatchHeader{NumRecords: 1, Attributes: int16(kafka.AttrControl | kafka.AttrTransactional), ProducerID: 7}
	if x.IntN(20) == 0 {
		h.Attributes &^= kafka.AttrControl
	}
	return reference.Join(h, reference.Section(r))
}

// TestOddBatchesAreJudgedAlike opens each with both: the same batch, or the same status.
func TestOddBatchesAreJudgedAlike(t *testing.T) {
	x := newExchange(t)
	accepted := 0
	statuses := map[abi.Status]int{}
	for range odd {
		s := reference.Seal{
			Kid: abi.Kid(x.bytes(8)), Root: [abi.KeySize]byte(x.bytes(abi.KeySize)), Leaf: x.Uint32N(1 << 24),
			Salt: [wire.SaltSize]byte(x.bytes(wire.SaltSize)), Topic: "orders", Partition: x.Int32N(9),
		}
		b := x.oddBatch(s)
		if x.IntN(8) == 0 {
			b = x.oddMarker()
		}
		topic := s.Topic
		if x.IntN(30) == 0 {
			topic += "2"
		}
		f := newFilter(x)
		if status := f.InstallRoot(&abi.Root{Kid: s.Kid, Root: s.Root, Topic: s.Topic}); status != abi.StatusOK {
			t.Fatal(status)
		}
		buf := make([]byte, 2*len(b)+100_000)
		r, status := f.OpenBatch(buf, copy(buf, b), []byte(topic), s.Partition)
		var opened octets
		refused := x.ask("open_batch", object{
			"batch": octets(b), "topic": octets(topic), "partition": s.Partition, "cap": 1 << 20,
			"roots": []object{{"kid": octets(s.Kid[:]), "root": octets(s.Root[:]), "topic": octets(s.Topic)}},
		}, &opened)
		if kind, known := kinds[refused]; !known || kind != status {
			t.Errorf("the peer says %q, we say %v, of\n%x", refused, status, b)
		} else if status == abi.StatusOK && !bytes.Equal(opened, buf[:r.Length]) {
			t.Errorf("the peer opens\n%x\nto\n%x\nwe to\n%x", b, []byte(opened), buf[:r.Length])
		}
		if statuses[status]++; status == abi.StatusOK {
			accepted++
		}
	}
	x.Log(statuses)
	x.both(accepted)
}

// TestRecordFormatIsReadBothWays seals records on their own with either and opens them with
// the other.
func TestRecordFormatIsReadBothWays(t *testing.T) {
	x := newExchange(t)
	for range 100 {
		h := wire.RecordHeader{Kid: abi.Kid(x.bytes(8)), Leaf: x.Uint32N(1 << 24), Ord: uint16(x.Uint32N(65_535)), Salt: [wire.SaltSize]byte(x.bytes(wire.SaltSize))}
		root := [abi.KeySize]byte(x.bytes(abi.KeySize))
		topic, partition := x.topics()[0], x.Int32N(100)
		var key, value, canonical []byte
		var keyArg, valueArg any
		if x.IntN(4) > 0 {
			key = x.bytes(x.IntN(20))
			keyArg = octets(key)
		}
		if x.IntN(4) > 0 {
			value = x.bytes(x.IntN(100))
			valueArg = octets(value)
		}
		headers := []any{}
		for range x.IntN(4) {
			name, v := x.bytes(x.IntN(10)), []byte(nil)
			var arg any
			if x.IntN(3) > 0 {
				v = x.bytes(x.IntN(10))
				arg = octets(v)
			}
			headers = append(headers, []any{name, arg})
			canonical = wire.AppendCanonicalHeader(canonical, name, v)
		}
		headers = slices.Insert(headers, x.IntN(len(headers)+1), any([]any{octets("_e2ee"), octets("left out")}))

		// Ours.
		pctx := wire.Pctx([]byte(topic), partition)
		header := [wire.RecordHeaderSize]byte(h.Append(nil))
		aad := wire.AppendRecordAAD(nil, &header, &pctx, key, canonical)
		leaf, nonce := reference.Node(root, h.Leaf, abi.TreeDepth), h.Nonce()
		body := append(bytes.Clone(value), make([]byte, kernel.TagSize)...)
		kernel.Seal(body, &leaf, &nonce, aad)
		sealed := append(header[:], body...)

		// The peer's is the same, and it opens ours.
		place := object{"topic": octets(topic), "partition": partition, "key": keyArg, "headers": headers}
		args := object{"root": octets(root[:]), "kid": octets(h.Kid[:]), "leaf": h.Leaf, "ordinal": h.Ord, "salt": octets(h.Salt[:]), "value": valueArg}
		for k, v := range place {
			args[k] = v
		}
		var made []octets
		x.peer.must("seal_record", args, &made)
		theirs := made[0]
		if value == nil {
			theirs = made[1] // in the header _e2ee
		}
		if !bytes.Equal(theirs, sealed) {
			t.Fatalf("the peer seals\n%x\nwe seal\n%x", []byte(theirs), sealed)
		}
		place["sealed"] = octets(sealed)
		place["roots"] = []object{{"kid": octets(h.Kid[:]), "root": octets(root[:]), "topic": octets(topic)}}
		var opened octets
		x.peer.must("open_record", place, &opened)
		if !bytes.Equal(opened, value) {
			t.Fatalf("the peer opens to %x, want %x", []byte(opened), value)
		}
		sealed[x.IntN(len(sealed))] ^= 1 << x.IntN(8)
		if refused := x.ask("open_record", place, nil); refused != "unauthentic" && refused != "unknown kid" {
			t.Fatalf("a flipped bit: %q", refused)
		}
	}
}
