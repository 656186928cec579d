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

// Root implements engine.Keys (PROTOCOL.md §2.8): it waits for a grant that may be under
// way, then for a peer that may share the key, and says what the batch is if neither comes.
func (a *Agent) Root(ctx context.Context, topic string, partition int32, kid abi.Kid) (abi.Root, error) {
	began := time.Now()
	root, err := a.lookUp(topic, kid)
	if errors.Is(err, abi.StatusPending) {
		if err := a.readGrants(ctx, began); err != nil {
			return a.stillPending(ctx, topic, kid, err)
		}
		root, err = a.lookUp(topic, kid)
	}
	if errors.Is(err, abi.StatusPending) {
		if err := a.recalled(ctx); err != nil {
			return a.stillPending(ctx, topic, kid, err)
		}
	}
	for {
		moved := a.grantsLog.movement()
		if root, err = a.lookUp(topic, kid); !a.askable(topic, kid, err) {
			break
		}
		left, changed, failed := a.inquiry.left(topic, kid, !errors.Is(err, abi.StatusPending))
		if failed != nil {
			return abi.Root{}, fmt.Errorf("topic %s, kid %x: no peer can be asked for the key: %w", topic, kid, unavailable(failed))
		}
		if left <= 0 {
			break
		}
		late := time.NewTimer(left)
		select {
		case <-moved:
		case <-changed:
		case <-late.C:
		case <-ctx.Done():
		case <-a.ctx.Done():
		}
		late.Stop()
		if ctx.Err() != nil || a.ctx.Err() != nil {
			return a.stillPending(ctx, topic, kid, ctx.Err())
		}
	}
	if err == nil || !lacking(err) {
		return root, err
	}
	if err := a.checkRevoked(); err != nil {
		return root, fmt.Errorf("topic %s, kid %x: %w", topic, kid, err)
	}
	return root, a.unreadable(topic, partition, kid)
}

// lacking reports whether an error says that there is no root, rather than why none may be
// had.
func lacking(err error) bool {
	return errors.Is(err, abi.StatusPending) || errors.Is(err, abi.StatusUnreadable) || errors.Is(err, abi.StatusErased)
}

// askable reports whether a peer could still bring the root that err says is not there.
func (a *Agent) askable(topic string, kid abi.Kid, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return err != nil && lacking(err) && a.consumer.Askable(topic, kid)
}

// stillPending is the answer where ctx ended, or a question failed, before it was known what
// there is.
func (a *Agent) stillPending(ctx context.Context, topic string, kid abi.Kid, err error) (abi.Root, error) {
	switch {
	case a.ctx.Err() != nil:
		return abi.Root{}, fmt.Errorf("topic %s: %w", topic, abi.StatusShuttingDown)
	case ctx.Err() != nil:
		return abi.Root{}, fmt.Errorf("topic %s, kid %x: %w", topic, kid, abi.StatusPending)
	}
	a.warn("grants", a.refusedOr(err))
	return abi.Root{}, fmt.Errorf("topic %s, kid %x: %w", topic, kid, unavailable(err))
}

// readGrants returns once the own partition was read to an end that was asked for after
// began. A grant is acknowledged before its first record is sealed: what stood there then is
// all that can open a batch that had arrived.
func (a *Agent) readGrants(ctx context.Context, began time.Time) error {
	end, err := a.grantsEnd.after(ctx, a.ctx, began, a.askGrantsEnd)
	if err != nil {
		return err
	}
	return a.grantsLog.waitFor(ctx, end)
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
	// What the roster says of who is revoked comes first.
	if a.rosterRead.IsZero() && !a.readRoster() {
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
	for errors.Is(err, keyring.ErrUnknownCredential) && a.rosterRead.Before(fetched) && a.readRoster() {
		kids, err = a.applyOnce(rec)
	}
	if a.ctx.Err() != nil && (errors.Is(err, keyring.ErrUnknownCredential) || errors.Is(err, abi.StatusClockSkew)) {
		return // read again after the next start
	}
	a.mu.Lock()
	a.consumer.NoteGrants(rec.Offset + 1)
	a.counts.received += uint64(len(kids))
	a.mu.Unlock()
	a.refuse(rec, err)
	a.compared()
	if len(kids) > 0 {
		a.logReceived(rec.Value, kids)
	}
}

// readRoster reads the roster to an end that is asked for now. It returns false when the
// agent ends.
func (a *Agent) readRoster() bool {
	for a.ctx.Err() == nil {
		began := time.Now()
		ctx, cancel := context.WithTimeout(a.ctx, requestTimeout)
		err := a.rosterLog.catchUp(ctx)
		cancel()
		if err == nil {
			a.rosterRead = began
			return true
		}
		a.warn("a grant waits for the roster", err)
		select {
		case <-time.After(backoff(3)):
		case <-a.ctx.Done():
		}
	}
	return false
}

func (a *Agent) logReceived(value []byte, kids []abi.Kid) {
	if k, err := wire.ParseKeyShare(value); err == nil {
		h := &k.Proof.Header
		a.log.Info("root received from a peer", "topic", k.Topic, "peer", k.Sharer, "producer", h.Producer, "epoch", h.Epoch, "kid", hex.EncodeToString(kids[0][:]))
		return
	}
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
	if isShare(rec) {
		return a.consumer.ApplyShare(rec.Partition, rec.Offset, rec.Key, rec.Value, a.roster, at)
	}
	return a.consumer.ApplyGrant(rec.Partition, rec.Offset, rec.Key, rec.Value, a.roster, at)
}

// isShare reports whether a record of the grants topic is a peer's KeyShare.
func isShare(rec *kgo.Record) bool {
	return len(rec.Key) > 0 && wire.Type(rec.Key[0]) == wire.TypeKeyShare
}

func (a *Agent) askGrantsEnd() (int64, error) {
	return listOffset(a.ctx, a.cl, grantsTopic, a.node.GrantPartition(), listEnd)
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
