//go:build simd

package kernel

import (
	"unsafe"

	"github.com/wasm-e2ee/wasm-e2ee/module/kernel/simd"
)

// These stand for functions that package splice puts in their place once the module is
// linked (package simd); a module that still imports them does not load. They check no
// length and overwrite scratch with zeros.

//go:wasmimport kernel seal
//go:noescape
func simdSeal(buf *byte, n uint32, aad *byte, aadSize uint32, key *[KeySize]byte, nonce *[NonceSize]byte, scratch *[simd.ScratchSize]byte)

//go:wasmimport kernel open
//go:noescape
func simdOpen(buf *byte, n uint32, aad *byte, aadSize uint32, key *[KeySize]byte, nonce *[NonceSize]byte, scratch *[simd.ScratchSize]byte) (ok uint32)

//go:wasmimport kernel crc32c
//go:noescape
func simdCRC32C(crc uint32, p *byte, n uint32, table *[simd.TableSize / 4]uint32, scratch *[simd.ScratchSize]byte) uint32

var (
	scratch [simd.ScratchSize]byte
	table   = simd.Table()
)

// Seal encrypts all of buf but its last TagSize bytes in place and writes the tag there. No
// pair of key and nonce may be used twice. buf must hold a tag and not overlap aad.
func Seal(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) {
	n := len(buf[:len(buf)-TagSize])
	simdSeal(unsafe.SliceData(buf), uint32(n), unsafe.SliceData(aad), uint32(len(aad)), key, nonce, &scratch)
}

// Open verifies the tag in the last TagSize bytes of buf and decrypts the bytes before it
// in place. It returns false, and buf is as it was, where buf is shorter than a tag or the
// tag does not verify. buf must not overlap aad.
func Open(buf []byte, key *[KeySize]byte, nonce *[NonceSize]byte, aad []byte) bool {
	if len(buf) < TagSize {
		return false
	}
	n := len(buf) - TagSize
	return simdOpen(unsafe.SliceData(buf), uint32(n), unsafe.SliceData(aad), uint32(len(aad)), key, nonce, &scratch) != 0
}

// CRC32C returns the CRC-32C (Castagnoli, RFC 3720 §12.1) of b.
func CRC32C(b []byte) uint32 { return UpdateCRC32C(0, b) }

// UpdateCRC32C returns the CRC-32C of what crc is that of, with b behind it.
func UpdateCRC32C(crc uint32, b []byte) uint32 {
	return simdCRC32C(crc, unsafe.SliceData(b), uint32(len(b)), table, &scratch)
}
