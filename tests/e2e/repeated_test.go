package e2e

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/raw"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A cluster that deletes a batch and stores it again behind is found out by a sidecar that
// opened it before it was killed.
func TestBatchThatIsRepeatedIsRefusedAfterAKill(t *testing.T) {
	b := sharedBroker(t)
	topic := newTopic(t, b.Bootstrap, "repeated", 1, nil)
	state := nodes.NewRealm(t).Enroll(t, nodes.Role{Produce: topic, Consume: topic, Groups: []string{topic}})
	s := nodes.StartSidecar(t, b.Bootstrap, state, nil)
	sent := records.Generate(85, 20, records.Shape{}, records.NewCanaries())
	job := clients.Job{Bootstrap: s.Addr, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent)}
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	genuine := raw.FirstBatch(t, b.Bootstrap, topic)
	file := state + ".replay"
	size := func() int64 {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	empty := size()
	if got, err := clients.FranzGo.Consume(t.Context(), job); err != nil || len(got) != len(sent) {
		t.Fatalf("%d records of %d: %v", len(got), len(sent), err)
	}
	nodes.Poll(t, 10*time.Second, "what was opened is on disk", func() bool { return size() > empty })
	s.Crash()

	raw.Store(t, b.Bootstrap, topic, 0, raw.Anonymous(append([]byte(nil), genuine...)))
	var first kadm.Offsets
	first.AddOffset(topic, 0, int64(len(sent)), -1)
	if _, err := admin(t, b.Bootstrap).DeleteRecords(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	again := nodes.StartSidecar(t, b.Bootstrap, state, nil)
	job.Bootstrap, job.Timeout = again.Addr, 20*time.Second
	if got, err := clients.FranzGo.Consume(t.Context(), job); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("%d records, %v; want %v", len(got), err, kerr.TopicAuthorizationFailed)
	}
	if !strings.Contains(again.Output(), "alarm=replay") {
		t.Error("no alarm")
	}
}
