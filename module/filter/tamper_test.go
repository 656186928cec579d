package filter

import (
	"bytes"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/kafka"
)

// refix sets length and CRC of a batch anew, as whoever tampers with it would.
func refix(b []byte) []byte {
	h, err := kafka.ParseBatchHeader(b)
	if err != nil {
		panic(err)
	}
	return batch(h, b[kafka.BatchHeaderSize:])
}

// uncompressed returns a sealed batch whose outer record section is not compressed.
func uncompressed(t testing.TB, sealed []byte) []byte {
	h, err := kafka.ParseBatchHeader(sealed)
	if err != nil {
		t.Fatal(err)
	}
	h.Attributes &^= kafka.AttrCodec
	return batch(h, outerSection(t, sealed))
}

// brokerOwned are the fields of an outer batch that a broker may change, by offset: base
// offset, leader epoch, timestamps, producer id, epoch and sequence.
func brokerOwned(at int) bool {
	return at < 8 || at >= 12 && at < 16 || at >= 27 && at < 57
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	f := newFilter(t)
	client := clientBatch(t, kafka.CodecNone, 70, 5)
	framed := seal(t, f, client, 3)
	for name, sealed := range map[string][]byte{"framed": framed, "uncompressed": uncompressed(t, framed)} {
		for i := range sealed {
			for _, bit := range []byte{1, 0x80, 0xff} {
				b := bytes.Clone(sealed)
				b[i] ^= bit
				got, _, s := open(f, b, testTopic, 3)
				// The CRC does not cover the first fields, which are the broker's.
				if i < 21 && brokerOwned(i) {
					if s != abi.StatusOK || !bytes.Equal(got[16:], client[16:]) {
						t.Errorf("%s: byte %d ^ %02x: %v", name, i, bit, s)
					}
					continue
				}
				// A longer batchLength is a batch that was cut: nothing of it is left.
				if s == abi.StatusOK && (i < 8 || i >= 12 || len(got) > kafka.BatchHeaderSize) {
					t.Errorf("%s: byte %d ^ %02x was accepted", name, i, bit)
				}
			}
		}
	}
}

// TestEveryFlippedByteUnderARightChecksumIsRefused lets the attacker set length and CRC. What
// is accepted then differs from the client's batch in the broker's own fields at most.
func TestEveryFlippedByteUnderARightChecksumIsRefused(t *testing.T) {
	f := newFilter(t)
	client := clientBatch(t, kafka.CodecNone, 70, 5)
	sealed := uncompressed(t, seal(t, f, client, 3))
	accepted := map[int]bool{}
	for i := range sealed {
		if i == 16 {
			continue // refix would not take another magic
		}
		for bit := 1; bit < 256; bit <<= 1 {
			b := bytes.Clone(sealed)
			b[i] ^= byte(bit)
			b = refix(b)
			got, _, s := open(f, b, testTopic, 3)
			if s != abi.StatusOK {
				continue
			}
			accepted[i] = true
			if !bytes.Equal(got[61:], client[61:]) || !bytes.Equal(got[57:61], client[57:61]) || !bytes.Equal(got[23:27], client[23:27]) {
				t.Fatalf("byte %d ^ %02x changed what is delivered", i, bit)
			}
			if h, _ := kafka.ParseBatchHeader(got); !h.LogAppendTime() && !bytes.Equal(got[27:43], client[27:43]) {
				t.Fatalf("byte %d ^ %02x changed timestamps", i, bit)
			}
		}
	}
	// In the section, only timestamp deltas are the broker's: of record 0 two bytes, of each
	// stub one.
	var inSection int
	for i := range accepted {
		if i >= 61 {
			inSection++
		} else if !brokerOwned(i) && i != 22 && (i < 8 || i >= 12) && (i < 17 || i >= 21) {
			t.Errorf("a flip of header byte %d was accepted", i)
		}
	}
	if inSection > 2+69 {
		t.Errorf("%d bytes of the record section can be flipped", inSection)
	}
}

