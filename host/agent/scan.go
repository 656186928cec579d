package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// scanTimeout bounds one scan, which reads at most 10,000 offsets.
const scanTimeout = 30 * time.Second

// scan returns the kids of the sealed values in [from, to) of one partition, aborted ones
// too: whoever reads uncommitted may still want their keys (PROTOCOL.md §2.8.4). inside says
// that from stands within a batch, whose only value, and with it its kid, is before from:
// most clients commit there when they stop halfway. Nothing is read then.
func scan(ctx context.Context, operator []kgo.Opt, topic string, partition int32, from, to int64) (kids map[abi.Kid]bool, inside bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	cl, err := newClient(operator,
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(), // only their offsets count: the last record may be a marker
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	if err != nil {
		return nil, false, err
	}
	defer cl.Close()
	// A log that was cut, or made anew, never reaches to again: waiting for it would take
	// the time of other topics' scans.
	end, err := listOffset(ctx, cl, topic, partition, listEnd)
	if err == nil && end < to {
		err = fmt.Errorf("topic %s, partition %d: the log ends at offset %d, and reached %d before", topic, partition, end, to)
	}
	if err != nil {
		return nil, false, err
	}
	kids = make(map[abi.Kid]bool)
	for next := from; next < to && !inside; {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return nil, false, fmt.Errorf("topic %s, partition %d: scan for sealed values from offset %d: %w", topic, partition, next, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			inside = inside || r.Offset == from && stub(r)
			if kid, ok := sealedKid(r.Value); ok && r.Offset < to && !r.Attrs.IsControl() {
				kids[kid] = true
			}
			next = r.Offset + 1
		})
	}
	return kids, inside, nil
}

// stub reports whether a record is one of those behind a sealed batch's value (PROTOCOL.md
// §2.4).
func stub(r *kgo.Record) bool {
	return !r.Attrs.IsControl() && r.Key == nil && r.Value != nil && len(r.Value) == 0 && len(r.Headers) == 0
}

// sealedKid reads the kid of a value sealed in either format.
func sealedKid(value []byte) (abi.Kid, bool) {
	if len(value) == 0 {
		return abi.Kid{}, false
	}
	switch value[0] {
	case wire.PackedMagic:
		h, err := wire.ParsePackedHeader(value)
		return h.Kid, err == nil
	case wire.RecordMagic:
		h, err := wire.ParseRecordHeader(value)
		return h.Kid, err == nil
	}
	return abi.Kid{}, false
}
