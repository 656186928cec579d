package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

const (
	// idleTime is how long a new connection may take for its first request, Kafka's own
	// connections.max.idle.ms; later the broker closes what is idle.
	idleTime = 10 * time.Minute

	handshakeTime = 10 * time.Second

	// readBuffer in bytes takes small frames in one read; large ones pass it by.
	readBuffer = 4096
)

// A conn is one client connection and the broker connection that it owns.
type conn struct {
	p    *Proxy
	dial dialFunc
	log  *slog.Logger

	ctx    context.Context // ends when the connections must close; the cause says why
	cancel context.CancelCauseFunc

	client  net.Conn
	broker  net.Conn       // nil until the first request
	workers sync.WaitGroup // the goroutine on the broker's side
	order   order          // requests without an answer so far
	opened  []*frame       // what the response being answered is made of, released with it

	mu       sync.Mutex
	draining bool
}

// Why a connection closes, where nobody did anything wrong.
var (
	errClientDone = errors.New("client closed the connection")
	errDrained    = errors.New("sidecar is stopping")
)

// A violation is a frame that is not let through. Its connection closes.
type violation struct {
	from    string // "client" or "broker"
	api     string
	version int16
	err     error
}

func (v *violation) Error() string {
	return fmt.Sprintf("%s sent %s v%d: %v", v.from, v.api, v.version, v.err)
}

func (v *violation) Unwrap() error { return v.err }

// A brokerGone says that the broker's connection ended or never began.
type brokerGone struct{ err error }

func (b *brokerGone) Error() string { return b.err.Error() }
func (b *brokerGone) Unwrap() error { return b.err }

// A bug is a panic, caught so that the other connections live on.
type bug struct{ err error }

func (b *bug) Error() string { return b.err.Error() }

func newConn(p *Proxy, client net.Conn, dial dialFunc) *conn {
	c := &conn{
		p: p, dial: dial, client: client,
		log:   p.log.With("client", client.RemoteAddr().String()),
		order: order{room: make(chan struct{}, maxPending)},
	}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// run serves the connection to its end.
func (c *conn) run() {
	closed := make(chan struct{})
	context.AfterFunc(c.ctx, func() {
		defer close(closed)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.client.Close()
		if c.broker != nil {
			c.broker.Close()
		}
	})

	err := c.guard(c.readRequests)
	if errors.Is(err, errClientDone) || errors.Is(err, errDrained) {
		// What was taken is answered before the broker's connection closes.
		grace := time.AfterFunc(drainTime, func() { c.cancel(err) })
		if c.order.end() {
			c.cancel(err)
		}
		c.workers.Wait()
		grace.Stop()
	}
	c.cancel(err)
	c.workers.Wait()
	<-closed
	c.report(context.Cause(c.ctx))
}

// guard turns a panic of f into an error.
func (c *conn) guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &bug{fmt.Errorf("panic: %v\n%s", v, debug.Stack())}
		}
	}()
	return f()
}

// work runs f on a goroutine of its own. An error closes the connection.
func (c *conn) work(f func() error) {
	c.workers.Add(1)
	go func() {
		defer c.workers.Done()
		if err := c.guard(f); err != nil {
			c.cancel(err)
		}
	}()
}

// report writes the one log line about the connection's end.
func (c *conn) report(cause error) {
	var v *violation
	var gone *brokerGone
	var panicked *bug
	switch {
	case errors.As(cause, &panicked):
		c.log.Error("connection closed by a bug in the sidecar (hint: please report this)", "err", cause)
	case errors.As(cause, &v):
		c.log.Warn("connection closed", "from", v.from, "api", v.api, "version", v.version, "reason", v.err)
	case errors.As(cause, &gone):
		if c.broker != nil {
			c.log.Info("broker closed the connection", "broker", c.broker.RemoteAddr().String(), "reason", gone.err)
		} else if c.p.quiet.allow("dial " + gone.Error()) {
			c.log.Warn("broker cannot be reached", "err", gone.err)
		}
	case errors.Is(cause, errClientDone), errors.Is(cause, errDrained):
		c.log.Debug("connection closed", "reason", cause)
	default:
		c.log.Info("connection closed", "reason", cause)
	}
}

// drain makes the connection take no further request.
func (c *conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.draining = true
	c.client.SetReadDeadline(time.Unix(1, 0))
}

// allowReads lets the client take d for its next frame, or for ever where d is 0.
func (c *conn) allowReads(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.draining:
	case d == 0:
		c.client.SetReadDeadline(time.Time{})
	default:
		c.client.SetReadDeadline(time.Now().Add(d))
	}
}

