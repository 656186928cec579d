package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"pgregory.net/rapid"
)

// oracleBatch is a batch as kmsg encodes it, with its length and CRC set.
func oracleBatch(b kmsg.RecordBatch) []byte {
	raw := b.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	crc := crc32.Checksum(raw[21:], crc32.MakeTable(crc32.Castagnoli))
	binary.BigEndian.PutUint32(raw[17:], crc)
	return raw
}

func drawBatch(t *rapid.T) kmsg.RecordBatch {
	i64 := rapid.Int64()
	i32 := rapid.Int32()
	return kmsg.RecordBatch{
		FirstOffset:          i64.Draw(t, "baseOffset"),
		PartitionLeaderEpoch: i32.Draw(t, "leaderEpoch"),
		Magic:                2,
		Attributes:           rapid.Int16().Draw(t, "attributes"),
		LastOffsetDelta:      i32.Draw(t, "lastOffsetDelta"),
		FirstTimestamp:       i64.Draw(t, "baseTimestamp"),
		MaxTimestamp:         i64.Draw(t, "maxTimestamp"),
		ProducerID:           i64.Draw(t, "producerId"),
		ProducerEpoch:        rapid.Int16().Draw(t, "producerEpoch"),
		FirstSequence:        i32.Draw(t, "baseSequence"),
		NumRecords:           i32.Draw(t, "records"),
		Records:              rapid.SliceOf(rapid.Byte()).Draw(t, "section"),
	}
}

func TestBatchHeaderReadsAndWritesAsKmsgDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawBatch(t)
		raw := oracleBatch(want)
		h, err := ParseBatchHeader(raw)
		if err != nil {
			t.Fatal(err)
		}
		got := kmsg.RecordBatch{
			FirstOffset: h.BaseOffset, Length: h.BatchLength, PartitionLeaderEpoch: h.PartitionLeaderEpoch,
			Magic: h.Magic, CRC: int32(h.CRC), Attributes: h.Attributes, LastOffsetDelta: h.LastOffsetDelta,
			FirstTimestamp: h.BaseTimestamp, MaxTimestamp: h.MaxTimestamp, ProducerID: h.ProducerID,
			ProducerEpoch: h.ProducerEpoch, FirstSequence: h.BaseSequence, NumRecords: h.NumRecords,
			Records: raw[BatchHeaderSize:],
		}
		if !bytes.Equal(got.AppendTo(nil), raw) {
			t.Fatalf("kmsg writes the parsed fields as %x, want %x", got.AppendTo(nil), raw)
		}
		again := bytes.Clone(raw)
		clear(again[:BatchHeaderSize])
		h.Put(again)
		if !bytes.Equal(again, raw) {
			t.Fatalf("Put wrote %x, want %x", again, raw)
		}
		if BatchCRC(raw) != h.CRC {
			t.Fatalf("CRC %08x, want %08x", BatchCRC(raw), h.CRC)
		}
		clear(again[17:21])
		SetBatchCRC(again)
		if !bytes.Equal(again, raw) {
			t.Fatal("SetBatchCRC wrote another CRC")
		}
		if n, err := BatchSize(append(raw, 1, 2, 3)); n != len(raw) || err != nil {
			t.Fatalf("BatchSize = %d, %v, want %d", n, err, len(raw))
		}
	})
}

func TestBatchSizeRefusesLengthsThatCannotBe(t *testing.T) {
	batch := oracleBatch(kmsg.RecordBatch{Magic: 2, Records: []byte("section")})
	for n := range len(batch) {
		if _, err := BatchSize(batch[:n]); !errors.Is(err, ErrCut) {
			t.Errorf("%d of %d bytes: %v, want ErrCut", n, len(batch), err)
		}
		if n >= BatchHeaderSize {
			continue
		}
		if _, err := ParseBatchHeader(batch[:n]); !errors.Is(err, ErrCut) {
			t.Errorf("header in %d bytes: %v, want ErrCut", n, err)
		}
	}
	tests := []struct {
		magic  byte
		length int32
		want   error
	}{
		{2, -1, abi.StatusMalformed},
		{2, -1 << 31, abi.StatusMalformed},
		{2, 0, abi.StatusMalformed},
		{2, 48, abi.StatusMalformed},
		{2, 49, nil},
		{2, 1<<31 - 1, ErrCut},
		{0, 13, abi.StatusMalformed},
		{1, 14, nil},
	}
	for _, tt := range tests {
		b := bytes.Clone(batch)
		b[16] = tt.magic
		binary.BigEndian.PutUint32(b[8:], uint32(tt.length))
		if _, err := BatchSize(b); !errors.Is(err, tt.want) {
			t.Errorf("magic %d, length %d: %v, want %v", tt.magic, tt.length, err, tt.want)
		}
	}
	batch[16] = 1
	if _, err := ParseBatchHeader(batch); !errors.Is(err, abi.StatusUnsupportedMagic) {
		t.Errorf("magic 1: %v, want %v", err, abi.StatusUnsupportedMagic)
	}
}

func TestBaseOffsetOfWhatIsTooShortIsNone(t *testing.T) {
	b := []byte{0, 0, 0, 0, 0, 0, 1, 2, 9}
	if got := BaseOffset(b); got != 258 {
		t.Errorf("offset %d, want 258", got)
	}
	if got := BaseOffset(b[:7]); got != -1 {
		t.Errorf("offset %d, want -1", got)
	}
}