func TestEveryLengthCutIsRefused(t *testing.T) {
	f := newFilter(t)
	framed := seal(t, f, clientBatch(t, kafka.CodecNone, 20, 5), 3)
	for name, sealed := range map[string][]byte{"framed": framed, "uncompressed": uncompressed(t, framed)} {
		for n := range len(sealed) {
			got, _, s := open(f, sealed[:n], testTopic, 3)
			if s != abi.StatusOK || len(got) > kafka.BatchHeaderSize || !bytes.Equal(got, sealed[:len(got)]) {
				t.Errorf("%s: a batch cut to %d bytes: %v, %d bytes left", name, n, s, len(got))
			}
			if n > kafka.BatchHeaderSize {
				if _, _, s := open(f, refix(sealed[:n]), testTopic, 3); s == abi.StatusOK {
					t.Errorf("%s: %d of %d bytes under a right length and CRC were accepted", name, n, len(sealed))
				}
			}
		}
		if _, _, s := open(f, append(bytes.Clone(sealed), 0), testTopic, 3); s != abi.StatusMalformed {
			t.Errorf("%s: a byte after the batch: %v", name, s)
		}
		if _, _, s := open(f, refix(append(bytes.Clone(sealed), 0)), testTopic, 3); s != abi.StatusMalformed {
			t.Errorf("%s: a byte at the end of the section: %v", name, s)
		}
	}
}

func TestABatchElsewhereIsRefused(t *testing.T) {
	f := newFilter(t)
	sealed := seal(t, f, clientBatch(t, kafka.CodecNone, 3, 5), 3)
	install(t, f, "other", abi.Kid{77}, testRoot)
	for _, at := range []struct {
		topic     string
		partition int32
	}{{testTopic, 2}, {testTopic, 4}, {testTopic, 1 << 30}, {"other", 3}, {"order", 3}} {
		if _, _, s := open(f, sealed, at.topic, at.partition); s != abi.StatusUnauthentic {
			t.Errorf("%s, partition %d: %v", at.topic, at.partition, s)
		}
	}
	// The same root under the other topic's kid: the AAD still tells the topics apart.
	b := bytes.Replace(sealed, testKid[:], []byte{77, 0, 0, 0, 0, 0, 0, 0}, 1)
	if _, _, s := open(f, refix(b), "other", 3); s != abi.StatusUnauthentic {
		t.Errorf("with the other topic's kid: %v", s)
	}
	if _, _, s := open(f, sealed, testTopic, 3); s != abi.StatusOK {
		t.Errorf("in its own place: %v", s)
	}
}

