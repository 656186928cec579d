package envoy

import (
	"errors"
	"strings"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A connection is a stream context: one client's connection to one broker.
type connection struct {
	id     uint32
	stream *Stream
	dead   bool // nothing of it may go on
	ended  bool // the client sends nothing more
	broken bool // the broker does not
}

// OnNewConnection decides whether a connection may begin. Before there is a configuration
// none may.
func (v *VM) OnNewConnection(id uint32) plugin.Action {
	c := v.connections[id]
	if c != nil && !c.dead {
		return plugin.ActionContinue
	}
	if now := v.host.Now(); v.quiet.allow("unconfigured", now) {
		v.log(plugin.LevelError, "connection closed", "reason", "the module has no configuration that it accepts (hint: an earlier line says why)")
	}
	v.host.Close()
	return plugin.ActionPause
}

// OnDownstreamData takes what the client sent: all of it is taken out of the host's buffer,
// and what the broker is to receive takes its place.
func (v *VM) OnDownstreamData(id uint32, end bool) plugin.Action {
	c := v.connections[id]
	action := plugin.ActionPause
	v.step(c, func() {
		now := v.host.Now()
		c.ended = c.ended || end
		if err := c.stream.FromClient(v.host.Buffer(plugin.BufferDownstream, c.stream.ClientRoom()), now); err != nil {
			v.fail(c, err)
			return
		}
		sent, ok := v.replace(plugin.BufferDownstream, c.stream.ToBroker)
		if !ok {
			v.fail(c, errBuffer)
			return
		}
		if !c.stalled() {
			if c.ended && c.stream.fromClient.waiting() > 0 {
				v.fail(c, errHalf)
				return
			}
			delete(v.waiting, id)
			action = plugin.ActionContinue
			return
		}
		// A host forgets the buffer once its callback lets it go on, and the rest could not
		// follow. So it is kept, and what is ready goes on beside it.
		v.waiting[id] = c
		if sent > 0 {
			v.host.Continue()
		}
		v.ask(now)
	})
	return action
}

// OnUpstreamData is OnDownstreamData for what the broker sent. It never waits.
func (v *VM) OnUpstreamData(id uint32, end bool) plugin.Action {
	c := v.connections[id]
	action := plugin.ActionPause
	v.step(c, func() {
		now := v.host.Now()
		if err := c.stream.FromBroker(v.host.Buffer(plugin.BufferUpstream, c.stream.BrokerRoom()), now); err != nil {
			v.fail(c, err)
			return
		}
		if _, ok := v.replace(plugin.BufferUpstream, c.stream.ToClient); !ok {
			v.fail(c, errBuffer)
			return
		}
		action = plugin.ActionContinue
		if end {
			// What the client is to receive is only now on its way: the next tick closes.
			c.broken = true
			v.waiting[id] = c
			v.unanswered(c, now)
			return
		}
		v.resume(c, now)
		if !c.dead && c.stream.hold.until > now {
			v.ask(now)
		}
	})
	return action
}

// replace puts what a stream gives in the place of what is in a buffer, and returns how many
// bytes that are.
func (v *VM) replace(b plugin.Buffer, give func(to func(part []byte) bool) bool) (sent int, ok bool) {
	ok = give(func(part []byte) bool {
		first := sent == 0
		sent += len(part)
		if first {
			return v.host.SetBuffer(b, part)
		}
		return v.host.AddBuffer(b, part)
	})
	if sent == 0 {
		ok = v.host.SetBuffer(b, nil)
	}
	return sent, ok
}

// unanswered counts a broker that closes a connection instead of answering, as Kafka does where
// it cannot read a request, and says so. A client that has gone wants no answer.
func (v *VM) unanswered(c *connection, now uint64) {
	if c.ended || len(c.stream.pending) == 0 {
		return
	}
	v.stats.closed[faultBroker]++
	x := c.stream.pending[0]
	name := kafka.APIName(x.key)
	if v.quiet.allow(closing{faultBroker, api(name)}, now) {
		v.log(plugin.LevelWarn, "broker closed the connection", "unanswered", name, "version", x.version,
			"client", string(v.host.Property("source", "address")))
	}
}

// OnClose is told that one side is gone: nothing of the connection can go on.
func (v *VM) OnClose(id uint32) {
	if c := v.connections[id]; c != nil {
		v.end(c)
	}
}

// end forgets what a connection holds.
func (v *VM) end(c *connection) {
	delete(v.waiting, c.id)
	if c.stream != nil {
		c.stream.Close()
	}
	c.dead, c.stream = true, nil
}

// step runs a step of a connection that lives. Of any other nothing goes on.
func (v *VM) step(c *connection, step func()) {
	if c == nil || c.dead {
		v.empty()
		v.host.Close()
		return
	}
	v.guard(c, step)
}

// resumeAll goes on with every connection that waits.
func (v *VM) resumeAll() {
	for _, c := range v.waiting {
		v.guard(c, func() {
			if c.broken {
				v.kill(c)
				return
			}
			if !v.host.Select(c.id) {
				v.end(c) // what would follow would be about another connection
				return
			}
			v.resume(c, v.host.Now())
		})
	}
}

// resume goes on with what a client sent, as far as it can. The connection is selected.
func (v *VM) resume(c *connection, now uint64) {
	if err := c.stream.Resume(now); err != nil {
		v.fail(c, err)
		return
	}
	stalled, waited := c.stalled(), v.waiting[c.id] != nil
	if !stalled {
		delete(v.waiting, c.id)
	}
	if c.stream.toBroker.empty() && (stalled || !waited || !c.ended) {
		return // nothing goes on, nor does the client's end, where it has not already
	}
	if _, ok := v.replace(plugin.BufferDownstream, c.stream.ToBroker); !ok || !v.host.Continue() {
		v.fail(c, errBuffer)
	}
}

// stalled reports whether a whole request waits.
func (c *connection) stalled() bool {
	frame, err := c.stream.fromClient.next()
	return frame != nil || err != nil
}

var (
	errBuffer = errors.New("the host does not take what goes on (hint: a Proxy-Wasm host must let a buffer be replaced, SPEC.md §8.3)")
	errHalf   = errors.New("the client ended in the middle of a request")
)

// fail closes a connection and says why.
func (v *VM) fail(c *connection, err error) {
	v.kill(c)
	if errors.Is(err, errHalf) {
		return // as clients do that are killed; there is nothing that an operator could do
	}
	violation := &Violation{From: faultModule, Err: err}
	errors.As(err, &violation)
	v.stats.closed[violation.From]++
	if v.quiet.allow(closing{violation.From, api(violation.API)}, v.host.Now()) {
		v.log(plugin.LevelWarn, "connection closed", "from", violation.From, "api", violation.API, "version", violation.Version,
			"reason", violation.Err, "client", string(v.host.Property("source", "address")))
	}
}

// A closing is what the log limits repetitions of closed connections by: nothing of it is
// anyone's to choose at length.
type closing struct{ from, api string }

// api is an API's name, with one name for all that Kafka does not have.
func api(name string) string {
	if strings.HasPrefix(name, "API ") {
		return "API"
	}
	return name
}

// kill makes sure that nothing of a connection goes on any more. It stays selected.
func (v *VM) kill(c *connection) {
	v.end(c)
	if v.host.Select(c.id) {
		v.empty()
		v.host.Close()
	}
}

// empty takes what either side sent out of the host's buffers. One that is not there now
// holds nothing.
func (v *VM) empty() {
	v.host.SetBuffer(plugin.BufferDownstream, nil)
	v.host.SetBuffer(plugin.BufferUpstream, nil)
}
