package agent

import (
	"sync"
	"time"
)

// quietPeriod is how long a repeated message stays out of the log.
const quietPeriod = 30 * time.Second

// maxQuiet bounds the messages that a limiter remembers.
const maxQuiet = 1024

// A limiter lets a few lines of each kind into the log per quietPeriod, so that a lasting
// failure, or a flood of records that somebody else wrote, is a few lines. The zero value
// is ready.
type limiter struct {
	mu    sync.Mutex
	kinds map[string]*logged
}

type logged struct {
	since time.Time
	lines int
}

// allow reports whether one more line of kind may be logged, where at most burst are per
// period.
func (l *limiter) allow(kind string, burst int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil || time.Since(k.since) >= quietPeriod {
		if l.kinds == nil || len(l.kinds) >= maxQuiet {
			l.kinds = make(map[string]*logged)
		}
		k = &logged{since: time.Now()}
		l.kinds[kind] = k
	}
	k.lines++
	return k.lines <= burst
}
