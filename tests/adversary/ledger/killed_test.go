package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	program "github.com/wasm-e2ee/wasm-e2ee/host/process"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
	"github.com/wasm-e2ee/wasm-e2ee/tests/adversary"
	"github.com/wasm-e2ee/wasm-e2ee/tests/artifact"
)

// The environment of a child: this test binary, run again as a sidecar.
const (
	envBootstrap = "LEDGER_TEST_BOOTSTRAP"
	envState     = "LEDGER_TEST_STATE"
	envModule    = "LEDGER_TEST_MODULE" // a directory with e2ee.wasm and a cache
)

func TestMain(m *testing.M) {
	if os.Getenv(envState) == "" {
		os.Exit(m.Run())
	}
	side, err := sidecar.Start(context.Background(), file(os.Getenv(envBootstrap), os.Getenv(envState), os.Getenv(envModule)), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("at %s\n", side.Addr())
	_ = side.Wait()
}

func file(bootstrap, state, module string) *config.File {
	return &config.File{
		Cluster: config.Cluster{Bootstrap: []string{bootstrap}}, Listen: "127.0.0.1:0", State: state,
		Module: filepath.Join(module, "e2ee.wasm"), CacheDir: filepath.Join(module, "cache"),
		Timing: config.Timing{Epoch: 2 * time.Second, Lead: 500 * time.Millisecond, PrekeyRotation: time.Hour, PrekeyGrace: time.Second,
			Skew: time.Minute, Window: 2 * time.Hour, HardCap: 24 * time.Hour, Offline: 24 * time.Hour},
	}
}

// A moment is when the system kills a real process.
type moment struct {
	name   string
	arrive func(*killing, kmsg.Request) bool // a request of the process that ends it; nil: a time
	stored bool                              // after the broker did as it was asked, not before
}

func produceTo(topic string) func(*killing, kmsg.Request) bool {
	return func(k *killing, r kmsg.Request) bool {
		q, ok := r.(*kmsg.ProduceRequest)
		return ok && slices.ContainsFunc(q.Topics, func(t kmsg.ProduceRequestTopic) bool { return k.is(topic, t.Topic, t.TopicID) })
	}
}

var moments = []moment{
	{name: "before its credential is written", arrive: produceTo(keyring.RosterTopic)},
	{name: "when its credential is written", arrive: produceTo(keyring.RosterTopic), stored: true},
	{name: "before it has read the roster", arrive: func(k *killing, r kmsg.Request) bool {
		q, ok := r.(*kmsg.ListOffsetsRequest)
		return ok && slices.ContainsFunc(q.Topics, func(t kmsg.ListOffsetsRequestTopic) bool { return t.Topic == keyring.RosterTopic })
	}},
	{name: "before it knows the topic's policy", arrive: func(_ *killing, r kmsg.Request) bool {
		q, ok := r.(*kmsg.DescribeConfigsRequest)
		return ok && slices.ContainsFunc(q.Resources, func(c kmsg.DescribeConfigsRequestResource) bool { return c.ResourceName == topics[0] })
	}},
	{name: "before a grant is written", arrive: produceTo(keyring.GrantsTopic)},
	{name: "when a grant is written, and not acknowledged", arrive: produceTo(keyring.GrantsTopic), stored: true},
	{name: "before a sealed batch is stored", arrive: produceTo(topics[0])},
	{name: "when a sealed batch is stored, and not acknowledged", arrive: produceTo(topics[0]), stored: true},
	{name: "when it is ready"},
	{name: "while it seals"},
}

// A killing is a cluster, one producing node's state, and what the broker is sent.
type killing struct {
	t       *testing.T
	cluster *kfake.Cluster
	addr    string
	module  string
	ids     map[string][16]byte

	mu      sync.Mutex
	armed   *moment
	victim  *program.Process
	killed  map[string]int
	batches [][]byte // of data, as they arrived, whether stored or not
}

func (k *killing) is(topic, name string, id [16]byte) bool {
	return name == topic || name == "" && k.ids[topic] == id
}

// sees is called with every request that reaches the broker.
func (k *killing) sees(r kmsg.Request) (kmsg.Response, error, bool) {
	k.cluster.KeepControl()
	k.mu.Lock()
	defer k.mu.Unlock()
	if q, ok := r.(*kmsg.ProduceRequest); ok && produceTo(topics[0])(k, r) {
		for _, t := range q.Topics {
			for _, p := range t.Partitions {
				k.batches = append(k.batches, slices.Clone(p.Records))
			}
		}
	}
	m := k.armed
	if m == nil || m.arrive == nil || k.victim == nil || !m.arrive(k, r) {
		return nil, nil, false
	}
	victim := k.victim
	k.armed, k.victim = nil, nil
	k.killed[m.name]++
	if m.stored {
		time.AfterFunc(3*time.Millisecond, victim.Kill)
		return nil, nil, false
	}
	victim.Kill()
	return nil, errors.New("the connection is gone"), true
}

func newKilling(t *testing.T) *killing {
	t.Helper()
	k := &killing{t: t, module: t.TempDir(), ids: map[string][16]byte{}, killed: map[string]int{}}
	k.must(os.WriteFile(filepath.Join(k.module, "e2ee.wasm"), artifact.Module(t), 0o600))
	var err error
	k.cluster, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(4, topics...))
	k.must(err)
	t.Cleanup(k.cluster.Close)
	k.addr = k.cluster.ListenAddrs()[0]
	return k
}

