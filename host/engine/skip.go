package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// Skipping is logged once a minute for each reason and partition, and for history once.
const (
	skipQuiet   = time.Minute
	maxSkipLogs = 4096 // reasons and partitions remembered
)

// A skipper passes over batches that cannot be opened (PROTOCOL.md §2.8.5), and counts them.
type skipper struct {
	unreadable bool // not history alone
	log        *slog.Logger
	counts     [64]atomic.Uint64 // batches, by status; above every number of abi's

	mu   sync.Mutex
	said map[skipSubject]*skipRun
}

type skipSubject struct {
	topic     string
	partition int32
	status    abi.Status
}

// A skipRun is what was passed over since the log told of it.
type skipRun struct {
	logged  time.Time
	batches int
	first   int64 // offset of its first record
}

// skip appends to out what takes the place of the first batch of records, size bytes long,
// which did not open because of cause. It reports whether the batch is to be passed over, and
// leaves out alone where not. A batch that the broker cut short is not.
func (s *skipper) skip(out, records []byte, size int, topic string, partition int32, cause error) ([]byte, bool) {
	var status abi.Status
	if !errors.As(cause, &status) || status != abi.StatusHistory && !(s.unreadable && kafka.Skippable(status)) {
		return out, false
	}
	batch, rest := records[:size], records[size:]
	first, last := kafka.BaseOffset(batch), kafka.LastOffset(batch)
	if len(rest) >= 8 && kafka.BaseOffset(rest) <= last {
		return out, false // it would take the client past what follows
	}
	out, err := kafka.AppendSkip(out, batch)
	if err != nil {
		return out, false
	}
	s.counts[min(int(status), len(s.counts)-1)].Add(1)
	s.tell(skipSubject{topic, partition, status}, first, last, cause)
	return out, true
}

// tell logs that offsets first to last were passed over, unless the same was just said.
func (s *skipper) tell(subject skipSubject, first, last int64, cause error) {
	now := time.Now()
	s.mu.Lock()
	run := s.said[subject]
	if run == nil {
		if s.said == nil || len(s.said) >= maxSkipLogs {
			s.said = make(map[skipSubject]*skipRun) // forgetting costs a repeated line
		}
		run = &skipRun{}
		s.said[subject] = run
	}
	if run.batches == 0 {
		run.first = first
	}
	run.batches++
	quiet := !run.logged.IsZero() && (subject.status == abi.StatusHistory || now.Sub(run.logged) < skipQuiet)
	told := *run
	if !quiet {
		run.logged, run.batches = now, 0
	}
	s.mu.Unlock()
	if quiet {
		return
	}
	reason, _, _ := strings.Cut(cause.Error(), "\nhint: ")
	args := []any{"topic", subject.topic, "partition", subject.partition, "offset", told.first, "to", last, "batches", told.batches, "reason", reason}
	if subject.status == abi.StatusHistory {
		s.log.Info("history is passed over", append(args, "hint", "what was sealed before this node joined is not for it; nothing else is lost")...)
		return
	}
	s.log.Warn("batches that cannot be opened are passed over", append(args, "hint", "policy.on_unreadable is skip; with stop the application gets an error instead")...)
}

// refusals are the Keys of one call of Open: a root that will never come is asked for once,
// not for each of the thousands of batches that a response may hold of it. The next call
// asks anew.
type refusals struct {
	Keys
	by map[abi.Kid]error
}

// Root implements Keys.
func (r *refusals) Root(ctx context.Context, topic string, partition int32, kid abi.Kid) (abi.Root, error) {
	if err, ok := r.by[kid]; ok {
		return abi.Root{}, err
	}
	root, err := r.Keys.Root(ctx, topic, partition, kid)
	var status abi.Status
	if errors.As(err, &status) && (status == abi.StatusHistory || kafka.Skippable(status)) {
		if r.by == nil {
			r.by = make(map[abi.Kid]error)
		}
		r.by[kid] = err
	}
	return root, err
}

// Skipped returns how many batches were passed over, by reason.
func (e *Engine) Skipped() map[abi.Status]uint64 {
	m := map[abi.Status]uint64{}
	for status := range e.skips.counts {
		if n := e.skips.counts[status].Load(); n > 0 {
			m[abi.Status(status)] = n
		}
	}
	return m
}
