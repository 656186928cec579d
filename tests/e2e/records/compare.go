package records

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Times is the range, Unix ms, in which a client's own clock may have stamped records.
type Times struct{ From, To int64 }

// Since is the range from begin until now.
func Since(begin time.Time) Times {
	return Times{From: begin.UnixMilli(), To: time.Now().UnixMilli()}
}

// Compare checks that got is exactly what was sent: each partition's records in order, keys,
// values, nulls and headers equal, offsets dense from 0 (but for gaps, where markers of
// transactions may stand), and timestamps equal, or within times where the client chose them.
// It returns the first difference.
func Compare(sent, got []Record, times Times, gaps bool) error {
	want, have := byPartition(sent), byPartition(got)
	for p := range want {
		w, h := want[p], have[p]
		next := int64(0)
		for i := range min(len(w), len(h)) {
			if err := equal(&w[i], &h[i], times); err != nil {
				return fmt.Errorf("partition %d, record %d of %d at offset %d: %w", p, i, len(w), h[i].Offset, err)
			}
			if h[i].Offset < next || !gaps && h[i].Offset != next {
				return fmt.Errorf("partition %d, record %d: offset %d, want %d", p, i, h[i].Offset, next)
			}
			next = h[i].Offset + 1
		}
		if len(w) != len(h) {
			return fmt.Errorf("partition %d: %d records, want %d", p, len(h), len(w))
		}
		delete(have, p)
	}
	for p, h := range have {
		return fmt.Errorf("partition %d: %d records, want none", p, len(h))
	}
	return nil
}

// Same checks that two readings of one topic are equal in everything, partition by partition.
func Same(a, b []Record) error {
	x, y := byPartition(a), byPartition(b)
	for p := range x {
		for i := range min(len(x[p]), len(y[p])) {
			if x[p][i].Offset != y[p][i].Offset {
				return fmt.Errorf("partition %d, record %d: offset %d and %d", p, i, x[p][i].Offset, y[p][i].Offset)
			}
			if err := equal(&x[p][i], &y[p][i], Times{}); err != nil {
				return fmt.Errorf("partition %d, offset %d: %w", p, x[p][i].Offset, err)
			}
		}
		if len(x[p]) != len(y[p]) {
			return fmt.Errorf("partition %d: %d and %d records", p, len(x[p]), len(y[p]))
		}
	}
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d records", len(a), len(b))
	}
	return nil
}

func byPartition(all []Record) map[int32][]Record {
	m := map[int32][]Record{}
	for _, r := range all {
		m[r.Partition] = append(m[r.Partition], r)
	}
	return m
}

func equal(want, got *Record, times Times) error {
	if err := equalBytes("key", want.Key, got.Key); err != nil {
		return err
	}
	if err := equalBytes("value", want.Value, got.Value); err != nil {
		return err
	}
	if !slices.EqualFunc(want.Headers, got.Headers, func(a, b Header) bool {
		return a.Name == b.Name && equalBytes("", a.Value, b.Value) == nil
	}) {
		return fmt.Errorf("headers %q, want %q", got.Headers, want.Headers)
	}
	if want.Timestamp >= 0 && got.Timestamp != want.Timestamp {
		return fmt.Errorf("timestamp %d, want %d", got.Timestamp, want.Timestamp)
	}
	if want.Timestamp < 0 && (got.Timestamp < times.From || got.Timestamp > times.To) {
		return fmt.Errorf("timestamp %d, want one from %d to %d", got.Timestamp, times.From, times.To)
	}
	return nil
}

func equalBytes(what string, want, got []byte) error {
	if (want == nil) != (got == nil) || !bytes.Equal(want, got) {
		return fmt.Errorf("%s is %s, want %s", what, show(got), show(want))
	}
	return nil
}

func show(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 40:
		return fmt.Sprintf("%q… (%d B)", b[:40], len(b))
	}
	return fmt.Sprintf("%q", b)
}
