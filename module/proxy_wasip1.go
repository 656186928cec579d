package main

import (
	"crypto/rand"

	"github.com/wasm-e2ee/wasm-e2ee/module/envoy"
)

// vm is what a Proxy-Wasm host talks to (SPEC.md §8). A host of SPEC.md §3 does not.
var vm = envoy.NewVM(&proxy, rand.Reader, pairingKey)

// The exports of SPEC.md §8.2. A VM's methods recover by themselves.

//go:wasmexport proxy_abi_version_0_2_1
func proxyABIVersion() {}

//go:wasmexport proxy_on_memory_allocate
func proxyOnMemoryAllocate(size uint32) (ptr uint32) {
	defer func() {
		if recover() != nil {
			ptr = 0
		}
	}()
	return proxy.allocate(size)
}

//go:wasmexport proxy_on_vm_start
func proxyOnVMStart(uint32, uint32) uint32 { return 1 }

//go:wasmexport proxy_on_configure
func proxyOnConfigure(root, _ uint32) uint32 {
	if vm.OnConfigure(root) {
		return 1
	}
	return 0
}

//go:wasmexport proxy_on_context_create
func proxyOnContextCreate(id, parent uint32) { vm.OnContextCreate(id, parent) }

//go:wasmexport proxy_on_tick
func proxyOnTick(root uint32) { vm.OnTick(root) }

//go:wasmexport proxy_on_http_call_response
func proxyOnHTTPCallResponse(_, token, headers, _, _ uint32) { vm.OnHTTPCallResponse(token, headers) }

//go:wasmexport proxy_on_new_connection
func proxyOnNewConnection(id uint32) uint32 { return uint32(vm.OnNewConnection(id)) }

//go:wasmexport proxy_on_downstream_data
func proxyOnDownstreamData(id, _, end uint32) uint32 {
	return uint32(vm.OnDownstreamData(id, end != 0))
}

//go:wasmexport proxy_on_upstream_data
func proxyOnUpstreamData(id, _, end uint32) uint32 {
	return uint32(vm.OnUpstreamData(id, end != 0))
}

//go:wasmexport proxy_on_downstream_connection_close
func proxyOnDownstreamConnectionClose(id, _ uint32) { vm.OnClose(id) }

//go:wasmexport proxy_on_upstream_connection_close
func proxyOnUpstreamConnectionClose(uint32, uint32) {}

//go:wasmexport proxy_on_done
func proxyOnDone(uint32) uint32 { return 1 }

//go:wasmexport proxy_on_log
func proxyOnLog(uint32) {}

//go:wasmexport proxy_on_delete
func proxyOnDelete(id uint32) { vm.OnDelete(id) }
