package envoy

import (
	"io"

	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A VM is one virtual machine of a Proxy-Wasm host (SPEC.md §8): its root contexts, one for
// each listener at most, and its connections. Its methods are the callbacks. None panics: a
// panic behind one closes the connection that it was about, and no other.
type VM struct {
	host   Host
	random io.Reader
	key    PairingKey

	roots       map[uint32]bool // that are configured
	connections map[uint32]*connection
	waiting     map[uint32]*connection // those that a tick may help
	plane       *plane                 // nil until a configuration was accepted
	call        call
	metrics     []metric
	stats       vmStats
	quiet       rateLimit
}

// NewVM returns a virtual machine without contexts. It draws salts and Noise ephemerals from
// random, and the pairing key from key at the first configuration.
func NewVM(host Host, random io.Reader, key PairingKey) *VM {
	return &VM{
		host: host, random: random, key: key,
		roots: map[uint32]bool{}, connections: map[uint32]*connection{}, waiting: map[uint32]*connection{},
		stats: vmStats{closed: map[string]uint64{}},
	}
}

// OnContextCreate begins a context: a connection's where it has a parent. A root context
// counts once it is configured.
func (v *VM) OnContextCreate(id, parent uint32) {
	if parent == 0 {
		return
	}
	c := &connection{id: id, dead: true}
	v.connections[id] = c
	v.stats.connections++
	v.guard(c, func() {
		if v.plane != nil {
			c.stream, c.dead = v.plane.worker.NewStream(), false
		}
	})
}

// OnTick goes on with what waits for time to pass, and asks the agent for what is missing.
func (v *VM) OnTick(root uint32) {
	if v.plane == nil || !v.roots[root] {
		return
	}
	v.guard(nil, func() { v.ask(v.host.Now()) })
	v.resumeAll()
	v.guard(nil, v.measure)
}

// OnDelete ends a context.
func (v *VM) OnDelete(id uint32) {
	v.OnClose(id) // of a host that did not say so
	delete(v.connections, id)
	root := v.roots[id]
	delete(v.roots, id)
	if v.plane == nil || len(v.roots) > 0 && !root {
		return
	}
	v.guard(nil, func() {
		v.call.lost(v, id)
		if len(v.roots) == 0 {
			// The machine is about to end, and no tick follows.
			v.plane.filter.Erase(nil)
			v.measure()
		}
	})
}

// guard runs one step. A panic in it is a bug of ours: the connection that it was about, if
// any, is closed, and what it had taken is gone.
func (v *VM) guard(c *connection, step func()) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		v.stats.closed[faultModule]++
		if c != nil {
			v.kill(c)
		}
		// A panic of the runtime's tells of a place in the program, not of what was in memory.
		v.log(plugin.LevelError, "connection closed by a bug in the module (hint: please report this)", "err", r)
	}()
	step()
}
