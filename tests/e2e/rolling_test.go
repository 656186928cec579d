package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"

	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/broker"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/flow"
	"github.com/wasm-e2ee/wasm-e2ee/tests/e2e/nodes"
)

// A host is a machine of a rolling restart: a state file, an address that stays, and the
// sidecars that ran there one after the other.
type host struct {
	bootstrap      string // the broker's
	state          string
	more           nodes.Settings
	*nodes.Sidecar          // that runs now
	logs           []string // of those before it
}

func startHost(t *testing.T, bootstrap, state string, more nodes.Settings) *host {
	t.Helper()
	h := &host{bootstrap: bootstrap, state: state, more: nodes.Settings{"listen": stableAddress(t)}}
	for k, v := range more {
		h.more[k] = v
	}
	h.start(t)
	return h
}

func (h *host) start(t *testing.T) {
	t.Helper()
	h.Sidecar = nodes.StartSidecar(t, h.bootstrap, h.state, h.more)
}

// stop ends the sidecar as an operator does, or as a power cut does.
func (h *host) stop(t *testing.T, crash bool) {
	t.Helper()
	if crash {
		h.Crash()
	} else if code := h.Stop(15 * time.Second); code != 0 {
		t.Errorf("sidecar %s ended with exit code %d, want a clean end", h.Addr, code)
	}
	h.logs = append(h.logs, h.Output())
}

// log is what all sidecars of the host logged.
func (h *host) log() string { return strings.Join(append(slices.Clone(h.logs), h.Output()), "\n") }

// stableAddress is one that is still free after a restart. The sidecar takes the port behind it
// for the broker.
func stableAddress(t *testing.T) string {
	t.Helper()
	port, err := broker.StablePort(3)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// A fleet is five hosts with a member of two groups each, and a producer's host.
type fleet struct {
	realm   nodes.Realm
	flow    *flow.Flow
	groups  []*flow.Group
	want    nodes.Role // of every consumer
	hosts   []*host
	writer  *host
	members []*flow.Member
	rng     *rand.Rand
}

func startFleet(t *testing.T, prefix string, want nodes.Role, seed uint64) *fleet {
	t.Helper()
	b := sharedBroker(t)
	f := &fleet{rng: rand.New(rand.NewPCG(seed, 0)), flow: flow.New(newTopic(t, b.Bootstrap, prefix, 6, nil), 6, seed)}
	f.groups = flow.BothProtocols(t, b.Bootstrap, f.flow.Topic)
	f.want = want
	f.want.Consume, f.want.Groups = f.flow.Topic, []string{f.groups[0].Name, f.groups[1].Name}
	f.realm = nodes.NewRealm(t)
	for range 5 {
		f.hosts = append(f.hosts, startHost(t, b.Bootstrap, f.realm.Enroll(t, f.want), shortKeys))
	}
	f.writer = startHost(t, b.Bootstrap, f.realm.Enroll(t, nodes.Role{Produce: f.flow.Topic}), shortKeys)
	for _, g := range f.groups {
		for _, h := range f.hosts {
			m := &flow.Member{Group: g, Flow: f.flow, Bootstrap: h.Addr}
			f.members = append(f.members, m)
			t.Cleanup(m.Leave)
		}
	}
	return f
}

func (f *fleet) joinAll(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		m.Join(t)
	}
}

// finish waits until everything was read and checks that no sidecar refused a batch.
func (f *fleet) finish(t *testing.T) {
	t.Helper()
	for _, g := range f.groups {
		f.flow.Await(t, g.Name)
	}
	flow.LeaveAll(f.members)
	repeated := f.flow.Check(t, f.groups[0].Name, f.groups[1].Name)
	epochs := strings.Count(f.writer.log(), `msg="epoch begun"`)
	t.Logf("%d records under %d epochs, %d deliveries repeated", f.flow.Produced, epochs, repeated)
	for _, h := range f.hosts {
		if log := h.log(); strings.Contains(log, `msg="batch cannot be opened"`) {
			t.Errorf("sidecar %s refused a batch; its log:\n%s", h.Addr, lines(log, "cannot be opened"))
		}
	}
}

