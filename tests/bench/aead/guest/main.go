//go:build wasip1

// Command guest is a module that seals and opens messages of zeros with package kernel and
// does nothing else. It is built for GOOS=wasip1.
package main

import "github.com/wasm-e2ee/wasm-e2ee/module/kernel"

// maxSize is the longest message in bytes.
const maxSize = 1 << 20

var (
	key    [kernel.KeySize]byte
	nonce  [kernel.NonceSize]byte
	buf    [maxSize + kernel.TagSize]byte
	sealed = map[uint32][]byte{} // by the size of the message
)

func main() {}

// seal seals so many messages of size bytes. It returns 1, and 0 for a size that is too large.
//
//go:wasmexport seal
func seal(size, messages uint32) uint32 {
	if size > maxSize {
		return 0
	}
	for range messages {
		kernel.Seal(buf[:size+kernel.TagSize], &key, &nonce, nil)
	}
	return 1
}

// open is seal's reverse. It returns 0 too where a message does not open.
//
//go:wasmexport open
func open(size, messages uint32) uint32 {
	if size > maxSize {
		return 0
	}
	if sealed[size] == nil {
		message := make([]byte, size+kernel.TagSize)
		kernel.Seal(message, &key, &nonce, nil)
		sealed[size] = message
	}
	for range messages {
		b := buf[:copy(buf[:], sealed[size])]
		if !kernel.Open(b, &key, &nonce, nil) {
			return 0
		}
	}
	return 1
}
