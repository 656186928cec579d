// Command guest is a filter that does what the first word of a client's line says, so that each
// function of the host can be seen from outside.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"unsafe"
)

//go:wasmimport env proxy_log
func proxyLog(level, at, size uint32) uint32

//go:wasmimport env proxy_get_buffer_bytes
func getBuffer(kind, from, size uint32, at, sizeAt unsafe.Pointer) uint32

//go:wasmimport env proxy_get_buffer_status
func bufferStatus(kind uint32, size, flags unsafe.Pointer) uint32

//go:wasmimport env proxy_set_buffer_bytes
func setBuffer(kind, from, size, at, n uint32) uint32

//go:wasmimport env proxy_continue_stream
func continueStream(kind uint32) uint32

//go:wasmimport env proxy_close_stream
func closeStream(kind uint32) uint32

//go:wasmimport env proxy_set_effective_context
func setEffectiveContext(id uint32) uint32

//go:wasmimport env proxy_set_tick_period_milliseconds
func setTickPeriod(ms uint32) uint32

//go:wasmimport env proxy_get_current_time_nanoseconds
func now(at unsafe.Pointer) uint32

//go:wasmimport env proxy_get_property
func getProperty(path, size uint32, at, sizeAt unsafe.Pointer) uint32

//go:wasmimport env proxy_http_call
func httpCall(cluster, clusterSize, headers, headersSize, body, bodySize, trailers, trailersSize, timeout uint32, token unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_value
func getHeader(kind, name, size uint32, at, sizeAt unsafe.Pointer) uint32

//go:wasmimport env proxy_get_header_map_pairs
func getHeaders(kind uint32, at, sizeAt unsafe.Pointer) uint32

//go:wasmimport env proxy_get_shared_data
func getShared(key, size uint32, at, sizeAt, cas unsafe.Pointer) uint32

//go:wasmimport env proxy_set_shared_data
func setShared(key, size, value, valueSize, cas uint32) uint32

//go:wasmimport env proxy_define_metric
func defineMetric(kind, name, size uint32, id unsafe.Pointer) uint32

//go:wasmimport env proxy_increment_metric
func incrementMetric(id uint32, by int64) uint32

//go:wasmimport env proxy_record_metric
func recordMetric(id uint32, value uint64) uint32

//go:wasmimport env proxy_get_metric
func getMetric(id uint32, value unsafe.Pointer) uint32

//go:wasmimport env proxy_call_foreign_function
func callForeign(name, size, args, argsSize uint32, result, resultSize unsafe.Pointer) uint32

func main() {}

var (
	given   = map[uint32][]byte{} // by the host's allocations
	held    = map[uint32]string{} // what a stream has to say later
	pending = map[uint32]uint32{} // streams, by the token of their call
	counter uint32
	gauge   uint32
)

func ref(s string) (at, size uint32) {
	return uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))), uint32(len(s))
}

func say(level uint32, format string, a ...any) {
	at, size := ref(fmt.Sprintf(format, a...))
	proxyLog(level, at, size)
}

// taken runs f with places for an address and a size, and returns the bytes there.
func taken(f func(at, size unsafe.Pointer) uint32) (string, uint32) {
	var at, size uint32
	status := f(unsafe.Pointer(&at), unsafe.Pointer(&size))
	b := given[at]
	delete(given, at)
	return string(b[:min(int(size), len(b))]), status
}

func get(kind uint32) string {
	s, _ := taken(func(at, size unsafe.Pointer) uint32 { return getBuffer(kind, 0, 1<<31, at, size) })
	return s
}

func set(kind, from, n uint32, s string) uint32 {
	at, size := ref(s)
	return setBuffer(kind, from, n, at, size)
}

func replace(kind uint32, s string) { set(kind, 0, 1<<31, s) }

