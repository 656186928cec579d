package agent

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// lateness is how long an unknown kid stays pending after the grants were read to an end
// that was fetched after its batch arrived (PROTOCOL.md §2.8.5).
const lateness = 5 * time.Second

// Root implements engine.Keys (PROTOCOL.md §2.8).
func (a *Agent) Root(ctx context.Context, topic string, partition int32, kid abi.Kid) (abi.Root, error) {
	began := time.Now()
	root, err := a.lookUp(topic, kid)
	if !errors.Is(err, abi.StatusPending) {
		return root, err
	}
	// A grant is acknowledged before its first record is sealed: what stands in the
	// partition now is all that can open this batch.
	end, err := a.grantsEnd.after(ctx, a.ctx, began, a.askGrantsEnd)
	if err == nil {
		err = a.grantsLog.waitFor(ctx, end)
	}
	if err != nil && ctx.Err() == nil && a.ctx.Err() == nil {
		a.warn("grants", a.refusedOr(err))
		return abi.Root{}, fmt.Errorf("topic %s, kid %x: %w", topic, kid, unavailable(err))
	}
	caughtUp := err == nil
	for {
		moved := a.grantsLog.movement()
		root, err := a.lookUp(topic, kid)
		if !errors.Is(err, abi.StatusPending) {
			a.asked.forget(kid)
			return root, err
		}
		var late <-chan time.Time
		if caughtUp {
			left := a.asked.left(kid, time.Now())
			if left <= 0 {
				return root, fmt.Errorf("topic %s, kid %x: %w: no grant names it", topic, kid, abi.StatusUnreadable)
			}
			t := time.NewTimer(left)
			defer t.Stop()
			late = t.C
		}
		select {
		case <-moved:
		case <-late:
		case <-ctx.Done():
			return root, err
		case <-a.ctx.Done():
			return root, fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)
		}
	}
}

// lookUp asks what is known by now.
func (a *Agent) lookUp(topic string, kid abi.Kid) (abi.Root, error) {
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() != nil {
		return abi.Root{}, fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)
	}
	return a.consumer.Root(topic, kid, at)
}

// applyGrant takes one record of the own partition of the grants topic. It returns only
// when the record is decided, so that the reader's place never runs ahead.
func (a *Agent) applyGrant(rec *kgo.Record, fetched time.Time) {
	a.mu.Lock()
	if back := a.awaited[string(rec.Key)]; back != nil && bytes.Equal(back.value, rec.Value) {
		back.rec = rec
	}
	a.mu.Unlock()
	if !a.node.HasRole(wire.RoleConsume) {
		return
	}
	kids, err := a.applyOnce(rec)
	// A clock behind the broker's will be set, or comes there by itself; dropped, the grant
	// would be lost. Who lies about an epoch's start has no say in the broker's time.
	for errors.Is(err, abi.StatusClockSkew) && rec.Timestamp.After(a.now()) && a.ctx.Err() == nil {
		a.warn("a grant waits for this node's clock, which is behind the broker's", err)
		select {
		case <-time.After(backoff(3)):
		case <-a.ctx.Done():
		}
		kids, err = a.applyOnce(rec)
	}
	// The producer's credential may be on the roster by now.
	for errors.Is(err, keyring.ErrUnknownCredential) && a.rosterRead.Before(fetched) && a.ctx.Err() == nil {
		began := time.Now()
		ctx, cancel := context.WithTimeout(a.ctx, requestTimeout)
		if cerr := a.rosterLog.catchUp(ctx); cerr != nil {
			a.warn("a grant waits for the roster", cerr)
			select {
			case <-time.After(backoff(3)):
			case <-a.ctx.Done():
			}
		} else {
			a.rosterRead = began
			kids, err = a.applyOnce(rec)
		}
		cancel()
	}
	if a.ctx.Err() != nil && (errors.Is(err, keyring.ErrUnknownCredential) || errors.Is(err, abi.StatusClockSkew)) {
		return // read again after the next start
	}
	a.mu.Lock()
	a.consumer.NoteGrants(rec.Offset + 1)
	a.counts.received += uint64(len(kids))
	a.mu.Unlock()
	a.refuse(rec, err)
	if len(kids) > 0 {
		a.logReceived(rec.Value, kids)
	}
}

func (a *Agent) logReceived(value []byte, kids []abi.Kid) {
	g, err := wire.ParseGrant(value)
	if err != nil {
		return
	}
	for _, t := range g.Header.Topics {
		if kid := keyring.KidOf(t.Commit); slices.Contains(kids, kid) {
			a.log.Info("root received", "topic", t.Name, "producer", g.Header.Producer, "epoch", g.Header.Epoch, "kid", hex.EncodeToString(kid[:]))
		}
	}
}

func (a *Agent) applyOnce(rec *kgo.Record) ([]abi.Kid, error) {
	at := a.now()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.consumer.ApplyGrant(rec.Partition, rec.Offset, rec.Key, rec.Value, a.roster, at)
}

func (a *Agent) askGrantsEnd() (int64, error) {
	return listOffset(a.ctx, a.cl, grantsTopic, a.node.GrantPartition(), listEnd)
}

// firstAsked remembers since when a kid has been known to be in no grant.
type firstAsked struct {
	mu sync.Mutex
	by map[abi.Kid]time.Time
}

// maxAsked bounds firstAsked. Whoever floods it delays the answer, and opens nothing.
const maxAsked = 4096

// left is how much longer kid stays pending.
func (f *firstAsked) left(kid abi.Kid, at time.Time) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	first, ok := f.by[kid]
	if !ok {
		if f.by == nil || len(f.by) >= maxAsked {
			f.by = make(map[abi.Kid]time.Time)
		}
		f.by[kid], first = at, at
	}
	return lateness - at.Sub(first)
}

func (f *firstAsked) forget(kid abi.Kid) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.by, kid)
}

// A shared answer is one question to the broker that many callers wait for.
type shared struct {
	mu   sync.Mutex
	last *asking
}

type asking struct {
	began time.Time
	done  chan struct{}
	end   int64
	err   error
}

// after returns an answer to a question that was asked after t: callers that come while
// one is under way share the next.
func (s *shared) after(ctx, agent context.Context, t time.Time, ask func() (int64, error)) (int64, error) {
	for {
		s.mu.Lock()
		q := s.last
		if q == nil || q.answered() && q.began.Before(t) {
			q = &asking{began: time.Now(), done: make(chan struct{})}
			s.last = q
			go func() {
				q.end, q.err = ask()
				close(q.done)
			}()
		}
		s.mu.Unlock()
		select {
		case <-q.done:
			if !q.began.Before(t) {
				return q.end, q.err
			}
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-agent.Done():
			return 0, context.Cause(agent)
		}
	}
}

func (q *asking) answered() bool {
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}