// readRequests is the first goroutine: it takes requests from the client until one of the
// sides ends, and never returns nil.
func (c *conn) readRequests() error {
	if err := c.acceptTLS(); err != nil {
		return err
	}
	c.allowReads(idleTime)
	in := c.frames(c.client)
	for {
		f, err := in.next()
		if err != nil {
			return c.readFailed(err)
		}
		err = c.request(f)
		f.release()
		if err != nil {
			return err
		}
	}
}

// frames reads what one side sends.
func (c *conn) frames(from net.Conn) *frameReader {
	return &frameReader{in: bufio.NewReaderSize(from, readBuffer), max: c.p.cfg.MaxFrame}
}

// acceptTLS completes the handshake where the local side speaks TLS.
func (c *conn) acceptTLS() error {
	if c.p.cfg.ClientTLS == nil {
		return nil
	}
	ctx, stop := context.WithTimeout(c.ctx, handshakeTime)
	defer stop()
	secure := tls.Server(c.client, c.p.cfg.ClientTLS)
	err := secure.HandshakeContext(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.draining:
		return errDrained
	case errors.Is(err, io.EOF):
		return errClientDone // a probe of the port
	case err != nil:
		return &violation{"client", "TLS handshake", 0, err}
	}
	c.client = secure
	return nil
}

// readFailed says why the client's next frame did not come.
func (c *conn) readFailed(err error) error {
	c.mu.Lock()
	draining := c.draining
	c.mu.Unlock()
	var netErr net.Error
	switch {
	case draining:
		return errDrained
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, io.EOF), errors.As(err, &netErr):
		return errClientDone
	}
	return &violation{"client", "a frame", 0, err}
}

// request takes one request: it forwards it, sealed where it carries records, or answers it.
// f stays the caller's.
func (c *conn) request(f *frame) error {
	h, err := kafka.ParseRequestHeader(f.body())
	if errors.Is(err, kafka.ErrFrame) {
		return &violation{"client", "a request", h.Version, err}
	}
	if err != nil {
		return &violation{"client", kafka.APIName(h.Key), h.Version, err}
	}
	low, high, ok := c.p.passed(h.Key)
	switch {
	case ok && h.Version >= low && h.Version <= high:
	case h.Key == kafka.KeyApiVersions:
		return c.answer(h, kafka.UnsupportedApiVersions())
	default:
		return &violation{"client", kafka.APIName(h.Key), h.Version, kafka.ErrVersion}
	}
	if err := c.connect(); err != nil {
		return err
	}
	switch h.Key {
	case kafka.KeyProduce:
		return c.produce(f, h)
	case kafka.KeyJoinGroup, kafka.KeyConsumerGroupHeartbeat, kafka.KeyShareGroupHeartbeat,
		kafka.KeyStreamsGroupHeartbeat, kafka.KeyShareFetch, kafka.KeyOffsetFetch, kafka.KeyOffsetCommit:
		refusal, err := c.refuseGroup(h, f.body()[h.Size:])
		if err != nil {
			return err
		}
		if refusal != nil {
			return c.answer(h, refusal)
		}
	}
	return c.forward(&message{frame: f}, exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID})
}

// connect dials the broker before the first request. A connection that never sends one
// that is worth forwarding costs the broker nothing.
func (c *conn) connect() error {
	if c.broker != nil {
		return nil
	}
	broker, err := c.dial(c.ctx)
	if err != nil {
		return &brokerGone{err}
	}
	c.allowReads(0)
	c.mu.Lock()
	c.broker = broker
	c.mu.Unlock()
	if c.ctx.Err() != nil {
		broker.Close() // the one who cancelled may not have seen it
		return context.Cause(c.ctx)
	}
	c.work(c.answerRequests)
	return nil
}

// forward sends a request to the broker and queues x for its response.
func (c *conn) forward(m *message, x exchange) error {
	if err := c.queue(x); err != nil {
		return err
	}
	return c.send(m)
}

// send writes a request to the broker.
func (c *conn) send(m *message) error {
	if err := m.writeTo(c.broker); err != nil {
		return &brokerGone{err}
	}
	return nil
}

// answer queues a response that the broker does not know of.
func (c *conn) answer(h kafka.RequestHeader, body appender) error {
	m := &message{frame: newFrame(256)}
	m.bytes = kafka.AppendResponseHeader(m.bytes, h.Key, h.Version, h.CorrelationID)
	m.bytes = body.Append(m.bytes)
	m.finish()
	if err := c.connect(); err != nil {
		return err
	}
	return c.queue(exchange{key: h.Key, version: h.Version, correlationID: h.CorrelationID, local: m})
}

// An appender is a response body.
type appender interface{ Append(b []byte) []byte }
