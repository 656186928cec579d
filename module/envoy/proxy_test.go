package envoy

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

// A proxy is a Host as Envoy is one: a buffer of the client's bytes is there in a callback, and
// after it where that paused; what a callback asks for happens after it.
type proxy struct {
	*testing.T
	vm       *VM
	now      uint64
	selected uint32
	config   []byte
	agent    agent
	noCall   bool // to the agent

	client, broker map[uint32]*[]byte // buffers that are there now
	kept           map[uint32]*[]byte // of what clients sent, after a callback
	ended          map[uint32]bool    // by the client
	received       map[uint32][]byte  // by brokers
	given          map[uint32][]byte  // to clients
	after          []func()
	closed         map[uint32]bool
	lines          []string
	names          map[string]uint32
	totals         map[uint32]int64
	shared         map[string][]byte
	ticks          uint32
	calls          []Call // that were not answered
	body           []byte
	status         string
	panicAt        string // the name of the function that does
}

const testConfig = `{"realm":"04020000000000000000000000000000","agent_cluster":"agent","brokers":{"host":"proxy","base_port":9000},"policy":{}}`

func newProxy(t *testing.T) *proxy {
	p := &proxy{T: t, now: start, config: []byte(testConfig),
		client: map[uint32]*[]byte{}, broker: map[uint32]*[]byte{}, kept: map[uint32]*[]byte{}, ended: map[uint32]bool{},
		received: map[uint32][]byte{}, given: map[uint32][]byte{}, closed: map[uint32]bool{},
		names: map[string]uint32{}, totals: map[uint32]int64{}, shared: map[string][]byte{}}
	p.agent = agent{realm: testRealm, pairing: testPairing, say: func(q channel.Request) channel.Answer {
		switch q.Op {
		case channel.OpLease:
			l := leaseOf(q.Topic)
			return channel.Answer{Body: l.Append(nil)}
		case channel.OpRoot:
			r := rootOf(q.Topic)
			return channel.Answer{Body: r.Append(nil)}
		case channel.OpRenew:
			return channel.Answer{Body: channel.AppendKids(nil, q.Kids)}
		case channel.OpGroups:
			return generous(true)(q)
		}
		return channel.Answer{}
	}}
	p.vm = NewVM(p, rand.Reader, func(key *[channel.KeySize]byte) error { *key = testPairing; return nil })
	return p
}

// configured is a proxy whose module accepts its configuration, with root context 1.
func configured(t *testing.T) *proxy {
	p := newProxy(t)
	p.vm.OnContextCreate(1, 0)
	p.selected = 1
	if !p.vm.OnConfigure(1) || p.ticks == 0 {
		t.Fatalf("not configured: %q", p.lines)
	}
	return p
}

// connect begins a connection.
func (p *proxy) connect(id uint32) plugin.Action {
	p.selected = id
	p.vm.OnContextCreate(id, 1)
	action := p.vm.OnNewConnection(id)
	p.settle()
	return action
}

// settle does what a callback asked for.
func (p *proxy) settle() {
	for len(p.after) > 0 {
		after := p.after
		p.after = nil
		for _, f := range after {
			f()
		}
	}
}

// send has a client send bytes.
func (p *proxy) send(id uint32, b []byte, end bool) {
	p.Helper()
	if p.closed[id] {
		return
	}
	buffer := append([]byte(nil), b...)
	if kept := p.kept[id]; kept != nil {
		buffer = append(*kept, b...)
	}
	p.client[id], p.selected, p.ended[id] = &buffer, id, end
	action := p.vm.OnDownstreamData(id, end)
	p.kept[id] = &buffer
	p.settle()
	delete(p.client, id)
	if action == plugin.ActionContinue {
		p.received[id] = append(p.received[id], buffer...)
		delete(p.kept, id)
	} else if len(buffer) > 0 && !p.closed[id] {
		p.Errorf("%d bytes stay in the proxy's buffer: it stalls once that is full", len(buffer))
	}
}

// answer has a broker send bytes.
func (p *proxy) answer(id uint32, b []byte, end bool) {
	p.Helper()
	if p.closed[id] {
		return
	}
	buffer := append([]byte(nil), b...)
	p.broker[id], p.selected = &buffer, id
	action := p.vm.OnUpstreamData(id, end)
	delete(p.broker, id)
	if action != plugin.ActionContinue && len(buffer) > 0 {
		p.Errorf("%d bytes can never go on: the broker's direction cannot be resumed", len(buffer))
	}
	p.given[id] = append(p.given[id], buffer...)
	p.settle()
}

// tick lets time pass.
func (p *proxy) tick(ms uint64) {
	p.now += ms
	p.selected = 1
	p.vm.OnTick(1)
	p.settle()
}

