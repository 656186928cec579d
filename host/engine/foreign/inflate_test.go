package foreign

import (
	"bytes"
	"compress/gzip"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

func deflated(t testing.TB, codec kafka.Codec, plain []byte) []byte {
	switch codec {
	case kafka.CodecSnappy:
		return snappy.Encode(nil, plain)
	case kafka.CodecZstd:
		w, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		return w.EncodeAll(plain, nil)
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(plain)
	w.Close()
	return b.Bytes()
}

func TestBrokersCodecsAreDecompressedWithinTheirRoom(t *testing.T) {
	plain := bytes.Repeat([]byte("records "), 100)
	w := new(worker)
	inflate := func(codec kafka.Codec, packed []byte, room int) (memory, before []byte, s abi.SpanStatus, made uint32) {
		memory = newMemory()
		copy(memory[1000:], packed)
		before = bytes.Clone(memory)
		block := abi.AppendSpans(memory[:0], []abi.SpanOp{{Kind: abi.SpanInflate, Codec: uint8(codec),
			Data: abi.Span{At: 1000, Size: uint32(len(packed))}, Out: abi.Span{At: 2000, Size: uint32(room)}}})
		if s := w.run(memory, abi.Span{Size: uint32(len(block))}); s != plugin.StatusOK {
			t.Fatalf("%v: %d", codec, s)
		}
		s, made = abi.SpanStatusOf(memory, 0)
		return memory, before, s, made
	}
	for _, codec := range []kafka.Codec{kafka.CodecGzip, kafka.CodecSnappy, kafka.CodecZstd} {
		packed := deflated(t, codec, plain)
		for _, room := range []int{0, 1, len(plain) - 1, len(plain), len(plain) + 1, 2000} {
			memory, before, s, made := inflate(codec, packed, room)
			if room < len(plain) && s != abi.SpanTooLarge {
				t.Errorf("%v in %d bytes: %d", codec, room, s)
			}
			if room >= len(plain) && (s != abi.SpanDone || !bytes.Equal(memory[2000:2000+made], plain)) {
				t.Errorf("%v in %d bytes: %d, %d bytes", codec, room, s, made)
			}
			if !bytes.Equal(memory[2000+room:], before[2000+room:]) {
				t.Errorf("%v in %d bytes: wrote beyond", codec, room)
			}
		}
		for n := range packed {
			if _, _, s, made := inflate(codec, packed[:n], 2000); s == abi.SpanDone && made > 0 {
				t.Errorf("%v: %d of %d bytes decompress", codec, n, len(packed))
			}
		}
	}
}
