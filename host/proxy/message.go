package proxy

import (
	"encoding/binary"
	"net"

	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// A message is a frame on its way out, and the records in it that are not in its memory, but
// in that of frames which it borrows: of the frame that it was made of, and of what was sealed
// or opened.
type message struct {
	*frame
	apart    []kafka.Piece
	borrowed []*frame
}

// finish writes the length in front, once the rest stands.
func (m *message) finish() {
	binary.BigEndian.PutUint32(m.bytes, uint32(m.size()-lengthSize))
}

// size is that of the whole message in bytes.
func (m *message) size() int {
	n := len(m.bytes)
	for i := range m.apart {
		n += len(m.apart[i].Bytes)
	}
	return n
}

// writeTo writes the message in one go: as a vector where the system takes one, elsewhere (TLS)
// put together, for pieces would become records of their own.
func (m *message) writeTo(conn net.Conn) error {
	if len(m.apart) == 0 {
		_, err := conn.Write(m.bytes)
		return err
	}
	pieces := make([][]byte, 0, 2*len(m.apart)+1)
	at := 0
	for _, p := range m.apart {
		pieces = append(pieces, m.bytes[at:p.At], p.Bytes)
		at = p.At
	}
	pieces = append(pieces, m.bytes[at:])
	if s, ok := conn.(*socket); ok {
		_, err := s.writeAll(pieces)
		return err
	}
	whole := newFrame(m.size())
	defer whole.release()
	whole.bytes = whole.bytes[:0]
	for _, p := range pieces {
		whole.bytes = append(whole.bytes, p...)
	}
	_, err := conn.Write(whole.bytes)
	return err
}

// release gives all of its memory back.
func (m *message) release() {
	m.frame.release()
	for _, f := range m.borrowed {
		f.release()
	}
}
