package kafka

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// MinRecordSize is the size of the smallest record in bytes, its length included: a count
// of records beyond the section's size divided by it is a lie.
const MinRecordSize = 7

// A Record is one record of an uncompressed record section. Its slices alias the section.
//
//	varint:  length of what follows
//	1b:      attributes (unused)
//	varlong: timestampDelta, ms after baseTimestamp
//	varint:  offsetDelta
//	varint:  length of key or -1 for null, then key
//	varint:  length of value or -1 for null, then value
//	varint:  number of headers, then headers
type Record struct {
	Attributes     int8
	TimestampDelta int64
	OffsetDelta    int32
	Key            []byte // nil for null
	Value          []byte // nil for null
	NumHeaders     int32
	Headers        []byte // the encoded headers, checked: see NextHeader
}

// NextRecord reads the record at the start of the record section b into r and returns what
// follows it. Nothing is allocated. The record fills its length exactly, headers included,
// else the error is abi.StatusMalformed and r is unspecified.
func NextRecord(b []byte, r *Record) (rest []byte, err error) {
	length, n := readVarint32(b)
	if n == 0 || length < 0 || int(length) > len(b)-n {
		return nil, abi.StatusMalformed
	}
	body := b[n : n+int(length)]
	rest = b[n+int(length):]
	if len(body) < 1 {
		return nil, abi.StatusMalformed
	}
	r.Attributes = int8(body[0])
	body = body[1:]
	if r.TimestampDelta, n = ReadVarint(body); n == 0 {
		return nil, abi.StatusMalformed
	}
	body = body[n:]
	if r.OffsetDelta, n = readVarint32(body); n == 0 {
		return nil, abi.StatusMalformed
	}
	body = body[n:]
	var ok bool
	if r.Key, body, ok = nullableBytes(body); !ok {
		return nil, abi.StatusMalformed
	}
	if r.Value, body, ok = nullableBytes(body); !ok {
		return nil, abi.StatusMalformed
	}
	if r.NumHeaders, n = readVarint32(body); n == 0 || r.NumHeaders < 0 {
		return nil, abi.StatusMalformed
	}
	body = body[n:]
	r.Headers = body
	for range r.NumHeaders {
		if _, _, body, err = NextHeader(body); err != nil {
			return nil, err
		}
	}
	if len(body) != 0 {
		return nil, abi.StatusMalformed
	}
	return rest, nil
}

// NextHeader reads the header at the start of b, a record's Headers, and returns what
// follows it. A nil value is null; a name is never null.
func NextHeader(b []byte) (name, value, rest []byte, err error) {
	name, b, ok := nullableBytes(b)
	if !ok || name == nil {
		return nil, nil, nil, abi.StatusMalformed
	}
	if value, b, ok = nullableBytes(b); !ok {
		return nil, nil, nil, abi.StatusMalformed
	}
	return name, value, b, nil
}

// BodySize returns the number that stands in front of the record: its size in bytes
// without that number.
func (r *Record) BodySize() int {
	return 1 + VarintSize(r.TimestampDelta) + VarintSize(int64(r.OffsetDelta)) +
		nullableSize(r.Key) + nullableSize(r.Value) + VarintSize(int64(r.NumHeaders)) + len(r.Headers)
}

// Append appends the record to the record section b.
func (r *Record) Append(b []byte) []byte {
	b = AppendVarint(b, int64(r.BodySize()))
	b = append(b, byte(r.Attributes))
	b = AppendVarint(b, r.TimestampDelta)
	b = AppendVarint(b, int64(r.OffsetDelta))
	b = appendNullable(b, r.Key)
	b = appendNullable(b, r.Value)
	b = AppendVarint(b, int64(r.NumHeaders))
	return append(b, r.Headers...)
}

// AppendHeader appends one header to the Headers of a record; a nil value is null. The
// caller counts NumHeaders.
func AppendHeader(b []byte, name string, value []byte) []byte {
	b = AppendVarint(b, int64(len(name)))
	b = append(b, name...)
	return appendNullable(b, value)
}

func nullableBytes(b []byte) (v, rest []byte, ok bool) {
	size, n := readVarint32(b)
	if n == 0 || size < -1 || int(size) > len(b)-n {
		return nil, nil, false
	}
	if size == -1 {
		return nil, b[n:], true
	}
	return b[n : n+int(size) : n+int(size)], b[n+int(size):], true
}

func nullableSize(v []byte) int {
	if v == nil {
		return 1
	}
	return VarintSize(int64(len(v))) + len(v)
}

func appendNullable(b, v []byte) []byte {
	if v == nil {
		return AppendVarint(b, -1)
	}
	return append(AppendVarint(b, int64(len(v))), v...)
}
