package foreign

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/wasm-e2ee/wasm-e2ee/abi"
	"github.com/wasm-e2ee/wasm-e2ee/abi/plugin"
)

const memorySize = 4096

// newMemory is what a module's could look like: bytes that differ.
func newMemory() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	memory := make([]byte, memorySize)
	for i := range memory {
		memory[i] = byte(r.Uint32())
	}
	return memory
}

// run writes the operations' block to the start of memory and runs it.
func run(memory []byte, ops ...abi.SpanOp) uint32 {
	block := abi.AppendSpans(memory[:0], ops)
	return new(worker).run(memory, abi.Span{Size: uint32(len(block))})
}

func statusOf(memory []byte, i int) abi.SpanStatus {
	s, _ := abi.SpanStatusOf(memory, i)
	return s
}

var (
	key   = [abi.KeySize]byte{1, 2, 3}
	nonce = [abi.SpanNonceSize]byte{4, 5, 6}
)

func TestABatchIsCheckedSealedAndSummedInOneCall(t *testing.T) {
	memory := newMemory()
	head, data, aad, out := abi.Span{At: 1000, Size: 40}, abi.Span{At: 2000, Size: 300}, abi.Span{At: 3000, Size: 70}, abi.Span{At: 1996, Size: 4}
	h, _ := head.In(memory)
	plain := bytes.Clone(memory[2000:2284])
	sum := crc32.Checksum(append(bytes.Clone(h), plain...), castagnoli)
	s := run(memory,
		abi.SpanOp{Kind: abi.SpanCheck, Head: head, Data: abi.Span{At: 2000, Size: 284}, Sum: sum},
		abi.SpanOp{Kind: abi.SpanSeal, Data: data, Head: aad, Key: &key, Nonce: &nonce},
		abi.SpanOp{Kind: abi.SpanSum, Data: data, Out: out})
	if s != plugin.StatusOK || statusOf(memory, 0) != abi.SpanDone || statusOf(memory, 2) != abi.SpanDone {
		t.Fatalf("status %d, %x", s, memory[:300])
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		t.Fatal(err)
	}
	if want := aead.Seal(nil, nonce[:], plain, memory[3000:3070]); !bytes.Equal(memory[2000:2300], want) {
		t.Error("not what x/crypto seals")
	}
	if binary.BigEndian.Uint32(memory[1996:]) != crc32.Checksum(memory[2000:2300], castagnoli) {
		t.Error("not the CRC-32C of what was sealed")
	}
}

func TestNothingRunsAfterARefusal(t *testing.T) {
	memory := newMemory()
	before := bytes.Clone(memory)
	s := run(memory,
		abi.SpanOp{Kind: abi.SpanCheck, Data: abi.Span{At: 2000, Size: 284}, Sum: 1},
		abi.SpanOp{Kind: abi.SpanSeal, Data: abi.Span{At: 2000, Size: 300}, Key: &key, Nonce: &nonce})
	if s != plugin.StatusOK || statusOf(memory, 0) != abi.SpanRefused || statusOf(memory, 1) != abi.SpanWaiting {
		t.Errorf("status %d, operations %d and %d", s, statusOf(memory, 0), statusOf(memory, 1))
	}
	if !bytes.Equal(memory[1000:], before[1000:]) {
		t.Error("memory changed")
	}
}

// TestEachFlippedByteIsRefusedAndStaysWhereItIs flips ciphertext, tag and AAD.
func TestEachFlippedByteIsRefusedAndStaysWhereItIs(t *testing.T) {
	memory := newMemory()
	op := abi.SpanOp{Kind: abi.SpanSeal, Data: abi.Span{At: 2000, Size: 116}, Head: abi.Span{At: 3000, Size: 9}, Key: &key, Nonce: &nonce}
	plain := bytes.Clone(memory[2000:2100])
	run(memory, op)
	op.Kind = abi.SpanOpen
	sealed := bytes.Clone(memory)
	for i := range memorySize {
		if (i < 2000 || i >= 2116) && (i < 3000 || i >= 3009) {
			continue
		}
		copy(memory, sealed)
		memory[i] ^= 1 << (i % 8)
		flipped := bytes.Clone(memory)
		if s := run(memory, op); s != plugin.StatusOK || statusOf(memory, 0) != abi.SpanRefused {
			t.Fatalf("byte %d: status %d, %d", i, s, statusOf(memory, 0))
		}
		if !bytes.Equal(memory[1000:], flipped[1000:]) {
			t.Fatalf("byte %d: memory changed", i)
		}
	}
	copy(memory, sealed)
	if run(memory, op); statusOf(memory, 0) != abi.SpanDone || !bytes.Equal(memory[2000:2100], plain) {
		t.Error("what was sealed does not open")
	}
}

