package main

import (
	"math/bits"
	"slices"
	"unsafe"
)

// Limits of what a host can hold at once.
const (
	maxBuffer  = 1 << 28 // bytes
	maxBuffers = 1024
)

// Freed buffers of the classes between these, powers of two, are kept for the next of their
// size, so that a steady state does not grow linear memory. Larger ones go to the collector.
const (
	minClass = 6
	maxClass = 20
)

// A memory hands out buffers and finds them again.
type memory struct {
	live  []buffer
	freed [maxClass + 1][][]byte // by log2 of the capacity
}

type buffer struct {
	at    uint32
	bytes []byte // at the length asked for
}

// alloc returns the address of a new buffer of zeros, or 0 where size is 0 or beyond the
// limits. Go's collector does not move it.
func (m *memory) alloc(size uint32) uint32 {
	if size == 0 || size > maxBuffer || len(m.live) == maxBuffers {
		return 0
	}
	var b []byte
	class := max(minClass, bits.Len32(size-1))
	switch {
	case class > maxClass:
		b = make([]byte, size)
	case len(m.freed[class]) > 0:
		last := len(m.freed[class]) - 1
		b = m.freed[class][last][:size]
		m.freed[class] = m.freed[class][:last]
	default:
		b = make([]byte, size, 1<<class)
	}
	at := uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	m.live = append(m.live, buffer{at, b})
	return at
}

// free overwrites the buffer that alloc returned with zeros and takes it back. Another
// address changes nothing.
func (m *memory) free(at uint32) {
	i := slices.IndexFunc(m.live, func(b buffer) bool { return b.at == at })
	if i < 0 {
		return
	}
	b := m.live[i].bytes
	clear(b)
	if class := max(minClass, bits.Len32(uint32(len(b)-1))); class <= maxClass {
		m.freed[class] = append(m.freed[class], b)
	}
	m.live = slices.Delete(m.live, i, i+1)
}

// bytes returns the size bytes at an address, which must lie within one live buffer. No
// bytes are found anywhere.
func (m *memory) bytes(at, size uint32) ([]byte, bool) {
	if size == 0 {
		return nil, true
	}
	for _, b := range m.live {
		if from := at - b.at; at >= b.at && uint64(from)+uint64(size) <= uint64(len(b.bytes)) {
			return b.bytes[from : from+size : from+size], true
		}
	}
	return nil, false
}
