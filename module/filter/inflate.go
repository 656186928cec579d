package filter

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/module/kernel"
)

// An inflater decompresses what a broker compressed (a topic's compression.type), within a
// cap. Its buffer is reused: what all returns is valid until the next call. It starts no
// goroutine.
type inflater struct {
	max  int // bytes
	out  []byte
	src  bytes.Reader
	gzip gzip.Reader
	zstd *zstd.Decoder
}

// errTooLarge says that a decompressed section would exceed the cap.
var errTooLarge = errors.New("decompressed section exceeds the cap")

// errCompressed says that bytes are not what their codec makes.
var errCompressed = errors.New("malformed compressed section")

// limit sets the cap in bytes on one decompressed section. A zstd frame without its length
// may not claim a larger window either: 128 MiB covers every level of Kafka's.
func (x *inflater) limit(max int) bool {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(uint64(max)), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return false
	}
	if x.zstd != nil {
		x.zstd.Close()
	}
	x.max, x.zstd = max, d
	return true
}

// keepInflated is the most in bytes that is kept for the next batch.
const keepInflated = 4 << 20

// shrink gives back a buffer that one large batch needed.
func (x *inflater) shrink() {
	if cap(x.out) > keepInflated {
		x.out = nil
	}
}

// plausible is what a sealed section of n records can inflate to at most, in bytes, where a
// broker made size bytes of it: no codec shrinks ciphertext, and the stubs are small. A bomb
// costs no more memory than that.
func plausible(size int, n int32) int { return 2*size + 16*int(n) + 1024 }

// all decompresses all of b. It answers abi.StatusTooLarge beyond most bytes or the cap, and
// never holds much more than that; abi.StatusMalformed where b is not what the codec makes.
func (x *inflater) all(codec kafka.Codec, b []byte, most int) ([]byte, abi.Status) {
	most = min(most, x.max)
	if codec != kafka.CodecLZ4 && x.native(codec, b, most) {
		return x.out, abi.StatusOK
	}
	var err error
	switch codec {
	case kafka.CodecGzip:
		err = x.gunzip(b, most)
	case kafka.CodecSnappy:
		x.out, err = appendSnappy(x.out[:0], b, most)
	case kafka.CodecLZ4:
		x.out, err = appendLZ4(x.out[:0], b, most)
	case kafka.CodecZstd:
		// The decoder writes up to the capacity, and never allocates more.
		x.out = slices.Grow(x.out[:0], most)
		x.out, err = x.zstd.DecodeAll(b, x.out[:0:most])
	default:
		return nil, abi.StatusUnsupportedCodec
	}
	switch {
	case err == nil && len(x.out) <= most:
		return x.out, abi.StatusOK
	case err == nil, errors.Is(err, errTooLarge),
		errors.Is(err, zstd.ErrDecoderSizeExceeded), errors.Is(err, zstd.ErrWindowSizeExceeded):
		return nil, abi.StatusTooLarge
	}
	return nil, abi.StatusMalformed
}

// native has the host decompress b, if it can. What it refuses is decompressed once more here,
// so that what is said about it is the same everywhere. Not LZ4: it frames nearly every sealed
// batch, and most of such a frame is stored as it is, which is copied here as fast.
func (x *inflater) native(codec kafka.Codec, b []byte, most int) bool {
	if !kernel.Native() || codec == kafka.CodecNone {
		return false
	}
	x.out = slices.Grow(x.out[:0], most)
	n, ok := kernel.Inflate(uint8(codec), b, x.out[:most])
	x.out = x.out[:n]
	return ok
}

func (x *inflater) gunzip(b []byte, most int) error {
	x.out = x.out[:0]
	x.src.Reset(b)
	if err := x.gzip.Reset(&x.src); err != nil {
		return err
	}
	for {
		if len(x.out) > most {
			return errTooLarge
		}
		if len(x.out) == cap(x.out) {
			x.out = append(x.out, 0)[:len(x.out)]
		}
		n, err := x.gzip.Read(x.out[len(x.out):min(cap(x.out), most+1)])
		x.out = x.out[:len(x.out)+n]
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