func (k *killing) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// enrol makes a node's state in a directory of its own.
func (k *killing) enrol(issuer *keyring.Issuer, want keyring.Attributes) string {
	s, err := keyring.NewState(rand.Reader)
	k.must(err)
	defer s.Wipe()
	want.Topics, want.OfflineAllow = []wire.Pattern{{Prefix: true}}, 24*time.Hour
	credential, err := issuer.Issue(rand.Reader, s.Node().CSR(want), nil, keyring.Validity{NotBefore: time.Now(), NotAfter: time.Now().Add(24 * time.Hour)})
	k.must(err)
	k.must(s.Node().Install(credential, time.Now()))
	path := filepath.Join(k.t.TempDir(), "state")
	store, err := agent.OpenStore(path)
	k.must(err)
	k.must(errors.Join(store.SaveState(s), store.Close()))
	return path
}

// copyOf is a state's copy on another machine.
func (k *killing) copyOf(state []byte) string {
	path := filepath.Join(k.t.TempDir(), "state")
	k.must(os.WriteFile(path, state, 0o600))
	return path
}

func (k *killing) read(path string) []byte {
	b, err := os.ReadFile(path)
	k.must(err)
	return b
}

// start runs a sidecar as a process. It may end before it is ready.
func (k *killing) start(state string) *program.Process {
	self, err := os.Executable()
	k.must(err)
	p, err := program.Start(program.Spec{Name: "sidecar", Args: []string{self}, Env: []string{envBootstrap + "=" + k.addr, envState + "=" + state, envModule + "=" + k.module}})
	k.must(err)
	k.t.Cleanup(p.Kill)
	return p
}

// produce sends records through a process until it ends or all are acknowledged.
func (k *killing) produce(p *program.Process, records int) {
	ctx, cancel := context.WithTimeout(k.t.Context(), 20*time.Second)
	defer cancel()
	if p.WaitFor(ctx, "at 127.") != nil {
		return // killed before it was ready
	}
	var addr string
	if _, err := fmt.Sscanf(p.Output()[strings.Index(p.Output(), "at 127."):], "at %s", &addr); err != nil {
		k.t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DefaultProduceTopic(topics[0]), kgo.DisableIdempotentWrite(), kgo.ProducerLinger(0))
	k.must(err)
	defer cl.Close()
	go func() {
		<-p.Done()
		cancel()
	}()
	for i := range records {
		done := make(chan error, 1)
		cl.Produce(ctx, kgo.StringRecord(fmt.Sprint("record ", i)), func(_ *kgo.Record, err error) { done <- err })
		select {
		case err := <-done:
			if err != nil {
				return
			}
		case <-ctx.Done(): // one that was sent is not given up by itself
			return
		}
	}
}