func TestCRC32CKnownAnswer(t *testing.T) {
	if got := CRC32C([]byte("123456789")); got != 0xe3069283 {
		t.Errorf("CRC-32C of 123456789 = %08x, want e3069283", got)
	}
}

func TestAttributesNameTheirBits(t *testing.T) {
	h := BatchHeader{Attributes: 0x2c}
	if h.Codec() != CodecZstd || !h.IsControl() || h.IsTransactional() || !h.LogAppendTime() {
		t.Errorf("attributes 2c read as codec %v, control %v, transactional %v, append time %v",
			h.Codec(), h.IsControl(), h.IsTransactional(), h.LogAppendTime())
	}
	if Codec(5).Valid() || !CodecZstd.Valid() {
		t.Error("codec 5 is valid, or zstd is not")
	}
}

func TestVarintsAreThoseOfKbin(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64().Draw(t, "v")
		enc := AppendVarint(nil, v)
		if want := kbin.AppendVarlong(nil, v); !bytes.Equal(enc, want) {
			t.Fatalf("%d: %x, want %x", v, enc, want)
		}
		if len(enc) != VarintSize(v) {
			t.Fatalf("VarintSize(%d) = %d, want %d", v, VarintSize(v), len(enc))
		}
		got, n := ReadVarint(append(enc, 0xff))
		if got != v || n != len(enc) {
			t.Fatalf("ReadVarint(%x) = %d, %d, want %d", enc, got, n, v)
		}
	})
}

func TestVarintsHaveOneEncoding(t *testing.T) {
	for _, b := range [][]byte{
		{},
		{0x80},
		{0x80, 0x00}, // 0 in two bytes
		{0xff, 0x80, 0x00},
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02}, // 65 bits
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x80, 0x01},
	} {
		if v, n := ReadVarint(b); n != 0 {
			t.Errorf("ReadVarint(%x) = %d in %d bytes, want a refusal", b, v, n)
		}
	}
}

func drawRecord(t *rapid.T) (kmsg.Record, Record) {
	nullable := rapid.OneOf(rapid.Just[[]byte](nil), rapid.SliceOf(rapid.Byte()))
	k := kmsg.Record{
		Attributes:       rapid.Int8().Draw(t, "attributes"),
		TimestampDelta64: rapid.Int64().Draw(t, "timestampDelta"),
		OffsetDelta:      rapid.Int32().Draw(t, "offsetDelta"),
		Key:              nullable.Draw(t, "key"),
		Value:            nullable.Draw(t, "value"),
	}
	r := Record{
		Attributes: k.Attributes, TimestampDelta: k.TimestampDelta64, OffsetDelta: k.OffsetDelta,
		Key: k.Key, Value: k.Value,
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		h := kmsg.Header{Key: rapid.String().Draw(t, "name"), Value: nullable.Draw(t, "headerValue")}
		k.Headers = append(k.Headers, h)
		r.Headers = AppendHeader(r.Headers, h.Key, h.Value)
		r.NumHeaders++
	}
	k.Length = int32(r.BodySize())
	return k, r
}

func TestRecordsReadAndWriteAsKmsgDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want, r := drawRecord(t)
		raw := r.Append(nil)
		if enc := want.AppendTo(nil); !bytes.Equal(raw, enc) {
			t.Fatalf("Append wrote %x, want %x", raw, enc)
		}
		var got Record
		rest, err := NextRecord(append(raw, 0xaa), &got)
		if err != nil || !bytes.Equal(rest, []byte{0xaa}) {
			t.Fatalf("NextRecord: %x, %v", rest, err)
		}
		if (got.Key == nil) != (r.Key == nil) || (got.Value == nil) != (r.Value == nil) {
			t.Fatal("null and empty are mixed up")
		}
		if again := got.Append(nil); !bytes.Equal(again, raw) {
			t.Fatalf("Append after NextRecord wrote %x, want %x", again, raw)
		}
		for n := range len(raw) {
			if _, err := NextRecord(raw[:n], &got); err == nil {
				t.Fatalf("%d of %d bytes were a record", n, len(raw))
			}
		}
	})
}

func FuzzNextRecord(f *testing.F) {
	r := Record{Key: []byte("k1"), Value: []byte("hello"), NumHeaders: 1, Headers: AppendHeader(nil, "h", nil)}
	f.Add(r.Append(nil))
	f.Add([]byte("\x1a\x00\x00\x00\x04k1\x0ahello\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		rest, err := NextRecord(b, &r)
		if err != nil {
			return
		}
		read := b[:len(b)-len(rest)]
		if len(read) < MinRecordSize {
			t.Fatalf("a record of %d bytes", len(read))
		}
		if again := r.Append(nil); !bytes.Equal(again, read) {
			t.Fatalf("read %x, wrote %x", read, again)
		}
	})
}

func FuzzBatchSize(f *testing.F) {
	f.Add(oracleBatch(kmsg.RecordBatch{Magic: 2, Records: []byte("section")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := BatchSize(b)
		if err != nil {
			return
		}
		if n < 26 || n > len(b) {
			t.Fatalf("size %d in %d bytes", n, len(b))
		}
		h, err := ParseBatchHeader(b[:n])
		if err != nil {
			if b[16] == BatchMagic {
				t.Fatalf("a whole batch has no header: %v", err)
			}
			return
		}
		again := make([]byte, BatchHeaderSize)
		h.Put(again)
		if !bytes.Equal(again, b[:BatchHeaderSize]) {
			t.Fatalf("read %x, wrote %x", b[:BatchHeaderSize], again)
		}
	})
}
