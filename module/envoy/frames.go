package envoy

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// lengthSize is the size in bytes of the number before each frame.
const lengthSize = 4

// keptMemory in bytes is what an idle direction of a stream may keep of its largest frame.
const keptMemory = 64 << 10

// frames puts one direction's bytes together to frames. A frame's memory is allocated as its
// bytes arrive: a length alone costs its sender nothing.
type frames struct {
	spares *spares
	buf    []byte
	start  int  // of what was not taken yet
	max    int  // bytes of one frame
	pinned bool // the first frame is in use: where it is stays as it is
}

// Room returns memory for size bytes behind those that wait, or nil where more would wait than
// two frames of the largest size. What is then written there is taken over by feed without
// copying it. Frames that next returned and that were taken are overwritten, unless pinned.
func (f *frames) Room(size int) []byte {
	need := f.waiting() + size
	if need > 2*f.max {
		return nil
	}
	switch {
	case cap(f.buf)-len(f.buf) >= size:
	case need <= cap(f.buf) && !f.pinned:
		f.buf, f.start = f.buf[:copy(f.buf, f.buf[f.start:])], 0
	default:
		grown := 2 * cap(f.buf)
		if claimed := f.claimed(); claimed >= need {
			grown = min(grown, claimed)
		}
		f.move(max(need, grown))
	}
	return f.buf[len(f.buf) : len(f.buf)+size]
}

// move puts what waits into a buffer for size bytes.
func (f *frames) move(size int) {
	before := f.buf
	f.buf, f.start = append(f.spares.take(size), before[f.start:]...), 0
	if !f.pinned {
		f.spares.give(before)
	}
}

// feed takes bytes over, in the order in which they came: a copy of them, unless they are where
// Room said. It fails where more waits than two frames of the largest size.
func (f *frames) feed(b []byte) error {
	room := f.Room(len(b))
	if room == nil && len(b) > 0 {
		return fmt.Errorf("more than %d bytes wait: %w", 2*f.max, kafka.ErrFrame)
	}
	if unsafe.SliceData(room) != unsafe.SliceData(b) {
		copy(room, b)
	}
	f.buf = f.buf[:len(f.buf)+len(b)]
	return nil
}

// settle gives memory back that what waits does not need. No frame may be in use that was
// taken.
func (f *frames) settle() {
	switch claimed := f.claimed(); {
	case f.pinned:
	case f.waiting() == 0 && cap(f.buf) > keptMemory:
		f.spares.give(f.buf)
		f.buf, f.start = nil, 0
	case f.waiting() == 0:
		f.buf, f.start = f.buf[:0], 0
	case cap(f.buf) > keptMemory && max(f.waiting(), claimed) < cap(f.buf)/4:
		f.move(max(f.waiting(), min(claimed, keptMemory)))
	}
}

// claimed is the size of the frame that comes next, with its length, as far as that is there.
func (f *frames) claimed() int {
	if f.waiting() < lengthSize {
		return 0
	}
	return lengthSize + int(max(0, int32(binary.BigEndian.Uint32(f.buf[f.start:]))))
}

// next returns the first frame without its length, or nil where it is not whole yet.
func (f *frames) next() ([]byte, error) {
	b := f.buf[f.start:]
	if len(b) < lengthSize {
		return nil, nil
	}
	size := int32(binary.BigEndian.Uint32(b))
	switch {
	case (b[0] == 22 || b[0] == 21) && b[1] == 3 && b[2] <= 4: // TLS handshake or alert
		return nil, fmt.Errorf("looks like TLS (hint: let Envoy end TLS before this filter): %w", kafka.ErrFrame)
	case size <= 0 || int(size) > f.max:
		return nil, fmt.Errorf("frame of %d bytes, from 1 to %d are taken: %w", size, f.max, kafka.ErrFrame)
	case len(b)-lengthSize < int(size):
		return nil, nil
	}
	return b[lengthSize:][:size:size], nil
}

// take removes the frame that next returned.
func (f *frames) take(frame []byte) { f.start += lengthSize + len(frame) }

// waiting is how many bytes were fed and not taken.
func (f *frames) waiting() int { return len(f.buf) - f.start }
