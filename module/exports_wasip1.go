package main

import "github.com/wasm-e2ee/wasm-e2ee/abi"

// The exports of SPEC.md §3. Each hands plain values to the instance and turns a panic into
// abi.StatusInternal.

//go:wasmexport e2ee_abi_version
func abiVersion() uint32 { return abi.Version }

//go:wasmexport e2ee_alloc
func alloc(size uint32) (ptr uint32) {
	defer func() {
		if recover() != nil {
			ptr = 0
		}
	}()
	return instance.memory.alloc(size)
}

//go:wasmexport e2ee_free
func free(ptr uint32) {
	defer func() { _ = recover() }()
	instance.memory.free(ptr)
}

//go:wasmexport e2ee_configure
func configure(ptr, size uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.configure(ptr, size))
}

//go:wasmexport e2ee_install_lease
func installLease(ptr, size uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.installLease(ptr, size))
}

//go:wasmexport e2ee_install_root
func installRoot(ptr, size uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.installRoot(ptr, size))
}

//go:wasmexport e2ee_erase
func erase(ptr, size uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.erase(ptr, size))
}

//go:wasmexport e2ee_seal_batch
func sealBatch(buf, size, capacity, topic, topicSize, partition uint32, now uint64, result uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.sealBatch(buf, size, capacity, topic, topicSize, partition, now, result))
}

//go:wasmexport e2ee_open_batch
func openBatch(buf, size, capacity, topic, topicSize, partition uint32, now uint64, result uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.openBatch(buf, size, capacity, topic, topicSize, partition, now, result))
}

//go:wasmexport e2ee_counters
func counters(ptr, size uint32) (status uint32) {
	defer recovered(&status)
	return uint32(instance.counters(ptr, size))
}

func recovered(status *uint32) {
	if recover() != nil {
		*status = uint32(abi.StatusInternal)
	}
}
