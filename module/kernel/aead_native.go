//go:build !wasip1

package kernel

import (
	"bytes"

	"golang.org/x/crypto/chacha20poly1305"
)

// Seal is as in the module: see aead_wasip1.go.
func Seal(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // it looks at the length alone, and that is fixed
	}
	aead.Seal(buf[:0], nonce[:], buf[:len(buf)-TagSize], aad)
}

// Open is as in the module: see aead_wasip1.go.
func Open(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) bool {
	if len(buf) < TagSize {
		return false
	}
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // as in Seal
	}
	// x/crypto wipes its output where the tag does not verify, so that in place the
	// ciphertext would be lost.
	before := bytes.Clone(buf)
	if _, err = aead.Open(buf[:0], nonce[:], buf, aad); err != nil {
		copy(buf, before)
	}
	return err == nil
}
