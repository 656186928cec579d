package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
)

// leaseError asks for a lease that must be refused with want.
func (r *running) leaseError(topic string, want abi.Status) error {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	_, err := r.Lease(ctx, topic)
	if !errors.Is(err, want) {
		r.t.Fatalf("lease: %v, want %q", err, want)
	}
	return err
}

func endsWithHint(t *testing.T, err error, want ...string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "hint: ") {
		t.Fatalf("error %v, want one with a hint", err)
	}
	for _, s := range want {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %v does not say %q", err, s)
		}
	}
}

func TestStartRefusesWhatCannotWork(t *testing.T) {
	w := newWorld(t)
	good := w.enrol(wire.RoleConsume, orders, billing)
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	running := w.enrol(wire.RoleConsume, orders, billing)
	w.start(running, slow)
	garbage := filepath.Join(t.TempDir(), "state")
	if err := os.WriteFile(garbage, []byte("not a state"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		state string
		kafka []kgo.Opt
		want  string
	}{
		"no state file":     {filepath.Join(t.TempDir(), "state"), w.kafka, "wasm-e2ee enroll"},
		"garbage":           {garbage, w.kafka, garbage},
		"already in use":    {running, w.kafka, "in use by another process"},
		"unreachable":       {good, []kgo.Opt{kgo.SeedBrokers(gone.Addr().String())}, gone.Addr().String()},
		"no permission yet": {good, []kgo.Opt{kgo.SeedBrokers(locked(t).ListenAddrs()...), kgo.SASL(plain.Auth{User: "agent", Pass: "secret"}.AsMechanism())}, "Create on Topic _e2ee.roster (literal)"},
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			a, err := Open(t.Context(), Config{Kafka: tc.kafka, StateFile: tc.state, Timing: slow})
			if err == nil {
				a.Close()
			}
			endsWithHint(t, err, tc.want)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	// What failed to start holds no lock.
	w.start(good, slow).ready()
}

// locked is a cluster on which the user agent may nothing.
func locked(t *testing.T) *kfake.Cluster {
	return cluster(t, kfake.EnableSASL(), kfake.EnableACLs(), kfake.User("PLAIN", "agent", "secret"))
}

func TestUnreadablePolicyRefusesTheTopicAlone(t *testing.T) {
	w := newWorld(t)
	w.topic("payments", nil)
	topics := []string{"orders", "payments"}
	w.start(w.enrol(wire.RoleConsume, topics, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, topics, nil), slow).ready()
	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.DescribeConfigs}, Count: -1, Resource: "orders", Err: kerr.TopicAuthorizationFailed})
	other := make(chan error, 1)
	go func() { // gathered into the same flight
		_, err := producer.Lease(t.Context(), "payments")
		other <- err
	}()
	endsWithHint(t, producer.leaseError("orders", abi.StatusUnavailable), "orders", "DescribeConfigs on Topic orders")
	if err := <-other; err != nil {
		t.Errorf("the other topic: %v", err)
	}
	fault.Remove()
	producer.lease("orders")
}

// A client may produce before the agent has published anything. Consumers drop a grant whose
// producer is not on the roster.
func TestNothingIsGrantedBeforeTheCredentialIsOnTheRoster(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Topic: rosterTopic, Err: kerr.NotLeaderForPartition})
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if l, err := producer.Lease(ctx, "orders"); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("lease of kid %x: %v, want unavailable", l.Kid, err)
	}
	fault.Remove()
	consumer.opens(producer.lease("orders"))
}

// A logBook collects what an agent logs.
type logBook struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestUnreadableControlTopicIsLoggedWithTheACLs(t *testing.T) {
	w := newWorld(t)
	w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Topic: rosterTopic, Err: kerr.TopicAuthorizationFailed})
	var log logBook
	w.start(w.enrol(wire.RoleConsume, orders, billing), slow, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	eventually(t, "a line that says what to allow", func() bool {
		s := log.String()
		return strings.Contains(s, "reading a control topic") && strings.Contains(s, "Read, Write, Describe") && strings.Contains(s, "hint: ")
	})
}

