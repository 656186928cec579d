package abi

import (
	"bytes"
	"testing"
)

func sampleSpans() []SpanOp {
	return []SpanOp{
		{Kind: SpanCheck, Sum: 7, Data: Span{100, 20}, Head: Span{50, 40}},
		{Kind: SpanSeal, Data: Span{100, 20}, Head: Span{10, 5}, Key: &[KeySize]byte{1}, Nonce: &[SpanNonceSize]byte{2}},
		{Kind: SpanOpen, Data: Span{100, 16}, Key: &[KeySize]byte{1}, Nonce: &[SpanNonceSize]byte{2}},
		{Kind: SpanInflate, Codec: 4, Data: Span{1, 2}, Out: Span{3, 4}},
		{Kind: SpanSum, Data: Span{100, 20}, Out: Span{96, 4}},
	}
}

// FuzzParseSpans holds that what is read is written back, byte for byte.
func FuzzParseSpans(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, SpansHeaderSize))
	f.Add(AppendSpans(nil, sampleSpans()))
	for i := range sampleSpans() {
		f.Add(AppendSpans(nil, sampleSpans()[i:]))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		ops, err := ParseSpans(nil, b)
		if !bytes.Equal(b, before) {
			t.Fatal("parsing changed the block")
		}
		if err == nil && !bytes.Equal(AppendSpans(nil, ops), b) {
			t.Fatalf("%x was read as %+v", b, ops)
		}
	})
}

func TestSpansAreReadBackAndEveryLengthCutIsRefused(t *testing.T) {
	block := AppendSpans(nil, sampleSpans())
	if len(block) != SpansHeaderSize+len(sampleSpans())*SpanOpSize {
		t.Fatalf("%d bytes", len(block))
	}
	if ops, err := ParseSpans(nil, block); err != nil || len(ops) != len(sampleSpans()) || *ops[1].Key != [KeySize]byte{1} {
		t.Fatalf("%v, %v", ops, err)
	}
	for n := range block {
		if _, err := ParseSpans(nil, block[:n]); err == nil {
			t.Errorf("%d of %d bytes were read", n, len(block))
		}
	}
	if _, err := ParseSpans(nil, append(bytes.Clone(block), 0)); err == nil {
		t.Error("a byte too many was read")
	}
}

// TestWhatAnOperationDoesNotUseIsZero sets each byte of each operation that its kind leaves
// alone.
func TestWhatAnOperationDoesNotUseIsZero(t *testing.T) {
	unused := map[SpanKind][][2]int{
		SpanCheck:   {{1, 4}, {24, 88}},
		SpanSum:     {{1, 8}, {29, 88}},
		SpanSeal:    {{1, 8}, {24, 32}},
		SpanOpen:    {{1, 8}, {24, 32}},
		SpanInflate: {{1, 2}, {3, 8}, {16, 24}, {32, 88}},
	}
	for _, o := range sampleSpans() {
		block := AppendSpans(nil, []SpanOp{o})
		for _, r := range unused[o.Kind] {
			for i := r[0]; i < r[1]; i++ {
				b := bytes.Clone(block)
				b[SpansHeaderSize+i] ^= 0x80
				if _, err := ParseSpans(nil, b); err == nil {
					t.Errorf("kind %d with byte %d set was read", o.Kind, i)
				}
			}
		}
	}
}

func TestSpansAreBounded(t *testing.T) {
	ops := make([]SpanOp, MaxSpanOps+1)
	for i := range ops {
		ops[i] = SpanOp{Kind: SpanCheck}
	}
	if _, err := ParseSpans(nil, AppendSpans(nil, ops[1:])); err != nil {
		t.Error(err)
	}
	if _, err := ParseSpans(nil, AppendSpans(nil, ops)); err == nil {
		t.Error("too many operations were read")
	}
}
