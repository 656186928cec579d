package proxy

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
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

// refusing makes the filter refuse one partition with a status.
func refusing(topic string, partition int32, status abi.Status) func(context.Context, string, int32) error {
	return func(_ context.Context, t string, p int32) error {
		if t == topic && p == partition {
			return status
		}
		return nil
	}
}

func TestRefusedPartitionDoesNotStopTheOthers(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 3)
	r.createTopic("bills", 1)
	r.filter.onSeal(refusing("orders", 1, abi.StatusNoRecipient))
	producer := r.client(kgo.ProducerLinger(50*time.Millisecond), kgo.RecordRetries(3))

	var mu sync.Mutex
	failed := map[string]error{}
	for _, rec := range []*kgo.Record{
		{Topic: "orders", Partition: 0, Value: []byte("a")},
		{Topic: "orders", Partition: 1, Value: []byte("b")},
		{Topic: "orders", Partition: 2, Value: []byte("c")},
		{Topic: "bills", Partition: 0, Value: []byte("d")},
	} {
		producer.Produce(r.ctx(), rec, func(rec *kgo.Record, err error) {
			mu.Lock()
			defer mu.Unlock()
			failed[string(rec.Value)] = err
		})
	}
	if err := producer.Flush(r.ctx()); err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"a", "c", "d"} {
		if failed[v] != nil {
			t.Errorf("%s: %v", v, failed[v])
		}
	}
	if !errors.Is(failed["b"], kerr.PolicyViolation) {
		t.Errorf("b: %v, want POLICY_VIOLATION", failed["b"])
	}
	if got := stored(r, "orders", 1); len(got) != 0 {
		t.Errorf("the refused partition holds %q", got)
	}
	if s := r.proxy.Stats(); s.Sealed != 3 || s.SealRefused[abi.StatusNoRecipient] == 0 {
		t.Errorf("stats %+v", s)
	}
	if r.logged.count("produce refused", "orders", "hint=") != 1 {
		t.Error("want one log line about the refusal")
	}
}

func TestRefusalOfEverythingIsAnsweredWithReasonAndHint(t *testing.T) {
	for _, version := range []int16{3, 7, 8, 9, 12} {
		r := newRig(t, nil, nil)
		r.createTopic("orders", 2)
		r.filter.onSeal(func(context.Context, string, int32) error { return abi.StatusCompacted })
		raw := dialRaw(r)
		req := produceRequest(version, -1, "orders", batchOf("x"), batchOf("y"))
		resp := raw.roundTrip(req).(*kmsg.ProduceResponse)
		for _, p := range resp.Topics[0].Partitions {
			if p.ErrorCode != codePolicyViolation || p.BaseOffset != -1 {
				t.Errorf("v%d: partition %+v", version, p)
			}
			if version >= 8 && (p.ErrorMessage == nil || !strings.Contains(*p.ErrorMessage, "hint: ")) {
				t.Errorf("v%d: no hint in %v", version, p.ErrorMessage)
			}
		}
		if len(resp.Topics[0].Partitions) != 2 {
			t.Errorf("v%d: %d partitions answered", version, len(resp.Topics[0].Partitions))
		}
		if got := stored(r, "orders", 0); len(got) != 0 {
			t.Errorf("the broker holds %q", got)
		}
	}
}

func TestEveryStatusRefusesProduce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.ProduceWait = 20 * time.Millisecond }, nil)
	r.createTopic("orders", 1)
	for status := abi.StatusMalformed; status <= abi.StatusHistory; status++ {
		if status.Hint() == "" {
			continue
		}
		_, v := judge(status)
		r.filter.onSeal(func(context.Context, string, int32) error { return status })
		raw := dialRaw(r)
		raw.send(produceRequest(9, 1, "orders", batchOf("x")))
		resp, err := raw.receive()
		switch {
		case v.produce == 0:
			if !errors.Is(err, io.EOF) {
				t.Errorf("%v: got %+v, %v, want the connection closed", status, resp, err)
			}
		case err != nil:
			t.Errorf("%v: %v", status, err)
		default:
			if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != v.produce {
				t.Errorf("%v: code %d, want %d", status, code, v.produce)
			}
		}
	}
	if got := stored(r, "orders", 0); len(got) != 0 {
		t.Errorf("the broker holds %q", got)
	}
}

func TestRefusalWithoutAcksClosesTheConnection(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 2)
	raw := dialRaw(r)
	raw.send(produceRequest(9, 0, "orders", batchOf("x")))
	r.eventually("the record without acks is stored", func() bool { return len(stored(r, "orders", 0)) == 1 })

	r.filter.onSeal(refusing("orders", 1, abi.StatusNoRecipient))
	raw.send(produceRequest(9, 0, "orders", batchOf("y"), batchOf("z")))
	if _, err := raw.receive(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want the connection closed", err)
	}
	if got := stored(r, "orders", 0); len(got) != 1 {
		t.Errorf("the broker holds %d batches, want 1", len(got))
	}
	r.eventually("the reason is logged", func() bool { return r.logged.count("Produce", "acks=0", "version=9") == 1 })
}

