package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

func TestDirect(t *testing.T) {
	b := sharedBroker(t)
	for _, c := range append(clients.All(), clients.Java) {
		t.Run(c.Name, func(t *testing.T) {
			deps.Need(t, c.Parts...)
			for _, codec := range c.Codecs {
				t.Run(codec, func(t *testing.T) {
					topic := newTopic(t, b.Bootstrap, c.Name+"-"+codec, c.Shape.Partitions, nil)
					sent := records.Generate(1, recordsPerClient(t)/len(c.Codecs), c.Shape, records.NewCanaries())
					job := clients.Job{Bootstrap: b.Bootstrap, Topic: topic, Group: topic, Codec: codec, Dir: t.TempDir(), Records: sent, Count: len(sent)}
					begin := time.Now()
					if err := c.Produce(context.Background(), job); err != nil {
						t.Fatal(err)
					}
					middle := time.Now()
					got, err := c.Consume(context.Background(), job)
					t.Logf("produce %v consume %v", middle.Sub(begin), time.Since(middle))
					if err != nil {
						t.Fatal(err)
					}
					if err := records.Compare(sent, got, records.Times{From: begin.UnixMilli(), To: time.Now().UnixMilli()}, false); err != nil {
						t.Fatal(err)
					}
				})
			}
		})
	}
}
