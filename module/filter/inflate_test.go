package filter

import (
	"bytes"
	"encoding/binary"
	"io"
	"runtime"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/pierrec/lz4/v4"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"pgregory.net/rapid"
)

func newInflater(t testing.TB, max int) *inflater {
	var x inflater
	if !x.limit(max) {
		t.Fatal("no decoder")
	}
	return &x
}

func TestEachCodecInflatesWhatOthersDeflate(t *testing.T) {
	x := newInflater(t, 16<<20) // above zstd's window of 8 MiB, which a stream over 128 KiB claims
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SliceOfN(rapid.Byte(), 1, 50).Draw(t, "unit")
		plain := bytes.Repeat(unit, rapid.IntRange(0, 5000).Draw(t, "times"))
		plain = append(plain, rapid.SliceOf(rapid.Byte()).Draw(t, "tail")...)
		for name, c := range compressors {
			if c.codec == kafka.CodecNone || len(plain) == 0 {
				continue
			}
			b, err := c.fn(plain)
			if err != nil {
				t.Fatal(err)
			}
			got, s := x.all(c.codec, b, 1<<30)
			if s != abi.StatusOK || !bytes.Equal(got, plain) {
				t.Fatalf("%s of %d bytes: %v", name, len(plain), s)
			}
			for range 3 {
				n := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
				if got, s := x.all(c.codec, b[:n], 1<<30); s == abi.StatusOK && bytes.Equal(got, plain) {
					t.Fatalf("%s: %d of %d bytes were enough", name, n, len(b))
				}
			}
		}
	})
}

func TestTheCapIsExact(t *testing.T) {
	plain := bytes.Repeat([]byte("0123456789"), 10_000)
	for name, c := range compressors {
		if c.codec == kafka.CodecNone {
			continue
		}
		b, err := c.fn(plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, s := newInflater(t, len(plain)).all(c.codec, b, 1<<30); s != abi.StatusOK {
			t.Errorf("%s at the cap: %v", name, s)
		}
		if _, s := newInflater(t, len(plain)-1).all(c.codec, b, 1<<30); s != abi.StatusTooLarge {
			t.Errorf("%s one byte beyond the cap: %v", name, s)
		}
	}
}

// TestBombsAreRefusedInBoundedMemory inflates 64 MiB of zeros under a cap of 1 MiB.
func TestBombsAreRefusedInBoundedMemory(t *testing.T) {
	plain := make([]byte, 64<<20)
	const limit = 1 << 20
	for _, name := range []string{"gzip", "xerial snappy", "snappy", "lz4", "zstd", "zstd, no length"} {
		c := compressors[name]
		b, err := c.fn(plain)
		if err != nil {
			t.Fatal(err)
		}
		x := newInflater(t, limit)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, s := x.all(c.codec, b, 1<<30)
		runtime.ReadMemStats(&after)
		if s != abi.StatusTooLarge {
			t.Errorf("%s: %v", name, s)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 16*limit {
			t.Errorf("%s: %d bytes allocated under a cap of %d", name, grown, limit)
		}
	}
	// A frame that lies about its length.
	lie := binary.AppendUvarint(nil, 1<<32-1)
	if _, s := newInflater(t, limit).all(kafka.CodecSnappy, append(lie, 0, 'a'), 1<<30); s != abi.StatusTooLarge {
		t.Errorf("snappy's length: %v", s)
	}
}

// TestABombCostsNoMoreThanASealedBatchCould has a cap that the bomb stays under.
func TestABombCostsNoMoreThanASealedBatchCould(t *testing.T) {
	for _, name := range []string{"gzip", "snappy", "lz4", "zstd"} {
		b, err := compressors[name].fn(make([]byte, 64<<20))
		if err != nil {
			t.Fatal(err)
		}
		x := newInflater(t, 128<<20)
		if _, s := x.all(compressors[name].codec, b, plausible(len(b), 1)); s != abi.StatusTooLarge {
			t.Errorf("%s: %v", name, s)
		}
		if most := 4 * (plausible(len(b), 1) + 64<<10); cap(x.out) > most {
			t.Errorf("%s: %d bytes held for %d compressed", name, cap(x.out), len(b))
		}
	}
}

func TestABombIsRefusedAsABatch(t *testing.T) {
	f := newFilter(t)
	h := header(1)
	h.Attributes = int16(kafka.CodecZstd)
	b := batch(h, deflate(t, kafka.CodecZstd, make([]byte, 9<<20)))
	if _, _, s := open(f, b, testTopic, 0); s != abi.StatusTooLarge {
		t.Error(s)
	}
}

func TestInflatingStartsNoGoroutine(t *testing.T) {
	x := newInflater(t, 1<<20)
	for name, c := range compressors {
		if c.codec == kafka.CodecNone {
			continue
		}
		b, err := c.fn(bytes.Repeat([]byte("0123456789"), 50_000))
		if err != nil {
			t.Fatal(err)
		}
		before := runtime.NumGoroutine()
		x.all(c.codec, b, 1<<30)
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%s: %d goroutines more", name, n-before)
		}
	}
}

// TestStubBlocksAreLZ4 reads the stubs with another implementation, at each count where
// their size changes or a block ends.
func TestStubBlocksAreLZ4(t *testing.T) {
	var f Filter
	for _, n := range []int32{1, 2, 3, 4, 5, 12, 63, 64, 65, 66, 67, 8191, 8192, 8193, 8194, 15472, 15473, 15474, 15475, 100_000, MaxRecords} {
		var want []byte
		for i := int32(1); i < n; i++ {
			want = appendStub(want, i)
		}
		if len(want) != stubsSize(n) {
			t.Errorf("stubs of %d records: %d bytes, counted %d", n, len(want), stubsSize(n))
		}
		frame := append([]byte(lz4FrameHeader), f.appendStubBlocks(nil, n)...)
		frame = append(frame, 0, 0, 0, 0)
		got, err := io.ReadAll(lz4.NewReader(bytes.NewReader(frame)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("stubs of %d records: %v", n, err)
		}
		if again, err := appendLZ4(nil, frame, len(want)); err != nil || !bytes.Equal(again, want) {
			t.Fatalf("stubs of %d records by our own reader: %v", n, err)
		}
		if n > 1000 && len(frame) > int(n)*41/10 {
			t.Errorf("stubs of %d records take %d bytes", n, len(frame))
		}
	}
}

// TestLargeValuesAreSpreadOverBlocks seals batches around multiples of a block's size.
func TestLargeValuesAreSpreadOverBlocks(t *testing.T) {
	f := newFilter(t)
	for _, size := range []int{100, 65536 - 200, 65536 - 100, 65536, 3*65536 - 150, 200_000} {
		for extra := range 120 {
			if size != 65536-200 && extra > 3 {
				break
			}
			h := header(40)
			h.Attributes = int16(kafka.CodecGzip)
			client := batch(h, bytes.Repeat([]byte{7}, size+extra))
			sealed := seal(t, f, client, 0)
			outerSection(t, sealed)
			if got, _, s := open(f, sealed, testTopic, 0); s != abi.StatusOK || !bytes.Equal(got, client) {
				t.Fatalf("%d bytes: %v", size+extra, s)
			}
		}
	}
}

func FuzzInflate(f *testing.F) {
	for _, c := range compressors {
		b, err := c.fn(bytes.Repeat([]byte("0123456789"), 100))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(c.codec), b)
	}
	const limit = 1 << 16
	x := newInflater(f, limit)
	f.Fuzz(func(t *testing.T, codec uint8, b []byte) {
		got, s := x.all(kafka.Codec(codec), b, 1<<30)
		if len(got) > limit || cap(x.out) > 4*limit {
			t.Fatalf("%d bytes under a cap of %d, %d held", len(got), limit, cap(x.out))
		}
		if s != abi.StatusOK {
			return
		}
		// What is accepted must be what another implementation reads.
		switch kafka.Codec(codec) {
		case kafka.CodecSnappy:
			if bytes.HasPrefix(b, []byte("\x82SNAPPY\x00")) {
				return
			}
			if want, err := s2.Decode(nil, b); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("s2 reads %x as %x, %v", b, want, err)
			}
		case kafka.CodecLZ4:
			want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(b)))
			if err == nil && !bytes.Equal(got, want) {
				t.Fatalf("lz4 reads %x as %x, here %x", b, want, got)
			}
		}
	})
}

