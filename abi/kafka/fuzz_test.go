package kafka_test

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// fuzz has a parser read anything, in any version. It must not panic nor change its input;
// what it accepts must append to bytes that parse to the same bytes again.
func fuzz(f *testing.F, name string) {
	format := formatOf(name)
	low, high, _ := kafka.Supported(format.key)
	rng := rand.New(rand.NewPCG(7, 7))
	for version := low; version <= high; version++ {
		for range 3 {
			m := format.blank(version)
			fill(rng, reflect.ValueOf(m).Elem())
			f.Add(version, m.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, version int16, in []byte) {
		kept := bytes.Clone(in)
		got, err := format.parse(version, in)
		if !bytes.Equal(in, kept) {
			t.Fatal("the input was changed")
		}
		if err != nil {
			return
		}
		once := got.Append(nil)
		if len(once) > len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(once))
		}
		again, err := format.parse(version, once)
		if err != nil {
			t.Fatalf("appended %x: %v", once, err)
		}
		if twice := again.Append(nil); !bytes.Equal(once, twice) {
			t.Fatalf("appended\n%x, then\n%x", once, twice)
		}
	})
}

func FuzzProduceRequest(f *testing.F)           { fuzz(f, "Produce request") }
func FuzzProduceResponse(f *testing.F)          { fuzz(f, "Produce response") }
func FuzzFetchResponse(f *testing.F)            { fuzz(f, "Fetch response") }
func FuzzMetadataResponse(f *testing.F)         { fuzz(f, "Metadata response") }
func FuzzFindCoordinatorResponse(f *testing.F)  { fuzz(f, "FindCoordinator response") }
func FuzzApiVersionsResponse(f *testing.F)      { fuzz(f, "ApiVersions response") }
func FuzzDescribeQuorumResponse(f *testing.F)   { fuzz(f, "DescribeQuorum response") }
func FuzzDescribeClusterResponse(f *testing.F)  { fuzz(f, "DescribeCluster response") }
func FuzzShareFetchResponse(f *testing.F)       { fuzz(f, "ShareFetch response") }
func FuzzShareAcknowledgeResponse(f *testing.F) { fuzz(f, "ShareAcknowledge response") }

// A header that is accepted lies within the frame, whatever follows it.
func FuzzRequestHeader(f *testing.F) {
	for key := int16(0); key <= lastKey; key++ {
		q := kmsg.RequestForKey(key)
		q.SetVersion(q.MaxVersion())
		f.Add(kmsg.NewRequestFormatter(kmsg.FormatterClientID("c")).AppendRequest(nil, q, 1)[4:])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		h, err := kafka.ParseRequestHeader(frame)
		if err != nil {
			return
		}
		if h.Size < 10+len(h.ClientID) || h.Size > len(frame) {
			t.Fatalf("%+v of %d bytes", h, len(frame))
		}
		again, err := kafka.ParseRequestHeader(frame[:h.Size])
		if err != nil || again.Size != h.Size || !bytes.Equal(again.ClientID, h.ClientID) {
			t.Fatalf("%+v, then %+v, %v", h, again, err)
		}
	})
}

// A response header that is accepted lies within the frame, whatever follows it.
func FuzzResponseHeaderSize(f *testing.F) {
	f.Add(int16(1), int16(12), []byte{0, 0, 0, 1, 1, 9, 2, 'a', 'b', 'B'})
	f.Add(int16(18), int16(4), []byte{0, 0, 0, 1, 0, 35})
	f.Fuzz(func(t *testing.T, key, version int16, frame []byte) {
		size, err := kafka.ResponseHeaderSize(key, version, frame)
		if err != nil {
			return
		}
		if size < 4 || size > len(frame) {
			t.Fatalf("%d of %d bytes", size, len(frame))
		}
		if again, err := kafka.ResponseHeaderSize(key, version, frame[:size]); err != nil || again != size {
			t.Fatalf("%d, then %d, %v", size, again, err)
		}
	})
}

// The groups of a request that is accepted are found again whatever follows.
func FuzzRequestGroups(f *testing.F) {
	f.Add(int16(kafka.KeyOffsetFetch), int16(8), []byte{2, 2, 'a', 0, 0, 0, 0})
	f.Add(int16(kafka.KeyJoinGroup), int16(5), []byte{0, 1, 'a'})
	f.Fuzz(func(t *testing.T, key, version int16, in []byte) {
		groups, ok, err := kafka.RequestGroups(key, version, in)
		if err != nil || !ok {
			if groups != nil {
				t.Fatalf("%q beside %v", groups, err)
			}
			return
		}
		again, _, err := kafka.RequestGroups(key, version, append(bytes.Clone(in), 0xff))
		if err != nil || !reflect.DeepEqual(groups, again) {
			t.Fatalf("%q, then %q, %v", groups, again, err)
		}
	})
}
