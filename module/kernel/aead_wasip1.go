//go:build !simd

package kernel

// Seal encrypts all of buf but its last TagSize bytes in place and writes the tag there. No
// pair of key and nonce may be used twice. buf must hold a tag and not overlap aad.
func Seal(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	sealInPlace(buf, key, nonce, aad)
}

// Open verifies the tag in the last TagSize bytes of buf and decrypts the bytes before it
// in place. It returns false, and buf is as it was, where buf is shorter than a tag or the
// tag does not verify. buf must not overlap aad.
func Open(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) bool {
	return openInPlace(buf, key, nonce, aad)
}
