package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// shortKeys is a timing under which keys are made, used and erased within a test: what a
// group has passed is gone 13 s after its epoch began, and what it has not is kept.
var shortKeys = nodes.Settings{"timing": map[string]string{
	"epoch": "4s", "lead": "1s", "prekey_rotation": "4s", "prekey_grace": "4s",
	"skew": "2s", "settle": "1s", "window": "5s",
}}

// longRun is how long the flows of these tests last and from which seed: ROLLING_DURATION and
// ROLLING_SEED, as `make rolling` sets them, or short and 1.
func longRun(t *testing.T, short time.Duration) (time.Duration, uint64) {
	t.Helper()
	length, seed := short, uint64(1)
	var err error
	if s := os.Getenv("ROLLING_DURATION"); s != "" {
		if length, err = time.ParseDuration(s); err != nil {
			t.Fatalf("ROLLING_DURATION=%q; hint: a duration such as 10m", s)
		}
	}
	if s := os.Getenv("ROLLING_SEED"); s != "" {
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("ROLLING_SEED=%q; hint: a number", s)
		}
	}
	t.Logf("%v from seed %d; hint: make rolling DURATION=%v SEED=%d", length, seed, length, seed)
	return length, seed
}

// A group is a consumer group of one of Kafka's two protocols.
type group struct {
	name     string
	opts     []kgo.Opt
	assigned atomic.Int64 // how often a member got partitions
}

// bothProtocols returns a group of the classic protocol and one of KIP-848, whose members
// hear of a rebalance within half a second.
func bothProtocols(t *testing.T, bootstrap, prefix string) []*group {
	t.Helper()
	modern := &group{name: prefix + "-kip848", opts: []kgo.Opt{kgo.ServerSideBalancer(), kgo.Balancers(kgo.StickyBalancer())}}
	configureGroup(t, bootstrap, modern.name, "consumer.heartbeat.interval.ms", "500")
	classic := &group{name: prefix + "-classic", opts: []kgo.Opt{kgo.HeartbeatInterval(500 * time.Millisecond), kgo.SessionTimeout(20 * time.Second)}}
	return []*group{classic, modern}
}

// A member is one application of a group behind a sidecar. It commits what it has been given
// after each poll.
type member struct {
	group     *group
	flow      *numbered
	bootstrap string

	cl   *kgo.Client
	done chan struct{} // nil while it is away
}

func (m *member) join(t *testing.T) {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(m.bootstrap),
		kgo.ConsumerGroup(m.group.name),
		kgo.ConsumeTopics(m.flow.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { m.group.assigned.Add(1) }),
	}, m.group.opts...)...)
	if err != nil {
		t.Error(err) // not Fatal: whoever churns is not the test's own goroutine
		return
	}
	m.cl, m.done = cl, make(chan struct{})
	go m.run(cl, m.done)
}

func (m *member) run(cl *kgo.Client, done chan struct{}) {
	defer close(done)
	for {
		fetches := cl.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		for _, e := range fetches.Errors() {
			// A sidecar that restarts is away for a moment, and the client comes back by itself.
			var session *kgo.ErrGroupSession
			if !errors.As(e.Err, &session) {
				m.flow.fail("group %s behind %s, partition %d: %v", m.group.name, m.bootstrap, e.Partition, e.Err)
			}
		}
		fetches.EachRecord(func(r *kgo.Record) { m.flow.delivered(m.group.name, r) })
		// What a rebalance keeps from being committed is delivered again, to somebody.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		_ = cl.CommitUncommittedOffsets(ctx)
		cancel()
		cl.AllowRebalance()
	}
}

// leave ends the member, which tells its group.
func (m *member) leave() {
	if m.done == nil {
		return
	}
	m.cl.CloseAllowingRebalance()
	<-m.done
	m.cl, m.done = nil, nil
}

// leaveAll ends members side by side.
func leaveAll(members []*member) {
	var wg sync.WaitGroup
	for _, m := range members {
		wg.Go(m.leave)
	}
	wg.Wait()
}

// churn lets one member leave and another join every 2 s until ctx ends, and has all of
// them present then.
func churn(ctx context.Context, t *testing.T, rng *rand.Rand, members []*member) {
	t.Helper()
	var away *member
	for tick := time.NewTicker(2 * time.Second); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if away != nil {
				away.join(t)
			}
			return
		}
		next := members[rng.IntN(len(members))]
		if next == away {
			away.join(t)
			away = nil
			continue
		}
		next.leave()
		if away != nil {
			away.join(t)
		}
		away = next
	}
}

