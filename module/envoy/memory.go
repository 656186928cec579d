package envoy

import (
	"errors"
	"fmt"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// What a stream holds beside its buffers, in bytes, about.
const (
	exchangeSize = 96  // a request that waits for its answer
	sealingSize  = 256 // a partition of a Produce that waits
	refusedSize  = 192 // a partition whose refusal waits for its turn
	pieceSize    = 32  // records that are handed on from where they are
)

var errClosed = errors.New("the stream was closed")

// room reports whether n more bytes may be held by the worker's streams. One frame at a time
// also takes some memory while it is worked on, which is not counted, nor are spare buffers.
func (w *Worker) room(n int) error {
	if w.memory+n > w.cfg.MaxMemory {
		return fmt.Errorf("all connections of this worker hold %d bytes, %d is the most (hint: fewer or less pipelined clients, or a larger max_memory_bytes): %w",
			w.memory, w.cfg.MaxMemory, kafka.ErrFrame)
	}
	return nil
}

// Memory is how many bytes all streams of the worker hold.
func (w *Worker) Memory() int { return w.memory }

// size is how many bytes the stream holds.
func (s *Stream) size() int {
	n := cap(s.fromClient.buf) + cap(s.fromBroker.buf) + s.toBroker.size() + s.toClient.size() + exchangeSize*cap(s.pending)
	for i := range s.pending {
		n += s.pending[i].size
	}
	if s.waiting != nil {
		n += s.waiting.size + s.waiting.arena.size()
	}
	return n
}

// recount tells the worker what the stream holds now, and its directions what is in use of them
// beyond this call.
func (s *Stream) recount() {
	s.fromClient.pinned = s.waiting != nil || len(s.toBroker.pieces) > 0
	s.fromBroker.pinned = len(s.toClient.pieces) > 0
	n := s.size()
	s.w.memory += n - s.held
	s.held = n
}

// account is recount. The stream that asked for more than there is fails, and no other.
func (s *Stream) account(from string) error {
	if s.err != nil {
		return s.err
	}
	before := s.held
	s.recount()
	if s.held > before {
		if err := s.w.room(0); err != nil {
			return s.fail(&Violation{from, "a frame", 0, err})
		}
	}
	return nil
}

func (s *Stream) release() { s.w.memory, s.held = s.w.memory-s.held, 0 }

// Close ends the stream: it gives back what it held of the worker's memory. It must be called
// when the connection is gone, and may be called again.
func (s *Stream) Close() {
	if s.err == nil {
		s.fail(errClosed)
	}
}
