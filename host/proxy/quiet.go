package proxy

import (
	"strings"
	"sync"
	"time"
)

// Clients repeat what was refused many times a second; the log says it once a minute.
const (
	quietTime = time.Minute
	maxQuiet  = 4096 // subjects remembered,
	maxName   = 512  // in so many bytes each: clients choose names of groups
)

// A rateLimit decides which repetitions are logged.
type rateLimit struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// allow reports whether subject was not allowed within the last minute.
func (r *rateLimit) allow(subject string) bool {
	subject = strings.Clone(subject[:min(len(subject), maxName)])
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if at, ok := r.last[subject]; ok && now.Sub(at) < quietTime {
		return false
	}
	if r.last == nil || len(r.last) >= maxQuiet {
		r.last = map[string]time.Time{} // forgetting costs a repeated line
	}
	r.last[subject] = now
	return true
}
