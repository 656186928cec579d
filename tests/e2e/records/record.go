// Package records makes the records that the end-to-end tests send, keeps them in the plain
// file format that every client program here reads and writes, and compares what came back.
package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A Record is what an application hands to its Kafka client, or gets from it. A nil Key,
// Value or header Value is Kafka's null; an empty one is not.
type Record struct {
	Partition int32
	Offset    int64 // -1 before it was produced
	Timestamp int64 // Unix ms; -1 leaves the choice to the client
	Key       []byte
	Value     []byte
	Headers   []Header
}

// A Header is one of a record's headers. Names may repeat.
type Header struct {
	Name  string
	Value []byte
}

// ErrFormat is returned for a file that is not a sequence of whole records.
var ErrFormat = errors.New("records: malformed file")

// Append appends a record's bytes to b. Integers are big-endian; a null has length -1.
//
//	4b: partition
//	8b: offset
//	8b: timestamp
//	4b: length of key, then its bytes
//	4b: length of value, then its bytes
//	4b: number of headers, then each:
//	    4b: length of name, then its bytes
//	    4b: length of value, then its bytes
func Append(b []byte, r *Record) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(r.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
	b = binary.BigEndian.AppendUint64(b, uint64(r.Timestamp))
	b = appendBytes(b, r.Key)
	b = appendBytes(b, r.Value)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Headers)))
	for _, h := range r.Headers {
		b = appendBytes(b, []byte(h.Name))
		b = appendBytes(b, h.Value)
	}
	return b
}

// Parse reads one record from the start of b and returns what follows it. The record's
// fields alias b.
func Parse(b []byte) (Record, []byte, error) {
	var r Record
	if len(b) < 20 {
		return r, b, ErrFormat
	}
	rest := b[20:]
	r.Partition = int32(binary.BigEndian.Uint32(b))
	r.Offset = int64(binary.BigEndian.Uint64(b[4:]))
	r.Timestamp = int64(binary.BigEndian.Uint64(b[12:]))
	ok := true
	if r.Key, rest, ok = bytesOf(rest); !ok {
		return r, b, ErrFormat
	}
	if r.Value, rest, ok = bytesOf(rest); !ok || len(rest) < 4 {
		return r, b, ErrFormat
	}
	n := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	if uint64(n) > uint64(len(rest)/8) {
		return r, b, ErrFormat
	}
	for range n {
		var h Header
		var name []byte
		if name, rest, ok = bytesOf(rest); !ok || name == nil {
			return r, b, ErrFormat
		}
		if h.Value, rest, ok = bytesOf(rest); !ok {
			return r, b, ErrFormat
		}
		h.Name = string(name)
		r.Headers = append(r.Headers, h)
	}
	return r, rest, nil
}

// WriteFile writes records to a new file.
func WriteFile(path string, all []Record) error {
	var b []byte
	for i := range all {
		b = Append(b, &all[i])
	}
	return os.WriteFile(path, b, 0o600)
}

// ReadFile reads all records of a file. A client that was ended in the middle may leave a cut
// last record; it is left out, and the error says so.
func ReadFile(path string) ([]Record, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []Record
	for len(b) > 0 {
		var r Record
		if r, b, err = Parse(b); err != nil {
			return all, fmt.Errorf("%s: after %d records: %w", path, len(all), err)
		}
		all = append(all, r)
	}
	return all, nil
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.BigEndian.AppendUint32(b, ^uint32(0))
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	return append(b, v...)
}

func bytesOf(b []byte) (v, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, b, false
	}
	n := int32(binary.BigEndian.Uint32(b))
	b = b[4:]
	switch {
	case n == -1:
		return nil, b, true
	case n < 0 || int(n) > len(b):
		return nil, b, false
	}
	return b[:n:n], b[n:], true
}
