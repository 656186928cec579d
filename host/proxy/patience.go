package proxy

import (
	"context"
	"sync"
	"time"
)

// A patience is a context that ends at a time, for waits that hardly ever happen: its timer is
// made when somebody waits. A timer wakes a thread of the runtime, which costs as much as the
// batch for which nobody had to wait.
type patience struct {
	context.Context // its parent
	end             time.Time
	waits           func() // called before somebody waits for the first time; nil is nothing

	once  sync.Once
	timed context.Context
	stop  context.CancelFunc
}

func (p *patience) Deadline() (time.Time, bool) { return p.end, true }

func (p *patience) Done() <-chan struct{} {
	p.begin()
	return p.timed.Done()
}

func (p *patience) Err() error {
	p.begin()
	return p.timed.Err()
}

func (p *patience) begin() {
	p.once.Do(func() {
		p.timed, p.stop = context.WithDeadline(p.Context, p.end)
		if p.waits != nil {
			p.waits()
		}
	})
}

// release ends it, once nobody waits any more.
func (p *patience) release() {
	if p.stop != nil {
		p.stop()
	}
}
