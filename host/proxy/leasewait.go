package proxy

import (
	"sync"
	"time"
)

// leaseWaits shortens the wait for topics that cannot be sealed for now. A client pipelines
// several requests on one connection, and each may name such a topic beside healthy ones:
// if every request waited the whole time, the later ones would outlive the client's
// patience, and the healthy topics would starve with it.
type leaseWaits struct {
	mu     sync.Mutex
	failed map[string]leaseFailure
}

// A leaseFailure is a run of attempts that gave up.
type leaseFailure struct{ first, last time.Time }

// maxWaits bounds the topics remembered.
const maxWaits = 4096

// wait returns how long an attempt that starts now may take: full, less what earlier
// attempts have spent in vain, and at least a tenth, so that retries come no faster.
func (l *leaseWaits) wait(topic string, now time.Time, full time.Duration) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	f, ok := l.failed[topic]
	if !ok || now.Sub(f.last) > full {
		return full
	}
	return max(full-now.Sub(f.first), full/10)
}

// note records an attempt that ran from start to end and succeeded, or lacked a lease.
func (l *leaseWaits) note(topic string, start, end time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok {
		delete(l.failed, topic)
		return
	}
	if l.failed == nil || len(l.failed) >= maxWaits {
		l.failed = map[string]leaseFailure{} // forgetting costs one long wait for each
	}
	f, known := l.failed[topic]
	if !known || start.Sub(f.last) > end.Sub(start) {
		f.first = start
	}
	f.last = end
	l.failed[topic] = f
}
