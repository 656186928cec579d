// Package load produces and consumes with franz-go in this process, as fast as it goes or at
// a fixed rate. It measures from outside: nothing here knows what is between it and the broker.
package load

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A Job is what is sent where. Values are random bytes of one size, without keys: what a
// compressor cannot make smaller.
type Job struct {
	Bootstrap  string
	Topic      string
	Partitions int
	Size       int   // of a value, in bytes
	Batch      int32 // the most that one batch takes, in bytes
}

// timeout bounds every call: a stand that hangs is an error.
const timeout = 10 * time.Minute

// Batch limits in bytes: that of a Java producer that is not told otherwise, and what fits a
// broker that is not.
const (
	JavaBatch  = 16 << 10
	LargeBatch = 1_000_000
)

// Produce sends count records as fast as it can and returns how long it took until the last
// was acknowledged.
func Produce(ctx context.Context, j Job, count int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cl, err := j.producer()
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	if err := cl.Ping(ctx); err != nil {
		return 0, err
	}
	values := j.values(min(count, 64))
	var failed failure
	begin := time.Now()
	for i := range count {
		cl.Produce(ctx, &kgo.Record{Value: values[i%len(values)]}, failed.note)
	}
	err = cl.Flush(ctx)
	took := time.Since(begin)
	if first := failed.get(); first != nil {
		err = first
	}
	if err != nil {
		return 0, fmt.Errorf("producing to %s: %w", j.Topic, err)
	}
	return took, nil
}

// Consume reads the first count records of the topic from all partitions, without a group,
// and returns how long it took from the first fetch to the last record.
func Consume(ctx context.Context, j Job, count int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cl, err := j.client(j.fromStart())
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	begin, got := time.Now(), 0
	for got < count {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return 0, fmt.Errorf("consuming %s, %d of %d records: %w", j.Topic, got, count, err)
		}
		for _, e := range fetches.Errors() {
			return 0, fmt.Errorf("consuming %s, partition %d: %w", e.Topic, e.Partition, e.Err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if len(r.Value) == j.Size {
				got++
			}
		})
	}
	return time.Since(begin), nil
}

func (j Job) client(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(j.Bootstrap), kgo.ClientID("bench")}, opts...)...)
}

// producer is idempotent, waits for all replicas, leaves records as they are, and lets them
// wait 5 ms for others, as Java's does.
func (j Job) producer() (*kgo.Client, error) {
	return j.client(kgo.DefaultProduceTopic(j.Topic), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchMaxBytes(j.Batch), kgo.ProducerBatchCompression(kgo.NoCompression()))
}

// fromStart assigns every partition from its beginning.
func (j Job) fromStart() kgo.Opt {
	partitions := map[int32]kgo.Offset{}
	for i := range j.Partitions {
		partitions[int32(i)] = kgo.NewOffset().AtStart()
	}
	return kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{j.Topic: partitions})
}

func (j Job) values(n int) [][]byte {
	all := make([]byte, n*j.Size)
	rand.Read(all)
	values := make([][]byte, n)
	for i := range values {
		values[i] = all[i*j.Size : (i+1)*j.Size]
	}
	return values
}

// A failure keeps the first error of many promises.
type failure struct {
	once sync.Once
	err  atomic.Pointer[error]
}

func (f *failure) note(_ *kgo.Record, err error) {
	if err != nil {
		f.once.Do(func() { f.err.Store(&err) })
	}
}

func (f *failure) get() error {
	if err := f.err.Load(); err != nil {
		return *err
	}
	return nil
}
