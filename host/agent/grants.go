package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// ReadGrants returns the grants with a wrap for node, and the shares for it, that the broker
// appended at from or later, as it holds them now: nothing is verified. It is for reports; an
// agent follows its partition itself.
func ReadGrants(ctx context.Context, operator []kgo.Opt, node wire.NodeID, from time.Time) (grants []*wire.Grant, shares []*wire.KeyShare, err error) {
	cl, err := newClient(operator,
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(), // only their offsets count
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	if err := ping(ctx, cl); err != nil {
		return nil, nil, err
	}
	partition := keyring.GrantPartition(node)
	end, err := listOffset(ctx, cl, grantsTopic, partition, listEnd)
	if err != nil {
		return nil, nil, err
	}
	next, err := listOffset(ctx, cl, grantsTopic, partition, max(from.UnixMilli(), 0))
	if err != nil {
		return nil, nil, err
	}
	if next < 0 || next >= end {
		return nil, nil, nil // nothing is that new
	}
	cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{grantsTopic: {partition: kgo.NewOffset().At(next)}})
	for next < end {
		before := next
		fetches := poll(ctx, cl)
		for _, e := range fetches.Errors() {
			return nil, nil, fmt.Errorf("topic %s, partition %d: read to offset %d of %d: %w", grantsTopic, partition, next, end, e.Err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			next = rec.Offset + 1
			if rec.Attrs.IsControl() {
				return
			}
			if g, err := wire.ParseGrant(rec.Value); err == nil && g.Wrap(node) != nil {
				grants = append(grants, g)
			}
			if k, err := wire.ParseKeyShare(rec.Value); err == nil && k.Recipient == node {
				shares = append(shares, k)
			}
		})
		if next == before {
			return nil, nil, fmt.Errorf("topic %s, partition %d: nothing follows offset %d, but the log ends at %d", grantsTopic, partition, next, end)
		}
	}
	return grants, shares, nil
}

// poll waits at most scanTimeout for records.
func poll(ctx context.Context, cl *kgo.Client) kgo.Fetches {
	ctx, cancel := context.WithTimeout(ctx, scanTimeout)
	defer cancel()
	return cl.PollFetches(ctx)
}
