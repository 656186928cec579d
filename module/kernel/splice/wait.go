package splice

import "github.com/wasm-e2ee/wasm-e2ee/module/kernel/simd"

// wasi is the module that WASI's functions are imported from.
const wasi = "wasi_snapshot_preview1"

// noWait is WASI's poll_oneoff for a module in which nothing ever waits: it says at once that
// nothing has happened. Go's runtime asks when a collection ends, and throws where a host has
// the function in name only, as Envoy 1.37 does.
//
//	poll_oneoff (in, out, n, events i32) (errno i32)
var noWait = simd.Function{
	Name:    "poll_oneoff",
	Params:  []byte{i32Type, i32Type, i32Type, i32Type},
	Results: []byte{i32Type},
	Body: []byte{
		0,       // no locals
		0x20, 3, // local.get events
		0x41, 0, // i32.const 0
		0x36, 2, 0, // i32.store
		0x41, 0, 0x0b, // i32.const 0 (success), end
	},
}

const i32Type = 0x7f
