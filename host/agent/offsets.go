package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// A Span is where the sealed values of one kid stand in one partition.
type Span struct {
	First, Last int64 // offsets of its first and its last record
	Records     int64 // its own between them
}

// ReadOffsets reads topics from their start to where they end now, and returns where the
// values of each kid are, by partition. Whole topics, because nothing else is certain: which
// time a record carries is the client's choice. It needs no state file and no role; operator
// is as Config.Kafka.
func ReadOffsets(ctx context.Context, operator []kgo.Opt, topics []string) (map[abi.Kid]map[int32]Span, error) {
	spans := make(map[abi.Kid]map[int32]Span)
	if len(topics) == 0 {
		return spans, nil
	}
	cl, err := newClient(operator)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	if err := ping(ctx, cl); err != nil {
		return nil, err
	}
	found, err := kadm.NewClient(cl).ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("topics: %w", err)
	}
	for _, topic := range slices.Sorted(maps.Keys(found)) {
		if err := found[topic].Err; err != nil {
			return nil, fmt.Errorf("topic %s: %w", topic, err)
		}
		for _, partition := range found[topic].Partitions.Numbers() {
			if err := readSpans(ctx, operator, topic, partition, spans); err != nil {
				return nil, err
			}
		}
	}
	return spans, nil
}

// readSpans adds those of one partition.
func readSpans(ctx context.Context, operator []kgo.Opt, topic string, partition int32, spans map[abi.Kid]map[int32]Span) error {
	cl, err := newClient(operator, kgo.FetchIsolationLevel(kgo.ReadUncommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer cl.Close()
	next, err := listOffset(ctx, cl, topic, partition, listStart)
	if err != nil {
		return err
	}
	end, err := listOffset(ctx, cl, topic, partition, listEnd)
	if err != nil || next >= end {
		return err
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(next)}})
	for next < end {
		before := next
		fetches := poll(ctx, cl)
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s, partition %d: read to offset %d of %d: %w", topic, partition, next, end, e.Err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			next = rec.Offset + 1
			kid, sealed := sealedKid(rec.Value)
			if !sealed || rec.Attrs.IsControl() {
				return
			}
			records := int64(1)
			if h, err := wire.ParsePackedHeader(rec.Value); err == nil {
				records = int64(h.NumRecords)
			}
			if spans[kid] == nil {
				spans[kid] = make(map[int32]Span)
			}
			s, known := spans[kid][partition]
			if !known {
				s.First = rec.Offset
			}
			s.Last = max(s.Last, rec.Offset+records-1)
			s.Records += records
			spans[kid][partition] = s
		})
		if next == before {
			return fmt.Errorf("topic %s, partition %d: nothing follows offset %d, but the log ends at %d", topic, partition, next, end)
		}
	}
	return nil
}
