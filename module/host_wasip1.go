package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi/channel"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
	"github.com/wasm-e2ee/wasm-e2ee/module/envoy"
)

// The imports of SPEC.md §8.3. Each returns a status, 0 for success.

//go:wasmimport env proxy_log
func proxyLog(level uint32, message string) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func proxySetTickPeriod(ms uint32) uint32

//go:wasmimport env proxy_set_effective_context
func proxySetEffectiveContext(id uint32) uint32

//go:wasmimport env proxy_get_current_time_nanoseconds
func proxyGetCurrentTime(unix *uint64) uint32

//go:wasmimport env proxy_get_buffer_bytes
func proxyGetBufferBytes(buffer, start, size uint32, ptr, length *uint32) uint32

//go:wasmimport env proxy_set_buffer_bytes
func proxySetBufferBytes(buffer, start, size uint32, ptr unsafe.Pointer, length uint32) uint32

//go:wasmimport env proxy_continue_stream
func proxyContinueStream(stream uint32) uint32

//go:wasmimport env proxy_close_stream
func proxyCloseStream(stream uint32) uint32

//go:wasmimport env proxy_get_property
func proxyGetProperty(path string, ptr, length *uint32) uint32

//go:wasmimport env proxy_http_call
func proxyHTTPCall(cluster string, headers unsafe.Pointer, headersSize uint32, body unsafe.Pointer, bodySize uint32,
	trailers unsafe.Pointer, trailersSize uint32, timeout uint32, token *uint32) uint32

//go:wasmimport env proxy_get_header_map_value
func proxyGetHeaderMapValue(headers uint32, name string, ptr, length *uint32) uint32

//go:wasmimport env proxy_define_metric
func proxyDefineMetric(kind uint32, name string, id *uint32) uint32

//go:wasmimport env proxy_increment_metric
func proxyIncrementMetric(id uint32, by int64) uint32

//go:wasmimport env proxy_get_shared_data
func proxyGetSharedData(key string, ptr, length, cas *uint32) uint32

//go:wasmimport env proxy_set_shared_data
func proxySetSharedData(key string, value unsafe.Pointer, size uint32, cas uint32) uint32

// A proxyHost is envoy.Host over the imports. Where the host writes to is in it rather than on
// a stack: the host calls proxy_on_memory_allocate meanwhile, and a stack may move.
type proxyHost struct {
	received                memory     // what the host allocated for what it returns
	view                    uint32     // where what Buffer returned last is, in received
	room                    envoy.Room // of what is received next; nil is received
	given                   []byte     // that room gave
	ptr, length, cas, token uint32
	now                     uint64 // Unix ns
}

var proxy proxyHost

func (*proxyHost) Log(level plugin.Level, line string) { proxyLog(uint32(level), line) }
func (*proxyHost) Tick(ms uint32)                      { proxySetTickPeriod(ms) }
func (*proxyHost) Select(context uint32) bool {
	return proxySetEffectiveContext(context) == 0
}

func (p *proxyHost) Now() uint64 {
	proxyGetCurrentTime(&p.now)
	return p.now / 1_000_000
}

// returned finds what the host allocated and wrote; nothing after another status than 0.
func (p *proxyHost) returned(status uint32) []byte {
	if status != 0 {
		p.ptr, p.length = 0, 0
		return nil
	}
	b, ok := p.received.bytes(p.ptr, p.length)
	if !ok {
		panic("the host returned what it did not allocate")
	}
	return b
}

// taken copies what the host returned, and frees it.
func (p *proxyHost) taken(status uint32) []byte {
	b := bytes.Clone(p.returned(status))
	p.received.free(p.ptr)
	return b
}

func (p *proxyHost) Buffer(b plugin.Buffer, room envoy.Room) []byte {
	p.received.free(p.view)
	p.view, p.room, p.given = 0, room, nil
	status := proxyGetBufferBytes(uint32(b), 0, math.MaxInt32, &p.ptr, &p.length)
	given := p.given
	p.room, p.given = nil, nil
	if status == 0 && len(given) > 0 && p.ptr == addressOf(given) && p.length <= uint32(len(given)) {
		return given[:p.length]
	}
	view := p.returned(status)
	p.view = p.ptr
	return view
}

