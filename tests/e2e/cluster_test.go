package e2e

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// One single-node Kafka serves every test of this package that does not need its own; tests
// keep apart by topic and group names.
var shared struct {
	once    sync.Once
	cluster *broker.Cluster
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.cluster != nil {
		shared.cluster.Kill()
	}
	nodes.Clean()
	os.Exit(code)
}

// sharedBroker starts the shared Kafka at its first call.
func sharedBroker(t *testing.T) *broker.Cluster {
	t.Helper()
	deps.Need(t, deps.Kafka)
	shared.once.Do(func() {
		shared.cluster, shared.err = broker.Start(nodes.Scratch("kafka"), broker.Options{Properties: map[string]string{
			// Whatever no ACL names is allowed, so that one test can deny one topic to everyone.
			"authorizer.class.name":          "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
			"allow.everyone.if.no.acl.found": "true",
			// So that a test may have its group's members hear of a rebalance soon.
			"group.consumer.min.heartbeat.interval.ms": "500",
		}})
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.cluster
}

// admin is a client of the broker itself, past every sidecar. What it tells is not older than
// 10 ms.
func admin(t *testing.T, bootstrap string, opts ...kgo.Opt) *kadm.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.MetadataMinAge(10*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return kadm.NewClient(cl)
}

var topicNumber atomic.Int64

// newTopic makes a topic of its own for a test and returns its name.
func newTopic(t *testing.T, bootstrap, prefix string, partitions int, config map[string]string) string {
	t.Helper()
	return createTopic(t, admin(t, bootstrap), prefix, partitions, config)
}

func createTopic(t *testing.T, adm *kadm.Client, prefix string, partitions int, config map[string]string) string {
	t.Helper()
	name := fmt.Sprintf("%s-%d", prefix, topicNumber.Add(1))
	values := map[string]*string{}
	for k, v := range config {
		values[k] = &v
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := adm.CreateTopic(ctx, int32(max(partitions, 1)), -1, values, name); err != nil {
		t.Fatalf("topic %s: %v", name, err)
	}
	return name
}

// recordsPerClient is how many records each client sends in the largest test: E2E_RECORDS, or
// 10,000.
func recordsPerClient(t *testing.T) int {
	t.Helper()
	s := os.Getenv("E2E_RECORDS")
	if s == "" {
		return 10_000
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 100 {
		t.Fatalf("E2E_RECORDS=%q; hint: a number from 100", s)
	}
	return n
}
