package envoy

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

func TestMain(m *testing.M) {
	code := m.Run()
	summary.print(os.Stdout)
	nodes.Clean()
	os.Exit(code)
}

// produceWait is how long the module lets a Produce wait for its lease.
const produceWait = 3 * time.Second

// A world is a cluster and a realm on it whose nodes produce and consume every topic "e2ee-*".
type world struct {
	broker   *broker.Cluster
	adm      *kadm.Client // of the brokers themselves
	realm    nodes.Realm
	role     nodes.Role
	timing   map[string]string
	canaries records.Canaries // of everything that faces are given
	sealed   []string         // topics that faces have produced to
}

func newWorld(t testing.TB, brokers int, timing map[string]string) *world {
	t.Helper()
	deps.Need(t, deps.Kafka)
	w := &world{timing: timing, canaries: records.NewCanaries(),
		role: nodes.Role{Produce: "e2ee-*", Consume: "e2ee-*", Groups: []string{"e2ee-*"}}}
	if timing == nil {
		w.timing = map[string]string{}
	}
	var err error
	if w.broker, err = broker.Start(t.TempDir(), broker.Options{Nodes: brokers, Properties: map[string]string{
		"group.consumer.min.heartbeat.interval.ms": "500", "message.max.bytes": "12000000", "replica.fetch.max.bytes": "12000000",
	}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.broker.Kill)
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.bootstraps()...), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	w.adm = kadm.NewClient(cl)
	w.realm = nodes.NewRealm(t)
	return w
}

func (w *world) bootstraps() (all []string) {
	for _, n := range w.broker.Nodes {
		all = append(all, n.Addr)
	}
	return all
}

var topicNumber atomic.Int64

// topic makes a topic of its own for a test, which faces seal.
func (w *world) topic(t testing.TB, name string, partitions int, config map[string]string) string {
	t.Helper()
	return w.create(t, "e2ee-"+name, partitions, config)
}

func (w *world) create(t testing.TB, prefix string, partitions int, config map[string]string) string {
	t.Helper()
	name := fmt.Sprintf("%s-%d", prefix, topicNumber.Add(1))
	values := map[string]*string{}
	for k, v := range config {
		values[k] = &v
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := w.adm.CreateTopic(ctx, int32(partitions), -1, values, name); err != nil {
		t.Fatalf("topic %s: %v", name, err)
	}
	w.sealed = append(w.sealed, name)
	return name
}

// stored is how many offsets the brokers have given in a topic.
func (w *world) stored(t testing.TB, topic string) int64 {
	t.Helper()
	ends, err := w.adm.ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum
}

// hash is a file's SHA-256.
func hash(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