// TestOnlyTheShapeThatSealingMakesOpens rearranges the records of a sealed batch.
func TestOnlyTheShapeThatSealingMakesOpens(t *testing.T) {
	f := newFilter(t)
	sealed := uncompressed(t, seal(t, f, clientBatch(t, kafka.CodecNone, 3, 5), 3))
	h, _ := kafka.ParseBatchHeader(sealed)
	var value kafka.Record
	if _, err := kafka.NextRecord(sealed[61:], &value); err != nil {
		t.Fatal(err)
	}
	value.Headers = nil
	stub := func(i int32) kafka.Record { return kafka.Record{OffsetDelta: i, Value: []byte{}} }
	with := func(r kafka.Record, edit func(*kafka.Record)) kafka.Record { edit(&r); return r }
	at := func(i int32) kafka.Record {
		return with(value, func(r *kafka.Record) { r.OffsetDelta = i })
	}
	type records = []kafka.Record
	for name, tt := range map[string]struct {
		records records
		edit    func(*kafka.BatchHeader)
		want    abi.Status
	}{
		"as it was":            {records{value, stub(1), stub(2)}, nil, abi.StatusOK},
		"value second":         {records{stub(0), at(1), stub(2)}, nil, abi.StatusUnauthentic},
		"value last":           {records{stub(0), stub(1), at(2)}, nil, abi.StatusUnauthentic},
		"value twice":          {records{value, at(1), stub(2)}, nil, abi.StatusUnauthentic},
		"no value":             {records{stub(0), stub(1), stub(2)}, nil, abi.StatusPlaintext},
		"plaintext":            {records{with(value, func(r *kafka.Record) { r.Value = []byte("plain") }), stub(1), stub(2)}, nil, abi.StatusPlaintext},
		"plaintext in a stub":  {records{value, stub(1), with(stub(2), func(r *kafka.Record) { r.Value = []byte("plain") })}, nil, abi.StatusUnauthentic},
		"null value in a stub": {records{value, with(stub(1), func(r *kafka.Record) { r.Value = nil }), stub(2)}, nil, abi.StatusUnauthentic},
		"key in a stub":        {records{value, with(stub(1), func(r *kafka.Record) { r.Key = []byte("k") }), stub(2)}, nil, abi.StatusUnauthentic},
		"empty key in a stub":  {records{value, with(stub(1), func(r *kafka.Record) { r.Key = []byte{} }), stub(2)}, nil, abi.StatusUnauthentic},
		"header in a stub": {records{value, stub(1), with(stub(2), func(r *kafka.Record) {
			r.NumHeaders, r.Headers = 1, kafka.AppendHeader(nil, "h", nil)
		})}, nil, abi.StatusUnauthentic},
		"attributes in a stub": {records{value, stub(1), with(stub(2), func(r *kafka.Record) { r.Attributes = 1 })}, nil, abi.StatusUnauthentic},
		"key beside the value": {records{with(value, func(r *kafka.Record) { r.Key = []byte("k") }), stub(1), stub(2)}, nil, abi.StatusUnauthentic},
		"header beside the value": {records{with(value, func(r *kafka.Record) {
			r.NumHeaders, r.Headers = 1, kafka.AppendHeader(nil, "h", nil)
		}), stub(1), stub(2)}, nil, abi.StatusUnauthentic},
		"stub taken away":             {records{value, stub(1)}, nil, abi.StatusUnauthentic},
		"stub added":                  {records{value, stub(1), stub(2), stub(3)}, nil, abi.StatusUnauthentic},
		"all stubs taken away":        {records{value}, nil, abi.StatusUnauthentic},
		"stubs swapped":               {records{value, stub(2), stub(1)}, nil, abi.StatusUnauthentic},
		"offsets left out":            {records{value, stub(1), stub(3)}, nil, abi.StatusUnauthentic},
		"broker's timestamps":         {records{with(value, func(r *kafka.Record) { r.TimestampDelta = -9 }), stub(1), with(stub(2), func(r *kafka.Record) { r.TimestampDelta = 5 })}, nil, abi.StatusOK},
		"larger lastOffsetDelta":      {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.LastOffsetDelta = 3 }, abi.StatusUnauthentic},
		"smaller lastOffsetDelta":     {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.LastOffsetDelta = 1 }, abi.StatusUnauthentic},
		"more records than there are": {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.NumRecords = 4 }, abi.StatusMalformed},
		"fewer records than there are": {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) {
			h.NumRecords = 2
		}, abi.StatusMalformed},
		"no records but a section":   {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.NumRecords = 0 }, abi.StatusMalformed},
		"negative count":             {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.NumRecords = -3 }, abi.StatusMalformed},
		"huge count":                 {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.NumRecords = 1<<31 - 1 }, abi.StatusMalformed},
		"control bit":                {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrControl }, abi.StatusMalformed},
		"unknown attribute":          {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.Attributes |= 0x80 }, abi.StatusUnauthentic},
		"delete horizon":             {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.Attributes |= kafka.AttrDeleteHorizon }, abi.StatusUnauthentic},
		"unknown codec":              {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.Attributes |= 5 }, abi.StatusUnsupportedCodec},
		"a codec that was not there": {records{value, stub(1), stub(2)}, func(h *kafka.BatchHeader) { h.Attributes |= 1 }, abi.StatusMalformed},
		"a value too short": {records{with(value, func(r *kafka.Record) { r.Value = r.Value[:57] }), stub(1), stub(2)},
			nil, abi.StatusUnauthentic},
		"another suite": {records{with(value, func(r *kafka.Record) {
			r.Value = bytes.Clone(r.Value)
			r.Value[1] = 0x20
		}), stub(1), stub(2)}, nil, abi.StatusUnauthentic},
		"the other format's magic": {records{with(value, func(r *kafka.Record) {
			r.Value = bytes.Clone(r.Value)
			r.Value[0] = 0xE1
		}), stub(1), stub(2)}, nil, abi.StatusPlaintext},
	} {
		h := h
		h.NumRecords, h.LastOffsetDelta = int32(len(tt.records)), int32(len(tt.records)-1)
		if tt.edit != nil {
			tt.edit(&h)
		}
		var section []byte
		for _, r := range tt.records {
			section = r.Append(section)
		}
		if _, _, s := open(f, batch(h, section), testTopic, 3); s != tt.want {
			t.Errorf("%s: %v, want %v", name, s, tt.want)
		}
	}
}

