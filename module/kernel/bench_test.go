package kernel

import (
	"fmt"
	"testing"
)

var sizes = []int{64, 1 << 10, 16 << 10, 1 << 20}

func bench(b *testing.B, size int, work func(buf []byte)) {
	buf := make([]byte, size+TagSize)
	b.SetBytes(int64(size))
	for b.Loop() {
		work(buf)
	}
}

func BenchmarkSeal(b *testing.B) {
	var key [KeySize]byte
	var nonce [NonceSize]byte
	var aad [70]byte // of a packed value
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			bench(b, size, func(buf []byte) { Seal(buf, &key, &nonce, aad[:]) })
		})
	}
}

// Sealing what was opened restores it, so that each call opens something.
func BenchmarkSealAndOpen(b *testing.B) {
	var key [KeySize]byte
	var nonce [NonceSize]byte
	var aad [70]byte
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			bench(b, size, func(buf []byte) {
				Seal(buf, &key, &nonce, aad[:])
				if !Open(buf, &key, &nonce, aad[:]) {
					b.Fatal("does not open")
				}
			})
		})
	}
}

func BenchmarkCRC32C(b *testing.B) {
	for _, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			bench(b, size, func(buf []byte) { CRC32C(buf) })
		})
	}
}
