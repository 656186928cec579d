// Package raw speaks to brokers and proxies below the level of a client: whole frames, whole
// batches, and what is neither.
package raw

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Exchange sends a request in the version that it has and returns the response's body, after
// the header. A response whose correlation id differs is an error.
func Exchange(c net.Conn, req kmsg.Request, id int32, limit time.Duration) ([]byte, error) {
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	if _, err := c.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("e2e")).AppendRequest(nil, req, id)); err != nil {
		return nil, err
	}
	body, err := Receive(c)
	if err != nil {
		return nil, err
	}
	if len(body) < 4 || int32(binary.BigEndian.Uint32(body)) != id {
		return nil, fmt.Errorf("answer %x to request %d", body[:min(4, len(body))], id)
	}
	body = body[4:]
	if req.IsFlexible() && req.Key() != 18 {
		body = body[1:] // no tags
	}
	return body, nil
}

// Receive reads one frame, at most 1 MB.
func Receive(c net.Conn) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > 1<<20 {
		return nil, fmt.Errorf("an answer of %d B", n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// Framed puts the length in front.
func Framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// Header is a request header version 1: what every request but the flexible ones has.
func Header(key, version int16) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, 7)
	return append(binary.BigEndian.AppendUint16(b, 3), "bad"...)
}

// IsReset tells that the other side closed while we still wrote.
func IsReset(err error) bool {
	return strings.Contains(err.Error(), "connection reset") || strings.Contains(err.Error(), "broken pipe")
}

// Garbage is what no Kafka client sends, by name: each closes its connection. What is random
// in it comes from rng.
func Garbage(rng *rand.Rand) map[string][]byte {
	noise := make([]byte, 64<<10)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	noise[0] |= 0x80 // a length that is refused at once
	return map[string][]byte{
		"negative length":        {0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0},
		"most negative length":   {0x80, 0, 0, 0, 0, 0, 0, 0},
		"oversized length":       {0x7f, 0xff, 0xff, 0xff, 0, 18, 0, 0},
		"length zero":            {0, 0, 0, 0},
		"frame without a header": Framed([]byte{0, 18}),
		"HTTP":                   []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
		"TLS":                    append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, noise[:600]...),
		"noise":                  noise,
		"unknown API":            Framed(Header(9999, 0)),
		"negative API":           Framed(Header(-1, 0)),
		"an API for brokers":     Framed(Header(4, 7)), // LeaderAndIsr
		"Metadata of the future": Framed(append(Header(3, 99), noise[:50]...)),
		"Produce of the past":    Framed(append(Header(0, 0), noise[:50]...)),
		"negative version":       Framed(Header(3, -1)),
		"Produce cut short":      Framed(append(Header(0, 8), 0xff, 0xff, 0, 1)),
		"Produce with a huge count": Framed(append(Header(0, 8), 0xff, 0xff, 0, 1, 0, 0, 0x27, 0x10,
			0x7f, 0xff, 0xff, 0xff)),
		"Produce with negative lengths": Framed(append(Header(0, 8), 0xff, 0xff, 0, 1, 0, 0, 0x27, 0x10,
			0, 0, 0, 1, 0xff, 0xfe, 0, 0, 0, 1)),
		"Fetch of noise": Framed(append(Header(1, 11), noise[:200]...)),
	}
}
