//go:build wasip1

// Command copy is a module for Envoy that takes every byte out of Envoy's buffers into its own
// memory and puts it back, and does nothing else: what being in Wasm costs by itself.
package main

import (
	"math"
	"unsafe"
)

//go:wasmimport env proxy_get_buffer_bytes
func getBufferBytes(buffer, start, size uint32, ptr, length *uint32) uint32

//go:wasmimport env proxy_set_buffer_bytes
func setBufferBytes(buffer, start, size uint32, ptr, length uint32) uint32

// Proxy-Wasm's numbers of a connection's buffers.
const (
	downstream = 2
	upstream   = 3
)

// kept holds what the host wrote last; it grows to the largest piece and stays.
var (
	kept        []byte
	ptr, length uint32 // the host writes them, and calls proxy_on_memory_allocate meanwhile
)

func main() {}

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) uint32 {
	if uint32(cap(kept)) < size {
		kept = make([]byte, size)
	}
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(kept))))
}

//go:wasmexport proxy_on_vm_start
func onVMStart(uint32, uint32) uint32 { return 1 }

//go:wasmexport proxy_on_configure
func onConfigure(uint32, uint32) uint32 { return 1 }

//go:wasmexport proxy_on_context_create
func onContextCreate(uint32, uint32) {}

//go:wasmexport proxy_on_downstream_data
func onDownstreamData(_, size, _ uint32) uint32 { return through(downstream, size) }

//go:wasmexport proxy_on_upstream_data
func onUpstreamData(_, size, _ uint32) uint32 { return through(upstream, size) }

// through returns 0, to continue.
func through(buffer, size uint32) uint32 {
	if size == 0 {
		return 0
	}
	if getBufferBytes(buffer, 0, math.MaxInt32, &ptr, &length) != 0 || setBufferBytes(buffer, 0, math.MaxInt32, ptr, length) != 0 {
		panic("the host refused")
	}
	return 0
}
