package kafka_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

func TestBodiesCutAnywhereAreRefused(t *testing.T) {
	for _, f := range formats {
		f.eachSample(t, func(t *testing.T, version int16, m message) {
			in := m.AppendTo(nil)
			for n := range in {
				if _, err := f.parse(version, in[:n:n]); !errors.Is(err, kafka.ErrFrame) {
					t.Fatalf("%d of %d bytes: %v", n, len(in), err)
				}
			}
		})
	}
}

func TestTrailingBytesAreRefused(t *testing.T) {
	for _, f := range formats {
		f.eachSample(t, func(t *testing.T, version int16, m message) {
			for _, more := range []byte{0, 1, 0xff} {
				if _, err := f.parse(version, append(m.AppendTo(nil), more)); !errors.Is(err, kafka.ErrFrame) {
					t.Fatalf("%02x follows: %v", more, err)
				}
			}
		})
	}
}

func TestVersionsBeyondTheSupportedAreRefused(t *testing.T) {
	for _, f := range formats {
		low, high, _ := kafka.Supported(f.key)
		for _, version := range []int16{-1, low - 1, high + 1, 32767} {
			if _, err := f.parse(version, nil); !errors.Is(err, kafka.ErrVersion) {
				t.Errorf("%s v%d: %v", f.name, version, err)
			}
		}
	}
}