func property(path ...string) (string, uint32) {
	key, size := ref(strings.Join(path, "\x00"))
	return taken(func(at, sizeAt unsafe.Pointer) uint32 { return getProperty(key, size, at, sizeAt) })
}

//go:wasmexport proxy_abi_version_0_2_1
func version() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	b := make([]byte, size)
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	given[at] = b
	return at
}

//go:wasmexport proxy_on_context_create
func contextCreate(id, parent uint32) { say(1, "create %d of %d", id, parent) }

//go:wasmexport proxy_on_vm_start
func vmStart(id, size uint32) uint32 {
	say(1, "start %d", id)
	return 1
}

//go:wasmexport proxy_on_configure
func configure(id, size uint32) uint32 {
	text := get(7)
	say(2, "configure %s with %s", text, os.Getenv("GUEST"))
	if int(size) != len(text) || text == "refuse" {
		say(4, "refused")
		return 0
	}
	name, n := ref("guest_streams_total")
	defineMetric(0, name, n, unsafe.Pointer(&counter))
	name, n = ref("guest_gauge")
	defineMetric(1, name, n, unsafe.Pointer(&gauge))
	setTickPeriod(20)
	return 1
}

//go:wasmexport proxy_on_new_connection
func newConnection(id uint32) uint32 {
	incrementMetric(counter, 1)
	before, status := property("upstream", "address")
	say(1, "new %d, upstream %q %d", id, before, status)
	if _, found := property("plugin_root_id"); found == 0 && os.Getenv("GUEST") == "hold" {
		held[id] = ""
		return 1
	}
	return 0
}

//go:wasmexport proxy_on_downstream_data
func downstream(id, size, end uint32) uint32 {
	text := get(2)
	if int(size) != len(text) {
		say(4, "size %d of %d bytes", size, len(text))
	}
	if end == 1 {
		say(1, "end of %d", id)
		return 0
	}
	if !strings.HasSuffix(text, "\n") {
		return 1 // until the line is whole
	}
	word, rest, _ := strings.Cut(strings.TrimSuffix(text, "\n"), " ")
	switch word {
	case "up":
		replace(2, strings.ToUpper(rest)+"\n")
	case "edit":
		a := set(2, 0, 0, "<")
		b := set(2, 1<<31, 0, ">")
		c := set(2, 1, 1, "no")
		set(2, 1<<31, 0, fmt.Sprintf("%d%d%d\n", a, b, c))
	case "later": // on the next tick
		held[id] = "later " + rest + "\n"
		replace(2, "")
		return 1
	case "call":
		cluster, path, _ := strings.Cut(rest, " ")
		var token uint32
		pairs := pairsOf(":method", "POST", ":path", path, ":authority", "guest", "x-one", "1")
		c, cn := ref(cluster)
		h, hn := ref(pairs)
		b, bn := ref("body")
		if status := httpCall(c, cn, h, hn, b, bn, 0, 0, 300, unsafe.Pointer(&token)); status != 0 {
			replace(2, fmt.Sprintf("call %d\n", status))
			return 0
		}
		pending[token] = id
		replace(2, "")
		return 1
	case "prop":
		value, status := property(strings.Split(rest, ".")...)
		if rest == "connection.id" && len(value) == 8 {
			value = fmt.Sprint(binary.LittleEndian.Uint64([]byte(value)))
		}
		replace(2, fmt.Sprintf("%s %d\n", value, status))
	case "share":
		var cas, later uint32
		key, n := ref("key")
		old, st := taken(func(at, size unsafe.Pointer) uint32 { return getShared(key, n, at, size, unsafe.Pointer(&cas)) })
		v, vn := ref(rest)
		first := setShared(key, n, v, vn, cas)
		second := setShared(key, n, v, vn, cas+100)
		now, _ := taken(func(at, size unsafe.Pointer) uint32 { return getShared(key, n, at, size, unsafe.Pointer(&later)) })
		replace(2, fmt.Sprintf("%q %d, %d %d, %q %v\n", old, st, first, second, now, later > cas))
	case "metric":
		recordMetric(gauge, 41)
		incrementMetric(gauge, 3)
		incrementMetric(gauge, -2)
		var value uint64
		got := getMetric(gauge, unsafe.Pointer(&value))
		replace(2, fmt.Sprintf("%d %d, %d %d\n", value, got, incrementMetric(counter, 0), incrementMetric(4000, 1)))
	case "odd":
		n, nn := ref("none")
		var a, b uint32
		foreign := callForeign(n, nn, 0, 0, unsafe.Pointer(&a), unsafe.Pointer(&b))
		kind := bufferStatus(9, unsafe.Pointer(&a), unsafe.Pointer(&b))
		config := bufferStatus(7, unsafe.Pointer(&a), unsafe.Pointer(&b))
		answer := fmt.Sprintf("%d %d %d, %d %d, %d %d\n", foreign, kind, config, continueStream(3), continueStream(0), setEffectiveContext(999), setEffectiveContext(1))
		replace(2, "not the root's to write")
		setEffectiveContext(id)
		replace(2, answer)
	case "print":
		fmt.Println("printed")
		fmt.Fprintln(os.Stderr, "complained")
	case "close":
		replace(2, "")
		closeStream(2)
		return 1
	case "stall":
		return 1
	case "trap":
		panic("as asked")
	case "exit":
		os.Exit(3)
	}
	return 0
}

