package proxy

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxSideBySide bounds the partitions of one frame that are in the filter at once. One
	// frame has room for millions, and a goroutine for each would take gigabytes.
	maxSideBySide = 1024

	// aloneTime is how long one goroutine works on the partitions of a frame before others
	// help. Most frames are done by then, and waking another processor costs more than a batch.
	aloneTime = time.Millisecond
)

// each calls f for 0 to n-1 and returns when all have: one after the other, until f calls
// waits because it is about to wait, or aloneTime is over. Then what was not begun is done
// side by side, since one partition's wait must not use up another's time. The work itself is
// bounded by the filter. An error is a bug.
func (c *conn) each(n int, f func(i int, waits func())) error {
	var next atomic.Int64
	var helpers sync.WaitGroup
	var once sync.Once
	errs := make([]error, min(n, maxSideBySide))
	var work func() error
	help := func() {
		once.Do(func() {
			for w := 1; w < len(errs) && next.Load() < int64(n); w++ {
				helpers.Go(func() { errs[w] = work() })
			}
		})
	}
	start := time.Now()
	work = func() error {
		return c.guard(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if i > 0 && time.Since(start) > aloneTime {
					help()
				}
				f(int(i), help)
			}
			return nil
		})
	}
	if n > 0 {
		errs[0] = work()
	}
	helpers.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
