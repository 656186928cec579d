package wire

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The vectors of PROTOCOL.md §2.3.
const (
	packedAAD   = "4b583120706b7420763100e2105edb50075e22bbf1000002000000015051525354555657601e89b2178602caa35b4aa9efeceede7123847f7b5c4e37e3d26c09b30f145c"
	packedValue = "e2105edb50075e22bbf10000020000000150515253545556571055af87542607952089388220d3616157c5223c649745b3a371629638db4020c5723cc709149bd5913f7e45e9df48"
	recordAAD   = "4b58312072656320763100e1105edb50075e22bbf100000100025051525354555657601e89b2178602caa35b4aa9efeceede7123847f7b5c4e37e3d26c09b30f145c000000026b3100000000"
	recordValue = "e1105edb50075e22bbf1000001000250515253545556571c0e641831e175e148bf5c13543e996a732e67d99a"
)

func TestPackedVectorParses(t *testing.T) {
	value := unhex(t, packedValue)
	h, err := ParsePackedHeader(value)
	if err != nil {
		t.Fatal(err)
	}
	want := PackedHeader{
		Kid:  abi.Kid{0x5e, 0xdb, 0x50, 0x07, 0x5e, 0x22, 0xbb, 0xf1},
		Leaf: 2, NumRecords: 1,
		Salt: [8]byte{0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57},
	}
	if h != want {
		t.Fatalf("parsed %+v, want %+v", h, want)
	}
	header := [PackedHeaderSize]byte(h.Append(nil))
	pctx := Pctx([]byte("orders"), 3)
	aad := PackedAAD(&header, &pctx)
	if !bytes.Equal(aad[:], unhex(t, packedAAD)) {
		t.Errorf("aad %x, want %s", aad, packedAAD)
	}
	nonce := h.Nonce()
	if want := unhex(t, "5051525354555657000000000000000000000000ffffffff"); !bytes.Equal(nonce[:], want) {
		t.Errorf("nonce %x, want %x", nonce, want)
	}
}

func TestRecordVectorParses(t *testing.T) {
	h, err := ParseRecordHeader(unhex(t, recordValue))
	if err != nil {
		t.Fatal(err)
	}
	if h.Leaf != 1 || h.Ord != 2 {
		t.Errorf("leaf %d, ord %d, want 1 and 2", h.Leaf, h.Ord)
	}
	header := [RecordHeaderSize]byte(h.Append(nil))
	pctx := Pctx([]byte("orders"), 3)
	aad := AppendRecordAAD(nil, &header, &pctx, []byte("k1"), nil)
	if !bytes.Equal(aad, unhex(t, recordAAD)) {
		t.Errorf("aad %x, want %s", aad, recordAAD)
	}
	nonce := h.Nonce()
	if want := unhex(t, "505152535455565700000000000000000000000000000002"); !bytes.Equal(nonce[:], want) {
		t.Errorf("nonce %x, want %x", nonce, want)
	}
}

func TestRecordAADTellsNullFromEmptyAndKeyFromHeaders(t *testing.T) {
	var header [RecordHeaderSize]byte
	pctx := Pctx([]byte("orders"), 0)
	seen := map[string]string{}
	for name, aad := range map[string][]byte{
		"null key":          AppendRecordAAD(nil, &header, &pctx, nil, nil),
		"empty key":         AppendRecordAAD(nil, &header, &pctx, []byte{}, nil),
		"null header":       AppendRecordAAD(nil, &header, &pctx, nil, AppendCanonicalHeader(nil, []byte("h"), nil)),
		"empty header":      AppendRecordAAD(nil, &header, &pctx, nil, AppendCanonicalHeader(nil, []byte("h"), []byte{})),
		"header as the key": AppendRecordAAD(nil, &header, &pctx, AppendCanonicalHeader(nil, []byte("h"), nil), nil),
	} {
		if other, ok := seen[string(aad)]; ok {
			t.Errorf("%s and %s have one AAD", name, other)
		}
		seen[string(aad)] = name
	}
}

func TestPctxBindsTopicAndPartition(t *testing.T) {
	seen := map[[PctxSize]byte]bool{}
	for _, topic := range []string{"orders", "order", "orders2", ""} {
		for _, partition := range []int32{0, 1, 256, 1<<31 - 1} {
			p := Pctx([]byte(topic), partition)
			if seen[p] {
				t.Errorf("%q partition %d shares its context", topic, partition)
			}
			seen[p] = true
		}
	}
}

func TestShortOrForeignValuesAreRefused(t *testing.T) {
	value := unhex(t, packedValue)
	for n := range PackedOverhead {
		if _, err := ParsePackedHeader(value[:n]); err == nil {
			t.Errorf("a packed value of %d bytes was parsed", n)
		}
	}
	for _, flags := range []byte{0x00, 0x11, 0x20, 0x1f} {
		b := bytes.Clone(value)
		b[1] = flags
		if _, err := ParsePackedHeader(b); err == nil {
			t.Errorf("flags %02x were parsed", flags)
		}
	}
	single := unhex(t, recordValue)
	if _, err := ParsePackedHeader(append(single, make([]byte, 64)...)); err == nil {
		t.Error("a single value was parsed as a packed one")
	}
	single[13], single[14] = 0xff, 0xff
	if _, err := ParseRecordHeader(single); err == nil {
		t.Error("ord 65535 was parsed")
	}
}

func FuzzPackedHeader(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xE2, 0x10}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := ParsePackedHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:PackedHeaderSize]) {
			t.Fatalf("read %x, wrote %x", b[:PackedHeaderSize], h.Append(nil))
		}
		if h, err := ParseRecordHeader(b); err == nil && !bytes.Equal(h.Append(nil), b[:RecordHeaderSize]) {
			t.Fatalf("read %x, wrote %x", b[:RecordHeaderSize], h.Append(nil))
		}
		if p, err := ParsePreamble(b); err == nil && !bytes.Equal(p.Append(nil), b[:PackedPreambleSize]) {
			t.Fatalf("read %x, wrote %x", b[:PackedPreambleSize], p.Append(nil))
		}
	})
}
