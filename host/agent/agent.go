// Package agent moves KX1's keys over Kafka: it drives the state machines of host/keyring
// with the topics _e2ee.roster and _e2ee.grants, a state file and a clock, and answers the
// data plane's two questions, Lease and Root (abi/PROTOCOL.md §2.7, §2.8). It decides
// nothing about keys by itself and sees no record of the application but the values' first
// bytes, which it reads to learn what a group has passed.
package agent

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
	"github.com/wasm-e2ee/wasm-e2ee/host/scrub"
)

// ackTimeout is how long a control record may stay without its acknowledgement. A grant
// that takes longer ends the producing instance (PROTOCOL.md §2.7.3).
const ackTimeout = 30 * time.Second

// Config is what an agent needs to know.
type Config struct {
	// Kafka is how to reach the brokers: seeds, TLS, SASL, dialer. The agent makes clients
	// of its own from it, with its own limits on time.
	Kafka []kgo.Opt
	// StateFile is the node's state, made by `wasm-e2ee enroll`. One process at a time.
	StateFile string
	// Timing is the periods of PROTOCOL.md §2.17; the zero value means the defaults.
	Timing keyring.Timing
	// RequireGroups names, for a topic, the consumer groups without which it must not be
	// produced to. May be nil.
	RequireGroups func(topic string) []string
	// RequireFresh refuses to begin an epoch while the realm's AuthorityState is not fresh,
	// so that nothing is sealed for a node whose revocation is held back (PROTOCOL.md §2.14).
	// Otherwise that is a line in the log.
	RequireFresh bool
	// GrantsRetention is given to the grants topic when it is created: the longest
	// retention of any encrypted topic and one day more. Zero means 8 days.
	GrantsRetention time.Duration
	Log             *slog.Logger // nil: none
}

// An Agent is one node at work: it implements engine.Keys. Its methods are safe for
// concurrent use.
type Agent struct {
	cfg    Config
	log    *slog.Logger
	quiet  limiter // of lasting failures
	alarms alarms
	store  *Store
	cl     *kgo.Client // writes control records and asks brokers; it consumes nothing
	adm    *kadm.Client
	need   aclList

	rosterLog *reader
	grantsLog *reader

	ctx    context.Context // ends when the agent shuts down, with abi.StatusShuttingDown
	cancel context.CancelCauseFunc
	joined chan struct{} // closed once the roster was read and this node can be granted keys
	ready  chan struct{}
	closed sync.Once
	clock  func() time.Time

	// mu guards what host/keyring made, and what lies below.
	mu       sync.Mutex
	state    *keyring.State
	node     *keyring.Node
	roster   *keyring.Roster
	producer *keyring.Producer
	consumer *keyring.Consumer
	onErase  func([]abi.Kid)
	awaited  map[string]*readBack // own grants on their way, by Kafka key
	publish  publication
	grants   keptGrants
	counts   counts
	told     toldOf
	contact  time.Time // when the control topics were last known to be read to their ends

	inquiry    inquiry
	classified classified
	past       recall
	requests   chan *kgo.Record // of peers, for keys
	grantsEnd  shared
	retention  map[string]time.Time // when the retention of a topic was asked; the progress loop's own
	rosterRead time.Time            // when an end offset was asked that the roster was read to; the grants reader's own
	idleGrant  time.Time            // when a grant was last written that began nothing; the flight's own
	saves      sync.Mutex           // one save at a time, so that an older state never replaces a newer
	saved      uint64               // version on disk; guarded by saves
	flights    flights
	rotate     chan struct{} // has the epochs looked at
	policy     policies
	replays    *replayGuard // takes mu below its own lock, so never called with mu held
	replayFile *replayFile  // of a consumer; the flushing loop's own
}

// Open reads and locks the state file, checks that it can be written and that the
// credential is valid, reaches the brokers and sees to the control topics. It returns
// within about 20 s. An Agent that is not Run must be closed.
func Open(ctx context.Context, cfg Config) (*Agent, error) {
	if cfg.Timing == (keyring.Timing{}) {
		cfg.Timing = keyring.DefaultTiming()
	}
	if err := cfg.Timing.Validate(); err != nil {
		return nil, err
	}
	if cfg.GrantsRetention == 0 {
		cfg.GrantsRetention = 8 * 24 * time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: cfg, log: cfg.Log, clock: time.Now, joined: make(chan struct{}), ready: make(chan struct{}), requests: make(chan *kgo.Record, maxRequests), rotate: make(chan struct{}, 1), awaited: make(map[string]*readBack), retention: make(map[string]time.Time), replays: newReplayGuard(maxReplayEntries)}
	a.ctx, a.cancel = context.WithCancelCause(context.Background())
	if err := a.open(ctx); err != nil {
		a.Close()
		return nil, err
	}
	return a, nil
}

