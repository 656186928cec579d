// Package kernel is the arithmetic that a batch costs: XChaCha20-Poly1305
// (draft-irtf-cfrg-xchacha-03) over bytes in place, as plain functions, so that a faster
// back end can take their place. It knows nothing of formats or policy and imports the
// standard library only.
//
// It is written for WebAssembly, where x/crypto's portable code is slow: see the widths in
// poly1305.go. Unlike x/crypto's, Open leaves the bytes as they were when the tag does not
// verify, and nothing derived from a key stays on the heap.
package kernel

import (
	"crypto/subtle"
	"encoding/binary"
)

// Sizes in bytes.
const (
	KeySize   = 32
	NonceSize = 24
	TagSize   = 16
)

// Seal encrypts all of buf but its last TagSize bytes in place and writes the tag there. No
// pair of key and nonce may be used twice. buf must hold a tag and not overlap aad.
func Seal(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	var c chacha20
	var p poly1305
	plain, tag := buf[:len(buf)-TagSize], buf[len(buf)-TagSize:]
	c.start(key, nonce, &p)
	c.xor(plain)
	sum(&p, aad, plain, (*[TagSize]byte)(tag))
	c, p = chacha20{}, poly1305{}
}

// Open verifies the tag in the last TagSize bytes of buf and decrypts the bytes before it
// in place. It returns false, and buf is as it was, where buf is shorter than a tag or the
// tag does not verify. buf must not overlap aad.
func Open(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) bool {
	if len(buf) < TagSize {
		return false
	}
	var c chacha20
	var p poly1305
	var want [TagSize]byte
	ciphertext, tag := buf[:len(buf)-TagSize], buf[len(buf)-TagSize:]
	c.start(key, nonce, &p)
	sum(&p, aad, ciphertext, &want)
	ok := subtle.ConstantTimeCompare(want[:], tag) == 1
	if ok {
		c.xor(ciphertext)
	}
	c, p, want = chacha20{}, poly1305{}, [TagSize]byte{}
	return ok
}

// sum writes the tag over aad and ciphertext (RFC 8439 §2.8).
func sum(p *poly1305, aad, ciphertext []byte, tag *[TagSize]byte) {
	var sizes [16]byte
	p.update(aad)
	p.update(ciphertext)
	binary.LittleEndian.PutUint64(sizes[:], uint64(len(aad)))
	binary.LittleEndian.PutUint64(sizes[8:], uint64(len(ciphertext)))
	p.update(sizes[:])
	p.sum(tag)
}