// TestWhatIsUnframedIsWhatTheFrameHolds holds the quick way against the decompressor, with every
// byte of a sealed batch's frame flipped and cut, but for those of the sealed value.
func TestWhatIsUnframedIsWhatTheFrameHolds(t *testing.T) {
	f := newFilter(t)
	for _, n := range []int32{1, 12, 63, 64, 65, 300} {
		record := kafka.Record{Value: bytes.Repeat([]byte{0xE2}, 100)}
		first := record.Append(nil)
		frame := []byte(lz4FrameHeader)
		frame = binary.LittleEndian.AppendUint32(frame, uint32(len(first))|lz4Uncompressed)
		frame = f.appendStubBlocks(append(frame, first...), n)
		frame = append(frame, 0, 0, 0, 0)
		if got, ok := f.unframe(frame, n); !ok || !bytes.Equal(got, first) {
			t.Errorf("%d records: %x, %v", n, got, ok)
		}
		for _, other := range []int32{n + 1, n + 64, 1 << 20, 1<<31 - 1} {
			if _, ok := f.unframe(frame, other); ok {
				t.Errorf("a frame of %d records is taken for one of %d", n, other)
			}
		}
		check := func(what string, i int, b []byte) {
			got, ok := f.unframe(b, n)
			if !ok && !bytes.Equal(got, b) {
				t.Errorf("%d records, %s %d: another section", n, what, i)
			}
			if !ok {
				return
			}
			all, err := appendLZ4(nil, b, 1<<30)
			for j := int32(1); j < n; j++ {
				got = appendStub(got[:len(got):len(got)], j)
			}
			if err != nil || !bytes.Equal(all, got) {
				t.Errorf("%d records, %s %d: unframed to %x, which holds %x, %v", n, what, i, got, all, err)
			}
		}
		for i := range frame {
			check("cut at", i, frame[:i])
			for bit := range 8 {
				b := bytes.Clone(frame)
				b[i] ^= 1 << bit
				check("flipped", i, b)
			}
		}
	}
}

func TestOneLargeBatchIsNotKept(t *testing.T) {
	f := newFilter(t)
	sealed := seal(t, f, clientBatch(t, kafka.CodecNone, 1, keepInflated), 0)
	h, err := kafka.ParseBatchHeader(sealed)
	if err != nil {
		t.Fatal(err)
	}
	h.Attributes = int16(compressors["zstd"].codec)
	section, err := compressors["zstd"].fn(outerSection(t, sealed))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, s := open(f, batch(h, section), testTopic, 0); s != abi.StatusOK {
		t.Fatal(s)
	}
	if n := cap(f.inflate.out); n > keepInflated {
		t.Errorf("%d bytes are kept", n)
	}
}
