package kafka_test

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// inOrder is RecordsInOrder, written down as what it claims.
func inOrder(section []byte, n int32) bool {
	var r kafka.Record
	var err error
	for i := range n {
		if section, err = kafka.NextRecord(section, &r); err != nil || r.OffsetDelta != i {
			return false
		}
	}
	return len(section) == 0
}

func inOrderSeeds() [][]byte {
	var all []byte
	var seeds [][]byte
	for i, r := range []kafka.Record{
		{Value: []byte("v")}, {Key: []byte("key"), Value: make([]byte, 100)}, {Key: []byte{}, Value: nil},
		{Value: make([]byte, 9000), TimestampDelta: 5}, {Key: make([]byte, 200), TimestampDelta: -700},
		{Value: []byte{}, TimestampDelta: 1 << 40}, {NumHeaders: 1, Headers: kafka.AppendHeader(nil, "h", nil)},
		{Attributes: 7, Value: make([]byte, 63)}, {Value: make([]byte, 64)}, {Value: make([]byte, 40)},
	} {
		one := r
		one.OffsetDelta = 0
		seeds = append(seeds, one.Append(nil))
		r.OffsetDelta = int32(i)
		all = r.Append(all)
	}
	return append(seeds, all, nil)
}

func FuzzRecordsInOrder(f *testing.F) {
	for i, s := range inOrderSeeds() {
		f.Add(s, int32(1))
		f.Add(s, int32(i))
	}
	f.Fuzz(func(t *testing.T, section []byte, n int32) {
		if n > 1<<16 {
			return
		}
		if got, want := kafka.RecordsInOrder(section, n), inOrder(section, n); got != want {
			t.Fatalf("%d records in %x: %v, want %v", n, section, got, want)
		}
	})
}

// TestEachFlippedByteOfOrderedRecordsIsReadAlike holds the quick way against the slow one, with
// offset deltas of one, two and three bytes.
func TestEachFlippedByteOfOrderedRecordsIsReadAlike(t *testing.T) {
	var long []byte
	for i := range int32(9000) {
		r := kafka.Record{OffsetDelta: i, TimestampDelta: int64(i), Key: []byte("k"), Value: []byte("value")}
		long = r.Append(long)
	}
	if !kafka.RecordsInOrder(long, 9000) || kafka.RecordsInOrder(long, 8999) || kafka.RecordsInOrder(long, 9001) {
		t.Error("9000 records are not read")
	}
	section := inOrderSeeds()[10]
	if n := int32(10); !kafka.RecordsInOrder(section, n) {
		t.Fatal("ten records are not read")
	}
	for i := range section {
		for bit := range 8 {
			b := bytes.Clone(section)
			b[i] ^= 1 << bit
			if got, want := kafka.RecordsInOrder(b, 10), inOrder(b, 10); got != want {
				t.Errorf("byte %d, bit %d: %v, want %v", i, bit, got, want)
			}
		}
		if kafka.RecordsInOrder(section[:i], 10) != inOrder(section[:i], 10) {
			t.Errorf("cut at %d", i)
		}
	}
}
