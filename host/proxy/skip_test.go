package proxy

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// refusing has the filter pass over the batches at these offsets.
func (f *fakeFilter) refusing(status abi.Status, offsets ...int64) {
	f.skipping()
	f.onOpen(func(_ context.Context, _ string, _ int32, offset int64) error {
		if slices.Contains(offsets, offset) {
			return status
		}
		return nil
	})
}

func TestAllButWhatIsPassedOverIsDelivered(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, values("v", 10)...)
	skipped := []int64{0, 3, 4, 9}
	r.filter.refusing(abi.StatusUnreadable, skipped...)
	var want []string
	for i, v := range values("v", 10) {
		if !slices.Contains(skipped, int64(i)) {
			want = append(want, fmt.Sprintf("%d %s", i, v))
		}
	}
	consumer := r.client(kgo.ConsumerGroup("billing"), from("orders"), kgo.DisableAutoCommit())
	var got []string
	for ctx := r.ctx(); len(got) < len(want); {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(rec *kgo.Record) { got = append(got, fmt.Sprintf("%d %s", rec.Offset, rec.Value)) })
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if n := r.proxy.Stats().Skipped[abi.StatusUnreadable]; n < uint64(len(skipped)-1) {
		t.Errorf("%d batches are counted as passed over", n)
	}
	if n := len(r.proxy.Stats().OpenRefused); n != 0 {
		t.Errorf("refusals are counted for %d reasons", n)
	}
	// What comes after the last one is reached.
	r.produce(r.client(), "orders", 0, "later")
	if got := r.consume(consumer, 1); !slices.Equal(got, []string{"later"}) {
		t.Errorf("then %v", got)
	}
}

// TestNothingOfAnAbortedTransactionIsDeliveredAroundWhatIsPassedOver is why the marker names
// no producer: one that did would end the filter of the transaction that it stands in.
func TestNothingOfAnAbortedTransactionIsDeliveredAroundWhatIsPassedOver(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	producer := r.client(kgo.TransactionalID("writer"))
	for _, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		name := map[kgo.TransactionEndTry]string{kgo.TryCommit: "committed", kgo.TryAbort: "aborted"}[end]
		r.produce(producer, "orders", 0, values(name, 3)...)
		if err := producer.EndTransaction(r.ctx(), end); err != nil {
			t.Fatal(err)
		}
	}
	// Offsets 0 to 2 and a marker, 4 to 6 aborted and a marker, 8 to 10 and a marker.
	r.filter.refusing(abi.StatusUnauthentic, 1, 5, 9)
	want := []string{"committed0000", "committed0002", "committed0000", "committed0002"}
	got := r.consume(r.client(from("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted())), len(want))
	if !slices.Equal(got, want) {
		t.Errorf("read_committed got %v, want %v", got, want)
	}
}

// TestShareGroupIsRidOfWhatIsPassedOver: its offsets stay acquired, so that the client
// acknowledges them, and the broker never sends them again.
func TestShareGroupIsRidOfWhatIsPassedOver(t *testing.T) {
	filter := &fakeFilter{}
	p := &Proxy{filter: filter, log: quietLog(), cfg: Config{FetchHold: time.Millisecond}}
	c := &conn{p: p, log: quietLog(), ctx: t.Context()}
	id := [16]byte{1}
	p.topics.learn(id, "orders")
	part := kmsg.NewShareFetchResponseTopicPartition()
	for offset := range 3 {
		sealed, err := filter.SealTo(t.Context(), nil, "orders", 0, batchOf("x"))
		if err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint64(sealed, uint64(offset))
		part.Records = append(part.Records, sealed...)
	}
	acquired := kmsg.NewShareFetchResponseTopicPartitionAcquiredRecord()
	acquired.LastOffset, acquired.DeliveryCount = 2, 1
	part.AcquiredRecords = append(part.AcquiredRecords, acquired)
	topic := kmsg.NewShareFetchResponseTopic()
	topic.TopicID, topic.Partitions = id, append(topic.Partitions, part)
	resp := kmsg.NewPtrShareFetchResponse()
	resp.Version, resp.Topics = 1, append(resp.Topics, topic)

	filter.refusing(abi.StatusUnreadable, 0, 2)
	out, err := c.openShareFetch(1, resp.AppendTo(nil))
	if err != nil {
		t.Fatal(err)
	}
	got := kmsg.NewPtrShareFetchResponse()
	got.Version = 1
	if err := got.ReadFrom(out.Append(nil)); err != nil {
		t.Fatal(err)
	}
	part = got.Topics[0].Partitions[0]
	if part.ErrorCode != 0 || countBatches(part.Records) != 3 || len(part.AcquiredRecords) != 1 ||
		part.AcquiredRecords[0].FirstOffset != 0 || part.AcquiredRecords[0].LastOffset != 2 {
		t.Errorf("partition %+v", part)
	}
}

func TestShareGroupsConsumeAroundWhatIsPassedOver(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.cluster.SetGroupConfigs("workers", map[string]string{"share.auto.offset.reset": "earliest"})
	all := values("v", 20)
	r.produce(r.client(), "orders", 0, all...)
	r.filter.refusing(abi.StatusUnreadable, 0, 7, 8, 19)
	want := slices.Concat(all[1:7], all[9:19])
	got := r.consume(r.client(kgo.ShareGroup("workers"), from("orders")), len(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
