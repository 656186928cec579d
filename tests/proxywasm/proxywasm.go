// Package proxywasm is a small host for Proxy-Wasm 0.2.1 filters of TCP streams, on wazero. It
// stands in for Envoy 1.40.0 where a test wants no other process: `listener → wasm filter →
// tcp_proxy → upstream`, a virtual machine per worker, and Envoy's behaviour in the points that
// a filter may stumble over:
//
//   - a virtual machine that only runs _initialize, one that tries the configuration (the
//     canary), one of the main thread, which ticks but has no streams, and one of each worker;
//   - StopIteration keeps the bytes, and the filter is given all of them with the next ones; at
//     the limit of a connection's buffer nothing more is read;
//   - what a client sent can be continued at any time, what the upstream sent cannot; continuing
//     and closing happen when the callback has returned;
//   - an HTTP call that fails is an answer with status 503 or 504, on the root context;
//   - after a trap the streams of that machine close when they next have something to say to it,
//     and the next connection gets a new machine, but not more often than Options.Reload;
//   - WASI is what Envoy implements, function by function, and no more.
//
// Not here: HTTP filters, gRPC, queues, TLS, and changes of the configuration. Functions that
// only those use answer Unimplemented. The specification is proxy-wasm/spec, abi-versions/v0.2.1.
package proxywasm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
)

// Defaults, which are Envoy's.
const (
	DefaultBufferLimit = 1 << 20         // bytes; per_connection_buffer_limit_bytes
	DefaultReload      = time.Second     // reload_config.backoff.base_interval
	connectTimeout     = 5 * time.Second // of a cluster
	maxPages           = 1 << 30 >> 16   // of a virtual machine: 1 GiB
)

// Options say what a Proxy runs.
type Options struct {
	Module        []byte            // the filter
	Configuration []byte            // of the plugin
	Environment   map[string]string // of the virtual machines
	Name          string            // plugin_name
	RootID        string            // plugin_root_id
	VMID          string            // plugin_vm_id; data is shared among the machines of one Proxy in any case

	Listeners []Listener
	Clusters  map[string]string // name -> "HOST:PORT" or "unix:/path", for HTTP calls

	Workers     int           // 0 is 1; connections go to them in turn
	BufferLimit int           // bytes per connection and direction; 0 is DefaultBufferLimit
	Reload      time.Duration // least time between two machines of a worker; 0 is DefaultReload
	LogLevel    Level         // lines below are dropped; 0 keeps all
	Clock       *Clock        // what the filter takes for the time; nil is the real one
}

// A Listener accepts clients at Address, or on On, and connects each to Upstream.
type Listener struct {
	Address  string // HOST:PORT; port 0 takes a free one
	Upstream string // HOST:PORT or "unix:/path"

	// On is open already, for a configuration that names its port. The Proxy closes it, but
	// not where Start fails.
	On net.Listener
}

// A Proxy is a running host. Its methods may be called from any goroutine.
type Proxy struct {
	opts    Options
	ctx     context.Context
	runtime wazero.Runtime
	module  wazero.CompiledModule
	main    *worker
	workers []*worker
	metrics metrics
	shared  shared
	log     log
	http    map[string]*cluster

	mu        sync.Mutex
	closed    bool
	listeners []net.Listener
	sockets   map[*socket]struct{}
	accepted  uint64
	running   sync.WaitGroup
}

// compiled keeps compiled code for all proxies of a process, and for the next process where the
// user has a cache directory.
var compiled = sync.OnceValue(func() wazero.CompilationCache {
	if dir, err := os.UserCacheDir(); err == nil {
		if cache, err := wazero.NewCompilationCacheWithDir(filepath.Join(dir, "wasm-e2ee", "proxywasm")); err == nil {
			return cache
		}
	}
	return wazero.NewCompilationCache()
})

// Start runs a proxy. A module that Envoy would not load, and a configuration that the module
// refuses, are errors, with what the module logged.
func Start(o Options) (*Proxy, error) {
	o.Workers = max(o.Workers, 1)
	if o.BufferLimit == 0 {
		o.BufferLimit = DefaultBufferLimit
	}
	if o.Reload == 0 {
		o.Reload = DefaultReload
	}
	p := &Proxy{opts: o, sockets: map[*socket]struct{}{}, http: map[string]*cluster{}}
	p.ctx = context.Background()
	p.log.level = o.LogLevel
	for name, address := range o.Clusters {
		p.http[name] = newCluster(address)
	}
	p.runtime = wazero.NewRuntimeWithConfig(p.ctx, wazero.NewRuntimeConfig().WithCompilationCache(compiled()).WithMemoryLimitPages(maxPages))
	if err := p.start(); err != nil {
		for _, line := range p.Log() {
			if line.Level >= LevelWarn {
				err = fmt.Errorf("%w\n%s", err, line)
			}
		}
		p.Close()
		return nil, err
	}
	return p, nil
}