// callback answers the call to the agent that is under way, and those that follow.
func (p *proxy) callback() {
	for len(p.calls) > 0 && !p.noCall {
		call := p.calls[0]
		p.calls = p.calls[1:]
		status, body := p.agent.post(call)
		p.respond(fmt.Sprint(status), body, 3)
	}
}

func (p *proxy) respond(status string, body []byte, headers uint32) {
	p.status, p.body, p.selected = status, body, 1
	p.vm.OnHTTPCallResponse(p.vm.call.token, headers)
	p.settle()
}

func (p *proxy) total(name string) int64 {
	p.Helper()
	id, ok := p.names["wasm_e2ee_"+name]
	if !ok {
		p.Fatalf("no metric is called %s", name)
	}
	return p.totals[id]
}

func (p *proxy) Log(level plugin.Level, line string) {
	p.lines = append(p.lines, fmt.Sprint(level, " ", line))
}
func (p *proxy) Now() uint64    { p.trap("now"); return p.now }
func (p *proxy) Tick(ms uint32) { p.ticks = ms }

// Select knows contexts that were created and not deleted.
func (p *proxy) Select(id uint32) bool {
	if id != 1 && p.vm.connections[id] == nil {
		return false
	}
	p.selected = id
	return true
}

func (p *proxy) trap(where string) {
	if p.panicAt == where {
		p.panicAt = ""
		panic("a bug, for the test")
	}
}

func (p *proxy) buffer(b plugin.Buffer) *[]byte {
	switch b {
	case plugin.BufferDownstream:
		if now := p.client[p.selected]; now != nil {
			return now
		}
		return p.kept[p.selected]
	case plugin.BufferUpstream:
		return p.broker[p.selected]
	case plugin.BufferCallBody:
		return &p.body
	}
	return &p.config
}

func (p *proxy) Buffer(b plugin.Buffer, room Room) []byte {
	p.trap(fmt.Sprint("buffer ", b))
	buffer := p.buffer(b)
	if buffer == nil {
		return nil
	}
	if room != nil {
		if given := room.Room(len(*buffer)); given != nil {
			copy(given, *buffer)
			return given
		}
	}
	return bytes.Clone(*buffer)
}

func (p *proxy) SetBuffer(b plugin.Buffer, with []byte) bool {
	p.trap(fmt.Sprint("set buffer ", b))
	buffer := p.buffer(b)
	if buffer == nil {
		return false
	}
	*buffer = bytes.Clone(with)
	return true
}

func (p *proxy) AddBuffer(b plugin.Buffer, more []byte) bool {
	p.trap(fmt.Sprint("add buffer ", b))
	buffer := p.buffer(b)
	if buffer == nil {
		return false
	}
	*buffer = append(*buffer, more...)
	return true
}

func (p *proxy) Continue() bool {
	id := p.selected
	p.after = append(p.after, func() {
		if b := p.kept[id]; b != nil && !p.closed[id] {
			p.received[id] = append(p.received[id], *b...)
			*b = nil
		}
	})
	return true
}

func (p *proxy) Close() {
	id := p.selected
	p.after = append(p.after, func() { p.closed[id] = true })
}

func (p *proxy) Property(path ...string) []byte {
	if slices.Equal(path, []string{"source", "address"}) {
		return []byte("10.0.0.9:55555")
	}
	return nil
}

func (p *proxy) Call(cluster string, c Call) (uint32, bool) {
	p.trap("call")
	if cluster != "agent" || p.selected != 1 || p.noCall {
		return 0, false
	}
	p.calls = append(p.calls, c)
	return uint32(100 + len(p.agent.seen)), true
}

func (p *proxy) Header(name string) []byte {
	if name != ":status" {
		return nil
	}
	return []byte(p.status)
}

func (p *proxy) Define(kind plugin.Metric, name string) (uint32, bool) {
	p.names[name] = uint32(len(p.names))
	return p.names[name], true
}

func (p *proxy) Add(metric uint32, by int64) { p.totals[metric] += by }

func (p *proxy) Get(key string) ([]byte, uint32, bool) {
	v, ok := p.shared[key]
	return bytes.Clone(v), 1, ok
}

func (p *proxy) Set(key string, value []byte, _ uint32) bool {
	p.shared[key] = bytes.Clone(value)
	return true
}

// said fails unless exactly one line holds all words.
func (p *proxy) said(words ...string) {
	p.Helper()
	n := 0
	for _, line := range p.lines {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			n++
		}
	}
	if n != 1 {
		p.Errorf("%d lines hold %q: %q", n, words, p.lines)
	}
}
