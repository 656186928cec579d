package proxy

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// pollError polls until a fetch error comes, and returns the values before it.
func pollError(r *rig, cl *kgo.Client) (values []string, err error) {
	r.Helper()
	ctx := r.ctx()
	for err == nil {
		fetches := cl.PollFetches(ctx)
		fetches.EachRecord(func(rec *kgo.Record) { values = append(values, string(rec.Value)) })
		err = fetches.Err()
	}
	return values, err
}

func TestUnreadableBatchIsAnErrorAfterWhatCameBefore(t *testing.T) {
	for _, status := range []abi.Status{abi.StatusUnauthentic, abi.StatusUnreadable, abi.StatusErased,
		abi.StatusPlaintext, abi.StatusNotEntitled, abi.StatusCorrupt, abi.StatusMalformed, abi.StatusInternal} {
		r := newRig(t, nil, nil)
		r.createTopic("orders", 1)
		r.produce(r.client(), "orders", 0, "a", "b", "c", "d")
		r.filter.onOpen(func(_ context.Context, _ string, _ int32, offset int64) error {
			if offset == 2 {
				return status
			}
			return nil
		})
		start := time.Now()
		consumer := r.client(from("orders"))
		got, err := pollError(r, consumer)
		if !slices.Equal(got, []string{"a", "b"}) || !errors.Is(err, kerr.TopicAuthorizationFailed) {
			t.Errorf("%v: got %v and %v", status, got, err)
		}
		if spent := time.Since(start); spent > 10*time.Second {
			t.Errorf("%v: the error took %v", status, spent)
		}
		for range 3 {
			pollError(r, consumer)
		}
		if n := r.logged.count("cannot be opened", "topic=orders", "partition=0", "offset=2", "hint="); n != 1 {
			t.Errorf("%v: %d log lines, want 1", status, n)
		}
		if r.proxy.Stats().OpenRefused[status] == 0 {
			t.Errorf("%v is not counted", status)
		}
	}
}

func TestInjectedPlaintextIsNotDelivered(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.direct(), "orders", 0, "injected")
	got, err := pollError(r, r.client(from("orders")))
	if len(got) != 0 || !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("got %v and %v", got, err)
	}
}

func TestDeniedPartitionLooksLikeKafkas(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 2)
	r.produce(r.client(), "orders", 0, "x")
	r.produce(r.client(), "orders", 1, "y")
	r.filter.onOpen(func(_ context.Context, _ string, p int32, _ int64) error {
		if p == 0 {
			return abi.StatusUnauthentic
		}
		return nil
	})
	raw := dialRaw(r)
	for _, version := range []int16{4, 7, 11, 12} {
		resp := raw.roundTrip(fetchRequest(version, "orders", 0, 1)).(*kmsg.FetchResponse)
		for _, p := range resp.Topics[0].Partitions {
			switch p.Partition {
			case 0:
				if p.ErrorCode != codeTopicAuthorizationFailed || len(p.RecordBatches) != 0 || p.RecordBatches == nil ||
					p.HighWatermark != -1 || p.LastStableOffset != -1 || p.LogStartOffset != -1 {
					t.Errorf("v%d: partition %+v", version, p)
				}
			case 1:
				if p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
					t.Errorf("v%d: partition %+v", version, p)
				}
			}
		}
	}
}

func TestPendingGrantIsWaitedForAndNothingIsLost(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FetchHold = 100 * time.Millisecond }, nil)
	r.createTopic("orders", 2)
	r.produce(r.client(), "orders", 0, "a", "b", "c")
	r.produce(r.client(), "orders", 1, "free")
	var arrived atomic.Bool
	var asked atomic.Int32
	r.filter.onOpen(func(ctx context.Context, _ string, p int32, offset int64) error {
		if p == 1 || offset == 0 || arrived.Load() {
			return nil
		}
		asked.Add(1)
		<-ctx.Done() // as the agent waits for a grant
		return abi.StatusPending
	})
	consumer := r.client(from("orders"))
	got := r.consume(consumer, 2)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "free"}) {
		t.Fatalf("before the grant: %v", got)
	}
	start, before := time.Now(), asked.Load()
	r.eventually("the client asks again", func() bool { return asked.Load() >= before+5 })
	if spent := time.Since(start); spent < 4*100*time.Millisecond {
		t.Errorf("five fetches in %v: the response is not held", spent)
	}
	arrived.Store(true)
	if got := r.consume(consumer, 2); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("after the grant: %v", got)
	}
	if r.proxy.Stats().Held == 0 {
		t.Error("no fetch is counted as held")
	}
}

