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
// and Free wipes it and gives it back to the kernel at once.
type linearMemory struct {
	mapping []byte // reserved up to the limit; pages appear when touched
	used    uint64 // bytes, the largest size asked for
}

// withLinearMemory makes instances that are created under ctx use linearMemory.
func withLinearMemory(ctx context.Context) context.Context {
	return experimental.WithMemoryAllocator(ctx, experimental.MemoryAllocatorFunc(
		func(_, limit uint64) experimental.LinearMemory {
			mapping, err := unix.Mmap(-1, 0, int(limit), unix.PROT_READ|unix.PROT_WRITE,
				unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
			if err != nil {
				return &linearMemory{} // Reallocate then fails, and with it the instance
			}
			// Keys live here: leave them out of core dumps where the system can.
			excludeFromDumps(mapping)
			return &linearMemory{mapping: mapping}
		}))
}

func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > uint64(len(m.mapping)) {
		return nil
	}
	m.used = max(m.used, size)
	return m.mapping[:size:len(m.mapping)]
}

func (m *linearMemory) Free() {
	if m.mapping == nil {
		return
	}
	clear(m.mapping[:m.used])
	// Nothing can be done about a mapping that cannot be given back; it is wiped.
	_ = unix.Munmap(m.mapping)
	m.mapping = nil
}
