package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// quick rotates every 5 s. The other periods fit to that and keep what an offline consumer
// and a second group still want.
var quick = nodes.Settings{"timing": map[string]string{
	"epoch": "5s", "lead": "1s", "prekey_rotation": "20s", "prekey_grace": "20s",
}}

// Keys rotate every 5 s while records flow: none is lost, doubled or unreadable for the
// consumer that reads along, for a second group of the same node afterwards, and for a node
// that was enrolled but offline all the while.
func TestKeysRotateWhileRecordsFlow(t *testing.T) {
	b := sharedBroker(t)
	deps.Need(t, deps.Python)
	r := nodes.NewRealm(t)
	want := nodes.Role{Consume: "rotate-*", Groups: []string{"rotate-*"}}
	reader := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, want), quick)
	offline := r.Enroll(t, nodes.Role{Consume: "rotate-*", Groups: []string{"offline-*"}})
	// It announces itself once, and is gone before anything is produced.
	if code := nodes.StartSidecar(t, b.Bootstrap, offline, quick).Stop(15 * time.Second); code != 0 {
		t.Fatalf("the offline node's sidecar ended with exit code %d", code)
	}
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: "rotate-*"}), quick)

	const perSecond, seconds = 300, 25
	results := make(chan error)
	type flow struct {
		client clients.Client
		job    clients.Job
	}
	var flows []flow
	for _, c := range []clients.Client{clients.FranzGo, clients.Confluent} {
		topic := newTopic(t, b.Bootstrap, "rotate-"+c.Name, 3, nil)
		sent := records.Generate(31, perSecond*seconds, c.Shape, records.NewCanaries())
		job := clients.Job{Topic: topic, Group: topic, Dir: t.TempDir(), Codec: "lz4", Records: sent, Count: len(sent),
			PerSecond: perSecond, Idempotent: true, Timeout: 90 * time.Second}
		flows = append(flows, flow{c, job})
		produce, consume := job, job
		produce.Bootstrap, consume.Bootstrap = writer.Addr, reader.Addr
		go func() { results <- wrap(c.Name+" produces", c.Produce(t.Context(), produce)) }()
		go func() {
			got, err := c.Consume(t.Context(), consume)
			if err == nil {
				err = records.Compare(sent, got, records.Times{}, false)
			}
			results <- wrap(c.Name+" consumes", err)
		}()
	}
	for range 2 * len(flows) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		return
	}

	late := nodes.StartSidecar(t, b.Bootstrap, offline, quick)
	for _, f := range flows {
		if n := kids(t, b.Bootstrap, f.job); n < seconds/6 {
			t.Errorf("%s: records are sealed under %d epochs, want at least %d", f.client.Name, n, seconds/6)
		} else {
			t.Logf("%s: %d records under %d epochs", f.client.Name, f.job.Count, n)
		}
		for name, at := range map[string]*nodes.Sidecar{"second group": reader, "offline node": late} {
			job := f.job
			job.Bootstrap, job.Group = at.Addr, "rotate-second-"+job.Topic
			if at == late {
				job.Group = "offline-" + job.Topic
			}
			got, err := f.client.Consume(t.Context(), job)
			if err == nil {
				err = records.Compare(job.Records, got, records.Times{}, false)
			}
			if err != nil {
				t.Errorf("%s, %s: %v", f.client.Name, name, err)
			}
		}
	}
}

// kids counts the epochs under which a topic's records are sealed, as its broker sees them,
// and fails the test for a record that is neither a sealed value nor a stub.
func kids(t *testing.T, bootstrap string, j clients.Job) int {
	t.Helper()
	stored, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: bootstrap, Topic: j.Topic, Count: j.Count})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[abi.Kid]bool{}
	for _, r := range stored {
		if r.Key == nil && r.Headers == nil && r.Value != nil && len(r.Value) == 0 {
			continue
		}
		h, err := wire.ParsePackedHeader(r.Value)
		if err != nil || r.Key != nil || r.Headers != nil {
			t.Fatalf("partition %d, offset %d: not sealed: %.60q", r.Partition, r.Offset, strings.ToValidUTF8(string(r.Value), "."))
		}
		seen[h.Kid] = true
	}
	return len(seen)
}
