package e2e

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/clients"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
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

// churn lets one member leave and another join every 2 s until ctx ends, and has all of
// them present then.
func churn(ctx context.Context, t *testing.T, rng *rand.Rand, members []*flow.Member) {
	t.Helper()
	var away *flow.Member
	for tick := time.NewTicker(2 * time.Second); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if away != nil {
				away.Join(t)
			}
			return
		}
		next := members[rng.IntN(len(members))]
		if next == away {
			away.Join(t)
			away = nil
			continue
		}
		next.Leave()
		if away != nil {
			away.Join(t)
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
	numbered := flow.New(newTopic(t, b.Bootstrap, "rebalance", 6, nil), 6, seed)
	groups := flow.BothProtocols(t, b.Bootstrap, numbered.Topic)
	r := nodes.NewRealm(t)
	want := nodes.Role{Consume: numbered.Topic, Groups: []string{groups[0].Name, groups[1].Name}}
	var sidecars []*nodes.Sidecar
	for range size {
		sidecars = append(sidecars, nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, want), shortKeys))
	}
	writer := nodes.StartSidecar(t, b.Bootstrap, r.Enroll(t, nodes.Role{Produce: numbered.Topic}), shortKeys)

	all := map[*flow.Group][]*flow.Member{}
	for _, g := range groups {
		for _, s := range sidecars {
			m := &flow.Member{Group: g, Flow: numbered, Bootstrap: s.Addr}
			m.Join(t)
			t.Cleanup(m.Leave)
			all[g] = append(all[g], m)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	for i, g := range groups {
		wg.Go(func() { churn(ctx, t, rand.New(rand.NewPCG(seed, uint64(i))), all[g]) })
	}
	if err := numbered.Produce(ctx, writer.Addr, perSecond); err != nil {
		t.Fatalf("producing: %v", err)
	}
	wg.Wait()
	for _, g := range groups {
		numbered.Await(t, g.Name)
	}
	for _, g := range groups {
		flow.LeaveAll(all[g])
		t.Logf("group %s: partitions were assigned %d times", g.Name, g.Assigned.Load())
		// Each churn is at least one rebalance, and each rebalance gives somebody something.
		if least := int64(length / (2 * time.Second)); g.Assigned.Load() < least {
			t.Errorf("group %s: partitions were assigned %d times, want at least %d: too few to prove anything", g.Name, g.Assigned.Load(), least)
		}
	}
	repeated := numbered.Check(t, groups[0].Name, groups[1].Name)

	epochs := strings.Count(writer.Output(), `msg="epoch begun"`)
	t.Logf("%d records under %d epochs, %d deliveries repeated", numbered.Produced, epochs, repeated)
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
	expectErased(t, sidecars[0], numbered.Topic)
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
