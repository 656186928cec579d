// Package adversary is the attacker of PROTOCOL.md §3: somebody who has every byte the
// broker ever stored, and a copy of everything that one node held at some moment. It tries
// every key it can derive on everything, and is bound by no rule that honest nodes follow.
// The demo and the tests use the same code.
package adversary

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// A Value is one record of a data topic as the broker stores it.
type Value struct {
	Topic     string
	Partition int32
	Offset    int64
	Time      time.Time
	Key       []byte
	Bytes     []byte
	Headers   []kgo.RecordHeader
}

// A Log is everything that the broker stored: the grants, what peers shared, and the data.
type Log struct {
	Grants []*wire.Grant
	Shares []*wire.KeyShare
	Values []Value
}

// Collect reads the grants topic and the data topics from their start to their present end.
func Collect(ctx context.Context, opts []kgo.Opt, topics ...string) (*Log, error) {
	opts = append(append([]kgo.Opt{}, opts...),
		kgo.ConsumeTopics(append(topics, keyring.GrantsTopic)...),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, append(topics, keyring.GrantsTopic)...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("end offsets: %w", err)
	}
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, append(topics, keyring.GrantsTopic)...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("start offsets: %w", err)
	}
	open := map[string]map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(o.Topic, o.Partition); ok && start.Offset < o.Offset {
			if open[o.Topic] == nil {
				open[o.Topic] = map[int32]int64{}
			}
			open[o.Topic][o.Partition] = o.Offset
		}
	})

	log := &Log{}
	// Control records count as read too, else a transaction's marker at the end of a
	// partition would be waited for.
	for len(open) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("reading everything the broker stored: %w", err)
		}
		if err := fetches.Err0(); err != nil {
			return nil, err
		}
		fetches.EachRecord(log.add)
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if n := len(p.Records); n > 0 && p.Records[n-1].Offset+1 >= open[p.Topic][p.Partition] {
				delete(open[p.Topic], p.Partition)
				if len(open[p.Topic]) == 0 {
					delete(open, p.Topic)
				}
			}
		})
	}
	return log, nil
}

func (l *Log) add(r *kgo.Record) {
	if r.Topic == keyring.GrantsTopic {
		if grant, err := wire.ParseGrant(r.Value); err == nil {
			l.Grants = append(l.Grants, grant)
		}
		if share, err := wire.ParseKeyShare(r.Value); err == nil {
			l.Shares = append(l.Shares, share)
		}
		return
	}
	if r.Attrs.IsControl() {
		return
	}
	l.Values = append(l.Values, Value{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset,
		Time: r.Timestamp, Key: r.Key, Bytes: r.Value, Headers: r.Headers})
}