func TestAnswersKeepTheOrderOfRequests(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 2)
	r.filter.onSeal(func(_ context.Context, _ string, p int32) error {
		if p == 1 {
			return abi.StatusNoRecipient
		}
		return nil
	})
	raw := dialRaw(r)
	// Produce requests that are forwarded, half refused or refused whole, with requests that
	// only pass and others that are answered here, and some that have no answer.
	var want []int32
	tooNew := kmsg.NewPtrApiVersionsRequest()
	tooNew.Version = 99
	for range 40 {
		for _, req := range []kmsg.Request{
			produceRequest(9, -1, "orders", batchOf("x"), batchOf("y")),
			kmsg.NewPtrMetadataRequest(),
			produceRequestAt(9, -1, "orders", 1, batchOf("y")),
			produceRequestAt(9, 0, "orders", 0, batchOf("w")),
			tooNew,
			produceRequestAt(9, -1, "orders", 0, batchOf("z")),
		} {
			id := raw.send(req)
			if p, ok := req.(*kmsg.ProduceRequest); !ok || p.Acks != 0 {
				want = append(want, id)
			}
		}
	}
	for _, id := range want {
		if got := raw.receiveID(); got != id {
			t.Fatalf("answer to %d where %d was due", got, id)
		}
	}
	if got := stored(r, "orders", 0); len(got) != 120 {
		t.Errorf("the broker holds %d batches, want 120", len(got))
	}
}

func TestProduceWaitsForALease(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	granted := make(chan struct{})
	r.filter.onSeal(func(ctx context.Context, _ string, _ int32) error {
		select {
		case <-granted:
			return nil
		case <-ctx.Done():
			return abi.StatusUnavailable
		}
	})
	time.AfterFunc(100*time.Millisecond, func() { close(granted) })
	r.produce(r.client(kgo.RecordRetries(0)), "orders", 0, "x")
}

func TestTopicWithoutLeaseIsRetriedAndDoesNotStarveOthers(t *testing.T) {
	const wait = 500 * time.Millisecond
	r := newRig(t, func(c *Config) { c.ProduceWait = wait }, nil)
	r.createTopic("cold", 1)
	r.createTopic("warm", 1)
	var calls atomic.Int32
	r.filter.onSeal(func(ctx context.Context, topic string, _ int32) error {
		if topic == "cold" {
			calls.Add(1)
			return abi.StatusUnavailable
		}
		return nil
	})
	raw := dialRaw(r)
	start := time.Now()
	for range 5 {
		req := produceRequest(9, -1, "cold", batchOf("x"))
		req.Topics = append(req.Topics, produceRequest(9, -1, "warm", batchOf("x")).Topics...)
		raw.send(req)
	}
	for range 5 {
		resp, err := raw.receive()
		if err != nil {
			t.Fatal(err)
		}
		codes := map[string]int16{}
		for _, topic := range resp.(*kmsg.ProduceResponse).Topics {
			codes[topic.Topic] = topic.Partitions[0].ErrorCode
		}
		if codes["cold"] != codeNotEnoughReplicas || codes["warm"] != 0 {
			t.Errorf("codes %v", codes)
		}
	}
	if spent := time.Since(start); spent < wait || spent > 3*wait {
		t.Errorf("five requests took %v with a wait of %v: want one long wait and short ones after it", spent, wait)
	}
	if calls.Load() < 6 {
		t.Errorf("%d attempts, want some within the first wait", calls.Load())
	}
}

func TestUnknownTopicIDIsNeverSealedUnderAGuess(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	id := topicID(r, "orders")
	raw := dialRaw(r)
	req := produceRequest(13, -1, "", batchOf("x"))
	req.Topics[0].TopicID = id
	resp := raw.roundTrip(req).(*kmsg.ProduceResponse)
	if got := resp.Topics[0]; got.TopicID != id || got.Partitions[0].ErrorCode != codeUnknownTopicID {
		t.Fatalf("answered %+v", got)
	}
	raw.roundTrip(metadataRequest("orders"))
	resp = raw.roundTrip(req).(*kmsg.ProduceResponse)
	if code := resp.Topics[0].Partitions[0].ErrorCode; code != 0 {
		t.Fatalf("code %d after Metadata", code)
	}
	if got := stored(r, "orders", 0); len(got) != 1 || !strings.HasPrefix(got[0], sealMark) {
		t.Errorf("stored %q", got)
	}
}

func TestClientsRecoverWhenTheSidecarHasForgottenTopicIDs(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	producer, consumer := r.client(), r.client(from("orders"))
	r.produce(producer, "orders", 0, "before")
	r.consume(consumer, 1)
	r.proxy.topics.mu.Lock()
	clear(r.proxy.topics.names)
	r.proxy.topics.mu.Unlock()
	r.produce(producer, "orders", 0, "after")
	if got := r.consume(consumer, 1); got[0] != "after" {
		t.Errorf("got %v", got)
	}
}

