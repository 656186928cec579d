package proxywasm

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// WASI's numbers for errors.
const (
	wasiOK     = 0
	wasiBadf   = 8
	wasiFault  = 21
	wasiInval  = 28
	wasiNoSys  = 52
	wasiNotSup = 58
)

// maxRandom is what one call of random_get may ask for, in bytes.
const maxRandom = 64 << 10

// start is what the monotonic clock counts from.
var start = time.Now()

// wasiFunctions are the functions of WASI that Envoy 1.40.0 links into a Go module, each with
// what it does there.
var wasiFunctions = map[string]function{
	"sched_yield":         {nil, func(*vm, []uint64) status { return wasiOK }},
	"args_get":            {i32s(2), func(*vm, []uint64) status { return wasiOK }},
	"args_sizes_get":      {i32s(2), func(v *vm, s []uint64) status { return v.zeros(u(s[0]), u(s[1])) }},
	"environ_get":         {i32s(2), (*vm).environGet},
	"environ_sizes_get":   {i32s(2), (*vm).environSizesGet},
	"clock_time_get":      {[]api.ValueType{i32, i64, i32}, (*vm).clockTimeGet},
	"fd_write":            {i32s(4), (*vm).fdWrite},
	"fd_read":             {i32s(4), func(*vm, []uint64) status { return wasiNoSys }},
	"fd_close":            {i32s(1), func(*vm, []uint64) status { return wasiOK }},
	"fd_fdstat_get":       {i32s(2), (*vm).fdStatGet},
	"fd_fdstat_set_flags": {i32s(2), func(*vm, []uint64) status { return wasiNoSys }},
	"fd_prestat_get":      {i32s(2), func(*vm, []uint64) status { return wasiBadf }},
	"fd_prestat_dir_name": {i32s(3), func(*vm, []uint64) status { return wasiNoSys }},
	"random_get":          {i32s(2), (*vm).randomGet},
	"poll_oneoff":         {i32s(4), func(v *vm, s []uint64) status { return v.zeros(u(s[3])) }}, // nothing is waited for
	"proc_exit":           {i32s(1), nil},                                                        // returns, so that a Go program runs into its trap
}

func (v *vm) zeros(at ...uint32) status {
	for _, a := range at {
		if !v.memory.WriteUint32Le(a, 0) {
			return wasiFault
		}
	}
	return wasiOK
}

func (v *vm) environGet(s []uint64) status {
	at, text := u(s[0]), u(s[1])
	for name, value := range v.p.opts.Environment {
		entry := name + "=" + value + "\x00"
		if !v.memory.WriteUint32Le(at, text) || !v.memory.WriteString(text, entry) {
			return wasiFault
		}
		at, text = at+4, text+uint32(len(entry))
	}
	return wasiOK
}

func (v *vm) environSizesGet(s []uint64) status {
	size := 0
	for name, value := range v.p.opts.Environment {
		size += len(name) + len(value) + 2
	}
	if !v.memory.WriteUint32Le(u(s[0]), uint32(len(v.p.opts.Environment))) || !v.memory.WriteUint32Le(u(s[1]), uint32(size)) {
		return wasiFault
	}
	return wasiOK
}

func (v *vm) clockTimeGet(s []uint64) status {
	var ns int64
	switch u(s[0]) {
	case 0:
		ns = v.p.now().UnixNano()
	case 1:
		ns = int64(time.Since(start))
	default:
		return wasiNotSup
	}
	if !v.memory.WriteUint64Le(u(s[2]), uint64(ns)) {
		return wasiFault
	}
	return wasiOK
}

// fdWrite logs: standard output at info, standard error at error.
func (v *vm) fdWrite(s []uint64) status {
	level := LevelInfo
	switch u(s[0]) {
	case 1:
	case 2:
		level = LevelError
	default:
		return wasiBadf
	}
	var text []byte
	for i := range u(s[2]) {
		at, ok1 := v.memory.ReadUint32Le(u(s[1]) + 8*i)
		size, ok2 := v.memory.ReadUint32Le(u(s[1]) + 8*i + 4)
		b, ok3 := v.memory.Read(at, size)
		if !ok1 || !ok2 || !ok3 {
			return wasiFault
		}
		text = append(text, b...)
	}
	if len(text) > 0 {
		v.p.log.add(level, strings.TrimSuffix(string(text), "\n"))
	}
	if !v.memory.WriteUint32Le(u(s[3]), uint32(len(text))) {
		return wasiFault
	}
	return wasiOK
}

func (v *vm) fdStatGet(s []uint64) status {
	if fd := u(s[0]); fd != 1 && fd != 2 {
		return wasiBadf
	}
	var stat [24]byte
	stat[8] = 64 // fd_write is all that is allowed
	if !v.memory.Write(u(s[1]), stat[:]) {
		return wasiFault
	}
	return wasiOK
}

func (v *vm) randomGet(s []uint64) status {
	if u(s[1]) > maxRandom {
		return wasiInval
	}
	b, found := v.memory.Read(u(s[0]), u(s[1]))
	if !found {
		return wasiFault
	}
	rand.Read(b)
	return wasiOK
}
