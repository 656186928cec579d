package kernel

import (
	"bytes"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

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

// TestModulesAEADIsTheReadyMadeOne compares what the module runs with what everything else
// does.
func TestModulesAEADIsTheReadyMadeOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain, key, nonce, aad := draw(t)
		want := append(bytes.Clone(plain), make([]byte, TagSize)...)
		Seal(want, &key, &nonce, aad)
		buf := append(bytes.Clone(plain), make([]byte, TagSize)...)
		sealInPlace(buf, &key, &nonce, aad)
		if !bytes.Equal(buf, want) {
			t.Fatalf("sealed %x, want %x", buf, want)
		}
		if !openInPlace(buf, &key, &nonce, aad) || !bytes.Equal(buf[:len(plain)], plain) {
			t.Fatal("what was sealed does not open")
		}
	})
}

func TestTamperedByteIsRefusedAndLeavesTheBufferAlone(t *testing.T) {
	key, nonce, aad := [KeySize]byte{1}, [NonceSize]byte{2}, []byte("aad")
	sealed := append(bytes.Repeat([]byte("plain"), 30), make([]byte, TagSize)...)
	Seal(sealed, &key, &nonce, aad)
	for name, open := range map[string]func([]byte, *[KeySize]byte, *[NonceSize]byte, []byte) bool{"native": Open, "module": openInPlace} {
		t.Run(name, func(t *testing.T) { tamper(t, sealed, key, nonce, aad, open) })
	}
}

func tamper(t *testing.T, sealed []byte, key [KeySize]byte, nonce [NonceSize]byte, aad []byte,
	open func([]byte, *[KeySize]byte, *[NonceSize]byte, []byte) bool) {
	for i := range sealed {
		b := bytes.Clone(sealed)
		b[i] ^= 1 << (i % 8)
		before := bytes.Clone(b)
		if open(b, &key, &nonce, aad) {
			t.Fatalf("opened with byte %d flipped", i)
		}
		if !bytes.Equal(b, before) {
			t.Fatalf("byte %d flipped: the refused buffer changed", i)
		}
	}
	for n := range len(sealed) {
		if open(bytes.Clone(sealed[:n]), &key, &nonce, aad) {
			t.Fatalf("opened %d of %d bytes", n, len(sealed))
		}
	}
	if open(bytes.Clone(sealed), &key, &nonce, []byte("dad")) {
		t.Error("opened under another AAD")
	}
	other := key
	other[31] ^= 0x80
	if open(bytes.Clone(sealed), &other, &nonce, aad) {
		t.Error("opened under another key")
	}
	for i := range nonce {
		n := nonce
		n[i] ^= 1
		if open(bytes.Clone(sealed), &key, &n, aad) {
			t.Errorf("opened with nonce byte %d flipped", i)
		}
	}
}

func TestCRC32CIsTheReadyMadeOne(t *testing.T) {
	b := make([]byte, 20<<10)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	for n := 4; n < len(b); n += 1 + n/9 {
		from := n % 5
		if got, want := CRC32C(b[from:n]), crc32.Checksum(b[from:n], crc32.MakeTable(crc32.Castagnoli)); got != want {
			t.Fatalf("%d bytes: %08x, want %08x", n-from, got, want)
		}
	}
}
