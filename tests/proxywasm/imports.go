package proxywasm

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// A status is what a function of the specification returns.
type status uint32

const (
	ok            status = 0
	notFound      status = 1
	badArgument   status = 2
	invalidMemory status = 6
	casMismatch   status = 8
	unimplemented status = 12
)

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

func i32s(n int) []api.ValueType {
	types := make([]api.ValueType, n)
	for i := range types {
		types[i] = i32
	}
	return types
}

// u is an i32 as it comes: with garbage above it.
func u(slot uint64) uint32 { return uint32(slot) }

// A function is what a module can import. One without a result has no run, and does nothing.
type function struct {
	params []api.ValueType
	run    func(v *vm, args []uint64) status
}

func (f function) results() []api.ValueType {
	if f.run == nil {
		return nil
	}
	return i32s(1)
}

// host is f for wazero. While a machine initializes it can log, and nothing else of its proxy's.
func (f function) host(name string) api.GoModuleFunc {
	early := name == "proxy_log" || !strings.HasPrefix(name, "proxy_")
	return func(ctx context.Context, _ api.Module, stack []uint64) {
		v := ctx.Value(vmKey{}).(*vm)
		if v.initializing && !early {
			panic(name + " inside _initialize")
		}
		if f.run != nil {
			stack[0] = uint64(f.run(v, stack))
		}
	}
}

// without is a function that only other kinds of filters use.
func without(params int) function {
	return function{i32s(params), func(*vm, []uint64) status { return unimplemented }}
}

// proxyFunctions are the functions of the specification.
var proxyFunctions = map[string]function{
	"proxy_log":                          {i32s(3), (*vm).proxyLog},
	"proxy_get_log_level":                {i32s(1), func(v *vm, s []uint64) status { return v.put32(u(s[0]), uint32(v.p.opts.LogLevel)) }},
	"proxy_get_current_time_nanoseconds": {i32s(1), func(v *vm, s []uint64) status { return v.put64(u(s[0]), uint64(v.p.now().UnixNano())) }},
	"proxy_set_tick_period_milliseconds": {i32s(1), (*vm).setTickPeriod},
	"proxy_get_property":                 {i32s(4), (*vm).getProperty},
	"proxy_get_status":                   {i32s(3), (*vm).getStatus},
	"proxy_set_effective_context":        {i32s(1), (*vm).setEffectiveContext},
	"proxy_continue_stream":              {i32s(1), (*vm).continueStream},
	"proxy_close_stream":                 {i32s(1), (*vm).closeStream},
	"proxy_get_buffer_bytes":             {i32s(5), (*vm).getBufferBytes},
	"proxy_get_buffer_status":            {i32s(3), (*vm).getBufferStatus},
	"proxy_set_buffer_bytes":             {i32s(5), (*vm).setBufferBytes},
	"proxy_http_call":                    {i32s(10), (*vm).httpCall},
	"proxy_get_header_map_value":         {i32s(5), (*vm).getHeader},
	"proxy_get_header_map_pairs":         {i32s(3), (*vm).getHeaders},
	"proxy_get_header_map_size":          {i32s(2), (*vm).getHeadersSize},
	"proxy_get_shared_data":              {i32s(5), (*vm).getSharedData},
	"proxy_set_shared_data":              {i32s(5), (*vm).setSharedData},
	"proxy_define_metric":                {i32s(4), (*vm).defineMetricCall},
	"proxy_increment_metric":             {[]api.ValueType{i32, i64}, func(v *vm, s []uint64) status { return v.incrementMetric(u(s[0]), int64(s[1])) }},
	"proxy_record_metric":                {[]api.ValueType{i32, i64}, func(v *vm, s []uint64) status { return v.recordMetric(u(s[0]), s[1]) }},
	"proxy_get_metric":                   {i32s(2), (*vm).getMetricCall},
	"proxy_call_foreign_function":        {i32s(6), (*vm).callForeignFunction},
	"proxy_done":                         {nil, func(*vm, []uint64) status { return notFound }}, // nothing is being shut down
	"proxy_set_property":                 without(4),
	"proxy_send_local_response":          without(8),
	"proxy_register_shared_queue":        without(3),
	"proxy_resolve_shared_queue":         without(5),
	"proxy_dequeue_shared_queue":         without(3),
	"proxy_enqueue_shared_queue":         without(3),
	"proxy_add_header_map_value":         without(5),
	"proxy_replace_header_map_value":     without(5),
	"proxy_remove_header_map_value":      without(3),
	"proxy_set_header_map_pairs":         without(3),
	"proxy_grpc_call":                    without(12),
	"proxy_grpc_stream":                  without(9),
	"proxy_grpc_close":                   without(1),
	"proxy_grpc_cancel":                  without(1),
	"proxy_grpc_send":                    without(4),
}

func (v *vm) put32(at, value uint32) status {
	if !v.memory.WriteUint32Le(at, value) {
		return invalidMemory
	}
	return ok
}

func (v *vm) put64(at uint32, value uint64) status {
	if !v.memory.WriteUint64Le(at, value) {
		return invalidMemory
	}
	return ok
}

