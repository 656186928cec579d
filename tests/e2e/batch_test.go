package e2e

import (
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// librdkafka fills a batch to just below the broker's default limit when it has 9,000 records
// of 100 B at once: sealed, it must still fit.
func TestFullDefaultBatchFitsTheBrokersLimit(t *testing.T) {
	deps.Need(t, deps.Python)
	b := sharedBroker(t)
	l := sealed(t, b.Bootstrap, "full-*", []string{"full-*"}, nil)
	topic := newTopic(t, b.Bootstrap, "full", 1, nil)
	sent := make([]records.Record, 9000)
	for i := range sent {
		value := make([]byte, 100)
		for k := range value {
			value[k] = byte(i >> (k % 3 * 8))
		}
		sent[i] = records.Record{Offset: -1, Timestamp: 1_760_000_000_000, Value: value}
	}
	job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent),
		Properties: map[string]string{"linger.ms": "2000"}}
	if err := clients.Confluent.Produce(t.Context(), job); err != nil {
		t.Fatalf("produce: %v", err)
	}
	stored, err := kafka.ParseBatchHeader(raw.FirstBatch(t, b.Bootstrap, topic))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first stored batch: %d records, %d B", stored.NumRecords, stored.BatchLength+12)
	if stored.NumRecords < 8000 {
		t.Errorf("the client made a batch of %d records only: this proves nothing", stored.NumRecords)
	}
	job.Bootstrap, job.Properties = l.consume, nil
	got, err := clients.Confluent.Consume(t.Context(), job)
	if err == nil {
		err = records.Compare(sent, got, records.Times{}, false)
	}
	if err != nil {
		t.Error(err)
	}
}
