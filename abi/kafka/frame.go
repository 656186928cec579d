package kafka

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// ErrVersion is wrapped by errors about an API or a version of it that this package does
// not handle.
var ErrVersion = errors.New("unsupported version")

// A frameError says which request or response did not parse.
type frameError struct {
	kind         string
	key, version int16
	err          error
}

func (e *frameError) Error() string {
	return "kafka: " + APIName(e.key) + " v" + strconv.Itoa(int(e.version)) + " " + e.kind + ": " + e.err.Error()
}

func (e *frameError) Unwrap() error { return e.err }

// A RequestHeader stands at the front of every request frame.
//
//	2b: API key
//	2b: API version
//	4b: correlation id
//	2b: length of client id, -1 for null; then its bytes
//	in flexible versions: tagged fields
type RequestHeader struct {
	Key, Version  int16
	CorrelationID int32
	ClientID      []byte // aliases the frame; nil is null
	Size          int    // of the header in bytes: the body is frame[Size:]
}

// ParseRequestHeader reads the header of a request frame, which is given without its
// 4-byte length. It knows every API of Kafka 4.3.1, in any version, whether or not it is
// Supported. (ControlledShutdown 0, which
// only brokers sent, has another header and is read as if it had this one.) Where the API is unknown, the fields before ClientID are set beside the error.
func ParseRequestHeader(frame []byte) (RequestHeader, error) {
	r := reader{b: frame}
	h := RequestHeader{Key: r.int16(), Version: r.int16(), CorrelationID: r.int32()}
	if r.bad {
		return RequestHeader{}, ErrFrame
	}
	if h.Key < 0 || int(h.Key) >= len(apis) || h.Version < 0 {
		return h, &frameError{"request", h.Key, h.Version, ErrVersion}
	}
	h.ClientID = r.nullableString()
	r.flexible = flexible(h.Key, h.Version)
	r.tags()
	if r.bad {
		return h, &frameError{"request header", h.Key, h.Version, ErrFrame}
	}
	h.Size = len(frame) - len(r.b)
	return h, nil
}

// ResponseHeaderSize returns the size in bytes of the header of a response frame, which is
// given without its 4-byte length: 4 bytes of correlation id, and tagged fields in
// flexible versions. An ApiVersions response never has them, so that a client can read
// the answer to a version that the broker does not know (KIP-511).
func ResponseHeaderSize(key, version int16, frame []byte) (int, error) {
	if key < 0 || int(key) >= len(apis) {
		return 0, &frameError{"response", key, version, ErrVersion}
	}
	r := reader{b: frame, flexible: key != KeyApiVersions && flexible(key, version)}
	r.int32()
	r.tags()
	if r.bad {
		return 0, &frameError{"response header", key, version, ErrFrame}
	}
	return len(frame) - len(r.b), nil
}

// AppendResponseHeader appends the header of a response to b. The key must be one that
// ParseRequestHeader accepts.
func AppendResponseHeader(b []byte, key, version int16, correlationID int32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(correlationID))
	if key != KeyApiVersions && flexible(key, version) {
		b = append(b, 0)
	}
	return b
}

// newReader returns a reader for a body of an API, or an error where the version is not
// one of those passed.
func newReader(kind string, key, version int16, body []byte) (reader, error) {
	if min, max, ok := Supported(key); !ok || version < min || version > max {
		return reader{}, &frameError{kind, key, version, ErrVersion}
	}
	return reader{b: body, flexible: flexible(key, version)}, nil
}

// newWriter returns a writer that appends a body of an API to b.
func newWriter(b []byte, key, version int16) writer {
	return writer{b: b, flexible: flexible(key, version)}
}

// endOf reports how the reader ended, as an error that names the frame.
func (r *reader) endOf(kind string, key, version int16) error {
	if err := r.end(); err != nil {
		return &frameError{kind, key, version, err}
	}
	return nil
}
