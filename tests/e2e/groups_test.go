package e2e

import (
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Groups of the protocol of KIP-848, whose members never join or sync, read as others do.
func TestConsumerGroupsOfTheNewProtocol(t *testing.T) {
	b := sharedBroker(t)
	bothLinks(t, b.Bootstrap, "kip848", func(t *testing.T, l link, prefix string) {
		for _, c := range []clients.Client{clients.Confluent, clients.Java} {
			t.Run(c.Name, func(t *testing.T) {
				deps.Need(t, c.Parts...)
				topic := newTopic(t, b.Bootstrap, prefix+"-"+c.Name, 3, nil)
				sent := records.Generate(81, 300, c.Shape, records.NewCanaries())
				job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent)}
				if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
					t.Fatal(err)
				}
				job.Bootstrap, job.Properties = l.consume, map[string]string{"group.protocol": "consumer"}
				got, err := c.Consume(t.Context(), job)
				if err == nil {
					err = records.Compare(sent, got, records.Times{}, false)
				}
				if err != nil {
					t.Fatal(err)
				}
			})
		}
	})
}

// A share group (KIP-932) gets every record once, opened as for any other consumer.
func TestShareGroups(t *testing.T) {
	deps.Need(t, deps.Java)
	b := sharedBroker(t)
	bothLinks(t, b.Bootstrap, "share", func(t *testing.T, l link, prefix string) {
		// One partition: a share group promises no order across them.
		topic := newTopic(t, b.Bootstrap, prefix, 1, nil)
		shape := clients.Java.Shape
		shape.Partitions = 1
		sent := records.Generate(82, 300, shape, records.NewCanaries())
		job := clients.Job{Bootstrap: l.produce, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent),
			Share: true, Timeout: 40 * time.Second}
		fromTheStart(t, b.Bootstrap, job.Group)
		if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		job.Bootstrap = l.consume
		got, err := clients.Java.Consume(t.Context(), job)
		if err == nil {
			err = records.Compare(sent, got, records.Times{}, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
}

// fromTheStart has a share group, which begins at the end otherwise, begin at the start.
func fromTheStart(t *testing.T, bootstrap, group string) {
	t.Helper()
	flow.ConfigureGroup(t, bootstrap, group, "share.auto.offset.reset", "earliest")
}