// upstream holds what begins with "<" until it ends with ">".
//
//go:wasmexport proxy_on_upstream_data
func upstream(id, size, end uint32) uint32 {
	text := get(3)
	if strings.HasPrefix(text, "(") && !strings.Contains(text, ")") {
		say(2, "held %d", len(text))
		return 1
	}
	return 0
}

//go:wasmexport proxy_on_tick
func tick(id uint32) {
	for stream, text := range held {
		delete(held, stream)
		setEffectiveContext(stream)
		if text != "" {
			replace(2, text)
		}
		continueStream(2)
	}
	var at uint64
	now(unsafe.Pointer(&at))
	if os.Getenv("GUEST") == "ticks" {
		say(2, "tick at %d", at)
	}
}

//go:wasmexport proxy_on_http_call_response
func response(id, token, headers, size, trailers uint32) {
	name, n := ref(":Status")
	code, _ := taken(func(at, sizeAt unsafe.Pointer) uint32 { return getHeader(6, name, n, at, sizeAt) })
	pairs, _ := taken(func(at, sizeAt unsafe.Pointer) uint32 { return getHeaders(6, at, sizeAt) })
	same := len(pairs) > 4 && binary.LittleEndian.Uint32([]byte(pairs)) == headers
	body := get(4)
	setEffectiveContext(pending[token])
	replace(2, fmt.Sprintf("%d %s %v %d %s\n", id, code, same, int(size)-len(body), body))
	continueStream(2)
	delete(pending, token)
}

//go:wasmexport proxy_on_downstream_connection_close
func closed(id, why uint32) { say(1, "closed %d by %d", id, why) }

//go:wasmexport proxy_on_upstream_connection_close
func upstreamClosed(id, why uint32) { say(1, "upstream of %d closed by %d", id, why) }

//go:wasmexport proxy_on_done
func done(id uint32) uint32 {
	say(1, "done %d", id)
	return 1
}

//go:wasmexport proxy_on_log
func logged(id uint32) { say(1, "log %d", id) }

//go:wasmexport proxy_on_delete
func deleted(id uint32) { say(1, "delete %d", id) }

func pairsOf(parts ...string) string {
	var b bytes.Buffer
	binary.Write(&b, binary.LittleEndian, uint32(len(parts)/2))
	for _, p := range parts {
		binary.Write(&b, binary.LittleEndian, uint32(len(p)))
	}
	for _, p := range parts {
		b.WriteString(p + "\x00")
	}
	return b.String()
}
