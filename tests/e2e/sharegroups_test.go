package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A share group commits nothing: what it has acknowledged shows in its start offset, and that
// erases the key (PROTOCOL.md §2.8.4). The hard cap is far away here.
func TestShareGroupThatHasAcknowledgedLetsKeysGo(t *testing.T) {
	deps.Need(t, deps.Java)
	b := sharedBroker(t)
	topic := newTopic(t, b.Bootstrap, "share-erase", 1, nil)
	s := nodes.StartSidecar(t, b.Bootstrap, nodes.NewRealm(t).Enroll(t, nodes.Role{Produce: topic, Consume: topic, Groups: []string{topic}}),
		nodes.Settings{"timing": map[string]string{
			"epoch": "4s", "lead": "1s", "prekey_rotation": "2s", "prekey_grace": "2s", "skew": "1s", "settle": "1s", "window": "2s",
		}})
	shape := clients.Java.Shape
	shape.Partitions = 1
	sent := records.Generate(83, 100, shape, records.NewCanaries())
	job := clients.Job{Bootstrap: s.Addr, Topic: topic, Group: topic, Dir: t.TempDir(), Records: sent, Count: len(sent),
		Share: true, Timeout: 40 * time.Second}
	fromTheStart(t, b.Bootstrap, job.Group)
	if err := clients.FranzGo.Produce(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	erased := func() bool { return strings.Contains(s.Output(), `msg="root erased"`) }
	for until := time.Now().Add(12 * time.Second); time.Now().Before(until); time.Sleep(100 * time.Millisecond) {
		if erased() {
			t.Fatal("erased before the group has read anything")
		}
	}
	if got, err := clients.Java.Consume(t.Context(), job); err != nil {
		t.Fatal(err)
	} else if err := records.Compare(sent, got, records.Times{}, false); err != nil {
		t.Fatal(err)
	}
	nodes.Poll(t, time.Minute, "the key is erased", erased)
}
