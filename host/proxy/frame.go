package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"
)

// lengthSize is the size in bytes of the number before each frame.
const lengthSize = 4

// A frame is one request or response, with its length in front. Its memory is borrowed from
// a pool until release; nothing that aliases it may be used after that.
type frame struct {
	bytes []byte // length, then body
}

// body is the frame without its length.
func (f *frame) body() []byte { return f.bytes[lengthSize:] }

// Frames of 4 KiB to 16 MiB come from one pool for each power of two, which the garbage
// collector empties of what a burst has left. Larger ones are left to it at once.
const (
	minClass = 12
	maxClass = 24
)

var pools [maxClass + 1]sync.Pool

// newFrame returns a frame with an empty body and room for size bytes of it.
func newFrame(size int) *frame {
	size += lengthSize
	class := max(minClass, bits.Len(uint(size-1)))
	if class > maxClass {
		return &frame{bytes: make([]byte, lengthSize, size)}
	}
	if f, ok := pools[class].Get().(*frame); ok {
		f.bytes = f.bytes[:lengthSize]
		return f
	}
	return &frame{bytes: make([]byte, lengthSize, 1<<class)}
}

// release gives the memory back.
func (f *frame) release() {
	class := bits.Len(uint(cap(f.bytes))) - 1
	if class < minClass || class > maxClass {
		return
	}
	pools[class].Put(f)
}

// firstRead is how much of a large frame is allocated before any of it has arrived: a
// length alone costs its sender nothing. Who sent larger frames has as much as the largest
// took, up to maxFirstRead, so that the next one is read where it stays.
const (
	firstRead    = 64 << 10
	maxFirstRead = 1 << 20
)

// growth is how many times what has arrived is allocated for what follows.
const growth = 4

// A lengthError says that the bytes where a frame's length belongs are none that Kafka
// would send.
type lengthError string

func (e lengthError) Error() string { return string(e) }

// What those bytes tell of a peer that speaks something else.
const (
	errTLS  = lengthError("looks like TLS (hint: one side is set to TLS and the other is not)")
	errHTTP = lengthError("looks like HTTP (hint: only Kafka is spoken here)")
)

// A frameReader reads the frames that one peer sends.
type frameReader struct {
	in      io.Reader
	max     int // bytes of a frame without its length
	largest int // bytes of the largest so far
}

// next reads one frame of 1 to r.max bytes. Its error is io.EOF where the stream ends
// between frames, and io.ErrUnexpectedEOF inside one.
func (r *frameReader) next() (*frame, error) {
	var head [lengthSize]byte
	if _, err := io.ReadFull(r.in, head[:]); err != nil {
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head[:]))
	if err := checkLength(head, size, r.max); err != nil {
		return nil, err
	}
	f := newFrame(min(int(size), max(firstRead, min(r.largest, maxFirstRead))))
	f.bytes = append(f.bytes[:0], head[:]...)
	for want := lengthSize + int(size); len(f.bytes) < want; {
		have := len(f.bytes)
		if have == cap(f.bytes) {
			grown := newFrame(min(int(size), growth*have))
			grown.bytes = append(grown.bytes[:0], f.bytes...)
			f.release()
			f = grown
		}
		f.bytes = f.bytes[:min(want, cap(f.bytes))]
		if _, err := io.ReadFull(r.in, f.bytes[have:]); err != nil {
			f.release()
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	r.largest = max(r.largest, int(size))
	return f, nil
}

func checkLength(head [lengthSize]byte, size int32, maxSize int) error {
	switch {
	case (head[0] == 22 || head[0] == 21) && head[1] == 3 && head[2] <= 4: // TLS handshake or alert
		return errTLS
	case isHTTP(string(head[:])):
		return errHTTP
	case size < 0:
		return lengthError(fmt.Sprintf("negative frame length %d", size))
	case size == 0:
		return lengthError("empty frame")
	case int(size) > maxSize:
		return lengthError(fmt.Sprintf("frame of %d bytes is over the limit of %d", size, maxSize))
	}
	return nil
}

func isHTTP(head string) bool {
	switch head {
	case "GET ", "POST", "PUT ", "HEAD", "OPTI", "PRI ", "CONN", "DELE", "PATC", "HTTP":
		return true
	}
	return false
}