func TestGrantWaitsForAClockThatIsBehind(t *testing.T) {
	w := newWorld(t)
	timing := slow
	timing.PrekeyRotation = 30 * time.Second // no bundle is made by the wrong clock
	var behind atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), timing).ready()
	w.clock = nil
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), timing).ready()
	behind.Store(int64(time.Hour))
	l := producer.lease("orders")
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := consumer.Root(short, "orders", 0, l.Kid); !errors.Is(err, abi.StatusPending) {
		t.Errorf("while the clock is behind: %v, want pending", err)
	}
	behind.Store(0)
	consumer.opens(l)
}

func TestUnacknowledgedGrantEndsTheInstance(t *testing.T) {
	w := newWorld(t)
	w.topic("payments", nil)
	topics := []string{"orders", "payments"}
	consumer := w.start(w.enrol(wire.RoleConsume, topics, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, topics, nil), slow).ready()
	before := producer.lease("orders")
	instance := producer.Snapshot().Epochs[0].Instance
	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Topic: grantsTopic, Err: kerr.TopicAuthorizationFailed})
	endsWithHint(t, producer.leaseError("payments", abi.StatusUnavailable), "Write", grantsTopic)
	if !producer.hasErased(before.Kid) {
		t.Error("leases of the ended instance stay with the data plane")
	}
	fault.Remove()
	after := producer.lease("orders")
	consumer.opens(after)
	if got := producer.Snapshot().Epochs[0]; got.Instance == instance || got.Epoch != 0 || after.Kid == before.Kid {
		t.Errorf("after a lost grant: instance %v epoch %d, before %v", got.Instance, got.Epoch, instance)
	}
}

func TestLeaseEndsWithItsCallerAndTheGrantGoesOn(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Count: -1, Topic: grantsTopic, Err: kerr.NotLeaderForPartition})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := producer.Lease(ctx, "orders"); !errors.Is(err, abi.StatusUnavailable) {
		t.Fatalf("lease: %v, want unavailable", err)
	}
	fault.Remove()
	consumer.opens(producer.lease("orders"))
}

func TestRosterIsReadToItsEndBeforeAGrant(t *testing.T) {
	w := newWorld(t)
	one := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	// The producer's next fetches fail for a moment, while another consumer enrols: the
	// grant must wait until it has seen that consumer.
	fault := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Count: -1, Topic: rosterTopic, Err: kerr.NotLeaderForPartition})
	state := w.enrol(wire.RoleConsume, orders, []string{"audit"})
	a, err := Open(t.Context(), Config{Kafka: w.kafka, StateFile: state, Timing: slow})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.publishDue(); err != nil { // the bundle
		t.Fatal(err)
	}
	a.publish.chain = true
	if err := a.publishDue(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if l, err := producer.Lease(ctx, "orders"); !errors.Is(err, abi.StatusUnavailable) {
		t.Fatalf("lease of kid %x (%v) while the roster cannot be read", l.Kid, err)
	}
	fault.Remove()
	l := producer.lease("orders")
	one.opens(l)
	w.start(state, slow).ready().opens(l)
}

func TestClockSkewIsRefused(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	var off atomic.Int64
	w.clock = func() time.Time { return time.Now().Add(time.Duration(off.Load())) }
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow, func(c *Config) { c.Timing.Skew = time.Second }).ready()
	off.Store(int64(3 * time.Second))
	endsWithHint(t, producer.leaseError("orders", abi.StatusClockSkew), "orders")
	// A client that tries again at once fills neither the topic nor the log.
	began := time.Now()
	for time.Since(began) < 1500*time.Millisecond {
		producer.leaseError("orders", abi.StatusClockSkew)
	}
	for _, p := range w.c.PartitionInfos(grantsTopic) {
		if p.HighWatermark > 4 {
			t.Errorf("partition %d of the grants topic holds %d records that began nothing", p.Partition, p.HighWatermark)
		}
	}
	off.Store(0)
	producer.lease("orders")
}

func TestGrantsTopicMustCarryTheBrokersTime(t *testing.T) {
	w := newWorld(t)
	w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	createTime := "CreateTime"
	if _, err := kadm.NewClient(client(t, w.c)).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "message.timestamp.type", Value: &createTime}}, grantsTopic); err != nil {
		t.Fatal(err)
	}
	endsWithHint(t, producer.leaseError("orders", abi.StatusUnavailable), "message.timestamp.type=LogAppendTime")
}

