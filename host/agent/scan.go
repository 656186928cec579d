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
// too: whoever reads uncommitted may still want their keys (PROTOCOL.md §2.8.4).
func scan(ctx context.Context, operator []kgo.Opt, topic string, partition int32, from, to int64) (map[abi.Kid]bool, error) {
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
		return nil, err
	}
	defer cl.Close()
	kids := make(map[abi.Kid]bool)
	for next := from; next < to; {
		fetches := cl.PollFetches(ctx)
		for _, e := range fetches.Errors() {
			return nil, fmt.Errorf("topic %s, partition %d: scan for sealed values from offset %d: %w", topic, partition, next, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if kid, ok := sealedKid(r.Value); ok && r.Offset < to && !r.Attrs.IsControl() {
				kids[kid] = true
			}
			next = r.Offset + 1
		})
	}
	return kids, nil
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