func (a *Agent) open(ctx context.Context) (err error) {
	if err := a.openState(); err != nil {
		return err
	}
	a.need = aclsFor(a.node.Credential())
	if a.cl, err = newClient(a.cfg.Kafka); err != nil {
		return err
	}
	a.adm = kadm.NewClient(a.cl)
	if err := ping(ctx, a.cl); err != nil {
		return err
	}
	if err := ensureTopics(ctx, a.cl, controlTopics(a.cfg.GrantsRetention), a.need, a.log); err != nil {
		return err
	}
	if a.rosterLog, err = newReader(a.cfg.Kafka, a.cl, rosterTopic, 0, 0, true, a.need, a.log); err != nil {
		return err
	}
	from, err := a.grantsFrom(ctx)
	if err != nil {
		return err
	}
	a.past.from = from
	a.grantsLog, err = newReader(a.cfg.Kafka, a.cl, grantsTopic, a.node.GrantPartition(), from, a.node.HasRole(wire.RoleConsume), a.need, a.log)
	return err
}

// openState makes everything that lives on the state file.
func (a *Agent) openState() (err error) {
	if a.store, err = OpenStore(a.cfg.StateFile); err != nil {
		return err
	}
	if a.state, err = a.store.LoadState(); err != nil {
		return err
	}
	a.node = a.state.Node()
	if err := a.node.Check(a.now()); err != nil && !a.node.Renewable(a.now()) {
		return fmt.Errorf("state file %s: %w\nhint: have the node's request signed with `wasm-e2ee realm issue` and install the credential with `wasm-e2ee enroll`", a.cfg.StateFile, err)
	}
	a.roster = keyring.NewRoster(a.state, a.cfg.Timing)
	a.consumer = keyring.NewConsumer(a.state, a.cfg.Timing, rand.Reader)
	if a.producer, err = keyring.NewProducer(a.node, a.cfg.Timing, a.cfg.RequireGroups, rand.Reader); err != nil {
		return err
	}
	if a.cfg.RequireFresh {
		a.producer.RequireFresh()
	}
	// A state that cannot be rewritten could not be erased from: find out now.
	if err := a.saveAlways(); err != nil || !a.node.HasRole(wire.RoleConsume) {
		return err
	}
	return a.openReplays()
}

// grantsFrom is where the grants reader starts. A node that only produces reads its own
// grants back one by one, and nothing else.
func (a *Agent) grantsFrom(ctx context.Context) (int64, error) {
	end, err := listOffset(ctx, a.cl, grantsTopic, a.node.GrantPartition(), listEnd)
	if err != nil || !a.node.HasRole(wire.RoleConsume) {
		return end, a.refusedOr(err)
	}
	start, err := listOffset(ctx, a.cl, grantsTopic, a.node.GrantPartition(), listStart)
	if err != nil {
		return 0, a.refusedOr(err)
	}
	next := a.consumer.GrantsNext()
	if next > end {
		a.alarm(AlarmRollback, "the grants topic is shorter than what this node has read: reading it again from its start", "grants",
			"next", next, "end", end, "hint", hintRollback)
		a.consumer.RestartGrants(start)
		return start, nil
	}
	return max(next, start), nil
}

// refusedOr adds the list of ACLs to an authorisation error.
func (a *Agent) refusedOr(err error) error {
	if unauthorized(err) {
		return a.need.refused(err)
	}
	return err
}

// Run works until ctx ends, then stops what is under way, writes the state and closes the
// agent. It returns what went wrong while closing.
func (a *Agent) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { a.cancel(abi.StatusShuttingDown) })()
	a.logStart()
	t := a.cfg.Timing
	var wg sync.WaitGroup
	for _, r := range []*reader{a.rosterLog, a.grantsLog} {
		r.onSetBack = func(read, next int64) { a.setBack(r.topic, read, next) }
	}
	wg.Go(func() { a.rosterLog.run(a.ctx, a.applyRoster) })
	wg.Go(func() { a.grantsLog.run(a.ctx, a.applyGrant) })
	wg.Go(a.renewing)
	wg.Go(func() { a.publishing(scaled(time.Second, t.PrekeyRotation/4)) })
	wg.Go(func() { a.saving(scaled(time.Second, t.Window/4)) })
	wg.Go(func() { a.every(scaled(10*time.Second, t.Window/3), a.watchLogs) })
	wg.Go(a.watchCredential)
	wg.Go(func() { a.every(scaled(authorityPeriod, t.Window/4), a.watchAuthority) })
	wg.Go(func() { a.every(scaled(scrub.Period, t.Window/4), scrub.Collect) })
	wg.Go(func() { a.every(scaled(contactPeriod, t.PrekeyRotation), a.keepContact) })
	if a.node.HasRole(wire.RoleProduce) {
		wg.Go(func() { a.rotating(scaled(time.Second, t.Lead/4)) })
		wg.Go(func() { a.every(scaled(time.Second, t.Lead/4), a.regrant) })
		wg.Go(func() { a.every(scaled(15*time.Second, t.Epoch/2), a.watchPolicies) })
	}
	if a.node.HasRole(wire.RoleConsume) {
		wg.Go(func() { a.every(scaled(time.Second, t.Window/4), a.tick) })
		wg.Go(func() { a.every(time.Second, a.flushReplays) })
		wg.Go(func() { a.every(scaled(10*time.Second, t.Window/3), a.progress) })
		wg.Go(func() { a.every(scaled(10*time.Second, t.PrekeyGrace/4), a.passPrekeys) })
		wg.Go(a.inquiring)
	}
	if a.node.HasRole(wire.RoleConsume | wire.RoleShare) {
		wg.Go(a.sharing)
	}
	<-a.ctx.Done()
	wg.Wait()
	a.flights.close()
	return a.Close()
}

