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
//
// Batches hold thousands of small records, and WebAssembly's calls cost more than what they
// would do here: numbers of one byte, most of them, are read in place.
func NextRecord(b []byte, r *Record) (rest []byte, err error) {
	at, end := 0, len(b)
	for field := range 6 {
		var v int64
		if at < end && b[at] < 0x80 {
			v = unzigzag(uint64(b[at]))
			at++
		} else {
			var n int
			if v, n = ReadVarint(b[at:end]); n == 0 || field != 1 && v != int64(int32(v)) {
				return nil, abi.StatusMalformed
			}
			at += n
		}
		switch field {
		case 0: // the record's length
			if v < 1 || v > int64(end-at) {
				return nil, abi.StatusMalformed
			}
			end = at + int(v)
			r.Attributes = int8(b[at])
			at++
		case 1:
			r.TimestampDelta = v
		case 2:
			r.OffsetDelta = int32(v)
		case 3, 4:
			var value []byte
			if v >= 0 {
				if v > int64(end-at) {
					return nil, abi.StatusMalformed
				}
				value = b[at : at+int(v) : at+int(v)]
				at += int(v)
			} else if v != -1 {
				return nil, abi.StatusMalformed
			}
			if field == 3 {
				r.Key = value
			} else {
				r.Value = value
			}
		case 5:
			if v < 0 {
				return nil, abi.StatusMalformed
			}
			r.NumHeaders = int32(v)
		}
	}
	r.Headers = b[at:end]
	body := r.Headers
	for range r.NumHeaders {
		if _, _, body, err = NextHeader(body); err != nil {
			return nil, err
		}
	}
	if len(body) != 0 {
		return nil, abi.StatusMalformed
	}
	return b[end:], nil
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