func TestPartitionsWaitForGrantsTogether(t *testing.T) {
	const hold = 300 * time.Millisecond
	r := newRig(t, func(c *Config) { c.FetchHold = hold }, nil)
	r.createTopic("orders", 20)
	producer := r.client()
	for p := range int32(20) {
		r.produce(producer, "orders", p, "x")
	}
	r.filter.onOpen(func(ctx context.Context, _ string, _ int32, _ int64) error {
		<-ctx.Done()
		return abi.StatusPending
	})
	raw := dialRaw(r)
	start := time.Now()
	resp := raw.roundTrip(fetchRequest(12, "orders", 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)).(*kmsg.FetchResponse)
	if spent := time.Since(start); spent < hold || spent > 2*hold {
		t.Errorf("held for %v, want %v", spent, hold)
	}
	for _, p := range resp.Topics[0].Partitions {
		if p.ErrorCode != 0 || len(p.RecordBatches) != 0 || p.HighWatermark != 1 {
			t.Errorf("partition %+v", p)
		}
	}
}

func TestBusyFilterIsNotMistakenForAPendingGrant(t *testing.T) {
	r := newRig(t, func(c *Config) { c.FetchHold = 50 * time.Millisecond }, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "x")
	var calls atomic.Int32
	r.filter.onOpen(func(ctx context.Context, _ string, _ int32, _ int64) error {
		if calls.Add(1) < busyTries {
			<-ctx.Done()
			return errors.Join(abi.StatusUnavailable, ctx.Err())
		}
		return nil
	})
	raw := dialRaw(r)
	resp := raw.roundTrip(fetchRequest(12, "orders", 0)).(*kmsg.FetchResponse)
	if len(resp.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Error("the batch did not come with the first response")
	}
}

func TestFetchOfUnknownTopicIDIsNeverPassedUnopened(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.direct(), "orders", 0, "injected")
	req := fetchRequest(13, "", 0)
	req.Topics[0].TopicID = topicID(r, "orders")
	resp := dialRaw(r).roundTrip(req).(*kmsg.FetchResponse)
	if p := resp.Topics[0].Partitions[0]; p.ErrorCode != codeUnknownTopicID || len(p.RecordBatches) != 0 {
		t.Errorf("partition %+v", p)
	}
}

// After a restart of the sidecar a client's Fetch may come before its Metadata.
func TestFetchWaitsUntilMetadataTellsItsTopicID(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "sealed")
	id := topicID(r, "orders")
	r.proxy.topics.mu.Lock()
	clear(r.proxy.topics.names)
	r.proxy.topics.mu.Unlock()
	req := fetchRequest(13, "", 0)
	req.Topics[0].TopicID = id
	raw := dialRaw(r)
	raw.send(req)
	ctx := r.ctx()
	for waits := false; !waits && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		r.proxy.topics.mu.Lock()
		waits = r.proxy.topics.told != nil
		r.proxy.topics.mu.Unlock()
	}
	metadata := kmsg.NewPtrMetadataRequest()
	metadata.Version = 12
	dialRaw(r).roundTrip(metadata)
	answer, err := raw.receive()
	if err != nil {
		t.Fatal(err)
	}
	if p := answer.(*kmsg.FetchResponse).Topics[0].Partitions[0]; p.ErrorCode != 0 || len(p.RecordBatches) == 0 {
		t.Errorf("error %d, %d bytes", p.ErrorCode, len(p.RecordBatches))
	}
}

