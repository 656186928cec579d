package inside

import (
	"context"
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// A call names one request of one of our clients, and its response.
type call struct {
	client      string
	api         int16
	correlation int32
}

// times are when a frame's last byte was handed in, and when it had come out.
type times struct{ in, out time.Time }

// A tap notes when requests and responses pass the clients' ends and the broker's ends of
// connections. What is between keeps correlation ids.
type tap struct {
	mu        sync.Mutex
	requests  map[call]*times
	responses map[call]*times
	records   map[call]bool // the response is long enough to hold a record
}

func newTap() *tap {
	t := &tap{}
	t.reset()
	return t
}

// reset forgets what was noted.
func (t *tap) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.requests, t.responses, t.records = map[call]*times{}, map[call]*times{}, map[call]bool{}
}

// of returns the frame's times, made if it is not known yet; t.mu is held.
func (t *tap) of(frames map[call]*times, c call) *times {
	if frames[c] == nil {
		frames[c] = &times{}
	}
	return frames[c]
}

// A conn is one end of a connection. Bytes are stamped where that counts against what is
// measured: before they are written, and after they were read.
type conn struct {
	net.Conn
	tap    *tap
	broker bool // the end is the broker's

	mu      sync.Mutex
	calls   map[int32]call // that wait for a response
	out, in splitter
}

func (t *tap) wrap(c net.Conn, broker bool) *conn {
	w := &conn{Conn: c, tap: t, broker: broker, calls: map[int32]call{}}
	request, response := &w.out, &w.in
	if broker {
		request, response = &w.in, &w.out
	}
	request.ended, response.ended = w.request, w.response
	return w
}

func (c *conn) Write(b []byte) (int, error) {
	now := time.Now()
	c.mu.Lock()
	c.out.feed(b, now)
	c.mu.Unlock()
	return c.Conn.Write(b)
}

func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	now := time.Now()
	c.mu.Lock()
	c.in.feed(b[:n], now)
	c.mu.Unlock()
	return n, err
}

// request notes a request's last byte: it goes in at the client's end and out at the broker's.
func (c *conn) request(head []byte, _ int, at time.Time) {
	if len(head) < 10 {
		return
	}
	k := call{api: int16(binary.BigEndian.Uint16(head)), correlation: int32(binary.BigEndian.Uint32(head[4:]))}
	if n := int(int16(binary.BigEndian.Uint16(head[8:]))); n > 0 && 10+n <= len(head) {
		k.client = string(head[10 : 10+n])
	}
	c.calls[k.correlation] = k
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	if t := c.tap.of(c.tap.requests, k); c.broker {
		t.out = at
	} else {
		t.in = at
	}
}

// response is request's reverse.
func (c *conn) response(head []byte, size int, at time.Time) {
	if len(head) < 4 {
		return
	}
	k, ok := c.calls[int32(binary.BigEndian.Uint32(head))]
	if !ok {
		return
	}
	delete(c.calls, k.correlation)
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	if t := c.tap.of(c.tap.responses, k); c.broker {
		t.in = at
	} else {
		t.out = at
		c.tap.records[k] = size >= recordSize
	}
}

// A splitter finds the frames of a stream: 4 bytes of length, then as many bytes.
type splitter struct {
	head  []byte // the frame's first bytes after its length, as many as are of use
	size  [4]byte
	sized int // bytes of size that were seen
	left  int // bytes of the frame that were not
	ended func(head []byte, size int, at time.Time)
}

const headSize = 64

func (s *splitter) feed(b []byte, now time.Time) {
	for len(b) > 0 {
		if s.sized < 4 {
			n := copy(s.size[s.sized:], b)
			s.sized, b = s.sized+n, b[n:]
			if s.sized == 4 {
				s.left, s.head = int(binary.BigEndian.Uint32(s.size[:])), s.head[:0]
			}
			continue
		}
		n := min(len(b), s.left)
		s.head = append(s.head, b[:min(n, headSize-len(s.head))]...)
		s.left, b = s.left-n, b[n:]
		if s.left == 0 {
			s.ended(s.head, int(binary.BigEndian.Uint32(s.size[:])), now)
			s.sized = 0
		}
	}
}

// A listener taps the connections that it accepts.
type listener struct {
	net.Listener
	tap *tap
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tap.wrap(c, true), nil
}

func (t *tap) listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	return listener{l, t}, err
}

func (t *tap) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return t.wrap(c, false), nil
}
