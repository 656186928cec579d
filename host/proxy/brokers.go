package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxBrokers bounds the listeners that a broker's answers can make us open.
const maxBrokers = 1024

// dialTime bounds one attempt to reach a broker in both TCP and TLS.
const dialTime = 10 * time.Second

// A dialFunc connects to the broker that a listener stands for.
type dialFunc func(ctx context.Context) (net.Conn, error)

// brokers are the listeners made so far, one for each broker id that a response named.
type brokers struct {
	mu     sync.Mutex
	byID   map[int32]*broker
	closed bool
}

// A broker is one local listener and the address it stands for now.
type broker struct {
	addr atomic.Pointer[string] // host:port
	ln   net.Listener
	port int32
}

// localPort returns the port of the listener that stands for a broker, which is made when
// the id is seen for the first time. A known broker at a new address keeps its listener.
func (p *Proxy) localPort(id int32, host string, port int32) (int32, error) {
	addr := net.JoinHostPort(host, strconv.Itoa(int(port)))
	p.brokers.mu.Lock()
	defer p.brokers.mu.Unlock()
	if b, ok := p.brokers.byID[id]; ok {
		if old := b.addr.Swap(&addr); *old != addr {
			p.log.Info("broker has moved", "broker", id, "from", *old, "to", addr)
		}
		return b.port, nil
	}
	if p.brokers.closed {
		return 0, errDrained
	}
	if len(p.brokers.byID) >= maxBrokers {
		return 0, fmt.Errorf("more than %d brokers", maxBrokers)
	}
	b, err := p.listenFor(id)
	if err != nil {
		return 0, fmt.Errorf("listener for broker %d: %w", id, err)
	}
	b.addr.Store(&addr)
	p.brokers.byID[id] = b
	p.log.Info("broker has a listener", "broker", id, "address", addr, "listener", b.ln.Addr().String())
	p.work.Add(1)
	go func() {
		defer p.work.Done()
		// A listener that is closed has nothing to report.
		_ = p.accept(b.ln, func(ctx context.Context) (net.Conn, error) { return p.dial(ctx, *b.addr.Load()) })
	}()
	return b.port, nil
}

// Learn opens the listener for a broker before any client has asked for it. After a restart
// some clients know the brokers' listeners only and never come back to the bootstrap
// listener, where they would learn of them anew.
func (p *Proxy) Learn(id int32, host string, port int32) error {
	_, err := p.localPort(id, host, port)
	return err
}

// listenFor opens the listener of broker id: on the bootstrap port + 1 + id, so that a
// firewall can be told, or on any free port where that one is taken. Where the bootstrap
// port itself was left to the system, so are the others.
func (p *Proxy) listenFor(id int32) (*broker, error) {
	free := net.JoinHostPort(p.bootstrapHost, "0")
	if !p.fixedPort {
		ln, err := net.Listen("tcp", free)
		return newBroker(ln), err
	}
	want := int64(p.bootstrapPort()) + 1 + int64(id)
	var ln net.Listener
	err := errors.New("no such port")
	if want <= 65535 {
		ln, err = net.Listen("tcp", net.JoinHostPort(p.bootstrapHost, strconv.FormatInt(want, 10)))
	}
	if err != nil {
		p.log.Warn("the port for a broker is not free, taking another", "broker", id, "port", want, "err", err)
		ln, err = net.Listen("tcp", free)
	}
	return newBroker(ln), err
}

// newBroker returns nil where there is no listener.
func newBroker(ln net.Listener) *broker {
	if ln == nil {
		return nil
	}
	return &broker{ln: ln, port: int32(ln.Addr().(*net.TCPAddr).Port)}
}

func (b *brokers) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, broker := range b.byID {
		broker.ln.Close()
	}
}

// dialBootstrap connects to the first of the configured brokers that answers, beginning
// with the one that did so last.
func (p *Proxy) dialBootstrap(ctx context.Context) (net.Conn, error) {
	var errs []error
	first := p.reachable.Load()
	for i := range p.cfg.Bootstrap {
		at := (first + uint32(i)) % uint32(len(p.cfg.Bootstrap))
		broker, err := p.dial(ctx, p.cfg.Bootstrap[at])
		if err == nil {
			p.reachable.Store(at)
			return broker, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (p *Proxy) dial(ctx context.Context, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	// Control sees the address after names are resolved and before anything is sent.
	plain := &net.Dialer{Control: func(_, resolved string, _ syscall.RawConn) error { return p.notOurselves(resolved) }}
	dial := plain.DialContext
	if p.cfg.TLS != nil {
		// The dialer takes ServerName from the broker's own host where none is set.
		dial = (&tls.Dialer{NetDialer: plain, Config: p.cfg.TLS}).DialContext
	}
	broker, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("broker %s: %w", addr, err)
	}
	return quick(broker), nil
}

// notOurselves refuses an address where this sidecar listens. A connection to ourselves
// would make another, and so on until no file descriptor is left.
func (p *Proxy) notOurselves(resolved string) error {
	at, err := netip.ParseAddrPort(resolved)
	if err != nil {
		return err
	}
	ours := []net.Listener{p.bootstrap}
	p.brokers.mu.Lock()
	for _, b := range p.brokers.byID {
		ours = append(ours, b.ln)
	}
	p.brokers.mu.Unlock()
	for _, ln := range ours {
		own := ln.Addr().(*net.TCPAddr).AddrPort()
		if own.Port() != at.Port() {
			continue
		}
		ip, ownIP := at.Addr().Unmap(), own.Addr().Unmap()
		if ip == ownIP || ownIP.IsUnspecified() && isLocal(ip) {
			return errors.New("this is the sidecar's own listener (hint: bootstrap must name the brokers, listen another port)")
		}
	}
	return nil
}

// isLocal reports whether an address is this machine's.
func isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() || ip.IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.Equal(ip.AsSlice()) {
			return true
		}
	}
	return false
}
