package proxywasm

import (
	"sync"
	"time"
)

// A Clock stands still until Advance. One Clock is for one Proxy.
type Clock struct {
	mu      sync.Mutex
	now     time.Time
	workers []*worker
}

// NewClock returns a clock that shows now.
func NewClock(now time.Time) *Clock { return &Clock{now: now} }

// Now is what the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock on, and returns when the ticks that are due have run.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	c.now = c.now.Add(d)
	workers := c.workers
	c.mu.Unlock()
	for _, w := range workers {
		w.do(w.tick)
	}
}

func (c *Clock) watch(w *worker) {
	if c != nil {
		c.mu.Lock()
		c.workers = append(c.workers, w)
		c.mu.Unlock()
	}
}
