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

// each calls f for 0 to n-1 and waits: one after the other, and side by side what is not begun
// within aloneTime, since one partition's wait must not use up another's time. The work itself
// is bounded by the filter. An error is a bug.
func (c *conn) each(n int, f func(i int)) error {
	var next atomic.Int64
	work := func() error {
		return c.guard(func() error {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
			return nil
		})
	}
	if n <= 1 {
		return work()
	}
	var helped sync.WaitGroup
	errs := make([]error, min(n, maxSideBySide))
	helped.Add(1)
	help := time.AfterFunc(aloneTime, func() {
		defer helped.Done()
		for w := int64(1); w < int64(len(errs)) && next.Load() < int64(n); w++ {
			helped.Go(func() { errs[w] = work() })
		}
	})
	errs[0] = work()
	if help.Stop() {
		helped.Done()
	}
	helped.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
