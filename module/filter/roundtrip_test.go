package filter

import (
	"bytes"
	"crypto/rand"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
	"github.com/wasm-e2ee/wasm-e2ee/abi/wire"
	"golang.org/x/crypto/chacha20poly1305"
	"pgregory.net/rapid"
)

func TestOpenGivesTheClientsBatchBack(t *testing.T) {
	f := newFilter(t)
	for _, codec := range []kafka.Codec{0, 1, 2, 3, 4} {
		for _, count := range []int{1, 2, 64, 65, 66, 8192, 8193, 9000} {
			for _, size := range []int{0, 100} {
				want := clientBatch(t, codec, count, size)
				sealed := seal(t, f, want, 3)
				got, r, s := open(f, sealed, testTopic, 3)
				if s != abi.StatusOK || !bytes.Equal(got, want) {
					t.Fatalf("%v, %d records of %d bytes: %v; equal: %v", codec, count, size, s, bytes.Equal(got, want))
				}
				if r.Records != uint32(count) || r.Kid != testKid || r.Flags != 0 {
					t.Errorf("result %+v", r)
				}
			}
		}
	}
}

func TestBatchThatIsSealedElsewhereStaysAsItWas(t *testing.T) {
	f := newFilter(t)
	good := clientBatch(t, 0, 70, 100)
	corrupt := bytes.Clone(good)
	corrupt[len(corrupt)-1] ^= 1
	for _, c := range []struct {
		client []byte
		status abi.Status
	}{{good, abi.StatusOK}, {corrupt, abi.StatusCorrupt}} {
		client := bytes.Clone(c.client)
		dst := bytes.Repeat([]byte{0xa5}, len(client)+1000)
		r, s := f.SealTo(dst, client, []byte(testTopic), 0, testNow)
		if s != c.status || !bytes.Equal(client, c.client) {
			t.Errorf("%v, want %v; as it was: %v", s, c.status, bytes.Equal(client, c.client))
		}
		if s != abi.StatusOK {
			continue
		}
		if got, _, s := open(f, dst[:r.Length], testTopic, 0); s != abi.StatusOK || !bytes.Equal(got, client) {
			t.Errorf("opening it: %v, equal: %v", s, bytes.Equal(got, client))
		}
	}
}

func TestAnyHeaderComesBack(t *testing.T) {
	f := newFilter(t)
	rapid.Check(t, func(t *rapid.T) {
		h := header(rapid.IntRange(1, 5).Draw(t, "records"))
		h.BaseTimestamp = rapid.Int64().Draw(t, "base")
		h.MaxTimestamp = rapid.Int64().Draw(t, "max")
		h.ProducerID = rapid.Int64().Draw(t, "pid")
		h.BaseOffset = rapid.Int64().Draw(t, "offset")
		h.BaseSequence = rapid.Int32().Draw(t, "sequence")
		h.Attributes = rapid.SampledFrom([]int16{0, kafka.AttrTransactional}).Draw(t, "attributes")
		want := batch(h, section(int(h.NumRecords), 10))
		buf := append(bytes.Clone(want), make([]byte, 300)...)
		r, s := f.SealBatch(buf, len(want), []byte(testTopic), 0, testNow)
		if s != abi.StatusOK {
			t.Fatal(s)
		}
		got, _, s := open(f, buf[:r.Length], testTopic, 0)
		if s != abi.StatusOK || !bytes.Equal(got, want) {
			t.Fatalf("%v: %x, want %x", s, got, want)
		}
	})
}