// Every sidecar restarts on its disk, one after the other, the producer's too, half of them by
// a power cut: first while both groups are away for longer than keys are kept that they have
// read, then under the applications' feet. No record is lost, and none is unreadable.
func TestSidecarsRestartOneAfterTheOtherOnTheirDisks(t *testing.T) {
	length, seed := longRun(t, 0)
	f := startFleet(t, "rolling", nodes.Role{}, seed)
	restartAll := func() {
		for _, i := range f.rng.Perm(len(f.hosts) + 1) {
			h := append(slices.Clone(f.hosts), f.writer)[i]
			h.stop(t, f.rng.IntN(2) == 0)
			h.start(t)
		}
	}
	f.joinAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	produced := make(chan error, 1)
	go func() { produced <- f.flow.Produce(ctx, f.writer.Addr, 200) }()
	for begun, once := time.Now(), true; once || time.Since(begun) < length; once = false {
		time.Sleep(2 * time.Second) // some records are read and committed
		flow.LeaveAll(f.members)
		away := time.Now()
		restartAll()
		// Erased would by now be what was sealed as the groups left, had they read it.
		time.Sleep(time.Until(away.Add(15 * time.Second)))
		f.joinAll(t)
		restartAll()
	}
	cancel()
	if err := <-produced; err != nil {
		t.Fatalf("producing: %v", err)
	}
	f.finish(t)
	for _, h := range f.hosts {
		nodes.Poll(t, time.Minute, "erased keys at "+h.Addr, func() bool { return strings.Count(h.log(), `msg="root erased"`) > 2 })
	}
	expectErased(t, f.hosts[0].Sidecar, f.flow.Topic)
}

// replace starts a consumer's sidecar, which was stopped, without its disk: another node, in
// the same groups.
func (f *fleet) replace(t *testing.T, h *host) {
	t.Helper()
	if err := os.Remove(h.state); err != nil {
		t.Fatal(err)
	}
	h.state = f.realm.Enroll(t, f.want)
	h.start(t)
}

// Every consumer's sidecar restarts without its disk, one after the other, while both groups
// have read nothing for longer than a new member is wrapped for: what they left, and what
// comes before the next epoch, each gets from the members that are still there. No record is
// lost, and none is unreadable. Where all members lose their disks at once, what the groups had
// left is gone, and the error says so.
func TestSidecarsRestartOneAfterTheOtherWithoutTheirDisks(t *testing.T) {
	length, seed := longRun(t, 0)
	f := startFleet(t, "diskless", nodes.Role{Share: true}, seed)
	f.joinAll(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	produced := make(chan error, 1)
	go func() { produced <- f.flow.Produce(ctx, f.writer.Addr, 200) }()
	for begun, once := time.Now(), true; once || time.Since(begun) < length; once = false {
		time.Sleep(2 * time.Second)
		flow.LeaveAll(f.members)
		time.Sleep(8 * time.Second) // epochs that no later member is a recipient of
		order := f.rng.Perm(len(f.hosts))
		for n, i := range order {
			if n == 2 {
				f.joinAll(t)
			}
			f.hosts[i].stop(t, f.rng.IntN(2) == 0)
			f.replace(t, f.hosts[i])
		}
	}
	cancel()
	if err := <-produced; err != nil {
		t.Fatalf("producing: %v", err)
	}
	f.finish(t)
	shared := 0
	for _, h := range f.hosts {
		shared += strings.Count(h.log(), `msg="root received from a peer"`)
	}
	t.Logf("%d keys came from peers", shared)
	if shared == 0 {
		t.Error("no key came from a peer: nothing was proven")
	}

	left, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := f.flow.Produce(left, f.writer.Addr, 200); err != nil {
		t.Fatalf("producing: %v", err)
	}
	for _, h := range f.hosts {
		h.stop(t, false)
	}
	for _, h := range f.hosts {
		f.replace(t, h)
	}
	expectUnreadable(t, f.hosts[0].Sidecar, f.flow.Topic, []string{abi.StatusUnreadable.String(), "keep two of them up"},
		append(f.groups[0].Opts, kgo.ConsumerGroup(f.groups[0].Name))...)
}
