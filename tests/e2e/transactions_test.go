package e2e

import (
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Commits are delivered, aborts are not, to those who read committed records only; the
// others get all of it, and every offset is where the broker put it.
func TestTransactionsCommitAndAbort(t *testing.T) {
	b := sharedBroker(t)
	bothLinks(t, b.Bootstrap, "tx", func(t *testing.T, l link, prefix string) {
		for _, c := range []clients.Client{clients.FranzGo, clients.Confluent, clients.Java} {
			t.Run(c.Name, func(t *testing.T) {
				deps.Need(t, c.Parts...)
				topic := newTopic(t, b.Bootstrap, prefix+"-"+c.Name, c.Shape.Partitions, nil)
				all := records.Generate(11, 600, c.Shape, records.NewCanaries())
				job := clients.Job{Topic: topic, Dir: t.TempDir(), Codec: "lz4", Records: all, Transaction: 50, AbortEvery: 3}
				job.Bootstrap = l.produce
				if err := c.Produce(t.Context(), job); err != nil {
					t.Fatalf("produce: %v", err)
				}
				var committed []records.Record
				for i, r := range all {
					if !job.Aborted(i) {
						committed = append(committed, r)
					}
				}
				job.Bootstrap = l.consume
				for isolation, want := range map[string][]records.Record{"read_committed": committed, "read_uncommitted": all} {
					job.Group, job.Isolation, job.Count = topic+"-"+isolation, isolation, len(want)
					got, err := c.Consume(t.Context(), job)
					if err != nil {
						t.Fatalf("%s: %v", isolation, err)
					}
					if err := records.Compare(want, got, records.Times{}, true); err != nil {
						t.Fatalf("%s: %v", isolation, err)
					}
				}
			})
		}
	})
}

// An idempotent producer's sequence numbers survive sealing. (franz-go and the Java client,
// the console producer included, are idempotent in every test.)
func TestIdempotentProducersKeepOrder(t *testing.T) {
	b := sharedBroker(t)
	bothLinks(t, b.Bootstrap, "idempotent", func(t *testing.T, l link, prefix string) {
		for _, c := range []clients.Client{clients.Confluent, clients.Kcat} {
			t.Run(c.Name, func(t *testing.T) {
				deps.Need(t, c.Parts...)
				topic := newTopic(t, b.Bootstrap, prefix+"-"+c.Name, c.Shape.Partitions, nil)
				sent := records.Generate(12, 600, c.Shape, records.NewCanaries())
				job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Codec: "zstd",
					Records: sent, Count: len(sent), Idempotent: true}
				begin := time.Now()
				if err := c.Produce(t.Context(), job); err != nil {
					t.Fatalf("produce: %v", err)
				}
				job.Bootstrap = l.consume
				got, err := c.Consume(t.Context(), job)
				if err != nil {
					t.Fatalf("consume: %v", err)
				}
				if err := records.Compare(sent, got, records.Since(begin), false); err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}
