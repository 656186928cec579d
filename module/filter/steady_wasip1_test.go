//go:build simd

package filter

// aeadAllocations is what sealing and opening a batch may allocate with the kernel in SIMD.
const aeadAllocations = 0