// allocate returns the address of memory that the host asks for: of the room that the buffer it
// returns is to have, or of a new one.
func (p *proxyHost) allocate(size uint32) uint32 {
	if room := p.room; room != nil && size > 0 && size <= maxBuffer {
		p.room = nil
		if p.given = room.Room(int(size)); p.given != nil {
			return addressOf(p.given)
		}
	}
	return p.received.alloc(size)
}

func addressOf(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

func (p *proxyHost) SetBuffer(b plugin.Buffer, with []byte) bool {
	return proxySetBufferBytes(uint32(b), 0, math.MaxInt32, unsafe.Pointer(unsafe.SliceData(with)), uint32(len(with))) == 0
}

func (p *proxyHost) AddBuffer(b plugin.Buffer, more []byte) bool {
	return proxySetBufferBytes(uint32(b), math.MaxInt32, 0, unsafe.Pointer(unsafe.SliceData(more)), uint32(len(more))) == 0
}

func (p *proxyHost) Continue() bool { return proxyContinueStream(uint32(plugin.StreamDownstream)) == 0 }

func (p *proxyHost) Close() {
	proxyCloseStream(uint32(plugin.StreamDownstream))
	proxyCloseStream(uint32(plugin.StreamUpstream))
}

func (p *proxyHost) Property(path ...string) []byte {
	return p.taken(proxyGetProperty(strings.Join(path, "\x00"), &p.ptr, &p.length))
}

func (p *proxyHost) Call(cluster string, c envoy.Call) (token uint32, ok bool) {
	headers := appendPairs(nil, [][2]string{
		{":method", "POST"}, {":path", c.Path}, {":authority", plugin.Authority}, {"content-type", "application/octet-stream"},
	})
	trailers := appendPairs(nil, nil)
	status := proxyHTTPCall(cluster, unsafe.Pointer(unsafe.SliceData(headers)), uint32(len(headers)),
		unsafe.Pointer(unsafe.SliceData(c.Body)), uint32(len(c.Body)),
		unsafe.Pointer(unsafe.SliceData(trailers)), uint32(len(trailers)), envoy.CallTimeout, &p.token)
	return p.token, status == 0
}

// appendPairs appends a header map: a count, the sizes of each name and value, and then these,
// with a zero behind each. Integers have the least significant byte first.
func appendPairs(b []byte, pairs [][2]string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(pairs)))
	for _, p := range pairs {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[0])))
		b = binary.LittleEndian.AppendUint32(b, uint32(len(p[1])))
	}
	for _, p := range pairs {
		b = append(append(b, p[0]...), 0)
		b = append(append(b, p[1]...), 0)
	}
	return b
}

func (p *proxyHost) Header(name string) []byte {
	return p.taken(proxyGetHeaderMapValue(plugin.HeadersCall, name, &p.ptr, &p.length))
}

func (p *proxyHost) Define(kind plugin.Metric, name string) (id uint32, ok bool) {
	status := proxyDefineMetric(uint32(kind), name, &p.token)
	return p.token, status == 0
}

func (p *proxyHost) Add(metric uint32, by int64) { proxyIncrementMetric(metric, by) }

func (p *proxyHost) Get(key string) (value []byte, cas uint32, ok bool) {
	p.cas = 0
	status := proxyGetSharedData(key, &p.ptr, &p.length, &p.cas)
	return p.taken(status), p.cas, status == 0
}

func (p *proxyHost) Set(key string, value []byte, cas uint32) bool {
	return proxySetSharedData(key, unsafe.Pointer(unsafe.SliceData(value)), uint32(len(value)), cas) == 0
}

var errNoKey = errors.New("the environment variable " + plugin.KeyVariable + " is not set (hint: vm_config.environment_variables.host_env_keys lists it, and the proxy is started with it)")

// pairingKey reads the pairing key and wipes it from the environment that the runtime keeps.
// The copy from which the runtime made its own is the collector's.
func pairingKey(key *[channel.KeySize]byte) error {
	text, ok := syscall.Getenv(plugin.KeyVariable)
	if !ok || text == "" {
		return errNoKey
	}
	line := unsafe.Slice(unsafe.StringData(text), len(text))
	err := channel.ParseKey(key, line)
	clear(line)
	if err != nil {
		return fmt.Errorf("the environment variable %s: %w (hint: it is the one line that wasm-e2ee agent pair wrote)", plugin.KeyVariable, err)
	}
	return nil
}
