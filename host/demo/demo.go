// Package demo shows the product to a person: two sidecars, or two Envoys with an agent each, a
// plain producer and a plain consumer around a broker, what each of the three sees, and what an
// attacker gets out of a copy of the consumer's state. What it prints is measured, and Run fails
// where it does not hold.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/agent"
	"github.com/wasm-e2ee/wasm-e2ee/host/config"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/sidecar"
)

// Options say where and how long.
type Options struct {
	Bootstrap string        // HOST:PORT of a real cluster; "" starts one inside the process
	Duration  time.Duration // how long records flow
	Module    string        // e2ee.wasm; "" is the one beside the executable
	Envoy     string        // an Envoy to run the module in, twice, with an agent each; "" runs sidecars
	Keep      string        // a directory, new or empty, for state files and configurations; "" leaves nothing behind
	Out       io.Writer
}

// timing rotates fast enough to watch. Everything else about the keys is as in production.
var timing = config.Timing{
	Epoch: 3 * time.Second, Lead: 500 * time.Millisecond,
	PrekeyRotation: 2 * time.Second, PrekeyGrace: time.Second,
	Skew: 500 * time.Millisecond, Settle: 500 * time.Millisecond, Window: time.Second,
	HardCap: time.Hour, Offline: time.Hour,
}

// leastDuration leaves epochs on both sides of what a copy in the middle opens.
const leastDuration = 12 * time.Second

const (
	group      = "billing"
	partitions = 2
)

// ErrNotHeld is returned where one of the things that the demo shows did not hold.
var ErrNotHeld = errors.New("the demo's promises did not hold")

// A stage is everything that one run sets up.
type stage struct {
	out        *screen
	bootstrap  string
	topic      string
	dir        string
	admin      *kadm.Client
	producer   *plane
	consumer   *plane
	stateFile  string        // the consumer's
	validity   time.Duration // of the nodes' credentials
	onTeardown []func()
}

// A plane is what one end's clients connect to, and the agent that has its keys.
type plane struct {
	*agent.Agent
	name  string
	addr  string      // HOST:PORT for clients
	envoy *envoyPlane // nil: a sidecar
}

// Run shows it all and returns nil where everything held.
func Run(ctx context.Context, o Options) error {
	if o.Duration < leastDuration {
		return fmt.Errorf("a demo of %s is too short: the window of exposure would cover all of it\nhint: at least %s", o.Duration, leastDuration)
	}
	ctx, gone := context.WithCancelCause(ctx)
	defer gone(nil)
	s := &stage{out: newScreen(o.Out, gone), bootstrap: o.Bootstrap, validity: 2*o.Duration + time.Hour}
	defer s.teardown()
	err := s.show(ctx, o)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *stage) show(ctx context.Context, o Options) error {
	if err := s.setup(ctx, o); err != nil {
		return err
	}
	flow, err := s.flow(ctx, o.Duration)
	if err != nil {
		return err
	}
	leaks, err := s.leaks(ctx, flow)
	if err != nil {
		return err
	}
	if err := s.verdict(ctx, flow, leaks); err != nil || o.Keep == "" {
		return err
	}
	return s.keepAll(flow)
}

func (s *stage) setup(ctx context.Context, o Options) error {
	s.out.title("End-to-end encryption for Apache Kafka that applications do not notice")
	if s.bootstrap == "" {
		cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
		if err != nil {
			return fmt.Errorf("embedded broker: %w", err)
		}
		s.onTeardown = append(s.onTeardown, cluster.Close)
		s.bootstrap = cluster.ListenAddrs()[0]
		s.out.step("broker     embedded (kfake) at %s", s.bootstrap)
	} else {
		s.out.step("broker     %s", s.bootstrap)
	}
	if err := s.folder(o.Keep); err != nil {
		return err
	}
	if err := s.makeTopic(ctx); err != nil {
		return err
	}
	producerState, consumerState, err := s.makeRealm()
	if err != nil {
		return err
	}
	s.stateFile = consumerState
	if s.consumer, err = s.start(ctx, o, "consumer", consumerState); err != nil {
		return err
	}
	if s.producer, err = s.start(ctx, o, "producer", producerState); err != nil {
		return err
	}
	return s.serving(ctx)
}

