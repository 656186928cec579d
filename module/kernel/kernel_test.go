package kernel

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"pgregory.net/rapid"
)

// oracle seals with x/crypto.
func oracle(plain []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) []byte {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err)
	}
	return aead.Seal(nil, nonce[:], plain, aad)
}

func draw(t *rapid.T) (plain []byte, key [KeySize]byte, nonce [NonceSize]byte, aad []byte) {
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
	fill := func(b []byte) {
		// Runs of ones reach the carries and the final reduction.
		ones := r.IntN(3) == 0
		for i := range b {
			if b[i] = byte(r.Uint32()); ones {
				b[i] = 0xff
			}
		}
	}
	plain = make([]byte, rapid.IntRange(0, 400).Draw(t, "size"))
	aad = make([]byte, rapid.IntRange(0, 80).Draw(t, "aadSize"))
	fill(plain)
	fill(aad)
	fill(key[:])
	fill(nonce[:])
	return
}

func TestSealsAsAnIndependentImplementationDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain, key, nonce, aad := draw(t)
		want := oracle(plain, &key, &nonce, aad)
		buf := append(bytes.Clone(plain), make([]byte, TagSize)...)
		Seal(buf, &key, &nonce, aad)
		if !bytes.Equal(buf, want) {
			t.Fatalf("sealed %x, want %x", buf, want)
		}
		if !Open(buf, &key, &nonce, aad) || !bytes.Equal(buf[:len(plain)], plain) {
			t.Fatal("what was sealed does not open")
		}
	})
}

// TestReducesTagsNearTheModulus gives the authenticator the accumulators around 2^130-5,
// which random messages never reach.
func TestReducesTagsNearTheModulus(t *testing.T) {
	// With r = 1 the accumulator is the plain sum of the blocks and their 2^128.
	for _, tt := range []struct{ blocks, tag string }{
		// RFC 8439 Appendix A.3, vectors 7 to 9, with r = 1 and s = 0 where they have it.
		{"fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000", "05000000000000000000000000000000"},
		{"fffffffffffffffffffffffffffffffffbfefefefefefefefefefefefefefefe01010101010101010101010101010101", "00000000000000000000000000000000"},
	} {
		blocks, _ := hex.DecodeString(tt.blocks)
		var p poly1305
		p.start(&[8]uint32{1})
		p.update(blocks)
		var tag [TagSize]byte
		p.sum(&tag)
		if got := hex.EncodeToString(tag[:]); got != tt.tag {
			t.Errorf("tag of %s = %s, want %s", tt.blocks, got, tt.tag)
		}
	}
	// Vector 9: r = 2.
	block, _ := hex.DecodeString("fdffffffffffffffffffffffffffffff")
	var p poly1305
	p.start(&[8]uint32{2})
	p.update(block)
	var tag [TagSize]byte
	p.sum(&tag)
	if got := hex.EncodeToString(tag[:]); got != "faffffffffffffffffffffffffffffff" {
		t.Errorf("tag under r = 2: %s", got)
	}
}

func TestTamperedByteIsRefusedAndLeavesTheBufferAlone(t *testing.T) {
	key, nonce, aad := [KeySize]byte{1}, [NonceSize]byte{2}, []byte("aad")
	sealed := oracle(bytes.Repeat([]byte("plain"), 30), &key, &nonce, aad)
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1 << (i % 8)
		before := bytes.Clone(b)
		if Open(b, &key, &nonce, aad) {
			t.Fatalf("opened with byte %d flipped", i)
		}
		if !bytes.Equal(b, before) {
			t.Fatalf("byte %d flipped: the refused buffer changed", i)
		}
	}
	for n := range len(sealed) {
		if Open(bytes.Clone(sealed[:n]), &key, &nonce, aad) {
			t.Fatalf("opened %d of %d bytes", n, len(sealed))
		}
	}
	if Open(bytes.Clone(sealed), &key, &nonce, []byte("dad")) {
		t.Error("opened under another AAD")
	}
	other := key
	other[31] ^= 0x80
	if Open(bytes.Clone(sealed), &other, &nonce, aad) {
		t.Error("opened under another key")
	}
	for i := range nonce {
		n := nonce
		n[i] ^= 1
		if Open(bytes.Clone(sealed), &key, &n, aad) {
			t.Errorf("opened with nonce byte %d flipped", i)
		}
	}
}

func TestNothingIsAllocated(t *testing.T) {
	var key [KeySize]byte
	var nonce [NonceSize]byte
	buf := make([]byte, 1000+TagSize)
	aad := make([]byte, 68)
	if n := testing.AllocsPerRun(10, func() {
		Seal(buf, &key, &nonce, aad)
		Open(buf, &key, &nonce, aad)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSeal16K(b *testing.B) {
	var key [KeySize]byte
	var nonce [NonceSize]byte
	buf := make([]byte, 16<<10+TagSize)
	b.SetBytes(16 << 10)
	for b.Loop() {
		Seal(buf, &key, &nonce, nil)
	}
}
