package envoy

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// learn has the client ask for Metadata that gives testID this name.
func (w *world) learn(topic string) {
	w.Helper()
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = 12
	t := kmsg.NewMetadataResponseTopic()
	t.Topic, t.TopicID = kmsg.StringPtr(topic), testID
	resp.Topics = append(resp.Topics, t)
	id := w.request(req)
	w.forwarded()
	w.respond(id, resp)
	received(w, id, 12, kmsg.NewPtrMetadataResponse())
}

func TestProducedRecordsAreSealed(t *testing.T) {
	for _, version := range []int16{3, 7, 9, 12, 13} {
		w := newWorld(t, Config{})
		w.learn("orders")
		w.lease("orders")
		w.root("orders")
		w.request(produceRequest(version, 1, "orders"))
		records := w.produced().Topics[0].Partitions[0].Records
		if strings.Contains(string(records), "secret") {
			t.Fatalf("v%d: the broker received plaintext", version)
		}
		n := len(records)
		r, s := w.filter.OpenBatch(append(records, make([]byte, 300)...), n, []byte("orders"), 0)
		if s != abi.StatusOK || r.Flags != 0 {
			t.Errorf("v%d: what was forwarded does not open: %v", version, s)
		}
	}
}

func TestProduceWaitsForALeaseAndIsThenSealed(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("warm")
	w.request(produceRequest(9, 1, "cold", "warm"))
	heartbeat := w.request(kmsg.NewPtrHeartbeatRequest())
	for range 10 {
		w.now += 100
		if err := w.stream.Resume(w.now); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.forwarded()) != 0 || !w.stream.Waiting() {
		t.Fatal("something was forwarded without a lease, or past one that waits")
	}
	l := leaseOf("cold")
	l.Kid = abi.Kid{2}
	w.filter.InstallLease(&l)
	if err := w.stream.Resume(w.now); err != nil {
		t.Fatal(err)
	}
	sent := w.forwarded()
	if len(sent) != 2 || contains(sent, "secret") || w.stream.Waiting() {
		t.Fatalf("%d requests were forwarded", len(sent))
	}
	if c := w.filter.Counters(); c[abi.CounterSealedBatches] != 2 {
		t.Errorf("%d batches were sealed: one of them twice", c[abi.CounterSealedBatches])
	}
	if len(w.stream.pending) != 2 || w.stream.pending[1].correlationID != heartbeat {
		t.Errorf("pending: %+v", w.stream.pending)
	}
}

func TestProduceWithoutALeaseIsRefusedInTimeAndTheRestGoesOn(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("warm")
	id := w.request(produceRequest(9, 1, "cold", "warm"))
	w.now += DefaultProduceWait
	if err := w.stream.Resume(w.now); err != nil {
		t.Fatal(err)
	}
	r := w.produced()
	if len(r.Topics) != 1 || r.Topics[0].Name != "warm" {
		t.Fatalf("forwarded %+v", r.Topics)
	}
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = 9
	topic := kmsg.NewProduceResponseTopic()
	topic.Topic = "warm"
	topic.Partitions = append(topic.Partitions, kmsg.NewProduceResponseTopicPartition())
	resp.Topics = append(resp.Topics, topic)
	w.respond(id, resp)
	codes := map[string]int16{}
	for _, topic := range received(w, id, 9, kmsg.NewPtrProduceResponse()).Topics {
		codes[topic.Topic] = topic.Partitions[0].ErrorCode
	}
	if len(codes) != 2 || codes["cold"] != kafka.CodeNotEnoughReplicas || codes["warm"] != 0 {
		t.Errorf("codes %v", codes)
	}
}

func TestAPipelineBehindAMissingLeaseDoesNotWaitAgainForEach(t *testing.T) {
	w := newWorld(t, Config{})
	for range 5 {
		w.request(produceRequest(7, 1, "cold"))
	}
	began := w.now
	for w.stream.Waiting() && w.now < began+10*DefaultProduceWait {
		w.now += 100
		if err := w.stream.Resume(w.now); err != nil {
			t.Fatal(err)
		}
	}
	if spent := w.now - began; spent < DefaultProduceWait || spent > 2*DefaultProduceWait {
		t.Errorf("five requests took %d ms", spent)
	}
}

