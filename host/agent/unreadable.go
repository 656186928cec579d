package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/host/keyring"
)

// committedAge is how old an answer about what groups have read may be.
const committedAge = 10 * time.Second

// A topicPartition is a partition of a topic.
type topicPartition struct {
	topic     string
	partition int32
}

// classified is what deciding about unreadable batches remembers.
type classified struct {
	mu        sync.Mutex // held while the brokers are asked: others wait for the same answer
	committed map[string]committedAnswer
	passed    map[topicPartition]bool // partitions in which history was passed over
}

type committedAnswer struct {
	at         time.Time
	partitions map[int32]bool
}

// unreadable says what a batch is whose root did not come (PROTOCOL.md §2.8.5). Only for what
// may be history the groups' offsets are asked for; where they cannot be had, nothing is
// decided.
func (a *Agent) unreadable(topic string, partition int32, kid abi.Kid) error {
	classify := func(committed bool) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.consumer.Unreadable(topic, kid, committed)
	}
	err := classify(false)
	if !errors.Is(err, abi.StatusHistory) {
		return err
	}
	at := topicPartition{topic, partition}
	a.classified.mu.Lock()
	defer a.classified.mu.Unlock()
	// A client commits as it passes over history: that is no sign that its group had read
	// there before.
	if a.classified.passed[at] {
		return err
	}
	committed, aerr := a.committedLocked(topic)
	if aerr != nil {
		a.warn("group offsets cannot be read: what may be history is held back", a.refusedOr(aerr), "topic", topic)
		return fmt.Errorf("topic %s, partition %d: committed offsets: %w", topic, partition, unavailable(aerr))
	}
	if err = classify(committed[partition]); errors.Is(err, abi.StatusHistory) {
		if a.classified.passed == nil {
			a.classified.passed = make(map[topicPartition]bool)
		}
		a.classified.passed[at] = true
	}
	return err
}

// committedLocked returns the partitions of topic in which any of the credential's groups has
// committed an offset. The caller holds classified.mu.
func (a *Agent) committedLocked(topic string) (map[int32]bool, error) {
	if known, ok := a.classified.committed[topic]; ok && time.Since(known.at) < committedAge {
		return known.partitions, nil
	}
	ctx, cancel := context.WithTimeout(a.ctx, requestTimeout)
	defer cancel()
	began := time.Now()
	used, _, err := a.groups(ctx, []string{topic})
	if err != nil {
		return nil, err
	}
	known := committedAnswer{at: began, partitions: make(map[int32]bool)}
	for _, committed := range used[topic] {
		for partition := range committed {
			known.partitions[partition] = true
		}
	}
	if a.classified.committed == nil {
		a.classified.committed = make(map[string]committedAnswer)
	}
	a.classified.committed[topic] = known
	return known.partitions, nil
}

// A recall reads once what the grants partition held before this process started to follow
// it: headers that gave no secret are in memory only. It is done when somebody asks for a kid
// that no header names.
type recall struct {
	mu   sync.Mutex
	from int64         // where the reader of this process began
	done chan struct{} // nil before the first time; closed when err is set
	err  error
}

// recalled returns once the past was read, or says why it could not be.
func (a *Agent) recalled(ctx context.Context) error {
	r := &a.past
	r.mu.Lock()
	if r.done == nil {
		done := make(chan struct{})
		r.done = done
		go func() {
			err := a.recall(r.from)
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.err = err; err != nil {
				r.done = nil // the next one who asks tries again
			}
			close(done)
		}()
	}
	done := r.done
	r.mu.Unlock()
	select {
	case <-done:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-a.ctx.Done():
		return context.Cause(a.ctx)
	}
}

func (a *Agent) recall(to int64) error {
	next, err := listOffset(a.ctx, a.cl, grantsTopic, a.node.GrantPartition(), listStart)
	if err != nil || next >= to {
		return err
	}
	cl, err := a.grantsFromOffset(next)
	if err != nil {
		return err
	}
	defer cl.Close()
	for next < to {
		before := next
		fetches := poll(a.ctx, cl)
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s, partition %d: read to offset %d of %d: %w", grantsTopic, a.node.GrantPartition(), next, to, e.Err)
		}
		at := a.now()
		fetches.EachRecord(func(rec *kgo.Record) {
			if next = rec.Offset + 1; rec.Offset >= to || rec.Attrs.IsControl() || isShare(rec) {
				return
			}
			a.mu.Lock()
			err := a.consumer.Recall(rec.Partition, rec.Offset, rec.Key, rec.Value, a.roster, at)
			a.mu.Unlock()
			if err != nil && !errors.Is(err, keyring.ErrOtherRealm) {
				a.log.Debug("an old grant says nothing", "offset", rec.Offset, "err", err)
			}
		})
		if next == before {
			return fmt.Errorf("topic %s, partition %d: nothing follows offset %d, but offset %d was read before", grantsTopic, a.node.GrantPartition(), next, to-1)
		}
	}
	return nil
}
