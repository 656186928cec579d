package proxywasm

import (
	"net"
	"sync"
)

// readSize is what one read takes at most, in bytes.
const readSize = 64 << 10

// A socket is one side of a connection: a goroutine that reads one piece when the worker asks
// for it, and one that writes what the worker has queued. All methods are the worker's.
type socket struct {
	w    *worker
	conn net.Conn

	may     chan struct{} // one token: a read
	asked   bool
	stopped bool // may is closed
	read    func(b []byte, err error)

	mu      sync.Mutex
	changed *sync.Cond
	out     [][]byte
	fin     bool // after out: shut the write side down
	end     bool // after out: close
	closed  bool

	pending int  // bytes queued that the kernel has not taken
	blocked bool // pending went over the limit, and not yet below its half
	finned  bool // the write side is shut down
	ended   bool // closed after what was queued
	written func(err error)
}

// newSocket runs a connection's goroutines. read gets what was read, or the error, io.EOF for
// the end; written is called after a piece was written, and with the error if it was not. It
// returns nil where the proxy has ended.
func newSocket(w *worker, conn net.Conn, read func([]byte, error), written func(error)) *socket {
	s := &socket{w: w, conn: conn, may: make(chan struct{}, 1), read: read, written: written}
	s.changed = sync.NewCond(&s.mu)
	if !w.p.open(s) {
		return nil
	}
	go s.reads()
	go s.writes()
	return s
}

func (s *socket) reads() {
	defer s.w.p.running.Done()
	buf := make([]byte, readSize)
	for range s.may {
		n, err := s.conn.Read(buf)
		b := append([]byte(nil), buf[:n]...)
		s.w.post(func() {
			s.asked = false
			if !s.stopped {
				s.read(b, err)
			}
		})
		if err != nil {
			return
		}
	}
}

// ask has one piece read, if none is asked for.
func (s *socket) ask() {
	if !s.asked && !s.stopped {
		s.asked = true
		s.may <- struct{}{}
	}
}

// write queues b, which is the socket's from now on.
func (s *socket) write(b []byte) {
	if len(b) == 0 {
		return
	}
	s.pending += len(b)
	s.blocked = s.blocked || s.pending > s.w.p.opts.BufferLimit
	s.mu.Lock()
	s.out = append(s.out, b)
	s.changed.Signal()
	s.mu.Unlock()
}

// finish shuts the write side down after what is queued.
func (s *socket) finish() {
	s.mu.Lock()
	s.fin = true
	s.changed.Signal()
	s.mu.Unlock()
}

// closeAfter closes the socket after what is queued. Nothing more is read.
func (s *socket) closeAfter() {
	s.stopReading()
	s.mu.Lock()
	s.end = true
	s.changed.Signal()
	s.mu.Unlock()
}

// close closes the socket now.
func (s *socket) close() {
	s.stopReading()
	s.mu.Lock()
	s.closed = true
	s.changed.Signal()
	s.mu.Unlock()
	s.conn.Close()
	s.w.p.gone(s)
}

func (s *socket) stopReading() {
	if !s.stopped {
		s.stopped = true
		close(s.may)
	}
}

func (s *socket) writes() {
	defer s.w.p.running.Done()
	for {
		s.mu.Lock()
		for len(s.out) == 0 && !s.closed && !s.end && !s.fin {
			s.changed.Wait()
		}
		var b []byte
		if len(s.out) > 0 {
			b = s.out[0][:min(len(s.out[0]), readSize)]
			if s.out[0] = s.out[0][len(b):]; len(s.out[0]) == 0 {
				s.out[0] = nil
				s.out = s.out[1:]
			}
		}
		closed, end := s.closed, s.end
		fin := s.fin && b == nil
		if fin {
			s.fin = false
		}
		s.mu.Unlock()
		var err error
		switch {
		case closed:
			return
		case b != nil:
			_, err = s.conn.Write(b)
		case end:
			s.conn.Close()
			s.w.p.gone(s)
			s.w.post(func() {
				s.ended = true
				s.written(nil)
			})
			return
		case fin:
			if half, can := s.conn.(interface{ CloseWrite() error }); can {
				err = half.CloseWrite()
			}
		}
		s.w.post(func() {
			s.pending -= len(b)
			s.blocked = s.blocked && s.pending > s.w.p.opts.BufferLimit/2
			s.finned = s.finned || fin
			s.written(err)
		})
		if err != nil {
			return
		}
	}
}
