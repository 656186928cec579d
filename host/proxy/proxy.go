// Package proxy is the Kafka sidecar: local listeners that stand for the brokers of one
// cluster. It forwards Kafka's frames, seals the record batches of Produce requests, opens
// those of Fetch and ShareFetch responses, and rewrites every broker address, so that a
// client never learns a way around it (KIP-951 and facts of Kafka's public protocol guide).
//
// One client connection owns one broker connection and two goroutines: the first reads
// requests, seals and writes to the broker; the second reads frames from the broker, matches
// each with its request, opens, and writes to the client. What one of them finds wrong closes
// that pair of connections and nothing else.
//
// It knows frames and batches as abi/kafka does, never a key, and leaves records to Filter.
// Whatever it cannot understand it does not forward.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

// Defaults of Config.
const (
	// DefaultProduceWait keeps a Produce inside the smallest time that a Kafka client
	// allows for one request by default, segmentio's 10 s, with room for the broker's answer.
	DefaultProduceWait = 8 * time.Second

	// DefaultFetchHold is long enough for a grant that is under way and short enough that
	// the other partitions of the response do not feel it.
	DefaultFetchHold = 500 * time.Millisecond

	// DefaultMaxFrame is Kafka's socket.request.max.bytes, and 4 MiB for what sealing adds.
	DefaultMaxFrame = 104857600 + 4<<20
)

// drainTime bounds how long Run waits for answers that are under way.
const drainTime = 10 * time.Second

// Config says where the proxy listens and what it stands for.
type Config struct {
	Bootstrap      []string      // brokers, host:port, tried in turn
	Listen         string        // host:port of the bootstrap listener; brokers listen above it
	AdvertisedHost string        // the host that clients are told; "" is the local address they came to
	TLS            *tls.Config   // to the brokers; nil is plain TCP
	ClientTLS      *tls.Config   // on the local side; nil is plain TCP
	ProduceWait    time.Duration // how long a Produce may wait for a lease; 0 is DefaultProduceWait
	FetchHold      time.Duration // how long a response may wait for a grant; 0 is DefaultFetchHold
	MaxFrame       int           // bytes of the largest request or response; 0 is DefaultMaxFrame
	NamesOnly      bool          // offer no Produce or Fetch by topic id: to be set where topics are plain
	Log            *slog.Logger  // nil is slog.Default
}

// A Filter seals and opens record batches. *engine.Engine is one. Errors wrap an abi.Status.
// It leaves its argument alone where it returns an error; what it returns belongs to the
// caller and may share memory with the argument.
type Filter interface {
	// Pass reports whether a topic's batches go on as they came, in both directions, and counts
	// those in records if so. They need then neither SealTo nor OpenTo, which would copy them.
	Pass(topic string, partition int32, records []byte) bool

	// SealTo appends to dst the sealed form of one batch, waiting for a lease as long as ctx
	// allows.
	SealTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error)

	// OpenTo appends to dst the opened form of any number of batches, one for each, waiting for a grant
	// as long as ctx allows. On error it returns the opened form of those before the one that
	// failed. Where it passes over a batch, a control batch over the same offsets stands for it.
	OpenTo(ctx context.Context, dst []byte, topic string, partition int32, records []byte) ([]byte, error)

	// Skipped returns how many batches Open has passed over, by reason.
	Skipped() map[abi.Status]uint64
}

// Groups tells which consumer groups the node's credential lists. *agent.Agent is one.
type Groups interface{ AllowsGroup(group string) bool }

// A Proxy is the sidecar of one cluster.
type Proxy struct {
	cfg    Config
	filter Filter
	groups Groups // nil allows all
	log    *slog.Logger

	bootstrap     net.Listener
	bootstrapHost string        // the host part of cfg.Listen
	fixedPort     bool          // its port is not 0
	reachable     atomic.Uint32 // index of the bootstrap address that answered last
	brokers       brokers
	topics        topics
	leases        leaseWaits
	stats         counters
	quiet         rateLimit

	mu       sync.Mutex
	conns    map[*conn]struct{}
	draining bool
	work     sync.WaitGroup // connections and accept loops
}

