package agent

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// gather is how long topics that start together are collected into one grant
// (PROTOCOL.md §2.7.3).
const gather = 50 * time.Millisecond

// Lease implements engine.Keys (PROTOCOL.md §2.7). Callers that need the same epoch wait
// for one grant.
func (a *Agent) Lease(ctx context.Context, topic string) (abi.Lease, error) {
	for {
		lease, err := a.cut(topic)
		if !errors.Is(err, abi.StatusNeedLease) {
			return lease, err
		}
		f := a.flights.join(topic, a.fly)
		select {
		case <-f.done:
			if err := f.errs[topic]; err != nil {
				return abi.Lease{}, err
			}
		case <-a.ctx.Done():
			return abi.Lease{}, fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)
		case <-ctx.Done():
			return abi.Lease{}, fmt.Errorf("topic %s: %w: the grant is not acknowledged yet", topic, abi.StatusUnavailable)
		}
	}
}

// cut takes a lease from the topic's present epoch. The error wraps abi.StatusNeedLease
// where there is none.
func (a *Agent) cut(topic string) (abi.Lease, error) {
	if err := a.policy.refusal(topic); err != nil {
		return abi.Lease{}, err
	}
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return abi.Lease{}, fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)
	}
	return a.producer.Lease(topic, at)
}

// rotating replaces epochs that are due, and takes back what was replaced or is over.
func (a *Agent) rotating(period time.Duration) {
	t := time.NewTicker(period)
	defer t.Stop()
	for a.ctx.Err() == nil {
		at := a.now()
		a.mu.Lock()
		due := a.producer.Due(a.roster, at)
		kids := a.producer.Retire(at)
		a.mu.Unlock()
		a.erase(kids)
		for _, topic := range due {
			a.flights.join(topic, a.fly)
		}
		select {
		case <-t.C:
		case <-a.rotate:
		case <-a.ctx.Done():
		}
	}
}

// idleSpacer is the least time from a grant that began nothing to the next. Clients try
// again at once, and each attempt is a record in every partition (PROTOCOL.md §2.15).
const idleSpacer = time.Second

// restart ends the producing instance (PROTOCOL.md §2.7.3).
func (a *Agent) restart() {
	a.mu.Lock()
	kids, err := a.producer.Restart()
	a.mu.Unlock()
	a.warn("new producing instance", err)
	a.erase(kids)
}

// A flight is one round of grants for the topics that were gathered.
type flight struct {
	topics map[string]bool
	done   chan struct{}
	errs   map[string]error // set before done is closed
}

// flights runs one flight at a time, since headers of an instance are a chain, and lets
// topics gather for the next meanwhile.
type flights struct {
	mu        sync.Mutex
	running   *flight
	gathering *flight
	closed    bool
	turn      sync.Mutex // held by the flight under way
	wg        sync.WaitGroup
}

// join returns the flight that will answer for topic: the one under way if it already
// has the topic, else the next.
func (fs *flights) join(topic string, fly func(*flight)) *flight {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.running != nil && fs.running.topics[topic] {
		return fs.running
	}
	if f := fs.gathering; f != nil {
		f.topics[topic] = true
		return f
	}
	f := &flight{topics: map[string]bool{topic: true}, done: make(chan struct{})}
	if fs.closed {
		f.errs = map[string]error{topic: fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)}
		close(f.done)
		return f
	}
	fs.gathering = f
	fs.wg.Go(func() {
		time.Sleep(gather)
		fs.turn.Lock()
		defer fs.turn.Unlock()
		fs.mu.Lock()
		fs.running, fs.gathering = f, nil
		fs.mu.Unlock()
		fly(f)
		fs.mu.Lock()
		fs.running = nil
		fs.mu.Unlock()
		close(f.done)
	})
	return f
}

// close lets no further flight start and returns when none is under way.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	fs.wg.Wait()
}