func TestSlowReaderDoesNotBlockOthers(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.createTopic("big", 1)
	producer := r.client(kgo.ProducerBatchMaxBytes(1000000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	for range 6 {
		r.produce(producer, "big", 0, string(make([]byte, 900000)))
	}
	var slow []*rawConn
	for range 3 {
		raw := dialRaw(r)
		for range 4 {
			raw.send(fetchRequest(12, "big", 0)) // 5 MB each, never read
		}
		slow = append(slow, raw)
	}
	for _, v := range values("v", 50) {
		r.produce(producer, "orders", 0, v)
	}
	r.consume(r.client(from("orders")), 50)
	for _, raw := range slow {
		raw.conn.Close()
	}
	r.eventually("the slow connections are gone", func() bool { return r.proxy.Stats().Open <= 6 })
}

func TestShareFetchAcquiresOnlyWhatIsDelivered(t *testing.T) {
	filter := &fakeFilter{}
	p := &Proxy{filter: filter, log: quietLog(), cfg: Config{FetchHold: time.Millisecond}}
	c := &conn{p: p, log: quietLog(), ctx: t.Context()}
	known, unknown := [16]byte{1}, [16]byte{2}
	p.topics.learn(known, "orders")

	var records []byte
	for offset := range 3 {
		sealed, err := filter.SealTo(t.Context(), nil, "orders", 0, batchOf("x"))
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint64(sealed, uint64(offset))
		records = append(records, sealed...)
	}
	resp := kmsg.NewPtrShareFetchResponse()
	resp.Version = 1
	for _, id := range [][16]byte{known, unknown} {
		topic := kmsg.NewShareFetchResponseTopic()
		topic.TopicID = id
		part := kmsg.NewShareFetchResponseTopicPartition()
		part.Records = records
		acquired := kmsg.NewShareFetchResponseTopicPartitionAcquiredRecord()
		acquired.LastOffset, acquired.DeliveryCount = 2, 1
		part.AcquiredRecords = append(part.AcquiredRecords, acquired)
		topic.Partitions = append(topic.Partitions, part)
		resp.Topics = append(resp.Topics, topic)
	}
	body := resp.AppendTo(nil)

	for _, test := range []struct {
		name     string
		failAt   int64
		status   abi.Status
		code     int16
		batches  int
		acquired int64 // last offset; -1 for none
	}{
		{"whole", -1, abi.StatusOK, 0, 3, 2},
		{"after two", 2, abi.StatusUnauthentic, 0, 2, 1},
		{"at once", 0, abi.StatusUnauthentic, codeTopicAuthorizationFailed, 0, -1},
		{"pending", 0, abi.StatusPending, 0, 0, -1},
	} {
		filter.onOpen(func(_ context.Context, _ string, _ int32, offset int64) error {
			if offset == test.failAt {
				return test.status
			}
			return nil
		})
		out, err := c.openShareFetch(1, body)
		if err != nil {
			t.Fatal(err)
		}
		got := kmsg.NewPtrShareFetchResponse()
		got.Version = 1
		if err := got.ReadFrom(out.Append(nil)); err != nil {
			t.Fatal(err)
		}
		part := got.Topics[0].Partitions[0]
		last := int64(-1)
		for _, a := range part.AcquiredRecords {
			last = a.LastOffset
		}
		if part.ErrorCode != test.code || countBatches(part.Records) != test.batches || last != test.acquired {
			t.Errorf("%s: code %d, %d batches, acquired to %d", test.name, part.ErrorCode, countBatches(part.Records), last)
		}
		other := got.Topics[1].Partitions[0]
		if other.ErrorCode != codeUnknownTopicID || len(other.Records) != 0 || len(other.AcquiredRecords) != 0 {
			t.Errorf("%s: the unknown topic came as %+v", test.name, other)
		}
	}
}

func TestShareGroupsConsumeThroughTheSidecar(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.cluster.SetGroupConfigs("workers", map[string]string{"share.auto.offset.reset": "earliest"})
	want := values("v", 20)
	r.produce(r.client(), "orders", 0, want...)
	consumer := r.client(kgo.ShareGroup("workers"), from("orders"))
	got := r.consume(consumer, len(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
}

func TestConcurrentProducersAndConsumers(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 4)
	const each = 200
	var wg sync.WaitGroup
	for p := range int32(4) {
		producer := r.client()
		wg.Go(func() {
			for _, v := range values("v", each) {
				if err := r.tryProduce(producer, "orders", p, v); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 3 {
		consumer := r.client(from("orders"))
		wg.Go(func() {
			seen := map[int32]int64{}
			ctx := r.ctx()
			for n := 0; n < 4*each; {
				fetches := consumer.PollFetches(ctx)
				if err := fetches.Err(); err != nil {
					t.Error(err)
					return
				}
				fetches.EachRecord(func(rec *kgo.Record) {
					if seen[rec.Partition] != rec.Offset {
						t.Errorf("partition %d: offset %d where %d was due", rec.Partition, rec.Offset, seen[rec.Partition])
					}
					seen[rec.Partition]++
					n++
				})
			}
		})
	}
	wg.Wait()
}

func countBatches(b []byte) int {
	n := 0
	for len(b) > 0 {
		size, err := kafka.BatchSize(b)
		if err != nil {
			return -1
		}
		b = b[size:]
		n++
	}
	return n
}

func TestDenialsAreNotAskedForWithoutPause(t *testing.T) {
	const hold = 100 * time.Millisecond
	r := newRig(t, func(c *Config) { c.FetchHold = hold }, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "x")
	var asked atomic.Int32
	r.filter.onOpen(func(context.Context, string, int32, int64) error {
		asked.Add(1)
		return abi.StatusUnauthentic
	})
	consumer := r.client(from("orders"))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		for ctx.Err() == nil {
			consumer.PollFetches(ctx) // an application that keeps trying
		}
	}()
	r.eventually("the client asks", func() bool { return asked.Load() > 0 })
	start, before := time.Now(), asked.Load()
	r.eventually("the client asks again", func() bool { return asked.Load() >= before+4 })
	if spent := time.Since(start); spent < 3*hold {
		t.Errorf("four fetches in %v: denials are not held", spent)
	}
}
