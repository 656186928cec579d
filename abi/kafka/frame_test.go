package kafka_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// lastKey is the last API key of Kafka 4.3.1; kmsg knows later ones.
const lastKey = 92

func TestRequestHeadersOfEveryAPIAndVersionAreParsed(t *testing.T) {
	named := kmsg.NewRequestFormatter(kmsg.FormatterClientID("billing"))
	for key := int16(0); key <= lastKey; key++ {
		q := kmsg.RequestForKey(key)
		for version := int16(0); version <= q.MaxVersion(); version++ {
			if key == 7 && version == 0 {
				continue // has a header of its own, and only brokers send it
			}
			q.SetVersion(version)
			for _, f := range []*kmsg.RequestFormatter{named, kmsg.NewRequestFormatter()} {
				frame := f.AppendRequest(nil, q, -7)[4:]
				h, err := kafka.ParseRequestHeader(frame)
				if err != nil {
					t.Fatalf("%s v%d: %v", kmsg.NameForKey(key), version, err)
				}
				if h.Key != key || h.Version != version || h.CorrelationID != -7 {
					t.Fatalf("%s v%d: %+v", kmsg.NameForKey(key), version, h)
				}
				if rest := frame[h.Size:]; !bytes.Equal(rest, q.AppendTo(nil)) {
					t.Fatalf("%s v%d: body is %x", kmsg.NameForKey(key), version, rest)
				}
				switch {
				case f == named && string(h.ClientID) != "billing":
					t.Fatalf("%s v%d: client id %q", kmsg.NameForKey(key), version, h.ClientID)
				case f != named && h.ClientID != nil:
					t.Fatalf("%s v%d: client id %q is not null", kmsg.NameForKey(key), version, h.ClientID)
				}
				for n := range h.Size {
					if _, err := kafka.ParseRequestHeader(frame[:n]); err == nil {
						t.Fatalf("%s v%d: header cut to %d of %d bytes is accepted", kmsg.NameForKey(key), version, n, h.Size)
					}
				}
			}
		}
	}
}

func TestRequestHeaderKeepsBodyBehindTaggedFields(t *testing.T) {
	frame := []byte{0, 3, 0, 9, 0, 0, 0, 1, 0, 1, 'x', 2, 5, 1, 'a', 0x80, 1, 0, 'B'}
	h, err := kafka.ParseRequestHeader(frame)
	if err != nil || string(frame[h.Size:]) != "B" {
		t.Fatalf("%+v, %v", h, err)
	}
}

func TestResponseHeadersOfEveryAPIAndVersion(t *testing.T) {
	for key := int16(0); key <= lastKey; key++ {
		p := kmsg.ResponseForKey(key)
		for version := int16(0); version <= p.MaxVersion(); version++ {
			p.SetVersion(version)
			want := []byte{0, 0, 0, 9}
			if p.IsFlexible() && key != kafka.KeyApiVersions {
				want = append(want, 0)
			}
			if got := kafka.AppendResponseHeader(nil, key, version, 9); !bytes.Equal(got, want) {
				t.Fatalf("%s v%d: %x, want %x", kmsg.NameForKey(key), version, got, want)
			}
			size, err := kafka.ResponseHeaderSize(key, version, append(want, 1, 2, 3))
			if err != nil || size != len(want) {
				t.Fatalf("%s v%d: size %d, %v", kmsg.NameForKey(key), version, size, err)
			}
			for n := range want {
				if _, err := kafka.ResponseHeaderSize(key, version, want[:n]); err == nil {
					t.Fatalf("%s v%d: %d bytes are accepted", kmsg.NameForKey(key), version, n)
				}
			}
		}
	}
}

func TestResponseHeaderSkipsTaggedFields(t *testing.T) {
	frame := []byte{0, 0, 0, 1, 1, 9, 2, 'a', 'b', 'B'}
	if size, err := kafka.ResponseHeaderSize(kafka.KeyFetch, 12, frame); err != nil || size != 9 {
		t.Fatalf("%d, %v", size, err)
	}
}

func TestGarbageIsNoRequest(t *testing.T) {
	for _, garbage := range []string{"", "GET / HTTP/1.1\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		if h, err := kafka.ParseRequestHeader([]byte(garbage)); err == nil {
			t.Errorf("%q is accepted as %+v", garbage, h)
		}
	}
}

func TestUnknownAPIKeepsItsCorrelationID(t *testing.T) {
	frame := binary.BigEndian.AppendUint32([]byte{0, 93, 0, 0}, 77)
	h, err := kafka.ParseRequestHeader(append(frame, 0xff, 0xff))
	if !errors.Is(err, kafka.ErrVersion) || h.Key != 93 || h.CorrelationID != 77 {
		t.Fatalf("%+v, %v", h, err)
	}
	if _, err := kafka.ResponseHeaderSize(93, 0, frame); !errors.Is(err, kafka.ErrVersion) {
		t.Fatal(err)
	}
}

func TestErrorsNameAPIAndVersion(t *testing.T) {
	_, err := kafka.ParseProduceRequest(9, []byte{1})
	if !errors.Is(err, kafka.ErrFrame) || !strings.Contains(err.Error(), "Produce v9 request") {
		t.Fatal(err)
	}
	_, err = kafka.ParseFetchResponse(3, nil)
	if !errors.Is(err, kafka.ErrVersion) || !strings.Contains(err.Error(), "Fetch v3 response") {
		t.Fatal(err)
	}
}