// TestSealedBatchIsThePackedFormat reads a sealed batch with kmsg and opens its value with
// x/crypto, as PROTOCOL.md §2.4 describes it.
func TestSealedBatchIsThePackedFormat(t *testing.T) {
	f := newFilter(t)
	h := header(70)
	h.Attributes = kafka.AttrTransactional | int16(kafka.CodecGzip)
	client := batch(h, deflate(t, kafka.CodecGzip, section(70, 50)))
	sealed := seal(t, f, client, 5)

	var outer kmsg.RecordBatch
	if err := outer.ReadFrom(sealed); err != nil {
		t.Fatal(err)
	}
	if outer.FirstOffset != h.BaseOffset || outer.PartitionLeaderEpoch != h.PartitionLeaderEpoch ||
		outer.Attributes != kafka.AttrTransactional|int16(kafka.CodecLZ4) || outer.LastOffsetDelta != 69 || outer.NumRecords != 70 ||
		outer.FirstTimestamp != h.BaseTimestamp || outer.MaxTimestamp != h.MaxTimestamp ||
		outer.ProducerID != h.ProducerID || outer.ProducerEpoch != h.ProducerEpoch || outer.FirstSequence != h.BaseSequence ||
		int(outer.Length) != len(sealed)-12 || uint32(outer.CRC) != kafka.BatchCRC(sealed) {
		t.Errorf("outer header %+v", outer)
	}
	var value []byte
	rest := outerSection(t, sealed)
	for i := range 70 {
		var r kafka.Record
		var err error
		if rest, err = kafka.NextRecord(rest, &r); err != nil {
			t.Fatal(err)
		}
		want := kafka.Record{OffsetDelta: int32(i), Value: []byte{}, Headers: []byte{}}
		if i == 0 {
			want.TimestampDelta = h.MaxTimestamp - h.BaseTimestamp
			want.Value, value = r.Value, r.Value
		}
		if r.TimestampDelta != want.TimestampDelta || r.OffsetDelta != want.OffsetDelta || r.Key != nil ||
			r.Value == nil || !bytes.Equal(r.Value, want.Value) || r.NumHeaders != 0 {
			t.Fatalf("outer record %d: %+v", i, r)
		}
	}
	if len(rest) != 0 {
		t.Fatalf("%d bytes after the last record", len(rest))
	}
	vh, err := wire.ParsePackedHeader(value)
	if err != nil || vh.Kid != testKid || vh.Leaf != 0 || vh.NumRecords != 70 || vh.Salt == [8]byte{} {
		t.Fatalf("value header %+v, %v", vh, err)
	}
	leaf := unhex(t, leaf0Of(t, testRoot))
	aead, err := chacha20poly1305.NewX(leaf)
	if err != nil {
		t.Fatal(err)
	}
	nonce := vh.Nonce()
	pctx := wire.Pctx([]byte(testTopic), 5)
	aad := wire.PackedAAD((*[wire.PackedHeaderSize]byte)(value), &pctx)
	plain, err := aead.Open(nil, nonce[:], value[wire.PackedHeaderSize:], aad[:])
	if err != nil {
		t.Fatal(err)
	}
	preamble := wire.Preamble{Codec: 1, BaseTimestamp: h.BaseTimestamp, MaxTimestamp: h.MaxTimestamp}
	if want := append(preamble.Append(nil), client[61:]...); !bytes.Equal(plain, want) {
		t.Errorf("sealed plaintext %x, want %x", plain, want)
	}
}

