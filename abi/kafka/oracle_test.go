package kafka_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A body is what every Parse function of a frame returns.
type body interface{ Append(b []byte) []byte }

// A format is one body that this package parses, and how kmsg, the oracle, sees it.
type format struct {
	name    string
	key     int16
	request bool
	parse   func(version int16, b []byte) (body, error)
}

// formats lists every body that is parsed and appended.
var formats = []format{
	{"Produce request", kafka.KeyProduce, true, parse(kafka.ParseProduceRequest)},
	{"Produce response", kafka.KeyProduce, false, parse(kafka.ParseProduceResponse)},
	{"Fetch response", kafka.KeyFetch, false, parse(kafka.ParseFetchResponse)},
	{"Metadata response", kafka.KeyMetadata, false, parse(kafka.ParseMetadataResponse)},
	{"FindCoordinator response", kafka.KeyFindCoordinator, false, parse(kafka.ParseFindCoordinatorResponse)},
	{"ApiVersions response", kafka.KeyApiVersions, false, parse(kafka.ParseApiVersionsResponse)},
	{"DescribeQuorum response", kafka.KeyDescribeQuorum, false, parse(kafka.ParseDescribeQuorumResponse)},
	{"DescribeCluster response", kafka.KeyDescribeCluster, false, parse(kafka.ParseDescribeClusterResponse)},
	{"ShareFetch response", kafka.KeyShareFetch, false, parse(kafka.ParseShareFetchResponse)},
	{"ShareAcknowledge response", kafka.KeyShareAcknowledge, false, parse(kafka.ParseShareAcknowledgeResponse)},
}

// formatOf returns the format of that name.
func formatOf(name string) *format {
	for i := range formats {
		if formats[i].name == name {
			return &formats[i]
		}
	}
	panic("no format " + name)
}

func parse[T body](f func(int16, []byte) (T, error)) func(int16, []byte) (body, error) {
	return func(version int16, b []byte) (body, error) { return f(version, b) }
}

// A message is what kmsg's requests and responses have in common.
type message interface {
	SetVersion(int16)
	AppendTo([]byte) []byte
	ReadFrom([]byte) error
}

// blank returns kmsg's empty struct for the format.
func (f *format) blank(version int16) message {
	m := message(kmsg.RequestForKey(f.key))
	if !f.request {
		m = kmsg.ResponseForKey(f.key)
	}
	m.SetVersion(version)
	return m
}

// eachSample calls test with random content in every supported version of the format, many
// times each.
func (f *format) eachSample(t *testing.T, test func(t *testing.T, version int16, m message)) {
	low, high, ok := kafka.Supported(f.key)
	if !ok || low > high {
		t.Fatalf("%s has no versions", f.name)
	}
	for version := low; version <= high; version++ {
		t.Run(fmt.Sprintf("%s v%d", f.name, version), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(f.key), uint64(version)))
			for range 40 {
				m := f.blank(version)
				fill(rng, reflect.ValueOf(m).Elem())
				if a, ok := m.(*kmsg.ApiVersionsResponse); ok && a.ErrorCode == kafka.ErrorUnsupportedVersion {
					a.ErrorCode = 0
				}
				test(t, version, m)
			}
		})
	}
}

// fill sets every field of a kmsg struct but Version: nulls, empties, tags, nested arrays,
// and lengths on both sides of where a varint grows.
func fill(rng *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		if tags, ok := v.Addr().Interface().(*kmsg.Tags); ok {
			for range rng.IntN(3) {
				tags.Set(100+rng.Uint32N(1<<uint(rng.IntN(31)+1)), randomBytes(rng))
			}
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Version" {
				fill(rng, v.Field(i))
			}
		}
	case reflect.Slice:
		switch {
		case rng.IntN(8) == 0:
			v.SetZero()
		case v.Type().Elem().Kind() == reflect.Uint8:
			v.SetBytes(randomBytes(rng))
		default:
			v.Set(reflect.MakeSlice(v.Type(), rng.IntN(4), 4))
			for i := range v.Len() {
				fill(rng, v.Index(i))
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i))
		}
	case reflect.Pointer:
		if rng.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem())
		}
	case reflect.String:
		v.SetString(string(randomBytes(rng)))
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(int64(rng.Uint64()) >> uint(64-v.Type().Bits()))
	case reflect.Float64:
		v.SetFloat(rng.Float64())
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(rng.Uint64() >> uint(64-v.Type().Bits()))
	default:
		panic("no filling for " + v.Type().String())
	}
}

func randomBytes(rng *rand.Rand) []byte {
	n := rng.IntN(12)
	if rng.IntN(20) == 0 {
		n = 120 + rng.IntN(300)
	}
	p := make([]byte, n)
	for i := range p {
		p[i] = byte('a' + rng.IntN(26))
	}
	return p
}

// clearEndpoints does to kmsg's struct what Parse does: it forgets node_endpoints.
func clearEndpoints(m message) {
	switch m := m.(type) {
	case *kmsg.ProduceResponse:
		m.Brokers = nil
	case *kmsg.FetchResponse:
		m.Brokers = nil
	case *kmsg.ShareFetchResponse:
		m.NodeEndpoints = nil
	case *kmsg.ShareAcknowledgeResponse:
		m.NodeEndpoints = nil
	}
}

func TestBodiesReappendAsKmsgWroteThem(t *testing.T) {
	for _, f := range formats {
		f.eachSample(t, func(t *testing.T, version int16, m message) {
			in := m.AppendTo(nil)
			kept := bytes.Clone(in)
			got, err := f.parse(version, in)
			if err != nil {
				t.Fatalf("%v\n%+v", err, m)
			}
			clearEndpoints(m)
			want := m.AppendTo([]byte("before"))
			if out := got.Append([]byte("before")); !bytes.Equal(out, want) {
				t.Fatalf("appended\n%x\nwant\n%x\n%+v", out, want, m)
			}
			if !bytes.Equal(in, kept) {
				t.Fatal("the input was changed")
			}
		})
	}
}