// makeTopic makes a topic of its own, so that the demo can be run on any cluster, and
// removes what it made.
func (s *stage) makeTopic(ctx context.Context) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.bootstrap), kgo.RetryTimeout(15*time.Second))
	if err != nil {
		return err
	}
	s.onTeardown = append(s.onTeardown, client.Close)
	s.admin = kadm.NewClient(client)
	var suffix [4]byte
	if _, err := rand.Read(suffix[:]); err != nil {
		return err
	}
	s.topic = "demo-orders-" + hex.EncodeToString(suffix[:])
	before, err := s.admin.ListTopics(ctx, keyring.RosterTopic, keyring.GrantsTopic)
	if err != nil {
		return fmt.Errorf("broker %s: %w\nhint: is it up, and does it speak plain Kafka?", s.bootstrap, err)
	}
	if _, err := s.admin.CreateTopic(ctx, partitions, -1, nil, s.topic); err != nil {
		return fmt.Errorf("topic %s: %w\nhint: the demo makes a topic of its own and needs the right to", s.topic, err)
	}
	made := []string{s.topic}
	for _, control := range []string{keyring.RosterTopic, keyring.GrantsTopic} {
		if !before.Has(control) {
			made = append(made, control)
		}
	}
	s.onTeardown = append(s.onTeardown, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_, _ = s.admin.DeleteTopics(ctx, made...)
		_, _ = s.admin.DeleteGroups(ctx, s.group())
	})
	return nil
}

// group is named after the topic, so that runs on one cluster do not meet.
func (s *stage) group() string { return group + s.topic[len("demo-orders"):] }

// makeRealm does in memory what `realm init`, `enroll` and `realm issue` do with files.
func (s *stage) makeRealm() (producer, consumer string, err error) {
	now := time.Now()
	root, err := keyring.NewRealm(rand.Reader)
	if err != nil {
		return "", "", err
	}
	defer root.Wipe()
	issuer, err := root.CertifyIssuer(rand.Reader, now, now.Add(s.validity+time.Hour))
	if err != nil {
		return "", "", err
	}
	defer issuer.Wipe()
	s.out.step("realm      %s, an issuer, two nodes enrolled", root.Realm())
	topics := []wire.Pattern{{Name: s.topic}}
	if producer, err = s.enrol(issuer, "producer", keyring.Attributes{Roles: wire.RoleProduce, Topics: topics}); err != nil {
		return "", "", err
	}
	consumer, err = s.enrol(issuer, "consumer", keyring.Attributes{Roles: wire.RoleConsume, Topics: topics,
		Groups: []wire.Pattern{{Name: s.group()}}, OfflineAllow: time.Hour})
	return producer, consumer, err
}

func (s *stage) enrol(issuer *keyring.Issuer, name string, want keyring.Attributes) (string, error) {
	now := time.Now()
	state, err := keyring.NewState(rand.Reader)
	if err != nil {
		return "", err
	}
	defer state.Wipe()
	file, err := issuer.Issue(rand.Reader, state.Node().CSR(want), nil,
		keyring.Validity{NotBefore: now, NotAfter: now.Add(s.validity)})
	if err != nil {
		return "", err
	}
	if err := state.Node().Install(file, now); err != nil {
		return "", err
	}
	path := filepath.Join(s.dir, name+".state")
	store, err := agent.OpenStore(path)
	if err != nil {
		return "", err
	}
	return path, errors.Join(store.SaveState(state), store.Close())
}

// start runs one data plane: a sidecar, as `wasm-e2ee proxy` does, or an Envoy. It reports
// warnings and errors only.
func (s *stage) start(ctx context.Context, o Options, name, state string) (*plane, error) {
	begun := time.Now()
	log := slog.New(slog.NewTextHandler(s.out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if o.Envoy != "" {
		return s.startEnvoy(ctx, o, name, state, log.With("agent", name))
	}
	// It ends at teardown and not with ctx: clients that still run leave their groups through
	// it.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, stop)()
	side, err := sidecar.Start(life, &config.File{
		Cluster: config.Cluster{Bootstrap: []string{s.bootstrap}}, Listen: "127.0.0.1:0", State: state, Module: o.Module, Timing: timing,
	}, log.With("sidecar", name))
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s's sidecar: %w", name, err)
	}
	s.onTeardown = append(s.onTeardown, func() { stop(); _ = side.Wait() })
	s.out.step("%-10s sidecar at %s, up in %d ms", name, side.Addr(), time.Since(begun).Milliseconds())
	return &plane{Agent: side.Agent, name: name, addr: side.Addr().String()}, nil
}

func (s *stage) teardown() {
	for i := len(s.onTeardown) - 1; i >= 0; i-- {
		s.onTeardown[i]()
	}
}