func TestVectorOfThePackedFormat(t *testing.T) {
	var kid abi.Kid
	copy(kid[:], unhex(t, "5edb50075e22bbf1"))
	root := [32]byte(unhex(t, "4f8e9ae6b440827a0fe2be7ab2fcfe53710c1ba7032b098b31bb7212380c1bd1"))
	salt := []byte{0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57}
	records := unhex(t, "1a000000046b310a68656c6c6f00")
	value := unhex(t, "e2105edb50075e22bbf10000020000000150515253545556571055af87542607952089388220d3616157c5223c649745b3a371629638db4020c5723cc709149bd5913f7e45e9df48")

	f := newFilter(t)
	h := kafka.BatchHeader{Magic: 2, BaseTimestamp: testNow, MaxTimestamp: testNow, NumRecords: 1, ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1}
	client := batch(h, records)
	// The vector's leaf is 2: a lease of that leaf alone.
	var leaf [32]byte
	copy(leaf[:], unhex(t, "3b5d25bff2dd7a32a8e4cf57540abcd08f904b9ac7a54fc06de40d5370a0770e"))
	if s := f.Erase(nil); s != abi.StatusOK {
		t.Fatal(s)
	}
	if s := f.InstallLease(&abi.Lease{Kid: kid, UseBy: testNow, Start: 2, Level: 24, Node: leaf, Topic: "orders"}); s != abi.StatusOK {
		t.Fatal(s)
	}
	if s := f.InstallRoot(&abi.Root{Kid: kid, Root: root, Topic: "orders"}); s != abi.StatusOK {
		t.Fatal(s)
	}
	f.random = bytes.NewReader(salt)
	sealed := seal(t, f, client, 3)
	if !bytes.Contains(sealed, value) {
		t.Errorf("sealed %x, want in it %x", sealed, value)
	}
	got, r, s := open(f, sealed, "orders", 3)
	if s != abi.StatusOK || !bytes.Equal(got, client) || r.Leaf != 2 {
		t.Errorf("opened %x, %+v, %v", got, r, s)
	}
}

func TestDefaultBatchOfLibrdkafkaStaysUnderTheBrokersLimit(t *testing.T) {
	f := newFilter(t)
	h := header(9000)
	var records []byte
	for i := range int32(9000) {
		r := kafka.Record{OffsetDelta: i, Value: bytes.Repeat([]byte("x"), 100)}
		records = r.Append(records)
	}
	client := batch(h, records)
	sealed := seal(t, f, client, 0)
	if len(sealed) >= 1_048_588 {
		t.Errorf("%d bytes became %d, want under 1048588", len(client), len(sealed))
	}
	t.Logf("%d bytes became %d", len(client), len(sealed))
}

// TestEachBrokerRewriteOpens covers what a broker may do to a stored batch.
func TestEachBrokerRewriteOpens(t *testing.T) {
	f := newFilter(t)
	client := clientBatch(t, kafka.CodecLZ4, 3000, 30)
	sealed := seal(t, f, client, 0)
	for name, c := range compressors {
		for _, appendTime := range []bool{false, true} {
			h, err := kafka.ParseBatchHeader(sealed)
			if err != nil {
				t.Fatal(err)
			}
			want, err := kafka.ParseBatchHeader(client)
			if err != nil {
				t.Fatal(err)
			}
			h.BaseOffset, want.BaseOffset = 1<<40, 1<<40
			h.PartitionLeaderEpoch, want.PartitionLeaderEpoch = 99, 99
			h.Attributes = int16(c.codec)
			h.BaseTimestamp = h.MaxTimestamp // a broker that compresses starts anew from record 0
			if appendTime {
				h.Attributes |= kafka.AttrLogAppendTime
				want.Attributes |= kafka.AttrLogAppendTime
				h.MaxTimestamp, want.MaxTimestamp = testNow+77777, testNow+77777
			}
			section, err := c.fn(outerSection(t, sealed))
			if err != nil {
				t.Fatal(err)
			}
			got, _, s := open(f, batch(h, section), testTopic, 0)
			if s != abi.StatusOK || !bytes.Equal(got, batch(want, client[61:])) {
				t.Errorf("%s, append time %v: %v", name, appendTime, s)
			}
		}
	}
}

