package demo

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// An order is one record that the producer sent.
type order struct {
	key, value, trace string
	partition         int32
	offset            int64
	received          string // the value that came out, "" before it did
}

// A flow is what happened while records flowed.
type flow struct {
	orders []*order
	equal  int
	extra  int    // received, but never sent or not for the first time
	middle []byte // the consumer's state in the middle
	sent   int    // when that was copied
	copied time.Time
}

// pace is the time between two Produce requests: slow enough to read along.
const pace = 300 * time.Millisecond

// flow produces through the producer's sidecar and consumes through the consumer's, with
// plain clients that know nothing of encryption, and shows each record at the three places.
func (s *stage) flow(ctx context.Context, duration time.Duration) (*flow, error) {
	f := &flow{}
	producer, err := kgo.NewClient(kgo.SeedBrokers(s.producer.addr), kgo.DefaultProduceTopic(s.topic),
		kgo.RecordDeliveryTimeout(30*time.Second))
	if err != nil {
		return nil, err
	}
	defer producer.Close()
	consumer, err := kgo.NewClient(kgo.SeedBrokers(s.consumer.addr), kgo.ConsumeTopics(s.topic),
		kgo.ConsumerGroup(s.group()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.AutoCommitInterval(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer consumer.Close()
	spy, err := kgo.NewClient(kgo.SeedBrokers(s.bootstrap), kgo.ConsumeTopics(s.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer spy.Close()
	s.out.step("clients    a plain franz-go producer and consumer (group %s); they know nothing of encryption", s.group())
	s.out.step("rotation   a new epoch, and new keys, every %s; by default every 3 minutes\n", timing.Epoch)
	s.out.header()

	epochs := s.watchEpochs()
	for begin := time.Now(); time.Since(begin) < duration; {
		batch, err := f.produce(ctx, producer)
		if err != nil {
			return nil, err
		}
		stored, err := s.stored(ctx, spy, batch)
		if err != nil {
			return nil, err
		}
		epochs.show(stored)
		if err := f.receive(ctx, consumer, batch); err != nil {
			return nil, err
		}
		for i, o := range batch {
			s.out.row(o, i, stored)
		}
		if f.middle == nil && time.Since(begin) > duration/2 {
			if f.middle, err = os.ReadFile(s.stateFile); err != nil {
				return nil, err
			}
			f.sent, f.copied = len(f.orders), time.Now()
			s.out.note("an attacker copies the consumer's whole state now, after %d records", f.sent)
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := consumer.CommitUncommittedOffsets(ctx); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return f, nil
}

// produce sends one batch: mostly one record, now and then three.
func (f *flow) produce(ctx context.Context, client *kgo.Client) ([]*order, error) {
	n := 1
	if len(f.orders)%8 == 5 {
		n = 3
	}
	var batch []*order
	var records []*kgo.Record
	for range n {
		i := len(f.orders)
		o := &order{
			key:   fmt.Sprintf("customer-%d", 100+i/8%7),
			value: fmt.Sprintf("order %d: %d coffee, %d.%02d EUR", i+1, i%5+1, (i%5+1)*3, i*7%100),
			trace: fmt.Sprintf("trace-%04d", i),
		}
		f.orders = append(f.orders, o)
		batch = append(batch, o)
		records = append(records, &kgo.Record{Key: []byte(o.key), Value: []byte(o.value),
			Headers: []kgo.RecordHeader{{Key: "trace", Value: []byte(o.trace)}}})
	}
	for i, r := range client.ProduceSync(ctx, records...) {
		if r.Err != nil {
			return nil, fmt.Errorf("producing %q: %w", batch[i].value, r.Err)
		}
	}
	for i, r := range records {
		batch[i].partition, batch[i].offset = r.Partition, r.Offset
	}
	return batch, nil
}

// receive polls until every order of the batch has come out of the consumer's sidecar.
func (f *flow) receive(ctx context.Context, client *kgo.Client, batch []*order) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for !all(batch) {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return fmt.Errorf("consuming: %w", err)
		}
		fetches.EachRecord(f.match)
	}
	return nil
}

func all(batch []*order) bool {
	for _, o := range batch {
		if o.received == "" {
			return false
		}
	}
	return true
}

// match compares one received record with the one that was sent to its place.
func (f *flow) match(r *kgo.Record) {
	for i := len(f.orders) - 1; i >= 0; i-- {
		o := f.orders[i]
		if o.partition != r.Partition || o.offset != r.Offset {
			continue
		}
		if o.received != "" || string(r.Key) != o.key || string(r.Value) != o.value ||
			len(r.Headers) != 1 || string(r.Headers[0].Value) != o.trace {
			break
		}
		o.received = string(r.Value)
		f.equal++
		return
	}
	f.extra++
}

// stored waits until the broker serves the batch to somebody without keys, and returns the
// record that carries it.
func (s *stage) stored(ctx context.Context, spy *kgo.Client, batch []*order) (*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	first := batch[0]
	for {
		fetches := spy.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("reading the broker: %w", err)
		}
		var found *kgo.Record
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Partition == first.partition && r.Offset == first.offset {
				found = r
			}
		})
		if found != nil {
			return found, nil
		}
	}
}

// inTheClear reports whether a stored record shows anything of what was sent.
func inTheClear(orders []*order, fields ...[]byte) bool {
	for _, o := range orders {
		for _, field := range fields {
			for _, text := range []string{o.key, o.value, o.trace} {
				if bytes.Contains(field, []byte(text)) {
					return true
				}
			}
		}
	}
	return false
}

// An epochWatch announces epochs as they begin, and roots as they go.
type epochWatch struct {
	s      *stage
	kid    abi.Kid
	number int
	erased uint64
}

func (s *stage) watchEpochs() *epochWatch { return &epochWatch{s: s} }

func (w *epochWatch) show(stored *kgo.Record) {
	if erased := w.s.consumer.Snapshot().RootsErased; erased > w.erased {
		w.s.out.note("the consumer erased the keys of %d consumed epoch(s): nobody can read those again", erased-w.erased)
		w.erased = erased
	}
	header, err := wire.ParsePackedHeader(stored.Value)
	if err != nil || header.Kid == w.kid {
		return
	}
	w.kid = header.Kid
	w.number++
	w.s.out.note("epoch %d begins: fresh keys, kid %x, granted to the consumer through the broker", w.number, header.Kid)
}