// Two groups of five members, each member behind its own sidecar, rebalance every 2 s while
// keys are made and erased: every record comes to both groups, and none that they have yet
// to read is unreadable. What both have passed is, afterwards, and the error says why.
func TestNothingIsLostWhileAGroupRebalances(t *testing.T) {
	b := sharedBroker(t)
	length, seed := longRun(t, 20*time.Second)
	const size, perSecond = 5, 300
	flow := newNumbered(newTopic(t, b.Bootstrap, "rebalance", 6, nil), 6, seed)
	groups := bothProtocols(t, b.Bootstrap, flow.topic)
	r := nodes.NewRealm(t)
	want := nodes.Role{Consume: flow.topic, Groups: []string{groups[0].name, groups[1].name}}
	var sidecars []*nodes.Sidecar
	for range size {
		sidecars = append(sidecars, nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, want), shortKeys))
	}
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: flow.topic}), shortKeys)

	all := map[*group][]*member{}
	for _, g := range groups {
		for _, s := range sidecars {
			m := &member{group: g, flow: flow, bootstrap: s.Addr}
			m.join(t)
			t.Cleanup(m.leave)
			all[g] = append(all[g], m)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { churn(ctx, t, rand.New(rand.NewPCG(seed, uint64(i))), all[g]) })
	}
	if err := flow.produce(ctx, writer.Addr, perSecond); err != nil {
		t.Fatalf("producing: %v", err)
	}
	wg.Wait()
	for _, g := range groups {
		flow.await(t, g.name)
	}
	for _, g := range groups {
		leaveAll(all[g])
		t.Logf("group %s: partitions were assigned %d times", g.name, g.assigned.Load())
		// Each churn is at least one rebalance, and each rebalance gives somebody something.
		if least := int64(length / (2 * time.Second)); g.assigned.Load() < least {
			t.Errorf("group %s: partitions were assigned %d times, want at least %d: too few to prove anything", g.name, g.assigned.Load(), least)
		}
	}
	repeated := flow.check(t, groups[0].name, groups[1].name)

	epochs := strings.Count(writer.Output(), `msg="epoch begun"`)
	t.Logf("%d records under %d epochs, %d deliveries repeated", flow.produced, epochs, repeated)
	if epochs < int(length/(5*time.Second)) {
		t.Errorf("%d epochs: too few to prove anything", epochs)
	}

	// The keys of what was read are gone from every node, and say so.
	for _, s := range sidecars {
		nodes.Poll(t, time.Minute, "erased keys at "+s.Addr, func() bool {
			return strings.Count(s.Output(), `msg="root erased"`) > 2
		})
		if strings.Contains(s.Output(), `msg="batch cannot be opened"`) {
			t.Errorf("sidecar %s refused a batch; its log:\n%s", s.Addr, lines(s.Output(), "cannot be opened"))
		}
	}
	expectErased(t, sidecars[0], flow.topic)
}

// expectErased reads a topic from its start behind a sidecar that has erased its first keys.
func expectErased(t *testing.T, s *nodes.Sidecar, topic string) {
	t.Helper()
	expectUnreadable(t, s, topic, []string{abi.StatusErased.String()})
}

// expectUnreadable reads a topic behind a sidecar that cannot open what comes first: the client is
// denied, and the log says why, in each of the texts, and gives a hint.
func expectUnreadable(t *testing.T, s *nodes.Sidecar, topic string, texts []string, opts ...kgo.Opt) {
	t.Helper()
	_, err := clients.FranzConsume(t.Context(), clients.Job{Bootstrap: s.Addr, Topic: topic, Count: 1, Timeout: 30 * time.Second}, opts...)
	if !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("reading what cannot be opened: %v, want %v", err, kerr.TopicAuthorizationFailed)
	}
	log := lines(s.Output(), `msg="batch cannot be opened"`)
	for _, text := range append(texts, "hint=") {
		if !strings.Contains(log, text) {
			t.Errorf("no %q in what the log says:\n%s", text, log)
		}
	}
}

// lines are the lines of a log that contain text.
func lines(log, text string) string {
	var out []string
	for _, l := range strings.Split(log, "\n") {
		if strings.Contains(l, text) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "\n")
}
