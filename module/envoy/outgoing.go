package envoy

import (
	"encoding/binary"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// An outgoing is what one side is to receive. Records stay where they are, in the frame that they
// came in or in the arena: they are handed to the host from there.
type outgoing struct {
	bytes  []byte // everything else, in a spare buffer
	pieces []kafka.Piece
	arena  arena
}

// An appender is a body.
type appender interface{ Append(b []byte) []byte }

// An apart is a body that may carry long records.
type apart interface {
	AppendApart(b []byte, pieces []kafka.Piece) ([]byte, []kafka.Piece)
}

// frame appends what write appends as one frame, with its length in front.
func (o *outgoing) frame(write func(o *outgoing)) {
	if o.bytes == nil {
		o.bytes = o.arena.spares.take(minOutgoing)
	}
	at, before := len(o.bytes), len(o.pieces)
	o.bytes = append(o.bytes, make([]byte, lengthSize)...)
	write(o)
	size := len(o.bytes) - at - lengthSize
	for _, p := range o.pieces[before:] {
		size += len(p.Bytes)
	}
	binary.BigEndian.PutUint32(o.bytes[at:], uint32(size))
}

// minOutgoing in bytes is enough for most frames without their records.
const minOutgoing = 1 << 10

// raw appends b, which stays as it is until everything was given.
func (o *outgoing) raw(b []byte) {
	if len(b) >= kafka.MinPiece {
		o.pieces = append(o.pieces, kafka.Piece{At: len(o.bytes), Bytes: b})
		return
	}
	o.bytes = append(o.bytes, b...)
}

func (o *outgoing) body(a appender) {
	if a, ok := a.(apart); ok {
		o.bytes, o.pieces = a.AppendApart(o.bytes, o.pieces)
		return
	}
	o.bytes = a.Append(o.bytes)
}

// give hands everything to a function, part by part until that returns false, and forgets it.
func (o *outgoing) give(to func(part []byte) bool) bool {
	ok, at := true, 0
	for _, p := range o.pieces {
		ok = ok && (p.At == at || to(o.bytes[at:p.At])) && to(p.Bytes)
		at = p.At
	}
	ok = ok && (len(o.bytes) == at || to(o.bytes[at:]))
	o.arena.spares.give(o.bytes)
	clear(o.pieces)
	o.bytes, o.pieces = nil, o.pieces[:0]
	o.arena.release()
	return ok
}

func (o *outgoing) empty() bool { return len(o.bytes) == 0 && len(o.pieces) == 0 }

// size is how many bytes it holds, beside the frames that it points into.
func (o *outgoing) size() int { return cap(o.bytes) + o.arena.size() + pieceSize*cap(o.pieces) }