// New opens the bootstrap listener; Run serves it. Where groups is nil, any consumer group
// may be used.
func New(cfg Config, filter Filter, groups Groups) (*Proxy, error) {
	if len(cfg.Bootstrap) == 0 {
		return nil, errors.New("no bootstrap brokers are configured (hint: list host:port of at least one broker)")
	}
	for _, addr := range cfg.Bootstrap {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return nil, fmt.Errorf("bootstrap broker: %w (hint: write host:port)", err)
		}
	}
	host, port, err := net.SplitHostPort(cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen address: %w (hint: write host:port, for instance 127.0.0.1:19092)", err)
	}
	if cfg.ProduceWait <= 0 {
		cfg.ProduceWait = DefaultProduceWait
	}
	if cfg.FetchHold <= 0 {
		cfg.FetchHold = DefaultFetchHold
	}
	if cfg.MaxFrame <= 0 {
		cfg.MaxFrame = DefaultMaxFrame
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	ln, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("bootstrap listener: %w (hint: is another sidecar or a broker on this port?)", err)
	}
	p := &Proxy{
		cfg: cfg, filter: filter, groups: groups, log: cfg.Log,
		bootstrap: ln, bootstrapHost: host, fixedPort: port != "0", conns: map[*conn]struct{}{},
	}
	p.brokers.byID = map[int32]*broker{}
	return p, nil
}

// Addr is the bootstrap listener's address: what clients get as bootstrap.servers.
func (p *Proxy) Addr() net.Addr { return p.bootstrap.Addr() }

// Run serves until ctx ends. Then it takes no further connection and no further request,
// waits up to 10 s for the answers to those it has taken, and closes everything. It returns
// nil after that, or the error that ended the bootstrap listener.
func (p *Proxy) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		failed <- p.accept(p.bootstrap, p.dialBootstrap)
	}()
	p.log.Info("sidecar listens", "address", p.bootstrap.Addr().String(), "brokers", p.cfg.Bootstrap)

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("bootstrap listener: %w", err)
	}
	p.drain()
	return err
}

// Close ends a proxy that is not Run: its listeners, and those that Learn opened.
func (p *Proxy) Close() { p.drain() }

// drain closes the listeners, lets each connection finish what it has taken, and waits.
func (p *Proxy) drain() {
	p.bootstrap.Close()
	p.brokers.close()
	p.mu.Lock()
	p.draining = true
	p.log.Info("sidecar drains", "connections", len(p.conns))
	for c := range p.conns {
		c.drain()
	}
	p.mu.Unlock()

	done := make(chan struct{})
	go func() { p.work.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-time.After(drainTime):
	}
	p.mu.Lock()
	p.log.Warn("closing connections with answers outstanding", "connections", len(p.conns))
	for c := range p.conns {
		c.cancel(errDrained)
	}
	p.mu.Unlock()
	<-done
}

// accept serves every connection of one listener until it is closed.
func (p *Proxy) accept(ln net.Listener, dial dialFunc) error {
	for {
		client, err := ln.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// Out of file descriptors, or a client that was gone before we looked.
			if p.quiet.allow("accept " + ln.Addr().String()) {
				p.log.Warn("cannot accept a connection", "listener", ln.Addr().String(), "err", err)
			}
			time.Sleep(50 * time.Millisecond)
			continue
		}
		p.serve(client, dial)
	}
}

// serve starts the goroutines of one connection, unless the proxy is draining.
func (p *Proxy) serve(client net.Conn, dial dialFunc) {
	c := newConn(p, quick(client), dial)
	p.mu.Lock()
	if p.draining {
		p.mu.Unlock()
		client.Close()
		return
	}
	p.conns[c] = struct{}{}
	p.work.Add(1)
	p.mu.Unlock()
	p.stats.connections.Add(1)
	go func() {
		defer p.work.Done()
		defer func() {
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
		}()
		c.run()
	}()
}

// advertisedHost is what the client at the other end of conn is told to connect to.
func (p *Proxy) advertisedHost(client net.Conn) string {
	if p.cfg.AdvertisedHost != "" {
		return p.cfg.AdvertisedHost
	}
	host, _, err := net.SplitHostPort(client.LocalAddr().String())
	if err != nil {
		return p.bootstrapHost
	}
	return host
}

// bootstrapPort is the port that the bootstrap listener got.
func (p *Proxy) bootstrapPort() int {
	_, port, err := net.SplitHostPort(p.bootstrap.Addr().String())
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(port)
	if err != nil {
		return 0
	}
	return n
}
