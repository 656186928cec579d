package proxy

import (
	"context"
	"slices"
	"sync"
)

// maxPending bounds the requests of one connection that wait for an answer; beyond it
// the client is not read from.
const maxPending = 128

// An exchange is a request that waits for its place in the order of answers.
type exchange struct {
	key, version  int16
	correlationID int32
	local         *message           // the answer, where the broker is not asked
	refused       []refusedPartition // of a Produce whose other partitions were forwarded
}

// An order is the exchanges of one connection that wait, oldest first. The oldest stays in it
// until its answer is written: whoever makes a local answer the oldest writes that, too.
type order struct {
	room chan struct{} // an element for each that waits

	mu      sync.Mutex
	waiting []exchange
	first   int  // of waiting: the oldest
	last    bool // no more will come
}

// oldest returns the exchange that the broker answers next, if there is one.
func (o *order) oldest() (x exchange, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first == len(o.waiting) {
		return x, false
	}
	return o.waiting[o.first], true
}

// remove takes the oldest out. The caller holds o.mu.
func (o *order) remove() {
	o.waiting[o.first] = exchange{}
	if o.first++; o.first == len(o.waiting) {
		o.waiting, o.first = o.waiting[:0], 0
	}
	<-o.room
}

// end is called when no more will come. It reports whether all are answered.
func (o *order) end() (all bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.last = true
	return len(o.waiting) == 0
}

// queue gives an exchange its place in the order of answers, and waits while too many are
// outstanding. A local answer that nothing precedes is written at once.
func (c *conn) queue(x exchange) error {
	o := &c.order
	select {
	case o.room <- struct{}{}:
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.first > 0 && len(o.waiting) == cap(o.waiting) {
		o.waiting, o.first = slices.Delete(o.waiting, 0, o.first), 0
	}
	o.waiting = append(o.waiting, x)
	return c.writeLocal()
}

// answered takes the oldest exchange out, whose answer was written. It reports whether it was
// the connection's last.
func (c *conn) answered() (last bool, err error) {
	o := &c.order
	o.mu.Lock()
	defer o.mu.Unlock()
	o.remove()
	err = c.writeLocal()
	return o.last && len(o.waiting) == 0, err
}

// writeLocal writes the local answers that nothing precedes. The caller holds order.mu.
func (c *conn) writeLocal() error {
	o := &c.order
	for o.first < len(o.waiting) && o.waiting[o.first].local != nil {
		m := o.waiting[o.first].local
		err := m.writeTo(c.client)
		m.release()
		if err != nil {
			return errClientDone
		}
		o.remove()
	}
	return nil
}