func TestAfterTheEndEverythingIsRefused(t *testing.T) {
	w := newWorld(t)
	consumer := w.start(w.enrol(wire.RoleConsume, orders, billing), slow).ready()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	waiting := make(chan error, 1)
	go func() {
		_, err := consumer.root("orders", abi.Kid{9})
		waiting <- err
	}()
	producer.stop()
	consumer.stop()
	if err := <-waiting; !errors.Is(err, abi.StatusShuttingDown) {
		t.Errorf("a root that was waited for: %v", err)
	}
	producer.leaseError("orders", abi.StatusShuttingDown)
	consumer.refuses("orders", l.Kid, abi.StatusShuttingDown)
}

func TestBrokersAndGroupsAreKnown(t *testing.T) {
	w := newWorld(t)
	a := w.start(w.enrol(wire.RoleConsume, orders, billing), slow)
	brokers, err := a.Brokers(t.Context())
	if err != nil || len(brokers) != len(w.c.ListenAddrs()) {
		t.Errorf("brokers %v, %v", brokers, err)
	}
	if !a.AllowsGroup("billing") || a.AllowsGroup("audit") {
		t.Error("groups differ from the credential's")
	}
}

func TestResumeStartsAnew(t *testing.T) {
	w := newWorld(t)
	both := w.start(w.enrol(wire.RoleConsume|wire.RoleProduce, orders, billing), slow).ready()
	before := both.lease("orders")
	both.opens(before)
	was := both.Snapshot()
	both.resumed()
	if !both.hasErased(before.Kid) {
		t.Error("leases from before stay with the data plane")
	}
	after := both.lease("orders")
	both.opens(after)
	both.opens(before) // what was sealed stays readable
	is := both.Snapshot()
	if is.Epochs[0].Instance == was.Epochs[0].Instance || is.PrekeysMade <= was.PrekeysMade {
		t.Errorf("before %+v\nafter %+v", was, is)
	}
}

func TestAgentsOutliveABrokerRestart(t *testing.T) {
	data := kfake.DataDir(t.TempDir())
	w := newWorld(t, data)
	both := w.start(w.enrol(wire.RoleConsume|wire.RoleProduce, orders, billing), slow).ready()
	before := both.lease("orders")
	both.opens(before)
	var ports []int
	for _, addr := range w.c.ListenAddrs() {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, n)
	}
	w.c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if l, err := both.Lease(ctx, "orders"); err != nil || l.Kid != before.Kid {
		t.Errorf("an epoch that is under way: %v", err)
	}
	both.resumed() // and now one that must begin
	if _, err := both.Lease(ctx, "orders"); !errors.Is(err, abi.StatusUnavailable) {
		t.Errorf("a new epoch without brokers: %v", err)
	}
	cluster(t, data, kfake.Ports(ports...))
	after := both.lease("orders")
	if after.Kid == before.Kid {
		t.Error("the ended instance goes on")
	}
	both.opens(after)
	both.opens(before)
}

func TestGrantWaitsForItsSignersCredential(t *testing.T) {
	w := newWorld(t)
	state := w.enrol(wire.RoleConsume, orders, billing)
	w.start(state, slow).ready().stop()
	producer := w.start(w.enrol(wire.RoleProduce, orders, nil), slow).ready()
	l := producer.lease("orders")
	producer.stop()

	a, err := Open(t.Context(), Config{Kafka: w.kafka, StateFile: state, Timing: slow})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	asked := w.c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.ListOffsets}, Topic: rosterTopic, Observe: true, Count: -1})
	go a.grantsLog.run(a.ctx, a.applyGrant)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := asked.Wait(ctx, 1); err != nil {
		t.Fatal("the roster was not asked for its end")
	}
	if got := a.grantsLog.position(); got != 0 {
		t.Fatalf("the reader went on to %d without deciding", got)
	}
	go a.rosterLog.run(a.ctx, a.applyRoster)
	root, err := a.Root(ctx, "orders", 0, l.Kid)
	if err != nil || !sameLeaf(l, root) {
		t.Fatalf("root: %v", err)
	}
}
