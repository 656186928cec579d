package kafka

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"pgregory.net/rapid"
)

// TestSkipIsAnAbortMarkerOfNoProducerOverTheSameOffsets reads what AppendSkip writes with
// franz-go's own types.
func TestSkipIsAnAbortMarkerOfNoProducerOverTheSameOffsets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		was := drawBatch(t)
		was.FirstOffset = rapid.Int64Range(0, math.MaxInt64-math.MaxInt32-1).Draw(t, "offset")
		was.LastOffsetDelta = rapid.Int32Range(0, math.MaxInt32).Draw(t, "delta")
		before := []byte("before")
		out, err := AppendSkip(before, oracleBatch(was))
		if err != nil || !bytes.HasPrefix(out, before) {
			t.Fatalf("%x, %v", out, err)
		}
		out = out[len(before):]
		if size, err := BatchSize(out); size != len(out) || err != nil || size > MaxSkipSize {
			t.Fatalf("size %d of %d, %v", size, len(out), err)
		}
		if LastOffset(out) != was.FirstOffset+int64(was.LastOffsetDelta) {
			t.Fatalf("ends at %d", LastOffset(out))
		}
		var got kmsg.RecordBatch
		if err := got.ReadFrom(out); err != nil {
			t.Fatal(err)
		}
		if uint32(got.CRC) != BatchCRC(out) {
			t.Fatal("the CRC does not match")
		}
		want := kmsg.RecordBatch{
			FirstOffset: was.FirstOffset, Length: got.Length, PartitionLeaderEpoch: was.PartitionLeaderEpoch, Magic: 2, CRC: got.CRC,
			Attributes: 0x20 | was.Attributes&0x08, LastOffsetDelta: was.LastOffsetDelta,
			FirstTimestamp: was.FirstTimestamp, MaxTimestamp: was.MaxTimestamp,
			ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: 1, Records: got.Records,
		}
		if !bytes.Equal(want.AppendTo(nil), out) {
			t.Fatalf("wrote %+v, want %+v", got, want)
		}
		var r kmsg.Record
		reader := kbin.Reader{Src: got.Records}
		r.Length = reader.Varint()
		if err := r.ReadFrom(got.Records); err != nil {
			t.Fatal(err)
		}
		if r.OffsetDelta != was.LastOffsetDelta || r.TimestampDelta64 != 0 || len(r.Headers) != 0 {
			t.Fatalf("record %+v", r)
		}
		var key kmsg.ControlRecordKey
		if err := key.ReadFrom(r.Key); err != nil || len(r.Key) != 4 || key.Version != 0 || key.Type != kmsg.ControlRecordKeyTypeAbort {
			t.Fatalf("key %x: %+v, %v", r.Key, key, err)
		}
		var value kmsg.EndTxnMarker
		if err := value.ReadFrom(r.Value); err != nil || len(r.Value) != 6 {
			t.Fatalf("value %x, %v", r.Value, err)
		}
	})
}

func TestSkipKeepsNothingOfTheRecords(t *testing.T) {
	section := bytes.Repeat([]byte("secret"), 100)
	out, err := AppendSkip(nil, oracleBatch(kmsg.RecordBatch{Magic: 2, FirstOffset: 7, LastOffsetDelta: 99, NumRecords: 100, Records: section}))
	if err != nil || bytes.Contains(out, []byte("secret")) || len(out) > MaxSkipSize {
		t.Errorf("%x, %v", out, err)
	}
}

// TestSkipIsNeverLongerThanASealedBatch is why a response does not outgrow its frame: only
// tiny batches that nobody sealed become longer, by a few bytes.
func TestSkipIsNeverLongerThanASealedBatch(t *testing.T) {
	const sealedOverhead = 25 + 17 + 16 // PROTOCOL.md §2.4
	least := BatchHeaderSize + MinRecordSize + sealedOverhead
	if MaxSkipSize > least {
		t.Errorf("a skip has up to %d bytes, the smallest sealed batch %d", MaxSkipSize, least)
	}
	if tiny := BatchHeaderSize + MinRecordSize; MaxSkipSize-tiny > 14 {
		t.Errorf("a skip adds %d bytes to the smallest batch", MaxSkipSize-tiny)
	}
}

func TestSkipOfOldMessagesIsTheirLastOffset(t *testing.T) {
	for _, magic := range []byte{0, 1} {
		old := make([]byte, 40)
		binary.BigEndian.PutUint64(old, 41)
		binary.BigEndian.PutUint32(old[8:], 28)
		old[16] = magic
		out, err := AppendSkip(nil, old)
		if err != nil || BaseOffset(out) != 41 || LastOffset(out) != 41 || LastOffset(old) != 41 {
			t.Errorf("magic %d: offsets %d to %d, %v", magic, BaseOffset(out), LastOffset(out), err)
		}
	}
}

func TestWhatTakesUnknownOffsetsIsNotSkipped(t *testing.T) {
	good := kmsg.RecordBatch{Magic: 2, FirstOffset: 100, LastOffsetDelta: 4, NumRecords: 5, Records: []byte("section")}
	changed := func(f func(b *kmsg.RecordBatch)) []byte {
		b := good
		f(&b)
		return oracleBatch(b)
	}
	raw := oracleBatch(good)
	corrupt := func(at int) []byte {
		b := bytes.Clone(raw)
		b[at] ^= 1
		return b
	}
	for name, batch := range map[string][]byte{
		"cut":                          raw[:len(raw)-1],
		"two batches":                  append(bytes.Clone(raw), raw...),
		"nothing":                      nil,
		"a later magic":                changed(func(b *kmsg.RecordBatch) { b.Magic = 3 }),
		"a negative offset":            changed(func(b *kmsg.RecordBatch) { b.FirstOffset = -1 }),
		"a negative extent":            changed(func(b *kmsg.RecordBatch) { b.LastOffsetDelta = -1 }),
		"an end beyond all offsets":    changed(func(b *kmsg.RecordBatch) { b.FirstOffset = math.MaxInt64 - 4 }),
		"damage where the extent is":   corrupt(23),
		"damage where the count is":    corrupt(60),
		"a length that holds no batch": {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0, 0, 2},
	} {
		out, err := AppendSkip([]byte("x"), batch)
		if !errors.Is(err, abi.StatusMalformed) || string(out) != "x" {
			t.Errorf("%s: %x, %v", name, out, err)
		}
	}
	if _, err := AppendSkip(nil, corrupt(len(raw)-1)); err != nil {
		t.Errorf("damage in the records: %v", err)
	}
	if LastOffset(raw[:20]) != -1 || LastOffset(nil) != -1 || LastOffset(raw) != 104 {
		t.Error("LastOffset reads what is not there")
	}
}

func FuzzAppendSkip(f *testing.F) {
	f.Add(oracleBatch(kmsg.RecordBatch{Magic: 2, LastOffsetDelta: 1, NumRecords: 2, Records: []byte("section")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := AppendSkip(nil, b)
		if err != nil {
			return
		}
		again, err := AppendSkip(nil, out)
		if err != nil || !bytes.Equal(again, out) {
			t.Fatalf("a skip of a skip is %x, %v, want %x", again, err, out)
		}
		if LastOffset(out) != LastOffset(b) || len(out) > MaxSkipSize {
			t.Fatalf("skip %x of %x", out, b)
		}
	})
}