// text reads a string that the module points to.
func (v *vm) text(at, size uint64) (string, bool) {
	b, found := v.memory.Read(u(at), u(size))
	return string(b), found
}

func (v *vm) proxyLog(s []uint64) status {
	if u(s[0]) > uint32(LevelCritical) {
		return badArgument
	}
	text, found := v.text(s[1], s[2])
	if !found {
		return invalidMemory
	}
	v.p.log.add(Level(u(s[0])), text)
	return ok
}

// setTickPeriod has the root context ticked, each time that long after the last tick; 0 is never.
func (v *vm) setTickPeriod(s []uint64) status {
	v.period = time.Duration(u(s[0])) * time.Millisecond
	v.nextTick = v.p.now().Add(v.period)
	return ok
}

func (v *vm) setEffectiveContext(s []uint64) status {
	id := u(s[0])
	if id > rootID && v.streams[id] == nil {
		return badArgument
	}
	v.effective = id
	return ok
}

func (v *vm) getStatus(s []uint64) status {
	if !v.memory.WriteUint32Le(u(s[0]), v.callError) {
		return invalidMemory
	}
	return v.give([]byte(v.callText), u(s[1]), u(s[2]))
}

// Kinds of streams.
const (
	streamRequest = iota
	streamResponse
	streamDownstream
	streamUpstream
)

// continueStream lets what the client sent pass, after the callback. Of a filter of streams the
// first two kinds are accepted and do nothing.
func (v *vm) continueStream(s []uint64) status {
	switch u(s[0]) {
	case streamRequest, streamResponse:
		return ok
	case streamDownstream:
		if c := v.stream(); c != nil {
			v.after = append(v.after, c.resume)
		}
		return ok
	case streamUpstream:
		return unimplemented
	}
	return badArgument
}

// closeStream closes the client's connection, after the callback and after what is written.
func (v *vm) closeStream(s []uint64) status {
	switch u(s[0]) {
	case streamRequest, streamResponse:
		return ok
	case streamDownstream, streamUpstream:
		if c := v.stream(); c != nil {
			v.after = append(v.after, c.flush)
		}
		return ok
	}
	return badArgument
}

func (v *vm) getSharedData(s []uint64) status {
	key, found := v.text(s[0], s[1])
	if !found {
		return invalidMemory
	}
	it, found := v.p.shared.get(key)
	if !found {
		return notFound
	}
	if st := v.give([]byte(it.value), u(s[2]), u(s[3])); st != ok {
		return st
	}
	return v.put32(u(s[4]), it.cas)
}

func (v *vm) setSharedData(s []uint64) status {
	key, found1 := v.text(s[0], s[1])
	value, found2 := v.text(s[2], s[3])
	if !found1 || !found2 {
		return invalidMemory
	}
	return v.p.shared.set(key, value, u(s[4]))
}

func (v *vm) defineMetricCall(s []uint64) status {
	name, found := v.text(s[1], s[2])
	if !found {
		return invalidMemory
	}
	id, st := v.defineMetric(u(s[0]), name)
	if st != ok {
		return st
	}
	return v.put32(u(s[3]), id)
}

func (v *vm) getMetricCall(s []uint64) status {
	value, st := v.getMetric(u(s[0]))
	if st != ok {
		return st
	}
	return v.put64(u(s[1]), value)
}

// callForeignFunction knows none.
func (v *vm) callForeignFunction(s []uint64) status {
	if _, found := v.text(s[0], s[1]); !found {
		return invalidMemory
	}
	return notFound
}

// getProperty knows the few properties that need no configuration of Envoy's. Numbers are 8
// bytes, the lowest first.
func (v *vm) getProperty(s []uint64) status {
	path, found := v.text(s[0], s[1])
	if !found {
		return invalidMemory
	}
	value, found := v.property(strings.ReplaceAll(strings.TrimSuffix(path, "\x00"), "\x00", "."))
	if !found {
		return notFound
	}
	return v.give(value, u(s[2]), u(s[3]))
}

func (v *vm) property(path string) ([]byte, bool) {
	switch path {
	case "plugin_name":
		return []byte(v.p.opts.Name), true
	case "plugin_root_id":
		return []byte(v.p.opts.RootID), true
	case "plugin_vm_id":
		return []byte(v.p.opts.VMID), true
	}
	c := v.stream()
	if c == nil {
		return nil, false
	}
	switch path {
	case "connection.id", "connection_id":
		return binary.LittleEndian.AppendUint64(nil, c.number), true
	case "source.address":
		return []byte(c.down.conn.RemoteAddr().String()), true
	case "source.port":
		a, tcp := c.down.conn.RemoteAddr().(*net.TCPAddr)
		if !tcp {
			return nil, false
		}
		return binary.LittleEndian.AppendUint64(nil, uint64(a.Port)), true
	case "destination.address":
		return []byte(c.down.conn.LocalAddr().String()), true
	case "upstream.address":
		if !c.dialing { // tcp_proxy chooses it when it connects
			return nil, false
		}
		_, address := split(c.listener.Upstream)
		return []byte(address), true
	}
	return nil, false
}
