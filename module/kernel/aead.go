// Package kernel is the arithmetic that a batch costs: XChaCha20-Poly1305
// (draft-irtf-cfrg-xchacha-03) over bytes in place and CRC-32C, as plain functions, so that a faster
// back end can take their place. It knows nothing of formats or policy.
//
// Inside the module the AEAD of RFC 8439 §2.8 is put together from x/crypto's ChaCha20 and
// Poly1305 (sealInPlace, openInPlace), because their states can be wiped where they stand;
// x/crypto's ready-made AEAD leaves a copy of the key on the heap, where it outlives the
// leaf. Everywhere else that ready-made AEAD is used, which is also what the other is tested
// against. The released module is built with the tag simd and takes neither: its functions
// are those of package simd.
package kernel

import (
	"encoding/binary"

	"golang.org/x/crypto/chacha20"
	"golang.org/x/crypto/poly1305"
)

// Sizes in bytes.
const (
	KeySize   = 32
	NonceSize = 24
	TagSize   = 16
)

// sealInPlace encrypts all of buf but its last TagSize bytes and writes the tag there.
func sealInPlace(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	c, p := start(key, nonce)
	plain, tag := buf[:len(buf)-TagSize], buf[len(buf)-TagSize:]
	c.XORKeyStream(plain, plain)
	*c = chacha20.Cipher{}
	authenticate(p, aad, plain)
	p.Sum(tag[:0])
}

// openInPlace verifies before it decrypts, so that buf is as it was where it returns false.
func openInPlace(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) bool {
	if len(buf) < TagSize {
		return false
	}
	c, p := start(key, nonce)
	ciphertext, tag := buf[:len(buf)-TagSize], buf[len(buf)-TagSize:]
	authenticate(p, aad, ciphertext)
	ok := p.Verify(tag)
	if ok {
		c.XORKeyStream(ciphertext, ciphertext)
	}
	*c = chacha20.Cipher{}
	return ok
}

// start derives the message's key (HChaCha20 over the first 16 bytes of the nonce). It
// returns the cipher at the message's first block, which the caller wipes, and the
// authenticator keyed by the block before it (RFC 8439 §2.6). What stays on the heap of the
// latter forges this one message and opens nothing.
func start(key *[KeySize]byte, nonce *[NonceSize]byte) (*chacha20.Cipher, *poly1305.MAC) {
	sub, err := chacha20.HChaCha20(key[:], nonce[:16])
	if err != nil {
		panic(err) // it looks at lengths alone, and they are fixed
	}
	var rest [chacha20.NonceSize]byte
	copy(rest[4:], nonce[16:])
	c, err := chacha20.NewUnauthenticatedCipher(sub, rest[:])
	if err != nil {
		panic(err) // as above
	}
	clear(sub)
	var once [32]byte
	c.XORKeyStream(once[:], once[:])
	p := poly1305.New(&once)
	clear(once[:])
	c.SetCounter(1)
	return c, p
}

// authenticate feeds p with aad and ciphertext, each padded to 16 bytes, and their sizes.
func authenticate(p *poly1305.MAC, aad, ciphertext []byte) {
	var block [16]byte
	p.Write(aad)
	p.Write(block[:-len(aad)&15])
	p.Write(ciphertext)
	p.Write(block[:-len(ciphertext)&15])
	binary.LittleEndian.PutUint64(block[:], uint64(len(aad)))
	binary.LittleEndian.PutUint64(block[8:], uint64(len(ciphertext)))
	p.Write(block[:])
}
