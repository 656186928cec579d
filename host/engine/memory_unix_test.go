//go:build unix

package engine

import (
	"testing"

	"github.com/tetratelabs/wazero/experimental"
)

func TestLinearMemoryDoesNotMoveAsItGrows(t *testing.T) {
	allocator := allocate(1 << 20)
	defer allocator.unmap()
	small := allocator.Reallocate(64 << 10)
	small[7] = 42
	large := allocator.Reallocate(1 << 20)
	if &small[0] != &large[0] || large[7] != 42 {
		t.Error("memory moved")
	}
	if allocator.Reallocate(1<<20+1) != nil {
		t.Error("memory grew past its limit")
	}
}

var _ experimental.LinearMemory = (*linearMemory)(nil)