// fly begins epochs for the flight's topics: it asks for their policy, waits until this
// node's credential is on the roster, reads that to its present end, has the drafts made, and
// starts each once it is acknowledged.
func (a *Agent) fly(f *flight) {
	topics := slices.Sorted(maps.Keys(f.topics))
	f.errs = a.checkPolicies(topics)
	topics = slices.DeleteFunc(topics, func(t string) bool { return f.errs[t] != nil })
	fail := func(topics []string, err error) {
		for _, t := range topics {
			f.errs[t] = fmt.Errorf("topic %s: %w", t, err)
		}
	}
	defer func() {
		for topic, err := range f.errs {
			a.warn("no epoch", err, "topic", topic)
		}
	}()
	if len(topics) == 0 {
		return
	}
	ctx, cancel := context.WithTimeoutCause(a.ctx, ackTimeout, errors.New("not read to its end within 30s"))
	defer cancel()
	// A consumer that reads a grant before its producer's credential drops it for good.
	select {
	case <-a.joined:
	case <-ctx.Done():
		fail(topics, fmt.Errorf("%w: this node's credential is not on the roster yet\nhint: the log says what keeps it from writing to topic %s", abi.StatusUnavailable, rosterTopic))
		return
	}
	select {
	case <-time.After(time.Until(a.idleGrant.Add(idleSpacer))):
	case <-ctx.Done():
	}
	if err := a.rosterLog.catchUp(ctx); err != nil {
		fail(topics, unavailable(a.refusedOr(err)))
		return
	}
	at := a.now()
	a.mu.Lock()
	drafts, refused, err := a.producer.Prepare(topics, a.roster, at)
	a.mu.Unlock()
	if err != nil {
		fail(topics, unavailable(err))
		return
	}
	maps.Copy(f.errs, refused)
	for i, d := range drafts {
		if err := a.grant(d); err != nil {
			a.idleGrant = time.Now()
			// The headers are a chain: what follows one that may be missing starts anew.
			if !errors.Is(err, abi.StatusClockSkew) {
				a.restart()
				for _, d := range drafts[i:] {
					fail(d.Topics, err)
				}
				return
			}
			fail(d.Topics, err)
		}
	}
}

// grant writes a draft's parts, waits until all are acknowledged and this node has read
// back its own, and starts the epochs.
func (a *Agent) grant(d *keyring.Draft) error {
	i := slices.IndexFunc(d.Records, func(r keyring.Record) bool { return r.Partition == a.node.GrantPartition() })
	if i < 0 {
		return fmt.Errorf("%w: the grant has no part for partition %d", abi.StatusUnavailable, a.node.GrantPartition())
	}
	back, forget := a.await(d.Records[i])
	defer forget()
	written, err := a.write(a.ctx, grantsTopic, d.Records)
	if err != nil {
		return unavailable(a.refusedOr(err))
	}
	ctx, cancel := context.WithTimeoutCause(a.ctx, ackTimeout, errors.New("own grant not read back within 30s"))
	defer cancel()
	if err := a.readBackAt(ctx, written[i].Offset); err != nil {
		return unavailable(err)
	}
	at := a.now()
	a.mu.Lock()
	if back.rec == nil {
		a.mu.Unlock()
		return unavailable(errors.New("the own grant was acknowledged, but something else stands at its offset"))
	}
	err = a.producer.Activate(d, back.rec.Timestamp, at)
	var begun []keyring.EpochView
	if err == nil {
		for _, v := range a.producer.Epochs() {
			if v.Epoch == d.Epoch && slices.Contains(d.Topics, v.Topic) {
				begun = append(begun, v)
			}
		}
		a.counts.epochs += uint64(len(begun))
		a.grants.keep(d, at)
	}
	kids := a.producer.Retire(at)
	a.mu.Unlock()
	a.erase(kids)
	if len(begun) > 0 {
		a.kickRotation() // a recipient may have been revoked since it was prepared
	}
	for _, v := range begun {
		a.log.Info("epoch begun", "topic", v.Topic, "epoch", v.Epoch, "kid", hex.EncodeToString(v.Kid[:]), "recipients", v.Recipients)
	}
	return err
}

// A readBack waits for a grant to come back through the own partition, with the broker's
// append time. It is guarded by the agent's mu.
type readBack struct {
	value []byte
	rec   *kgo.Record // nil until it was read
}

// await has a grant noticed when it is read back, until forget.
func (a *Agent) await(own keyring.Record) (back *readBack, forget func()) {
	back = &readBack{value: own.Value}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.awaited[string(own.Key)] = back
	return back, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.awaited, string(own.Key))
	}
}

// readBackAt returns once the own partition's record at offset was read.
func (a *Agent) readBackAt(ctx context.Context, offset int64) error {
	if a.grantsLog.follows {
		return a.grantsLog.waitFor(ctx, offset+1)
	}
	return a.grantsLog.readAt(ctx, offset, a.applyGrant)
}

// unavailable marks an error as one after which asking again may help.
func unavailable(err error) error {
	var status abi.Status
	if errors.As(err, &status) {
		return err
	}
	return fmt.Errorf("%w: %w", abi.StatusUnavailable, err)
}