func TestLengthsThatCannotBeAreRefused(t *testing.T) {
	name := []byte{0, 1, 'a'}
	i32 := func(v int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(v)) }
	v3 := []byte{0xff, 0xff, 0, 1, 0, 0, 0, 0} // no transactional id, acks 1, timeout 0
	cat := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for _, c := range []struct {
		name    string
		version int16
		body    []byte
	}{
		{"null topics", 3, cat(v3, i32(-1))},
		{"negative topics", 3, cat(v3, i32(-2))},
		{"most negative topics", 3, cat(v3, i32(-1<<31))},
		{"topics beyond the end", 3, cat(v3, i32(1<<31-1))},
		{"null topic name", 3, cat(v3, i32(1), []byte{0xff, 0xff}, i32(0))},
		{"negative topic name", 3, cat(v3, i32(1), []byte{0xff, 0xfe}, i32(0))},
		{"topic name beyond the end", 3, cat(v3, i32(1), []byte{0x7f, 0xff}, i32(0))},
		{"null partitions", 3, cat(v3, i32(1), name, i32(-1))},
		{"partitions beyond the end", 3, cat(v3, i32(1), name, i32(1<<28), make([]byte, 64))},
		{"negative records", 3, cat(v3, i32(1), name, i32(1), i32(0), i32(-2))},
		{"records beyond the end", 3, cat(v3, i32(1), name, i32(1), i32(0), i32(9), make([]byte, 8))},
		{"negative transactional id", 3, cat([]byte{0xff, 0xfe}, v3[2:], i32(0))},
		{"null compact topics", 9, []byte{0, 0, 1, 0, 0, 0, 0, 0, 0}},
		{"compact topics beyond the end", 9, []byte{0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		{"compact length of 33 bits", 9, []byte{0, 0, 1, 0, 0, 0, 0, 0x81, 0x80, 0x80, 0x80, 0x10, 0}},
		{"compact length of six bytes", 9, []byte{0, 0, 1, 0, 0, 0, 0, 0x81, 0x80, 0x80, 0x80, 0x80, 0, 0}},
		{"tagged fields beyond the end", 9, []byte{0, 0, 1, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}},
		{"a tagged field beyond the end", 9, []byte{0, 0, 1, 0, 0, 0, 0, 1, 1, 5, 3, 'a', 'b'}},
		{"a tagged field of 4 GiB", 9, []byte{0, 0, 1, 0, 0, 0, 0, 1, 1, 5, 0xff, 0xff, 0xff, 0xff, 0x0f}},
	} {
		if q, err := kafka.ParseProduceRequest(c.version, c.body); !errors.Is(err, kafka.ErrFrame) {
			t.Errorf("%s: %+v, %v", c.name, q, err)
		}
	}
	// The same frames with right lengths are fine, so that the table tests what it says.
	for version, ok := range map[int16][]byte{
		3: cat(v3, i32(1), name, i32(1), i32(0), i32(8), make([]byte, 8)),
		9: {0, 0, 1, 0, 0, 0, 0, 1, 1, 5, 3, 'a', 'b', 'c'},
	} {
		if _, err := kafka.ParseProduceRequest(version, ok); err != nil {
			t.Error(err)
		}
	}
}

func TestNegativeNullableArraysAreRefused(t *testing.T) {
	m := formatOf("Fetch response").blank(4).(*kmsg.FetchResponse)
	m.Topics = []kmsg.FetchResponseTopic{{Topic: "t", Partitions: make([]kmsg.FetchResponseTopicPartition, 1)}}
	in := m.AppendTo(nil)
	if _, err := kafka.ParseFetchResponse(4, in); err != nil {
		t.Fatal(err)
	}
	aborted := len(in) - 8 // null, before null records
	binary.BigEndian.PutUint32(in[aborted:], 1<<32-2)
	if a, err := kafka.ParseFetchResponse(4, in); !errors.Is(err, kafka.ErrFrame) {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestNullTopicNameIsRefusedBeforeMetadata12(t *testing.T) {
	for version := int16(0); version <= 13; version++ {
		m := formatOf("Metadata response").blank(version).(*kmsg.MetadataResponse)
		m.Topics = []kmsg.MetadataResponseTopic{{Topic: kmsg.StringPtr("the-topic")}}
		in := m.AppendTo(nil)
		at := bytes.Index(in, []byte("the-topic"))
		null := append(bytes.Clone(in[:at-1]), 0) // compact
		if version < 9 {
			null = append(bytes.Clone(in[:at-2]), 0xff, 0xff)
		}
		null = append(null, in[at+len("the-topic"):]...)
		a, err := kafka.ParseMetadataResponse(version, null)
		if accepted := err == nil; accepted != (version >= 12) {
			t.Errorf("v%d: %+v, %v", version, a, err)
		}
	}
}

// Kafka reads varints that are longer than needed, so they must not stop a client here.
func TestPaddedCompactLengthsAreRead(t *testing.T) {
	q, err := kafka.ParseProduceRequest(9, []byte{0, 0, 1, 0, 0, 0, 0, 0x81, 0x80, 0, 0})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := q.Append(nil), []byte{0, 0, 1, 0, 0, 0, 0, 1, 0}; !bytes.Equal(got, want) {
		t.Fatalf("%x, want %x", got, want)
	}
}

// Whatever four bytes claim, no more is allocated than the body's own size justifies.
func TestLyingLengthsCostNoMemory(t *testing.T) {
	lies := [][]byte{{0x7f, 0xff, 0xff, 0xff}, {0xff, 0xff, 0xff, 0x0f}, {0x00, 0xff, 0xff, 0xff}, {0x80, 0, 0, 0}}
	for _, f := range formats {
		f.eachSample(t, func(t *testing.T, version int16, m message) {
			in := m.AppendTo(nil)
			if len(in) > 400 {
				return
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			tries := uint64(0)
			for at := 0; at+4 <= len(in); at++ {
				for _, lie := range lies {
					bad := bytes.Clone(in)
					copy(bad[at:], lie)
					if got, err := f.parse(version, bad); err == nil {
						got.Append(nil)
					}
					tries++
				}
			}
			runtime.ReadMemStats(&after)
			if each := (after.TotalAlloc - before.TotalAlloc) / max(tries, 1); each > 100*uint64(len(in))+4096 {
				t.Fatalf("%d bytes allocated for a body of %d", each, len(in))
			}
		})
	}
}
