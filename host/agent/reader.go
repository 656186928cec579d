package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A reader follows one partition of a control topic and knows how far it has come. It
// reads aborted and control records too: they have offsets, and whoever waits for an
// offset must not wait for a record that is never delivered.
//
// A reader that does not follow only remembers how far somebody else has read: a node that
// produces without consuming has no use for a partition full of others' grants.
type reader struct {
	topic     string
	partition int32
	cl        *kgo.Client // consumes the partition
	ask       *kgo.Client // is asked for its offsets
	need      aclList     // what to say where reading is not allowed
	log       *slog.Logger
	onSetBack func(read, next int64) // called when the log lost what was read; set before run
	follows   bool

	mu    sync.Mutex
	next  int64         // every record below it has been applied
	moved chan struct{} // closed and replaced whenever next changes
	again *int64        // where to read from instead, nil: go on

	id      kadm.TopicID // of the topic when it was watched last; the watching goroutine's own
	shorter bool         // so it was then; the watching goroutine's own
}

// pollWait bounds one poll, so that a restart is seen to.
const pollWait = time.Second

// newReader makes a reader that starts at offset from, or at the log's start where from is
// no longer in the log.
func newReader(operator []kgo.Opt, ask *kgo.Client, topic string, partition int32, from int64, follow bool, need aclList, log *slog.Logger) (*reader, error) {
	partitions := map[string]map[int32]kgo.Offset{}
	if follow {
		partitions[topic] = map[int32]kgo.Offset{partition: kgo.NewOffset().At(from)}
	}
	cl, err := newClient(operator,
		kgo.ConsumePartitions(partitions),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadUncommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(2*time.Second),
		kgo.FetchMaxBytes(8<<20),
	)
	if err != nil {
		return nil, err
	}
	return &reader{topic: topic, partition: partition, cl: cl, ask: ask, follows: follow, need: need, log: log, next: from, moved: make(chan struct{})}, nil
}

// run applies records in order until ctx ends. Apply gets data records only, and when they
// had been fetched.
func (r *reader) run(ctx context.Context, apply func(rec *kgo.Record, fetched time.Time)) {
	var quiet limiter
	for ctx.Err() == nil {
		r.restartDue()
		if !r.follows {
			select {
			case <-time.After(pollWait):
			case <-ctx.Done():
			}
			continue
		}
		poll, cancel := context.WithTimeout(ctx, pollWait)
		fetches := r.cl.PollRecords(poll, 256) // so that next moves while a long log is read
		cancel()
		fetched := time.Now()
		for _, e := range fetches.Errors() {
			err := e.Err
			if lost, ok := errors.AsType[*kgo.ErrDataLoss](err); ok && lost.ResetTo < r.position() {
				r.setBack(lost.ResetTo)
				continue
			}
			if unauthorized(err) {
				err = r.need.refused(err)
			}
			if !untilCanceled(err) && quiet.allow(err.Error(), 1) {
				r.log.Warn("reading a control topic", "topic", r.topic, "partition", r.partition, "err", err)
			}
		}
		last := r.position() - 1
		fetches.EachRecord(func(rec *kgo.Record) {
			if rec.Offset <= last {
				r.setBack(rec.Offset)
			}
			if !rec.Attrs.IsControl() && ctx.Err() == nil {
				apply(rec, fetched)
			}
			if ctx.Err() == nil { // else it may not have been applied
				last = rec.Offset
			}
		})
		if last+1 != r.position() {
			r.advance(last + 1)
		}
	}
}

// readAt applies the one record at offset, for a reader that does not follow. One call at a
// time.
func (r *reader) readAt(ctx context.Context, offset int64, apply func(rec *kgo.Record, fetched time.Time)) error {
	if offset < r.position() {
		r.setBack(offset)
	}
	r.cl.AddConsumePartitions(map[string]map[int32]kgo.Offset{r.topic: {r.partition: kgo.NewOffset().At(offset)}})
	defer r.cl.PurgeTopicsFromConsuming(r.topic)
	for last := int64(-1); last < offset; {
		fetches := r.cl.PollRecords(ctx, 1)
		fetched := time.Now()
		for _, e := range fetches.Errors() {
			return fmt.Errorf("topic %s, partition %d: read offset %d: %w", r.topic, r.partition, offset, e.Err)
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			if last = rec.Offset; last == offset {
				apply(rec, fetched)
			}
		})
	}
	r.advance(offset + 1)
	return nil
}

func (r *reader) advance(next int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next = next
	close(r.moved)
	r.moved = make(chan struct{})
}

// position is the offset of the next record to apply.
func (r *reader) position() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

// movement is closed when next changes.
func (r *reader) movement() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.moved
}

// catchUp returns once everything has been applied that stood in the partition when it was
// called (PROTOCOL.md §2.7.3, §2.8.5).
func (r *reader) catchUp(ctx context.Context) error {
	end, err := listOffset(ctx, r.ask, r.topic, r.partition, listEnd)
	if err != nil || r.position() >= end || !r.follows {
		return err
	}
	// After a retention or a deletion nothing may be left below the end.
	start, err := listOffset(ctx, r.ask, r.topic, r.partition, listStart)
	if err != nil || start >= end {
		return err
	}
	return r.waitFor(ctx, end)
}

// waitFor returns once every record below end has been applied.
func (r *reader) waitFor(ctx context.Context, end int64) error {
	for {
		r.mu.Lock()
		next, moved := r.next, r.moved
		r.mu.Unlock()
		if next >= end {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("topic %s, partition %d: read to offset %d of %d: %w", r.topic, r.partition, next, end, context.Cause(ctx))
		}
	}
}
