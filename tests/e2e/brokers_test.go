package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/deps"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/forward"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/records"
)

// A fenced cluster is three brokers, each known to the world only by a forwarder's address.
type fenced struct {
	*broker.Cluster
	forwarders []*forward.Forwarder
	admin      *kadm.Client // goes past the forwarders, so that they do not count it
}

func startFenced(t *testing.T) *fenced {
	t.Helper()
	ports, err := broker.FreePorts(3)
	if err != nil {
		t.Fatal(err)
	}
	f := &fenced{}
	o := broker.Options{Nodes: 3}
	behind := map[string]string{}
	for _, port := range ports {
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		forwarder, err := forward.Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(forwarder.Close)
		f.forwarders = append(f.forwarders, forwarder)
		o.Listen = append(o.Listen, addr)
		o.Advertise = append(o.Advertise, forwarder.Addr())
		behind[forwarder.Addr()] = addr
	}
	begin := time.Now()
	if f.Cluster, err = broker.Start(t.TempDir(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Kill)
	t.Logf("three brokers up in %v", time.Since(begin).Round(time.Millisecond))
	f.admin = admin(t, f.Bootstrap, kgo.Dialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, behind[addr])
	}))
	return f
}

// connections counts the connections to brokers by the process that opened them; the first
// skip[i] of each broker are left out.
func (f *fenced) connections(skip []int) (byProcess map[int]int, seen []int) {
	byProcess, seen = map[int]int{}, make([]int, len(f.forwarders))
	for i, forwarder := range f.forwarders {
		owners := forwarder.Owners()
		seen[i] = len(owners)
		if skip != nil {
			owners = owners[skip[i]:]
		}
		for _, pid := range owners {
			byProcess[pid]++
		}
	}
	return byProcess, seen
}

// moveLeaders gives every partition of the topics another leader among its replicas, and
// returns how many changed.
func (f *fenced) moveLeaders(ctx context.Context, topics ...string) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	details, err := f.admin.ListTopics(ctx, topics...)
	if err != nil {
		return 0, err
	}
	var order kadm.AlterPartitionAssignmentsReq
	set := kadm.TopicsSet{}
	for _, topic := range details {
		for _, p := range topic.Partitions {
			next := slices.Index(p.Replicas, p.Leader) + 1
			order.Assign(topic.Topic, p.Partition, append(slices.Clone(p.Replicas[next:]), p.Replicas[:next]...))
			set.Add(topic.Topic, p.Partition)
		}
	}
	altered, err := f.admin.AlterPartitionAssignments(ctx, order)
	if err == nil {
		err = altered.Error()
	}
	if err != nil {
		return 0, err
	}
	// The new first replica is the preferred leader, in sync already, once every broker knows.
	for settled := false; !settled; {
		if details, err = f.admin.ListTopics(ctx, topics...); err != nil {
			return 0, err
		}
		settled = true
		for _, topic := range details {
			for _, p := range topic.Partitions {
				settled = settled && p.Replicas[0] != p.Leader
			}
		}
	}
	elected, err := f.admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, set)
	if err != nil {
		return 0, err
	}
	moved := 0
	for _, partitions := range elected {
		for _, p := range partitions {
			if p.Err == nil {
				moved++
			}
		}
	}
	return moved, nil
}

// While records flow, the leadership of every partition moves again and again: nothing is
// lost, doubled or out of order, and only the sidecars ever connect to a broker. The direct
// run is the control: there the forwarders see the clients themselves.
func TestLeadershipMovesAndNoClientLeavesItsSidecar(t *testing.T) {
	deps.Need(t, deps.Kafka, deps.Python)
	f := startFenced(t)
	bothLinks(t, f.Bootstrap, "moving", func(t *testing.T, l link, prefix string) {
		control := l.sidecars == nil
		const perSecond = 200
		seconds := 15
		if control {
			seconds = 6
		}
		_, before := f.connections(nil)
		var topics []string
		results := make(chan error)
		pending := 0
		for _, c := range []clients.Client{clients.FranzGo, clients.Confluent} {
			topic := createTopic(t, f.admin, prefix+"-"+c.Name, 3, nil)
			topics = append(topics, topic)
			sent := records.Generate(21, perSecond*seconds, c.Shape, records.NewCanaries())
			job := clients.Job{Topic: topic, Group: topic, Dir: t.TempDir(), Codec: "lz4", Records: sent, Count: len(sent),
				Idempotent: true, PerSecond: perSecond, Timeout: 90 * time.Second}
			produce, consume := job, job
			produce.Bootstrap, consume.Bootstrap = l.produce, l.consume
			pending += 2
			go func() { results <- wrap(c.Name+" produces", c.Produce(t.Context(), produce)) }()
			go func() {
				got, err := c.Consume(t.Context(), consume)
				if err == nil {
					err = records.Compare(sent, got, records.Times{}, false)
				}
				results <- wrap(c.Name+" consumes", err)
			}()
		}
		moves := 0
		for tick := time.NewTicker(1500 * time.Millisecond); pending > 0; {
			select {
			case err := <-results:
				pending--
				if err != nil {
					t.Error(err)
				}
			case <-tick.C:
				n, err := f.moveLeaders(t.Context(), topics...)
				if err != nil {
					t.Errorf("moving leaders: %v", err)
				}
				moves += n
			}
		}
		byProcess, _ := f.connections(before)
		t.Logf("leadership moved %d times; connections to brokers by process: %v; the sidecars are %v", moves, byProcess, l.pids())
		if moves < 12 {
			t.Errorf("leadership moved %d times: too few to prove anything", moves)
		}
		strangers := 0
		for pid, n := range byProcess {
			if !slices.Contains(l.pids(), pid) {
				strangers += n
			}
		}
		switch {
		case control && strangers == 0:
			t.Error("the control run's clients were not seen: the count is blind")
		case !control && strangers != 0:
			t.Errorf("%d connections to brokers are not the sidecars'", strangers)
		}
	})
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
