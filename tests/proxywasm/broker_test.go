package proxywasm

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// TestATapSeesWhatIsPlain is why the other tests may believe a tap that saw nothing.
func TestATapSeesWhatIsPlain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders", "open")
	p := w.proxy(w.office(producing), 1, func(s *setup) { s.plugin.Policy.Plain = []string{"open"} })
	w.produce(w.client(p.Addr(0), kgo.DefaultProduceTopic("open"), kgo.ProducerBatchCompression(kgo.NoCompression())), values("plain", 1))
	if !w.forwarded(canary) {
		t.Error("a tap did not see plaintext")
	}
}

// fetch asks for one partition of orders from offset on until there are records, or an error.
func (c raw) fetch(t *testing.T, offset int64) (records []byte, code error) {
	t.Helper()
	r := kmsg.NewPtrFetchRequest()
	r.MaxBytes, r.MinBytes, r.MaxWaitMillis = 1<<20, 1, 100
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "orders"
	partition := kmsg.NewFetchRequestTopicPartition()
	partition.FetchOffset, partition.PartitionMaxBytes = offset, 1<<20
	topic.Partitions = append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		if _, err := c.Write(frame(r, 11, 1)); err != nil {
			t.Fatal(err)
		}
		_, body, err := c.answer()
		if err != nil {
			t.Fatal(err)
		}
		var response kmsg.FetchResponse
		response.SetVersion(11)
		if err := response.ReadFrom(body); err != nil {
			t.Fatal(err)
		}
		got := response.Topics[0].Partitions[0]
		if got.ErrorCode != 0 || len(got.RecordBatches) > 0 {
			return got.RecordBatches, kerr.ErrorForCode(got.ErrorCode)
		}
	}
	t.Fatalf("neither records nor an error at offset %d", offset)
	return nil, nil
}

// append has the broker append a batch as it is.
func (c raw) append(t *testing.T, batch []byte) {
	t.Helper()
	binary.BigEndian.PutUint64(batch, 0) // its offset is the broker's to choose
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 1000
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "orders"
	partition := kmsg.NewProduceRequestTopicPartition()
	partition.Records = batch
	topic.Partitions = append(topic.Partitions, partition)
	r.Topics = append(r.Topics, topic)
	if _, err := c.Write(frame(r, 8, 1)); err != nil {
		t.Fatal(err)
	}
	_, body, err := c.answer()
	var response kmsg.ProduceResponse
	response.SetVersion(8)
	if err == nil {
		err = response.ReadFrom(body)
	}
	if err == nil {
		err = kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhatABrokerRepeatsOrChangesIsRefusedByEveryWorker has each of two workers open a
// batch with a flipped bit, then one the batch itself, and the other its copy.
func TestWhatABrokerRepeatsOrChangesIsRefusedByEveryWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, "orders")
	p := w.proxy(w.office(consuming).start(), 2, nil)
	producer := w.proxy(w.office(producing).start(), 1, nil)
	// Of an idempotent producer the broker would not append a batch twice.
	w.produce(w.client(producer.Addr(0), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DisableIdempotentWrite()), values("once", 1))
	broker := rawClient(t, w.cluster.ListenAddrs()[0])
	sealed, err := broker.fetch(t, 0)
	if err != nil {
		t.Fatal(err)
	}
	changed := append([]byte(nil), sealed...)
	changed[len(changed)-20] ^= 1
	kafka.SetBatchCRC(changed)
	broker.append(t, changed)
	broker.append(t, sealed)

	one, two := rawClient(t, p.Addr(0)), rawClient(t, p.Addr(0))
	refused := func(what string, offset int64) {
		t.Helper()
		for _, c := range []raw{two, one} {
			if b, err := c.fetch(t, offset); err != kerr.TopicAuthorizationFailed {
				t.Errorf("%s: %d bytes, %v", what, len(b), err)
			}
		}
	}
	refused("a flipped bit", 1) // before the key was used: that alone would be a reason
	if b, err := one.fetch(t, 0); err != nil || len(b) == 0 {
		t.Fatalf("the batch itself: %d bytes, %v", len(b), err)
	}
	refused("a copy", 2)
	if b, err := two.fetch(t, 0); err != nil || len(b) == 0 {
		t.Errorf("the batch itself, of the other worker: %d bytes, %v", len(b), err)
	}
}
