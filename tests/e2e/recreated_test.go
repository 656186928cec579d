package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// Whoever deletes the control topics of a running fleet and makes them again loses no record:
// every node says so, and writes again what it had written.
func TestControlTopicsMadeAnewAreNoticedAndFilled(t *testing.T) {
	deps.Need(t, deps.Kafka)
	b, err := broker.Start(nodes.Scratch("recreated"), broker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Kill()
	topic := newTopic(t, b.Bootstrap, "recreated", 1, nil)
	r := nodes.NewRealm(t)
	reader := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Consume: topic, Groups: []string{topic}}), nil)
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: topic}), nil)
	sent := records.Generate(84, 100, clients.FranzGo.Shape, records.NewCanaries())
	for i := range sent {
		sent[i].Partition = 0
	}
	job := clients.Job{Bootstrap: writer.Addr, Topic: topic, Dir: t.TempDir(), Records: sent, Count: len(sent), Timeout: 40 * time.Second}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	adm := admin(t, b.Bootstrap)
	for topic, partitions := range map[string]int32{"_e2ee.roster": 1, "_e2ee.grants": 16} {
		configs, err := adm.DescribeTopicConfigs(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		same := make(map[string]*string)
		for _, c := range configs[0].Configs {
			if c.Key == "cleanup.policy" || c.Key == "message.timestamp.type" {
				same[c.Key] = c.Value
			}
		}
		if _, err := adm.DeleteTopic(t.Context(), topic); err != nil {
			t.Fatal(err)
		}
		nodes.Poll(t, time.Minute, "the topic made again", func() bool {
			_, err := adm.CreateTopic(t.Context(), partitions, 1, same, topic)
			return err == nil
		})
	}
	for _, s := range []*nodes.Sidecar{reader, writer} {
		nodes.Poll(t, time.Minute, "both alarms", func() bool { return strings.Count(s.Output(), "alarm=rollback") == 2 })
	}
	nodes.Poll(t, time.Minute, "the grant written again", func() bool { return strings.Contains(writer.Output(), "grant written again") })
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	job.Bootstrap, job.Group, job.Count = reader.Addr, topic, 2*len(sent)
	got, err := clients.FranzGo.Consume(t.Context(), job)
	if err != nil || len(got) != 2*len(sent) {
		t.Fatalf("%d records of %d: %v", len(got), 2*len(sent), err)
	}
}
