package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Latencies are times from when a record was due to be sent to when a consumer had it, in
// milliseconds, ascending.
type Latencies []float64

// warmLength is for how long the load is offered before it counts: every partition has then
// been written and read, by clients and proxies that know it.
const warmLength = time.Second

// Paced offers rate records a second for a while and returns their latencies, producer and
// consumer over the same way. A record that is sent late counts from when it was due. The
// topic must be new.
func Paced(ctx context.Context, j Job, rate int, length time.Duration) (Latencies, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	producer, err := j.producer()
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	consumer, err := j.client(j.fromStart(), kgo.FetchMaxWait(500*time.Millisecond), kgo.FetchMinBytes(1))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	if _, err := paced(ctx, j, producer, consumer, rate, warmLength); err != nil {
		return nil, err
	}
	latencies, err := paced(ctx, j, producer, consumer, rate, length)
	slices.Sort(latencies)
	return latencies, err
}

// paced offers the load once and returns when all of it is received.
func paced(ctx context.Context, j Job, producer, consumer *kgo.Client, rate int, length time.Duration) (Latencies, error) {
	count := int(length.Seconds() * float64(rate))
	latencies, received := make(Latencies, 0, count), make(chan error, 1)
	begin := time.Now()
	go func() {
		for len(latencies) < count {
			fetches := consumer.PollFetches(ctx)
			if err := fetches.Err(); err != nil {
				received <- fmt.Errorf("consuming %s, %d of %d records: %w", j.Topic, len(latencies), count, err)
				return
			}
			now := time.Since(begin)
			fetches.EachRecord(func(r *kgo.Record) {
				latencies = append(latencies, float64(int64(now)-int64(binary.LittleEndian.Uint64(r.Value)))/1e6)
			})
		}
		received <- nil
	}()
	var failed failure
	for i := range count {
		due := time.Duration(i) * time.Second / time.Duration(rate)
		// Sleeps are as coarse as the system's timer: what is due by then goes together.
		if wait := due - time.Since(begin); wait > 0 {
			time.Sleep(wait)
		}
		value := make([]byte, max(8, j.Size))
		binary.LittleEndian.PutUint64(value, uint64(due))
		producer.Produce(ctx, &kgo.Record{Value: value}, failed.note)
	}
	if err := producer.Flush(ctx); err != nil {
		return nil, err
	}
	if err := failed.get(); err != nil {
		return nil, fmt.Errorf("producing to %s: %w", j.Topic, err)
	}
	err := <-received
	return latencies, err
}