// Close ends the agent: the state is written, secrets are wiped, the state file is free.
// Run does it by itself.
func (a *Agent) Close() (err error) {
	a.closed.Do(func() {
		a.cancel(abi.StatusShuttingDown)
		for _, r := range []*reader{a.rosterLog, a.grantsLog} {
			if r != nil {
				r.cl.Close()
			}
		}
		if a.cl != nil {
			a.cl.Close()
		}
		if a.state != nil && a.producer != nil {
			err = a.saveChanged()
		}
		if a.replayFile != nil {
			err = errors.Join(err, a.replayFile.flush(a.replays))
			a.replayFile.close()
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.producer != nil {
			a.producer.Wipe()
		}
		if a.state != nil {
			a.state.Wipe()
		}
		if a.store != nil {
			err = errors.Join(err, a.store.Close())
		}
		scrub.Collect()
	})
	return err
}

// Ready is closed once the roster has been read to its end and, for a consumer, its first
// prekey of this run is acknowledged: from then on grants can reach it. A consumer that came
// after grants that are still live has also had a moment to get their keys from its peers, so
// that those may be stopped next.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

func (a *Agent) isReady() bool {
	select {
	case <-a.ready:
		return true
	default:
		return false
	}
}

// OnErase sets what is called, without locks held, with kids whose keys must go from the
// data planes. It is to be set before Run.
func (a *Agent) OnErase(f func(kids []abi.Kid)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.onErase = f
}

// Brokers asks the cluster for its brokers, as it advertises them.
func (a *Agent) Brokers(ctx context.Context) (kadm.BrokerDetails, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	brokers, err := a.adm.ListBrokers(ctx)
	if err != nil {
		return nil, fmt.Errorf("brokers of the cluster: %w", err)
	}
	return brokers, nil
}

// AllowsGroup reports whether the credential lists the consumer group (PROTOCOL.md §2.8.4).
func (a *Agent) AllowsGroup(group string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node.AllowsGroup(group)
}

// Groups are the group patterns of the credential, for data planes elsewhere.
func (a *Agent) Groups() []wire.Pattern {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node.Groups()
}

// erase takes keys from the data planes. The caller does not hold a.mu.
func (a *Agent) erase(kids []abi.Kid) {
	a.mu.Lock()
	f := a.onErase
	a.mu.Unlock()
	if f != nil && len(kids) > 0 {
		f(slices.Clone(kids))
	}
}

// every calls f at once and then each period, until the agent ends.
func (a *Agent) every(period time.Duration, f func()) {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		f()
		select {
		case <-t.C:
		case <-a.ctx.Done():
			return
		}
	}
}

// warn logs a failure that may last, once per quietPeriod.
func (a *Agent) warn(message string, err error, args ...any) {
	if err != nil && a.ctx.Err() == nil && a.quiet.allow(message+fmt.Sprint(args...)+err.Error(), 1) {
		a.log.Warn(message, append(args, "err", err)...)
	}
}

// refuse logs a record that somebody wrote and this node does not take.
func (a *Agent) refuse(rec *kgo.Record, err error) {
	if errors.Is(err, keyring.ErrOtherRealm) {
		a.log.Debug("control record passed over", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "err", err)
		return
	}
	if kind, ok := alarmOf(err); ok {
		a.alarm(kind, "control record refused", rec.Topic, "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "err", err, "hint", alarmHint[kind])
		return
	}
	if err != nil && a.ctx.Err() == nil && a.quiet.allow("refused "+rec.Topic, 10) {
		a.log.Warn("control record refused", "topic", rec.Topic, "partition", rec.Partition, "offset", rec.Offset, "err", err)
	}
}

func (a *Agent) logStart() {
	t, c := a.cfg.Timing, a.node.Credential()
	a.log.Info("agent started", "node", c.Node, "roles", c.Roles, "topics", c.Topics, "groups", c.Groups, "credential_ends", time.UnixMilli(int64(c.NotAfter)).UTC())
	if c.Roles.Has(wire.RoleConsume) && len(c.Groups) == 0 {
		a.log.Warn("the credential lists no consumer group: topic secrets are erased by the hard cap only", "hard_cap", t.HardCap)
	}
	if !scrub.Works {
		a.log.Info("this build leaves copies of erased keys in memory until that is used again: a leak of memory opens more than the claims say",
			"hint", "on linux/amd64 and linux/arm64 build with GOEXPERIMENT=runtimesecret, as `make build` does")
	}
}

// now is the wall clock alone: a monotonic reading stands still while the machine sleeps,
// and keys must age through that.
func (a *Agent) now() time.Time { return a.clock().Round(0) }

// scaled is the usual period, or less where the timing is short.
func scaled(usual, limit time.Duration) time.Duration {
	return max(min(usual, limit), 5*time.Millisecond)
}