func TestTopicIDWithTwoNamesIsOfNoUse(t *testing.T) {
	var ts topics
	id := [16]byte{1}
	if _, ok := ts.name(id); ok {
		t.Error("unknown id has a name")
	}
	if !ts.learn(id, "secret") || !ts.learn(id, "secret") {
		t.Error("the same name twice is a conflict")
	}
	if name, ok := ts.name(id); !ok || name != "secret" {
		t.Errorf("name %q", name)
	}
	if ts.learn(id, "public") {
		t.Error("a second name is no conflict")
	}
	for _, again := range []string{"", "public", "secret"} {
		if again != "" {
			ts.learn(id, again)
		}
		if name, ok := ts.name(id); ok {
			t.Errorf("the id still means %q", name)
		}
	}
}

// TestTopicIDBesideAnErrorIsAConflictToo: some clients take an id from a topic that has an
// error. A broker that told it for a plain topic before would get their records as they are.
func TestTopicIDBesideAnErrorIsAConflictToo(t *testing.T) {
	const leaderNotAvailable = 5
	c := &conn{p: &Proxy{}, log: quietLog()}
	id := [16]byte{1}
	c.p.topics.learn(id, "public")
	rest := []byte{0, 1, 0x80, 0, 0, 0, 0} // not internal, no partitions, no operations, no tags
	body := (&kafka.MetadataResponse{Version: 12, Topics: []kafka.MetadataTopic{
		{ErrorCode: leaderNotAvailable, Name: "secret", ID: id, Rest: rest},
	}}).Append(nil)
	if _, err := c.rewriteMetadata(12, body); err != nil {
		t.Fatal(err)
	}
	if name, ok := c.p.topics.name(id); ok {
		t.Errorf("the id still means %q", name)
	}
}

// TestNamesOnlyPassesNoTopicID: an id that a client learned before the sidecar started may
// since have been given to a plain topic.
func TestNamesOnlyPassesNoTopicID(t *testing.T) {
	r := newRig(t, func(c *Config) { c.NamesOnly = true }, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "x")
	if got := r.consume(r.client(from("orders")), 1); got[0] != "x" {
		t.Errorf("got %v", got)
	}
	offer := kmsg.NewPtrApiVersionsRequest()
	offer.Version, offer.ClientSoftwareName, offer.ClientSoftwareVersion = 3, "test", "1"
	for _, k := range dialRaw(r).roundTrip(offer).(*kmsg.ApiVersionsResponse).ApiKeys {
		if (k.ApiKey == kafka.KeyProduce || k.ApiKey == kafka.KeyFetch) && k.MaxVersion != lastWithNames {
			t.Errorf("%s is offered up to %d", kafka.APIName(k.ApiKey), k.MaxVersion)
		}
	}
	produce := produceRequest(lastWithNames+1, -1, "", batchOf("leak"))
	produce.Topics[0].TopicID = topicID(r, "orders")
	fetch := fetchRequest(lastWithNames+1, "", 0)
	fetch.Topics[0].TopicID = topicID(r, "orders")
	for _, req := range []kmsg.Request{produce, fetch} {
		raw := dialRaw(r)
		raw.roundTrip(metadataRequest("orders"))
		raw.send(req)
		if _, err := raw.receive(); !errors.Is(err, io.EOF) {
			t.Errorf("%s by id: got %v, want the connection closed", kafka.APIName(req.Key()), err)
		}
	}
	if got := stored(r, "orders", 0); len(got) != 1 {
		t.Errorf("the broker holds %d batches", len(got))
	}
}

func TestNamesThatNoTopicHasAreNotRemembered(t *testing.T) {
	var ts topics
	long := strings.Repeat("x", abi.MaxTopicLen+1)
	if ts.learn([16]byte{1}, long); len(ts.names) != 0 {
		t.Error("a name that is too long is kept")
	}
	ts.learn([16]byte{2}, "public")
	if ts.learn([16]byte{2}, long) {
		t.Error("a second name is no conflict")
	}
}

func TestTransactionsPass(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	producer := r.client(kgo.TransactionalID("tx"))
	for i, v := range values("v", 6) {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		r.produce(producer, "orders", 0, v)
		commit := kgo.TransactionEndTry(i%2 == 0)
		if err := producer.EndTransaction(r.ctx(), commit); err != nil {
			t.Fatal(err)
		}
	}
	got := r.consume(r.client(from("orders"), kgo.FetchIsolationLevel(kgo.ReadCommitted())), 3)
	if want := []string{"v0000", "v0002", "v0004"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestTopicMadeAgainGetsItsNewID(t *testing.T) {
	r := newRig(t, nil, nil)
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "old")
	if err := r.cluster.DeleteTopic("orders"); err != nil {
		t.Fatal(err)
	}
	r.createTopic("orders", 1)
	r.produce(r.client(), "orders", 0, "new")
	if got := r.consume(r.client(from("orders")), 1); got[0] != "new" {
		t.Errorf("got %v", got)
	}
}
