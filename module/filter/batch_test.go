package filter

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

const (
	testTopic = "orders"
	testNow   = 1_700_000_000_000
)

var (
	testKid  = abi.Kid{1, 2, 3, 4, 5, 6, 7, 8}
	testRoot = [abi.KeySize]byte{9, 8, 7}
)

// newFilter returns a filter that can seal and open testTopic.
func newFilter(t testing.TB, rules ...abi.Rule) *Filter {
	t.Helper()
	f := New(rand.Reader)
	if s := f.Configure(abi.Config{MaxDecompressed: 8 << 20, Rules: rules}); s != abi.StatusOK {
		t.Fatal(s)
	}
	install(t, f, testTopic, testKid, testRoot)
	return f
}

func install(t testing.TB, f *Filter, topic string, kid abi.Kid, root [abi.KeySize]byte) {
	t.Helper()
	if s := f.InstallLease(&abi.Lease{Kid: kid, UseBy: testNow + 1000, Node: root, Topic: topic}); s != abi.StatusOK {
		t.Fatal(s)
	}
	if s := f.InstallRoot(&abi.Root{Kid: kid, Root: root, Topic: topic}); s != abi.StatusOK {
		t.Fatal(s)
	}
}

// header is the header of a batch that a client produces: count records from testNow on.
func header(count int) kafka.BatchHeader {
	return kafka.BatchHeader{
		BaseOffset: 41, PartitionLeaderEpoch: 7, Magic: 2, LastOffsetDelta: int32(count - 1),
		BaseTimestamp: testNow, MaxTimestamp: testNow + int64(count-1),
		ProducerID: 4711, ProducerEpoch: 3, BaseSequence: 100, NumRecords: int32(count),
	}
}

// section is a record section of count records with values of size bytes.
func section(count, size int) []byte {
	var b []byte
	for i := range count {
		r := kafka.Record{
			TimestampDelta: int64(i), OffsetDelta: int32(i), Key: fmt.Appendf(nil, "key %d", i),
			Value: bytes.Repeat([]byte{byte('a' + i%26)}, size), NumHeaders: 1, Headers: kafka.AppendHeader(nil, "h", nil),
		}
		b = r.Append(b)
	}
	return b
}

// batch joins a header and a record section, and sets length and CRC.
func batch(h kafka.BatchHeader, section []byte) []byte {
	b := make([]byte, kafka.BatchHeaderSize, kafka.BatchHeaderSize+len(section))
	h.BatchLength = int32(kafka.BatchHeaderSize - kafka.BatchLengthEnd + len(section))
	h.Put(b)
	b = append(b, section...)
	kafka.SetBatchCRC(b)
	return b
}

// clientBatch is a sound batch of count records under codec.
func clientBatch(t testing.TB, codec kafka.Codec, count, size int) []byte {
	h := header(count)
	h.Attributes = int16(codec)
	return batch(h, deflate(t, codec, section(count, size)))
}

// compressors names each way that a codec's bytes are written by some client or broker.
var compressors = map[string]struct {
	codec kafka.Codec
	fn    func(b []byte) ([]byte, error)
}{
	"none":            {kafka.CodecNone, func(b []byte) ([]byte, error) { return b, nil }},
	"gzip":            {kafka.CodecGzip, gzipped},
	"snappy":          {kafka.CodecSnappy, func(b []byte) ([]byte, error) { return s2.EncodeSnappy(nil, b), nil }},
	"xerial snappy":   {kafka.CodecSnappy, xerial},
	"lz4":             {kafka.CodecLZ4, lz4Frame()},
	"lz4 linked":      {kafka.CodecLZ4, lz4Frame(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false))},
	"lz4 summed":      {kafka.CodecLZ4, lz4Frame(lz4.BlockChecksumOption(true), lz4.BlockSizeOption(lz4.Block64Kb))},
	"zstd":            {kafka.CodecZstd, zstdFrame},
	"zstd, no length": {kafka.CodecZstd, zstdStream},
}

func deflate(t testing.TB, codec kafka.Codec, b []byte) []byte {
	name := map[kafka.Codec]string{0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}[codec]
	out, err := compressors[name].fn(b)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func gzipped(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	err := w.Close()
	return out.Bytes(), err
}

func xerial(b []byte) ([]byte, error) {
	out := append([]byte("\x82SNAPPY\x00"), 0, 0, 0, 1, 0, 0, 0, 1)
	for len(b) > 0 {
		n := min(len(b), 32<<10)
		block := s2.EncodeSnappy(nil, b[:n])
		out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
		out = append(out, block...)
		b = b[n:]
	}
	return out, nil
}

func lz4Frame(options ...lz4.Option) func(b []byte) ([]byte, error) {
	return func(b []byte) ([]byte, error) {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(options...); err != nil {
			return nil, err
		}
		if _, err := w.Write(b); err != nil {
			return nil, err
		}
		err := w.Close()
		return out.Bytes(), err
	}
}

func zstdFrame(b []byte) ([]byte, error) {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	return w.EncodeAll(b, nil), w.Close()
}

func zstdStream(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out)
	if err != nil {
		return nil, err
	}
	for len(b) > 0 {
		n := min(len(b), 1000)
		if _, err := w.Write(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	err = w.Close()
	return out.Bytes(), err
}

// seal seals a batch of testTopic and returns the sealed one.
func seal(t testing.TB, f *Filter, b []byte, partition int32) []byte {
	t.Helper()
	buf := make([]byte, 2*len(b)+10*1024+10*int(binary.BigEndian.Uint32(b[57:])))
	n := copy(buf, b)
	r, s := f.SealBatch(buf, n, []byte(testTopic), partition, testNow)
	if s != abi.StatusOK {
		t.Fatalf("seal: %v", s)
	}
	return buf[:r.Length:r.Length]
}

// open opens a batch of a topic in a buffer of its own.
func open(f *Filter, b []byte, topic string, partition int32) ([]byte, abi.Result, abi.Status) {
	buf := make([]byte, len(b)+10*1024)
	n := copy(buf, b)
	r, s := f.OpenBatch(buf, n, []byte(topic), partition)
	if s == abi.StatusNeedSpace {
		buf = make([]byte, r.Length)
		n = copy(buf, b)
		r, s = f.OpenBatch(buf, n, []byte(topic), partition)
	}
	if s != abi.StatusOK && !bytes.Equal(buf[:n], b) {
		panic("a refused batch changed")
	}
	return buf[:r.Length], r, s
}

// outerSection returns the record section of a sealed batch, out of the LZ4 frame that it
// may be in, with another implementation than the one under test.
func outerSection(t testing.TB, sealed []byte) []byte {
	t.Helper()
	h, err := kafka.ParseBatchHeader(sealed)
	if err != nil {
		t.Fatal(err)
	}
	if h.Codec() == kafka.CodecNone {
		return sealed[kafka.BatchHeaderSize:]
	}
	section, err := io.ReadAll(lz4.NewReader(bytes.NewReader(sealed[kafka.BatchHeaderSize:])))
	if err != nil {
		t.Fatal(err)
	}
	return section
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
