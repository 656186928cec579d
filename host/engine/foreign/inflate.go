package foreign

import (
	"bytes"
	"errors"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// An inflater decompresses into memory that it is given. It is not told how much it may hold
// beside that: a decoder's window is bounded by maxWindow.
type inflater struct {
	src  bytes.Reader
	gzip gzip.Reader
	more [1]byte
	zstd *zstd.Decoder
}

// maxWindow is the largest window in bytes that a zstd frame may ask for: every level of
// Kafka's is below it.
const maxWindow = 128 << 20

// all decompresses b into out, and returns how much that made.
func (x *inflater) all(codec uint8, b, out []byte) (abi.SpanStatus, uint32) {
	var n int
	var err error
	switch kafka.Codec(codec) {
	case kafka.CodecGzip:
		n, err = x.gunzip(b, out)
	case kafka.CodecSnappy:
		n, err = unsnappy(b, out)
	case kafka.CodecZstd:
		n, err = x.unzstd(b, out)
	}
	switch {
	case err == nil:
		return abi.SpanDone, uint32(n)
	case errors.Is(err, errTooLarge):
		return abi.SpanTooLarge, 0
	}
	return abi.SpanRefused, 0
}

var errTooLarge = errors.New("decompressed section exceeds its room")

func (x *inflater) gunzip(b, out []byte) (int, error) {
	x.src.Reset(b)
	defer x.src.Reset(nil)
	if err := x.gzip.Reset(&x.src); err != nil {
		return 0, err
	}
	for n := 0; ; {
		room := out[n:]
		if len(room) == 0 {
			room = x.more[:] // only the stream's end fits
		}
		m, err := x.gzip.Read(room)
		if n += m; n > len(out) {
			return 0, errTooLarge
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

func unsnappy(b, out []byte) (n int, err error) {
	err = kafka.EachSnappyBlock(b, func(block []byte) error {
		size, err := snappy.DecodedLen(block)
		if err != nil {
			return err
		}
		if size > len(out)-n {
			return errTooLarge
		}
		_, err = snappy.DecodeStrict(out[n:n+size:n+size], block)
		n += size
		return err
	})
	return n, err
}

func (x *inflater) unzstd(b, out []byte) (int, error) {
	if x.zstd == nil {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return 0, err
		}
		x.zstd = d
	}
	made, err := x.zstd.DecodeAll(b, out[:0:len(out)])
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = errTooLarge
	}
	return len(made), err
}