func TestNoPlaintextOpens(t *testing.T) {
	f := newFilter(t)
	for _, codec := range []kafka.Codec{0, 1, 2, 3, 4} {
		if _, _, s := open(f, clientBatch(t, codec, 5, 5), testTopic, 0); s != abi.StatusPlaintext {
			t.Errorf("codec %v: %v", codec, s)
		}
	}
	old := clientBatch(t, 0, 5, 5)
	for _, magic := range []byte{0, 1, 3, 0xff} {
		old[16] = magic
		if _, _, s := open(f, old, testTopic, 0); s != abi.StatusUnsupportedMagic {
			t.Errorf("magic %d: %v", magic, s)
		}
		if _, _, s := open(f, old[:len(old)-1], testTopic, 0); s != abi.StatusUnsupportedMagic {
			t.Errorf("magic %d, cut: %v", magic, s)
		}
	}
}

func marker(key, value []byte) []byte {
	h := header(1)
	h.Attributes = kafka.AttrControl | kafka.AttrTransactional
	r := kafka.Record{Key: key, Value: value}
	return batch(h, r.Append(nil))
}

func TestMarkersAndEmptyBatchesPassUntouched(t *testing.T) {
	f := newFilter(t)
	empty := header(1)
	empty.NumRecords, empty.LastOffsetDelta = 0, 9
	control := empty
	control.Attributes |= kafka.AttrControl
	for name, b := range map[string][]byte{
		"abort":         marker([]byte{0, 0, 0, 0}, make([]byte, 6)),
		"commit":        marker([]byte{0, 0, 0, 1}, make([]byte, 6)),
		"empty":         batch(empty, nil),
		"empty control": batch(control, nil),
	} {
		got, r, s := open(f, b, testTopic, 0)
		if s != abi.StatusOK || r.Flags != abi.FlagUntouched || !bytes.Equal(got, b) {
			t.Errorf("%s: %v, %+v", name, s, r)
		}
	}
}

func TestNoRecordHidesBehindTheControlBit(t *testing.T) {
	f := newFilter(t)
	two := header(2)
	two.Attributes = kafka.AttrControl
	gzipped := header(1)
	gzipped.Attributes = kafka.AttrControl | int16(kafka.CodecGzip)
	r := kafka.Record{Key: []byte{0, 0, 0, 1}, Value: make([]byte, 6)}
	for name, b := range map[string][]byte{
		"long value":    marker([]byte{0, 0, 0, 1}, make([]byte, 17)),
		"long key":      marker([]byte("secret record"), make([]byte, 6)),
		"null key":      marker(nil, make([]byte, 6)),
		"other type":    marker([]byte{0, 0, 0, 2}, make([]byte, 6)),
		"two records":   batch(two, section(2, 5)),
		"compressed":    batch(gzipped, deflate(t, kafka.CodecGzip, r.Append(nil))),
		"trailing byte": refix(append(marker([]byte{0, 0, 0, 1}, make([]byte, 6)), 0)),
	} {
		if _, _, s := open(f, b, testTopic, 0); s != abi.StatusMalformed {
			t.Errorf("%s: %v", name, s)
		}
	}
}

func FuzzOpenBatch(f *testing.F) {
	filter := newFilter(f)
	client := clientBatch(f, kafka.CodecNone, 3, 5)
	sealed := seal(f, filter, client, 0)
	f.Add(sealed, false)
	f.Add(client, false)
	f.Add(marker([]byte{0, 0, 0, 0}, make([]byte, 6)), false)
	f.Add(seal(f, filter, clientBatch(f, kafka.CodecZstd, 90, 5), 0), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		if fix && len(b) >= kafka.BatchHeaderSize && b[16] == 2 {
			b = refix(b)
		}
		got, r, s := open(filter, b, testTopic, 0) // panics where a refused batch changed
		if s != abi.StatusOK || r.Flags == abi.FlagUntouched || len(got) <= kafka.BatchHeaderSize {
			return // of a cut batch the header stays, or less: no record fits in it
		}
		if r.Kid != testKid || len(got) != int(r.Length) {
			t.Fatalf("opened %x: %+v", b, r)
		}
	})
}
