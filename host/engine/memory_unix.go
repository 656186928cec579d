//go:build unix

package engine

import (
	"context"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// linearMemory backs one instance's memory with a mapping of its own. Growing never moves
// it, so no stale copy of a key is left behind (wazero's default copies to a new array and
// leaves the old one to the garbage collector), the collector's pacing does not see it,
// and it goes back to the kernel at once, wiped.
type linearMemory struct {
	mapping []byte // reserved up to the limit; pages appear when touched
	used    uint64 // bytes, the largest size asked for
}

// withLinearMemory makes the instance that is created under ctx use a linearMemory. unmap
// gives it back, once nothing can touch it any more.
func withLinearMemory(ctx context.Context) (_ context.Context, unmap func()) {
	var memory *linearMemory
	ctx = experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(
		func(_, limit uint64) experimental.LinearMemory {
			memory = allocate(limit)
			return memory
		}))
	return ctx, func() {
		if memory != nil {
			memory.unmap()
		}
	}
}

// allocate reserves limit bytes. Where that fails Reallocate does, and with it the instance.
func allocate(limit uint64) *linearMemory {
	mapping, err := unix.Mmap(-1, 0, int(limit), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return &linearMemory{}
	}
	// Keys live here: leave them out of core dumps where the system can.
	excludeFromDumps(mapping)
	return &linearMemory{mapping: mapping}
}

func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.mapping)) {
		return nil
	}
	m.used = max(m.used, size)
	return m.mapping[:size:len(m.mapping)]
}

// Free wipes. The runtime calls it when the module exits, which a failing guest does in the
// middle of a call: whoever made that call may still hold views, so the mapping stays.
func (m *linearMemory) Free() { clear(m.mapping[:m.used]) }

func (m *linearMemory) unmap() {
	if m.mapping == nil {
		return
	}
	m.Free()
	// Nothing can be done about a mapping that cannot be given back; it is wiped.
	_ = unix.Munmap(m.mapping)
	m.mapping, m.used = nil, 0
}
