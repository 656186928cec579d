package filter

import (
	"bytes"
	"io"
	"math/rand"
)

// wazeroSeed seeds the random source that wazero 1.12 gives a module whose host configured
// none: math/rand's bytes under seed 42, anew for each instance. How far into the stream
// the first draw lies depends on what the Go runtime drew before (16 bytes with Go 1.26),
// so a window of the stream is searched.
const (
	wazeroSeed   = 42
	wazeroWindow = 4096
)

// weakRandom draws 32 bytes twice from random and reports whether the source fails, is
// constant, repeats, or is wazero's deterministic default.
func weakRandom(random io.Reader) bool {
	var a, b [32]byte
	if _, err := io.ReadFull(random, a[:]); err != nil {
		return true
	}
	if _, err := io.ReadFull(random, b[:]); err != nil {
		return true
	}
	if a == b || a == [32]byte(bytes.Repeat(a[:1], 32)) || bytes.Equal(a[:16], a[16:]) {
		return true
	}
	stream := make([]byte, wazeroWindow)
	rand.New(rand.NewSource(wazeroSeed)).Read(stream)
	return bytes.Contains(stream, a[:]) || bytes.Contains(stream, b[:])
}