func TestSealingAsksForTheSpaceItNeeds(t *testing.T) {
	f := newFilter(t)
	for _, count := range []int{1, 63, 64, 65, 8191, 8192, 8193, 16385} {
		client := clientBatch(t, kafka.CodecNone, count, 3)
		buf := append(bytes.Clone(client), 0)
		r, s := f.SealBatch(buf, len(client), []byte(testTopic), 0, testNow)
		if s != abi.StatusNeedSpace || !bytes.Equal(buf[:len(client)], client) {
			t.Fatalf("%d records: %v", count, s)
		}
		exact := make([]byte, r.Length)
		copy(exact, client)
		if r, s := f.SealBatch(exact[:r.Length-1], len(client), []byte(testTopic), 0, testNow); s != abi.StatusNeedSpace {
			t.Fatalf("%d records in one byte less: %v, %d", count, s, r.Length)
		}
		done, s := f.SealBatch(exact, len(client), []byte(testTopic), 0, testNow)
		if s != abi.StatusOK || done.Length != r.Length {
			t.Fatalf("%d records: %v, length %d, asked %d", count, s, done.Length, r.Length)
		}
		if bound := len(client) + 82 + 10*(count-1); int(r.Length) > bound {
			t.Errorf("%d records: %d bytes, beyond the bound %d of SPEC.md §6.5", count, r.Length, bound)
		}
	}
	if r, s := f.SealBatch(make([]byte, 0), 0, []byte(testTopic), 0, testNow); s != abi.StatusMalformed {
		t.Errorf("nothing: %v %+v", s, r)
	}
}

func TestNeedSpaceBurnsNoLeaf(t *testing.T) {
	f := newFilter(t)
	client := clientBatch(t, kafka.CodecNone, 1, 3)
	for range 3 {
		if _, s := f.SealBatch(bytes.Clone(client), len(client), []byte(testTopic), 0, testNow); s != abi.StatusNeedSpace {
			t.Fatal(s)
		}
	}
	_, r, s := open(f, seal(t, f, client, 0), testTopic, 0)
	if s != abi.StatusOK || r.Leaf != 0 {
		t.Errorf("%v, leaf %d, want 0", s, r.Leaf)
	}
}

// TestOpeningAsksForTheSpaceItNeeds gives a value that compresses, which ciphertext does
// not: the space is asked for before the tag can be looked at.
func TestOpeningAsksForTheSpaceItNeeds(t *testing.T) {
	f := newFilter(t)
	value := wire.PackedHeader{Kid: testKid, NumRecords: 1}
	r := kafka.Record{Value: append(value.Append(nil), make([]byte, 900)...)}
	h := header(1)
	h.Attributes = int16(kafka.CodecZstd)
	small := batch(h, deflate(t, kafka.CodecZstd, r.Append(nil)))
	buf := bytes.Clone(small)
	res, s := f.OpenBatch(buf, len(buf), []byte(testTopic), 0)
	if want := 61 + len(r.Value) - wire.PackedOverhead; s != abi.StatusNeedSpace || int(res.Length) != want || !bytes.Equal(buf, small) {
		t.Errorf("%v, wants %d bytes, want %d", s, res.Length, want)
	}
	if _, _, s := open(f, small, testTopic, 0); s != abi.StatusUnauthentic {
		t.Errorf("with space: %v, want %v", s, abi.StatusUnauthentic)
	}
}

func TestSteadyStateAllocatesForTheAEADAlone(t *testing.T) {
	for _, records := range []int{1, 20, 900} {
		f := newFilter(t)
		client := clientBatch(t, kafka.CodecNone, records, 100)
		buf := make([]byte, len(client)+9*records+1000)
		topic := []byte(testTopic)
		if n := testing.AllocsPerRun(100, func() {
			r, s := f.SealBatch(buf, copy(buf, client), topic, 0, testNow)
			if s == abi.StatusOK {
				_, s = f.OpenBatch(buf, int(r.Length), topic, 0)
			}
			if s != abi.StatusOK {
				panic(s)
			}
		}); n > aeadAllocations {
			t.Errorf("%v allocations for a batch of %d records sealed and opened", n, records)
		}
	}
}

func TestSaltsDiffer(t *testing.T) {
	f := New(rand.Reader)
	f.Configure(abi.Config{MaxDecompressed: 1 << 20})
	install(t, f, testTopic, testKid, testRoot)
	seen := map[string]bool{}
	for range 100 {
		sealed := seal(t, f, clientBatch(t, 0, 1, 1), 0)
		salt := string(sealed[bytes.Index(sealed, testKid[:])+15:][:8])
		if seen[salt] {
			t.Fatalf("salt %x came twice", salt)
		}
		seen[salt] = true
	}
}
