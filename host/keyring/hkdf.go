package keyring

import (
	"crypto/sha256"
	"errors"
	"runtime"
)

// The standard library's HMAC, HKDF and HPKE leave copies of what they are keyed with on the
// heap, where nobody can wipe them and a collection does not. So these few lines of RFC 2104
// and RFC 5869 are written over fixed arrays, with the library's SHA-256 beneath.

// hmacBlock is SHA-256's block, and hmacMost the longest message in bytes: the derivation of
// a root for a topic of 249 bytes takes 349.
const (
	hmacBlock = 64
	hmacMost  = 448
)

var errTooLong = errors.New("key derivation: the context is too long")

// hmac is HMAC-SHA256 of the concatenation of parts under a key of at most 64 bytes.
func hmac(out *[sha256.Size]byte, key []byte, parts ...string) error {
	var inner [hmacBlock + hmacMost]byte
	var outer [hmacBlock + sha256.Size]byte
	defer clear(inner[:])
	defer clear(outer[:])
	n := hmacBlock
	for _, p := range parts {
		if len(p) > len(inner)-n {
			return errTooLong
		}
		n += copy(inner[n:], p)
	}
	if len(key) > hmacBlock {
		return errTooLong
	}
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range hmacBlock {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	*out = sha256.Sum256(inner[:n])
	copy(outer[hmacBlock:], out[:])
	*out = sha256.Sum256(outer[:])
	return nil
}

// expand is HKDF-Expand-SHA256(secret, label ‖ context, 32) into out.
func expand(out *[32]byte, secret *secretKey, label, context string) error {
	burnStack()
	defer burnStack()
	return hmac(out, secret[:], label, context, "\x01")
}

// burnStack overwrites the part of the stack that a callee's frames may have left secrets in.
// Called before as well, it makes the stack grow while there is none to leave behind.
//
//go:noinline
func burnStack() {
	var frames [24 << 10]byte
	clear(frames[:])
	runtime.KeepAlive(&frames)
}