func TestSpansThatLieAreRefusedAndNothingIsWritten(t *testing.T) {
	ok := abi.Span{At: 2000, Size: 100}
	for name, op := range map[string]abi.SpanOp{
		"data beyond memory":   {Kind: abi.SpanSeal, Data: abi.Span{At: memorySize - 10, Size: 20}, Key: &key, Nonce: &nonce},
		"data that wraps":      {Kind: abi.SpanCheck, Data: abi.Span{At: 1<<32 - 10, Size: 20}},
		"AAD beyond memory":    {Kind: abi.SpanSeal, Data: ok, Head: abi.Span{At: memorySize, Size: 1}, Key: &key, Nonce: &nonce},
		"AAD over data":        {Kind: abi.SpanSeal, Data: ok, Head: abi.Span{At: 2099, Size: 20}, Key: &key, Nonce: &nonce},
		"AAD that is data":     {Kind: abi.SpanSeal, Data: ok, Head: ok, Key: &key, Nonce: &nonce},
		"data over the block":  {Kind: abi.SpanSeal, Data: abi.Span{At: 80, Size: 100}, Key: &key, Nonce: &nonce},
		"sum over its data":    {Kind: abi.SpanSum, Data: ok, Out: abi.Span{At: 2096, Size: 4}},
		"sum that is its data": {Kind: abi.SpanSum, Data: abi.Span{At: 2096, Size: 4}, Out: abi.Span{At: 2096, Size: 4}},
		"sum over the block":   {Kind: abi.SpanSum, Data: ok, Out: abi.Span{At: 91, Size: 4}},
		"sum beyond memory":    {Kind: abi.SpanSum, Data: ok, Out: abi.Span{At: memorySize - 3, Size: 4}},
		"inflate into itself":  {Kind: abi.SpanInflate, Codec: 1, Data: ok, Out: abi.Span{At: 2099, Size: 100}},
	} {
		memory := newMemory()
		block := abi.AppendSpans(memory[:0], []abi.SpanOp{{Kind: abi.SpanSeal, Data: abi.Span{At: 3000, Size: 50}, Key: &key, Nonce: &nonce}, op})
		before := bytes.Clone(memory)
		if s := new(worker).run(memory, abi.Span{Size: uint32(len(block))}); s == plugin.StatusOK {
			t.Errorf("%s: done", name)
		}
		if !bytes.Equal(memory, before) {
			t.Errorf("%s: memory changed", name)
		}
	}
}

// FuzzLies has a module ask for anything: nothing outside of what its operations may write is
// written, and nothing panics.
func FuzzLies(f *testing.F) {
	seed := abi.AppendSpans(nil, []abi.SpanOp{
		{Kind: abi.SpanCheck, Data: abi.Span{At: 1000, Size: 0}},
		{Kind: abi.SpanSeal, Data: abi.Span{At: 2000, Size: 116}, Head: abi.Span{At: 3000, Size: 9}, Key: &key, Nonce: &nonce},
		{Kind: abi.SpanOpen, Data: abi.Span{At: 2000, Size: 116}, Head: abi.Span{At: 3000, Size: 9}, Key: &key, Nonce: &nonce},
		{Kind: abi.SpanSum, Data: abi.Span{At: 2000, Size: 116}, Out: abi.Span{At: 1996, Size: 4}},
		{Kind: abi.SpanInflate, Codec: 2, Data: abi.Span{At: 900, Size: 10}, Out: abi.Span{At: 3100, Size: 50}},
	})
	f.Add(seed, uint16(0), uint16(len(seed)))
	f.Add(seed[:4], uint16(0), uint16(4))
	f.Add(seed[:4+abi.SpanOpSize], uint16(100), uint16(4+abi.SpanOpSize))
	f.Fuzz(func(t *testing.T, block []byte, at, size uint16) {
		memory := newMemory()
		if int(at) < len(memory) {
			copy(memory[at:], block)
		}
		where := abi.Span{At: uint32(at), Size: uint32(size)}
		before := bytes.Clone(memory)
		status := new(worker).run(memory, where)
		may := make([]bool, len(memory))
		if b, ok := where.In(before); ok && status == plugin.StatusOK {
			ops, err := abi.ParseSpans(nil, b)
			if err != nil {
				t.Fatal("what does not parse was run")
			}
			for i, o := range ops {
				w := o.Written()
				for j := range w.Size {
					may[w.At+j] = true
				}
				op := int(at) + abi.SpansHeaderSize + i*abi.SpanOpSize
				may[op+1] = true // its status, and what inflating made
				for j := range 4 {
					may[op+4+j] = may[op+4+j] || o.Kind == abi.SpanInflate
				}
			}
		}
		for i := range memory {
			if memory[i] != before[i] && !may[i] {
				t.Fatalf("status %d: byte %d was written", status, i)
			}
		}
	})
}

// TestACallAllocatesForTheAEADAlone counts what x/crypto makes for a key: 32 bytes, which
// package scrub has the collector overwrite.
func TestACallAllocatesForTheAEADAlone(t *testing.T) {
	memory := newMemory()
	w := new(worker)
	ops := []abi.SpanOp{
		{Kind: abi.SpanSeal, Data: abi.Span{At: 2000, Size: 300}, Key: &key, Nonce: &nonce},
		{Kind: abi.SpanOpen, Data: abi.Span{At: 2000, Size: 300}, Key: &key, Nonce: &nonce},
		{Kind: abi.SpanSum, Data: abi.Span{At: 2000, Size: 300}, Out: abi.Span{At: 1996, Size: 4}},
	}
	if n := testing.AllocsPerRun(100, func() {
		block := abi.AppendSpans(memory[:0], ops)
		if w.run(memory, abi.Span{Size: uint32(len(block))}) != plugin.StatusOK || statusOf(memory, 2) != abi.SpanDone {
			panic("not done")
		}
	}); n > 2 {
		t.Errorf("%v allocations", n)
	}
}
