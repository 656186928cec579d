package envoy

import (
	"encoding/binary"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// lengthSize is the size in bytes of the number before each frame.
const lengthSize = 4

// keptMemory in bytes is what an idle direction of a stream may keep of its largest frame.
const keptMemory = 64 << 10

// frames puts one direction's bytes together to frames. A frame's memory is allocated as its
// bytes arrive: a length alone costs its sender nothing.
type frames struct {
	buf   []byte
	start int // of what was not taken yet
	max   int // bytes of one frame
}

// feed takes bytes over, in the order in which they came. What next returned last is valid
// until it was taken; afterwards its memory is used again, unless it is pinned. It fails where
// more waits than two frames of the largest size.
func (f *frames) feed(b []byte, pinned bool) error {
	need := len(f.buf) - f.start + len(b)
	if need > 2*f.max {
		return fmt.Errorf("more than %d bytes wait: %w", 2*f.max, kafka.ErrFrame)
	}
	large := cap(f.buf) > keptMemory && need < cap(f.buf)/4 // for what it holds
	switch {
	case f.start == 0 && !large:
	case f.start == len(f.buf) && large:
		f.buf, f.start = nil, 0
	case pinned || large:
		f.buf, f.start = append(make([]byte, 0, need), f.buf[f.start:]...), 0
	default:
		f.buf, f.start = f.buf[:copy(f.buf, f.buf[f.start:])], 0
	}
	f.buf = append(f.buf, b...)
	return nil
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

// appendFrame appends what write appends to b as one frame, with its length in front.
func appendFrame(b []byte, write func(b []byte) []byte) []byte {
	at := len(b)
	b = write(append(b, make([]byte, lengthSize)...))
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-lengthSize))
	return b
}