func (p *Proxy) start() (err error) {
	if p.module, err = p.load(p.opts.Module); err != nil {
		return err
	}
	base, err := p.newVM(nil)
	if err != nil {
		return err
	}
	base.close()
	canary, err := p.configuredVM(nil)
	if err != nil {
		return err
	}
	canary.close()
	for i := range p.opts.Workers + 1 {
		w := &worker{p: p, index: i, wake: make(chan struct{}, 1), done: make(chan struct{}), conns: map[*connection]struct{}{}}
		if w.vm, err = p.configuredVM(w); err != nil {
			return err
		}
		w.loadedAt = p.now()
		if i == 0 {
			p.main = w
		} else {
			p.workers = append(p.workers, w)
		}
		p.running.Add(1)
		go w.run()
		p.opts.Clock.watch(w)
	}
	for _, l := range p.opts.Listeners {
		ln := l.On
		if ln == nil {
			if ln, err = net.Listen("tcp", l.Address); err != nil {
				return err
			}
		}
		p.listeners = append(p.listeners, ln)
		p.running.Add(1)
		go p.accept(ln, l)
	}
	return nil
}

// accept gives each client to the next worker.
func (p *Proxy) accept(ln net.Listener, l Listener) {
	defer p.running.Done()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		number := p.accepted
		p.accepted++
		p.mu.Unlock()
		w := p.workers[number%uint64(len(p.workers))]
		if !w.post(func() { w.connected(conn, l, number) }) {
			conn.Close()
		}
	}
}

// Addr is where the i-th listener accepts.
func (p *Proxy) Addr(i int) string { return p.listeners[i].Addr().String() }

// Drain stops accepting. The connections that there are go on.
func (p *Proxy) Drain() {
	for _, ln := range p.listeners {
		ln.Close()
	}
}

// Close ends all that the proxy runs, connections at once.
func (p *Proxy) Close() {
	p.Drain()
	for _, w := range p.all() {
		w.stop()
	}
	p.mu.Lock()
	p.closed = true
	for s := range p.sockets {
		s.conn.Close()
	}
	p.mu.Unlock()
	for _, c := range p.http {
		c.close()
	}
	p.running.Wait()
	p.runtime.Close(p.ctx)
}

// all returns the main thread's worker and the others.
func (p *Proxy) all() []*worker {
	if p.main == nil {
		return nil
	}
	return append([]*worker{p.main}, p.workers...)
}

// Trap does to the i-th worker's machine what a trap does: it fails, and everything with it.
func (p *Proxy) Trap(i int) {
	w := p.workers[i]
	w.do(func() { w.vm.fail(errors.New("trapped by the test")) })
}

// PauseReading has the proxy read nothing more from the client at address, or go on.
func (p *Proxy) PauseReading(address string, paused bool) {
	for _, w := range p.workers {
		w.do(func() {
			for c := range w.conns {
				if c.down.conn.RemoteAddr().String() == address {
					c.paused = paused
					c.pump()
				}
			}
		})
	}
}

// A State is what a worker's machine holds.
type State struct {
	Memory      uint32 // bytes of linear memory, which never shrink
	Streams     int    // contexts that were created and not deleted
	Connections int    // of the worker, those of a failed machine included
	Loads       int    // machines that the worker has had
	Failed      bool
}

// State returns the state of each worker's machine.
func (p *Proxy) State() []State {
	states := make([]State, len(p.workers))
	for i, w := range p.workers {
		w.do(func() {
			states[i] = State{w.vm.memory.Size(), len(w.vm.streams), len(w.conns), w.loads, w.vm.failed}
		})
	}
	return states
}

func (p *Proxy) now() time.Time {
	if p.opts.Clock != nil {
		return p.opts.Clock.Now()
	}
	return time.Now()
}

// open keeps s for Close; false says that it came too late.
func (p *Proxy) open(s *socket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		s.conn.Close()
		return false
	}
	p.sockets[s] = struct{}{}
	p.running.Add(2)
	return true
}

func (p *Proxy) gone(s *socket) {
	p.mu.Lock()
	delete(p.sockets, s)
	p.mu.Unlock()
}