// Real sidecars, each a process, are killed by the system at each moment, and start again
// from their state, from the state of long ago, or two at once from one.
func TestNoLeafOfAKilledProcessSealsTwice(t *testing.T) {
	t.Parallel()
	k := newKilling(t)
	root, err := keyring.NewRealm(rand.Reader)
	k.must(err)
	issuer, err := root.CertifyIssuer(rand.Reader, time.Now(), time.Now().Add(48*time.Hour))
	k.must(err)
	// A consumer publishes one prekey, with which every grant of the test opens.
	consumer := k.enrol(issuer, keyring.Attributes{Roles: wire.RoleConsume, Groups: []wire.Pattern{{Name: "readers"}}})
	ctx, cancel := context.WithCancel(t.Context())
	side, err := sidecar.Start(ctx, file(k.addr, consumer, k.module), slog.New(slog.DiscardHandler))
	k.must(err)
	cancel()
	k.must(side.Wait())
	admin, err := kgo.NewClient(kgo.SeedBrokers(k.addr))
	k.must(err)
	defer admin.Close()
	listed, err := kadm.NewClient(admin).ListTopics(t.Context(), append([]string{keyring.RosterTopic, keyring.GrantsTopic}, topics...)...)
	k.must(err)
	for name, topic := range listed {
		k.ids[name] = topic.ID
	}
	k.cluster.Control(k.sees)

	state := k.enrol(issuer, keyring.Attributes{Roles: wire.RoleProduce})
	old := k.read(state)
	restores, twins := 0, 0
	for range setting("ADVERSARY_LEDGERS", 2) / 2 {
		for i := range moments {
			m := &moments[i]
			var twin *program.Process
			switch {
			case m.arrive != nil && i%2 == 0:
				k.must(os.WriteFile(state, old, 0o600))
				restores++
			case m.arrive == nil || i == 1: // where no request of the twin is taken for the other's
				twin = k.start(k.copyOf(k.read(state)))
				twins++
			}
			k.life(m, state, twin)
		}
	}
	k.judge(consumer)
	for _, m := range moments {
		if k.killed[m.name] == 0 {
			t.Errorf("no process was killed %s", m.name)
		}
	}
	kills := 0
	for _, n := range k.killed {
		kills += n
	}
	t.Logf("%d kills at %d moments, %d old states put back, %d states run twice", kills, len(moments), restores, twins)
}

// life is one process's, with a second one of the same state beside it where twin is given.
func (k *killing) life(m *moment, state string, twin *program.Process) {
	var wg sync.WaitGroup
	if twin != nil {
		k.produce(twin, 3)
		wg.Go(func() { k.produce(twin, 10) })
	}
	p := k.start(state)
	k.mu.Lock()
	k.armed, k.victim = m, p
	k.mu.Unlock()
	switch m.name {
	case "when it is ready":
		k.produce(p, 0)
	case "while it seals":
		before := k.arrived()
		wg.Go(func() { k.produce(p, 10_000) })
		for end := time.Now().Add(15 * time.Second); k.arrived() < before+100 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		}
		p.Kill()
	default:
		k.produce(p, 20)
	}
	k.mu.Lock()
	if m.arrive == nil {
		k.killed[m.name]++
	}
	k.armed, k.victim = nil, nil
	k.mu.Unlock()
	p.Kill()
	wg.Wait()
	if twin != nil {
		twin.Kill()
	}
}

// arrived is how many sealed batches came to the broker.
func (k *killing) arrived() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.batches)
}

// judge enters every batch that arrived into a ledger.
func (k *killing) judge(consumer string) {
	log, err := adversary.Collect(k.t.Context(), []kgo.Opt{kgo.SeedBrokers(k.addr)}, topics[0])
	k.must(err)
	roots, err := keyring.UnsafeRoots(k.read(consumer), log.Grants)
	k.must(err)
	book := newLedger()
	for _, r := range roots {
		book.root(r.Kid, &r.Root)
	}
	instances := map[wire.InstanceID]bool{}
	for _, g := range log.Grants {
		instances[g.Header.Instance] = true
	}
	for _, b := range k.batches {
		var r kafka.Record
		_, err := kafka.NextRecord(b[kafka.BatchHeaderSize:], &r)
		k.must(err)
		h, err := wire.ParsePackedHeader(r.Value)
		k.must(err)
		if err := book.sealed(h, "a process"); err != nil {
			k.t.Error(err)
		}
	}
	for _, s := range append(book.again, book.repeats...) {
		k.t.Errorf("used again: %s", s)
	}
	k.t.Logf("%d batches under %d keys of %d epochs, %d instances", book.batches, len(book.keys), len(book.roots), len(instances))
	if book.batches < 100 || len(instances) < 4 {
		k.t.Error("too little happened to judge by")
	}
}
