package clients

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// FranzGo is franz-go, in this process. It does transactions and pacing, and is idempotent
// always.
var FranzGo = Client{
	Name:   "franz-go",
	Codecs: []string{"none", "gzip", "snappy", "lz4", "zstd"},
	Shape: records.Shape{Partitions: 3, Binary: true, Headers: true, NullHeaders: true, NullKeys: true,
		EmptyKeys: true, NullValues: true, EmptyValues: true, Timestamps: true},
	Produce: franzProduce,
	Consume: franzConsume,
}

var franzCodecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func franzProduce(ctx context.Context, j Job) error {
	ctx, cancel := context.WithTimeout(ctx, j.timeout())
	defer cancel()
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(j.Bootstrap, ",")...),
		kgo.DefaultProduceTopic(j.Topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(franzCodecs[j.codec()]),
		kgo.ProducerLinger(20 * time.Millisecond),
	}
	if j.Transaction > 0 {
		opts = append(opts, kgo.TransactionalID(j.Topic))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return err
	}
	defer cl.Close()
	var first error
	var once sync.Once
	failed := func(_ *kgo.Record, err error) {
		if err != nil {
			once.Do(func() { first = err; cancel() })
		}
	}
	begun := time.Now()
	for i := range j.Records {
		if j.Transaction > 0 && i%j.Transaction == 0 {
			if err := cl.BeginTransaction(); err != nil {
				return err
			}
		}
		if j.PerSecond > 0 {
			select {
			case <-time.After(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(j.PerSecond)))):
			case <-ctx.Done():
			}
		}
		cl.Produce(ctx, toFranz(&j.Records[i]), failed)
		if j.Transaction > 0 && (i+1)%j.Transaction == 0 {
			if err := cl.Flush(ctx); err != nil {
				return franzError(ctx, first, err)
			}
			if err := cl.EndTransaction(ctx, kgo.TransactionEndTry(!j.Aborted(i))); err != nil {
				return err
			}
		}
	}
	return franzError(ctx, first, cl.Flush(ctx))
}

// franzError prefers what the broker said about a record to what that made of the context.
func franzError(ctx context.Context, first, err error) error {
	switch {
	case first != nil && !errors.Is(first, context.DeadlineExceeded):
		return first
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrTimeout, ctx.Err())
	}
	return err
}

func franzConsume(ctx context.Context, j Job) ([]records.Record, error) {
	isolation := kgo.ReadUncommitted()
	if j.isolation() == "read_committed" {
		isolation = kgo.ReadCommitted()
	}
	return FranzConsume(ctx, j, kgo.ConsumerGroup(j.Group), kgo.FetchIsolationLevel(isolation))
}

// FranzConsume consumes as FranzGo does, with more options, and without a group unless one
// is among them.
func FranzConsume(ctx context.Context, j Job, opts ...kgo.Opt) ([]records.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, j.timeout())
	defer cancel()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(j.Bootstrap, ",")...),
		kgo.ConsumeTopics(j.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(100 * time.Millisecond),
	}, opts...)...)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	var got []records.Record
	for len(got) < j.Count {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(r *kgo.Record) { got = append(got, fromFranz(r)) })
		if ctx.Err() != nil {
			return got, fmt.Errorf("%w: %d of %d records", ErrTimeout, len(got), j.Count)
		}
		for _, e := range fetches.Errors() {
			return got, fmt.Errorf("topic %s, partition %d: %w", e.Topic, e.Partition, e.Err)
		}
	}
	return got, nil
}

func toFranz(r *records.Record) *kgo.Record {
	k := &kgo.Record{Partition: r.Partition, Key: r.Key, Value: r.Value}
	if r.Timestamp >= 0 {
		k.Timestamp = time.UnixMilli(r.Timestamp)
	}
	for _, h := range r.Headers {
		k.Headers = append(k.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
	}
	return k
}

func fromFranz(k *kgo.Record) records.Record {
	r := records.Record{Partition: k.Partition, Offset: k.Offset, Timestamp: k.Timestamp.UnixMilli(), Key: k.Key, Value: k.Value}
	for _, h := range k.Headers {
		r.Headers = append(r.Headers, records.Header{Name: h.Key, Value: h.Value})
	}
	return r
}