// A client can be written to only when its broker has said something.
func TestAProduceThatIsRefusedWholeIsAnsweredInItsPlace(t *testing.T) {
	w := newWorld(t, Config{})
	first := w.request(kmsg.NewPtrHeartbeatRequest())
	id := w.request(produceRequest(9, -1, "_e2ee.roster"))
	sent := w.forwarded()
	if len(sent) != 2 || contains(sent, "secret") {
		t.Fatalf("forwarded %q", sent)
	}
	h, err := kafka.ParseRequestHeader(sent[1])
	if err != nil || h.Key != kafka.KeyApiVersions || h.Version != 0 || h.CorrelationID != id || len(sent[1]) != h.Size {
		t.Fatalf("the broker is asked %+v, %v", h, err)
	}
	if len(gathered(w.stream.ToClient)) != 0 {
		t.Fatal("the client was written to before the broker spoke")
	}
	w.respond(first, kmsg.NewPtrHeartbeatResponse())
	received(w, first, 0, kmsg.NewPtrHeartbeatResponse())
	w.respond(id, kmsg.NewPtrApiVersionsResponse())
	p := received(w, id, 9, kmsg.NewPtrProduceResponse()).Topics[0].Partitions[0]
	if p.ErrorCode != kafka.CodePolicyViolation || p.ErrorMessage == nil || !strings.Contains(*p.ErrorMessage, "hint:") {
		t.Errorf("%+v", p)
	}
	if w.worker.Stats().SealRefused[abi.StatusForbidden] != 1 {
		t.Error("the refusal is not counted")
	}
}

func TestWithoutAcksNothingIsAwaitedAndARefusalEndsTheStream(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("orders")
	w.request(produceRequest(7, 0, "orders"))
	if len(w.produced().Topics) != 1 || len(w.stream.pending) != 0 {
		t.Errorf("pending %+v", w.stream.pending)
	}
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(7, 0, "_e2ee.roster"), 9)
	if err := w.stream.FromClient(frame, w.now); err == nil || len(gathered(w.stream.ToBroker)) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestProduceToAnUnknownTopicIDIsRefused(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("orders")
	id := w.request(produceRequest(13, 1, "orders"))
	if contains(w.forwarded(), "secret") {
		t.Fatal("plaintext was forwarded")
	}
	w.respond(id, kmsg.NewPtrApiVersionsResponse())
	if p := received(w, id, 13, kmsg.NewPtrProduceResponse()).Topics[0]; p.TopicID != testID || p.Partitions[0].ErrorCode != kafka.CodeUnknownTopicID {
		t.Errorf("%+v", p)
	}
}

// An id of an encrypted topic that a broker gives to a plain one must not pass.
func TestATopicIDWithTwoNamesIsOfNoUse(t *testing.T) {
	w := newWorld(t, Config{}, abi.Rule{Pattern: "plain", Mode: abi.ModePlain})
	w.learn("orders")
	w.learn("plain")
	w.request(produceRequest(13, 1, "orders"))
	if contains(w.forwarded(), "secret") || w.worker.Stats().TopicIDs != 1 {
		t.Error("plaintext was forwarded, or the broker's word is not counted")
	}
}

func TestABatchThatIsNoneOfKafkasEndsTheStream(t *testing.T) {
	w := newWorld(t, Config{})
	w.lease("orders")
	req := produceRequest(7, 1, "orders")
	req.Topics[0].Partitions[0].Records = append(req.Topics[0].Partitions[0].Records, 0)
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 9)
	if err := w.stream.FromClient(frame, w.now); err == nil || len(gathered(w.stream.ToBroker)) != 0 {
		t.Errorf("error %v", err)
	}
}

func TestWhatTheAgentRefusesIsRefusedAtOnce(t *testing.T) {
	w := newWorld(t, Config{})
	id := w.request(produceRequest(9, 1, "orders"))
	w.answer(map[string]abi.Status{"orders": abi.StatusNoRecipient})
	if err := w.stream.Resume(w.now + 10); err != nil {
		t.Fatal(err)
	}
	if w.stream.Waiting() {
		t.Fatal("it still waits")
	}
	w.respond(id, kmsg.NewPtrApiVersionsResponse())
	if p := received(w, id, 9, kmsg.NewPtrProduceResponse()).Topics[0].Partitions[0]; p.ErrorCode != kafka.CodePolicyViolation {
		t.Errorf("code %d", p.ErrorCode)
	}
}
