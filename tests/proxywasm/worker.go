package proxywasm

import (
	"net"
	"sync"
	"time"
)

// A worker owns one machine and its connections: nothing but its own goroutine touches either.
// What happens elsewhere is posted to it.
type worker struct {
	p     *Proxy
	index int // 0 is the main thread

	mu    sync.Mutex
	queue []func()
	ended bool
	wake  chan struct{}
	done  chan struct{}

	vm       *vm
	loadedAt time.Time
	loads    int
	conns    map[*connection]struct{}
}

// post has f run on the worker; false says that the worker has ended.
func (w *worker) post(f func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return false
	}
	w.queue = append(w.queue, f)
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return true
}

// do has f run on the worker and waits for it; after the worker's end it does nothing.
func (w *worker) do(f func()) {
	ran := make(chan struct{})
	if w.post(func() { f(); close(ran) }) {
		select {
		case <-ran:
		case <-w.done:
		}
	}
}

// stop ends the worker after what was posted before.
func (w *worker) stop() {
	w.do(func() {
		w.mu.Lock()
		w.ended = true
		w.mu.Unlock()
	})
	<-w.done
}

func (w *worker) run() {
	defer w.p.running.Done()
	defer close(w.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		queue, ended := w.queue, w.ended
		w.queue = nil
		w.mu.Unlock()
		for _, f := range queue {
			f()
		}
		if ended {
			for c := range w.conns {
				c.down.close()
				if c.up != nil {
					c.up.close()
				}
			}
			w.vm.close()
			return
		}
		w.tick()
		if len(queue) > 0 {
			continue
		}
		timer.Reset(w.untilTick())
		select {
		case <-w.wake:
		case <-timer.C:
		}
	}
}

// tick calls proxy_on_tick if it is due. The next one is due a period after it returned.
func (w *worker) tick() {
	v := w.vm
	if v.failed || v.period == 0 || w.p.now().Before(v.nextTick) {
		return
	}
	v.call(rootID, "proxy_on_tick", rootID)
	v.nextTick = w.p.now().Add(v.period)
}

// untilTick is how long a worker with nothing to do may sleep.
func (w *worker) untilTick() time.Duration {
	if w.p.opts.Clock != nil || w.vm.failed || w.vm.period == 0 {
		return time.Hour
	}
	return max(time.Until(w.vm.nextTick), 0)
}

// machine returns the machine for a new connection: after a trap a new one, unless the last one
// is too young.
func (w *worker) machine() *vm {
	if !w.vm.failed || w.p.now().Sub(w.loadedAt) < w.p.opts.Reload {
		return w.vm
	}
	w.loadedAt = w.p.now()
	v, err := w.p.configuredVM(w)
	if err != nil {
		w.p.log.add(LevelCritical, err.Error())
		return w.vm
	}
	w.vm.close()
	w.vm = v
	return v
}

// connected begins a client's connection.
func (w *worker) connected(conn net.Conn, l Listener, number uint64) {
	c := &connection{w: w, vm: w.machine(), listener: l, number: number}
	c.down = newSocket(w, conn, c.clientSent, c.toClientWritten)
	if c.down == nil {
		return
	}
	w.conns[c] = struct{}{}
	c.begin()
}
